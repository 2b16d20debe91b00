#ifndef TESTS_COMMON_RPC_FIXTURE_H
#define TESTS_COMMON_RPC_FIXTURE_H

/* What the rpc tests share: a loop, a listening socket in its own directory, and waiting for
 * something to become true while the loop turns. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/rpc.h"
#include "common/wire.h"

#define PATIENCE_MS 20000

struct world {
	struct loop *loop;
	char dir[64];
	char path[96];
	struct timer *patience;
	bool late;
};

static inline void world_late(void *arg)
{
	struct world *world = arg;
	world->late = true;
}

static inline void world_make(struct world *world)
{
	*world = (struct world){0};
	snprintf(world->dir, sizeof world->dir, "/tmp/rpc_test.XXXXXX");
	assert_non_null(mkdtemp(world->dir));
	snprintf(world->path, sizeof world->path, "%s/sock", world->dir);
	world->loop = loop_new();
	assert_non_null(world->loop);
	world->patience = timer_new(world->loop, world_late, world);
	assert_non_null(world->patience);
}

static inline void world_free(struct world *world)
{
	timer_free(&world->patience);
	loop_free(&world->loop);
	unlink(world->path);
	assert_int_equal(rmdir(world->dir), 0);
}

static inline struct sockaddr_un world_address(const struct world *world)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	memcpy(address.sun_path, world->path, strlen(world->path) + 1);
	return address;
}

static inline int world_listen(struct world *world)
{
	struct sockaddr_un address = world_address(world);
	unlink(world->path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 128), 0);
	return fd;
}

/* A peer without the library: a blocking socket. */
static inline int world_connect(struct world *world)
{
	struct sockaddr_un address = world_address(world);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

/* Turn the loop until the condition holds. */
#define WAIT_FOR(world, condition)                                              \
	do {                                                                    \
		timer_arm((world)->patience, PATIENCE_MS);                      \
		(world)->late = false;                                          \
		while (!(condition)) {                                          \
			if ((world)->late)                                      \
				fail_msg("waited in vain for: %s", #condition); \
			event_base_loop(loop_base((world)->loop), EVLOOP_ONCE); \
		}                                                               \
		timer_disarm((world)->patience);                                \
	} while (0)

static inline void nothing(void *arg)
{
	*(bool *)arg = true;
}

/* Let everything happen that is ready to happen. */
static inline void world_settle(struct world *world)
{
	for (int i = 0; i < 8; i++)
		event_base_loop(loop_base(world->loop), EVLOOP_NONBLOCK);
}

/* ---- bytes ---- */

struct packed {
	struct buf buf;
	msgpack_packer packer;
};

static inline msgpack_packer *packed_begin(struct packed *p)
{
	buf_init(&p->buf, 64u << 20);
	wire_packer_init(&p->packer, &p->buf);
	return &p->packer;
}

static inline struct span packed_span(const struct packed *p)
{
	assert_false(buf_failed(&p->buf));
	return (struct span){(const char *)p->buf.data, p->buf.len};
}

/* [0, id, method, [argument]] */
static inline void pack_request(
	msgpack_packer *pk, uint32_t id, const char *method, struct span argument)
{
	msgpack_pack_array(pk, 4);
	msgpack_pack_int(pk, 0);
	msgpack_pack_uint32(pk, id);
	wire_write_str(pk, span_of(method));
	msgpack_pack_array(pk, 1);
	wire_write_bin(pk, argument);
}

static inline void pack_chunk(msgpack_packer *pk, uint32_t id, struct span data, bool end)
{
	msgpack_pack_array(pk, 3);
	msgpack_pack_int(pk, 2);
	wire_write_str(pk, span_of("chunk"));
	msgpack_pack_array(pk, 3);
	msgpack_pack_uint32(pk, id);
	wire_write_bin(pk, data);
	if (end)
		msgpack_pack_true(pk);
	else
		msgpack_pack_false(pk);
}

static inline void pack_number_notice(
	msgpack_packer *pk, const char *method, uint32_t id, bool has_bytes, uint64_t bytes)
{
	msgpack_pack_array(pk, 3);
	msgpack_pack_int(pk, 2);
	wire_write_str(pk, span_of(method));
	msgpack_pack_array(pk, has_bytes ? 2 : 1);
	msgpack_pack_uint32(pk, id);
	if (has_bytes)
		msgpack_pack_uint64(pk, bytes);
}

/* [1, id, nil, text] */
static inline void pack_result(msgpack_packer *pk, uint32_t id, const char *text)
{
	msgpack_pack_array(pk, 4);
	msgpack_pack_int(pk, 1);
	msgpack_pack_uint32(pk, id);
	msgpack_pack_nil(pk);
	wire_write_str(pk, span_of(text));
}

static inline void send_all(int fd, struct span bytes)
{
	while (bytes.len) {
		ssize_t n = send(fd, bytes.data, bytes.len, MSG_NOSIGNAL);
		assert_true(n > 0);
		bytes.data += n;
		bytes.len -= (size_t)n;
	}
}

/* Read what is there; true when the other end has closed. */
static inline bool drain_fd(int fd, struct buf *into)
{
	for (;;) {
		uint8_t data[65536];
		ssize_t n = recv(fd, data, sizeof data, MSG_DONTWAIT);
		if (n > 0 && into)
			assert_int_equal(buf_append(into, data, (size_t)n), 0);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return true;
		if (n < 0)
			return false;
	}
}

/* ---- a call that remembers what happened to it ---- */

struct asked {
	struct rpc_call *call;
	struct buf result, body;
	unsigned results, dones, credits;
	uint64_t credit;
	bool expect, ended, give_back, cancel_in_result, cancel_in_chunk;
	int code; /* of on_done; 0 is well */
	char message[128];
};

static inline void asked_result(struct span result, void *arg)
{
	struct asked *a = arg;
	a->results++;
	buf_append(&a->result, result.data, result.len);
	if (a->cancel_in_result)
		rpc_call_cancel(&a->call);
	else if (a->expect)
		rpc_call_expect_chunks(a->call);
}

static inline void asked_chunk(struct span data, bool end, void *arg)
{
	struct asked *a = arg;
	buf_append(&a->body, data.data, data.len);
	a->ended = end;
	if (a->cancel_in_chunk)
		rpc_call_cancel(&a->call);
	else if (a->give_back)
		rpc_call_give_credit(a->call, data.len);
}

static inline void asked_credit(uint64_t credit_bytes, void *arg)
{
	struct asked *a = arg;
	a->credits++;
	a->credit = credit_bytes;
}

static inline void asked_done(const struct rpc_error *error, void *arg)
{
	struct asked *a = arg;
	a->dones++;
	a->call = NULL;
	a->code = error ? error->code : 0;
	if (error)
		snprintf(a->message, sizeof a->message, "%.*s", SPAN_ARG(error->message));
}

static const struct rpc_call_events asked_events = {
	asked_result, asked_chunk, asked_credit, asked_done};

static inline void asked_init(struct asked *a)
{
	*a = (struct asked){0};
	buf_init(&a->result, 4u << 20);
	buf_init(&a->body, 64u << 20);
}

static inline void asked_free(struct asked *a)
{
	buf_free(&a->result);
	buf_free(&a->body);
}

static inline void ask(struct asked *a, struct rpc_client *client, const char *method,
	struct span argument, uint32_t timeout_ms)
{
	struct packed p;
	unsigned dones = a->dones;
	packed_begin(&p);
	msgpack_pack_array(&p.packer, 1);
	wire_write_bin(&p.packer, argument);
	a->call = rpc_call_start(client, method, packed_span(&p), timeout_ms, &asked_events, a);
	assert_non_null(a->call);
	assert_int_equal(a->dones, dones);
	buf_free(&p.buf);
}

#endif
