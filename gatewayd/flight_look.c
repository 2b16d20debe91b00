/* Looking in the store: whose turn it is, and when to give up. */
#include "gatewayd/flight_private.h"

#include "common/log.h"
#include "gatewayd/query.h"
#include "gatewayd/surrogate_keys.h"

/* ---- Turns ---- */

static void update_turn(struct buyer *buyer, struct flights *flights)
{
	bool wants = !TAILQ_EMPTY(&buyer->queued) &&
		     buyer->looking_now < flights->options.parallel_look_ups;
	if (wants == buyer->has_turn)
		return;
	buyer->has_turn = wants;
	if (wants)
		TAILQ_INSERT_TAIL(&flights->turns, buyer, turn_link);
	else
		TAILQ_REMOVE(&flights->turns, buyer, turn_link);
}

void flight_look_queue(struct flight *flight, struct buyer *payer)
{
	flight->payer = payer;
	flight->state = FLIGHT_QUEUED;
	payer->looking++;
	TAILQ_INSERT_TAIL(&payer->queued, flight, link);
	update_turn(payer, flight->flights);
}

/* It is neither queued nor looked up any more, and its payer knows. */
static void stop_looking(struct flight *flight)
{
	struct flights *flights = flight->flights;
	struct buyer *payer = flight->payer;
	if (flight->state == FLIGHT_QUEUED) {
		TAILQ_REMOVE(&payer->queued, flight, link);
	} else {
		TAILQ_REMOVE(&flights->looking, flight, link);
		flights->n_looking--;
		payer->looking_now--;
		store_get_cancel(&flight->get);
	}
	payer->looking--;
	update_turn(payer, flights);
}

/* ---- Results ---- */

static void missing(struct flight *flight, struct buyer *payer)
{
	struct buyer *was = flight->payer;
	stop_looking(flight);
	flight_want(flight, payer);
	flight_buyer_ready(flight->flights, payer);
	if (was != payer)
		flight_buyer_ready(flight->flights, was);
}

struct cache_object *flight_keep_found(
	const struct flight *flight, const struct buyer *buyer, const struct stored_fields *fields)
{
	struct flights *flights = flight->flights;
	struct cache_tagging tagging = element_tagging(buyer->tags, flight->since);
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
	struct cache_object *object = cache_object_new(flights->parts.cache, &info,
		fields->source == VECTOR_BASE64 ? CACHE_BASE64 : CACHE_TEXT, fields->vector, true);
	if (object)
		cache_insert_tagged(flights->parts.cache, object, &tagging, now_ms);
	return object;
}

static void on_looked_up(enum store_result result, struct stored_object *stored, void *arg)
{
	struct flight *flight = arg;
	struct flights *flights = flight->flights;
	struct buyer *payer = flight->payer;
	struct cache_object *object = NULL;
	flight->get = NULL;
	flights->heard_us = loop_now_us(flights->loop);
	if (result == STORE_FOUND)
		object = flight_keep_found(flight, payer, &stored->fields);
	else if (result == STORE_LEGACY && flights->options.legacy_read)
		object = flight_legacy_single(flights, flight, stored);
	if (!object) {
		flights->counters.store_misses++;
		if (result == STORE_MISS_BOTH && flight->asks_about_legacy)
			payer->legacy_done = true;
		missing(flight, payer);
		flight_look_start(flights);
		return;
	}
	flights->counters.store_hits++;
	stop_looking(flight);
	flight_look_start(flights);
	flight_buyer_ready(
		flights, payer); /* before flight_resolve(): that may end the payer's request */
	flight_resolve(flight, object, NULL, FLIGHT_STORED);
	cache_object_unref(&object);
}

/* ---- Deadlines ---- */

static void arm_deadline(struct flights *flights)
{
	uint64_t patience_us = flights->options.store_deadline_ms * 1000, at_us = UINT64_MAX;
	struct flight *first = TAILQ_FIRST(&flights->looking);
	struct buyer *buyer = TAILQ_FIRST(&flights->deadlines);
	if (first) {
		at_us = first->give_up_us;
		if (flights->heard_us + patience_us < at_us)
			at_us = flights->heard_us + patience_us;
	}
	if (buyer && buyer->give_up_us < at_us)
		at_us = buyer->give_up_us;
	/* One that fires too early is set again. */
	if (at_us == UINT64_MAX || (flights->deadline_us && flights->deadline_us <= at_us))
		return;
	uint64_t now_us = loop_now_us(flights->loop);
	flights->deadline_us = at_us;
	timer_arm(flights->deadline, at_us > now_us ? (at_us - now_us) / 1000 + 1 : 0);
}

/* The first ones' spans show how the store is; thousands would tell no more. */
static bool look_up_trace(struct buyer *buyer, struct trace *trace)
{
	if (!buyer->trace)
		return false;
	*trace = buyer->trace->trace;
	trace->sampled = trace->sampled && buyer->traced_look_ups++ < TRACED_STEPS;
	return true;
}

