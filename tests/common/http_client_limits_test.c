#include "tests/common/http_client_bench.h"

/* --- limits on calls and connections --- */

static void test_calls_beyond_the_connections_wait(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	struct http_client_options limited = http_client_defaults;
	limited.max_connections = 2;
	limited.max_connections_host = 1;
	set_up_with(&b, &limited);
	raw_server_start(&s, serve_arg_always, NULL);
	s.arg = ANSWER_OK;
	s.arg_len = strlen(ANSWER_OK);
	struct http_call_options options = options_for("POST", s.url);
	struct outcome outcomes[20] = {0};
	for (int i = 0; i < 20; i++) {
		options.body = body_of(&b, "{}");
		start(&b, &options, &outcomes[i]);
	}
	run_until(&b, 20);
	for (int i = 0; i < 20; i++)
		assert_int_equal(outcomes[i].outcome, HTTP_CALL_OK);
	assert_int_equal(atomic_load(&s.connections), 1);
	assert_int_equal(b.bodies_released, 20);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
}

static void test_deadline_holds_while_waiting(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	struct http_client_options limited = http_client_defaults;
	limited.max_connections_host = 1;
	set_up_with(&b, &limited);
	raw_server_start(&s, serve_nothing, NULL);
	struct http_call_options options = options_for("POST", s.url);
	struct outcome first = {0}, waiting = {0};
	start(&b, &options, &first);
	options.timeout_ms = 40;
	start(&b, &options, &waiting);
	run_until(&b, 1);
	assert_int_equal(waiting.outcome, HTTP_CALL_TIMEOUT);
	assert_false(waiting.sent);
	assert_int_equal(waiting.status, 0);
	http_call_cancel(&first.call);
	assert_int_equal(first.dones, 0);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
}

static void test_calls_beyond_the_limit_are_refused(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	struct http_client_options limited = http_client_defaults;
	limited.max_calls = 2;
	limited.max_connections_host = 1; /* as many as the server serves at a time */
	set_up_with(&b, &limited);
	raw_server_start(&s, serve_arg_always, NULL);
	s.arg = ANSWER_OK;
	s.arg_len = strlen(ANSWER_OK);
	struct http_call_options options = options_for("POST", s.url);
	struct outcome outcomes[4] = {0};
	for (int i = 0; i < 4; i++) {
		options.body = body_of(&b, "{}");
		start(&b, &options, &outcomes[i]);
	}
	run_until(&b, 4);
	assert_int_equal(outcomes[0].outcome, HTTP_CALL_OK);
	assert_int_equal(outcomes[1].outcome, HTTP_CALL_OK);
	for (int i = 2; i < 4; i++) {
		assert_int_equal(outcomes[i].outcome, HTTP_CALL_BUSY);
		assert_false(outcomes[i].sent);
		assert_int_equal(outcomes[i].status, 0);
	}
	assert_int_equal(b.bodies_released, 4);
	options.body = body_of(&b, "{}");
	assert_int_equal(call_once(&b, &options).outcome, HTTP_CALL_OK);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
}

/* --- cancel, and the client's end --- */

static struct outcome others[3];

static void cancel_the_others(struct outcome *o)
{
	for (int i = 0; i < 3; i++) {
		if (&others[i] != o)
			http_call_cancel(&others[i].call);
	}
	http_call_cancel(&o->call); /* itself: nothing happens */
	assert_null(o->call);
}

static void test_cancel_from_another_calls_callback(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	set_up(&b);
	raw_server_start(&s, serve_arg_always, NULL);
	s.arg = ANSWER_OK;
	s.arg_len = strlen(ANSWER_OK);
	struct http_call_options options = options_for("POST", s.url);
	for (int i = 0; i < 3; i++) {
		others[i].then = cancel_the_others;
		options.body = body_of(&b, "{}");
		start(&b, &options, &others[i]);
	}
	run_until(&b, 1);
	assert_int_equal(b.bodies_released, 3);
	assert_int_equal(others[0].dones + others[1].dones + others[2].dones, 1);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
}

