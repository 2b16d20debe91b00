/* What the server refuses, and how long it waits. */
#include "tests/common/http_fixture.h"

static struct http_server_options options;

static int set_up(void **state)
{
	(void)state;
	options = http_server_defaults;
	return 0;
}

#define HELLO      "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST(path) "POST " path " HTTP/1.1\r\nHost: a\r\n"

/* The client is answered with this status and a JSON error, then the connection ends cleanly. */
static void check_refused(struct client *c, int status, const char *code, const char *reason)
{
	char text[256];
	WAIT_UNTIL(c->closed);
	assert_int_equal(c->error, 0);
	snprintf(text, sizeof text, "HTTP/1.1 %d %s\r\nDate: ", status, http_status_reason(status));
	if (!client_has(c, text))
		fail_msg("no %s in %.*s", text, (int)c->in.len, (char *)c->in.data);
	assert_true(client_has(c, "\r\nConnection: close\r\n"));
	assert_true(client_has(c, "Content-Type: application/json\r\n"));
	snprintf(text, sizeof text,
		"\r\n\r\n{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\","
		"\"param\":null,\"code\":\"%s\"}}",
		reason, code);
	if (!client_ends_with(c, text))
		fail_msg("not at the end: %s of %.*s", text, (int)c->in.len, (char *)c->in.data);
}

static void bad_requests_are_answered(void **state)
{
	(void)state;
	static const struct {
		const char *input;
		int status;
		const char *code, *reason;
	} cases[] = {
		{"\x16\x03\x01", 400, "bad_request", "The request line has no valid method."},
		{"GET /hello HTTP/1.1\r\n\r\n", 400, "bad_request", "Host is missing."},
		{POST("/echo") "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
			"bad_request", "Content-Length and Transfer-Encoding are both given."},
		{POST("/echo") "Content-Length: 101\r\n\r\n", 413, "request_too_large",
			"The body is too large."},
		{POST("/echo") "Content-Length: 101\r\nExpect: 100-continue\r\n\r\n", 413,
			"request_too_large", "The body is too large."},
		{POST("/echo") "Expect: tea\r\n\r\n", 417, "expectation_failed",
			"The only expectation supported is 100-continue."},
		{POST("/echo") "Transfer-Encoding: gzip\r\n\r\n", 501, "not_implemented",
			"Only the chunked transfer coding is supported."},
		{"GET /hello HTTP/3.0\r\n", 505, "http_version_not_supported",
			"Only HTTP/1.0 and HTTP/1.1 are supported."},
		{"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\n", 414, "uri_too_long",
			"The request target is too long."},
		{"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n", 431,
			"headers_too_large", "There are too many header fields."},
		{"GET / HTTP/1.1\r\nHost: a\r\nA: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
			431, "headers_too_large", "The header section is too large."},
	};
	options.max_body_bytes = 100;
	options.max_target_bytes = 40;
	options.max_head_bytes = 150;
	options.max_headers = 4;
	world_make(&options);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct client c;
		client_connect(&c);
		client_send(&c, cases[i].input);
		check_refused(&c, cases[i].status, cases[i].code, cases[i].reason);
		client_close(&c);
		assert_int_equal(world.finished, i + 1);
		assert_int_equal(world.last_status, cases[i].status);
	}
	assert_int_equal(world.requests, 0);
	world_free();
}

static void the_access_log_sees_what_was_understood(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, "PUT /x?y HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n");
	WAIT_UNTIL(c.closed);
	assert_string_equal(world.last_method, "PUT");
	assert_string_equal(world.last_target, "/x?y");
	assert_int_equal(world.last_status, 400);
	client_close(&c);
	client_connect(&c);
	client_send(&c, "\x01");
	WAIT_UNTIL(c.closed);
	assert_string_equal(world.last_method, "");
	assert_string_equal(world.last_target, "");
	client_close(&c);
	/* Nobody hears of a client that left before it said anything whole. */
	client_connect(&c);
	client_send(&c, "GET /hello HT");
	WAIT_UNTIL(http_server_connections(world.server) == 1);
	turn_some();
	client_close(&c);
	WAIT_UNTIL(http_server_connections(world.server) == 0);
	assert_int_equal(world.finished, 2);
	world_free();
}

