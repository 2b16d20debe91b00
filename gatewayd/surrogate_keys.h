#ifndef GATEWAYD_SURROGATE_KEYS_H
#define GATEWAYD_SURROGATE_KEYS_H

/*
 * Tags as they stand in a Surrogate-Key field: words of visible ASCII, parted by blanks. A client
 * may name tags for what it asks for, a provider for what it answers, and a purge names those that
 * go. At most SURROGATE_MAX_KEYS different ones of SURROGATE_MAX_KEY_BYTES; a tag of the gateway's
 * own, `model:<name>`, is on everything.
 *
 * Reading is pure; safe on any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"
#include "gatewayd/cache_tags.h"

struct exchange;

#define SURROGATE_MAX_KEYS      32
#define SURROGATE_MAX_KEY_BYTES 256

/* Add what a field names to the n in keys (spans are borrowed), those given twice once: how many
 * there are then. -1: *reason is one constant sentence. */
int surrogate_keys_add(
	struct span field, struct span keys[SURROGATE_MAX_KEYS], int n, const char **reason);
/* Of one field; 0 when it is empty. */
int surrogate_keys_read(
	struct span field, struct span keys[SURROGATE_MAX_KEYS], const char **reason);
/* Of all Surrogate-Key fields of a request. */
int surrogate_keys_of_request(
	const struct exchange *exchange, struct span keys[SURROGATE_MAX_KEYS], const char **reason);

/* The tag key of `model:<name>`. */
struct cache_tag_key surrogate_key_of_model(struct span model);

/* The tags of the elements that one request brings in. Counted; loop thread only. */
struct element_tags {
	unsigned references;
	size_t n;
	struct cache_tag_key *keys; /* CACHE_TAG_ELEMENTS, the model's, the client's */
	struct span field;          /* the client's, for another instance; empty: none */
};
/* names: n that were read. NULL when out of memory. */
struct element_tags *element_tags_new(struct span model, const struct span *names, size_t n);
/* NULL stands for no tags here, and below. */
struct element_tags *element_tags_ref(struct element_tags *tags);
struct cache_tagging element_tagging(const struct element_tags *tags, uint64_t since);
/* Clears the pointer. */
void element_tags_unref(struct element_tags **tags);

#endif
