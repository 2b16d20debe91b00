/* Calls, answers, chunks, credit and cancel between two ends that keep the rules. */
#include "rpc_pair.h"

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

static void tells_errors(void **arg)
{
	(void)arg;
	struct asked a, b, c, d;
	asked_init(&a), asked_init(&b), asked_init(&c), asked_init(&d);
	ask(&a, client, "fail", span_of(""), 0);
	ask(&b, client, "nobody", span_of(""), 0);
	ask(&c, client, "huge", span_of(""), 0);
	ask(&d, client, "echo", (struct span){(const char *)pattern, RPC_MAX_PAYLOAD_BYTES}, 0);
	WAIT_FOR(&world, a.dones && b.dones && c.dones && d.dones);
	assert_int_equal(a.code, RPC_FORBIDDEN);
	assert_string_equal(a.message, "not for you");
	assert_int_equal(b.code, RPC_NO_METHOD);
	assert_string_equal(b.message, "no method \"nobody\"");
	assert_int_equal(c.code, RPC_FAILED);
	assert_int_equal(d.code, RPC_BAD_PARAMS);
	assert_int_equal(a.results + b.results + c.results + d.results, 0);
	assert_int_equal(rpc_server_add(server, methods), -1);
	assert_string_equal(rpc_code_name(RPC_TIMEOUT), "timeout");
}

static void carries_the_largest_frame(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	/* An array of one bin 32: six bytes before the data. */
	ask(&a, client, "echo", (struct span){(const char *)pattern, RPC_MAX_PAYLOAD_BYTES - 6}, 0);
	WAIT_FOR(&world, a.dones);
	assert_int_equal(a.code, 0);
	assert_int_equal(a.result.len, RPC_MAX_PAYLOAD_BYTES);
	assert_memory_equal(a.result.data + 6, pattern, RPC_MAX_PAYLOAD_BYTES - 6);
	asked_free(&a);
}

#define MANY 1000
static void answers_many_in_any_order(void **arg)
{
	(void)arg;
	static struct asked asked[MANY];
	for (size_t i = 0; i < MANY; i++) {
		asked_init(&asked[i]);
		ask(&asked[i], client, "hold", span_of("x"), 5000);
	}
	assert_int_equal(rpc_client_calls(client), MANY);
	WAIT_FOR(&world, n_served == MANY);
	assert_int_equal(rpc_server_requests(server), MANY);
	/* 7 is prime to 1,000: each one once. The answer is the request's own number. */
	for (size_t i = 0; i < MANY; i++) {
		size_t k = (i * 7 + 3) % MANY;
		struct packed p;
		msgpack_pack_uint64(packed_begin(&p), k);
		assert_string_equal(rpc_request_method(served[k].request), "hold");
		assert_int_equal(rpc_request_peer(served[k].request)->pid, getpid());
		rpc_request_reply(served[k].request, packed_span(&p));
		buf_free(&p.buf);
	}
	for (size_t i = 0; i < MANY; i++) {
		WAIT_FOR(&world, asked[i].dones);
		uint64_t k;
		struct wire w = wire_of(
			(struct span){(const char *)asked[i].result.data, asked[i].result.len});
		assert_int_equal(asked[i].code, 0);
		assert_int_equal(wire_read_u64(&w, &k), 0);
		assert_int_equal(k, i);
		asked_free(&asked[i]);
	}
	assert_int_equal(rpc_server_requests(server), 0);
}

static void answer_stops_at_its_credit(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	a.expect = true;
	stream_bytes = 1 << 20;
	ask(&a, client, "stream", span_of(""), 0);
	WAIT_FOR(&world, a.body.len >= RPC_ANSWER_CREDIT_BYTES);
	world_settle(&world);
	assert_int_equal(a.results, 1);
	assert_int_equal(a.body.len, RPC_ANSWER_CREDIT_BYTES);
	assert_int_equal(rpc_request_credit(served[0].request), 0);
	rpc_call_give_credit(a.call, 1000);
	WAIT_FOR(&world, a.body.len >= RPC_ANSWER_CREDIT_BYTES + 1000);
	world_settle(&world);
	assert_int_equal(a.body.len, RPC_ANSWER_CREDIT_BYTES + 1000);
	a.give_back = true;
	rpc_call_give_credit(a.call, RPC_ANSWER_CREDIT_BYTES);
	WAIT_FOR(&world, a.dones);
	assert_int_equal(a.code, 0);
	assert_true(a.ended);
	assert_int_equal(a.body.len, 1 << 20);
	check_pattern(&a.body);
	assert_true(served[0].credits > 2);
	assert_int_equal(served[0].cancels, 0);
	assert_int_equal(rpc_server_requests(server), 0);
	asked_free(&a);
}

