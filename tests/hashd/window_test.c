/* A gatewayd's memory as hashd sees it: checks of what was passed, bounds, leases that go back, and
 * how long mapping and socket live. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "common/arena.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/messages.h"
#include "common/rpc.h"
#include "hashd/window.h"

#include "../common/rpc_fixture.h"

#define ARENA_BYTES (1u << 20)

static struct world world;
static struct rpc_server *server;
static struct rpc_client *client;
static struct arena *arena;
static struct window *window;
static int sockets[2]; /* what stands for the connection's socket, and its other end */

/* ---- what gatewayd hears ---- */

static uint64_t returned[4096];
static size_t n_returned, n_messages;

static void on_notification(struct span method, struct span params, void *arg)
{
	struct msg_release release;
	struct msg_error error;
	(void)arg;
	assert_true(span_equal_str(method, "release"));
	assert_int_equal(msg_release_unpack(params, &release, &error), 0);
	n_messages++;
	for (size_t i = 0; i < release.leases.count; i++)
		returned[n_returned++] = release.leases.items[i];
	msg_release_free(&release);
}

static void serve_keep(struct rpc_request *request, struct span params, void *arg)
{
	static const struct rpc_asker_events events = {.on_notification = on_notification};
	(void)params;
	(void)arg;
	assert_int_equal(rpc_asker_keep(rpc_request_asker(request), &events, NULL), 0);
	rpc_request_reply(request, SPAN_LITERAL("\x90"));
}

static const struct rpc_method methods[] = {{"keep", serve_keep, NULL}, {NULL, NULL, NULL}};

static int open_window(uint64_t bytes, int fd)
{
	window = window_open(world.loop, client, bytes, fd);
	return window ? 0 : -1;
}

static int set_up(void **arg)
{
	(void)arg;
	n_returned = n_messages = 0;
	world_make(&world);
	server = rpc_server_new(world.loop, world_listen(&world), NULL);
	assert_int_equal(rpc_server_add(server, methods), 0);
	client = rpc_client_new(world.loop, world.path, NULL, NULL, NULL);
	struct asked kept = {0};
	ask(&kept, client, "keep", SPAN_LITERAL("\x90"), 0);
	WAIT_FOR(&world, kept.dones);
	buf_free(&kept.result);
	arena = arena_new(ARENA_BYTES);
	assert_non_null(arena);
	assert_int_equal(open_window(ARENA_BYTES, arena_open_reader(arena)), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sockets), 0);
	return 0;
}

static int tear_down(void **arg)
{
	(void)arg;
	if (window)
		window_detach(&window, sockets[0]);
	assert_int_equal(window_counters.mapped_bytes, 0);
	assert_int_equal(window_counters.lent, 0);
	assert_int_equal(window_counters.lent_bytes, 0);
	close(sockets[1]);
	arena_free(&arena);
	rpc_client_free(&client);
	rpc_server_free(&server);
	world_free(&world);
	return 0;
}

static bool peer_sees_eof(void)
{
	char byte;
	return recv(sockets[1], &byte, 1, 0) == 0;
}

/* ---- cases ---- */

static void lends_what_lies_there(void **arg)
{
	(void)arg;
	struct slice slice = {0};
	uint64_t at = arena_alloc(arena, 5000);
	memset(arena_at(arena, at), 'a', 5000);
	assert_true(window_lend(window, 77, at, 5000, &slice));
	assert_int_equal(slice.len_bytes, 5000);
	assert_memory_equal(slice.data, arena_at(arena, at), 5000);
	assert_int_equal(window_counters.lent_bytes, 5000);
	slice_release(&slice);
	WAIT_FOR(&world, n_returned == 1);
	assert_int_equal(returned[0], 77);
	arena_release(arena, at);
}

static void stays_within_the_arena(void **arg)
{
	(void)arg;
	static const struct {
		uint64_t offset, length;
		bool good;
	} cases[] = {
		{0, ARENA_BYTES, true},
		{0, ARENA_BYTES + 1, false},
		{1, ARENA_BYTES, false},
		{ARENA_BYTES, 0, true},
		{ARENA_BYTES, 1, false},
		{ARENA_BYTES + 1, 0, false},
		{ARENA_BYTES - 1, 1, true},
		{ARENA_BYTES - 1, 2, false},
		{UINT64_MAX, 1, false},
		{UINT64_MAX, UINT64_MAX, false},
		{1, UINT64_MAX, false},
		{UINT64_MAX - 10, 20, false},
		{(uint64_t)1 << 63, (uint64_t)1 << 63, false},
	};
	uint64_t refused = window_counters.refused;
	size_t n = sizeof cases / sizeof *cases, bad = 0;
	for (size_t i = 0; i < n; i++) {
		struct slice slice = {0};
		bool lent = window_lend(window, i + 1, cases[i].offset, cases[i].length, &slice);
		assert_int_equal(lent, cases[i].good);
		bad += !lent;
		slice_release(&slice);
	}
	assert_int_equal(window_counters.refused - refused, bad);
	/* Each lease goes back once, used or not. */
	WAIT_FOR(&world, n_returned == n);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(returned[i], i + 1);
}

