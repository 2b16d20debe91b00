/* How the server, its connections and its exchanges end. */
#include "tests/common/http_fixture.h"

static struct http_server_options options;

static int set_up(void **state)
{
	(void)state;
	options = http_server_defaults;
	return 0;
}

#define HELLO "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"

static void on_drained(void *arg)
{
	(void)arg;
	world.drained = true;
}

static void draining_lets_everybody_finish(void **state)
{
	(void)state;
	struct client idle, busy, late, queued;
	world_make(&options);
	client_connect(&idle);
	client_send(&idle, HELLO);
	client_connect(&busy);
	client_send(&busy, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
	client_connect(&late);
	WAIT_UNTIL(http_server_connections(world.server) == 3);
	WAIT_FOR_TEXT(&idle, "hello");
	WAIT_UNTIL(world.n_waiting == 1);
	/* These are on their way when the drain begins. */
	client_send(&late, HELLO);
	client_connect(&queued);
	client_send(&queued, HELLO);
	http_server_drain(world.server, on_drained, NULL);
	assert_false(world.drained);
	WAIT_UNTIL(idle.closed && late.closed && queued.closed);
	assert_true(client_ends_with(&late, "Connection: close\r\n\r\nhello"));
	assert_true(client_ends_with(&queued, "Connection: close\r\n\r\nhello"));
	assert_false(client_has(&idle, "Connection: close"));
	assert_int_equal(late.error, 0);
	/* No more come. */
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&world.address, sizeof world.address), -1);
	close(fd);
	/* Their closing ends our lingering. */
	client_close(&idle);
	client_close(&late);
	client_close(&queued);
	turn_some();
	assert_false(world.drained);
	answer_waiting(200, "done");
	WAIT_UNTIL(busy.closed);
	assert_true(client_ends_with(&busy, "Connection: close\r\n\r\ndone"));
	client_close(&busy);
	WAIT_UNTIL(world.drained);
	assert_int_equal(http_server_connections(world.server), 0);
	world_free();
}

static void retiring_closes_after_the_next_answer(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, HELLO);
	WAIT_FOR_TEXT(&c, "hello");
	http_server_retire(world.server);
	turn_some();
	assert_false(c.closed);
	client_send(&c, HELLO);
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, 0);
	assert_true(client_ends_with(&c, "Connection: close\r\n\r\nhello"));
	client_close(&c);
	world_free();
}

static void draining_nothing_is_quick(void **state)
{
	(void)state;
	world_make(&options);
	http_server_drain(world.server, on_drained, NULL);
	assert_false(world.drained);
	WAIT_UNTIL(world.drained);
	world_free();
}

