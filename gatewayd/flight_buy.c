#include "gatewayd/flight_private.h"

#include <stdlib.h>

#include "common/log.h"

void flight_buyer_ready(struct flights *flights, struct buyer *buyer)
{
	bool settled = buyer->looking == 0;
	if (buyer->ready || buyer->legacy || buyer->entering ||
		(TAILQ_EMPTY(&buyer->wanted) && TAILQ_EMPTY(&buyer->routed)))
		return;
	if (settled && flight_legacy_start(flights, buyer))
		return;
	/* Owners need not wait for our store, but for the answer that a Python gateway kept. */
	if (!settled && (TAILQ_EMPTY(&buyer->routed) || flight_legacy_possible(flights, buyer)))
		return;
	buyer->ready = true;
	TAILQ_INSERT_TAIL(&flights->ready, buyer, link);
	loop_defer(flights->loop, &flights->buy_later);
}

void flight_want(struct flight *flight, struct buyer *payer)
{
	flight->payer = payer;
	if (flight->owner == PEERS_SELF) {
		flight->state = FLIGHT_WANTED;
		TAILQ_INSERT_TAIL(&payer->wanted, flight, link);
	} else {
		flight->state = FLIGHT_ROUTED;
		TAILQ_INSERT_TAIL(&payer->routed, flight, link);
	}
}

void flight_cancel_if_unwanted(struct purchase *purchase)
{
	if (purchase_sent(purchase))
		return;
	size_t n = purchase_size(purchase);
	for (size_t i = 0; i < n; i++) {
		struct flight *flight = purchase_flight(purchase, i);
		if (flight && !TAILQ_EMPTY(&flight->tickets))
			return;
	}
	for (size_t i = 0; i < n; i++)
		if (purchase_flight(purchase, i))
			flight_free(purchase_flight(purchase, i));
	purchase_cancel(purchase);
}

void flight_elect(struct flight *flight)
{
	struct flights *flights = flight->flights;
	struct ticket *first = TAILQ_FIRST(&flight->tickets);
	if (!first) {
		flight_free(flight);
		return;
	}
	flights->counters.elections++;
	flight_want(flight, first->buyer);
	flight_buyer_ready(flights, first->buyer);
}

static void on_bought_object(struct purchase *purchase, struct flight *flight,
	struct cache_object *object, enum flight_source source, void *arg)
{
	(void)purchase;
	(void)arg;
	flight_resolve(flight, object, flight->payer, source);
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
	api_error_set(&out->error, failure->status, NULL, provider_outcome_code(failure->outcome),
		failure->outcome == PROVIDER_BROKEN ? "The provider's answer cannot be used: %s."
						    : "%s",
		failure->detail ? failure->detail : "the provider refused the request");
	out->error.retry_after_ms = failure->retry_after_ms;
}

/* Withdraw all that this buyer waits for; it joins the list of those to be told. */
static void fail_buyer(struct flights *flights, struct buyer *buyer, struct buyer_list *failed)
{
	flights_leave(flights, buyer);
	TAILQ_INSERT_TAIL(failed, buyer, link);
}

/* The owner is lost: what it did not send is looked up and bought here. */
static void begin_again(struct flights *flights, struct purchase *purchase)
{
	for (size_t i = 0; i < purchase_size(purchase); i++) {
		struct flight *flight = purchase_flight(purchase, i);
		if (!flight)
			continue;
		struct ticket *first = TAILQ_FIRST(&flight->tickets);
		flight->purchase = NULL;
		flight->owner = PEERS_SELF;
		if (!first)
			flight_free(flight);
		else
			flight_begin(flight, flight->payer ? flight->payer : first->buyer);
	}
	flight_look_start(flights);
}

static enum flight_blame blame(
	const struct purchase *purchase, const struct provider_result *failure)
{
	int status = failure->status;
	if (failure->outcome != PROVIDER_REFUSED || status >= 500 || status == 408 || status == 429)
		return FLIGHT_OF_PROVIDER;
	bool of_key = status == 401 || status == 403;
	return of_key && purchase_pays_itself(purchase) ? FLIGHT_OF_PROVIDER : FLIGHT_OF_CALLER;
}