static void body_goes_out_as_it_is_asked_for(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	released = 0;
	ask(&a, client, "hold", span_of(""), 0);
	WAIT_FOR(&world, n_served == 1);
	assert_int_equal(rpc_call_credit(a.call), 0);
	rpc_request_give_credit(served[0].request, 150000);
	WAIT_FOR(&world, a.credits);
	assert_int_equal(a.credit, 150000);
	rpc_call_send_chunk(a.call, counted(0, 149990), false);
	rpc_call_send_chunk(a.call, counted(0, 0), false); /* nothing, and said by nothing */
	rpc_call_send_chunk(a.call, counted(149990, 10), false);
	assert_int_equal(rpc_call_credit(a.call), 0);
	WAIT_FOR(&world, served[0].body.len == 150000);
	check_pattern(&served[0].body);
	assert_int_equal(released, 3);
	assert_false(served[0].ended);
	rpc_call_send_chunk(a.call, counted(0, 0), true);
	WAIT_FOR(&world, served[0].ended);
	assert_int_equal(released, 4);
	rpc_request_reply(served[0].request, SPAN_LITERAL("\xc0"));
	WAIT_FOR(&world, a.dones);
	assert_int_equal(a.code, 0);
	assert_int_equal(a.result.len, 1);
	asked_free(&a);
}

static void chunks_go_both_ways_at_once(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	a.expect = a.give_back = true;
	stream_bytes = 1 << 20;
	ask(&a, client, "stream", span_of(""), 0);
	WAIT_FOR(&world, n_served == 1);
	served[0].give_back = true;
	rpc_request_give_credit(served[0].request, 70000);
	size_t sent = 0;
	while (sent < 1000000) {
		WAIT_FOR(&world, rpc_call_credit(a.call));
		size_t n = (size_t)rpc_call_credit(a.call);
		if (n > 1000000 - sent)
			n = 1000000 - sent;
		rpc_call_send_chunk(a.call, counted(sent, n), false);
		sent += n;
		/* Hold the answer's end back until the body is through. */
		if (served[0].sent > 600000)
			a.give_back = false;
	}
	WAIT_FOR(&world, served[0].body.len == 1000000);
	check_pattern(&served[0].body);
	a.give_back = true;
	rpc_call_give_credit(a.call, 2 << 20);
	WAIT_FOR(&world, a.dones);
	assert_int_equal(a.body.len, 1 << 20);
	check_pattern(&a.body);
	asked_free(&a);
}

static void cancel_before_it_is_sent(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	ask(&a, client, "hold", span_of(""), 0);
	rpc_call_cancel(&a.call);
	assert_null(a.call);
	rpc_call_cancel(&a.call);
	assert_int_equal(rpc_client_calls(client), 0);
	WAIT_FOR(&world, n_served == 1 && served[0].cancels == 1);
	world_settle(&world);
	assert_int_equal(a.dones, 0);
	assert_int_equal(rpc_server_requests(server), 0);
}

static void cancel_at_every_stage(void **arg)
{
	(void)arg;
	struct asked held, in_result, in_chunk, late;
	asked_init(&held), asked_init(&in_result), asked_init(&in_chunk), asked_init(&late);
	stream_bytes = 1 << 20;
	ask(&held, client, "hold", span_of(""), 1000);
	in_result.cancel_in_result = true;
	ask(&in_result, client, "stream", span_of(""), 0);
	in_chunk.expect = in_chunk.cancel_in_chunk = true;
	ask(&in_chunk, client, "stream", span_of(""), 0);
	ask(&late, client, "echo", span_of(""), 0);
	WAIT_FOR(&world, n_served == 3);
	rpc_call_cancel(&late.call); /* its answer is on its way */
	rpc_call_cancel(&held.call);
	WAIT_FOR(&world, served[0].cancels && served[1].cancels && served[2].cancels);
	world_settle(&world);
	assert_int_equal(held.dones + in_result.dones + in_chunk.dones + late.dones, 0);
	assert_int_equal(held.results + late.results, 0);
	assert_int_equal(in_result.results, 1);
	assert_int_equal(in_result.body.len, 0);
	assert_true(in_chunk.body.len > 0 && in_chunk.body.len <= RPC_CHUNK_BYTES);
	assert_int_equal(rpc_client_calls(client), 0);
	assert_int_equal(state_changes, 1);
	asked_free(&in_result), asked_free(&in_chunk);
}

static void chunks_nobody_expects_are_cancelled(void **arg)
{
	(void)arg;
	struct asked a;
	asked_init(&a);
	stream_bytes = 1 << 20;
	ask(&a, client, "stream", span_of(""), 0);
	WAIT_FOR(&world, a.dones);
	assert_int_equal(a.code, 0);
	WAIT_FOR(&world, served[0].cancels);
	assert_int_equal(a.body.len, 0);
	assert_int_equal(state_changes, 1);
	asked_free(&a);
}

