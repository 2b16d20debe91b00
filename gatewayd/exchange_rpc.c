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
#include "gatewayd/rpc_peer.h"

/* A streamed answer gives way to others after so much. */
#define PULL_BYTES        (128u << 10)
#define PULL_US           (LOOP_SLICE_US / 4)
#define BODY_CREDIT_BYTES (256u << 10)

/* A smaller body is cheaper to copy. */
#define LEASE_MIN_BYTES 2048

TAILQ_HEAD(holder_list, rpc_entry); /* oldest first */

struct exchange_rpc {
	struct loop *loop;
	size_t max_body_bytes;
	void (*on_exchange)(struct exchange *exchange, void *arg);
	void *arg;
	struct leases *leases;
	struct rpc_peers *peers;
	struct holder_list holders; /* those with a piece of an answer, and what they stream */
	struct deferred reset_later;
	struct rpc_method methods[4];
	bool draining;
};

struct rpc_entry {
	struct exchange exchange; /* first */
	struct exchange_rpc *listener;
	struct rpc_request *request;
	char *bytes; /* the packed params: all spans point in here */
	struct msg_request_params params;

	struct rpc_peer *peer;
	size_t params_bytes;
	struct rpc_peer_body *room; /* for the body; until it is complete */
	struct buf body;
	struct digest_state *sum; /* of a body in chunks */
	bool hashed;              /* body_hash is what the body has */
	bool body_first;          /* no hash came: read the body, hash it, then begin */

	struct shared_slice *piece; /* of the answer, going out in several chunks */
	size_t piece_sent;
	bool streaming; /* pieces come from on_pull */
	bool borrows;   /* the piece is lent by the cache */
	bool holds;     /* in the listener's list */
	TAILQ_ENTRY(rpc_entry) holder;
	struct deferred later;
};

static void drop_piece(struct rpc_entry *entry)
{
	if (entry->piece && !entry->borrows)
		rpc_peer_answer_less(entry->peer, entry->piece->slice.len_bytes);
	shared_slice_unref(entry->piece);
	entry->piece = NULL;
}

static void entry_free(struct rpc_entry *entry)
{
	loop_defer_cancel(entry->listener->loop, &entry->later);
	if (entry->holds)
		TAILQ_REMOVE(&entry->listener->holders, entry, holder);
	drop_piece(entry);
	rpc_peer_body_free(&entry->room);
	rpc_peer_leave(entry->peer, entry->params_bytes);
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
	log_fields(LOG_LEVEL_WARN, TRACE_TEXT(&exchange->trace), "rpc: request refused",
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
	struct slice body = entry->room ? rpc_peer_body_take(&entry->room, data, len)
					: slice_reclaimed(entry->listener->loop, data, len);
	exchange->events->on_body(body, exchange->arg);
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

static void on_room(void *arg)
{
	struct rpc_entry *entry = arg;
	rpc_request_give_credit(entry->request, BODY_CREDIT_BYTES);
}

/* Out of memory: told later, as everything is. */
static void on_no_room(void *arg)
{
	refuse(arg, RPC_BUSY, "body: memory is short");
}

static void entry_want_body(struct exchange *exchange)
{
	struct rpc_entry *entry = (struct rpc_entry *)exchange;
	if (entry->params.chunked && entry->body.len < entry->params.body_bytes) {
		entry->room = rpc_peer_body_new(
			entry->peer, (size_t)entry->params.body_bytes, on_room, entry);
		if (!entry->room) {
			deferred_init(&entry->later, on_no_room, entry);
			loop_defer(entry->listener->loop, &entry->later);
		} else if (rpc_peer_body_has_room(entry->room)) {
			on_room(entry);
		}
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
	if (!entry->piece)
		return -1;
	if (!entry->holds) {
		entry->holds = true;
		TAILQ_INSERT_TAIL(&entry->listener->holders, entry, holder);
	}
	if (!entry->borrows)
		rpc_peer_answer_more(entry->peer, entry->piece->slice.len_bytes);
	if (rpc_peer_answers_too_much(entry->peer))
		loop_defer(entry->listener->loop, &entry->listener->reset_later);
	return 0;
}

/* The next piece to send; false at the end. */
static bool next_piece(struct rpc_entry *entry)
{
	drop_piece(entry);
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

/* Its answer is one too many, if its peer does not take it. */
static bool in_the_way(const struct rpc_entry *entry)
{
	return entry->borrows ? leases_overdrawn(entry->listener->leases)
			      : rpc_peer_answers_too_much(entry->peer);
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
		if (credit == 0) {
			if (in_the_way(entry))
				loop_defer(loop, &entry->listener->reset_later);
			return; /* on_credit goes on */
		}
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

/* Lent far too much, or held for one peer: the oldest answers that wait for their peer make room.
 */
static void reset_slow(void *arg)
{
	struct exchange_rpc *listener = arg;
	struct rpc_entry *entry, *next;
	for (entry = TAILQ_FIRST(&listener->holders); entry; entry = next) {
		next = TAILQ_NEXT(entry, holder);
		if (!in_the_way(entry) || !entry->piece || rpc_request_credit(entry->request) > 0)
			continue;
		log_fields(LOG_LEVEL_WARN, TRACE_TEXT(&entry->exchange.trace),
			"rpc: a slow answer is given up: too much waits to be sent",
			LOG_SPAN("client", entry->params.client));
		leases_count_reset(listener->leases);
		rpc_request_abort(entry->request);
		on_cancel(entry);
		next = TAILQ_FIRST(&listener->holders); /* who else went with it is not known */
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
	entry->borrows = true;
	entry_respond(exchange, head, body);
	if (leases_overdrawn(listener->leases))
		loop_defer(listener->loop, &listener->reset_later);
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
	memset(&entry->peer, 0, sizeof *entry - offsetof(struct rpc_entry, peer));
	entry->listener = listener;
	entry->request = request;
	entry->bytes = bytes;
	if (msg_request_serve_params(request, (struct span){bytes, packed.len}, &entry->params) <
		0) {
		free(bytes);
		free(entry);
		return;
	}
	entry->peer = rpc_peer_enter(listener->peers, rpc_request_asker(request), packed.len);
	if (!entry->peer) {
		rpc_request_fail(request, RPC_BUSY, "too many bytes of requests under way");
		free(bytes);
		free(entry);
		return;
	}
	entry->params_bytes = packed.len;
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
	TAILQ_INIT(&listener->holders);
	deferred_init(&listener->reset_later, reset_slow, listener);
	listener->peers = rpc_peers_new(loop, max_body_bytes);
	if (!listener->peers) {
		free(listener);
		return NULL;
	}
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

void exchange_rpc_free(struct exchange_rpc **listener_)
{
	struct exchange_rpc *listener = *listener_;
	if (!listener)
		return;
	*listener_ = NULL;
	loop_defer_cancel(listener->loop, &listener->reset_later);
	rpc_peers_free(&listener->peers);
	free(listener);
}
