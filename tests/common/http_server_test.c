#include "tests/common/http_fixture.h"

#include <netinet/tcp.h>

static struct http_server_options options;

static int set_up(void **state)
{
	(void)state;
	options = http_server_defaults;
	return 0;
}

#define HELLO "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"

static void a_request_is_answered(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, "GET /hello?x=1 HTTP/1.1\r\nHost: example.com:81\r\n\r\n");
	WAIT_FOR_TEXT(&c, "\r\n\r\nhello");
	assert_int_equal(strncmp((char *)c.in.data, "HTTP/1.1 200 OK\r\nDate: ", 23), 0);
	assert_true(
		client_has(&c, " GMT\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"));
	assert_string_equal(world.last_host, "example.com:81");
	assert_string_equal(world.last_target, "/hello?x=1");
	assert_string_equal(world.last_method, "GET");
	assert_string_equal(world.last_peer, "127.0.0.1");
	assert_int_equal(world.last_status, 200);
	assert_int_equal(world.bytes_out, 5);
	assert_int_equal(http_server_connections(world.server), 1);
	/* And again on the same connection. */
	buf_clear(&c.in);
	client_send(&c, "GET http://b HTTP/1.1\r\nHost: a\r\n\r\n");
	WAIT_FOR_TEXT(&c, "nothing here");
	assert_string_equal(world.last_host, "b");
	assert_string_equal(world.last_target, "/");
	assert_int_equal(world.last_status, 404);
	assert_int_equal(world.finished, 2);
	/* The path may be missing before a query. */
	client_send(&c, "GET http://b.c:81?x=/y HTTP/1.1\r\nHost: a\r\n\r\n");
	WAIT_UNTIL(world.finished == 3);
	assert_string_equal(world.last_host, "b.c:81");
	assert_string_equal(world.last_target, "/?x=/y");
	client_close(&c);
	WAIT_UNTIL(http_server_connections(world.server) == 0);
	assert_int_equal(world.aborted, 0);
	world_free();
}

static void a_body_is_echoed(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
	WAIT_FOR_TEXT(&c, "Content-Length: 3\r\n\r\nabc");
	assert_int_equal(world.bytes_in, 3);
	client_send(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
			"3\r\ndef\r\n4\r\nghij\r\n0\r\nX: y\r\n\r\n");
	WAIT_FOR_TEXT(&c, "Content-Length: 7\r\n\r\ndefghij");
	assert_int_equal(world.bytes_in, 7);
	/* None at all. */
	client_send(&c, "POST /echo HTTP/1.1\r\nHost: a\r\n\r\n");
	WAIT_FOR_TEXT(&c, "Content-Length: 0\r\n\r\n");
	assert_int_equal(world.body_ends, 3);
	assert_int_equal(world.finished, 3);
	client_close(&c);
	world_free();
}

static void a_response_is_streamed_in_chunks(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n" HELLO);
	WAIT_FOR_TEXT(&c, "hello");
	assert_true(client_has(&c, "X-Kind: stream\r\nTransfer-Encoding: chunked\r\n\r\n"
				   "3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\nHTTP/1.1 200"));
	client_close(&c);
	/* HTTP/1.0 knows no chunks: the end of the connection is the end of the body. */
	client_connect(&c);
	client_send(&c, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, 0);
	assert_true(client_ends_with(&c, "Connection: close\r\n\r\nonetwothree"));
	assert_false(client_has(&c, "Transfer-Encoding"));
	client_close(&c);
	world_free();
}

static void head_and_204_have_no_body(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
	WAIT_FOR_TEXT(&c, "Content-Length: 5\r\n\r\n");
	client_send(&c, "HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n");
	WAIT_FOR_TEXT(&c, "Transfer-Encoding: chunked\r\n\r\n");
	client_send(&c, "HEAD /big HTTP/1.1\r\nHost: a\r\n\r\n");
	WAIT_FOR_TEXT(&c, "Content-Length: 10485760\r\n\r\n");
	WAIT_UNTIL(world.released == 1049);
	buf_clear(&c.in);
	client_send(&c, "GET /empty HTTP/1.1\r\nHost: a\r\n\r\n");
	WAIT_FOR_TEXT(&c, "HTTP/1.1 204 No Content\r\n");
	turn_some();
	assert_true(client_ends_with(&c, "\r\n\r\n"));
	assert_false(client_has(&c, "Content-Length"));
	buf_clear(&c.in);
	client_send(&c, "HEAD /hello HTTP/1.1\r\nHost:\r\n\r\n");
	WAIT_UNTIL(c.closed);
	assert_true(client_has(&c, "HTTP/1.1 400 Bad Request"));
	assert_true(client_ends_with(&c, "\r\n\r\n"));
	client_close(&c);
	world_free();
}

