#include "tests/common/http_client_bench.h"
#include "common/gzip.h"

/* What a turn may cost; sanitizers are slow. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMIT_US 1000000
#else
#define LIMIT_US 10000
#endif

/* --- requests --- */

static void test_post_goes_out_and_the_answer_comes_back(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	set_up(&b);
	raw_server_start(&s, serve_arg_always, NULL);
	s.arg = ANSWER_OK;
	s.arg_len = strlen(ANSWER_OK);
	char url[100];
	snprintf(url, sizeof url, "%s/v1/../v1/embeddings?a=%%20b", s.url);
	const char *headers[] = {"Content-Type: application/json", "Authorization: Bearer x",
		"X-Empty:", "X-Blank:  ", NULL};
	struct http_call_options options = options_for("POST", url);
	options.headers = headers;
	options.body = body_of(&b, "{\"input\":\"text\"}");
	struct outcome o = call_once(&b, &options);
	assert_int_equal(o.outcome, HTTP_CALL_OK);
	assert_int_equal(o.status, 200);
	assert_string_equal(o.body, "hi");
	assert_string_equal(o.tag, "one");
	assert_true(o.sent);
	assert_true(o.duration_us > 0 && o.duration_us < WATCHDOG_S * 1000000u);
	assert_int_equal(b.bodies_released, 1);
	tear_down(&b);
	raw_server_stop(&s);
	static const char first[] = "POST /v1/../v1/embeddings?a=%20b HTTP/1.1\r\n";
	assert_memory_equal(s.request, first, sizeof first - 1);
	assert_non_null(strstr(s.request, "\r\nContent-Type: application/json\r\n"));
	assert_non_null(strstr(s.request, "\r\nAuthorization: Bearer x\r\n"));
	assert_non_null(strstr(s.request, "\r\nX-Empty:\r\n"));
	assert_non_null(strstr(s.request, "\r\nX-Blank:\r\n"));
	assert_non_null(strstr(s.request, "\r\nUser-Agent: embedding-gateway\r\n"));
	assert_non_null(strcasestr(s.request, "\r\nAccept-Encoding: "));
	assert_null(strcasestr(s.request, "\r\nExpect:"));
	assert_string_equal(s.request + s.head_len, "{\"input\":\"text\"}");
	raw_server_free(&s);
}

/* A body that the server compressed comes as it was sent when that is asked for, and only then. */
static void test_an_encoded_body_may_be_kept(void **state)
{
	(void)state;
	struct bench b;
	set_up(&b);
	struct buf answer = BUF_INIT(1024), zipped = BUF_INIT(1024);
	assert_int_equal(gzip_compress(SPAN_LITERAL("hi"), SPAN_LITERAL(""), 6, &zipped), 0);
	buf_printf(&answer,
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %zu\r\n\r\n",
		zipped.len);
	buf_append(&answer, zipped.data, zipped.len);
	/* The handle is the same for all. */
	for (int i = 0; i < 4; i++) {
		struct raw_server s;
		raw_server_start(&s, serve_arg_once, NULL);
		s.arg = answer.data;
		s.arg_len = answer.len;
		struct http_call_options options = options_for("GET", s.url);
		options.keep_encoding = i % 2 == 0;
		struct outcome o = call_once(&b, &options);
		assert_int_equal(o.outcome, HTTP_CALL_OK);
		assert_int_equal(o.body_len, options.keep_encoding ? zipped.len : 2);
		if (options.keep_encoding)
			assert_memory_equal(o.body, zipped.data, zipped.len);
		raw_server_stop(&s);
		assert_true(
			!strcasestr(s.request, "\r\nAccept-Encoding:") == options.keep_encoding);
		raw_server_free(&s);
	}
	buf_free(&answer);
	buf_free(&zipped);
	tear_down(&b);
}

