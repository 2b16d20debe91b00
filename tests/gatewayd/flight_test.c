/* Flights against a provider whose every step the test decides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <event2/event.h>

#include "common/loop.h"
#include "gatewayd/cache.h"
#include "gatewayd/flight.h"

#define MAX_CALLS  8
#define MAX_BUYERS 8

static struct loop *loop;

/* ---- A provider that waits for the test ---- */

struct provider_call {
	struct buf inputs; /* the JSON texts, joined by a space */
	char *authorization;
	size_t n;
	bool sent, cancelled;
	void (*on_done)(const struct provider_result *result, void *arg);
	void *arg;
};

static struct provider_call calls[MAX_CALLS];
static size_t n_calls;

static struct provider_call *fake_buy(struct provider *provider,
	const struct provider_request *request,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	(void)provider;
	assert_true(n_calls < MAX_CALLS);
	struct provider_call *call = &calls[n_calls++];
	buf_init(&call->inputs, 1 << 20);
	for (size_t i = 0; i < request->n_inputs; i++) {
		if (i)
			buf_append_char(&call->inputs, ' ');
		buf_append(&call->inputs, request->inputs[i].data, request->inputs[i].len);
	}
	buf_append_char(&call->inputs, '\0');
	call->authorization = strdup(request->credential->authorization);
	call->n = request->n_inputs;
	call->on_done = on_done;
	call->arg = arg;
	return call;
}

static bool fake_sent(const struct provider_call *call)
{
	return call->sent;
}

static void fake_cancel(struct provider_call *call)
{
	call->cancelled = true;
}

static const struct provider_ops fake_ops = {.name = "fake",
	.store_prefix = "",
	.buy = fake_buy,
	.sent = fake_sent,
	.cancel = fake_cancel};
static struct provider fake_provider = {.ops = &fake_ops};

/* One turn of the loop: what was deferred, or put into its queue, runs. */
static void turn(void)
{
	event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
}

static void succeed(struct provider_call *call, uint64_t total_tokens)
{
	struct embedding *embeddings = calloc(call->n, sizeof *embeddings);
	for (size_t i = 0; i < call->n; i++) {
		embeddings[i].source = VECTOR_BASE64;
		embeddings[i].dims = 1;
		buf_init(&embeddings[i].text, 16);
		buf_append_str(&embeddings[i].text, "AACAPw==");
	}
	struct provider_result result = {.outcome = PROVIDER_OK,
		.embeddings = embeddings,
		.n_embeddings = call->n,
		.model = SPAN_LITERAL("m-1"),
		.total_tokens = total_tokens,
		.retry_after_ms = -1};
	call->on_done(&result, call->arg);
	turn(); /* they are handed out a piece at a time */
	for (size_t i = 0; i < call->n; i++)
		buf_free(&embeddings[i].text);
	free(embeddings);
}

static void refuse(struct provider_call *call, enum provider_outcome outcome, int status)
{
	struct provider_result result = {.outcome = outcome,
		.status = status,
		.body = SPAN_LITERAL("{\"error\":{}}"),
		.retry_after_ms = -1,
		.detail = "refused"};
	call->on_done(&result, call->arg);
}

/* ---- Requests ---- */

struct request {
	struct buyer buyer; /* first */
	struct credential credential;
	struct ticket tickets[4];
	char seen[64]; /* a letter a resolved ticket: s b j */
	int failed_status;
};

static struct cache *cache;
static struct flights *flights;
static struct request requests[MAX_BUYERS];

static void on_object(struct ticket *ticket, enum flight_source source, struct cache_object *object)
{
	static const char letters[] = {
		[FLIGHT_STORED] = 's', [FLIGHT_BOUGHT] = 'b', [FLIGHT_JOINED] = 'j'};
	struct request *request = (struct request *)ticket_buyer(ticket);
	assert_true(digest_equal(&cache_object_info(object)->key, &ticket->key));
	size_t n = strlen(request->seen);
	request->seen[n] = letters[source];
}

static void on_failure(struct buyer *buyer, const struct flight_failure *failure)
{
	struct request *request = (struct request *)buyer;
	assert_int_equal(request->failed_status, 0);
	request->failed_status = failure->error.status;
}

static struct digest key_of(const char *text)
{
	return digest_of(span_of(text));
}

/* All at once. */
static int enter_tickets(struct request *request, struct ticket *tickets, size_t n)
{
	flights_enter_begin(flights, &request->buyer, tickets);
	for (size_t i = 0; i < n; i++)
		if (flights_enter_one(flights, &request->buyer) < 0)
			return -1;
	flights_enter_end(flights, &request->buyer);
	return 0;
}

