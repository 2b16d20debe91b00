/* Peers that break the rules, cut their frames, do not read or may not come in. */
#include "rpc_pair.h"

#include <sys/wait.h>

#define PEER_UID 65534

/* ---- a raw asker ---- */

static struct packed out;
static struct buf in;
static int raw;

static void raw_begin(void)
{
	packed_begin(&out);
	buf_init(&in, 256u << 20);
	raw = world_connect(&world);
}

static void raw_end(void)
{
	close(raw);
	buf_free(&out.buf);
	buf_free(&in);
}

static void raw_send(void)
{
	send_all(raw, packed_span(&out));
	buf_clear(&out.buf);
}

static bool in_holds(struct span bytes)
{
	drain_fd(raw, &in);
	return in.len >= bytes.len && memmem(in.data, in.len, bytes.data, bytes.len);
}

static void expect_result(uint32_t id)
{
	struct packed p;
	msgpack_packer *pk = packed_begin(&p);
	msgpack_pack_array(pk, 4);
	msgpack_pack_int(pk, 1);
	msgpack_pack_uint32(pk, id);
	msgpack_pack_nil(pk);
	struct span head = packed_span(&p);
	WAIT_FOR(&world, in_holds(head));
	buf_free(&p.buf);
}

static void frames_cut_at_every_byte(void **arg)
{
	(void)arg;
	struct packed p;
	raw_begin();
	packed_begin(&p);
	pack_request(&p.packer, 70000, "echo", span_of("some bytes"));
	pack_number_notice(&p.packer, "cancel", 5, false, 0);
	pack_number_notice(&p.packer, "later", 5, true, 5);
	pack_request(&p.packer, 1, "hold", span_of(""));
	pack_number_notice(&p.packer, "cancel", 1, false, 0);
	struct span all = packed_span(&p);
	for (size_t cut = 1; cut < all.len; cut++) {
		buf_clear(&in);
		send_all(raw, (struct span){all.data, cut});
		world_settle(&world);
		send_all(raw, (struct span){all.data + cut, all.len - cut});
		expect_result(70000);
		WAIT_FOR(&world, n_served == cut && served[cut - 1].cancels == 1);
	}
	assert_int_equal(rpc_server_connections(server), 2);
	buf_free(&p.buf);
	raw_end();
}

static void one_byte_at_a_time(void **arg)
{
	(void)arg;
	static uint8_t large[100000];
	raw_begin();
	pack_request(&out.packer, 3, "echo", (struct span){(const char *)large, 3000});
	pack_request(&out.packer, 4, "echo", (struct span){(const char *)large, sizeof large});
	struct span all = packed_span(&out);
	for (size_t i = 0; i < 3100; i++) {
		send_all(raw, (struct span){all.data + i, 1});
		event_base_loop(loop_base(world.loop), EVLOOP_NONBLOCK);
	}
	send_all(raw, (struct span){all.data + 3100, all.len - 3100});
	expect_result(4);
	assert_int_equal(in.len, all.len - 2 * 4); /* nil stands for "echo" */
	raw_end();
}

/* ---- frames that are not ---- */

