#include "gatewayd/exchange_rpc.h"

#include <stddef.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "common/buf.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/messages.h"
#include "common/reclaim.h"
#include "common/rpc.h"
#include "gatewayd/lease.h"

/* A streamed answer gives way to others after so much. */
#define PULL_BYTES        (128u << 10)
#define PULL_US           (LOOP_SLICE_US / 4)
#define BODY_CREDIT_BYTES (256u << 10)

/* A smaller body is cheaper to copy. */
#define LEASE_MIN_BYTES 2048

TAILQ_HEAD(borrower_list, rpc_entry); /* oldest first */

struct exchange_rpc {
	struct loop *loop;
	size_t max_body_bytes;
	void (*on_exchange)(struct exchange *exchange, void *arg);
	void *arg;
	struct leases *leases;
	struct borrower_list borrowers;
	struct rpc_method methods[4];
	bool draining;
};

struct rpc_entry {
	struct exchange exchange; /* first */
	struct exchange_rpc *listener;
	struct rpc_request *request;
	char *bytes; /* the packed params: all spans point in here */
	struct msg_request_params params;

	struct buf body;
	struct digest_state *sum; /* of a body in chunks */
	bool hashed;              /* body_hash is what the body has */
	bool body_first;          /* no hash came: read the body, hash it, then begin */

	struct shared_slice *piece; /* of the answer, going out in several chunks */
	size_t piece_sent;
	bool streaming; /* pieces come from on_pull */
	bool borrows;   /* the piece is lent by the cache: in the listener's list */
	TAILQ_ENTRY(rpc_entry) borrower;
	struct deferred later;
};

static void entry_free(struct rpc_entry *entry)
{
	loop_defer_cancel(entry->listener->loop, &entry->later);
	if (entry->borrows)
		TAILQ_REMOVE(&entry->listener->borrowers, entry, borrower);
	shared_slice_unref(entry->piece);
	reclaim_buf(entry->listener->loop, &entry->body);
	digest_free(&entry->sum);
	exchange_leave(&entry->exchange);
	free(entry->bytes);
	free(entry);
}

/* ---- The body ---- */

static void begin(struct rpc_entry *entry)
{
	entry->listener->on_exchange(&entry->exchange, entry->listener->arg);
}

static void refuse(struct rpc_entry *entry, int code, const char *why)
{
	struct exchange *exchange = &entry->exchange;
	const struct exchange_events *events = exchange->events;
	void *arg = exchange->arg;
	log_fields(LOG_LEVEL_WARN, EXCHANGE_TRACE_TEXT(exchange), "rpc: request refused",
		LOG_STR("reason", why));
	rpc_request_fail(entry->request, code, "%s", why);
	entry_free(entry);
	if (events)
		events->on_abort(arg);
}

static void body_complete(struct rpc_entry *entry)
{
	struct exchange *exchange = &entry->exchange;
	if (!entry->hashed) {
		struct digest digest = entry->sum
					       ? digest_final(entry->sum)
					       : digest_of((struct span){(char *)entry->body.data,
							 entry->body.len});
		entry->hashed = true;
		if (entry->body_first) {
			exchange->body_hash = digest;
			entry->body_first = false;
			begin(entry);
			return;
		}
		if (!digest_equal(&digest, &exchange->body_hash)) {
			refuse(entry, RPC_BAD_PARAMS, "body_hash: not the hash of the body");
			return;
		}
	}
	size_t len = 0;
	void *data = buf_take(&entry->body, &len);
	exchange->events->on_body(slice_reclaimed(entry->listener->loop, data, len), exchange->arg);
}

static void on_body_complete(void *arg)
{
	body_complete(arg);
}

static void on_chunk(struct span data, bool end, void *arg)
{
	struct rpc_entry *entry = arg;
	if (buf_append(&entry->body, data.data, data.len) < 0) {
		refuse(entry, RPC_BAD_PARAMS, "body_bytes: the body is longer, or memory is short");
		return;
	}
	/* Hashed as it comes: a large one at its end would keep the loop. */
	if (!entry->sum && !(entry->sum = digest_new())) {
		refuse(entry, RPC_BAD_PARAMS, "body: memory is short");
		return;
	}
	digest_update(entry->sum, data);
	if (end) {
		if (entry->body.len != entry->params.body_bytes)
			refuse(entry, RPC_BAD_PARAMS, "body_bytes: the body is shorter");
		else
			body_complete(entry);
		return;
	}
	rpc_request_give_credit(entry->request, data.len);
}

