#ifndef GATEWAYD_EXCHANGE_H
#define GATEWAYD_EXCHANGE_H

/*
 * One request and its answer, whichever way it came: over HTTP (exchange_http) or as RPC `request`
 * from hashd (exchange_rpc). What serves requests sees only this.
 *
 *   on_exchange ──> exchange_accept() ──[exchange_want_body()]──> exchange_respond() or
 * _respond_stream() └──────────── on_abort at any time before the answer is complete
 *
 * The struct belongs to the transport. It is dead once the answer was given (respond), was pulled
 * to its end (stream), or after on_abort. Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/slice.h"
#include "common/span.h"
#include "common/trace_span.h"
#include "gatewayd/cache_object.h"

struct exchange;

struct field {
	const char *name; /* outlives the call */
	struct span value;
};

#define ANSWER_MAX_FIELDS 16

/* Status and fields of an answer. The transport adds what is its own (length, date, connection). */
struct answer_head {
	int status;
	size_t n_fields;
	struct field fields[ANSWER_MAX_FIELDS];
};
void answer_head_add(struct answer_head *head, const char *name, struct span value);
/* The value of the field of that name, any case; empty without one. */
struct span answer_head_field(const struct answer_head *head, const char *name);

struct exchange_ops {
	struct span (*header)(const struct exchange *exchange, const char *name);
	bool (*header_at)(
		const struct exchange *exchange, size_t i, struct span *name, struct span *value);
	void (*want_body)(struct exchange *exchange);
	void (*respond)(
		struct exchange *exchange, const struct answer_head *head, struct slice body);
	/* NULL: respond() with a slice does. */
	void (*respond_object)(struct exchange *exchange, const struct answer_head *head,
		struct cache_object *object, enum cache_form form);
	void (*respond_stream)(
		struct exchange *exchange, const struct answer_head *head, int64_t length);
};

struct exchange_events {
	/* The whole body, taken over by the receiver; after exchange_want_body(), never from inside
	 * it. */
	void (*on_body)(struct slice body, void *arg);
	/*
	 * The next piece of a streamed answer: fill *piece and return true, or return false at the
	 * end. Called when the peer can take more, after exchange_respond_stream().
	 */
	bool (*on_pull)(struct slice *piece, void *arg);
	/* Streaming is complete; or the peer is gone. Nothing may be called on the exchange any
	 * more. */
	void (*on_complete)(void *arg);
	void (*on_abort)(void *arg);
};

struct exchange {
	const struct exchange_ops *ops;
	/* Borrowed until the exchange is over. */
	struct span method, target, path;
	struct span host; /* as the client named it */
	bool has_body;
	uint64_t body_bytes;
	struct digest body_hash; /* SHA-256 of the body (of nothing without one): computed here or
				    by a trusted peer */
	struct trace trace;      /* of this request: the parent of its steps */
	struct trace_span *span; /* or NULL */
	bool answered;           /* it says how */
	uint64_t started_us;
	bool fetch; /* asked by another instance of the pod: see fetch.h */

	const struct exchange_events *events;
	void *arg;
};

/* For the transports: the request has come, and method and path are known; it is dead. */
void exchange_enter(struct exchange *exchange, struct span traceparent, const char *transport);
void exchange_leave(struct exchange *exchange);
/* Its route, for the span. */
void exchange_set_route(struct exchange *exchange, const char *method, const char *path);
/* What the span says of the answer. */
void exchange_note_answer(struct exchange *exchange, const struct answer_head *head);
/* What goes on to others with a step of this request. */
void exchange_trace_context(const struct exchange *exchange, struct trace_context *context);

/* Someone serves this exchange: events fire from now on. */
static inline void exchange_accept(
	struct exchange *exchange, const struct exchange_events *events, void *arg)
{
	exchange->events = events;
	exchange->arg = arg;
}
/* Data is NULL when there is no such field. */
static inline struct span exchange_header(const struct exchange *exchange, const char *name)
{
	return exchange->ops->header(exchange, name);
}
/* Every field that came, as it came: i counts from 0; false behind the last one. */
static inline bool exchange_header_at(
	const struct exchange *exchange, size_t i, struct span *name, struct span *value)
{
	return exchange->ops->header_at(exchange, i, name, value);
}
static inline void exchange_want_body(struct exchange *exchange)
{
	exchange->ops->want_body(exchange);
}
/* Takes the slice. The exchange is dead afterwards; neither on_complete nor on_abort follows. */
static inline void exchange_respond(
	struct exchange *exchange, const struct answer_head *head, struct slice body)
{
	if (exchange->span)
		exchange_note_answer(exchange, head);
	exchange->ops->respond(exchange, head, body);
}
/* The body is a form of an object, which must have it: the way to answer without copying, where the
 * peer can do it. The caller's reference stays its own. */
void exchange_respond_object(struct exchange *exchange, const struct answer_head *head,
	struct cache_object *object, enum cache_form form);
/* length -1: not known beforehand. on_pull follows, then on_complete (or on_abort). */
static inline void exchange_respond_stream(
	struct exchange *exchange, const struct answer_head *head, int64_t length)
{
	if (exchange->span)
		exchange_note_answer(exchange, head);
	exchange->ops->respond_stream(exchange, head, length);
}

#endif
