#ifndef GATEWAYD_PURCHASE_H
#define GATEWAYD_PURCHASE_H

/*
 * One call to the provider, or to the owner, for the elements that one payer misses, and what is
 * made of its answer: each vector becomes an object in memory and in the store. Holds copies of all
 * that it needs, so it goes on when its payer has left. Part of flight.h.
 */
#include "gatewayd/flight.h"

struct purchase;

struct purchase_parts {
	struct loop *loop;
	struct cache *cache;
	struct store *store; /* or NULL */
	struct provider *provider;
	struct peers *peers; /* or NULL */
	uint64_t ttl_ms, grace_ms;
	struct purchase **all; /* list of those under way */
};

/* One element of a purchase. */
struct purchase_item {
	struct digest key;
	struct span input_json; /* borrowed for purchase_start() */
	struct flight *flight;
};

struct purchase_events {
	/* A vector came: object is borrowed. */
	void (*on_object)(struct purchase *purchase, struct flight *flight,
		struct cache_object *object, enum flight_source source, void *arg);
	/* Always last; result is NULL when every object was handed over. The purchase is freed
	 * after this. */
	void (*on_end)(struct purchase *purchase, const struct provider_result *failure, void *arg);
	void (*on_bought)(struct span model, uint64_t tokens, size_t inputs, void *arg);
	void (*on_fetched)(const char *outcome, uint64_t duration_us, void *arg);
	void *arg;
};

extern const struct provider_result purchase_owner_lost;

/*
 * owner PEERS_SELF: buy from the provider; else ask that instance. NULL when out of memory, or when
 * the owner is gone. No callback from inside.
 */
struct purchase *purchase_start(const struct purchase_parts *parts, const struct buyer *payer,
	const struct purchase_item *items, size_t n, int owner,
	const struct purchase_events *events);
bool purchase_sent(const struct purchase *purchase);
size_t purchase_size(const struct purchase *purchase);
/* Look-ups, and puts, of one request that have spans of their own. */
#define TRACED_STEPS 16

/* The span of the call; NULL when its trace is not recorded. */
const struct trace *purchase_trace(const struct purchase *purchase);
/* NULL once its object was handed over, or after purchase_forget(). */
struct flight *purchase_flight(const struct purchase *purchase, size_t index);
const struct digest *purchase_credential(const struct purchase *purchase); /* of the payer */
int purchase_owner(const struct purchase *purchase);                       /* as started with */
/* With the gateway's own key. */
bool purchase_pays_itself(const struct purchase *purchase);
/* What comes for this flight is not wanted any more. */
void purchase_forget(struct purchase *purchase, const struct flight *flight);
/* No callback comes. */
void purchase_cancel(struct purchase *purchase);

#endif
