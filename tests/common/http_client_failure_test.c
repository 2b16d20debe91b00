#include "tests/common/http_client_bench.h"

#include <netdb.h>
#include <semaphore.h>

/* --- what can go wrong before anything is sent --- */

static void test_refused_connection(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	set_up(&b);
	raw_server_start(&s, serve_nothing, NULL);
	raw_server_stop(&s);
	struct http_call_options options = options_for("POST", s.url);
	options.body = body_of(&b, "{}");
	struct outcome o = call_once(&b, &options);
	assert_int_equal(o.outcome, HTTP_CALL_CONNECT);
	assert_int_equal(o.status, 0);
	assert_false(o.sent);
	assert_true(o.tag_absent);
	assert_int_equal(b.bodies_released, 1);
	raw_server_free(&s);
	tear_down(&b);
}

static void test_bad_urls_and_headers_are_not_sent(void **state)
{
	(void)state;
	static const char *const urls[] = {"", "http://", "http:// bad/", "ftp://127.0.0.1/",
		"file:///etc/passwd", "gopher://127.0.0.1:1/", "nonsense",
		"http://127.0.0.1:99999/", "dict://127.0.0.1:1/d"};
	struct bench b;
	set_up(&b);
	for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
		struct http_call_options options = options_for("POST", urls[i]);
		options.body = body_of(&b, "{}");
		struct outcome o = call_once(&b, &options);
		assert_int_equal(o.outcome, HTTP_CALL_CONNECT);
		assert_false(o.sent);
		assert_int_equal(o.status, 0);
		assert_int_equal(b.bodies_released, i + 1);
	}
	struct raw_server s;
	raw_server_start(&s, serve_arg_always, NULL);
	s.arg = ANSWER_OK;
	s.arg_len = strlen(ANSWER_OK);
	static const char *const lines[] = {"X: a\r\nY: b", "X: a\n", "X: \ra"};
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		const char *headers[] = {"Good: yes", lines[i], NULL};
		struct http_call_options options = options_for("GET", s.url);
		options.headers = headers;
		assert_int_equal(call_once(&b, &options).outcome, HTTP_CALL_UNSENDABLE);
	}
	assert_int_equal(atomic_load(&s.connections), 0);
	/* And the client is none the worse for it. */
	struct http_call_options options = options_for("GET", s.url);
	assert_int_equal(call_once(&b, &options).outcome, HTTP_CALL_OK);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
}

static void serve_junk_to_hello(struct raw_server *s, int fd, unsigned nth)
{
	(void)nth;
	if (read(fd, s->request, 1) > 0)
		raw_print(fd, "HTTP/1.1 400 no TLS here\r\n\r\n");
}

static void test_failed_tls_is_not_sent(void **state)
{
	(void)state;
	static void (*const scripts[])(struct raw_server *, int, unsigned) = {
		serve_junk_to_hello, serve_nothing};
	for (size_t i = 0; i < 2; i++) {
		struct bench b;
		struct raw_server s;
		set_up(&b);
		raw_server_start(&s, scripts[i], NULL);
		char url[300];
		snprintf(url, sizeof url, "https%s/", s.url + strlen("http"));
		struct http_call_options options = options_for("POST", url);
		options.body = body_of(&b, "secret");
		options.connect_timeout_ms = i == 0 ? 10000 : 30;
		struct outcome o = call_once(&b, &options);
		assert_int_equal(o.outcome, HTTP_CALL_CONNECT);
		assert_false(o.sent);
		tear_down(&b);
		raw_server_stop(&s);
		raw_server_free(&s);
	}
}

/* libcurl's lookups come here: one name hangs until the test lets it go, others are left to fail.
 */
static sem_t lookup_gate;

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
	struct addrinfo **result)
{
	(void)service;
	(void)hints;
	*result = NULL;
	if (node && strcmp(node, "hangs.test") == 0) {
		sem_wait(&lookup_gate);
		sem_post(&lookup_gate);
	}
	return EAI_NONAME;
}

static void test_name_lookup_that_fails_or_hangs(void **state)
{
	(void)state;
	struct bench b;
	set_up(&b);
	sem_init(&lookup_gate, 0, 0);
	struct http_call_options options = options_for("POST", "http://unknown.test/");
	struct outcome o = call_once(&b, &options);
	assert_int_equal(o.outcome, HTTP_CALL_CONNECT);
	assert_false(o.sent);

	/* The lookups still hang when the calls end, and when the client does: nothing waits. */
	options = options_for("POST", "http://hangs.test/");
	options.connect_timeout_ms = 30;
	o = call_once(&b, &options);
	assert_int_equal(o.outcome, HTTP_CALL_CONNECT);
	assert_false(o.sent);
	options.connect_timeout_ms = 10000;
	options.timeout_ms = 30;
	o = call_once(&b, &options);
	assert_int_equal(o.outcome, HTTP_CALL_TIMEOUT);
	assert_false(o.sent);
	options.timeout_ms = 10000;
	start(&b, &options, &o);
	http_call_cancel(&o.call);
	assert_null(o.call);
	tear_down(&b);
	sem_post(&lookup_gate);
}