static void a_client_that_goes_on_sending_gets_the_answer(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	for (int round = 0; round < 3; round++) {
		client_connect(&c);
		char head[128];
		snprintf(head, sizeof head, POST("/refuse") "Content-Length: %d\r\n\r\n",
			round == 0 ? 100 * 1024 * 1024 : BIG_BYTES);
		client_send(&c, head);
		client_send_bytes(&c, world.big, BIG_BYTES);
		WAIT_UNTIL(c.closed);
		assert_int_equal(c.error, 0);
		assert_true(client_has(&c, round == 0 ? "HTTP/1.1 413 " : "HTTP/1.1 403 "));
		client_close(&c);
		WAIT_UNTIL(http_server_connections(world.server) == 0);
	}
	world_free();
}

static void a_small_body_that_nobody_wants_is_skipped(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, POST("/refuse") "Content-Length: 100000\r\n\r\n");
	WAIT_FOR_TEXT(&c, "\r\n\r\nno");
	assert_false(client_has(&c, "Connection: close"));
	client_send_bytes(&c, world.big, 100000);
	client_send(&c, HELLO);
	WAIT_FOR_TEXT(&c, "hello");
	client_send(&c, POST("/refuse") "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
	WAIT_UNTIL(world.finished == 3);
	client_send(&c, "4\r\nabcd\r\n0\r\n\r\n" HELLO);
	WAIT_UNTIL(count_of(&c.in, "hello") == 2);
	assert_int_equal(world.body_bytes, 0);
	/* Chunked, its length shows too late: when it is too much we end. */
	client_send(&c, POST("/refuse") "Transfer-Encoding: chunked\r\n\r\na00000\r\n");
	client_send_bytes(&c, world.big, BIG_BYTES);
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, 0);
	assert_int_equal(count_of(&c.in, "\r\n\r\nno"), 3);
	client_close(&c);
	/* And when it turns out to be nonsense. */
	client_connect(&c);
	client_send(&c, POST("/refuse") "Transfer-Encoding: chunked\r\n\r\nzz\r\n" HELLO);
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, 0);
	assert_false(client_has(&c, "hello"));
	client_close(&c);
	world_free();
}

static void expect_100_continue(void **state)
{
	(void)state;
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, POST("/echo") "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
	WAIT_FOR_TEXT(&c, go_on);
	assert_int_equal(c.in.len, strlen(go_on));
	client_send(&c, "abc");
	WAIT_FOR_TEXT(&c, "\r\n\r\nabc");
	/* A client that does not wait is not told; nor one that has nothing to send. */
	client_send(&c, POST("/echo") "Expect: 100-continue\r\nContent-Length: 3\r\n\r\ndef");
	WAIT_FOR_TEXT(&c, "\r\n\r\ndef");
	client_send(&c, POST("/echo") "Expect: 100-continue\r\n\r\n");
	WAIT_UNTIL(world.finished == 3);
	assert_int_equal(count_of(&c.in, go_on), 1);
	/* Refused: no 100, and the connection ends, since the body may come or not. */
	client_send(&c, POST("/refuse") "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, 0);
	assert_int_equal(count_of(&c.in, go_on), 1);
	assert_true(client_has(&c, "HTTP/1.1 403 Forbidden"));
	assert_true(client_ends_with(&c, "Connection: close\r\n\r\nno"));
	client_close(&c);
	world_free();
}

static void a_bad_body_aborts_the_exchange(void **state)
{
	(void)state;
	static const struct {
		const char *input;
		int status;
		const char *code, *reason;
	} cases[] = {
		{"3\r\nabcd", 400, "bad_request", "A chunk is longer than its size."},
		{"3\r\nabc\r\nx", 400, "bad_request", "A chunk size is malformed."},
		{"65\r\n", 413, "request_too_large", "The body is too large."},
	};
	options.max_body_bytes = 100;
	world_make(&options);
	for (unsigned i = 0; i < 3; i++) {
		struct client c;
		client_connect(&c);
		client_send(&c, POST("/wait") "Transfer-Encoding: chunked\r\n\r\n");
		WAIT_UNTIL(world.n_waiting == 1);
		client_send(&c, cases[i].input);
		check_refused(&c, cases[i].status, cases[i].code, cases[i].reason);
		assert_int_equal(world.aborted, i + 1);
		assert_int_equal(world.finished, i + 1);
		assert_int_equal(world.last_status, cases[i].status);
		client_close(&c);
	}
	assert_int_equal(world.body_ends, 0);
	world_free();
}

static void a_bad_body_cuts_a_response_under_way(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, POST("/wait") "Transfer-Encoding: chunked\r\n\r\n");
	WAIT_UNTIL(world.n_waiting == 1);
	http_exchange_respond_start(world.waiting[0], 200, SPAN_LITERAL(""), -1);
	http_exchange_send(world.waiting[0], slice_static("half"));
	WAIT_FOR_TEXT(&c, "half");
	client_send(&c, "bad\n");
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, ECONNRESET);
	assert_int_equal(world.aborted, 1);
	assert_int_equal(world.last_status, 200);
	client_close(&c);
	world_free();
}