static const struct bad {
	const char *what;
	struct span bytes;
} bad_frames[] = {
	{"reserved type", SPAN_LITERAL("\xc1")},
	{"a number", SPAN_LITERAL("\x05")},
	{"a map", SPAN_LITERAL("\x80")},
	{"text", SPAN_LITERAL("GET / HTTP/1.1\r\n\r\n")},
	{"reserved type inside", SPAN_LITERAL("\x94\x00\x01\xc1")},
	{"empty array", SPAN_LITERAL("\x90")},
	{"type is text", SPAN_LITERAL("\x94\xa1x\x01\xa4"
				      "echo\x90")},
	{"type 3", SPAN_LITERAL("\x94\x03\x01\xa4"
				"echo\x90")},
	{"negative type", SPAN_LITERAL("\x94\xff\x01\xa4"
				       "echo\x90")},
	{"request of three", SPAN_LITERAL("\x93\x00\x01\xa4"
					  "echo")},
	{"request of five", SPAN_LITERAL("\x95\x00\x01\xa4"
					 "echo\x90\x90")},
	{"negative id", SPAN_LITERAL("\x94\x00\xff\xa4"
				     "echo\x90")},
	{"id of 33 bits", SPAN_LITERAL("\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa4"
				       "echo\x90")},
	{"id is nil", SPAN_LITERAL("\x94\x00\xc0\xa4"
				   "echo\x90")},
	{"method is bin", SPAN_LITERAL("\x94\x00\x01\xc4\x04"
				       "echo\x90")},
	{"params is a map", SPAN_LITERAL("\x94\x00\x01\xa4"
					 "echo\x80")},
	{"params is nil", SPAN_LITERAL("\x94\x00\x01\xa4"
				       "echo\xc0")},
	{"a response", SPAN_LITERAL("\x94\x01\x01\xc0\xc0")},
	{"an error response", SPAN_LITERAL("\x94\x01\x01\x92\x01\xa1x\xc0")},
	{"nine levels", SPAN_LITERAL("\x94\x00\x01\xa4"
				     "echo\x91\x91\x91\x91\x91\x91\x91\x91\xc0")},
	{"array larger than a frame", SPAN_LITERAL("\x94\x00\x01\xa4"
						   "echo\xdd\x00\x10\x00\x00")},
	{"map of 2^32 pairs", SPAN_LITERAL("\x94\x00\x01\xa4"
					   "echo\x91\xdf\xff\xff\xff\xff")},
	{"bin larger than a frame", SPAN_LITERAL("\x94\x00\x01\xa4"
						 "echo\x91\xc6\x00\x10\x00\x00")},
	{"str of 2^32 bytes", SPAN_LITERAL("\x94\x00\x01\xdb\xff\xff\xff\xff")},
	{"ext of 2^32 bytes", SPAN_LITERAL("\x94\x00\x01\xc9\xff\xff\xff\xff")},
	{"chunk of two", SPAN_LITERAL("\x93\x02\xa5"
				      "chunk\x92\x01\xc4\x00")},
	{"chunk of text", SPAN_LITERAL("\x93\x02\xa5"
				       "chunk\x93\x01\xa1x\xc3")},
	{"chunk without a bool", SPAN_LITERAL("\x93\x02\xa5"
					      "chunk\x93\x01\xc4\x01x\x01")},
	{"empty chunk, not the last", SPAN_LITERAL("\x93\x02\xa5"
						   "chunk\x93\x01\xc4\x00\xc2")},
	{"credit of one", SPAN_LITERAL("\x93\x02\xa6"
				       "credit\x91\x01")},
	{"negative credit", SPAN_LITERAL("\x93\x02\xa6"
					 "credit\x92\x01\xff")},
	{"cancel of none", SPAN_LITERAL("\x93\x02\xa6"
					"cancel\x90")},
	{"cancel of text", SPAN_LITERAL("\x93\x02\xa6"
					"cancel\x91\xa1x")},
	{"notification without params", SPAN_LITERAL("\x92\x02\xa6"
						     "cancel")},
	{"an id that is under way",
		SPAN_LITERAL("\x94\x00\x01\xa4hold\x90\x94\x00\x01\xa4hold\x90")},
	{"chunk without credit", SPAN_LITERAL("\x94\x00\x01\xa4hold\x90"
					      "\x93\x02\xa5"
					      "chunk\x93\x01\xc4\x01x\xc2")},
	{"chunk after the last", SPAN_LITERAL("\x94\x00\x01\xa4hold\x90"
					      "\x93\x02\xa5"
					      "chunk\x93\x01\xc4\x00\xc3"
					      "\x93\x02\xa5"
					      "chunk\x93\x01\xc4\x00\xc3")},
};

static void malformed_frames_close_the_connection(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	uint64_t lines = log_lines(LOG_LEVEL_ERROR);
	WAIT_FOR(&world, rpc_server_connections(server) == 1);
	for (size_t i = 0; i < sizeof bad_frames / sizeof *bad_frames; i++) {
		size_t before = n_served;
		raw_begin();
		/* A request that is under way hears of it. */
		pack_request(&out.packer, 99, "hold", span_of(""));
		raw_send();
		WAIT_FOR(&world, n_served == before + 1);
		send_all(raw, bad_frames[i].bytes);
		WAIT_FOR(&world, served[before].cancels == 1);
		if (!drain_fd(raw, NULL))
			fail_msg("%s: the connection is still there", bad_frames[i].what);
		for (size_t k = before; k < n_served; k++)
			assert_int_equal(served[k].cancels, 1);
		raw_end();
		/* A line for each, but ten a second at most. */
		uint64_t said = log_lines(LOG_LEVEL_ERROR) - lines;
		assert_true(said == i + 1 || (i >= 10 && said >= 10 && said <= i));
	}
	assert_int_equal(rpc_server_connections(server), 1);
	assert_int_equal(rpc_server_requests(server), 0);
	/* Nobody else noticed. */
	ask(&a, client, "echo", span_of(""), 0);
	WAIT_FOR(&world, a.dones);
	assert_int_equal(a.code, 0);
	assert_int_equal(state_changes, 1);
	asked_free(&a);
}

