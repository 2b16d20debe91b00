#ifndef GATEWAYD_CLIENT_KEYS_H
#define GATEWAYD_CLIENT_KEYS_H

/*
 * Who may use the gateway: a file of the SHA-256 digests of accepted keys, so that the file gives
 * no key away. One a line, with an optional limit; blank lines and what follows a # are passed
 * over:
 *
 *   # printf %s KEY | sha256sum
 *   9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  rpm=600   # team search
 *
 * rpm: requests a minute, as a bucket that holds a tenth of it (at least one) and fills evenly.
 * Digests are compared in constant time. At most 65,536 keys.
 */
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"

struct client_keys;

enum client_key_verdict {
	CLIENT_KEY_ACCEPTED,
	CLIENT_KEY_UNKNOWN,
	CLIENT_KEY_LIMITED, /* over its rpm: *retry_after_ms is set */
};

/* Blocks: for start and SIGHUP. NULL with a sentence that names file, line and what is wrong. */
struct client_keys *client_keys_load(const char *path, char *error, size_t error_size);
/* Take over what the buckets of these hold, for keys that are in both. */
void client_keys_inherit(struct client_keys *keys, const struct client_keys *before);
/* key: without "Bearer ". Counts a request against its limit. */
enum client_key_verdict client_keys_check(
	struct client_keys *keys, struct span key, uint64_t now_us, int64_t *retry_after_ms);
size_t client_keys_count(const struct client_keys *keys);
void client_keys_free(struct client_keys **keys);

#endif
