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
/* Keep an answer (copied). A reference to it for the caller, whether it was kept or not; NULL when
 * out of memory. */
struct cache_object *response_cache_put(struct gateway *gateway, const struct digest *key,
	struct span model, uint64_t tokens, uint32_t n_elements, uint64_t stored_ms,
	struct span body);

#endif