static void chunk_beyond_its_credit(void **arg)
{
	(void)arg;
	raw_begin();
	pack_request(&out.packer, 1, "hold", span_of(""));
	raw_send();
	WAIT_FOR(&world, n_served == 1);
	rpc_request_give_credit(served[0].request, 1000);
	pack_chunk(&out.packer, 1, (struct span){(const char *)pattern, 999}, false);
	raw_send();
	WAIT_FOR(&world, served[0].body.len == 999);
	pack_chunk(&out.packer, 1, (struct span){(const char *)pattern, 2}, true);
	raw_send();
	WAIT_FOR(&world, served[0].cancels);
	assert_int_equal(served[0].body.len, 999);
	assert_false(served[0].ended);
	raw_end();
}

static void late_and_unknown_frames_are_ignored(void **arg)
{
	(void)arg;
	raw_begin();
	pack_chunk(&out.packer, 77, span_of("late"), false);
	pack_number_notice(&out.packer, "credit", 77, true, UINT64_MAX);
	pack_number_notice(&out.packer, "cancel", 77, false, 0);
	pack_number_notice(&out.packer, "release", 77, false, 0);
	pack_request(&out.packer, 77, "hold", span_of(""));
	pack_number_notice(&out.packer, "credit", 77, true, UINT64_MAX);
	pack_number_notice(&out.packer, "credit", 77, true, UINT64_MAX);
	pack_request(&out.packer, 78, "echo", span_of(""));
	raw_send();
	expect_result(78);
	assert_true(rpc_request_credit(served[0].request) >= (uint64_t)1 << 40);
	rpc_request_reply(served[0].request, SPAN_LITERAL("\x90"));
	expect_result(77);
	/* The id is free again. */
	pack_request(&out.packer, 77, "echo", span_of(""));
	buf_clear(&in);
	raw_send();
	expect_result(77);
	raw_end();
}

static void more_requests_than_allowed_are_busy(void **arg)
{
	(void)arg;
	struct packed busy;
	raw_begin();
	for (uint32_t i = 0; i <= RPC_MAX_CALLS; i++)
		pack_request(&out.packer, i, "hold", span_of(""));
	raw_send();
	msgpack_packer *pk = packed_begin(&busy);
	msgpack_pack_array(pk, 4);
	msgpack_pack_int(pk, 1);
	msgpack_pack_uint32(pk, RPC_MAX_CALLS);
	msgpack_pack_array(pk, 2);
	msgpack_pack_int(pk, RPC_BUSY);
	WAIT_FOR(&world, in_holds(packed_span(&busy)));
	assert_int_equal(rpc_server_requests(server), RPC_MAX_CALLS);
	buf_free(&busy.buf);
	raw_end();
	WAIT_FOR(&world, rpc_server_requests(server) == 0);
	for (size_t i = 0; i < n_served; i++)
		assert_int_equal(served[i].cancels, 1);
}

static void a_peer_that_does_not_read_is_not_read(void **arg)
{
	(void)arg;
	enum { REQUESTS = 600, BYTES = 10000 };
	assert_int_equal(rpc_server_add(server, counting), 0);
	raw_begin();
	counted_requests = 0;
	for (uint32_t i = 0; i < REQUESTS; i++)
		pack_request(&out.packer, i, "count", (struct span){(const char *)pattern, BYTES});
	struct span left = packed_span(&out);
	/* Send as long as anything is taken. */
	unsigned idle = 0;
	while (left.len && idle < 3) {
		ssize_t n = send(raw, left.data, left.len, MSG_DONTWAIT | MSG_NOSIGNAL);
		idle = n > 0 ? 0 : idle + 1;
		left.data += n > 0 ? n : 0;
		left.len -= n > 0 ? (size_t)n : 0;
		world_settle(&world);
	}
	assert_true(left.len > 0);
	unsigned stopped_at = counted_requests;
	/* What it holds for us: the queue's bound, what one read brought, the kernel's buffer. */
	assert_true(stopped_at * BYTES > RPC_SEND_HIGH_WATER_BYTES);
	assert_true(stopped_at * BYTES < RPC_SEND_HIGH_WATER_BYTES + (1u << 20));
	/* Others are served meanwhile. */
	struct asked a;
	asked_init(&a);
	ask(&a, client, "echo", span_of(""), 0);
	WAIT_FOR(&world, a.dones);
	assert_int_equal(counted_requests, stopped_at);
	/* It reads again: everything comes, nothing was lost. */
	while (left.len) {
		ssize_t n = send(raw, left.data, left.len, MSG_DONTWAIT | MSG_NOSIGNAL);
		left.data += n > 0 ? n : 0;
		left.len -= n > 0 ? (size_t)n : 0;
		drain_fd(raw, &in);
		event_base_loop(loop_base(world.loop), EVLOOP_NONBLOCK);
	}
	expect_result(REQUESTS - 1);
	assert_int_equal(counted_requests, REQUESTS);
	asked_free(&a);
	raw_end();
}

