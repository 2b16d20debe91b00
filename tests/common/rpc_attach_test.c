/* The first exchange of a connection, which brings a descriptor; peers that are kept; and
 * notifications. */
#include "rpc_pair.h"

#include <sys/uio.h>

static int shared[2]; /* what the server passes: the reading end of a pipe */
static struct rpc_asker *kept;
static unsigned gone, notified, cut_at;
static bool refuse;
static struct rpc_request *waiting;

static void on_notification(struct span method, struct span params, void *arg)
{
	assert_ptr_equal(arg, &gone);
	assert_true(span_equal_str(method, "note"));
	assert_memory_equal(params.data, "\x91\x07", 2);
	if (++notified == cut_at)
		rpc_asker_cut_off(kept, "enough");
}

static void on_gone(void *arg)
{
	(*(unsigned *)arg)++;
}

static const struct rpc_asker_events asker_events = {on_notification, on_gone};

static void serve_attach(struct rpc_request *request, struct span params, void *arg)
{
	(void)params;
	(void)arg;
	if (refuse) {
		rpc_request_fail(request, RPC_FAILED, "not today");
		return;
	}
	struct rpc_asker *asker = rpc_request_asker(request);
	if (!rpc_request_is_first(request)) {
		rpc_asker_cut_off(asker, "attach is not its first message");
		return;
	}
	assert_null(rpc_asker_context(asker));
	assert_int_equal(rpc_asker_keep(asker, &asker_events, &gone), 0);
	assert_ptr_equal(rpc_asker_context(asker), &gone);
	kept = asker;
	rpc_request_reply_descriptor(request, SPAN_LITERAL("\x91\x2a"), shared[0]);
}

static void wait_cancel(void *arg)
{
	(void)arg;
	waiting = NULL;
}

static void serve_wait(struct rpc_request *request, struct span params, void *arg)
{
	static const struct rpc_request_events events = {.on_cancel = wait_cancel};
	(void)params;
	(void)arg;
	waiting = request;
	rpc_request_accept(request, &events, NULL);
}

static const struct rpc_method attach_methods[] = {
	{"attach", serve_attach, NULL}, {"wait", serve_wait, NULL}, {NULL, NULL, NULL}};

/* ---- the client's side ---- */

static int got_fd, got_socket;
static unsigned attached, detached, unclaimed;
static bool reject;

static int on_attached(struct span result, int fd, void *arg)
{
	(void)arg;
	attached++;
	assert_memory_equal(result.data, "\x91\x2a", 2);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	if (reject) {
		close(fd);
		return -1;
	}
	if (got_fd >= 0)
		close(got_fd);
	got_fd = fd;
	return 0;
}

static void on_detached(int socket, void *arg)
{
	(void)arg;
	detached++;
	assert_int_equal(got_socket, -1);
	got_socket = socket;
}

static void on_unclaimed(struct span result, void *arg)
{
	(void)arg;
	unclaimed++;
	assert_memory_equal(result.data, "\x91\x05", 2);
}

static const struct rpc_client_attach attach = {"attach", on_attached, on_detached, on_unclaimed};
static const struct rpc_client_options options = {200, 1, 10, &attach};

static int set_up(void **arg)
{
	(void)arg;
	got_fd = got_socket = -1;
	attached = detached = unclaimed = gone = notified = cut_at = 0;
	reject = refuse = state = false;
	state_changes = 0;
	waiting = NULL;
	assert_int_equal(pipe(shared), 0);
	world_make(&world);
	server = rpc_server_new(world.loop, world_listen(&world), NULL);
	assert_non_null(server);
	assert_int_equal(rpc_server_add(server, attach_methods), 0);
	assert_int_equal(rpc_server_add(server, methods), 0);
	client = rpc_client_new(world.loop, world.path, &options, on_state, NULL);
	assert_non_null(client);
	assert_false(rpc_client_connected(client));
	return 0;
}

static int tear_down(void **arg)
{
	(void)arg;
	rpc_client_free(&client);
	rpc_server_free(&server);
	if (got_fd >= 0)
		close(got_fd);
	if (got_socket >= 0)
		close(got_socket);
	close(shared[0]);
	close(shared[1]);
	world_free(&world);
	return 0;
}