static void entry_want_body(struct exchange *exchange)
{
	struct rpc_entry *entry = (struct rpc_entry *)exchange;
	if (entry->params.chunked && entry->body.len < entry->params.body_bytes) {
		rpc_request_give_credit(entry->request, BODY_CREDIT_BYTES);
		return;
	}
	if (!entry->params.chunked)
		buf_append(&entry->body, entry->params.body.data, entry->params.body.len);
	deferred_init(&entry->later, on_body_complete, entry);
	loop_defer(entry->listener->loop, &entry->later);
}

/* ---- The answer ---- */

static struct span entry_header(const struct exchange *exchange, const char *name)
{
	const struct rpc_entry *entry = (const struct rpc_entry *)exchange;
	const struct msg_headers *headers = &entry->params.headers;
	for (size_t i = 0; i < headers->count; i++)
		if (span_equal_nocase(headers->items[i].name, name))
			return headers->items[i].value;
	return (struct span){0};
}

static bool entry_header_at(
	const struct exchange *exchange, size_t i, struct span *name, struct span *value)
{
	const struct rpc_entry *entry = (const struct rpc_entry *)exchange;
	const struct msg_headers *headers = &entry->params.headers;
	if (i >= headers->count)
		return false;
	*name = headers->items[i].name;
	*value = headers->items[i].value;
	return true;
}

static void fill_result(const struct answer_head *head, struct msg_request_result *result)
{
	result->status = (uint64_t)head->status;
	result->headers.count = head->n_fields;
	for (size_t i = 0; i < head->n_fields; i++)
		result->headers.items[i] = (struct msg_header){
			span_of(head->fields[i].name), head->fields[i].value};
	result->body = (struct span){0};
	result->chunked = false;
	result->body_bytes = 0;
	result->lease = result->offset = result->length = 0;
}

static int hold_piece(struct rpc_entry *entry, struct slice *piece)
{
	entry->piece = shared_slice_new(*piece);
	entry->piece_sent = 0;
	return entry->piece ? 0 : -1;
}

/* The next piece to send; false at the end. */
static bool next_piece(struct rpc_entry *entry)
{
	shared_slice_unref(entry->piece);
	entry->piece = NULL;
	struct slice piece = {0};
	if (!entry->streaming)
		return false;
	do {
		if (!entry->exchange.events->on_pull(&piece, entry->exchange.arg))
			return false;
	} while (piece.len_bytes == 0);
	if (hold_piece(entry, &piece) < 0) {
		rpc_request_abort(entry->request);
		entry->request = NULL;
		return false;
	}
	return true;
}

static void complete(struct rpc_entry *entry)
{
	struct exchange *exchange = &entry->exchange;
	const struct exchange_events *events = entry->streaming ? exchange->events : NULL;
	void *arg = exchange->arg;
	if (entry->request)
		rpc_request_send_chunk(entry->request, (struct slice){0}, true);
	entry_free(entry);
	if (events)
		events->on_complete(arg);
}

static void on_cancel(void *arg)
{
	struct rpc_entry *entry = arg;
	const struct exchange_events *events = entry->exchange.events;
	void *events_arg = entry->exchange.arg;
	entry_free(entry);
	if (events)
		events->on_abort(events_arg);
}

/* Send as much as credit and fairness allow. */
static void pump(void *arg)
{
	struct rpc_entry *entry = arg;
	if (!entry->request) {
		on_cancel(entry);
		return;
	}
	struct loop *loop = entry->listener->loop;
	uint64_t until_us = loop_now_us(loop) + PULL_US;
	for (size_t sent = 0; sent < PULL_BYTES && loop_now_us(loop) < until_us;) {
		if (!entry->piece || entry->piece_sent == entry->piece->slice.len_bytes) {
			if (!next_piece(entry)) {
				complete(entry);
				return;
			}
		}
		struct shared_slice *piece = entry->piece;
		size_t n = piece->slice.len_bytes - entry->piece_sent;
		uint64_t credit = rpc_request_credit(entry->request);
		if (credit == 0)
			return; /* on_credit goes on */
		if (n > RPC_CHUNK_BYTES)
			n = RPC_CHUNK_BYTES;
		if (n > credit)
			n = (size_t)credit;
		rpc_request_send_chunk(entry->request,
			(struct slice){
				.data = (const char *)piece->slice.data + entry->piece_sent,
				.len_bytes = n,
				.release = shared_slice_unref,
				.owner = shared_slice_ref(piece),
			},
			false);
		entry->piece_sent += n;
		sent += n;
	}
	loop_queue(loop, &entry->later);
}