static void http_1_0_closes_unless_asked_not_to(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, "GET /hello HTTP/1.0\r\n\r\n");
	WAIT_UNTIL(c.closed);
	assert_true(client_has(&c, "Connection: close\r\n\r\nhello"));
	client_close(&c);
	client_connect(&c);
	client_send(&c, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	WAIT_FOR_TEXT(&c, "Connection: keep-alive\r\n\r\nhello");
	client_send(&c, "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, 0);
	assert_true(client_ends_with(&c, "Connection: close\r\n\r\nhello"));
	client_close(&c);
	world_free();
}

static void a_thousand_pipelined_requests_are_answered_in_order(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	for (int i = 0; i < 1000; i++) {
		char request[128];
		snprintf(request, sizeof request,
			"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n<%04d>", i);
		client_send(&c, request);
	}
	WAIT_FOR_TEXT(&c, "<0999>");
	const char *at = (char *)c.in.data;
	for (int i = 0; i < 1000; i++) {
		char body[32];
		snprintf(body, sizeof body, "\r\n\r\n<%04d>", i);
		const char *found = memmem(
			at, c.in.len - (size_t)(at - (char *)c.in.data), body, strlen(body));
		assert_non_null(found);
		at = found;
	}
	assert_int_equal(count_of(&c.in, "HTTP/1.1 200 OK"), 1000);
	assert_int_equal(world.finished, 1000);
	client_close(&c);
	world_free();
}

#define N_BEHIND 20000

static void the_next_request_waits_for_the_response_before(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n" HELLO);
	WAIT_UNTIL(world.n_waiting == 1);
	turn_some();
	assert_int_equal(world.requests, 1);
	assert_int_equal(c.in.len, 0);
	answer_waiting(200, "late");
	WAIT_FOR_TEXT(&c, "hello");
	assert_int_equal(world.requests, 2);
	/* However much is sent behind it, we take only so much in. */
	client_send(&c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
	struct buf many = BUF_INIT(64 * 1024 * 1024);
	for (int i = 0; i < N_BEHIND; i++)
		buf_printf(&many, "GET /hello HTTP/1.1\r\nHost: a\r\nX: %01000d\r\n\r\n", i);
	WAIT_UNTIL(world.n_waiting == 1);
	buf_clear(&c.in);
	buf_append_str(&many, "GET /last HTTP/1.1\r\nHost: a\r\n\r\n");
	client_send_bytes(&c, many.data, many.len);
	buf_free(&many);
	turn_some();
	assert_true(c.out.len - c.out_done > 1000000);
	answer_waiting(200, "late");
	WAIT_UNTIL(client_ends_with(&c, "nothing here"));
	assert_int_equal(world.finished, N_BEHIND + 4);
	assert_int_equal(count_of(&c.in, "\r\n\r\nhello"), N_BEHIND);
	client_close(&c);
	world_free();
}

static void input_may_be_cut_anywhere(void **state)
{
	(void)state;
	static const char input[] =
		"\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
		"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nT: u\r\n\r\n"
		"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nlast";
	struct client c;
	world_make(&options);
	for (size_t cut = 1; cut + 1 < sizeof input; cut++) {
		client_connect(&c);
		client_send_bytes(&c, input, cut);
		turn_some();
		client_send_bytes(&c, input + cut, sizeof input - 1 - cut);
		WAIT_FOR_TEXT(&c, "\r\n\r\nlast");
		assert_true(client_has(&c, "\r\n\r\nhello world"));
		client_close(&c);
	}
	/* Byte by byte. */
	client_connect(&c);
	for (size_t i = 0; i + 1 < sizeof input; i++) {
		client_send_bytes(&c, input + i, 1);
		event_base_loop(loop_base(world.loop), EVLOOP_NONBLOCK);
		event_base_loop(loop_base(world.loop), EVLOOP_NONBLOCK);
	}
	WAIT_FOR_TEXT(&c, "\r\n\r\nlast");
	client_close(&c);
	WAIT_UNTIL(http_server_connections(world.server) == 0);
	assert_int_equal(world.aborted, 0);
	world_free();
}

static void a_client_may_go_at_any_byte(void **state)
{
	(void)state;
	static const char input[] =
		"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
	struct client c;
	world_make(&options);
	for (size_t cut = 0; cut < sizeof input; cut++) {
		client_connect(&c);
		client_send_bytes(&c, input, cut);
		WAIT_UNTIL(http_server_connections(world.server) == 1);
		turn_some();
		unsigned under_way = world.n_waiting, aborted = world.aborted;
		unsigned finished = world.finished;
		client_close(&c);
		WAIT_UNTIL(http_server_connections(world.server) == 0);
		assert_int_equal(world.aborted, aborted + under_way);
		assert_int_equal(world.finished, finished + under_way);
		assert_int_equal(world.n_waiting, 0);
	}
	assert_int_equal(world.last_status, 499);
	assert_int_equal(world.aborted, 5);
	world_free();
}

static void a_client_may_go_while_it_is_answered(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	for (size_t take = 0; take < 3; take++) {
		unsigned aborted = world.aborted, finished = world.finished;
		world.released = 0;
		client_connect(&c);
		client_send(&c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
		WAIT_UNTIL(c.in.len > take * 1000000);
		event_del(c.readable);
		client_close(&c);
		WAIT_UNTIL(http_server_connections(world.server) == 0);
		assert_int_equal(world.aborted, aborted + 1);
		assert_int_equal(world.finished, finished + 1);
		assert_int_equal(world.last_status, 200);
		assert_true(world.bytes_out < BIG_BYTES);
		assert_true(world.released > 0);
	}
	world_free();
}

static void check_big(struct client *c, size_t expected_len)
{
	WAIT_UNTIL(c->in.len >= expected_len);
	assert_int_equal(c->in.len, expected_len);
}

static void a_slow_reader_holds_the_sender_back(void **state)
{
	(void)state;
	struct client c;
	options.send_high_water_bytes = 100000;
	world_make(&options);
	client_connect(&c);
	event_del(c.readable);
	client_send(&c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
	WAIT_UNTIL(world.requests == 1);
	turn_some();
	/* Nobody reads: the handler was told to stop far from the end. */
	assert_int_equal(world.finished, 0);
	assert_true(world.released < 900);
	unsigned drains = world.drains;
	event_add(c.readable, NULL);
	WAIT_UNTIL(world.finished == 1);
	assert_true(world.drains > drains);
	WAIT_FOR_TEXT(&c, "\r\n\r\n");
	size_t head = (size_t)((char *)memmem(c.in.data, c.in.len, "\r\n\r\n", 4) -
			       (char *)c.in.data) +
		      4;
	check_big(&c, head + BIG_BYTES);
	assert_memory_equal(c.in.data + head, world.big, BIG_BYTES);
	assert_int_equal(world.bytes_out, BIG_BYTES);
	assert_int_equal(world.released, 1049);
	/* The connection goes on. */
	client_send(&c, HELLO);
	WAIT_UNTIL(world.finished == 2);
	client_close(&c);
	world_free();
}

static void a_long_chunked_response_is_whole(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, "GET /big-chunked HTTP/1.1\r\nHost: a\r\n\r\n");
	WAIT_UNTIL(client_ends_with(&c, "\r\n0\r\n\r\n"));
	assert_int_equal(world.bytes_out, BIG_BYTES);
	const char *at = (char *)memmem(c.in.data, c.in.len, "\r\n\r\n", 4) + 4;
	size_t done = 0;
	for (;;) {
		char *end;
		unsigned long n = strtoul(at, &end, 16);
		assert_memory_equal(end, "\r\n", 2);
		if (n == 0)
			break;
		assert_memory_equal(end + 2, world.big + done, n);
		done += n;
		at = end + 2 + n + 2;
	}
	assert_int_equal(done, BIG_BYTES);
	client_close(&c);
	world_free();
}

static void a_large_body_is_read(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	char head[128];
	snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
		BIG_BYTES);
	client_send(&c, head);
	client_send_bytes(&c, world.big, BIG_BYTES);
	client_send(&c, HELLO);
	WAIT_UNTIL(world.finished == 2);
	WAIT_UNTIL(client_ends_with(&c, "hello"));
	const char *body = (char *)memmem(c.in.data, c.in.len, "\r\n\r\n", 4) + 4;
	assert_memory_equal(body, world.big, BIG_BYTES);
	client_close(&c);
	world_free();
}

static void a_paused_body_is_not_read(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, "POST /wait HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
	WAIT_UNTIL(world.n_waiting == 1);
	http_exchange_pause(world.waiting[0]);
	struct buf chunks = BUF_INIT(64 * 1024 * 1024);
	for (int i = 0; i < 1000000; i++)
		buf_append_str(&chunks, "4\r\nabcd\r\n3\r\nefg\r\n");
	client_send_bytes(&c, chunks.data, chunks.len);
	buf_free(&chunks);
	client_send(&c, "0\r\n\r\n" HELLO);
	turn_some();
	assert_int_equal(world.body_bytes, 0);
	assert_true(c.out.len - c.out_done > 1000000);
	http_exchange_resume(world.waiting[0]);
	WAIT_UNTIL(world.body_ends == 1);
	assert_int_equal(world.body_bytes, 7000000);
	answer_waiting(200, "all read");
	WAIT_FOR_TEXT(&c, "hello");
	client_close(&c);
	world_free();
}

static void unix_sockets_are_served(void **state)
{
	(void)state;
	struct client c;
	char dir[] = "/tmp/http_server_test.XXXXXX";
	assert_non_null(mkdtemp(dir));
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s/sock", dir);
	world_make(&options);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(http_server_listen(world.server, fd), 0);
	int client_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(client_fd, (struct sockaddr *)&address, sizeof address), 0);
	client_start(&c, client_fd);
	client_send(&c, HELLO);
	WAIT_FOR_TEXT(&c, "hello");
	assert_string_equal(world.last_peer, "unix");
	client_close(&c);
	world_free();
	unlink(address.sun_path);
	rmdir(dir);
}

static void header_lines_are_checked(void **state)
{
	(void)state;
	struct buf lines = BUF_INIT(100);
	assert_int_equal(http_header_add(&lines, "X-A", span_of("b c")), 0);
	assert_int_equal(http_header_add(&lines, "X-B", span_of("")), 0);
	assert_int_equal(lines.len, strlen("X-A: b c\r\nX-B: \r\n"));
	assert_memory_equal(lines.data, "X-A: b c\r\nX-B: \r\n", lines.len);
	static const char *const bad[][2] = {{"X A", "b"}, {"", "b"}, {"X:", "b"},
		{"X", "a\r\nY: c"}, {"X", " a"}, {"X", "a\n"}, {"X", "\x01"}};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		buf_clear(&lines);
		assert_int_equal(http_header_add(&lines, bad[i][0], span_of(bad[i][1])), -1);
		assert_true(buf_failed(&lines));
		assert_int_equal(lines.len, 0);
	}
	/* A line that does not fit leaves no half behind. */
	buf_clear(&lines);
	char value[99];
	memset(value, 'a', sizeof value);
	assert_int_equal(http_header_add(&lines, "X", (struct span){value, sizeof value}), -1);
	assert_int_equal(lines.len, 0);
	buf_free(&lines);
	assert_string_equal(http_status_reason(200), "OK");
	assert_string_equal(http_status_reason(599), "Unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_request_is_answered, set_up),
		cmocka_unit_test_setup(a_body_is_echoed, set_up),
		cmocka_unit_test_setup(a_response_is_streamed_in_chunks, set_up),
		cmocka_unit_test_setup(head_and_204_have_no_body, set_up),
		cmocka_unit_test_setup(http_1_0_closes_unless_asked_not_to, set_up),
		cmocka_unit_test_setup(a_thousand_pipelined_requests_are_answered_in_order, set_up),
		cmocka_unit_test_setup(the_next_request_waits_for_the_response_before, set_up),
		cmocka_unit_test_setup(input_may_be_cut_anywhere, set_up),
		cmocka_unit_test_setup(a_client_may_go_at_any_byte, set_up),
		cmocka_unit_test_setup(a_client_may_go_while_it_is_answered, set_up),
		cmocka_unit_test_setup(a_slow_reader_holds_the_sender_back, set_up),
		cmocka_unit_test_setup(a_long_chunked_response_is_whole, set_up),
		cmocka_unit_test_setup(a_large_body_is_read, set_up),
		cmocka_unit_test_setup(a_paused_body_is_not_read, set_up),
		cmocka_unit_test_setup(unix_sockets_are_served, set_up),
		cmocka_unit_test_setup(header_lines_are_checked, set_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