#define ATTACH_CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

static unsigned done;
static int done_code;
static void on_done(const struct rpc_error *error, void *arg)
{
	(void)arg;
	done++;
	done_code = error ? error->code : 0;
}
static const struct rpc_call_events call_events = {.on_done = on_done};

static struct rpc_call *start_call(const char *method)
{
	struct rpc_call *call = rpc_call_start(
		client, method, SPAN_LITERAL("\x90"), 0, &call_events, NULL);
	assert_non_null(call);
	return call;
}

/* ---- cases ---- */

static void brings_a_descriptor(void **arg)
{
	(void)arg;
	WAIT_FOR(&world, state);
	assert_int_equal(attached, 1);
	char byte = 0;
	assert_int_equal(write(shared[1], "x", 1), 1);
	assert_int_equal(read(got_fd, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	done = 0;
	start_call("echo");
	WAIT_FOR(&world, done);
	assert_int_equal(done_code, 0);
}

static void asks_nobody_before(void **arg)
{
	(void)arg;
	done = 0;
	start_call("echo");
	WAIT_FOR(&world, done);
	assert_int_equal(done_code, RPC_LOST);
	rpc_client_notify(client, "note", SPAN_LITERAL("\x91\x07"));
	WAIT_FOR(&world, state);
	world_settle(&world);
	assert_int_equal(notified, 0);
}

static void goes_on_without(void **arg)
{
	(void)arg;
	refuse = true;
	WAIT_FOR(&world, state);
	assert_int_equal(attached, 0);
	done = 0;
	start_call("echo");
	WAIT_FOR(&world, done);
	assert_int_equal(done_code, 0);
	rpc_client_free(&client);
	assert_int_equal(detached, 0);
}

static void rejects_what_it_gets(void **arg)
{
	(void)arg;
	reject = true;
	WAIT_FOR(&world, attached == 3);
	assert_false(state);
	assert_int_equal(detached, 0);
	WAIT_FOR(&world, gone >= 2);
	reject = false;
	WAIT_FOR(&world, state);
}

static void notifies(void **arg)
{
	(void)arg;
	WAIT_FOR(&world, state);
	rpc_client_notify(client, "note", SPAN_LITERAL("\x91\x07"));
	WAIT_FOR(&world, notified == 1);
	assert_true(state);
}

static void keeps_the_peer_until_its_end(void **arg)
{
	(void)arg;
	WAIT_FOR(&world, state);
	cut_at = 2;
	done = 0;
	start_call("wait");
	WAIT_FOR(&world, waiting);
	rpc_client_notify(client, "note", SPAN_LITERAL("\x91\x07"));
	rpc_client_notify(client, "note", SPAN_LITERAL("\x91\x07"));
	rpc_client_notify(client, "note", SPAN_LITERAL("\x91\x07"));
	WAIT_FOR(&world, !state);
	assert_int_equal(notified, 2);
	assert_null(waiting);
	WAIT_FOR(&world, done);
	assert_int_equal(done_code, RPC_LOST);
	assert_int_equal(detached, 1);
	assert_true(got_socket >= 0);
	/* It connects again, while the old socket is open. */
	WAIT_FOR(&world, state);
	assert_int_equal(attached, 2);
	assert_int_equal(gone, 0);
	/* What it still says is not heard. */
	assert_int_equal(write(got_socket, "\x93\x02\xa4note\x91\x07", 8), 8);
	world_settle(&world);
	assert_int_equal(notified, 2);
	assert_int_equal(gone, 0);
	close(got_socket);
	got_socket = -1;
	WAIT_FOR(&world, gone == 1);
}

static void attaches_once(void **arg)
{
	(void)arg;
	WAIT_FOR(&world, state);
	done = 0;
	start_call("attach");
	WAIT_FOR(&world, done);
	assert_int_equal(done_code, RPC_LOST);
	assert_int_equal(detached, 1);
	assert_int_equal(gone, 0);
}

static void too_late(void **arg)
{
	(void)arg;
	refuse = true;
	WAIT_FOR(&world, state);
	refuse = false;
	done = 0;
	start_call("attach");
	WAIT_FOR(&world, done);
	assert_int_equal(done_code, RPC_LOST);
	assert_int_equal(detached, 0);
}

static void gives_the_socket_when_freed(void **arg)
{
	(void)arg;
	WAIT_FOR(&world, state);
	rpc_client_free(&client);
	assert_int_equal(detached, 1);
	world_settle(&world);
	assert_int_equal(gone, 0);
	close(got_socket);
	got_socket = -1;
	WAIT_FOR(&world, gone == 1);
}

static void tells_what_nobody_waits_for(void **arg)
{
	(void)arg;
	WAIT_FOR(&world, state);
	struct rpc_call *call = start_call("wait");
	WAIT_FOR(&world, waiting);
	rpc_request_reply(waiting, SPAN_LITERAL("\x91\x05"));
	waiting = NULL;
	rpc_call_cancel(&call);
	WAIT_FOR(&world, unclaimed == 1);
	assert_true(state);
}

static bool is_drained;

static void drains_when_the_last_has_closed(void **arg)
{
	(void)arg;
	WAIT_FOR(&world, state);
	cut_at = 1;
	rpc_client_notify(client, "note", SPAN_LITERAL("\x91\x07"));
	WAIT_FOR(&world, detached);
	rpc_client_free(&client);
	is_drained = false;
	rpc_server_drain(server, nothing, &is_drained);
	world_settle(&world);
	/* It may have connected again meanwhile: then that socket is not kept, and gone. */
	assert_false(is_drained);
	close(got_socket);
	got_socket = -1;
	WAIT_FOR(&world, is_drained);
	assert_int_equal(gone, 1);
}

static void server_ends_with_one_cut_off(void **arg)
{
	(void)arg;
	WAIT_FOR(&world, state);
	cut_at = 1;
	rpc_client_notify(client, "note", SPAN_LITERAL("\x91\x07"));
	WAIT_FOR(&world, detached);
	rpc_client_free(&client);
	rpc_server_free(&server);
	assert_true(gone >= 1);
}

static void server_ends_with_one_kept(void **arg)
{
	(void)arg;
	WAIT_FOR(&world, state);
	rpc_server_free(&server);
	assert_int_equal(gone, 1);
	WAIT_FOR(&world, detached == 1);
	assert_false(state);
}

/* ---- a server that is not ours ---- */

static int fake_listen, fake;

static int set_up_fake(void **arg)
{
	set_up(arg);
	rpc_client_free(&client);
	rpc_server_free(&server);
	fake_listen = world_listen(&world);
	fake = -1;
	client = rpc_client_new(world.loop, world.path, &options, on_state, NULL);
	assert_non_null(client);
	fake = accept(fake_listen, NULL, NULL);
	assert_true(fake >= 0);
	char in[64];
	fcntl(fake, F_SETFL, 0);
	world_settle(&world);
	assert_true(recv(fake, in, sizeof in, 0) > 0);
	return 0;
}

static int tear_down_fake(void **arg)
{
	close(fake);
	close(fake_listen);
	return tear_down(arg);
}

/* [1, 0, nil, [42]] with so many descriptors beside its first byte. */
static void fake_answer(const char *bytes, size_t len, size_t n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(16 * sizeof(int))];
	} control = {.bytes = {0}};
	struct iovec iov = {(void *)bytes, len};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	if (n_fds) {
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		for (size_t i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &shared[0], sizeof(int));
	}
	assert_int_equal(sendmsg(fake, &message, 0), len);
}