static void stop_loop(void *arg)
{
	loop_stop(arg);
}

static void test_cancel_at_any_time(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	set_up(&b);
	raw_server_start(&s, serve_arg_then_hang, NULL);
	s.arg = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
	s.arg_len = strlen(s.arg);
	struct timer *timer = timer_new(b.loop, stop_loop, b.loop);
	struct http_call_options options = options_for("POST", s.url);
	for (unsigned delay_ms = 0; delay_ms < 8; delay_ms++) {
		struct outcome o = {0};
		options.body = body_of(&b, "{}");
		start(&b, &options, &o);
		if (delay_ms > 0) {
			timer_arm(timer, delay_ms - 1);
			loop_run(b.loop);
		}
		http_call_cancel(&o.call);
		assert_null(o.call);
		assert_int_equal(b.bodies_released, delay_ms + 1);
		http_call_cancel(&o.call);
	}
	/* One that was going to fail. */
	struct outcome o = {0};
	options.url = "ftp://127.0.0.1/";
	options.body = body_of(&b, "{}");
	start(&b, &options, &o);
	http_call_cancel(&o.call);
	assert_int_equal(b.bodies_released, 9);
	timer_arm(timer, 0);
	loop_run(b.loop);
	assert_int_equal(b.done, 0);
	timer_free(&timer);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
}

static void free_client(struct outcome *o)
{
	http_client_free(&o->bench->client);
}

static void test_client_ends_with_calls_under_way(void **state)
{
	(void)state;
	for (int inside = 0; inside < 2; inside++) {
		struct bench b;
		struct raw_server s;
		set_up(&b);
		raw_server_start(&s, serve_arg_always, NULL);
		s.arg = ANSWER_OK;
		s.arg_len = strlen(ANSWER_OK);
		struct http_call_options options = options_for("POST", s.url);
		struct outcome outcomes[10] = {0};
		for (int i = 0; i < 10; i++) {
			outcomes[i].then = free_client;
			options.body = body_of(&b, "{}");
			start(&b, &options, &outcomes[i]);
		}
		if (inside)
			run_until(&b, 1);
		tear_down(&b);
		assert_int_equal(b.bodies_released, 10);
		assert_int_equal(b.done, inside);
		raw_server_stop(&s);
		raw_server_free(&s);
	}
	/* From the callback of a call that could not start. */
	struct bench b;
	set_up(&b);
	struct http_call_options options = options_for("POST", "ftp://127.0.0.1/");
	struct outcome o = {.then = free_client};
	start(&b, &options, &o);
	run_until(&b, 1);
	tear_down(&b);
}

/* Each answer starts the next call, on the connection that has just become free. */
static struct http_call_options next_options;

static void call_again(struct outcome *o)
{
	struct bench *b = o->bench;
	if (b->done + 1 < b->stop_at)
		start(b, &next_options, o);
}

static void test_calls_from_inside_callbacks(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	set_up(&b);
	raw_server_start(&s, serve_arg_always, NULL);
	s.arg = ANSWER_OK;
	s.arg_len = strlen(ANSWER_OK);
	next_options = options_for("POST", s.url);
	struct outcome o = {.then = call_again};
	start(&b, &next_options, &o);
	run_until(&b, 50);
	assert_int_equal(o.outcome, HTTP_CALL_OK);
	assert_int_equal(atomic_load(&s.connections), 1);
	assert_int_equal(atomic_load(&s.requests), 50);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
}

int main(void)
{
	prepare_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls_beyond_the_connections_wait),
		cmocka_unit_test(test_deadline_holds_while_waiting),
		cmocka_unit_test(test_calls_beyond_the_limit_are_refused),
		cmocka_unit_test(test_cancel_from_another_calls_callback),
		cmocka_unit_test(test_cancel_at_any_time),
		cmocka_unit_test(test_client_ends_with_calls_under_way),
		cmocka_unit_test(test_calls_from_inside_callbacks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