static unsigned costly_requests;
static void serve_costly(struct rpc_request *request, struct span params, void *arg)
{
	(void)arg;
	costly_requests++;
	uint64_t end_us = loop_now_us(world.loop) + 1000;
	while (loop_now_us(world.loop) < end_us) {
	}
	rpc_request_reply(request, params);
}
static const struct rpc_method costly[] = {{"costly", serve_costly, NULL}, {NULL, NULL, NULL}};

/* Each asks for what is expensive a hundred times at once: somebody else waits for one of all these
 * requests a turn, not for one of each peer. */
static void peers_that_flood_delay_others_little(void **arg)
{
	(void)arg;
	enum { PEERS = 10, REQUESTS = 60, ROUNDS = 5 };
	int peers[PEERS];
	assert_int_equal(rpc_server_add(server, costly), 0);
	costly_requests = 0;
	packed_begin(&out);
	for (uint32_t i = 0; i < REQUESTS; i++)
		pack_request(&out.packer, i, "costly", span_of(""));
	for (size_t i = 0; i < PEERS; i++) {
		peers[i] = world_connect(&world);
		send_all(peers[i], packed_span(&out));
	}
	WAIT_FOR(&world, costly_requests >= PEERS);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct asked a;
		asked_init(&a);
		unsigned before = costly_requests;
		ask(&a, client, "echo", span_of(""), 0);
		WAIT_FOR(&world, a.dones);
		assert_true(costly_requests - before <= PEERS / 2);
		asked_free(&a);
	}
	/* Nothing is lost by waiting, and one that goes meanwhile is seen to go. */
	close(peers[0]);
	WAIT_FOR(&world, rpc_server_connections(server) == PEERS);
	WAIT_FOR(&world, costly_requests >= (PEERS - 1) * REQUESTS);
	for (size_t i = 1; i < PEERS; i++)
		close(peers[i]);
	buf_free(&out.buf);
}

static void credit_is_nothing_while_the_peer_does_not_read(void **arg)
{
	(void)arg;
	raw_begin();
	stream_bytes = sizeof pattern;
	for (uint32_t i = 0; i < 20; i++) {
		pack_number_notice(&out.packer, "later", i, false, 0);
		pack_request(&out.packer, i, "stream", span_of(""));
	}
	/* Each may send 256 KiB; 5 MiB would be queued if nobody looked at the queue. */
	raw_send();
	WAIT_FOR(&world, n_served >= 4);
	world_settle(&world);
	uint64_t sent = 0;
	for (size_t i = 0; i < n_served; i++)
		sent += served[i].sent;
	assert_true(sent < RPC_SEND_HIGH_WATER_BYTES + 2 * RPC_ANSWER_CREDIT_BYTES + (1u << 20));
	/* Read: every one goes on to its credit, and not past it. */
	WAIT_FOR(&world,
		(drain_fd(raw, &in), n_served == 20) && served[19].sent == RPC_ANSWER_CREDIT_BYTES);
	for (size_t i = 0; i < 20; i++)
		WAIT_FOR(&world, (drain_fd(raw, &in), served[i].sent == RPC_ANSWER_CREDIT_BYTES));
	raw_end();
}

/* Not even its answers' memory is unbounded. */
static void a_peer_that_never_reads_is_closed(void **arg)
{
	(void)arg;
	enum { REQUESTS = 80 };
	raw_begin();
	for (uint32_t i = 0; i < REQUESTS; i++)
		pack_request(&out.packer, i, "hold", span_of(""));
	raw_send();
	WAIT_FOR(&world, n_served == REQUESTS);
	size_t i = 0;
	for (; i < REQUESTS && served[i].request; i++) {
		rpc_request_reply(served[i].request,
			(struct span){(const char *)pattern, RPC_MAX_PAYLOAD_BYTES});
		event_base_loop(loop_base(world.loop), EVLOOP_NONBLOCK);
	}
	assert_true(i >= RPC_SEND_MAX_BYTES / RPC_MAX_FRAME_BYTES && i < REQUESTS);
	for (; i < REQUESTS; i++)
		assert_int_equal(served[i].cancels, 1);
	WAIT_FOR(&world, rpc_server_connections(server) == 1);
	raw_end();
}

