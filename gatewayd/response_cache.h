#ifndef GATEWAYD_RESPONSE_CACHE_H
#define GATEWAYD_RESPONSE_CACHE_H

/*
 * Whole answers in memory, by what the client sent: method, body hash, URL, host, scope. A hit
 * parses nothing and allocates next to nothing. A gzip form is made in the background when a client
 * that takes gzip hits an answer that has none; until then it gets the plain one.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/span.h"
#include "gatewayd/cache_object.h"
#include "gatewayd/exchange.h"

struct element_tags;
struct gateway;

/* The fields that every embeddings answer carries, with room for their values. */
struct response_head {
	struct answer_head answer;
	char body_hash[DIGEST_HEX + 1];
	char age[24];
	char hits[48];
};
/* stored_ms 0: no Age. x_cache outlives the head. */
void response_head_fill(struct response_head *head, const struct gateway *gateway,
	const struct exchange *exchange, const char *x_cache, uint64_t stored_ms);
void response_head_hits(struct response_head *head, size_t hits, size_t n);

/* scope may be NULL. */
struct digest response_cache_key(const struct exchange *exchange, const struct digest *scope);
/* Answer from memory: true, and the exchange is dead. */
bool response_cache_answer(
	struct gateway *gateway, struct exchange *exchange, const struct digest *key);
/* More elements in an answer: it is not kept as a whole. */
#define RESPONSE_MAX_ELEMENTS 64

/* What is to be known of an answer that is kept; all borrowed. */
struct response_facts {
	struct digest key;
	struct cache_object *const *elements; /* that it is made of */
	uint32_t n_elements;                  /* 1 to RESPONSE_MAX_ELEMENTS */
	uint64_t tokens, stored_ms;
	uint64_t since;                  /* the purge clock when the request began */
	const struct element_tags *tags; /* the client's are on the whole, too */
	bool again; /* its elements were all in memory: somebody asked for them before */
};
/*
 * Keep an answer (copied), to be found by purges of its path, body hash, tags and of each of its
 * elements; but not when it is asked for the first time, as far as one can tell: most are never
 * asked for again, and their bytes are in memory once, as elements. A reference to it for the
 * caller, whether it was kept or not; NULL when out of memory, or when an element was purged
 * meanwhile. */
struct cache_object *response_cache_put(struct gateway *gateway, const struct exchange *exchange,
	const struct response_facts *facts, struct span body);

#endif