static void waiting_has_an_end(void **state)
{
	(void)state;
	struct client c;
	options.idle_timeout_ms = 30;
	options.header_timeout_ms = 40;
	options.body_timeout_ms = 50;
	world_make(&options);
	/* Silence from the start, and after a request. */
	client_connect(&c);
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, 0);
	assert_int_equal(c.in.len, 0);
	client_close(&c);
	client_connect(&c);
	client_send(&c, HELLO);
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, 0);
	assert_true(client_ends_with(&c, "hello"));
	client_close(&c);
	/* A head that does not end; more bytes do not buy more time. */
	client_connect(&c);
	client_send(&c, "GET /hello HTTP/1.1\r\n");
	WAIT_UNTIL(http_server_connections(world.server) == 1);
	uint64_t sent_us = 0;
	while (!c.closed) {
		if (loop_now_us(world.loop) > sent_us + 1000) {
			client_send(&c, "X");
			sent_us = loop_now_us(world.loop);
		}
		event_base_loop(loop_base(world.loop), EVLOOP_NONBLOCK);
	}
	check_refused(&c, 408, "request_timeout", "The request header did not arrive in time.");
	assert_int_equal(world.last_status, 408);
	client_close(&c);
	/* A body that does not. */
	client_connect(&c);
	client_send(&c, POST("/wait") "Content-Length: 10\r\n\r\nabc");
	WAIT_UNTIL(world.n_waiting == 1);
	check_refused(&c, 408, "request_timeout", "The request body did not arrive in time.");
	assert_int_equal(world.aborted, 1);
	client_close(&c);
	/* One that nobody wants. */
	client_connect(&c);
	client_send(&c, POST("/refuse") "Content-Length: 10\r\n\r\nabc");
	WAIT_UNTIL(c.closed);
	assert_true(client_ends_with(&c, "no"));
	client_close(&c);
	assert_int_equal(world.finished, 4);
	world_free();
}

