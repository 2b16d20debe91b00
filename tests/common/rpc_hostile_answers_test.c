/* Answerers that break the rules, or vanish: what the asking end makes of them. */
#include "rpc_fixture.h"

static struct world world;
static struct rpc_client *client;
static int listener, raw;
static struct buf in;
static struct packed out;
static unsigned connects, losses;

static void on_state(bool connected, void *arg)
{
	(void)arg;
	*(connected ? &connects : &losses) += 1;
}

static int setup(void **arg)
{
	(void)arg;
	static const struct rpc_client_options quick = {200, 1, 10, NULL};
	connects = losses = 0;
	world_make(&world);
	listener = world_listen(&world);
	client = rpc_client_new(world.loop, world.path, &quick, on_state, NULL);
	assert_true(rpc_client_connected(client));
	raw = accept(listener, NULL, NULL);
	assert_true(raw >= 0);
	buf_init(&in, 64u << 20);
	packed_begin(&out);
	return 0;
}

static int teardown(void **arg)
{
	(void)arg;
	rpc_client_free(&client);
	close(raw);
	close(listener);
	buf_free(&in);
	buf_free(&out.buf);
	world_free(&world);
	return 0;
}

/* The frames that came, one by one. */
static bool next_frame(struct span *frame)
{
	drain_fd(raw, &in);
	struct wire w = wire_of((struct span){(const char *)in.data, in.len});
	return in.len && wire_skip(&w, frame) == 0;
}

static uint32_t accept_request(void)
{
	struct span frame;
	uint32_t count;
	uint64_t type, id;
	WAIT_FOR(&world, next_frame(&frame));
	struct wire w = wire_of(frame);
	assert_int_equal(wire_read_array(&w, &count), 0);
	assert_int_equal(count, 4);
	assert_int_equal(wire_read_u64(&w, &type), 0);
	assert_int_equal(type, 0);
	assert_int_equal(wire_read_u64(&w, &id), 0);
	buf_consume(&in, frame.len);
	return (uint32_t)id;
}

static void expect_notice(const char *name, uint32_t id)
{
	struct span frame, method;
	uint32_t count;
	uint64_t type, got;
	WAIT_FOR(&world, next_frame(&frame));
	struct wire w = wire_of(frame);
	assert_int_equal(wire_read_array(&w, &count), 0);
	assert_int_equal(wire_read_u64(&w, &type), 0);
	assert_int_equal(type, 2);
	assert_int_equal(wire_read_str(&w, &method), 0);
	assert_true(span_equal_str(method, name));
	assert_int_equal(wire_read_array(&w, &count), 0);
	assert_int_equal(wire_read_u64(&w, &got), 0);
	assert_int_equal(got, id);
	buf_consume(&in, frame.len);
}

static void answer(void)
{
	send_all(raw, packed_span(&out));
	buf_clear(&out.buf);
}

/* The connection broke with one call under way; accept the next one. */
static void expect_break(struct asked *a, int code)
{
	unsigned before = connects;
	WAIT_FOR(&world, a->dones);
	assert_int_equal(a->dones, 1);
	assert_int_equal(a->code, code);
	assert_true(drain_fd(raw, NULL));
	close(raw);
	WAIT_FOR(&world, connects == before + 1);
	raw = accept(listener, NULL, NULL);
	assert_true(raw >= 0);
	buf_clear(&in);
	buf_clear(&out.buf);
}

static void malformed_answers(void **arg)
{
	(void)arg;
	static const struct span bad[] = {
		SPAN_LITERAL("\xc1"),
		SPAN_LITERAL("HTTP/1.1 200 OK\r\n"),
		SPAN_LITERAL("\x94\x00\x01\xa1x\x90"),          /* a request */
		SPAN_LITERAL("\x93\x01\x01\xc0"),               /* three parts */
		SPAN_LITERAL("\x94\x01\xa1x\xc0\xc0"),          /* id is text */
		SPAN_LITERAL("\x94\x01\x01\x01\xc0"),           /* error is a number */
		SPAN_LITERAL("\x94\x01\x01\x91\x01\xc0"),       /* error without message */
		SPAN_LITERAL("\x94\x01\x01\x92\xa1x\xa1x\xc0"), /* code is text */
		SPAN_LITERAL("\x94\x01\x01\x92\x01\x01\xc0"),   /* message is a number */
		SPAN_LITERAL("\x94\x01\xcd\x27\x10\xc0\xc0"),   /* an id that was never given */
		SPAN_LITERAL("\x94\x01\x01\xc0\xc6\xff\xff\xff\xff"),
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct asked a;
		asked_init(&a);
		ask(&a, client, "x", span_of(""), 0);
		accept_request();
		send_all(raw, bad[i]);
		expect_break(&a, RPC_PROTOCOL);
		assert_int_equal(a.results, 0);
		asked_free(&a);
	}
	assert_int_equal(losses, sizeof bad / sizeof *bad);
}

static void chunk_before_its_answer(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	ask(&a, client, "x", span_of(""), 0);
	pack_chunk(&out.packer, accept_request(), span_of("x"), true);
	answer();
	expect_break(&a, RPC_PROTOCOL);
}