/* texts: up to four, one letter each. */
static struct request *enter(int index, const char *key, const char *texts)
{
	struct request *request = &requests[index];
	request->credential = (struct credential){(char *)key, (char *)"", (char *)"", false};
	request->buyer.credential = &request->credential;
	request->buyer.credential_digest = digest_of(span_of(key));
	request->buyer.model = SPAN_LITERAL("m");
	request->buyer.model_json = SPAN_LITERAL("\"m\"");
	request->buyer.params_json = SPAN_LITERAL("");
	request->buyer.store_params = SPAN_LITERAL("{}");
	size_t n = strlen(texts);
	for (size_t i = 0; i < n; i++) {
		char text[2] = {texts[i], 0};
		request->tickets[i].key = key_of(text);
		request->tickets[i].input_json = (struct span){texts + i, 1};
	}
	assert_int_equal(enter_tickets(request, request->tickets, n), 0);
	return request;
}

static const char *inputs(size_t call)
{
	return (char *)calls[call].inputs.data;
}

static int setup_with(size_t max_flights)
{
	memset(calls, 0, sizeof calls);
	n_calls = 0;
	memset(requests, 0, sizeof requests);
	loop = loop_new();
	struct cache_options cache_options = {.budget_bytes = 4 << 20};
	cache = cache_new(&cache_options);
	struct flights_options options = {.max_flights = max_flights,
		.max_look_ups = 16,
		.store_deadline_ms = 1000,
		.ttl_ms = 1000000,
		.grace_ms = 0};
	struct flights_events events = {.on_object = on_object, .on_failure = on_failure};
	flights = flights_new(loop, cache, NULL, NULL, &fake_provider, NULL, &options, &events);
	return loop && cache && flights ? 0 : -1;
}

static int setup(void **state)
{
	(void)state;
	return setup_with(10000);
}

static int teardown(void **state)
{
	(void)state;
	flights_free(&flights);
	cache_free(&cache);
	loop_free(&loop);
	for (size_t i = 0; i < n_calls; i++) {
		buf_free(&calls[i].inputs);
		free(calls[i].authorization);
	}
	return 0;
}

/* ---- Tests ---- */

static void all_that_is_missing_is_bought_in_one_call(void **state)
{
	(void)state;
	struct request *request = enter(0, "k", "abc");
	assert_int_equal(n_calls, 0); /* never from inside */
	turn();
	assert_int_equal(n_calls, 1);
	assert_string_equal(inputs(0), "a b c");
	succeed(&calls[0], 10);
	assert_string_equal(request->seen, "bbb");
	assert_int_equal(flights_under_way(flights), 0);
	assert_int_equal(flights_counters(flights)->tokens_bought, 10);
}

static void a_second_request_joins(void **state)
{
	(void)state;
	struct request *first = enter(0, "k", "a");
	turn();
	struct request *second = enter(1, "other", "ab");
	turn();
	assert_int_equal(n_calls, 2);
	assert_string_equal(inputs(1), "b");
	succeed(&calls[0], 1);
	assert_string_equal(first->seen, "b");
	assert_string_equal(second->seen, "j");
	succeed(&calls[1], 1);
	assert_string_equal(second->seen, "jb");
}

static void what_was_bought_is_in_memory(void **state)
{
	(void)state;
	enter(0, "k", "ab");
	turn();
	succeed(&calls[0], 9);
	enum cache_freshness freshness;
	struct digest key = key_of("a");
	struct cache_object *object = cache_lookup(cache, &key, loop_wall_ms(loop), &freshness);
	assert_int_equal(freshness, CACHE_FRESH);
	/* Equal weights, nine tokens: five for the first. */
	assert_int_equal(cache_object_info(object)->prompt_tokens, 5);
	assert_true(span_equal_str(cache_object_info(object)->served_model, "m-1"));
	cache_object_unref(&object);
}

static void a_bad_key_harms_only_its_own(void **state)
{
	(void)state;
	struct request *bad = enter(0, "bad", "a");
	struct request *same = enter(1, "bad", "a");
	struct request *good = enter(2, "good", "a");
	turn();
	assert_int_equal(n_calls, 1);
	refuse(&calls[0], PROVIDER_REFUSED, 401);
	assert_int_equal(bad->failed_status, 401);
	assert_int_equal(same->failed_status, 401);
	assert_int_equal(good->failed_status, 0);
	turn();
	assert_int_equal(n_calls, 2);
	assert_string_equal(calls[1].authorization, "good");
	succeed(&calls[1], 1);
	assert_string_equal(good->seen, "b");
	assert_string_equal(bad->seen, "");
	assert_int_equal(flights_counters(flights)->elections, 1);
}