void flight_look_start(struct flights *flights)
{
	struct buyer *buyer;
	while (flights->n_looking < flights->options.max_look_ups &&
		(buyer = TAILQ_FIRST(&flights->turns))) {
		struct flight *flight = TAILQ_FIRST(&buyer->queued);
		uint64_t now_us = loop_now_us(flights->loop);
		if (flights->n_looking == 0)
			flights->heard_us = now_us;
		TAILQ_REMOVE(&buyer->queued, flight, link);
		flight->state = FLIGHT_LOOKING;
		flight->give_up_us = now_us + flights->options.store_deadline_ms * 1000;
		TAILQ_INSERT_TAIL(&flights->looking, flight, link);
		flights->n_looking++;
		buyer->looking_now++;
		/* Behind all others who wait. */
		TAILQ_REMOVE(&flights->turns, buyer, turn_link);
		buyer->has_turn = false;
		update_turn(buyer, flights);
		struct trace trace;
		struct store_look look = {.trace = look_up_trace(buyer, &trace) ? &trace : NULL};
		/* Of several the last one would have to ask. */
		flight->asks_about_legacy = buyer->n_tickets == 1 && !buyer->entering &&
					    flight_legacy_possible(flights, buyer);
		if (flight->asks_about_legacy) {
			look.legacy_key = &buyer->query->legacy_key;
			look.layout = flights->options.legacy_layout;
		}
		flight->get = store_get_start_with(
			flights->parts.store, &flight->key, &look, on_looked_up, flight);
		if (!flight->get)
			missing(flight, buyer);
	}
	arm_deadline(flights);
}

static void give_up(struct flight *flight, struct buyer *payer)
{
	flight->flights->counters.store_deadlines++;
	payer->legacy_done = true; /* it would be no quicker */
	missing(flight, payer);
}

void flight_look_hand_over(struct flight *flight, struct buyer *next)
{
	struct flights *flights = flight->flights;
	if (!next) {
		stop_looking(flight);
		flight_free(flight);
	} else if (!next->has_deadline && !next->entering) {
		give_up(flight, next);
	} else if (flight->state == FLIGHT_QUEUED) {
		stop_looking(flight);
		flight_look_queue(flight, next);
	} else {
		flight->payer->looking_now--;
		flight->payer->looking--;
		update_turn(flight->payer, flights);
		flight->payer = next;
		flight->asks_about_legacy = false;
		next->looking_now++;
		next->looking++;
		update_turn(next, flights);
	}
}

/* The store has answered nothing for so long: nobody waits for it. */
static void give_up_all(struct flights *flights)
{
	struct buyer *buyer;
	struct flight *flight;
	TAILQ_FOREACH (buyer, &flights->deadlines, deadline_link)
		while ((flight = TAILQ_FIRST(&buyer->queued)))
			give_up(flight, buyer);
	while ((flight = TAILQ_FIRST(&flights->looking)))
		give_up(flight, flight->payer);
}

static void forget_deadline(struct flights *flights, struct buyer *buyer)
{
	if (buyer->has_deadline)
		TAILQ_REMOVE(&flights->deadlines, buyer, deadline_link);
	buyer->has_deadline = false;
}

/* Also what another request looks for: it may be far behind in that one's queue. */
static void give_up_buyer(struct flights *flights, struct buyer *buyer)
{
	forget_deadline(flights, buyer);
	for (size_t i = 0; i < buyer->n_tickets; i++) {
		struct flight *flight = buyer->tickets[i].flight;
		if (flight && (flight->state == FLIGHT_QUEUED || flight->state == FLIGHT_LOOKING))
			give_up(flight, buyer);
	}
	buyer->legacy_done = true;
	flight_legacy_cancel(buyer);
	flight_buyer_ready(flights, buyer);
}

static void on_deadline(void *arg)
{
	struct flights *flights = arg;
	uint64_t now_us = loop_now_us(flights->loop);
	struct flight *flight;
	struct buyer *buyer;
	flights->deadline_us = 0;
	if (flights->n_looking > 0 &&
		flights->heard_us + flights->options.store_deadline_ms * 1000 <= now_us)
		give_up_all(flights);
	while ((flight = TAILQ_FIRST(&flights->looking)) && flight->give_up_us <= now_us)
		give_up(flight, flight->payer);
	while ((buyer = TAILQ_FIRST(&flights->deadlines)) && buyer->give_up_us <= now_us)
		give_up_buyer(flights, buyer);
	flight_look_start(flights);
}

/* ---- Entering and leaving ---- */

void flight_look_enter(struct flights *flights, struct buyer *buyer)
{
	buyer->give_up_us = loop_now_us(flights->loop) + flights->options.store_deadline_ms * 1000 +
			    buyer->n_tickets * (uint64_t)LOOK_UP_PER_ELEMENT_US;
	struct buyer *before = TAILQ_LAST(&flights->deadlines, buyer_list);
	while (before && before->give_up_us > buyer->give_up_us)
		before = TAILQ_PREV(before, buyer_list, deadline_link);
	if (before)
		TAILQ_INSERT_AFTER(&flights->deadlines, before, buyer, deadline_link);
	else
		TAILQ_INSERT_HEAD(&flights->deadlines, buyer, deadline_link);
	buyer->has_deadline = true;
}

void flight_look_leave(struct flights *flights, struct buyer *buyer)
{
	forget_deadline(flights, buyer);
	flight_legacy_cancel(buyer);
	if (buyer->has_turn)
		TAILQ_REMOVE(&flights->turns, buyer, turn_link);
	buyer->has_turn = false;
}

/* ---- The whole ---- */

int flight_look_init(struct flights *flights)
{
	TAILQ_INIT(&flights->looking);
	TAILQ_INIT(&flights->turns);
	TAILQ_INIT(&flights->deadlines);
	if (!flights->options.parallel_look_ups)
		flights->options.parallel_look_ups = flights->options.max_look_ups;
	flights->deadline = timer_new(flights->loop, on_deadline, flights);
	return flights->deadline ? 0 : -1;
}

void flight_look_uninit(struct flights *flights)
{
	timer_free(&flights->deadline);
}