/* One call is signed; the next one on the same handle shows nothing of it. */
static void test_a_signature_is_of_one_call(void **state)
{
	(void)state;
	static const struct http_call_signature signature = {
		.region = "eu-west-1", .service = "s3", .access_key = "AK", .secret = "s:cret"};
	struct bench b;
	set_up(&b);
	for (int i = 0; i < 4; i++) {
		struct raw_server s;
		raw_server_start(&s, serve_arg_once, NULL);
		s.arg = ANSWER_OK;
		s.arg_len = strlen(ANSWER_OK);
		const char *headers[] = {"x-amz-content-sha256: UNSIGNED-PAYLOAD",
			"Content-Type: application/json", NULL};
		struct http_call_options options = options_for("PUT", s.url);
		options.headers = headers;
		options.body = body_of(&b, "{}");
		options.signature = i % 2 == 0 ? &signature : NULL;
		struct outcome o = call_once(&b, &options);
		assert_int_equal(o.outcome, HTTP_CALL_OK);
		raw_server_stop(&s);
		bool is_signed = strstr(
			s.request, "Authorization: AWS4-HMAC-SHA256 Credential=AK/");
		assert_int_equal(is_signed, options.signature != NULL);
		assert_int_equal(strcasestr(s.request, "\r\nAuthorization:") != NULL, is_signed);
		assert_int_equal(
			strstr(s.request, "/eu-west-1/s3/aws4_request") != NULL, is_signed);
		assert_null(strcasestr(s.request, "\r\nExpect:"));
		assert_null(strstr(s.request, "s:cret"));
		raw_server_free(&s);
	}
	tear_down(&b);
}

/* One connection, one libcurl handle, many kinds of request: none shows what the one before was. */
static void test_methods_one_after_the_other(void **state)
{
	(void)state;
	static const struct {
		const char *method, *body, *length;
	} cases[] = {
		{"POST", "abc", "3"},
		{"GET", "", NULL},
		{"POST", "", "0"},
		{"HEAD", "", NULL},
		{"PUT", "xy", "2"},
		{"PURGE", "", NULL},
		{"PUT", "", "0"},
		{"DELETE", "", NULL},
		{"DELETE", "d", "1"},
		{"GET", "g", "1"},
		{"HEAD", "", NULL},
		{"GET", "", NULL},
	};
	struct bench b;
	set_up(&b);
	struct raw_server s;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		/* A server each, so that its request can be looked at; the client stays. */
		raw_server_start(&s, serve_arg_once, NULL);
		s.arg = strcmp(cases[i].method, "HEAD") == 0
				? "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
				: ANSWER_OK;
		s.arg_len = strlen(s.arg);
		struct http_call_options options = options_for(cases[i].method, s.url);
		options.body = body_of(&b, cases[i].body);
		struct outcome o = call_once(&b, &options);
		assert_int_equal(o.outcome, HTTP_CALL_OK);
		raw_server_stop(&s);
		char start_line[40], length[40];
		snprintf(start_line, sizeof start_line, "%s / HTTP/1.1\r\n", cases[i].method);
		assert_memory_equal(s.request, start_line, strlen(start_line));
		assert_string_equal(s.request + s.head_len, cases[i].body);
		if (cases[i].length) {
			snprintf(length, sizeof length, "\r\nContent-Length: %s\r\n",
				cases[i].length);
			assert_non_null(strstr(s.request, length));
		} else {
			assert_null(strcasestr(s.request, "Content-Length"));
		}
		assert_null(strcasestr(s.request, "Content-Type"));
		assert_null(strcasestr(s.request, "Transfer-Encoding"));
		raw_server_free(&s);
	}
	assert_int_equal(b.bodies_released, sizeof cases / sizeof cases[0]);
	tear_down(&b);
}

static void test_connection_is_used_again(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	set_up(&b);
	raw_server_start(&s, serve_arg_always, NULL);
	s.arg = ANSWER_OK;
	s.arg_len = strlen(ANSWER_OK);
	struct http_call_options options = options_for("POST", s.url);
	for (int i = 0; i < 20; i++) {
		options.body = body_of(&b, "{}");
		assert_int_equal(call_once(&b, &options).outcome, HTTP_CALL_OK);
	}
	assert_int_equal(atomic_load(&s.connections), 1);
	assert_int_equal(atomic_load(&s.requests), 20);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
}

