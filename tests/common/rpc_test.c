/* Calls, answers, chunks, credit and cancel between two ends that keep the rules. */
#include "rpc_fixture.h"

/* ---- what the server in these tests serves ---- */

struct served {
	struct rpc_request *request;
	struct buf body;
	unsigned cancels, credits;
	bool ended, give_back;
	uint64_t to_send, sent; /* stream */
};

#define MAX_SERVED 9000
static struct served served[MAX_SERVED];
static size_t n_served;

static void serve_echo(struct rpc_request *request, struct span params, void *arg)
{
	(void)arg;
	rpc_request_reply(request, params);
}

static void serve_fail(struct rpc_request *request, struct span params, void *arg)
{
	(void)params;
	(void)arg;
	rpc_request_fail(request, RPC_FORBIDDEN, "not for %s", "you");
}

static struct served *keep(struct rpc_request *request);

static void serve_hold(struct rpc_request *request, struct span params, void *arg)
{
	(void)params;
	(void)arg;
	keep(request);
}

static void kept_chunk(struct span data, bool end, void *arg)
{
	struct served *s = arg;
	buf_append(&s->body, data.data, data.len);
	s->ended = end;
	if (s->give_back && !end)
		rpc_request_give_credit(s->request, data.len);
}

static const uint8_t pattern[1u << 20];

static void stream_more(struct served *s)
{
	uint64_t credit;
	while (s->sent < s->to_send && (credit = rpc_request_credit(s->request))) {
		uint64_t n = s->to_send - s->sent;
		if (n > credit)
			n = credit;
		if (n > sizeof pattern)
			n = sizeof pattern;
		s->sent += n;
		struct slice slice = {.data = pattern, .len_bytes = (size_t)n};
		rpc_request_send_chunk(s->request, slice, s->sent == s->to_send);
	}
}

static void kept_credit(uint64_t credit_bytes, void *arg)
{
	struct served *s = arg;
	s->credits++;
	assert_int_equal(credit_bytes, rpc_request_credit(s->request));
	if (s->to_send)
		stream_more(s);
}

static void kept_cancel(void *arg)
{
	struct served *s = arg;
	s->cancels++;
	s->request = NULL;
}

static const struct rpc_request_events kept_events = {kept_chunk, kept_credit, kept_cancel};

static struct served *keep(struct rpc_request *request)
{
	assert_true(n_served < MAX_SERVED);
	struct served *s = &served[n_served++];
	*s = (struct served){.request = request};
	buf_init(&s->body, 64u << 20);
	rpc_request_accept(request, &kept_events, s);
	return s;
}

static const struct rpc_method methods[] = {
	{"echo", serve_echo, NULL},
	{"fail", serve_fail, NULL},
	{"hold", serve_hold, NULL},
	{NULL, NULL, NULL},
};

static struct world world;
static struct rpc_server *server;
static struct rpc_client *client;
static unsigned state_changes;
static bool state;

static void on_state(bool connected, void *arg)
{
	(void)arg;
	assert_true(connected != state);
	state = connected;
	state_changes++;
}

static void start_server(void)
{
	server = rpc_server_new(world.loop, world_listen(&world), NULL);
	assert_non_null(server);
	assert_int_equal(rpc_server_add(server, methods), 0);
}

static int setup(void **arg)
{
	(void)arg;
	static const struct rpc_client_options quick = {200, 1, 20};
	n_served = 0;
	state = false;
	state_changes = 0;
	world_make(&world);
	start_server();
	client = rpc_client_new(world.loop, world.path, &quick, on_state, NULL);
	assert_non_null(client);
	assert_true(rpc_client_connected(client));
	assert_int_equal(state_changes, 0);
	return 0;
}

static int teardown(void **arg)
{
	(void)arg;
	rpc_client_free(&client);
	rpc_server_free(&server);
	for (size_t i = 0; i < n_served; i++)
		buf_free(&served[i].body);
	world_free(&world);
	return 0;
}

static void answers_echo(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	ask(&a, client, "echo", span_of("hello"), 1000);
	assert_int_equal(rpc_client_calls(client), 1);
	WAIT_FOR(&world, a.dones);
	assert_int_equal(a.results, 1);
	assert_int_equal(a.code, 0);
	assert_int_equal(a.result.len, 8);
	assert_memory_equal(a.result.data, "\x91\xc4\x05hello", 8);
	assert_int_equal(rpc_client_calls(client), 0);
	assert_int_equal(rpc_server_connections(server), 1);
	assert_int_equal(rpc_server_requests(server), 0);
	assert_int_equal(state_changes, 1);
	asked_free(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answers_echo, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
