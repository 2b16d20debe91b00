#include "common/rpc_client_private.h"

#include <stdlib.h>

#include "common/log.h"

/* ---- one call ---- */

static void call_unlink(struct rpc_call *call)
{
	struct rpc_client *client = call->client;
	if (call->state == CALL_FAILED) {
		TAILQ_REMOVE(&client->failed, call, link);
		client->n_failed--;
	} else if (call->state != CALL_DEAD) {
		TAILQ_REMOVE(&client->calls, call, link);
		rpc_ids_remove(&client->ids, &call->id);
	}
	call->state = CALL_DEAD;
}

/* The call is over and told so: the one place that makes on_done. */
void rpc_call_finish(struct rpc_call *call, int code, struct span message)
{
	struct rpc_error error = {code, message};
	call_unlink(call);
	call->in_callback = true;
	call->events->on_done(code ? &error : NULL, call->arg);
	free(call);
}

static const char *failure_text(int code)
{
	switch (code) {
	case RPC_BAD_PARAMS:
		return "params over the frame limit";
	case RPC_BUSY:
		return "too many calls under way";
	case RPC_TIMEOUT:
		return "no answer in time";
	case RPC_PROTOCOL:
		return "the peer broke the protocol";
	default:
		return "not connected";
	}
}

static void call_fail_later(struct rpc_call *call, int code)
{
	struct rpc_client *client = call->client;
	call->state = CALL_FAILED;
	call->failure = code;
	TAILQ_INSERT_TAIL(&client->failed, call, link);
	client->n_failed++;
	loop_defer(client->loop, &client->fail_calls);
}

void rpc_calls_tell_failed(void *arg)
{
	struct rpc_client *client = arg;
	rpc_client_hold(client);
	/* What fails anew in here waits for its own turn. */
	size_t n = client->n_failed;
	struct rpc_call *call;
	while (n-- && (call = TAILQ_FIRST(&client->failed)))
		rpc_call_finish(call, call->failure, span_of(failure_text(call->failure)));
	if (!client->dead && !TAILQ_EMPTY(&client->failed))
		loop_defer(client->loop, &client->fail_calls);
	rpc_client_unhold(client);
}

void rpc_calls_fail_later(struct rpc_client *client, int code)
{
	struct rpc_call *call;
	while ((call = TAILQ_FIRST(&client->calls))) {
		call_unlink(call);
		call_fail_later(call, code);
	}
}

/* ---- timeouts: one timer, armed for the earliest deadline that was known when it was armed ----
 */

static void arm_timeout(struct rpc_client *client, uint64_t deadline_us, uint64_t now_us)
{
	if (client->timeout_us && client->timeout_us <= deadline_us)
		return;
	client->timeout_us = deadline_us;
	timer_arm(client->timeout, deadline_us > now_us ? (deadline_us - now_us + 999) / 1000 : 0);
}

void rpc_calls_timeout(void *arg)
{
	struct rpc_client *client = arg;
	uint64_t now_us = loop_now_us(client->loop), earliest_us = 0;
	client->timeout_us = 0;
	struct rpc_call *call, *next;
	for (call = TAILQ_FIRST(&client->calls); call; call = next) {
		next = TAILQ_NEXT(call, link);
		if (!call->deadline_us)
			continue;
		if (call->deadline_us <= now_us) {
			rpc_connection_put_cancel(client->connection, call->id.id);
			call_unlink(call);
			call_fail_later(call, RPC_TIMEOUT);
		} else if (!earliest_us || call->deadline_us < earliest_us) {
			earliest_us = call->deadline_us;
		}
	}
	if (earliest_us)
		arm_timeout(client, earliest_us, now_us);
}

/* ---- frames ---- */

void rpc_call_got_result(struct rpc_call *call, struct span result)
{
	struct rpc_client *client = call->client;
	if (call->state != CALL_WAITING) {
		rpc_connection_fail(client->connection, "second response to one call");
		return;
	}
	call->state = CALL_STREAMING;
	call->deadline_us = 0;
	if (call->events->on_result) {
		call->in_callback = true;
		call->events->on_result(result, call->arg);
		call->in_callback = false;
		if (call->state == CALL_DEAD) {
			free(call);
			return;
		}
	}
	if (!call->expect_chunks)
		rpc_call_finish(call, 0, (struct span){0});
}

