#ifndef REDISPROXY_SLOWLOG_H
#define REDISPROXY_SLOWLOG_H

/*
 * The last commands that took longer than a threshold, from their last byte to the last byte of
 * their reply: a ring of constant size. Never values: the command's name, its first key (or the
 * hash of it), the server, how long. Commands that may wait for others (BLPOP, XREAD BLOCK) and
 * connections that pass raw bytes (subscriptions, MONITOR) are not in it; of deep pipelines one
 * command of eight is measured.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"

#define SLOWLOG_MAX      10000
#define SLOWLOG_KEY_SHOW 64 /* bytes of a key that are kept, if any are */

struct slowlog;

/* n: entries, 1 to SLOWLOG_MAX. shows_keys: keys as they are, not their hashes alone. NULL when out
 * of memory. */
struct slowlog *slowlog_new(unsigned n, uint64_t threshold_us, bool shows_keys);
void slowlog_free(struct slowlog **slowlog);
/* A command with this key went out: its name is remembered for a while, with shows_keys. */
void slowlog_remember_key(struct slowlog *slowlog, struct span key, uint64_t hash);

struct slowlog_entry {
	const char *command; /* lives as long as the log */
	uint64_t duration_us;
	uint64_t key_hash;    /* 0: it has no key */
	const char *upstream; /* copied */
	bool failed;          /* the reply is an error */
};
/* Keeps it if it is slow. */
void slowlog_note(struct slowlog *slowlog, const struct slowlog_entry *entry);
/* Append the log, the latest first: {"threshold_ms", "total", "entries": [{"id", "time",
 * "duration_us", "command", "key" and/or "key_hash", "upstream", "failed"}]}. */
void slowlog_write_json(const struct slowlog *slowlog, struct buf *out);

#endif