/* --- what can go wrong afterwards --- */

/* A deadline that leaves a busy machine the time to get as far as the server means to go. */
#define TIME_TO_ANSWER_MS 400

static void test_no_answer_before_the_deadline(void **state)
{
	(void)state;
	struct outcome o = ask_limited(serve_nothing, "", 0, TIME_TO_ANSWER_MS, MIB);
	assert_int_equal(o.outcome, HTTP_CALL_TIMEOUT);
	assert_int_equal(o.status, 0);
	assert_true(o.sent);
	assert_true(o.duration_us >= (TIME_TO_ANSWER_MS - 1) * 1000);

	static const char half[] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
	o = ask_limited(serve_arg_then_hang, half, sizeof half - 1, TIME_TO_ANSWER_MS, MIB);
	assert_int_equal(o.outcome, HTTP_CALL_TIMEOUT);
	assert_int_equal(o.status, 200);
	assert_string_equal(o.body, "half");

	o = ask_limited(
		serve_arg_then_hang, "HTTP/1.1 100 Continue\r\n\r\n", 25, TIME_TO_ANSWER_MS, MIB);
	assert_int_equal(o.outcome, HTTP_CALL_TIMEOUT);
	assert_int_equal(o.status, 0);

	/* No time left at all. */
	o = ask_limited(serve_nothing, "", 0, 0, MIB);
	assert_int_equal(o.outcome, HTTP_CALL_TIMEOUT);
}

/* A byte now and then keeps no call alive past its deadline. */
static void serve_drip(struct raw_server *s, int fd, unsigned nth)
{
	(void)nth;
	if (!raw_read_request(s, fd))
		return;
	raw_print(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
	struct pollfd gone = {.fd = fd, .events = POLLIN};
	while (poll(&gone, 1, 2) == 0)
		raw_print(fd, "x");
}

static void test_slow_drip_meets_the_deadline(void **state)
{
	(void)state;
	struct outcome o = ask_limited(serve_drip, "", 0, TIME_TO_ANSWER_MS, MIB);
	assert_int_equal(o.outcome, HTTP_CALL_TIMEOUT);
	assert_int_equal(o.status, 200);
	assert_true(o.body_len > 0);
}

static void cut_everywhere(const char *answer, size_t whole)
{
	for (size_t len = 0; len < whole; len++) {
		struct outcome o = ask(serve_arg_once, answer, len);
		/* Less than a status line may also count as something that is not HTTP. */
		if (o.outcome != HTTP_CALL_RESET)
			assert_int_equal(o.outcome, HTTP_CALL_BAD);
		if (len == 0 || len > strlen("HTTP/1.1 200 "))
			assert_int_equal(o.outcome, HTTP_CALL_RESET);
		assert_true(o.sent);
	}
	assert_int_equal(ask(serve_arg_once, answer, whole).outcome, HTTP_CALL_OK);
}

static void test_answer_cut_at_every_byte(void **state)
{
	(void)state;
	cut_everywhere(ANSWER_OK, strlen(ANSWER_OK));
	static const char chunked[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
				      "5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n";
	/* All but the very last byte, which libcurl does not wait for. */
	cut_everywhere(chunked, sizeof chunked - 2);
	static const char interim[] = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" ANSWER_OK;
	cut_everywhere(interim, sizeof interim - 1);
}

static void test_reset_connection(void **state)
{
	(void)state;
	struct outcome o = ask_text(serve_arg_then_reset, "");
	assert_int_equal(o.outcome, HTTP_CALL_RESET);
	assert_true(o.sent);
	o = ask_text(serve_arg_then_reset, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
	assert_int_equal(o.outcome, HTTP_CALL_RESET);
}

static void test_what_is_not_http(void **state)
{
	(void)state;
	static const char *const answers[] = {
		"SSH-2.0-OpenSSH_9.2\r\n",
		"<html>hello</html>",
		"HTTP/1.1 abc\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: rot13\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
	};
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		struct outcome o = ask_text(serve_arg_then_hang, answers[i]);
		assert_int_equal(o.outcome, HTTP_CALL_BAD);
		assert_true(o.detail[0] != '\0');
	}
}

int main(void)
{
	prepare_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused_connection),
		cmocka_unit_test(test_bad_urls_and_headers_are_not_sent),
		cmocka_unit_test(test_failed_tls_is_not_sent),
		cmocka_unit_test(test_name_lookup_that_fails_or_hangs),
		cmocka_unit_test(test_no_answer_before_the_deadline),
		cmocka_unit_test(test_slow_drip_meets_the_deadline),
		cmocka_unit_test(test_answer_cut_at_every_byte),
		cmocka_unit_test(test_reset_connection),
		cmocka_unit_test(test_what_is_not_http),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