/* The server closes a kept connection: the next call opens another, and does not fail. */
static void test_closed_connection_is_replaced(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	set_up(&b);
	raw_server_start(&s, serve_arg_once, NULL);
	s.arg = ANSWER_OK;
	s.arg_len = strlen(ANSWER_OK);
	struct http_call_options options = options_for("POST", s.url);
	for (unsigned i = 1; i <= 5; i++) {
		options.body = body_of(&b, "{}");
		assert_int_equal(call_once(&b, &options).outcome, HTTP_CALL_OK);
		assert_int_equal(atomic_load(&s.requests), i);
	}
	assert_int_equal(atomic_load(&s.connections), 5);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
}

static void test_large_body_is_sent_whole(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	set_up(&b);
	raw_server_start(&s, serve_arg_once, NULL);
	s.arg = ANSWER_OK;
	s.arg_len = strlen(ANSWER_OK);
	size_t len = 5 * MIB;
	char *data = malloc(len);
	for (size_t i = 0; i < len; i++)
		data[i] = (char)('a' + i % 23);
	struct http_call_options options = options_for("POST", s.url);
	options.body = slice_malloced(data, len);
	assert_int_equal(call_once(&b, &options).outcome, HTTP_CALL_OK);
	tear_down(&b);
	raw_server_stop(&s);
	assert_int_equal(s.request_len - s.head_len, len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(s.request[s.head_len + i], 'a' + i % 23);
	raw_server_free(&s);
}

static void test_unix_socket_ignores_proxies(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	char directory[] = "/tmp/http_client_test.XXXXXX", path[64];
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof path, "%s/s", directory);
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	set_up(&b);
	raw_server_start(&s, serve_arg_always, path);
	s.arg = ANSWER_OK;
	s.arg_len = strlen(ANSWER_OK);
	struct http_call_options options = options_for("GET", "http://gatewayd/path");
	options.unix_socket = path;
	struct outcome o = call_once(&b, &options);
	assert_int_equal(o.outcome, HTTP_CALL_OK);
	tear_down(&b);
	raw_server_stop(&s);
	assert_memory_equal(s.request, "GET /path HTTP/1.1\r\nHost: gatewayd\r\n", 36);
	unsetenv("http_proxy");
	raw_server_free(&s);
	rmdir(directory);

	set_up(&b);
	o = call_once(&b, &options); /* nobody listens any more */
	assert_int_equal(o.outcome, HTTP_CALL_CONNECT);
	assert_false(o.sent);
	tear_down(&b);
}

static void test_proxy_variable_holds_for_tcp(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	set_up(&b);
	raw_server_start(&s, serve_arg_once, NULL);
	s.arg = ANSWER_OK;
	s.arg_len = strlen(ANSWER_OK);
	setenv("http_proxy", s.url, 1);
	struct http_call_options options = options_for("GET", "http://api.test/x");
	assert_int_equal(call_once(&b, &options).outcome, HTTP_CALL_OK);
	unsetenv("http_proxy");
	tear_down(&b);
	raw_server_stop(&s);
	assert_memory_equal(s.request, "GET http://api.test/x HTTP/1.1\r\n", 32);
	raw_server_free(&s);
}

/* --- answers --- */

static void test_interim_heads_and_trailers_are_not_the_answers(void **state)
{
	(void)state;
	struct outcome o = ask_text(serve_arg_once,
		"HTTP/1.1 103 Early Hints\r\nX-Tag: early\r\n\r\n"
		"HTTP/1.1 200 OK\r\nX-Tagged: no\r\nx-TAG:final\r\nX-Tag: second\r\n"
		"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Tag: late\r\n\r\n");
	assert_int_equal(o.outcome, HTTP_CALL_OK);
	assert_int_equal(o.status, 200);
	assert_string_equal(o.tag, "final");
	assert_string_equal(o.body, "hi");
	o = ask_text(serve_arg_once, "HTTP/1.1 103 Early Hints\r\nX-Tag: early\r\n\r\n"
				     "HTTP/1.1 204 No Content\r\n\r\n");
	assert_int_equal(o.status, 204);
	assert_true(o.tag_absent);
	o = ask_text(serve_arg_once, "HTTP/1.1 200 OK\r\nX-Tag:\r\nContent-Length: 0\r\n\r\n");
	assert_false(o.tag_absent);
	assert_string_equal(o.tag, "");
}