static void on_credit(uint64_t credit_bytes, void *arg)
{
	(void)credit_bytes;
	struct rpc_entry *entry = arg;
	if (entry->piece || entry->streaming)
		loop_queue(entry->listener->loop, &entry->later);
}

static int start_stream(
	struct rpc_entry *entry, const struct answer_head *head, int64_t length_bytes)
{
	struct msg_request_result result;
	fill_result(head, &result);
	result.chunked = true;
	result.body_bytes = length_bytes;
	deferred_init(&entry->later, pump, entry);
	return msg_request_reply_start(entry->request, &result);
}

static void entry_respond(
	struct exchange *exchange, const struct answer_head *head, struct slice body)
{
	struct rpc_entry *entry = (struct rpc_entry *)exchange;
	if (body.len_bytes <= RPC_INLINE_BODY_BYTES) {
		struct msg_request_result result;
		fill_result(head, &result);
		result.body = (struct span){body.data, body.len_bytes};
		msg_request_reply(entry->request, &result);
		slice_release(&body);
		entry_free(entry);
		return;
	}
	exchange->events = NULL; /* from here on it is ours alone */
	if (start_stream(entry, head, (int64_t)body.len_bytes) < 0) {
		slice_release(&body);
		entry_free(entry);
		return;
	}
	if (hold_piece(entry, &body) < 0) {
		rpc_request_abort(entry->request);
		entry_free(entry);
		return;
	}
	pump(entry);
}

/* Lent far too much: the oldest answers that wait for their peer make room. */
static void reset_slow(struct exchange_rpc *listener)
{
	struct rpc_entry *entry, *next;
	for (entry = TAILQ_FIRST(&listener->borrowers); entry && leases_overdrawn(listener->leases);
		entry = next) {
		next = TAILQ_NEXT(entry, borrower);
		if (rpc_request_credit(entry->request) > 0)
			continue;
		log_fields(LOG_LEVEL_WARN, EXCHANGE_TRACE_TEXT(&entry->exchange),
			"rpc: a slow answer is given up: too much of the cache is being sent",
			LOG_SPAN("client", entry->params.client));
		leases_count_reset(listener->leases);
		rpc_request_abort(entry->request);
		entry_free(entry);
	}
}

static void entry_respond_object(struct exchange *exchange, const struct answer_head *head,
	struct cache_object *object, enum cache_form form)
{
	struct rpc_entry *entry = (struct rpc_entry *)exchange;
	struct exchange_rpc *listener = entry->listener;
	struct slice body = {0};
	struct lease lease;
	BUG_ON(!cache_object_lend_slice(object, form, &body));
	if (body.len_bytes >= LEASE_MIN_BYTES &&
		lease_grant(entry->request, object, form, &lease)) {
		struct msg_request_result result;
		fill_result(head, &result);
		result.lease = lease.id;
		result.offset = lease.offset;
		result.length = lease.length_bytes;
		slice_release(&body);
		msg_request_reply(entry->request, &result);
		entry_free(entry);
		return;
	}
	if (body.len_bytes > RPC_INLINE_BODY_BYTES) {
		entry->borrows = true;
		TAILQ_INSERT_TAIL(&listener->borrowers, entry, borrower);
	}
	entry_respond(exchange, head, body);
	reset_slow(listener);
}

static void entry_respond_stream(
	struct exchange *exchange, const struct answer_head *head, int64_t length_bytes)
{
	struct rpc_entry *entry = (struct rpc_entry *)exchange;
	entry->streaming = true;
	if (start_stream(entry, head, length_bytes) < 0)
		entry->request = NULL; /* the first pull finds it so and ends */
	loop_defer(entry->listener->loop, &entry->later);
}

static const struct exchange_ops rpc_ops = {
	.header = entry_header,
	.header_at = entry_header_at,
	.want_body = entry_want_body,
	.respond = entry_respond,
	.respond_object = entry_respond_object,
	.respond_stream = entry_respond_stream,
};

/* ---- The request ---- */

static const struct rpc_request_events request_events = {
	.on_chunk = on_chunk,
	.on_credit = on_credit,
	.on_cancel = on_cancel,
};

