/* Looking in a store that answers when the test says so, late, or never. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/workers.h"
#include "gatewayd/cache.h"
#include "gatewayd/flight.h"
#include "gatewayd/query.h"
#include "gatewayd/store_backend.h"

#define DEADLINE_MS 80
#define PARALLEL    4
#define ALL_AT_ONCE 10
#define MAX_GETS    512
#define MAX_TICKETS 256
#define TIMEOUT_S   60

/* ---- A store ---- */

static struct store_get *gets[MAX_GETS];
static size_t n_gets, n_legacy, n_cancelled, n_puts;

static int fake_get(struct store_get *get)
{
	assert_true(n_gets < MAX_GETS);
	n_legacy += get->legacy;
	gets[n_gets++] = get;
	return 0;
}

static void fake_cancel(struct store_get *get)
{
	(void)get;
	n_cancelled++;
}

static bool fake_accept(
	struct store *store, const struct stored_fields *fields, const struct trace *trace)
{
	(void)store;
	(void)trace;
	assert_int_equal(fields->dims, 1);
	n_puts++;
	return true;
}

static void fake_free(struct store *store)
{
	(void)store;
}

static const struct store_backend backend = {
	.kind = "fake",
	.get_bytes = sizeof(struct store_get),
	.put_bytes = sizeof(struct store_put),
	.get = fake_get,
	.cancel = fake_cancel,
	.accept = fake_accept,
	.free = fake_free,
};

/* Answer the i-th look-up. */
static void answer(size_t i, enum store_result result)
{
	struct store_get *get = gets[i];
	assert_non_null(get);
	gets[i] = NULL;
	get->result = result;
	get->object.fields = (struct stored_fields){.key = get->key,
		.stored_ms = 1,
		.model = SPAN_LITERAL("m"),
		.source = VECTOR_BASE64,
		.vector = SPAN_LITERAL("AACAPw=="),
		.dims = 1};
	store_get_end(get);
}

static void answer_legacy(size_t i, const char *json)
{
	struct store_get *get = gets[i];
	assert_true(get->legacy);
	gets[i] = NULL;
	get->result = STORE_LEGACY;
	get->object.memory = strdup(json);
	get->object.json = span_of(get->object.memory);
	get->object.fields.stored_ms = 5;
	store_get_end(get);
}

/* ---- A provider that never answers ---- */

static size_t n_calls, n_inputs;

static struct provider_call *fake_buy(struct provider *provider,
	const struct provider_request *request,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	(void)provider;
	(void)on_done;
	(void)arg;
	n_calls++;
	n_inputs += request->n_inputs;
	return (struct provider_call *)&n_calls;
}

static bool fake_sent(const struct provider_call *call)
{
	(void)call;
	return false;
}

static void fake_cancel_call(struct provider_call *call)
{
	(void)call;
}

static const struct provider_ops ops = {.name = "fake",
	.store_prefix = "",
	.buy = fake_buy,
	.sent = fake_sent,
	.cancel = fake_cancel_call};
static struct provider provider = {.ops = &ops};

/* ---- Requests ---- */

struct request {
	struct buyer buyer; /* first */
	struct credential credential;
	struct ticket tickets[MAX_TICKETS];
	struct query query;
	size_t stored, joined;
};

static struct store store;
static struct loop *loop;
static struct workers *workers;
static struct cache *cache;
static struct flights *flights;
static struct timer *poll;
static struct request requests[3];
static bool (*until)(void);

static void on_object(struct ticket *ticket, enum flight_source source, struct cache_object *object)
{
	struct request *request = (struct request *)ticket_buyer(ticket);
	assert_true(digest_equal(&cache_object_info(object)->key, &ticket->key));
	request->stored += source == FLIGHT_STORED;
	request->joined += source == FLIGHT_JOINED;
}

static void on_failure(struct buyer *buyer, const struct flight_failure *failure)
{
	(void)buyer;
	(void)failure;
	fail();
}

static void on_poll(void *arg)
{
	(void)arg;
	if (until())
		loop_stop(loop);
	else
		timer_arm(poll, 1);
}

static void wait_until(bool (*condition)(void))
{
	until = condition;
	timer_arm(poll, 0);
	loop_run(loop);
}

static bool something_was_bought(void)
{
	return n_calls > 0;
}

/* All at once. */
static int enter_tickets(struct request *request, size_t n)
{
	flights_enter_begin(flights, &request->buyer, request->tickets);
	for (size_t i = 0; i < n; i++)
		if (flights_enter_one(flights, &request->buyer) < 0)
			return -1;
	flights_enter_end(flights, &request->buyer);
	return 0;
}