static void test_redirects_and_errors_are_answers(void **state)
{
	(void)state;
	struct outcome o = ask_text(serve_arg_once,
		"HTTP/1.1 302 Found\r\nLocation: /other\r\nX-Tag: here\r\nContent-Length: 0\r\n\r\n");
	assert_int_equal(o.outcome, HTTP_CALL_OK);
	assert_int_equal(o.status, 302);
	assert_string_equal(o.tag, "here");
	o = ask_text(serve_arg_once, "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
	assert_int_equal(o.outcome, HTTP_CALL_OK);
	assert_int_equal(o.status, 503);
	assert_string_equal(o.body, "busy");
}

static void test_head_of_an_answer_is_bounded(void **state)
{
	(void)state;
	struct buf answer = BUF_INIT(MIB);
	buf_append_str(&answer, "HTTP/1.1 200 OK\r\n");
	while (answer.len < 60000)
		buf_append_str(&answer, "X-Filler: 0123456789012345678901234567890123456789\r\n");
	size_t below = answer.len;
	buf_append_str(&answer, "Content-Length: 0\r\n\r\n");
	assert_int_equal(
		ask(serve_arg_once, (char *)answer.data, answer.len).outcome, HTTP_CALL_OK);
	answer.len = below;
	while (answer.len < 70000)
		buf_append_str(&answer, "X-Filler: 0123456789012345678901234567890123456789\r\n");
	buf_append_str(&answer, "Content-Length: 0\r\n\r\n");
	assert_int_equal(
		ask(serve_arg_once, (char *)answer.data, answer.len).outcome, HTTP_CALL_BAD);
	/* Heads without end. */
	buf_clear(&answer);
	while (answer.len < 70000)
		buf_append_str(&answer, "HTTP/1.1 103 Early Hints\r\nX-Tag: early\r\n\r\n");
	assert_int_equal(
		ask(serve_arg_then_hang, (char *)answer.data, answer.len).outcome, HTTP_CALL_BAD);
	buf_free(&answer);
}

static void test_gzip_is_decoded_up_to_the_limit(void **state)
{
	(void)state;
	size_t len = 20 * MIB;
	char *zeros = calloc(1, len);
	struct buf packed = BUF_INIT(MIB), answer = BUF_INIT(MIB);
	assert_int_equal(gzip_compress((struct span){zeros, len}, (struct span){0}, 6, &packed), 0);
	buf_printf(&answer,
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %zu\r\n\r\n",
		packed.len);
	buf_append(&answer, packed.data, packed.len);
	const char *text = (const char *)answer.data;
	struct outcome o = ask_limited(serve_arg_then_hang, text, answer.len, 20000, len - 1);
	assert_int_equal(o.outcome, HTTP_CALL_TOO_LARGE);
	o = ask_limited(serve_arg_then_hang, text, answer.len, 20000, len);
	assert_int_equal(o.outcome, HTTP_CALL_OK);
	assert_int_equal(o.body_len, len);
	/* Some of it a turn. A busy machine adds to the clock, rarely; all at once are 20 ms or
	 * more.
	 */
	uint64_t turn_us = o.turn_cpu_max_us;
	for (int i = 0; i < 4 && turn_us > 5000; i++) {
		o = ask_limited(serve_arg_then_hang, text, answer.len, 20000, len);
		turn_us = o.turn_cpu_max_us < turn_us ? o.turn_cpu_max_us : turn_us;
	}
	print_message("# longest turn %u us\n", (unsigned)turn_us);
	assert_true(turn_us <= LIMIT_US);
	o = ask_limited(serve_arg_once, text, answer.len - 9, 20000, len);
	assert_int_equal(o.outcome, HTTP_CALL_RESET);
	answer.data[answer.len - 8] ^= 1; /* the checksum */
	o = ask_limited(serve_arg_once, text, answer.len, 20000, len);
	assert_int_equal(o.outcome, HTTP_CALL_BAD);
	buf_free(&packed);
	buf_free(&answer);
	free(zeros);
}

static struct outcome ask_encoded(const char *encoding, const struct buf *body)
{
	struct buf answer = BUF_INIT(MIB);
	buf_printf(&answer,
		"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %zu\r\n\r\n", encoding,
		body->len);
	buf_append(&answer, body->data, body->len);
	struct outcome o = ask_limited(
		serve_arg_once, (const char *)answer.data, answer.len, 20000, 100);
	buf_free(&answer);
	return o;
}

static void test_encodings(void **state)
{
	(void)state;
	struct buf body = BUF_INIT(MIB);
	gzip_compress(SPAN_LITERAL("one"), SPAN_LITERAL(""), 6, &body);
	assert_int_equal(ask_encoded("X-Gzip", &body).body_len, 3);
	assert_int_equal(ask_encoded("br", &body).outcome, HTTP_CALL_BAD); /* not asked for */
	assert_int_equal(ask_encoded("identity", &body).body_len, body.len);
	gzip_compress(SPAN_LITERAL("two"), SPAN_LITERAL(""), 6, &body); /* a second member */
	struct outcome o = ask_encoded("gzip", &body);
	assert_int_equal(o.outcome, HTTP_CALL_OK);
	assert_int_equal(o.body_len, 6);
	body.len -= 3;
	assert_int_equal(ask_encoded("gzip", &body).outcome, HTTP_CALL_BAD);
	body.len += 3;
	buf_append_str(&body, "junk");
	assert_int_equal(ask_encoded("gzip", &body).outcome, HTTP_CALL_BAD);
	buf_free(&body);
}

static void test_plain_answer_up_to_the_limit(void **state)
{
	(void)state;
	static const char *const answers[] = {
		ANSWER_OK,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nhi",
	};
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		size_t len = strlen(answers[i]);
		struct outcome o = ask_limited(serve_arg_once, answers[i], len, 20000, 2);
		assert_int_equal(o.outcome, HTTP_CALL_OK);
		assert_string_equal(o.body, "hi");
		o = ask_limited(serve_arg_once, answers[i], len, 20000, 1);
		assert_int_equal(o.outcome, HTTP_CALL_TOO_LARGE);
		assert_int_equal(o.status, 200);
	}
}

