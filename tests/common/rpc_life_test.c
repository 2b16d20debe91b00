/* Connections that break, come back, drain and are freed, also from inside callbacks. */
#include "rpc_pair.h"

#include <sys/resource.h>

static void hears_of_a_lost_peer_and_comes_back(void **arg)
{
	(void)arg;
	struct asked waiting, streaming, body, off, again;
	asked_init(&waiting), asked_init(&streaming), asked_init(&body);
	asked_init(&off), asked_init(&again);
	streaming.expect = true;
	stream_bytes = 1 << 20;
	ask(&waiting, client, "hold", span_of(""), 0);
	ask(&streaming, client, "stream", span_of(""), 0);
	ask(&body, client, "hold", span_of(""), 0);
	WAIT_FOR(&world, streaming.body.len && n_served == 3);
	rpc_request_give_credit(served[2].request, 1 << 20);
	WAIT_FOR(&world, body.credits);
	released = 0;
	rpc_call_send_chunk(body.call, counted(0, 1 << 20), false);
	rpc_server_free(&server);
	assert_int_equal(served[0].cancels + served[1].cancels + served[2].cancels, 3);
	WAIT_FOR(&world, waiting.dones && streaming.dones && body.dones);
	assert_int_equal(waiting.code, RPC_LOST);
	assert_int_equal(streaming.code, RPC_LOST);
	assert_int_equal(body.code, RPC_LOST);
	assert_int_equal(released, 1);
	assert_false(state);
	assert_false(rpc_client_connected(client));
	ask(&off, client, "echo", span_of(""), 0);
	WAIT_FOR(&world, off.dones);
	assert_int_equal(off.code, RPC_LOST);
	ask(&off, client, "echo", span_of(""), 0);
	/* Not sent and not yet told so: nothing happens, the slice comes back. */
	assert_int_equal(rpc_call_credit(off.call), 0);
	rpc_call_send_chunk(off.call, counted(0, 1000), true);
	assert_int_equal(released, 2);
	rpc_call_give_credit(off.call, 1000);
	rpc_call_cancel(&off.call);
	world_settle(&world);
	assert_int_equal(off.dones, 1);

	start_server();
	WAIT_FOR(&world, state);
	ask(&again, client, "echo", span_of(""), 0);
	WAIT_FOR(&world, again.dones);
	assert_int_equal(again.code, 0);
	assert_int_equal(state_changes, 3);
	asked_free(&streaming), asked_free(&again);
}

static void wakes_before_the_backoff_is_over(void **arg)
{
	(void)arg;
	static const struct rpc_client_options slow = {200, 3600000, 3600000, NULL};
	bool stopped = false;
	rpc_client_free(&client);
	rpc_server_drain(server, nothing, &stopped);
	WAIT_FOR(&world, stopped);
	rpc_server_free(&server);
	state = false;
	client = rpc_client_new(world.loop, world.path, &slow, on_state, NULL);
	assert_false(rpc_client_connected(client));
	start_server();
	world_settle(&world);
	assert_false(rpc_client_connected(client));
	rpc_client_wake(client);
	assert_true(rpc_client_connected(client));
	rpc_client_wake(client);
	WAIT_FOR(&world, state);
	assert_string_equal(rpc_client_path(client), world.path);
}

static void free_inside_callbacks(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	ask(&a, client, "end", span_of("x"), 0);
	WAIT_FOR(&world, a.dones);
	assert_int_equal(a.code, RPC_LOST);
	assert_null(server);
	assert_int_equal(served[0].cancels, 1);
}

static void done_frees_the_client(const struct rpc_error *error, void *arg)
{
	(void)error;
	*(bool *)arg = true;
	rpc_client_free(&client);
}
static void result_frees_the_client(struct span result, void *arg)
{
	*(bool *)arg = true;
	rpc_client_free(&client);
	assert_int_equal(result.len, 1);
	assert_memory_equal(result.data, "\x90", 1);
}

