#include "common/rpc_server_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"

/* ---- one request ---- */

static void request_unlink(struct rpc_request *request)
{
	struct rpc_asker *asker = request->asker;
	request->dead = true;
	rpc_metrics_ended(request);
	rpc_ids_remove(&asker->ids, &request->id);
	TAILQ_REMOVE(&asker->requests, request, link);
	if (asker->server)
		asker->server->n_requests--;
}

/* The one place that ends a request. Whoever is in one of its callbacks frees it. */
static void request_end(struct rpc_request *request)
{
	request_unlink(request);
	if (!request->in_callback)
		free(request);
}

static void leave_callback(struct rpc_request *request)
{
	if (--request->in_callback == 0 && request->dead)
		free(request);
}

void rpc_request_cancelled(struct rpc_request *request)
{
	request->in_callback++;
	request->code = RPC_CANCELLED;
	request_unlink(request);
	if (request->events && request->events->on_cancel)
		request->events->on_cancel(request->arg);
	leave_callback(request);
}

void rpc_request_tell_credit(struct rpc_request *request)
{
	uint64_t credit = rpc_request_credit(request);
	if (!credit || !request->streaming || !request->events || !request->events->on_credit)
		return;
	request->in_callback++;
	request->events->on_credit(credit, request->arg);
	leave_callback(request);
}

void rpc_request_got_chunk(struct rpc_request *request, const struct rpc_frame *frame)
{
	if (request->body_ended) {
		rpc_connection_fail(request->asker->connection, "chunk after the last one");
		return;
	}
	if (frame->payload.len > request->receive_credit) {
		rpc_connection_fail(request->asker->connection, "chunk beyond its credit");
		return;
	}
	request->receive_credit -= frame->payload.len;
	request->body_ended = frame->end;
	if (!request->events || !request->events->on_chunk)
		return;
	request->in_callback++;
	request->events->on_chunk(frame->payload, frame->end, request->arg);
	leave_callback(request);
}

static void put_refusal(struct rpc_asker *asker, uint32_t id, int code, const char *sentence)
{
	rpc_connection_put_error(asker->connection, id, code, span_of(sentence));
}

void rpc_request_serve(struct rpc_asker *asker, const struct rpc_frame *frame)
{
	if (rpc_ids_find(&asker->ids, frame->id)) {
		rpc_connection_fail(asker->connection, "request with an id that is under way");
		return;
	}
	bool first = !asker->spoke;
	asker->spoke = true;
	const struct method_entry *entry = rpc_server_find(asker->server, frame->method);
	if (!entry) {
		rpc_metrics_unknown_method(asker->server);
		char text[RPC_METHOD_MAX_BYTES + 32];
		int len = (int)(frame->method.len > RPC_METHOD_MAX_BYTES ? RPC_METHOD_MAX_BYTES
									 : frame->method.len);
		snprintf(text, sizeof text, "no method \"%.*s\"", len, frame->method.data);
		put_refusal(asker, frame->id, RPC_NO_METHOD, text);
		return;
	}
	if (asker->ids.count >= RPC_MAX_CALLS) {
		put_refusal(asker, frame->id, RPC_BUSY, "too many requests under way");
		return;
	}
	struct rpc_request *request = malloc(sizeof *request);
	if (!request) {
		put_refusal(asker, frame->id, RPC_BUSY, "out of memory");
		return;
	}
	const struct rpc_method *method = entry->method;
	*request = (struct rpc_request){.id.id = frame->id,
		.asker = asker,
		.method = method,
		.method_index = (size_t)(entry - asker->server->methods),
		.send_credit = RPC_ANSWER_CREDIT_BYTES,
		.round = asker->round,
		.in_callback = 1,
		.first = first};
	if (rpc_ids_add(&asker->ids, &request->id) != 0) {
		free(request);
		put_refusal(asker, frame->id, RPC_BUSY, "out of memory");
		return;
	}
	TAILQ_INSERT_TAIL(&asker->requests, request, link);
	asker->server->n_requests++;
	rpc_metrics_began(request);
	method->serve(request, frame->payload, method->arg);
	/* serve() must answer, or keep the request with rpc_request_accept(). */
	BUG_ON(!request->dead && !request->events);
	leave_callback(request);
}