static struct request *enter(int index, unsigned from, unsigned n)
{
	struct request *request = &requests[index];
	request->credential = (struct credential){(char *)"k", (char *)"", (char *)"", false};
	request->buyer.credential = &request->credential;
	request->buyer.model = SPAN_LITERAL("m");
	request->buyer.model_json = SPAN_LITERAL("\"m\"");
	request->buyer.params_json = SPAN_LITERAL("");
	request->buyer.store_params = SPAN_LITERAL("{}");
	for (unsigned i = 0; i < n; i++) {
		char text[16];
		snprintf(text, sizeof text, "%u", from + i);
		request->tickets[i].key = digest_of(span_of(text));
		request->tickets[i].input_json = SPAN_LITERAL("\"x\"");
		request->tickets[i].place = i;
	}
	assert_int_equal(enter_tickets(request, n), 0);
	return request;
}

/* A request as it comes, with the key of its whole body. */
static struct request *enter_body(int index, const char *body)
{
	struct request *request = &requests[index];
	struct api_error error;
	assert_int_equal(
		query_parse_legacy(span_of(body), MAX_TICKETS, NULL, &request->query, &error), 0);
	assert_true(request->query.has_legacy_key);
	request->credential = (struct credential){(char *)"k", (char *)"", (char *)"", false};
	request->buyer.credential = &request->credential;
	request->buyer.model = SPAN_LITERAL("m");
	request->buyer.model_json = SPAN_LITERAL("\"m\"");
	request->buyer.params_json = SPAN_LITERAL("");
	request->buyer.store_params = SPAN_LITERAL("{}");
	request->buyer.query = &request->query;
	for (size_t i = 0; i < request->query.n; i++) {
		request->tickets[i].key = request->query.elements[i].key;
		request->tickets[i].input_json = request->query.elements[i].json;
		request->tickets[i].place = i;
	}
	assert_int_equal(enter_tickets(request, request->query.n), 0);
	return request;
}

static int setup(void **state)
{
	(void)state;
	n_gets = n_legacy = n_cancelled = n_puts = n_calls = n_inputs = 0;
	memset(requests, 0, sizeof requests);
	log_set_level(LOG_LEVEL_FATAL);
	alarm(TIMEOUT_S);
	loop = loop_new();
	workers = workers_new(loop, 1, 10);
	poll = timer_new(loop, on_poll, NULL);
	struct cache_options cache_options = {.budget_bytes = 4 << 20};
	cache = cache_new(&cache_options);
	static const struct store_limits limits;
	assert_int_equal(store_init(&store, loop, &backend, &limits), 0);
	struct flights_options options = {.max_flights = 1000,
		.max_look_ups = ALL_AT_ONCE,
		.parallel_look_ups = PARALLEL,
		.store_deadline_ms = DEADLINE_MS,
		.legacy_read = true,
		.ttl_ms = 1000000};
	struct flights_events events = {.on_object = on_object, .on_failure = on_failure};
	flights = flights_new(loop, cache, &store, workers, &provider, NULL, &options, &events);
	return flights ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
		flights_leave(flights, &requests[i].buyer);
		query_free(&requests[i].query);
	}
	flights_free(&flights);
	for (size_t i = 0; i < n_gets; i++)
		if (gets[i])
			answer(i, STORE_MISS);
	struct store *freed = &store;
	store_free(&freed);
	timer_free(&poll);
	workers_free(&workers);
	cache_free(&cache);
	loop_free(&loop);
	alarm(0);
	return 0;
}

/* ---- Tests ---- */

static void requests_take_turns(void **state)
{
	(void)state;
	enter(0, 0, 100);
	assert_int_equal(n_gets, PARALLEL);
	struct request *second = enter(1, 200, 2);
	assert_int_equal(n_gets, PARALLEL + 2);
	struct request *third = enter(2, 300, 50);
	assert_int_equal(n_gets, ALL_AT_ONCE);
	answer(4, STORE_FOUND);
	answer(5, STORE_FOUND);
	assert_int_equal(second->stored, 2);
	/* Those two slots are for nobody: both have their share. */
	assert_int_equal(n_gets, ALL_AT_ONCE);
	answer(0, STORE_FOUND);
	answer(6, STORE_FOUND);
	assert_int_equal(n_gets, ALL_AT_ONCE + 2);
	assert_int_equal(requests[0].stored, 1);
	assert_int_equal(third->stored, 1);
}

