#include "gatewayd/flight_private.h"

#include <stdlib.h>

#include "common/log.h"
#include "gatewayd/store.h"

/* ---- Resolving ---- */

void flight_resolve(struct flight *flight, struct cache_object *object, const struct buyer *finder,
	enum flight_source source)
{
	struct flights *flights = flight->flights;
	struct ticket *ticket;
	while ((ticket = TAILQ_FIRST(&flight->tickets))) {
		TAILQ_REMOVE(&flight->tickets, ticket, link);
		ticket->flight = NULL;
		bool own = source == FLIGHT_STORED || ticket->buyer == finder;
		if (!own)
			flights->counters.joined++;
		else if (source == FLIGHT_BOUGHT)
			finder = NULL; /* a text that the payer repeats costs once */
		flights->events.on_object(ticket, own ? source : FLIGHT_JOINED, object);
	}
	flight_free(flight);
}

/* ---- Looking in the store ---- */

static void stop_looking(struct flight *flight)
{
	struct flights *flights = flight->flights;
	TAILQ_REMOVE(&flights->looking, flight, link);
	flights->n_looking--;
	store_get_cancel(&flight->get);
}

static void missing(struct flight *flight)
{
	struct buyer *payer = flight->payer;
	payer->looking--;
	flight_want(flight, payer);
	flight_buyer_ready(flight->flights, payer);
}

static void start_look_ups(struct flights *flights);

static void on_looked_up(enum store_result result, struct stored_object *stored, void *arg)
{
	struct flight *flight = arg;
	struct flights *flights = flight->flights;
	flight->get = NULL;
	stop_looking(flight);
	start_look_ups(flights);

	struct cache_object *object = NULL;
	if (result == STORE_FOUND) {
		const struct stored_fields *fields = &stored->fields;
		uint64_t now_ms = loop_wall_ms(flights->loop);
		struct cache_object_info info = {
			.kind = CACHE_ELEMENT,
			.key = flight->key,
			.stored_ms = fields->stored_ms,
			.fresh_from_ms = now_ms,
			.ttl_ms = flights->options.ttl_ms,
			.grace_ms = flights->options.grace_ms,
			.prompt_tokens = fields->prompt_tokens,
			.total_tokens = fields->total_tokens,
			.model = fields->model,
			.served_model = fields->served_model,
			.dims = fields->dims,
			.n_elements = 1,
		};
		object = cache_object_new(flights->parts.cache, &info,
			fields->source == VECTOR_BASE64 ? CACHE_BASE64 : CACHE_TEXT, fields->vector,
			true);
		if (object)
			cache_insert(flights->parts.cache, object, now_ms);
	}
	if (!object) {
		flights->counters.store_misses++;
		missing(flight);
		return;
	}
	flights->counters.store_hits++;
	struct buyer *payer = flight->payer;
	payer->looking--;
	flight_buyer_ready(
		flights, payer); /* before flight_resolve(): that may end the payer's request */
	flight_resolve(flight, object, NULL, FLIGHT_STORED);
	cache_object_unref(&object);
}

static void arm_deadline(struct flights *flights)
{
	struct flight *first = TAILQ_FIRST(&flights->looking);
	if (!first || timer_armed(flights->deadline))
		return;
	uint64_t now_us = loop_now_us(flights->loop);
	uint64_t left_us = first->give_up_us > now_us ? first->give_up_us - now_us : 0;
	timer_arm(flights->deadline, left_us / 1000 + 1);
}

static void start_look_ups(struct flights *flights)
{
	struct flight *flight;
	while (flights->n_looking < flights->options.max_look_ups &&
		(flight = TAILQ_FIRST(&flights->queued))) {
		TAILQ_REMOVE(&flights->queued, flight, link);
		flight->state = FLIGHT_LOOKING;
		flight->give_up_us = loop_now_us(flights->loop) +
				     flights->options.store_deadline_ms * 1000;
		TAILQ_INSERT_TAIL(&flights->looking, flight, link);
		flights->n_looking++;
		flight->get = store_get_start(
			flights->parts.store, &flight->key, on_looked_up, flight);
		if (!flight->get) {
			stop_looking(flight);
			missing(flight);
		}
	}
	arm_deadline(flights);
}