static struct span path_of(struct span target)
{
	const char *query = memchr(target.data, '?', target.len);
	return (struct span){target.data, query ? (size_t)(query - target.data) : target.len};
}

static void fill_exchange(struct rpc_entry *entry)
{
	struct exchange *exchange = &entry->exchange;
	const struct msg_request_params *params = &entry->params;
	exchange->ops = &rpc_ops;
	exchange->method = params->method;
	exchange->target = params->target;
	exchange->path = path_of(params->target);
	exchange->host = entry_header(exchange, "x-original-host");
	if (!exchange->host.data)
		exchange->host = entry_header(exchange, "host");
	exchange->body_bytes = params->chunked ? params->body_bytes : params->body.len;
	exchange->has_body = exchange->body_bytes > 0;
	exchange->started_us = loop_now_us(entry->listener->loop);
	exchange_enter(exchange, params->trace, "unix");
}

static void serve(
	struct exchange_rpc *listener, struct rpc_request *request, struct span packed, bool fetch)
{
	struct rpc_entry *entry = malloc(sizeof *entry);
	char *bytes = malloc(packed.len);
	if (!entry || !bytes) {
		free(entry);
		free(bytes);
		rpc_request_fail(request, RPC_FAILED, "out of memory");
		return;
	}
	memcpy(bytes, packed.data, packed.len);
	/* Not the params: they have room for 128 fields, and unpacking sets what is used. */
	memset(entry, 0, offsetof(struct rpc_entry, params));
	memset(&entry->body, 0, sizeof *entry - offsetof(struct rpc_entry, body));
	entry->listener = listener;
	entry->request = request;
	entry->bytes = bytes;
	if (msg_request_serve_params(request, (struct span){bytes, packed.len}, &entry->params) <
		0) {
		free(bytes);
		free(entry);
		return;
	}
	fill_exchange(entry);
	struct exchange *exchange = &entry->exchange;
	exchange->fetch = fetch;
	if (exchange->body_bytes > listener->max_body_bytes) {
		rpc_request_fail(request, RPC_BAD_PARAMS, "body_bytes: over the limit of %zu",
			listener->max_body_bytes);
		entry_free(entry);
		return;
	}
	buf_init(&entry->body, (size_t)exchange->body_bytes);
	rpc_request_accept(request, &request_events, entry);
	if (entry->params.body_hash.len == 0 && exchange->has_body) {
		entry->body_first = true;
		entry_want_body(exchange);
		return;
	}
	if (entry->params.body_hash.len == 0)
		exchange->body_hash = digest_of((struct span){0});
	else if (digest_parse_hex(entry->params.body_hash, &exchange->body_hash) < 0) {
		refuse(entry, RPC_BAD_PARAMS, "body_hash: not 64 hexadecimal digits");
		return;
	}
	begin(entry);
}

static void serve_request(struct rpc_request *request, struct span packed, void *arg)
{
	serve(arg, request, packed, false);
}

static void serve_fetch(struct rpc_request *request, struct span packed, void *arg)
{
	struct exchange_rpc *listener = arg;
	if (listener->draining)
		rpc_request_fail(request, RPC_BUSY, "about to stop");
	else
		serve(listener, request, packed, true);
}

void exchange_rpc_drain(struct exchange_rpc *listener)
{
	listener->draining = true;
}

struct exchange_rpc *exchange_rpc_new(struct loop *loop, struct leases *leases,
	size_t max_body_bytes, void (*on_exchange)(struct exchange *exchange, void *arg), void *arg)
{
	struct exchange_rpc *listener = calloc(1, sizeof *listener);
	if (!listener)
		return NULL;
	listener->loop = loop;
	listener->leases = leases;
	TAILQ_INIT(&listener->borrowers);
	listener->max_body_bytes = max_body_bytes;
	listener->on_exchange = on_exchange;
	listener->arg = arg;
	listener->methods[0] = (struct rpc_method){
		.name = "request", .serve = serve_request, .arg = listener};
	listener->methods[1] = (struct rpc_method){
		.name = "attach", .serve = leases_serve_attach, .arg = leases};
	listener->methods[2] = (struct rpc_method){
		.name = "fetch", .serve = serve_fetch, .arg = listener};
	return listener;
}

const struct rpc_method *exchange_rpc_methods(const struct exchange_rpc *listener)
{
	return listener->methods;
}

void exchange_rpc_free(struct exchange_rpc **listener)
{
	free(*listener);
	*listener = NULL;
}
