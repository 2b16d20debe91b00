#include "gatewayd/flight_private.h"

#include <stdlib.h>

#include "common/log.h"
#include "gatewayd/store.h"
#include "gatewayd/surrogate_keys.h"

/* ---- Resolving ---- */

void flight_ticket_done(struct flights *flights, struct buyer *buyer)
{
	BUG_ON(buyer->unresolved == 0);
	if (--buyer->unresolved == 0 && !buyer->entering)
		flight_look_leave(flights, buyer);
}

void flight_resolve(struct flight *flight, struct cache_object *object, const struct buyer *finder,
	enum flight_source source)
{
	struct flights *flights = flight->flights;
	struct ticket *ticket;
	while ((ticket = TAILQ_FIRST(&flight->tickets))) {
		TAILQ_REMOVE(&flight->tickets, ticket, link);
		ticket->flight = NULL;
		flight_ticket_done(flights, ticket->buyer);
		bool own = source == FLIGHT_STORED || ticket->buyer == finder;
		ticket->joined = !own && flight->purchase ? purchase_trace(flight->purchase) : NULL;
		if (!own)
			flights->counters.joined++;
		flights->events.on_object(ticket, own ? source : FLIGHT_JOINED, object);
	}
	flight_free(flight);
}

/* ---- Entering and leaving ---- */

void flight_begin(struct flight *flight, struct buyer *payer)
{
	struct flights *flights = flight->flights;
	if (flight->owner != PEERS_SELF || !flights->parts.store)
		flight_want(flight, payer);
	else
		flight_look_queue(flight, payer);
	flight_buyer_ready(flights, payer);
}

/* A flight of an earlier request. */
static void join(struct flight *flight, struct buyer *buyer)
{
	if (!buyer->local_only || flight->owner == PEERS_SELF)
		return;
	/* Somebody asks us for what we ask somebody else for: no two may wait for each other. */
	if (flight->state == FLIGHT_ROUTED)
		TAILQ_REMOVE(&flight->payer->routed, flight, link);
	else
		purchase_forget(flight->purchase, flight);
	flight->purchase = NULL;
	flight->owner = PEERS_SELF;
	flight_begin(flight, buyer);
}

static struct flight *begin_new(
	struct flights *flights, struct buyer *buyer, const struct digest *key)
{
	struct flight *flight = flight_new(flights, key);
	if (!flight)
		return NULL;
	flight->owner = PEERS_SELF;
	if (buyer->keep_nothing)
		flight_detach(flight); /* who joined would have nothing kept either */
	if (buyer->fresh) {
		flight_want(flight, buyer);
		flight_buyer_ready(flights, buyer);
		return flight;
	}
	if (!buyer->local_only && flights->parts.peers)
		flight->owner = peers_owner(flights->parts.peers, key);
	flight_begin(flight, buyer);
	return flight;
}

/* The flight that this buyer may join. One that was purged since it was asked for is not it. */
static struct flight *find_current(
	struct flights *flights, const struct buyer *buyer, const struct digest *key)
{
	struct flight *flight = flight_find(flights, key);
	if (flight && buyer->fresh) {
		flight_detach(flight);
		return NULL;
	}
	if (!flight || flight->since == cache_purge_clock(flights->parts.cache))
		return flight;
	struct cache_tag_key own = cache_tag_key_of_digest(CACHE_TAG_ELEMENT, key);
	struct cache_tagging by_key = {.since = flight->since, .keys = &own, .n = 1};
	struct cache_tagging by_tags = element_tagging(buyer->tags, flight->since);
	if (!cache_purged_since(flights->parts.cache, &by_key) &&
		!cache_purged_since(flights->parts.cache, &by_tags))
		return flight;
	flight_detach(flight);
	return NULL;
}

void flights_enter_begin(struct flights *flights, struct buyer *buyer, struct ticket *tickets)
{
	(void)flights;
	TAILQ_INIT(&buyer->wanted);
	TAILQ_INIT(&buyer->routed);
	TAILQ_INIT(&buyer->queued);
	buyer->looking = buyer->looking_now = 0;
	buyer->traced_look_ups = 0;
	buyer->unresolved = 0;
	buyer->ready = buyer->has_turn = buyer->has_deadline = false;
	buyer->legacy = NULL;
	buyer->legacy_done = buyer->fresh;
	buyer->entering = true;
	buyer->tickets = tickets;
	buyer->n_tickets = 0;
}

int flights_enter_one(struct flights *flights, struct buyer *buyer)
{
	struct ticket *ticket = &buyer->tickets[buyer->n_tickets];
	struct flight *flight = find_current(flights, buyer, &ticket->key);
	if (flight)
		join(flight, buyer);
	else if (flights->n < flights->options.max_flights)
		flight = begin_new(flights, buyer, &ticket->key);
	if (!flight) {
		flights_leave(flights, buyer);
		return -1;
	}
	buyer->n_tickets++;
	buyer->unresolved++;
	ticket->buyer = buyer;
	ticket->flight = flight;
	TAILQ_INSERT_TAIL(&flight->tickets, ticket, link);
	return 0;
}