static void second_answer(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	a.expect = true;
	ask(&a, client, "x", span_of(""), 0);
	uint32_t id = accept_request();
	pack_result(&out.packer, id, "one");
	pack_result(&out.packer, id, "two");
	answer();
	expect_break(&a, RPC_PROTOCOL);
	assert_int_equal(a.results, 1);
	asked_free(&a);
}

static void chunk_beyond_its_credit(void **arg)
{
	(void)arg;
	static char data[RPC_ANSWER_CREDIT_BYTES];
	struct asked a;
	asked_init(&a);
	a.expect = true;
	ask(&a, client, "x", span_of(""), 0);
	uint32_t id = accept_request();
	pack_result(&out.packer, id, "one");
	answer();
	/* In parts: the socket holds less than all of it. */
	for (size_t sent = 0; sent < sizeof data; sent += sizeof data / 8) {
		pack_chunk(&out.packer, id, (struct span){data, sizeof data / 8}, false);
		answer();
		WAIT_FOR(&world, a.body.len == sent + sizeof data / 8);
	}
	pack_chunk(&out.packer, id, span_of("!"), false);
	answer();
	expect_break(&a, RPC_PROTOCOL);
	assert_int_equal(a.body.len, sizeof data);
	asked_free(&a);
}

static void errors_pass_through(void **arg)
{
	(void)arg;
	static const struct {
		struct span tail;
		int code;
		const char *message;
	} cases[] = {
		{SPAN_LITERAL("\x92\x04\xa2no\xc0"), RPC_FORBIDDEN, "no"},
		{SPAN_LITERAL("\x94\x02\xa1x\x80\xc0\x93\x01\x02\x03"), RPC_NO_METHOD, "x"},
		/* Codes that only this end makes, or nobody. */
		{SPAN_LITERAL("\x92\x64\xa4gone\xc0"), RPC_FAILED, "gone"},
		{SPAN_LITERAL("\x92\xff\xa4less\xc0"), RPC_FAILED, "less"},
		{SPAN_LITERAL("\x92\x00\xa4zero\xc0"), RPC_FAILED, "zero"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct asked a;
		asked_init(&a);
		ask(&a, client, "x", span_of(""), 0);
		uint8_t head[] = {0x94, 1, (uint8_t)accept_request()};
		send_all(raw, (struct span){(const char *)head, sizeof head});
		send_all(raw, cases[i].tail);
		WAIT_FOR(&world, a.dones);
		assert_int_equal(a.code, cases[i].code);
		assert_string_equal(a.message, cases[i].message);
		asked_free(&a);
	}
	assert_int_equal(losses, 0);
}

static void an_error_after_the_answer(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	a.expect = true;
	ask(&a, client, "x", span_of(""), 0);
	uint32_t id = accept_request();
	pack_result(&out.packer, id, "one");
	answer();
	uint8_t head[] = {0x94, 1, (uint8_t)id};
	send_all(raw, (struct span){(const char *)head, sizeof head});
	send_all(raw, SPAN_LITERAL("\x92\x05\xa1x\xc0"));
	expect_break(&a, RPC_PROTOCOL);
	asked_free(&a);
}

static void late_frames_are_ignored(void **arg)
{
	(void)arg;
	struct asked gone, well;
	asked_init(&gone), asked_init(&well);
	ask(&gone, client, "x", span_of(""), 0);
	uint32_t id = accept_request();
	rpc_call_cancel(&gone.call);
	expect_notice("cancel", id);
	pack_number_notice(&out.packer, "credit", id, true, 1000);
	pack_result(&out.packer, id, "late");
	pack_result(&out.packer, id, "again");
	pack_number_notice(&out.packer, "cancel", id, false, 0);
	pack_number_notice(&out.packer, "element", id, false, 0);
	pack_chunk(&out.packer, id, span_of("late"), true);
	answer();
	ask(&well, client, "x", span_of(""), 0);
	id = accept_request();
	pack_result(&out.packer, id, "well");
	answer();
	WAIT_FOR(&world, well.dones);
	assert_int_equal(well.code, 0);
	assert_int_equal(gone.dones, 0);
	/* A late chunk that is not the last has a sender who waits for credit. */
	pack_chunk(&out.packer, id, span_of("late"), false);
	answer();
	expect_notice("cancel", id);
	assert_int_equal(losses, 0);
	asked_free(&well);
}

static void answers_cut_at_every_byte(void **arg)
{
	(void)arg;
	for (size_t cut = 1;; cut++) {
		struct asked a;
		asked_init(&a);
		a.expect = true;
		ask(&a, client, "x", span_of(""), 0);
		uint32_t id = accept_request();
		pack_number_notice(&out.packer, "credit", id, true, 7);
		pack_result(&out.packer, id, "well");
		pack_chunk(&out.packer, id, span_of("part"), false);
		pack_chunk(&out.packer, id, span_of(""), true);
		struct span all = packed_span(&out);
		bool last = cut + 1 >= all.len;
		send_all(raw, (struct span){all.data, cut});
		world_settle(&world);
		assert_int_equal(a.dones, 0);
		send_all(raw, (struct span){all.data + cut, all.len - cut});
		WAIT_FOR(&world, a.dones);
		assert_int_equal(a.code, 0);
		assert_int_equal(a.credit, 7);
		assert_int_equal(a.body.len, 4);
		buf_clear(&out.buf);
		asked_free(&a);
		if (last)
			break;
	}
	assert_int_equal(losses, 0);
}

/* The peer dies at each byte of its answer. */
static void peer_vanishes_at_every_byte(void **arg)
{
	(void)arg;
	for (size_t cut = 0;; cut++) {
		struct asked a;
		asked_init(&a);
		a.expect = true;
		ask(&a, client, "x", span_of(""), 0);
		uint32_t id = accept_request();
		pack_result(&out.packer, id, "well");
		pack_chunk(&out.packer, id, span_of("part"), true);
		struct span all = packed_span(&out);
		bool last = cut + 1 == all.len;
		send_all(raw, (struct span){all.data, cut});
		unsigned before = connects;
		close(raw);
		WAIT_FOR(&world, a.dones);
		assert_int_equal(a.dones, 1);
		assert_int_equal(a.code, RPC_LOST);
		WAIT_FOR(&world, connects == before + 1);
		raw = accept(listener, NULL, NULL);
		buf_clear(&in);
		buf_clear(&out.buf);
		asked_free(&a);
		if (last)
			break;
	}
}

/* What the peer answered before it closed counts, also when writing to it fails first. */
static void last_words_are_heard(void **arg)
{
	(void)arg;
	struct asked a, b;
	asked_init(&a), asked_init(&b);
	ask(&a, client, "x", span_of(""), 0);
	pack_result(&out.packer, accept_request(), "last words");
	answer();
	close(raw);
	ask(&b, client, "x", span_of(""), 0);
	WAIT_FOR(&world, a.dones && b.dones);
	assert_int_equal(a.code, 0);
	assert_int_equal(a.results, 1);
	assert_int_equal(b.code, RPC_LOST);
	WAIT_FOR(&world, connects == 2);
	raw = accept(listener, NULL, NULL);
	asked_free(&a);
}

/* A peer that reads nothing: calls are refused before memory is. */
static void a_peer_that_does_not_read(void **arg)
{
	(void)arg;
	enum { CALLS = 200 };
	static char data[1000000];
	static struct asked asked[CALLS];
	unsigned busy = 0;
	for (size_t i = 0; i < CALLS; i++) {
		asked_init(&asked[i]);
		ask(&asked[i], client, "x", (struct span){data, sizeof data}, 0);
	}
	WAIT_FOR(&world, asked[CALLS - 1].dones);
	world_settle(&world);
	for (size_t i = 0; i < CALLS; i++) {
		assert_int_equal(asked[i].code, asked[i].dones ? RPC_BUSY : 0);
		busy += asked[i].dones;
	}
	assert_true(CALLS - busy <= RPC_SEND_MAX_BYTES / sizeof data);
	assert_true(CALLS - busy > 50);
	assert_int_equal(losses, 0);
	/* The others leave when it reads. */
	for (unsigned i = 0; i < CALLS - busy; i++)
		accept_request();
	ask(&asked[CALLS - 1], client, "x", span_of(""), 0);
	uint32_t id = accept_request();
	pack_result(&out.packer, id, "well");
	answer();
	WAIT_FOR(&world, asked[CALLS - 1].dones == 2);
	assert_int_equal(asked[CALLS - 1].code, 0);
	asked_free(&asked[CALLS - 1]);
}

/* An answerer that closes every connection at once is not hammered. */
static void backs_off_from_a_listener_that_hangs_up(void **arg)
{
	(void)arg;
	static const struct rpc_client_options options = {200, 4, 20, NULL};
	rpc_client_free(&client);
	close(raw);
	client = rpc_client_new(world.loop, world.path, &options, on_state, NULL);
	uint64_t begun_us = loop_now_us(world.loop);
	for (unsigned i = 0; i < 40; i++) {
		WAIT_FOR(&world, (raw = accept(listener, NULL, NULL)) >= 0);
		close(raw);
	}
	raw = -1;
	/* Full jitter, about 10 ms a time. If connecting alone counted as success, it would be 2.
	 */
	assert_true(loop_now_us(world.loop) - begun_us > 170000);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	log_open("rpc_hostile_answers_test", LOG_LEVEL_FATAL, LOG_FORMAT_JSON);
	const struct CMUnitTest tests[] = {
		CASE(malformed_answers),
		CASE(chunk_before_its_answer),
		CASE(second_answer),
		CASE(chunk_beyond_its_credit),
		CASE(errors_pass_through),
		CASE(an_error_after_the_answer),
		CASE(late_frames_are_ignored),
		CASE(answers_cut_at_every_byte),
		CASE(peer_vanishes_at_every_byte),
		CASE(last_words_are_heard),
		CASE(a_peer_that_does_not_read),
		CASE(backs_off_from_a_listener_that_hangs_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