static void on_purchase_end(
	struct purchase *purchase, const struct provider_result *failure, void *arg)
{
	struct flights *flights = arg;
	if (!failure)
		return;
	if (failure == &purchase_owner_lost) {
		flights->counters.fetches_lost++;
		begin_again(flights, purchase);
		return;
	}
	if (purchase_owner(purchase) == PEERS_SELF) /* else its owner has counted it */
		flights->counters.purchase_failures[blame(purchase, failure)]++;

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
		for (struct ticket *ticket = TAILQ_FIRST(&flight->tickets), *next; ticket;
			ticket = next) {
			next = TAILQ_NEXT(ticket, link); /* another buyer's */
			if (fails_with(failure, credential, payer, ticket->buyer))
				fail_buyer(flights, ticket->buyer, &failed);
		}
	}
	for (size_t i = 0; i < purchase_size(purchase); i++) {
		struct flight *flight = purchase_flight(purchase, i);
		if (flight)
			flight_elect(flight);
	}

	struct flight_failure told;
	describe(failure, &told);
	struct buyer *buyer;
	while ((buyer = TAILQ_FIRST(&failed))) {
		TAILQ_REMOVE(&failed, buyer, link);
		flights->events.on_failure(buyer, &told);
	}
}

/* Every ticket of an element has the same input; its JSON may differ in its escapes only. */
static struct span input_of(const struct flight *flight, const struct buyer *buyer)
{
	struct ticket *ticket;
	TAILQ_FOREACH (ticket, &flight->tickets, link)
		if (ticket->buyer == buyer)
			return ticket->input_json;
	BUG_ON(!ticket);
	return (struct span){0};
}

/*
 * Up to PROVIDER_MAX_INPUTS of this list that have the same owner, in one call. -1 when it cannot
 * be started: buying[0..*n-1] say what was meant.
 */
static int start_some(
	struct flights *flights, struct buyer *buyer, struct flight_list *list, size_t *n)
{
	struct purchase_item *items = flights->buying;
	struct flight *flight;
	int owner = TAILQ_FIRST(list)->owner;
	*n = 0;
	TAILQ_FOREACH (flight, list, link) {
		if (flight->owner == owner)
			items[(*n)++] = (struct purchase_item){
				flight->key, input_of(flight, buyer), flight};
		if (*n == PROVIDER_MAX_INPUTS)
			break;
	}
	struct purchase *purchase = purchase_start(
		&flights->parts, buyer, items, *n, owner, &flights->purchase_events);
	if (!purchase)
		return -1;
	for (size_t i = 0; i < *n; i++) {
		TAILQ_REMOVE(list, items[i].flight, link);
		items[i].flight->state = FLIGHT_BUYING;
		items[i].flight->purchase = purchase;
	}
	return 0;
}

static void ask_owners(struct flights *flights, struct buyer *buyer)
{
	struct purchase_item *items = flights->buying;
	size_t n;
	while (!TAILQ_EMPTY(&buyer->routed)) {
		if (start_some(flights, buyer, &buyer->routed, &n) == 0) {
			flights->counters.fetches++;
			continue;
		}
		for (size_t i = 0; i < n; i++) {
			TAILQ_REMOVE(&buyer->routed, items[i].flight, link);
			items[i].flight->owner = PEERS_SELF;
			flight_begin(items[i].flight, buyer);
		}
	}
}

/* One call of it. */
static int buy_some(struct flights *flights, struct buyer *buyer)
{
	size_t n;
	if (buyer->looking > 0 || TAILQ_EMPTY(&buyer->wanted))
		return 0;
	if (start_some(flights, buyer, &buyer->wanted, &n) < 0)
		return -1;
	flights->counters.purchases++;
	flights->counters.inputs_bought += n;
	return 0;
}

static void not_ready(struct flights *flights, struct buyer *buyer)
{
	TAILQ_REMOVE(&flights->ready, buyer, link);
	buyer->ready = false;
}

void flight_buy(void *arg)
{
	struct flights *flights = arg;
	struct buyer_list failed = TAILQ_HEAD_INITIALIZER(failed);
	struct buyer *buyer;
	while ((buyer = TAILQ_FIRST(&flights->ready))) {
		ask_owners(flights, buyer);
		if (buy_some(flights, buyer) < 0) {
			not_ready(flights, buyer);
			fail_buyer(flights, buyer, &failed);
		} else if (buyer->looking > 0 || TAILQ_EMPTY(&buyer->wanted)) {
			not_ready(flights, buyer);
		}
		if (loop_slice_is_over(flights->loop)) {
			if (!TAILQ_EMPTY(&flights->ready))
				loop_queue(flights->loop, &flights->buy_later);
			break;
		}
	}
	flight_look_start(flights);
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

static void on_fetched(const char *outcome, uint64_t duration_us, void *arg)
{
	struct flights *flights = arg;
	if (flights->events.on_fetched)
		flights->events.on_fetched(outcome, duration_us, flights->events.arg);
}

const struct purchase_events flight_purchase_events = {
	.on_object = on_bought_object,
	.on_end = on_purchase_end,
	.on_bought = on_bought,
	.on_fetched = on_fetched,
};