void flights_enter_end(struct flights *flights, struct buyer *buyer)
{
	buyer->entering = false;
	if (buyer->unresolved == 0) {
		flight_look_leave(flights, buyer);
		return;
	}
	if (flights->parts.store)
		flight_look_enter(flights, buyer);
	flight_look_start(flights);
	flight_buyer_ready(flights, buyer);
}

/* The payer has left; the flight is looked for or wanted by somebody else, or not at all. */
static void hand_over(struct flight *flight)
{
	struct ticket *next = TAILQ_FIRST(&flight->tickets);
	switch (flight->state) {
	case FLIGHT_QUEUED:
	case FLIGHT_LOOKING:
		flight_look_hand_over(flight, next ? next->buyer : NULL);
		break;
	case FLIGHT_WANTED:
		TAILQ_REMOVE(&flight->payer->wanted, flight, link);
		flight_elect(flight);
		break;
	case FLIGHT_ROUTED:
		TAILQ_REMOVE(&flight->payer->routed, flight, link);
		flight_elect(flight);
		break;
	case FLIGHT_BUYING:
		flight->payer = NULL;
		break;
	case FLIGHT_ORPHAN:
		break;
	}
}

void flights_leave(struct flights *flights, struct buyer *buyer)
{
	struct purchase *purchase = NULL;
	for (size_t i = 0; i < buyer->n_tickets; i++) {
		struct ticket *ticket = &buyer->tickets[i];
		struct flight *flight = ticket->flight;
		if (!flight)
			continue;
		TAILQ_REMOVE(&flight->tickets, ticket, link);
		ticket->flight = NULL;
		struct purchase *of_flight = flight->purchase;
		if (flight->payer == buyer)
			hand_over(flight);
		if (of_flight && of_flight != purchase) {
			if (purchase)
				flight_cancel_if_unwanted(purchase);
			purchase = of_flight;
		}
	}
	if (purchase)
		flight_cancel_if_unwanted(purchase);
	if (buyer->ready)
		TAILQ_REMOVE(&flights->ready, buyer, link);
	buyer->ready = buyer->entering = false;
	buyer->looking = buyer->unresolved = 0;
	buyer->n_tickets = 0;
	flight_look_leave(flights, buyer);
	flight_look_start(flights);
}

/* ---- The whole ---- */

static void report_idle(void *arg)
{
	struct flights *flights = arg;
	if (flights->n > 0 || !flights->on_idle)
		return;
	void (*on_idle)(void *) = flights->on_idle;
	flights->on_idle = NULL;
	on_idle(flights->on_idle_arg);
}

struct flights *flights_new(struct loop *loop, struct cache *cache, struct store *store,
	struct workers *workers, struct provider *provider, struct peers *peers,
	const struct flights_options *options, const struct flights_events *events)
{
	struct flights *flights = calloc(1, sizeof *flights);
	if (!flights)
		return NULL;
	flights->loop = loop;
	flights->options = *options;
	flights->events = *events;
	flights->parts = (struct purchase_parts){.loop = loop,
		.cache = cache,
		.store = store,
		.provider = provider,
		.peers = peers,
		.ttl_ms = options->ttl_ms,
		.grace_ms = options->grace_ms,
		.all = &flights->purchases};
	flights->purchase_events = flight_purchase_events;
	flights->purchase_events.arg = flights;
	flights->workers = workers;
	TAILQ_INIT(&flights->ready);
	deferred_init(&flights->buy_later, flight_buy, flights);
	deferred_init(&flights->idle_later, report_idle, flights);
	flights->buying = malloc(PROVIDER_MAX_INPUTS * sizeof *flights->buying);
	if (!flights->buying || flight_table_init(flights) < 0 || flight_look_init(flights) < 0) {
		free(flights->buying);
		free(flights->table);
		free(flights);
		return NULL;
	}
	return flights;
}

size_t flights_under_way(const struct flights *flights)
{
	return flights->n;
}

const struct flights_counters *flights_counters(const struct flights *flights)
{
	return &flights->counters;
}

void flights_on_idle(struct flights *flights, void (*on_idle)(void *arg), void *arg)
{
	flights->on_idle = on_idle;
	flights->on_idle_arg = arg;
	if (flights->n == 0)
		loop_defer(flights->loop, &flights->idle_later);
}

void flights_free(struct flights **pointer)
{
	struct flights *flights = *pointer;
	if (!flights)
		return;
	*pointer = NULL;
	flights->on_idle = NULL;
	while (flights->purchases)
		purchase_cancel(flights->purchases);
	while (flights->detached)
		flight_free(flights->detached);
	for (size_t i = 0; i < flights->table_size; i++)
		while (flights->table[i])
			flight_free(flights->table[i]);
	loop_defer_cancel(flights->loop, &flights->buy_later);
	loop_defer_cancel(flights->loop, &flights->idle_later);
	flight_look_uninit(flights);
	free(flights->buying);
	free(flights->table);
	free(flights);
}