static void on_deadline(void *arg)
{
	struct flights *flights = arg;
	uint64_t now_us = loop_now_us(flights->loop);
	struct flight *flight;
	while ((flight = TAILQ_FIRST(&flights->looking)) && flight->give_up_us <= now_us) {
		stop_looking(flight);
		flights->counters.store_deadlines++;
		missing(flight);
	}
	start_look_ups(flights);
}

/* ---- Entering and leaving ---- */

int flights_enter(struct flights *flights, struct buyer *buyer, struct ticket *tickets, size_t n)
{
	if (flights->n + n > flights->options.max_flights)
		return -1;
	TAILQ_INIT(&buyer->wanted);
	buyer->looking = 0;
	buyer->ready = false;
	buyer->tickets = tickets;
	buyer->n_tickets = n;
	for (size_t i = 0; i < n; i++) {
		struct ticket *ticket = &tickets[i];
		ticket->buyer = buyer;
		struct flight *flight = flight_find(flights, &ticket->key);
		if (!flight) {
			flight = flight_new(flights, &ticket->key);
			if (!flight) {
				buyer->n_tickets = i;
				flights_leave(flights, buyer);
				return -1;
			}
			if (flights->parts.store) {
				flight->payer = buyer;
				flight->state = FLIGHT_QUEUED;
				buyer->looking++;
				TAILQ_INSERT_TAIL(&flights->queued, flight, link);
			} else {
				flight_want(flight, buyer);
			}
		}
		ticket->flight = flight;
		TAILQ_INSERT_TAIL(&flight->tickets, ticket, link);
	}
	start_look_ups(flights);
	flight_buyer_ready(flights, buyer);
	return 0;
}

/* The payer has left; the flight is looked for or wanted by somebody else, or not at all. */
static void hand_over(struct flight *flight)
{
	struct flights *flights = flight->flights;
	struct ticket *next = TAILQ_FIRST(&flight->tickets);
	switch (flight->state) {
	case FLIGHT_QUEUED:
	case FLIGHT_LOOKING:
		if (next) {
			flight->payer = next->buyer;
			next->buyer->looking++;
		} else if (flight->state == FLIGHT_QUEUED) {
			TAILQ_REMOVE(&flights->queued, flight, link);
			flight_free(flight);
		} else {
			stop_looking(flight);
			flight_free(flight);
		}
		break;
	case FLIGHT_WANTED:
		TAILQ_REMOVE(&flight->payer->wanted, flight, link);
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
		/* A repeated text has several tickets here: the last one hands over. */
		struct ticket *other;
		TAILQ_FOREACH (other, &flight->tickets, link)
			if (other->buyer == buyer)
				break;
		if (other)
			continue;
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
	buyer->ready = false;
	buyer->looking = 0;
	buyer->n_tickets = 0;
	start_look_ups(flights);
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
	struct provider *provider, const struct flights_options *options,
	const struct flights_events *events)
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
		.ttl_ms = options->ttl_ms,
		.grace_ms = options->grace_ms};
	flights->purchase_events = flight_purchase_events;
	flights->purchase_events.arg = flights;
	TAILQ_INIT(&flights->queued);
	TAILQ_INIT(&flights->looking);
	TAILQ_INIT(&flights->ready);
	deferred_init(&flights->buy_later, flight_buy, flights);
	deferred_init(&flights->idle_later, report_idle, flights);
	flights->deadline = timer_new(loop, on_deadline, flights);
	if (flight_table_init(flights) < 0 || !flights->deadline) {
		timer_free(&flights->deadline);
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
	for (size_t i = 0; i < flights->table_size; i++) {
		while (flights->table[i]) {
			struct flight *flight = flights->table[i];
			BUG_ON(!TAILQ_EMPTY(&flight->tickets));
			if (flight->purchase) {
				struct purchase *purchase = flight->purchase;
				for (size_t j = 0; j < purchase_size(purchase); j++)
					flight_free(purchase_flight(purchase, j));
				purchase_cancel(purchase);
			} else {
				flight_free(flight);
			}
		}
	}
	loop_defer_cancel(flights->loop, &flights->buy_later);
	loop_defer_cancel(flights->loop, &flights->idle_later);
	timer_free(&flights->deadline);
	free(flights->table);
	free(flights);
}