static void a_bad_request_harms_only_itself(void **state)
{
	(void)state;
	struct request *bad = enter(0, "k", "ab");
	struct request *good = enter(1, "k", "b");
	turn();
	refuse(&calls[0], PROVIDER_REFUSED, 400);
	assert_int_equal(bad->failed_status, 400);
	turn();
	assert_int_equal(n_calls, 2);
	assert_string_equal(inputs(1), "b");
	succeed(&calls[1], 1);
	assert_string_equal(good->seen, "b");
	assert_int_equal(flights_under_way(flights), 0);
}

static void a_dead_provider_fails_everybody(void **state)
{
	(void)state;
	struct request *first = enter(0, "k", "a");
	struct request *second = enter(1, "other", "a");
	turn();
	refuse(&calls[0], PROVIDER_UNREACHABLE, 503);
	assert_int_equal(first->failed_status, 503);
	assert_int_equal(second->failed_status, 503);
	assert_int_equal(flights_under_way(flights), 0);
	turn();
	assert_int_equal(n_calls, 1);
}

static void a_failure_withdraws_the_other_tickets(void **state)
{
	(void)state;
	struct request *first = enter(0, "k", "a");
	turn();
	struct request *both = enter(1, "bad", "ab");
	turn();
	assert_int_equal(n_calls, 2); /* b by the second */
	refuse(&calls[1], PROVIDER_REFUSED, 429);
	assert_int_equal(both->failed_status, 429);
	succeed(&calls[0], 1);
	assert_string_equal(first->seen, "b");
	assert_string_equal(both->seen, "");
}

static void unsent_and_unwanted_is_cancelled(void **state)
{
	(void)state;
	struct request *request = enter(0, "k", "ab");
	turn();
	flights_leave(flights, &request->buyer);
	assert_true(calls[0].cancelled);
	assert_int_equal(flights_under_way(flights), 0);
}

static void unbought_and_unwanted_is_dropped(void **state)
{
	(void)state;
	struct request *request = enter(0, "k", "ab");
	flights_leave(flights, &request->buyer);
	turn();
	assert_int_equal(n_calls, 0);
	assert_int_equal(flights_under_way(flights), 0);
}

static void unsent_but_wanted_goes_on(void **state)
{
	(void)state;
	struct request *payer = enter(0, "k", "a");
	struct request *waiter = enter(1, "other", "a");
	turn();
	flights_leave(flights, &payer->buyer);
	assert_false(calls[0].cancelled);
	succeed(&calls[0], 1);
	assert_string_equal(waiter->seen, "j");
	assert_string_equal(payer->seen, "");
}

static void paid_for_is_kept(void **state)
{
	(void)state;
	struct request *request = enter(0, "k", "a");
	turn();
	calls[0].sent = true;
	flights_leave(flights, &request->buyer);
	assert_false(calls[0].cancelled);
	succeed(&calls[0], 1);
	struct digest key = key_of("a");
	assert_true(cache_contains(cache, &key, loop_wall_ms(loop)));
	assert_string_equal(request->seen, "");
}

static void the_next_one_pays_when_the_payer_leaves_early(void **state)
{
	(void)state;
	struct request *payer = enter(0, "k", "a");
	struct request *waiter = enter(1, "other", "a");
	flights_leave(flights, &payer->buyer);
	turn();
	assert_int_equal(n_calls, 1);
	assert_string_equal(calls[0].authorization, "other");
	succeed(&calls[0], 1);
	assert_string_equal(waiter->seen, "b");
}

static void a_payer_that_left_a_failing_purchase_is_not_missed(void **state)
{
	(void)state;
	struct request *payer = enter(0, "bad", "a");
	struct request *waiter = enter(1, "good", "a");
	turn();
	flights_leave(flights, &payer->buyer);
	refuse(&calls[0], PROVIDER_REFUSED, 401);
	turn();
	assert_int_equal(n_calls, 2);
	assert_string_equal(calls[1].authorization, "good");
	succeed(&calls[1], 1);
	assert_string_equal(waiter->seen, "b");
	assert_int_equal(payer->failed_status, 0);
}