static void freeing_aborts_what_is_under_way(void **state)
{
	(void)state;
	struct client waiting, big, half;
	world_make(&options);
	client_connect(&waiting);
	client_send(&waiting, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
	client_connect(&big);
	event_del(big.readable);
	client_send(&big, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
	client_connect(&half);
	client_send(&half, "GET /");
	WAIT_UNTIL(world.requests == 2);
	turn_some();
	http_server_free(&world.server);
	assert_int_equal(world.aborted, 2);
	assert_int_equal(world.finished, 2);
	WAIT_UNTIL(waiting.closed && half.closed);
	client_close(&waiting);
	client_close(&big);
	client_close(&half);
	world_free();
}

static void a_response_of_the_wrong_length_is_cut(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	for (int longer = 0; longer < 2; longer++) {
		client_connect(&c);
		client_send(&c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
		WAIT_UNTIL(world.n_waiting == 1);
		struct http_exchange *x = world.waiting[0];
		struct handling *h = http_exchange_context(x);
		http_exchange_respond_start(x, 200, SPAN_LITERAL(""), 5);
		http_exchange_send(x, slice_static("abc"));
		if (longer)
			http_exchange_send(x, slice_static("def"));
		http_exchange_end(x);
		world.n_waiting = 0;
		handling_free(h);
		WAIT_UNTIL(c.closed);
		assert_int_equal(c.error, ECONNRESET);
		assert_false(client_has(&c, "def"));
		client_close(&c);
	}
	assert_int_equal(world.aborted, 0);
	assert_int_equal(world.finished, 2);
	world_free();
}

static void an_exchange_can_be_given_up(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
	WAIT_UNTIL(world.n_waiting == 1);
	struct http_exchange *x = world.waiting[0];
	struct handling *h = http_exchange_context(x);
	http_exchange_respond_start(x, 200, SPAN_LITERAL(""), -1);
	http_exchange_send(x, slice_static("abc"));
	WAIT_FOR_TEXT(&c, "abc");
	http_exchange_reset(x);
	handling_free(h);
	world.n_waiting = 0;
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, ECONNRESET);
	assert_int_equal(world.aborted, 0);
	assert_int_equal(world.finished, 1);
	client_close(&c);
	world_free();
}

/* Its requests came whole: they are served, with a body, pipelined, and when that takes a while. */
static void a_half_closed_client_is_served(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	client_connect(&c);
	client_send(&c, HELLO "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
			      "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n" HELLO);
	shutdown(c.fd, SHUT_WR);
	WAIT_UNTIL(world.n_waiting == 1);
	turn_some();
	answer_waiting(200, "done");
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, 0);
	assert_int_equal(count_of(&c.in, "hello"), 2);
	assert_int_equal(count_of(&c.in, "abc"), 1);
	assert_int_equal(count_of(&c.in, "done"), 1);
	assert_int_equal(world.aborted, 0);
	client_close(&c);
	/* Also while its answer is on the way. */
	client_connect(&c);
	event_del(c.readable);
	client_send(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10485760\r\n\r\n");
	client_send_bytes(&c, world.big, BIG_BYTES);
	WAIT_UNTIL(world.body_ends == 3);
	shutdown(c.fd, SHUT_WR);
	turn_some();
	event_add(c.readable, NULL);
	WAIT_UNTIL(c.closed);
	assert_int_equal(c.error, 0);
	assert_true(c.in.len > BIG_BYTES);
	assert_int_equal(world.aborted, 0);
	client_close(&c);
	world_free();
}

/* It may have left: nobody works for it for long. */
static void a_half_closed_client_counts_as_gone_in_the_end(void **state)
{
	(void)state;
	struct client c;
	options.half_close_ms = 50;
	world_make(&options);
	client_connect(&c);
	client_send(&c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
	shutdown(c.fd, SHUT_WR);
	WAIT_UNTIL(world.aborted == 1);
	WAIT_UNTIL(c.closed);
	assert_int_equal(world.last_status, 499);
	client_close(&c);
	/* Half a request is none. */
	client_connect(&c);
	client_send(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab");
	shutdown(c.fd, SHUT_WR);
	WAIT_UNTIL(c.closed);
	assert_int_equal(world.aborted, 2);
	assert_int_equal(c.in.len, 0);
	client_close(&c);
	client_connect(&c);
	client_send(&c, HELLO "GET /he");
	shutdown(c.fd, SHUT_WR);
	WAIT_UNTIL(c.closed);
	assert_int_equal(count_of(&c.in, "hello"), 1);
	client_close(&c);
	assert_int_equal(http_server_connections(world.server), 0);
	world_free();
}

static void reset_connection(struct client *c)
{
	struct linger now = {.l_onoff = 1};
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	client_close(c);
}

/* A client whose body is paused, with some of it in the kernel. */
static void paused(struct client *c, const char *head, size_t body_bytes)
{
	unsigned n = world.n_waiting;
	client_connect(c);
	client_send(c, head);
	WAIT_UNTIL(world.n_waiting == n + 1);
	http_exchange_pause(world.waiting[n]);
	client_send_bytes(c, world.big, body_bytes);
	turn_some();
}

#define UPLOAD(framing) "POST /wait HTTP/1.1\r\nHost: a\r\n" framing "\r\n\r\n"

static void clients_that_leave_while_paused_are_noticed(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	paused(&c, UPLOAD("Content-Length: 10485760"), 20000);
	client_close(&c);
	WAIT_UNTIL(world.aborted == 1);
	paused(&c, UPLOAD("Content-Length: 10485760"), 1000000);
	reset_connection(&c);
	WAIT_UNTIL(world.aborted == 2);
	paused(&c, UPLOAD("Transfer-Encoding: chunked"), 0);
	client_close(&c);
	WAIT_UNTIL(world.aborted == 3);
	/* Also one that pipelines more than is read ahead. */
	client_connect(&c);
	client_send(&c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
	client_send_bytes(&c, world.big, 1000000);
	WAIT_UNTIL(world.n_waiting == 1);
	turn_some();
	reset_connection(&c);
	WAIT_UNTIL(world.aborted == 4);
	/* And one that was half-closed before. */
	client_connect(&c);
	client_send(&c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
	shutdown(c.fd, SHUT_WR);
	WAIT_UNTIL(world.n_waiting == 1);
	turn_some();
	reset_connection(&c);
	WAIT_UNTIL(world.aborted == 5);
	assert_int_equal(http_server_connections(world.server), 0);
	world_free();
}

/* All of the body is there, in the kernel: it may go on when we do. */
static void a_half_closed_client_may_be_paused(void **state)
{
	(void)state;
	struct client c;
	world_make(&options);
	paused(&c, UPLOAD("Content-Length: 20000"), 20000);
	shutdown(c.fd, SHUT_WR);
	turn_some();
	assert_int_equal(world.aborted, 0);
	assert_int_equal(world.body_bytes, 0);
	http_exchange_resume(world.waiting[0]);
	WAIT_UNTIL(world.body_ends == 1);
	assert_int_equal(world.body_bytes, 20000);
	answer_waiting(200, "done");
	WAIT_UNTIL(c.closed);
	assert_true(client_ends_with(&c, "done"));
	client_close(&c);
	world_free();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(draining_lets_everybody_finish, set_up),
		cmocka_unit_test_setup(draining_nothing_is_quick, set_up),
		cmocka_unit_test_setup(retiring_closes_after_the_next_answer, set_up),
		cmocka_unit_test_setup(freeing_aborts_what_is_under_way, set_up),
		cmocka_unit_test_setup(a_response_of_the_wrong_length_is_cut, set_up),
		cmocka_unit_test_setup(an_exchange_can_be_given_up, set_up),
		cmocka_unit_test_setup(a_half_closed_client_is_served, set_up),
		cmocka_unit_test_setup(a_half_closed_client_counts_as_gone_in_the_end, set_up),
		cmocka_unit_test_setup(clients_that_leave_while_paused_are_noticed, set_up),
		cmocka_unit_test_setup(a_half_closed_client_may_be_paused, set_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