static void a_silent_store_is_given_up_once(void **state)
{
	(void)state;
	enter(0, 0, 200);
	enter(1, 190, 20); /* joins ten */
	uint64_t start_us = loop_now_us(loop);
	wait_until(something_was_bought);
	uint64_t took_ms = (loop_now_us(loop) - start_us) / 1000;
	assert_true(took_ms >= DEADLINE_MS);
	/* Neither one after the other, nor 2 ms for each of 200. */
	assert_true(took_ms < DEADLINE_MS + 300);
	assert_int_equal(n_inputs, 210);
	assert_int_equal(flights_counters(flights)->store_deadlines, 210);
	assert_int_equal(n_gets, 2 * PARALLEL);
	assert_int_equal(n_cancelled, 2 * PARALLEL);
}

/* One look-up a turn of the poll: it never falls silent, and is far too slow. */
static bool slowly_until_bought(void)
{
	static uint64_t next_us;
	uint64_t now_us = loop_now_us(loop);
	if (now_us >= next_us) {
		next_us = now_us + DEADLINE_MS * 1000 / 4;
		for (size_t i = 0; i < n_gets; i++) {
			if (gets[i] && !gets[i]->cancelled) {
				answer(i, STORE_FOUND);
				break;
			}
		}
	}
	return n_calls > 0;
}

static void a_slow_store_is_given_up_by_the_request(void **state)
{
	(void)state;
	uint64_t start_us = loop_now_us(loop);
	struct request *request = enter(0, 0, 20);
	wait_until(slowly_until_bought);
	uint64_t took_ms = (loop_now_us(loop) - start_us) / 1000;
	assert_true(took_ms >= DEADLINE_MS);
	assert_true(request->stored > 0 && request->stored < 20);
	/* One look-up that took its time, or the request's own deadline: the rest is bought. */
	size_t deadlines = flights_counters(flights)->store_deadlines;
	assert_true(deadlines > 0);
	assert_int_equal(n_inputs, deadlines);
}

static bool slowly_until_the_second_buys(void)
{
	slowly_until_bought();
	return n_inputs == 1 || n_calls > 1;
}

static void who_joins_keeps_its_own_deadline(void **state)
{
	(void)state;
	struct request *first = enter(0, 0, 200); /* may wait 480 ms */
	enter(1, 199, 1);
	uint64_t start_us = loop_now_us(loop);
	wait_until(slowly_until_the_second_buys);
	uint64_t took_ms = (loop_now_us(loop) - start_us) / 1000;
	assert_true(took_ms < DEADLINE_MS + 200);
	assert_true(first->stored < 199);
	assert_true(flights_counters(flights)->store_deadlines >= 1);
}

static void who_leaves_hands_its_look_ups_over(void **state)
{
	(void)state;
	enter(0, 0, 6); /* four are looked up, two wait */
	struct request *second = enter(1, 3, 3);
	flights_leave(flights, &requests[0].buyer);
	assert_int_equal(flights_under_way(flights), 3);
	assert_int_equal(n_cancelled, 3);
	answer(3, STORE_FOUND);
	assert_int_equal(n_gets, 6);
	answer(4, STORE_FOUND);
	answer(5, STORE_MISS);
	wait_until(something_was_bought);
	assert_int_equal(second->stored, 2);
	assert_int_equal(n_inputs, 1);
}

#define ITEM(index, number) \
	"{\"object\":\"embedding\",\"index\":" #index ",\"embedding\":[" #number "]}"

static bool all_is_stored(void)
{
	return requests[0].stored == requests[0].query.n;
}

static void what_one_look_told_is_not_looked_for_again(void **state)
{
	(void)state;
	struct request *request = enter_body(0, "{\"model\":\"m\",\"input\":[\"k\"]}");
	assert_true(gets[0]->asks_about);
	assert_true(digest_equal(&gets[0]->legacy_key, &request->query.legacy_key));
	answer(0, STORE_MISS_BOTH);
	wait_until(something_was_bought);
	assert_int_equal(n_gets, 1);

	n_calls = 0;
	enter_body(1, "{\"model\":\"m\",\"input\":[\"l\"]}");
	answer(1, STORE_MISS); /* it does not tell */
	assert_int_equal(n_legacy, 1);
	answer(2, STORE_MISS);
	wait_until(something_was_bought);
	assert_int_equal(n_inputs, 2);

	enter_body(2, "{\"model\":\"m\",\"input\":[\"n\",\"o\"]}");
	assert_false(gets[3]->asks_about || gets[4]->asks_about);
}