static void returns_in_batches(void **arg)
{
	(void)arg;
	static struct slice slices[1000];
	for (size_t i = 0; i < 1000; i++)
		assert_true(window_lend(window, i + 1, i, 10, &slices[i]));
	assert_int_equal(window_counters.lent, 1000);
	for (size_t i = 1000; i-- > 0;)
		slice_release(&slices[i]);
	WAIT_FOR(&world, n_returned == 1000);
	assert_true(n_messages <= 10);
	for (size_t i = 0; i < 1000; i++)
		assert_int_equal(returned[i], 1000 - i);
}

static void keeps_mapping_and_socket_to_the_last_byte(void **arg)
{
	(void)arg;
	struct slice first = {0}, second = {0};
	uint64_t at = arena_alloc(arena, 100);
	memset(arena_at(arena, at), 'z', 100);
	assert_true(window_lend(window, 1, at, 100, &first));
	assert_true(window_lend(window, 2, at + 50, 50, &second));
	window_detach(&window, sockets[0]);
	assert_null(window);
	arena_free(&arena); /* gatewayd dies */
	slice_release(&first);
	assert_false(peer_sees_eof());
	assert_int_equal(((const char *)second.data)[49], 'z');
	assert_int_equal(window_counters.mapped_bytes, ARENA_BYTES);
	slice_release(&second);
	assert_true(peer_sees_eof());
	world_settle(&world);
	assert_int_equal(n_returned, 0); /* those leases ended with the connection */
}

static void detached_with_leases_to_return(void **arg)
{
	(void)arg;
	struct slice slice = {0};
	assert_true(window_lend(window, 1, 0, 10, &slice));
	slice_release(&slice);
	window_detach(&window, sockets[0]);
	assert_true(peer_sees_eof());
	world_settle(&world);
	assert_int_equal(n_returned, 0);
}

static void without_a_window(void **arg)
{
	(void)arg;
	struct window *none = NULL;
	int other[2];
	char byte;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, other), 0);
	window_detach(&none, other[0]);
	assert_int_equal(recv(other[1], &byte, 1, 0), 0);
	close(other[1]);
}

static int memfd(uint64_t bytes, int seals)
{
	int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void refuses_what_can_shrink(void **arg)
{
	(void)arg;
	const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	window_detach(&window, dup(sockets[0]));
	assert_int_equal(open_window(4096, memfd(4096, all & ~F_SEAL_SHRINK)), -1);
	assert_int_equal(open_window(4096, memfd(4096, all & ~F_SEAL_GROW)), -1);
	assert_int_equal(open_window(4096, memfd(4096, F_SEAL_SHRINK | F_SEAL_GROW)), -1);
	assert_int_equal(open_window(4096, memfd(8192, all)), -1);
	assert_int_equal(open_window(8192, memfd(4096, all)), -1);
	assert_int_equal(open_window(0, memfd(0, all)), -1);
	assert_int_equal(open_window(UINT64_MAX, memfd(4096, all)), -1);
	assert_int_equal(open_window(0, open("/dev/null", O_RDONLY | O_CLOEXEC)), -1);
	assert_int_equal(open_window(4096, memfd(4096, all)), 0);
}

static void cannot_be_written(void **arg)
{
	(void)arg;
	struct slice slice = {0};
	int sink[2];
	assert_true(window_lend(window, 1, 0, 1, &slice));
	assert_int_equal(pipe(sink), 0);
	assert_int_equal(write(sink[1], "x", 1), 1);
	/* The kernel says what the processor would. */
	assert_int_equal(read(sink[0], (void *)slice.data, 1), -1);
	slice_release(&slice);
	close(sink[0]);
	close(sink[1]);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(lends_what_lies_there),
		CASE(stays_within_the_arena),
		CASE(returns_in_batches),
		CASE(keeps_mapping_and_socket_to_the_last_byte),
		CASE(detached_with_leases_to_return),
		CASE(without_a_window),
		CASE(refuses_what_can_shrink),
		CASE(cannot_be_written),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