static void a_handler_may_take_its_time(void **state)
{
	(void)state;
	struct client c, other;
	options.idle_timeout_ms = 20;
	options.header_timeout_ms = 20;
	options.body_timeout_ms = 20;
	options.write_timeout_ms = 20;
	world_make(&options);
	client_connect(&c);
	client_send(&c, POST("/wait") "Content-Length: 3\r\n\r\nabc");
	WAIT_UNTIL(world.n_waiting == 1);
	client_connect(&other);
	client_send(&other, POST("/wait") "Content-Length: 3\r\n\r\na");
	WAIT_UNTIL(world.n_waiting == 2);
	/* While a body is paused its client cannot be late. */
	http_exchange_pause(world.waiting[1]);
	for (int i = 0; i < 4; i++) {
		struct client idle;
		client_connect(&idle);
		WAIT_UNTIL(idle.closed);
		client_close(&idle);
	}
	assert_int_equal(world.n_waiting, 2);
	answer_waiting(200, "at last");
	WAIT_FOR_TEXT(&c, "at last");
	http_exchange_resume(world.waiting[0]);
	WAIT_UNTIL(world.aborted == 1);
	assert_int_equal(world.last_status, 408);
	client_close(&c);
	client_close(&other);
	world_free();
}

static void a_client_that_takes_nothing_is_reset(void **state)
{
	(void)state;
	struct client c;
	options.write_timeout_ms = 50;
	world_make(&options);
	client_connect(&c);
	event_del(c.readable);
	client_send(&c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
	WAIT_UNTIL(world.aborted == 1);
	assert_int_equal(http_server_connections(world.server), 0);
	assert_int_equal(world.finished, 1);
	assert_true(world.bytes_out < BIG_BYTES);
	event_add(c.readable, NULL);
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, ECONNRESET);
	client_close(&c);
	world_free();
}

#define SIP_BYTES    (32 * 1024)
#define SIP_PAUSE_MS 10

struct sipping {
	struct client *client;
	struct timer *timer;
	char *cup;
	size_t drunk;
};

static void sip(void *arg)
{
	struct sipping *s = arg;
	ssize_t n = recv(s->client->fd, s->cup, SIP_BYTES, MSG_DONTWAIT);
	if (n > 0)
		s->drunk += (size_t)n;
	if (n == 0 || (n < 0 && errno != EAGAIN))
		s->client->closed = true;
	else
		timer_arm(s->timer, SIP_PAUSE_MS);
}

