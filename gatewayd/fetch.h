#ifndef GATEWAYD_FETCH_H
#define GATEWAYD_FETCH_H

/*
 * Elements asked of their owner: RPC `fetch` to another instance, one call for all that a request
 * misses there. The owner looks in its memory, joins what is on its way, looks in the store and
 * buys, and sends the elements under credit.
 */
#include <stddef.h>
#include <stdint.h>

#include "gatewayd/flight.h"
#include "gatewayd/peers.h"
#include "gatewayd/provider.h"

struct fetch;

/* One element; spans are borrowed for the callback. */
struct fetched {
	size_t index;
	enum flight_source source;
	enum vector_source form;
	uint32_t dims;
	uint64_t prompt_tokens, total_tokens, stored_ms;
	struct span served_model, vector;
	struct span tags; /* of the owner's object: struct cache_tag_key */
};

enum fetch_outcome {
	FETCH_DONE,    /* every element was handed over */
	FETCH_REFUSED, /* the owner answered with an error: result is set */
	FETCH_LOST,    /* the owner is gone, busy, or does not keep to the rules: do it yourself */
};

struct fetch_events {
	void (*on_element)(const struct fetched *element, void *arg);
	/* Once, last, never from inside fetch_start(). result is set for FETCH_REFUSED. */
	void (*on_end)(enum fetch_outcome outcome, const struct provider_result *result, void *arg);
};

/* request as for a provider; large inputs are sent from their body, which is held meanwhile. NULL
 * when out of memory or the peer is gone. events must outlive it. */
struct fetch *fetch_start(struct loop *loop, struct peers *peers, int peer,
	const struct provider_request *request, const struct fetch_events *events, void *arg);
/* No callback comes; the owner is told. */
void fetch_cancel(struct fetch *fetch);

#endif