/* The server answers without reading the body, as it does for one it does not want. */
static void serve_early_refusal(struct raw_server *s, int fd, unsigned nth)
{
	(void)nth;
	if (read(fd, s->request, 100) <= 0)
		return;
	raw_print(fd, "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
	raw_wait_for_close(fd);
}

static void test_answer_before_the_request_is_read(void **state)
{
	(void)state;
	struct bench b;
	struct raw_server s;
	set_up(&b);
	raw_server_start(&s, serve_early_refusal, NULL);
	struct http_call_options options = options_for("POST", s.url);
	options.body = slice_malloced(calloc(1, 8 * MIB), 8 * MIB);
	struct outcome o = call_once(&b, &options);
	assert_int_equal(o.outcome, HTTP_CALL_OK);
	assert_int_equal(o.status, 413);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
}

int main(void)
{
	prepare_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_post_goes_out_and_the_answer_comes_back),
		cmocka_unit_test(test_methods_one_after_the_other),
		cmocka_unit_test(test_an_encoded_body_may_be_kept),
		cmocka_unit_test(test_a_signature_is_of_one_call),
		cmocka_unit_test(test_connection_is_used_again),
		cmocka_unit_test(test_closed_connection_is_replaced),
		cmocka_unit_test(test_large_body_is_sent_whole),
		cmocka_unit_test(test_unix_socket_ignores_proxies),
		cmocka_unit_test(test_proxy_variable_holds_for_tcp),
		cmocka_unit_test(test_interim_heads_and_trailers_are_not_the_answers),
		cmocka_unit_test(test_redirects_and_errors_are_answers),
		cmocka_unit_test(test_head_of_an_answer_is_bounded),
		cmocka_unit_test(test_gzip_is_decoded_up_to_the_limit),
		cmocka_unit_test(test_encodings),
		cmocka_unit_test(test_plain_answer_up_to_the_limit),
		cmocka_unit_test(test_answer_before_the_request_is_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