/* ---- what a method does with its request ---- */

void rpc_request_accept(
	struct rpc_request *request, const struct rpc_request_events *events, void *arg)
{
	static const struct rpc_request_events none;
	request->events = events ? events : &none;
	request->arg = arg;
}

const struct rpc_peer *rpc_request_peer(const struct rpc_request *request)
{
	return &request->asker->peer;
}

const char *rpc_request_method(const struct rpc_request *request)
{
	return request->method->name;
}

void rpc_request_give_credit(struct rpc_request *request, uint64_t bytes)
{
	if (!bytes || request->body_ended)
		return;
	request->receive_credit = rpc_credit_add(request->receive_credit, bytes);
	rpc_connection_put_credit(request->asker->connection, request->id.id, bytes);
}

/* The result goes out, if a frame can hold it; else the asker hears why. */
static int put_result(struct rpc_request *request, struct span result)
{
	if (result.len <= RPC_MAX_PAYLOAD_BYTES) {
		rpc_connection_put_result(request->asker->connection, request->id.id, result);
		return 0;
	}
	log_error("rpc: answer to %s is %zu bytes, over the limit", request->method->name,
		result.len);
	put_refusal(request->asker, request->id.id, RPC_FAILED, "answer over the frame limit");
	request->code = RPC_FAILED;
	return -1;
}

void rpc_request_reply(struct rpc_request *request, struct span result)
{
	BUG_ON(request->dead || request->streaming);
	(void)put_result(request, result);
	request_end(request);
}

void rpc_request_fail(struct rpc_request *request, int code, const char *fmt, ...)
{
	BUG_ON(request->dead || request->streaming || code <= 0 || code >= RPC_LOST);
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	put_refusal(request->asker, request->id.id, code, text);
	request->code = code;
	request_end(request);
}

int rpc_request_reply_start(struct rpc_request *request, struct span result)
{
	BUG_ON(request->dead || request->streaming);
	if (put_result(request, result) != 0) {
		request_end(request);
		return -1;
	}
	request->streaming = true;
	return 0;
}

uint64_t rpc_request_credit(const struct rpc_request *request)
{
	return rpc_connection_congested(request->asker->connection) ? 0 : request->send_credit;
}

void rpc_request_send_chunk(struct rpc_request *request, struct slice data, bool end)
{
	BUG_ON(request->dead || !request->streaming || data.len_bytes > request->send_credit);
	if (data.len_bytes == 0 && !end) {
		slice_release(&data);
		return;
	}
	request->send_credit -= data.len_bytes;
	struct rpc_connection *connection = request->asker->connection;
	uint32_t id = request->id.id;
	if (end)
		request_end(request);
	rpc_connection_put_chunks(connection, id, data, end);
}

void rpc_request_abort(struct rpc_request *request)
{
	BUG_ON(request->dead);
	if (request->streaming)
		rpc_connection_put_cancel(request->asker->connection, request->id.id);
	else
		put_refusal(request->asker, request->id.id, RPC_CANCELLED, "given up");
	request->code = RPC_CANCELLED;
	request_end(request);
}

/* ---- a peer beyond one request ---- */

struct rpc_asker *rpc_request_asker(const struct rpc_request *request)
{
	return request->asker;
}

bool rpc_request_is_first(const struct rpc_request *request)
{
	return request->first;
}

void rpc_request_reply_descriptor(struct rpc_request *request, struct span result, int fd)
{
	BUG_ON(request->dead || request->streaming || !request->first);
	rpc_connection_put_descriptor(request->asker->connection, request->id.id, result, fd);
	request_end(request);
}
