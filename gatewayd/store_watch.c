/* What is seen of a store at work: the watcher (store.h), and the spans of look-ups and puts. */
#include <stdio.h>
#include <string.h>

#include "gatewayd/store_backend.h"

void store_watch(struct store *store, store_on_ended *on_ended, void *arg)
{
	if (!store->backend->tier) {
		store->on_ended = on_ended;
		store->on_ended_arg = arg;
		return;
	}
	/* What a store is made of is its own, so it may be changed through it. */
	for (unsigned i = 0; store->backend->tier(store, i); i++)
		store_watch((struct store *)store->backend->tier(store, i), on_ended, arg);
}

static void tell(struct store *store, bool put, const char *result, uint64_t began_us)
{
	if (store->on_ended)
		store->on_ended(store->backend->kind, put, result,
			loop_now_us(store->loop) - began_us, store->on_ended_arg);
}

static const char *result_name(const struct store_get *get)
{
	static const char *const names[] = {[STORE_FOUND] = "hit",
		[STORE_LEGACY] = "legacy",
		[STORE_MISS] = "miss",
		[STORE_MISS_BOTH] = "miss",
		[STORE_ERROR] = "error"};
	return get->corrupt ? "corrupt" : names[get->result];
}

/* (OpenTelemetry's conventions for databases) A backend's steps are below this. */
static struct trace_span *begin_span(
	const struct store *store, const char *operation, struct trace *trace)
{
	char name[32];
	const char *kind = store->backend->kind;
	snprintf(name, sizeof name, "%s %s", operation, kind);
	struct trace_span *span = trace_span_begin(trace, trace, TRACE_SPAN_CLIENT, span_of(name));
	trace_span_text(span, "db.system.name", kind);
	trace_span_text(span, "db.operation.name", operation);
	return span;
}

void store_get_began(struct store_get *get)
{
	get->began_us = loop_now_us(get->store->loop);
	get->span = begin_span(get->store, "get", &get->trace);
}

void store_get_seen(struct store_get *get)
{
	if (!get->abandoned)
		tell(get->store, false, result_name(get), get->began_us);
	if (!get->span)
		return;
	trace_span_text(
		get->span, "gateway.store.result", get->abandoned ? "abandoned" : result_name(get));
	if (get->result == STORE_ERROR && !get->abandoned)
		trace_span_fail(
			get->span, "store_error", get->reason ? get->reason : strerror(get->error));
	trace_span_end(&get->span);
}

/* One span for all attempts. */
void store_put_began(struct store_put *put)
{
	put->began_us = loop_now_us(put->store->loop);
	if (put->has_trace && !put->span)
		put->span = begin_span(put->store, "put", &put->trace);
}

void store_put_over(struct store_put *put)
{
	trace_span_text(put->span, "gateway.store.result", put->error ? "given_up" : "stored");
	trace_span_int(put->span, "gateway.store.attempts", put->attempts + !put->error);
	if (put->error)
		trace_span_fail(
			put->span, "store_error", put->reason ? put->reason : strerror(put->error));
	trace_span_end(&put->span);
}

void store_put_seen(const struct store_put *put)
{
	tell(put->store, true, put->error ? "failed" : "stored", put->began_us);
}