static void answerer_gives_up(void **arg)
{
	(void)arg;
	struct asked early, middle;
	asked_init(&early), asked_init(&middle);
	middle.expect = true;
	stream_bytes = 1 << 20;
	ask(&early, client, "hold", span_of(""), 0);
	ask(&middle, client, "stream", span_of(""), 0);
	WAIT_FOR(&world, middle.body.len == RPC_ANSWER_CREDIT_BYTES);
	rpc_request_abort(served[0].request);
	rpc_request_abort(served[1].request);
	WAIT_FOR(&world, early.dones && middle.dones);
	assert_int_equal(early.code, RPC_CANCELLED);
	assert_int_equal(middle.code, RPC_CANCELLED);
	assert_int_equal(middle.results, 1);
	assert_false(middle.ended);
	assert_int_equal(served[0].cancels + served[1].cancels, 0);
	assert_int_equal(rpc_server_requests(server), 0);
	asked_free(&middle);
}

static void answer_before_the_body_is_complete(void **arg)
{
	(void)arg;
	struct asked a, b;
	asked_init(&a), asked_init(&b);
	ask(&a, client, "hold", span_of(""), 0);
	WAIT_FOR(&world, n_served == 1);
	rpc_request_give_credit(served[0].request, 1 << 20);
	WAIT_FOR(&world, a.credits);
	rpc_request_reply(served[0].request, SPAN_LITERAL("\xc0"));
	/* On its way to a request that is over: legal. */
	rpc_call_send_chunk(a.call, counted(0, 100000), true);
	WAIT_FOR(&world, a.dones);
	ask(&b, client, "echo", span_of(""), 0);
	WAIT_FOR(&world, b.dones);
	assert_int_equal(b.code, 0);
	assert_int_equal(served[0].body.len, 0);
	assert_int_equal(state_changes, 1);
	asked_free(&a), asked_free(&b);
}

static void times_out(void **arg)
{
	(void)arg;
	struct asked slow, slower, never, well;
	asked_init(&slow), asked_init(&slower), asked_init(&never), asked_init(&well);
	uint64_t begun_us = loop_now_us(world.loop);
	ask(&never, client, "hold", span_of(""), 0);
	ask(&slower, client, "hold", span_of(""), 60);
	ask(&slow, client, "hold", span_of(""), 20); /* earlier than the timer that is armed */
	ask(&well, client, "echo", span_of(""), 10000);
	WAIT_FOR(&world, slow.dones);
	assert_true(loop_now_us(world.loop) - begun_us >= 20000);
	assert_int_equal(slower.dones, 0);
	WAIT_FOR(&world, slower.dones);
	assert_true(loop_now_us(world.loop) - begun_us >= 60000);
	assert_int_equal(slow.code, RPC_TIMEOUT);
	assert_int_equal(slower.code, RPC_TIMEOUT);
	assert_int_equal(well.code, 0);
	WAIT_FOR(&world, served[1].cancels && served[2].cancels);
	assert_int_equal(never.dones, 0);
	assert_int_equal(served[0].cancels, 0);
	asked_free(&well);
	rpc_call_cancel(&never.call);
}

static void too_many_calls_are_busy(void **arg)
{
	(void)arg;
	static struct asked asked[RPC_MAX_CALLS];
	struct asked over;
	asked_init(&over);
	for (size_t i = 0; i < RPC_MAX_CALLS; i++) {
		asked_init(&asked[i]);
		ask(&asked[i], client, "hold", span_of(""), 0);
	}
	ask(&over, client, "hold", span_of(""), 0);
	WAIT_FOR(&world, over.dones);
	assert_int_equal(over.code, RPC_BUSY);
	WAIT_FOR(&world, n_served == RPC_MAX_CALLS);
	rpc_request_reply(served[17].request, SPAN_LITERAL("\x01"));
	WAIT_FOR(&world, asked[17].dones);
	ask(&over, client, "hold", span_of(""), 0);
	WAIT_FOR(&world, n_served == RPC_MAX_CALLS + 1);
	asked_free(&asked[17]);
	/* All of them hear of the loss. */
	rpc_server_free(&server);
	for (size_t i = 0; i < RPC_MAX_CALLS; i++) {
		WAIT_FOR(&world, asked[i].dones);
		assert_int_equal(asked[i].dones, 1);
		assert_int_equal(asked[i].code, i == 17 ? 0 : RPC_LOST);
	}
	assert_int_equal(over.dones, 2);
}

int main(void)
{
	log_open("rpc_test", LOG_LEVEL_FATAL, LOG_FORMAT_JSON);
	const struct CMUnitTest tests[] = {
		CASE(answers_echo),
		CASE(tells_errors),
		CASE(carries_the_largest_frame),
		CASE(answers_many_in_any_order),
		CASE(answer_stops_at_its_credit),
		CASE(body_goes_out_as_it_is_asked_for),
		CASE(chunks_go_both_ways_at_once),
		CASE(cancel_before_it_is_sent),
		CASE(cancel_at_every_stage),
		CASE(chunks_nobody_expects_are_cancelled),
		CASE(answerer_gives_up),
		CASE(answer_before_the_body_is_complete),
		CASE(times_out),
		CASE(too_many_calls_are_busy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