static int connect_as(uid_t uid, gid_t gid)
{
	int to_child[2], from_child[2];
	assert_int_equal(pipe(to_child), 0);
	assert_int_equal(pipe(from_child), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct sockaddr_un address = world_address(&world);
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		char answer = 'x';
		if (setgid(gid) == 0 && setuid(uid) == 0 &&
			connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
			answer = 'c';
		if (write(from_child[1], &answer, 1) != 1)
			_exit(1);
		/* The end that the server sees as ours: closed by it, or by our parent's word. */
		_exit(answer == 'c' && read(to_child[0], &answer, 1) == 1 &&
					recv(fd, &answer, 1, MSG_DONTWAIT) == 0
				? 7
				: 8);
	}
	char answer;
	assert_int_equal(read(from_child[0], &answer, 1), 1);
	assert_int_equal(answer, 'c');
	uint64_t warnings = log_lines(LOG_LEVEL_WARN);
	WAIT_FOR(&world,
		rpc_server_connections(server) == 2 || log_lines(LOG_LEVEL_WARN) > warnings);
	assert_int_equal(write(to_child[1], "x", 1), 1);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	for (int i = 0; i < 2; i++)
		close(to_child[i]), close(from_child[i]);
	return WEXITSTATUS(status);
}

static void strangers_are_refused(void **arg)
{
	(void)arg;
	if (geteuid() != 0)
		return; /* nobody else to be */
	chmod(world.dir, 0755);
	chmod(world.path, 0666);
	WAIT_FOR(&world, rpc_server_connections(server) == 1);
	assert_int_equal(connect_as(PEER_UID, PEER_UID), 7);
	assert_int_equal(rpc_server_connections(server), 1);
	assert_int_equal(connect_as(0, 0), 8);
	WAIT_FOR(&world, rpc_server_connections(server) == 1);

	rpc_client_free(&client);
	rpc_server_free(&server);
	struct rpc_server_options options = rpc_server_defaults;
	options.trusted_gid = PEER_UID;
	server = rpc_server_new(world.loop, world_listen(&world), &options);
	chmod(world.path, 0666);
	client = rpc_client_new(world.loop, world.path, NULL, NULL, NULL);
	WAIT_FOR(&world, rpc_server_connections(server) == 1);
	assert_int_equal(connect_as(PEER_UID, PEER_UID), 8);
	WAIT_FOR(&world, rpc_server_connections(server) == 1);
	assert_int_equal(connect_as(PEER_UID, PEER_UID - 1), 7);
}

static void further_connections_wait(void **arg)
{
	(void)arg;
	rpc_client_free(&client);
	rpc_server_free(&server);
	struct rpc_server_options options = {.trusted_gid = (gid_t)-1, .max_connections = 1};
	server = rpc_server_new(world.loop, world_listen(&world), &options);
	rpc_server_add(server, methods);
	int first = world_connect(&world);
	WAIT_FOR(&world, rpc_server_connections(server) == 1);
	raw_begin();
	pack_request(&out.packer, 1, "echo", span_of(""));
	raw_send();
	world_settle(&world);
	assert_int_equal(rpc_server_connections(server), 1);
	drain_fd(raw, &in);
	assert_int_equal(in.len, 0);
	close(first);
	expect_result(1);
	raw_end();
}

int main(void)
{
	open_hidden_log("rpc_hostile_test");
	const struct CMUnitTest tests[] = {
		CASE(frames_cut_at_every_byte),
		CASE(one_byte_at_a_time),
		CASE(malformed_frames_close_the_connection),
		CASE(chunk_beyond_its_credit),
		CASE(late_and_unknown_frames_are_ignored),
		CASE(more_requests_than_allowed_are_busy),
		CASE(peers_that_flood_delay_others_little),
		CASE(a_peer_that_does_not_read_is_not_read),
		CASE(credit_is_nothing_while_the_peer_does_not_read),
		CASE(a_peer_that_never_reads_is_closed),
		CASE(strangers_are_refused),
		CASE(further_connections_wait),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