/* Slower than the kernel's send buffer makes room that it tells us of. */
static void a_client_that_takes_little_is_not_reset(void **state)
{
	(void)state;
	struct client c;
	struct sipping s = {.client = &c};
	options.write_timeout_ms = 80;
	world_make(&options);
	s.timer = timer_new(world.loop, sip, &s);
	s.cup = malloc(SIP_BYTES);
	assert_true(s.timer && s.cup);
	client_connect(&c);
	event_del(c.readable);
	client_send(&c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
	timer_arm(s.timer, SIP_PAUSE_MS);
	WAIT_UNTIL(c.closed || s.drunk > BIG_BYTES / 3);
	assert_false(c.closed);
	assert_int_equal(world.aborted, 0);
	timer_free(&s.timer);
	free(s.cup);
	client_close(&c);
	world_free();
}

/* It takes something all the time, but what it is sent is held by somebody. */
static void a_client_under_the_least_rate_is_reset(void **state)
{
	(void)state;
	struct client c;
	struct sipping s = {.client = &c};
	options.write_timeout_ms = 80;
	options.min_write_bytes_s = 1u << 30;
	world_make(&options);
	s.timer = timer_new(world.loop, sip, &s);
	s.cup = malloc(SIP_BYTES);
	assert_true(s.timer && s.cup);
	client_connect(&c);
	event_del(c.readable);
	client_send(&c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
	timer_arm(s.timer, SIP_PAUSE_MS);
	WAIT_UNTIL(world.aborted == 1);
	assert_true(s.drunk > 0 && world.bytes_out < BIG_BYTES);
	timer_free(&s.timer);
	free(s.cup);
	client_close(&c);
	world_free();
}

/* To reset one whose answer fills the kernel's buffers takes up to a millisecond. */
static void many_that_are_late_are_ended_one_a_turn(void **state)
{
	(void)state;
	struct client c[4];
	unsigned most = 0;
	options.body_timeout_ms = 50;
	world_make(&options);
	for (int i = 0; i < 4; i++) {
		client_connect(&c[i]);
		client_send(&c[i], POST("/wait") "Content-Length: 3\r\n\r\na");
	}
	WAIT_UNTIL(world.n_waiting == 4);
	world.abort_takes_us = LOOP_SLICE_US * 2;
	uint64_t late_us = loop_now_us(world.loop) + 60000;
	while (loop_now_us(world.loop) < late_us)
		;
	while (world.aborted < 4) {
		unsigned before = world.aborted;
		event_base_loop(loop_base(world.loop), EVLOOP_ONCE);
		if (world.aborted - before > most)
			most = world.aborted - before;
	}
	assert_int_equal(most, 1);
	for (int i = 0; i < 4; i++)
		client_close(&c[i]);
	world_free();
}

static void connections_are_bounded(void **state)
{
	(void)state;
	struct client c[5];
	options.max_connections = 3;
	world_make(&options);
	for (int i = 0; i < 5; i++) {
		client_connect(&c[i]);
		client_send(&c[i], HELLO);
	}
	for (int i = 0; i < 3; i++)
		WAIT_FOR_TEXT(&c[i], "hello");
	turn_some();
	assert_int_equal(http_server_connections(world.server), 3);
	assert_int_equal(c[3].in.len + c[4].in.len, 0);
	/* They were not forgotten. */
	client_close(&c[0]);
	WAIT_FOR_TEXT(&c[3], "hello");
	client_close(&c[1]);
	WAIT_FOR_TEXT(&c[4], "hello");
	for (int i = 2; i < 5; i++)
		client_close(&c[i]);
	world_free();
}

static void running_out_of_descriptors_passes(void **state)
{
	(void)state;
	struct client c;
	struct rlimit old, tight;
	world_make(&options);
	client_connect(&c);
	client_send(&c, HELLO);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	tight = old;
	/* All that is open stays, nothing more may come. */
	int next = dup(0);
	assert_true(next >= 0);
	close(next);
	tight.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	turn_some();
	assert_int_equal(http_server_connections(world.server), 0);
	assert_true(log_lines(LOG_LEVEL_WARN) > 0);
	/* It does not spin: a blocking turn waits for the retry, not for the listener. */
	uint64_t lines = log_lines(LOG_LEVEL_WARN);
	turn_some();
	assert_int_equal(log_lines(LOG_LEVEL_WARN), lines);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	WAIT_UNTIL(client_has(&c, "hello") || c.closed);
	if (c.closed) {
		/* valgrind keeps the limit by closing what the kernel had accepted. */
		client_close(&c);
		client_connect(&c);
		client_send(&c, HELLO);
		WAIT_FOR_TEXT(&c, "hello");
	}
	client_close(&c);
	world_free();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(bad_requests_are_answered, set_up),
		cmocka_unit_test_setup(the_access_log_sees_what_was_understood, set_up),
		cmocka_unit_test_setup(a_client_that_goes_on_sending_gets_the_answer, set_up),
		cmocka_unit_test_setup(a_small_body_that_nobody_wants_is_skipped, set_up),
		cmocka_unit_test_setup(expect_100_continue, set_up),
		cmocka_unit_test_setup(a_bad_body_aborts_the_exchange, set_up),
		cmocka_unit_test_setup(a_bad_body_cuts_a_response_under_way, set_up),
		cmocka_unit_test_setup(waiting_has_an_end, set_up),
		cmocka_unit_test_setup(a_handler_may_take_its_time, set_up),
		cmocka_unit_test_setup(a_client_that_takes_nothing_is_reset, set_up),
		cmocka_unit_test_setup(a_client_that_takes_little_is_not_reset, set_up),
		cmocka_unit_test_setup(a_client_under_the_least_rate_is_reset, set_up),
		cmocka_unit_test_setup(many_that_are_late_are_ended_one_a_turn, set_up),
		cmocka_unit_test_setup(connections_are_bounded, set_up),
		cmocka_unit_test_setup(running_out_of_descriptors_passes, set_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