#define ANSWER "\x94\x01\x00\xc0\x91\x2a"

static size_t open_descriptors(void)
{
	size_t n = 0;
	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* The client hangs up, and nothing that came stays open. */
static void expect_hang_up(void)
{
	char byte;
	size_t before = open_descriptors();
	world_settle(&world);
	fcntl(fake, F_SETFL, O_NONBLOCK);
	bool ended = false;
	for (int i = 0; i < 50 && !ended; i++) {
		ended = recv(fake, &byte, 1, 0) == 0;
		world_settle(&world);
	}
	assert_true(ended);
	assert_false(state);
	assert_int_equal(attached, 0);
	rpc_client_free(&client);
	assert_true(open_descriptors() <= before);
}

static void one_byte_at_a_time(void **arg)
{
	(void)arg;
	for (size_t i = 0; i < sizeof ANSWER - 1; i++) {
		assert_false(state);
		fake_answer(&ANSWER[i], 1, i == 0);
		world_settle(&world);
	}
	WAIT_FOR(&world, state);
	assert_int_equal(attached, 1);
}

static void no_descriptor(void **arg)
{
	(void)arg;
	fake_answer(ANSWER, sizeof ANSWER - 1, 0);
	expect_hang_up();
}

static void two_descriptors(void **arg)
{
	(void)arg;
	fake_answer(ANSWER, sizeof ANSWER - 1, 2);
	expect_hang_up();
}

static void many_descriptors(void **arg)
{
	(void)arg;
	fake_answer(ANSWER, sizeof ANSWER - 1, 16);
	expect_hang_up();
}

static void two_with_a_byte_each(void **arg)
{
	(void)arg;
	fake_answer(ANSWER, 1, 1);
	world_settle(&world);
	fake_answer(&ANSWER[1], sizeof ANSWER - 2, 1);
	expect_hang_up();
}

static void error_with_a_descriptor(void **arg)
{
	(void)arg;
	static const char error[] = "\x94\x01\x00\x92\x02\xa1x\xc0";
	fake_answer(error, sizeof error - 1, 1);
	expect_hang_up();
}

static void answer_to_something_else(void **arg)
{
	(void)arg;
	fake_answer("\x94\x01\x01\xc0\x91\x2a", 6, 1);
	expect_hang_up();
}

static void a_notification_first(void **arg)
{
	(void)arg;
	fake_answer("\x93\x02\xa1x\x90", 5, 1);
	expect_hang_up();
}

static void closes_in_the_middle(void **arg)
{
	(void)arg;
	fake_answer(ANSWER, 3, 1);
	world_settle(&world);
	close(fake);
	world_settle(&world);
	assert_false(state);
	assert_int_equal(attached, 0);
	fake = accept(fake_listen, NULL, NULL);
	for (int i = 0; fake < 0 && i < 1000; i++) {
		event_base_loop(loop_base(world.loop), EVLOOP_ONCE);
		fake = accept(fake_listen, NULL, NULL);
	}
	assert_true(fake >= 0);
	fake_answer(ANSWER, sizeof ANSWER - 1, 1);
	WAIT_FOR(&world, state);
}

#define FAKE_CASE(test) cmocka_unit_test_setup_teardown(test, set_up_fake, tear_down_fake)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ATTACH_CASE(brings_a_descriptor),
		ATTACH_CASE(asks_nobody_before),
		ATTACH_CASE(goes_on_without),
		ATTACH_CASE(rejects_what_it_gets),
		ATTACH_CASE(notifies),
		ATTACH_CASE(keeps_the_peer_until_its_end),
		ATTACH_CASE(attaches_once),
		ATTACH_CASE(too_late),
		ATTACH_CASE(gives_the_socket_when_freed),
		ATTACH_CASE(tells_what_nobody_waits_for),
		ATTACH_CASE(drains_when_the_last_has_closed),
		ATTACH_CASE(server_ends_with_one_cut_off),
		ATTACH_CASE(server_ends_with_one_kept),
		FAKE_CASE(one_byte_at_a_time),
		FAKE_CASE(no_descriptor),
		FAKE_CASE(two_descriptors),
		FAKE_CASE(many_descriptors),
		FAKE_CASE(two_with_a_byte_each),
		FAKE_CASE(error_with_a_descriptor),
		FAKE_CASE(answer_to_something_else),
		FAKE_CASE(a_notification_first),
		FAKE_CASE(closes_in_the_middle),
	};
	open_hidden_log("rpc_attach_test");
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