void rpc_call_got_chunk(struct rpc_call *call, const struct rpc_frame *frame)
{
	struct rpc_client *client = call->client;
	if (call->state != CALL_STREAMING) {
		rpc_connection_fail(client->connection, "chunk before its response");
		return;
	}
	if (frame->payload.len > call->receive_credit) {
		rpc_connection_fail(client->connection, "chunk beyond its credit");
		return;
	}
	call->receive_credit -= frame->payload.len;
	if (call->events->on_chunk) {
		call->in_callback = true;
		call->events->on_chunk(frame->payload, frame->end, call->arg);
		call->in_callback = false;
		if (call->state == CALL_DEAD) {
			free(call);
			return;
		}
	}
	if (frame->end)
		rpc_call_finish(call, 0, (struct span){0});
}

void rpc_call_tell_credit(struct rpc_call *call)
{
	uint64_t credit = rpc_call_credit(call);
	if (!credit || call->body_ended || !call->events->on_credit)
		return;
	call->in_callback = true;
	call->events->on_credit(credit, call->arg);
	call->in_callback = false;
	if (call->state == CALL_DEAD)
		free(call);
}

/* ---- calls ---- */

struct rpc_call *rpc_call_start(struct rpc_client *client, const char *method, struct span params,
	uint32_t timeout_ms, const struct rpc_call_events *events, void *arg)
{
	struct span name = span_of(method);
	BUG_ON(name.len > RPC_METHOD_MAX_BYTES || !events->on_done);
	struct rpc_call *call = malloc(sizeof *call);
	if (!call)
		return NULL;
	*call = (struct rpc_call){.client = client,
		.events = events,
		.arg = arg,
		.receive_credit = RPC_ANSWER_CREDIT_BYTES,
		.round = client->round};
	if (!rpc_client_connected(client)) {
		call_fail_later(call, RPC_LOST);
		return call;
	}
	if (client->ids.count >= RPC_MAX_CALLS || params.len > RPC_MAX_PAYLOAD_BYTES ||
		rpc_connection_queued_bytes(client->connection) >
			RPC_SEND_MAX_BYTES - 2 * RPC_MAX_FRAME_BYTES) {
		call_fail_later(
			call, params.len > RPC_MAX_PAYLOAD_BYTES ? RPC_BAD_PARAMS : RPC_BUSY);
		return call;
	}
	do {
		call->id.id = client->next_id++;
	} while (rpc_ids_find(&client->ids, call->id.id));
	if (rpc_ids_add(&client->ids, &call->id) != 0) {
		free(call);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&client->calls, call, link);
	rpc_connection_put_request(client->connection, call->id.id, name, params);
	if (timeout_ms) {
		uint64_t now_us = loop_now_us(client->loop);
		call->deadline_us = now_us + (uint64_t)timeout_ms * 1000;
		arm_timeout(client, call->deadline_us, now_us);
	}
	return call;
}

void rpc_call_expect_chunks(struct rpc_call *call)
{
	call->expect_chunks = true;
}

uint64_t rpc_call_credit(const struct rpc_call *call)
{
	if ((call->state != CALL_WAITING && call->state != CALL_STREAMING) ||
		rpc_connection_congested(call->client->connection))
		return 0;
	return call->send_credit;
}

void rpc_call_send_chunk(struct rpc_call *call, struct slice data, bool end)
{
	if (call->state != CALL_WAITING && call->state != CALL_STREAMING) {
		slice_release(&data);
		return;
	}
	BUG_ON(call->body_ended || data.len_bytes > call->send_credit);
	if (data.len_bytes == 0 && !end) {
		slice_release(&data);
		return;
	}
	call->send_credit -= data.len_bytes;
	call->body_ended = end;
	rpc_connection_put_chunks(call->client->connection, call->id.id, data, end);
}

void rpc_call_give_credit(struct rpc_call *call, uint64_t bytes)
{
	if (!bytes || (call->state != CALL_WAITING && call->state != CALL_STREAMING))
		return;
	call->receive_credit = rpc_credit_add(call->receive_credit, bytes);
	rpc_connection_put_credit(call->client->connection, call->id.id, bytes);
}

void rpc_call_cancel(struct rpc_call **call)
{
	struct rpc_call *c = *call;
	if (!c)
		return;
	*call = NULL;
	if (c->state == CALL_DEAD)
		return;
	if ((c->state == CALL_WAITING || c->state == CALL_STREAMING) && c->client->connection)
		rpc_connection_put_cancel(c->client->connection, c->id.id);
	call_unlink(c);
	if (!c->in_callback)
		free(c);
}