/* Another request's body has another hash. */
static void what_one_look_told_is_of_one_request(void **state)
{
	(void)state;
	enter_body(0, "{\"model\":\"m\",\"input\":[\"p\"]}");
	enter_body(1, "{\"model\":\"m\",\"input\":\"p\",\"user\":\"u\"}");
	assert_int_equal(n_gets, 1);
	flights_leave(flights, &requests[0].buyer);
	answer(0, STORE_MISS_BOTH);
	assert_int_equal(n_gets, 2);
	assert_int_equal(n_legacy, 1);
}

static void a_legacy_answer_is_taken_apart(void **state)
{
	(void)state;
	struct request *request = enter_body(0, "{\"model\":\"m\",\"input\":[\"a\",\"bb\",\"a\"]}");
	answer(0, STORE_MISS);
	answer(1, STORE_MISS);
	assert_int_equal(n_gets, 3);
	assert_int_equal(n_legacy, 1);
	assert_true(digest_equal(&gets[2]->key, &request->query.legacy_key));
	answer_legacy(2, "{\"data\":[" ITEM(0, 1) "," ITEM(1, 2) "," ITEM(
				 2, 1) "],\"usage\":{\"total_tokens\":9},\"model\":\"m-1\"}");
	wait_until(all_is_stored);
	assert_int_equal(n_puts, 2);
	assert_int_equal(n_calls, 0);
	assert_int_equal(flights_under_way(flights), 0);
	assert_int_equal(flights_counters(flights)->legacy_elements, 2);
}

static void a_legacy_answer_that_does_not_fit_is_no_use(void **state)
{
	(void)state;
	static const char *const bad[] = {"{\"data\":[" ITEM(0, 1) "]}",
		"{\"data\":[" ITEM(0, 1) "," ITEM(0, 2) "]}", "{\"data\":[1,2]}"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		char body[64];
		size_t before = n_gets, inputs = n_inputs;
		n_calls = 0;
		snprintf(
			body, sizeof body, "{\"model\":\"m\",\"input\":[\"c%zu\",\"d%zu\"]}", i, i);
		enter_body((int)i, body);
		answer(before, STORE_MISS);
		answer(before + 1, STORE_MISS);
		answer_legacy(before + 2, bad[i]);
		wait_until(something_was_bought);
		assert_int_equal(n_inputs, inputs + 2);
	}
	assert_int_equal(n_puts, 0);
}

static void a_legacy_look_up_ends_with_its_request(void **state)
{
	(void)state;
	enter_body(0, "{\"model\":\"m\",\"input\":[\"e\",\"f\"]}");
	answer(0, STORE_MISS);
	answer(1, STORE_MISS);
	flights_leave(flights, &requests[0].buyer); /* while it is looked up */
	assert_int_equal(n_cancelled, 1);
	enter_body(1, "{\"model\":\"m\",\"input\":[\"g\",\"h\"]}");
	answer(3, STORE_MISS);
	answer(4, STORE_MISS);
	answer_legacy(5, "{\"data\":[" ITEM(0, 1) "," ITEM(1, 2) "]}");
	flights_leave(flights, &requests[1].buyer); /* while it is parsed */
	assert_int_equal(flights_under_way(flights), 0);
	assert_int_equal(n_calls, 0);
}

static void a_silent_legacy_look_up_is_given_up(void **state)
{
	(void)state;
	enter_body(0, "{\"model\":\"m\",\"input\":[\"i\",\"j\"]}");
	answer(0, STORE_MISS);
	answer(1, STORE_MISS);
	assert_int_equal(n_legacy, 1);
	uint64_t start_us = loop_now_us(loop);
	wait_until(something_was_bought);
	assert_true((loop_now_us(loop) - start_us) / 1000 < DEADLINE_MS + 200);
	assert_int_equal(n_inputs, 2);
	assert_int_equal(n_cancelled, 1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(requests_take_turns),
		TEST(a_silent_store_is_given_up_once),
		TEST(a_slow_store_is_given_up_by_the_request),
		TEST(who_joins_keeps_its_own_deadline),
		TEST(who_leaves_hands_its_look_ups_over),
		TEST(what_one_look_told_is_not_looked_for_again),
		TEST(what_one_look_told_is_of_one_request),
		TEST(a_legacy_answer_is_taken_apart),
		TEST(a_legacy_answer_that_does_not_fit_is_no_use),
		TEST(a_legacy_look_up_ends_with_its_request),
		TEST(a_silent_legacy_look_up_is_given_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
