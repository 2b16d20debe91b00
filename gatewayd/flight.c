#include "gatewayd/flight.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/loop.h"
#include "gatewayd/purchase.h"
#include "gatewayd/store.h"

enum flight_state {
	FLIGHT_QUEUED,  /* waits for its turn to be looked up */
	FLIGHT_LOOKING, /* in the store */
	FLIGHT_WANTED,  /* on its payer's list */
	FLIGHT_BUYING,
	FLIGHT_ORPHAN, /* its purchase failed: between two payers, inside purchase_ended() only */
};

TAILQ_HEAD(ticket_list, ticket);
TAILQ_HEAD(buyer_list, buyer);

struct flight {
	struct flights *flights;
	struct digest key;
	enum flight_state state;
	struct ticket_list tickets;
	struct buyer *payer; /* NULL: left, its purchase goes on */
	struct store_get *get;
	uint64_t give_up_us;
	struct purchase *purchase;
	TAILQ_ENTRY(flight)
	link; /* of the queue, of those being looked up, or of the payer's wanted */
	struct flight *chain;
};

struct flights {
	struct loop *loop;
	struct purchase_parts parts;
	struct flights_options options;
	struct flights_events events;
	struct flights_counters counters;

	struct flight **table; /* by key; its size is a power of two */
	size_t table_size, n;
	struct flight_list queued, looking; /* looking: the first was started first */
	size_t n_looking;
	struct timer *deadline;

	struct buyer_list ready; /* those who know all that they miss */
	struct deferred buy_later;
	struct purchase_events purchase_events;

	void (*on_idle)(void *arg);
	void *on_idle_arg;
	struct deferred idle_later;
};

/* ---- The table ---- */

#define TABLE_MIN 256

static struct flight **slot_of(struct flights *flights, const struct digest *key)
{
	size_t hash;
	memcpy(&hash, key->bytes, sizeof hash);
	struct flight **slot = &flights->table[hash & (flights->table_size - 1)];
	while (*slot && !digest_equal(&(*slot)->key, key))
		slot = &(*slot)->chain;
	return slot;
}

static void table_grow(struct flights *flights)
{
	size_t old_size = flights->table_size;
	struct flight **old = flights->table;
	struct flight **table = calloc(old_size * 2, sizeof *table);
	if (!table)
		return; /* longer chains, no harm */
	flights->table = table;
	flights->table_size = old_size * 2;
	for (size_t i = 0; i < old_size; i++) {
		for (struct flight *flight = old[i], *next; flight; flight = next) {
			next = flight->chain;
			struct flight **slot = slot_of(flights, &flight->key);
			flight->chain = NULL;
			*slot = flight;
		}
	}
	free(old);
}

static struct flight *flight_new(struct flights *flights, const struct digest *key)
{
	if (flights->n >= flights->table_size)
		table_grow(flights);
	struct flight *flight = calloc(1, sizeof *flight);
	if (!flight)
		return NULL;
	flight->flights = flights;
	flight->key = *key;
	TAILQ_INIT(&flight->tickets);
	*slot_of(flights, key) = flight;
	flights->n++;
	return flight;
}

/* The flight is on no list any more and has no tickets. */
static void flight_free(struct flight *flight)
{
	struct flights *flights = flight->flights;
	BUG_ON(!TAILQ_EMPTY(&flight->tickets));
	store_get_cancel(&flight->get);
	struct flight **slot = slot_of(flights, &flight->key);
	BUG_ON(*slot != flight);
	*slot = flight->chain;
	flights->n--;
	free(flight);
	if (flights->n == 0 && flights->on_idle)
		loop_defer(flights->loop, &flights->idle_later);
}

/* ---- Resolving ---- */

