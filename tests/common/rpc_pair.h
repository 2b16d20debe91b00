#ifndef TESTS_COMMON_RPC_PAIR_H
#define TESTS_COMMON_RPC_PAIR_H

/* A server and a client of common/rpc on one loop, for the tests of both. */
#include "rpc_fixture.h"

#include <fcntl.h>

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

static inline void serve_echo(struct rpc_request *request, struct span params, void *arg)
{
	(void)arg;
	rpc_request_reply(request, params);
}

static inline void serve_fail(struct rpc_request *request, struct span params, void *arg)
{
	(void)params;
	(void)arg;
	rpc_request_fail(request, RPC_FORBIDDEN, "not for %s", "you");
}

static inline struct served *keep(struct rpc_request *request);

static inline void serve_hold(struct rpc_request *request, struct span params, void *arg)
{
	(void)params;
	(void)arg;
	keep(request);
}

static inline void kept_chunk(struct span data, bool end, void *arg)
{
	struct served *s = arg;
	buf_append(&s->body, data.data, data.len);
	s->ended = end;
	if (s->give_back && !end)
		rpc_request_give_credit(s->request, data.len);
}

/* What bodies are made of: no two 64 KiB of it are alike. */
static uint8_t pattern[1u << 20];

static inline void check_pattern(const struct buf *body)
{
	assert_true(body->len <= sizeof pattern);
	assert_memory_equal(body->data, pattern, body->len);
}

static inline void stream_more(struct served *s)
{
	uint64_t credit;
	while (s->sent < s->to_send && (credit = rpc_request_credit(s->request))) {
		uint64_t n = s->to_send - s->sent;
		if (n > credit)
			n = credit;
		struct slice slice = {.data = pattern + s->sent, .len_bytes = (size_t)n};
		s->sent += n;
		rpc_request_send_chunk(s->request, slice, s->sent == s->to_send);
	}
}

static inline void kept_credit(uint64_t credit_bytes, void *arg)
{
	struct served *s = arg;
	s->credits++;
	assert_int_equal(credit_bytes, rpc_request_credit(s->request));
	if (s->to_send)
		stream_more(s);
}

static inline void kept_cancel(void *arg)
{
	struct served *s = arg;
	s->cancels++;
	s->request = NULL;
}

static const struct rpc_request_events kept_events = {kept_chunk, kept_credit, kept_cancel};

static inline struct served *keep(struct rpc_request *request)
{
	assert_true(n_served < MAX_SERVED);
	struct served *s = &served[n_served++];
	*s = (struct served){.request = request};
	buf_init(&s->body, 64u << 20);
	rpc_request_accept(request, &kept_events, s);
	return s;
}

static uint64_t stream_bytes;

static inline void serve_stream(struct rpc_request *request, struct span params, void *arg)
{
	(void)arg;
	struct served *s = keep(request);
	s->to_send = stream_bytes;
	assert_int_equal(rpc_request_reply_start(request, params), 0);
	assert_int_equal(rpc_request_credit(request), RPC_ANSWER_CREDIT_BYTES);
	stream_more(s);
}

static inline void serve_huge(struct rpc_request *request, struct span params, void *arg)
{
	(void)params;
	(void)arg;
	rpc_request_reply(request, (struct span){(const char *)pattern, RPC_MAX_PAYLOAD_BYTES + 1});
}

static inline void serve_end(struct rpc_request *request, struct span params, void *arg);

static const struct rpc_method methods[] = {
	{"stream", serve_stream, NULL},
	{"huge", serve_huge, NULL},
	{"end", serve_end, NULL},
	{"echo", serve_echo, NULL},
	{"fail", serve_fail, NULL},
	{"hold", serve_hold, NULL},
	{NULL, NULL, NULL},
};

/* For who adds it. */
static unsigned counted_requests;
static inline void serve_count(struct rpc_request *request, struct span params, void *arg)
{
	(void)arg;
	counted_requests++;
	rpc_request_reply(request, params);
}
static const struct rpc_method counting[] = {{"count", serve_count, NULL}, {NULL, NULL, NULL}};

static struct world world;
static struct rpc_server *server;
static struct rpc_client *client;
static unsigned state_changes;
static bool state;

static inline void on_state(bool connected, void *arg)
{
	(void)arg;
	assert_true(connected != state);
	state = connected;
	state_changes++;
}

/* The server is freed from inside its own handler. */
static inline void serve_end(struct rpc_request *request, struct span params, void *arg)
{
	(void)arg;
	keep(request);
	rpc_server_free(&server);
	assert_int_equal(params.len, 4);
	assert_memory_equal(params.data, "\x91\xc4\x01x", 4);
}

static inline void start_server(void)
{
	server = rpc_server_new(world.loop, world_listen(&world), NULL);
	assert_non_null(server);
	assert_int_equal(rpc_server_add(server, methods), 0);
}

static inline int setup(void **arg)
{
	(void)arg;
	static const struct rpc_client_options quick = {200, 1, 20, NULL};
	for (size_t i = 0; i < sizeof pattern; i++)
		pattern[i] = (uint8_t)(i * 31 ^ i >> 8 ^ i >> 16);
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

static inline int teardown(void **arg)
{
	(void)arg;
	rpc_client_free(&client);
	rpc_server_free(&server);
	for (size_t i = 0; i < n_served; i++)
		buf_free(&served[i].body);
	world_free(&world);
	return 0;
}

static unsigned released;
static inline void count_release(void *owner)
{
	(void)owner;
	released++;
}

static inline struct slice counted(size_t from, size_t len)
{
	return (struct slice){.data = pattern + from, .len_bytes = len, .release = count_release};
}

/* Lines are counted, not shown: the log keeps the stderr it was opened with. */
static inline void open_hidden_log(const char *name)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC), shown = dup(2);
	dup2(null, 2);
	log_open(name, LOG_LEVEL_WARN, LOG_FORMAT_JSON);
	dup2(shown, 2);
	close(shown);
	close(null);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