/* A large request enters over several turns of the loop. */
static void entering_may_take_its_time(void **state)
{
	(void)state;
	struct request *slow = enter(0, "k", "ax");
	flights_leave(flights, &slow->buyer);
	flights_enter_begin(flights, &slow->buyer, slow->tickets);
	assert_int_equal(flights_enter_one(flights, &slow->buyer), 0);
	turn();
	assert_int_equal(n_calls, 0); /* there may be more to buy with it */

	struct request *other = enter(1, "k", "ab");
	turn();
	assert_string_equal(inputs(0), "b");
	succeed(&calls[0], 1);
	assert_string_equal(other->seen, "b");
	/* It leaves half-way: who waits for the same buys it. */
	flights_leave(flights, &slow->buyer);
	turn();
	assert_string_equal(inputs(1), "a");

	/* What it joined may be there before it has entered as a whole. */
	flights_enter_begin(flights, &slow->buyer, slow->tickets);
	assert_int_equal(flights_enter_one(flights, &slow->buyer), 0);
	succeed(&calls[1], 1);
	assert_string_equal(other->seen, "bb");
	assert_string_equal(slow->seen, "j");
	assert_int_equal(flights_enter_one(flights, &slow->buyer), 0);
	flights_enter_end(flights, &slow->buyer);
	turn();
	assert_string_equal(inputs(2), "x");
	succeed(&calls[2], 1);
	assert_string_equal(slow->seen, "jb");
	assert_int_equal(flights_under_way(flights), 0);
}

static void large_requests_are_split(void **state)
{
	(void)state;
	enum { N = PROVIDER_MAX_INPUTS + 1 };
	struct ticket *tickets = calloc(N, sizeof *tickets);
	struct request *request = &requests[0];
	request->credential = (struct credential){(char *)"k", (char *)"", (char *)"", false};
	request->buyer = (struct buyer){.credential = &request->credential,
		.model = SPAN_LITERAL("m"),
		.model_json = SPAN_LITERAL("\"m\""),
		.params_json = SPAN_LITERAL(""),
		.store_params = SPAN_LITERAL("{}")};
	for (int i = 0; i < N; i++) {
		char text[16];
		snprintf(text, sizeof text, "%d", i);
		tickets[i].key = key_of(text);
		tickets[i].input_json = SPAN_LITERAL("1");
	}
	assert_int_equal(enter_tickets(request, tickets, N), 0);
	turn();
	assert_int_equal(n_calls, 2);
	assert_int_equal(calls[0].n, PROVIDER_MAX_INPUTS);
	assert_int_equal(calls[1].n, 1);
	flights_leave(flights, &request->buyer);
	assert_true(calls[0].cancelled && calls[1].cancelled);
	free(tickets);
}

static void too_many_are_refused(void **state)
{
	(void)state;
	flights_free(&flights);
	struct flights_options options = {.max_flights = 3};
	struct flights_events events = {.on_object = on_object, .on_failure = on_failure};
	flights = flights_new(loop, cache, NULL, NULL, &fake_provider, NULL, &options, &events);
	enter(0, "k", "ab");
	struct request *request = &requests[1];
	*request = requests[0];
	/* What is under way can be waited for, but for one more that is not. */
	assert_int_equal(enter_tickets(request, request->tickets, 2), 0);
	flights_leave(flights, &request->buyer);
	for (int i = 0; i < 2; i++)
		request->tickets[i].key = key_of(i ? "d" : "c");
	assert_int_equal(enter_tickets(request, request->tickets, 2), -1);
	turn();
	succeed(&calls[0], 2);
	assert_string_equal(requests[0].seen, "bb");
}

static void idle(void *arg)
{
	++*(int *)arg;
}

static void idle_is_told_once_all_is_done(void **state)
{
	(void)state;
	int n = 0;
	enter(0, "k", "a");
	turn();
	flights_on_idle(flights, idle, &n);
	turn();
	assert_int_equal(n, 0);
	succeed(&calls[0], 1);
	turn();
	assert_int_equal(n, 1);
	turn();
	assert_int_equal(n, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(all_that_is_missing_is_bought_in_one_call),
		TEST(a_second_request_joins),
		TEST(what_was_bought_is_in_memory),
		TEST(a_bad_key_harms_only_its_own),
		TEST(a_bad_request_harms_only_itself),
		TEST(a_dead_provider_fails_everybody),
		TEST(a_failure_withdraws_the_other_tickets),
		TEST(unsent_and_unwanted_is_cancelled),
		TEST(unbought_and_unwanted_is_dropped),
		TEST(unsent_but_wanted_goes_on),
		TEST(paid_for_is_kept),
		TEST(the_next_one_pays_when_the_payer_leaves_early),
		TEST(a_payer_that_left_a_failing_purchase_is_not_missed),
		TEST(entering_may_take_its_time),
		TEST(large_requests_are_split),
		TEST(too_many_are_refused),
		TEST(idle_is_told_once_all_is_done),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