static void resolve(struct flight *flight, struct cache_object *object, const struct buyer *finder,
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

static void make_ready(struct flights *flights, struct buyer *buyer)
{
	if (buyer->ready || buyer->looking > 0 || TAILQ_EMPTY(&buyer->wanted))
		return;
	buyer->ready = true;
	TAILQ_INSERT_TAIL(&flights->ready, buyer, link);
	loop_defer(flights->loop, &flights->buy_later);
}

static void want(struct flight *flight, struct buyer *payer)
{
	flight->payer = payer;
	flight->state = FLIGHT_WANTED;
	TAILQ_INSERT_TAIL(&payer->wanted, flight, link);
}

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
	want(flight, payer);
	make_ready(flight->flights, payer);
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
	make_ready(flights, payer); /* before resolve(): that may end the payer's request */
	resolve(flight, object, NULL, FLIGHT_STORED);
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

/* ---- Buying ---- */

/* Another ticket's buyer pays from now on, or nobody wants the flight and it ends. */
static void elect(struct flight *flight)
{
	struct flights *flights = flight->flights;
	struct ticket *first = TAILQ_FIRST(&flight->tickets);
	if (!first) {
		flight_free(flight);
		return;
	}
	flights->counters.elections++;
	want(flight, first->buyer);
	make_ready(flights, first->buyer);
}

static void on_bought_object(struct purchase *purchase, size_t index, struct flight *flight,
	struct cache_object *object, void *arg)
{
	(void)purchase;
	(void)index;
	(void)arg;
	resolve(flight, object, flight->payer, FLIGHT_BOUGHT);
}

static bool fails_with(const struct provider_result *failure, const struct digest *credential,
	const struct buyer *payer, const struct buyer *buyer)
{
	if (buyer == payer)
		return true;
	if (failure->outcome != PROVIDER_REFUSED || failure->status >= 500)
		return true;
	bool of_credential = failure->status == 401 || failure->status == 403 ||
			     failure->status == 429;
	return of_credential && digest_equal(credential, &buyer->credential_digest);
}

static void describe(const struct provider_result *failure, struct flight_failure *out)
{
	*out = (struct flight_failure){
		.body = failure->body, .content_type = failure->content_type};
	api_error_set(&out->error, failure->status, NULL,
		failure->outcome == PROVIDER_TIMEOUT   ? "provider_timeout"
		: failure->outcome == PROVIDER_BROKEN  ? "provider_broken_answer"
		: failure->outcome == PROVIDER_REFUSED ? "provider_error"
						       : "provider_unreachable",
		"%s", failure->detail ? failure->detail : "the provider refused the request");
	out->error.retry_after_ms = failure->retry_after_ms;
}

/* Withdraw all that this buyer waits for; it joins the list of those to be told. */
static void fail_buyer(struct flights *flights, struct buyer *buyer, struct buyer_list *failed)
{
	flights_leave(flights, buyer);
	TAILQ_INSERT_TAIL(failed, buyer, link);
}

static void on_purchase_end(
	struct purchase *purchase, const struct provider_result *failure, void *arg)
{
	struct flights *flights = arg;
	if (!failure)
		return;
	flights->counters.purchase_failures++;

	/* What is still here was not handed over. All have the same payer. */
	struct buyer *payer = NULL;
	for (size_t i = 0; i < purchase_size(purchase); i++) {
		struct flight *flight = purchase_flight(purchase, i);
		if (!flight)
			continue;
		if (flight->payer)
			payer = flight->payer;
		flight->payer = NULL;
		flight->purchase = NULL;
		flight->state = FLIGHT_ORPHAN;
	}

	struct buyer_list failed = TAILQ_HEAD_INITIALIZER(failed);
	const struct digest *credential = purchase_credential(purchase);
	for (size_t i = 0; i < purchase_size(purchase); i++) {
		struct flight *flight = purchase_flight(purchase, i);
		if (!flight)
			continue;
		struct ticket *ticket = TAILQ_FIRST(&flight->tickets);
		while (ticket) {
			struct buyer *buyer = ticket->buyer;
			if (fails_with(failure, credential, payer, buyer)) {
				fail_buyer(flights, buyer, &failed);
				ticket = TAILQ_FIRST(&flight->tickets); /* several may be gone */
			} else {
				ticket = TAILQ_NEXT(ticket, link);
			}
		}
	}
	for (size_t i = 0; i < purchase_size(purchase); i++) {
		struct flight *flight = purchase_flight(purchase, i);
		if (flight)
			elect(flight);
	}

	struct flight_failure told;
	describe(failure, &told);
	struct buyer *buyer;
	while ((buyer = TAILQ_FIRST(&failed))) {
		TAILQ_REMOVE(&failed, buyer, link);
		flights->events.on_failure(buyer, &told);
	}
}

/* Buy up to PROVIDER_MAX_INPUTS of what this buyer wants. -1 when out of memory. */
static int buy_some(struct flights *flights, struct buyer *buyer, struct purchase_item *items)
{
	size_t n = 0;
	struct flight *flight;
	TAILQ_FOREACH (flight, &buyer->wanted, link) {
		if (n == PROVIDER_MAX_INPUTS)
			break;
		/* Every ticket of an element has the same input; its JSON may differ in its escapes
		 * only. */
		struct ticket *ticket;
		TAILQ_FOREACH (ticket, &flight->tickets, link)
			if (ticket->buyer == buyer)
				break;
		BUG_ON(!ticket);
		items[n++] = (struct purchase_item){flight->key, ticket->input_json, flight};
	}
	struct purchase *purchase = purchase_start(
		&flights->parts, buyer, items, n, &flights->purchase_events);
	if (!purchase)
		return -1;
	flights->counters.purchases++;
	flights->counters.inputs_bought += n;
	for (size_t i = 0; i < n; i++) {
		flight = items[i].flight;
		TAILQ_REMOVE(&buyer->wanted, flight, link);
		flight->state = FLIGHT_BUYING;
		flight->purchase = purchase;
	}
	return 0;
}

static void buy(void *arg)
{
	struct flights *flights = arg;
	struct purchase_item *items = calloc(PROVIDER_MAX_INPUTS, sizeof *items);
	struct buyer_list failed = TAILQ_HEAD_INITIALIZER(failed);
	struct buyer *buyer;
	while ((buyer = TAILQ_FIRST(&flights->ready))) {
		TAILQ_REMOVE(&flights->ready, buyer, link);
		buyer->ready = false;
		while (!TAILQ_EMPTY(&buyer->wanted)) {
			if (!items || buy_some(flights, buyer, items) < 0) {
				fail_buyer(flights, buyer, &failed);
				break;
			}
		}
	}
	free(items);
	struct flight_failure told = {0};
	api_error_set(&told.error, 503, NULL, "overloaded",
		"the gateway cannot start a call to the provider now");
	told.error.retry_after_ms = 1000;
	while ((buyer = TAILQ_FIRST(&failed))) {
		TAILQ_REMOVE(&failed, buyer, link);
		flights->events.on_failure(buyer, &told);
	}
}

static void on_bought(struct span model, uint64_t tokens, size_t inputs, void *arg)
{
	struct flights *flights = arg;
	flights->counters.tokens_bought += tokens;
	if (flights->events.on_bought)
		flights->events.on_bought(model, tokens, inputs, flights->events.arg);
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
		struct flight *flight = *slot_of(flights, &ticket->key);
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
				want(flight, buyer);
			}
		}
		ticket->flight = flight;
		TAILQ_INSERT_TAIL(&flight->tickets, ticket, link);
	}
	start_look_ups(flights);
	make_ready(flights, buyer);
	return 0;
}

