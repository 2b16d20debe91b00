/* Peers that each keep within their own bounds, but are many. */
#include "rpc_pair.h"

/* Sends as long as anything is taken. */
static size_t push(int fd, struct span bytes)
{
	size_t sent = 0;
	for (unsigned idle = 0; sent < bytes.len && idle < 3;) {
		ssize_t n = send(
			fd, bytes.data + sent, bytes.len - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		idle = n > 0 ? 0 : idle + 1;
		sent += n > 0 ? (size_t)n : 0;
		event_base_loop(loop_base(world.loop), EVLOOP_NONBLOCK);
	}
	return sent;
}

static struct span pattern_of(size_t len)
{
	return (struct span){(const char *)pattern, len};
}

/* Somebody else is served. */
static void ask_for_an_echo(size_t len)
{
	struct asked a;
	asked_init(&a);
	ask(&a, client, "echo", pattern_of(len), 0);
	WAIT_FOR(&world, a.dones);
	assert_int_equal(a.code, 0);
	asked_free(&a);
}

/* All together hold no more than a few of them may alone, and somebody else is served. */
static void many_peers_that_do_not_read_share_a_bound(void **arg)
{
	(void)arg;
	enum { PEERS = 200, REQUESTS = 130, BYTES = 10000, KERNEL = 512 << 10 };
	int peers[PEERS];
	assert_int_equal(rpc_server_add(server, counting), 0);
	struct packed out;
	packed_begin(&out);
	for (uint32_t i = 0; i < REQUESTS; i++)
		pack_request(&out.packer, i, "count", pattern_of(BYTES));
	counted_requests = 0;
	uint64_t alone = 0;
	for (size_t i = 0; i < PEERS; i++) {
		peers[i] = world_connect(&world);
		push(peers[i], packed_span(&out));
		if (i == 0)
			alone = counted_requests;
	}
	assert_true(alone * BYTES > RPC_SEND_HIGH_WATER_BYTES);
	assert_true((uint64_t)counted_requests * BYTES <
		    RPC_SEND_ALL_BYTES + PEERS * (uint64_t)(RPC_SEND_LEAST_BYTES + KERNEL));
	assert_true(counted_requests < PEERS * alone * 2 / 3);
	ask_for_an_echo(1);
	for (size_t i = 0; i < PEERS; i++)
		close(peers[i]);
	WAIT_FOR(&world, rpc_server_connections(server) == 1);
	/* One alone may have as much as before. */
	counted_requests = 0;
	int one = world_connect(&world);
	push(one, packed_span(&out));
	assert_true(counted_requests >= alone - alone / 10);
	close(one);
	buf_free(&out.buf);
}

/* The beginnings of large frames, without an end. */
static void many_halves_of_frames_share_a_bound(void **arg)
{
	(void)arg;
	enum { PEERS = 200 };
	int peers[PEERS];
	struct packed out;
	packed_begin(&out);
	pack_request(&out.packer, 1, "echo", pattern_of(RPC_MAX_PAYLOAD_BYTES - 100));
	struct span whole = packed_span(&out), half = {whole.data, whole.len - 100};
	for (size_t i = 0; i < PEERS; i++) {
		peers[i] = world_connect(&world);
		push(peers[i], half);
	}
	world_settle(&world);
	size_t left = rpc_server_connections(server) - 1;
	assert_in_range(left, 10, RPC_RECEIVE_ALL_BYTES / RPC_MAX_FRAME_BYTES * 8 / 7 + 1);
	/* A frame as they come from our own daemons passes all the same. */
	ask_for_an_echo(RPC_RECEIVE_LEAST_BYTES - 100);
	for (size_t i = 0; i < PEERS; i++)
		close(peers[i]);
	WAIT_FOR(&world, rpc_server_connections(server) == 1);
	/* And when they are gone, a large one too. */
	ask_for_an_echo(RPC_MAX_PAYLOAD_BYTES - 100);
	buf_free(&out.buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(many_peers_that_do_not_read_share_a_bound),
		CASE(many_halves_of_frames_share_a_bound),
	};
	open_hidden_log("rpc_many_test");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