static void client_ends_inside_its_callbacks(void **arg)
{
	(void)arg;
	static const struct rpc_call_events by_done = {.on_done = done_frees_the_client};
	static const struct rpc_call_events by_result = {
		.on_result = result_frees_the_client, .on_done = done_frees_the_client};
	bool done = false;
	struct asked other;
	asked_init(&other);
	assert_non_null(rpc_call_start(client, "echo", SPAN_LITERAL("\x90"), 0, &by_done, &done));
	ask(&other, client, "hold", span_of(""), 0);
	WAIT_FOR(&world, done);
	assert_null(client);
	client = rpc_client_new(world.loop, world.path, NULL, NULL, NULL);
	done = false;
	assert_non_null(rpc_call_start(client, "echo", SPAN_LITERAL("\x90"), 0, &by_result, &done));
	WAIT_FOR(&world, done);
	/* A call that fails for want of a connection frees the client as well. */
	rpc_server_free(&server);
	client = rpc_client_new(world.loop, world.path, NULL, NULL, NULL);
	done = false;
	rpc_call_start(client, "echo", SPAN_LITERAL("\x90"), 0, &by_done, &done);
	WAIT_FOR(&world, done);
	assert_int_equal(other.dones, 0);
}

static unsigned retries;
static const struct rpc_call_events retrying;
static void retry_at_once(const struct rpc_error *error, void *arg)
{
	(void)arg;
	assert_int_equal(error->code, RPC_LOST);
	retries++;
	if (!rpc_client_connected(client))
		rpc_call_start(client, "echo", SPAN_LITERAL("\x90"), 0, &retrying, NULL);
}
static const struct rpc_call_events retrying = {.on_done = retry_at_once};

/* A caller that tries again from each on_done turns the loop, but does not stop it. */
static void retrying_does_not_starve_the_loop(void **arg)
{
	(void)arg;
	rpc_server_free(&server);
	WAIT_FOR(&world, !rpc_client_connected(client));
	retries = 0;
	rpc_call_start(client, "echo", SPAN_LITERAL("\x90"), 0, &retrying, NULL);
	WAIT_FOR(&world, retries > 100);
	start_server();
	WAIT_FOR(&world, state);
}

static void bad_paths_are_refused(void **arg)
{
	(void)arg;
	char longest[200];
	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	assert_null(rpc_client_new(world.loop, longest, NULL, NULL, NULL));
	assert_null(rpc_client_new(world.loop, "", NULL, NULL, NULL));
}

/* Out of descriptors: said once, tried again, and nobody is lost. */
static void accepts_again_when_descriptors_are_back(void **arg)
{
	(void)arg;
	struct asked a;
	struct rlimit old, few;
	asked_init(&a);
	WAIT_FOR(&world, rpc_server_connections(server) == 1);
	struct rpc_client *second = rpc_client_new(world.loop, world.path, NULL, NULL, NULL);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	uint64_t lines = log_lines(LOG_LEVEL_ERROR);
	WAIT_FOR(&world, log_lines(LOG_LEVEL_ERROR) == lines + 1);
	world_settle(&world);
	assert_int_equal(log_lines(LOG_LEVEL_ERROR), lines + 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	do {
		/* Valgrind plays the limit by closing what the kernel accepted: then again. */
		WAIT_FOR(&world, rpc_client_connected(second));
		ask(&a, second, "echo", span_of(""), 0);
		WAIT_FOR(&world, rpc_client_calls(second) == 0);
	} while (a.code == RPC_LOST && a.dones < 5);
	assert_int_equal(a.code, 0);
	assert_int_equal(rpc_server_connections(server), 2);
	rpc_client_free(&second);
	asked_free(&a);
}

static void drains(void **arg)
{
	(void)arg;
	bool drained = false;
	struct asked a;
	asked_init(&a);
	WAIT_FOR(&world, rpc_server_connections(server) == 1);
	rpc_server_drain(server, nothing, &drained);
	ask(&a, client, "echo", span_of(""), 0);
	WAIT_FOR(&world, a.dones);
	assert_int_equal(a.code, 0);
	assert_false(drained);
	struct rpc_client *late = rpc_client_new(world.loop, world.path, NULL, NULL, NULL);
	assert_false(rpc_client_connected(late));
	rpc_client_free(&late);
	rpc_client_free(&client);
	WAIT_FOR(&world, drained);
	assert_int_equal(rpc_server_connections(server), 0);
	asked_free(&a);
}

int main(void)
{
	open_hidden_log("rpc_life_test");
	const struct CMUnitTest tests[] = {
		CASE(hears_of_a_lost_peer_and_comes_back),
		CASE(wakes_before_the_backoff_is_over),
		CASE(free_inside_callbacks),
		CASE(client_ends_inside_its_callbacks),
		CASE(retrying_does_not_starve_the_loop),
		CASE(bad_paths_are_refused),
		CASE(accepts_again_when_descriptors_are_back),
		CASE(drains),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