/* Nobody waits for anything of it, and it costs nothing yet: there is no use in going on. */
static void cancel_if_unwanted(struct purchase *purchase)
{
	if (purchase_sent(purchase))
		return;
	size_t n = purchase_size(purchase);
	for (size_t i = 0; i < n; i++)
		if (!TAILQ_EMPTY(&purchase_flight(purchase, i)->tickets))
			return;
	for (size_t i = 0; i < n; i++)
		flight_free(purchase_flight(purchase, i));
	purchase_cancel(purchase);
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
		elect(flight);
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
				cancel_if_unwanted(purchase);
			purchase = of_flight;
		}
	}
	if (purchase)
		cancel_if_unwanted(purchase);
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
	flights->purchase_events = (struct purchase_events){.on_object = on_bought_object,
		.on_end = on_purchase_end,
		.on_bought = on_bought,
		.arg = flights};
	TAILQ_INIT(&flights->queued);
	TAILQ_INIT(&flights->looking);
	TAILQ_INIT(&flights->ready);
	deferred_init(&flights->buy_later, buy, flights);
	deferred_init(&flights->idle_later, report_idle, flights);
	flights->table_size = TABLE_MIN;
	flights->table = calloc(TABLE_MIN, sizeof(*flights->table));
	flights->deadline = timer_new(loop, on_deadline, flights);
	if (!flights->table || !flights->deadline) {
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
