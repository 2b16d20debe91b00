#include "gatewayd/exchange_http.h"

#include <stdlib.h>
#include <string.h>

#include "common/access_log.h"
#include "common/body.h"
#include "common/daemon.h"
#include "common/health.h"
#include "common/loop.h"

/* A streamed answer gives way to others after so much. */
#define PULL_BYTES (128u << 10)
#define PULL_US    (LOOP_SLICE_US / 4)

struct exchange_http {
	struct daemon *daemon;
	struct http_server *server;
	struct bodies *bodies;
	struct access_log access_log;
	void (*on_exchange)(struct exchange *exchange, void *arg);
	void *arg;
};

/* It is served until the answer is given or the client has left, and kept for the access log until
 * on_finished, which can come from within the call that gives the answer. */
struct http_entry {
	struct exchange exchange; /* first */
	struct exchange_http *listener;
	struct http_exchange *http;
	struct body *body;     /* NULL without one */
	struct deferred later; /* hands the body over, or goes on pulling */
	bool hashed, aborted;
	char cache[16]; /* the answer's X-Cache */
};

static void entry_leave(struct http_entry *entry)
{
	loop_defer_cancel(daemon_loop(entry->listener->daemon), &entry->later);
	body_unref(&entry->body);
	exchange_leave(&entry->exchange);
}

/* ---- What the server tells us ---- */

static void refuse_for_memory(struct http_entry *entry)
{
	struct buf lines = BUF_INIT(256);
	http_header_add(&lines, "retry-after", SPAN_LITERAL("1"));
	entry_leave(entry);
	http_exchange_respond(
		entry->http, 503, (struct span){(char *)lines.data, lines.len}, NULL, 0);
	buf_free(&lines);
}

static void on_body(struct span data, void *arg)
{
	struct http_entry *entry = arg;
	enum body_flow flow;
	/* The server's limit is that of bodies: only memory can be short. */
	if (body_append(entry->body, data, &flow) < 0)
		refuse_for_memory(entry);
	else if (flow == BODY_STOP_READING)
		http_exchange_pause(entry->http);
}

static void read_on(void *arg)
{
	struct http_entry *entry = arg;
	http_exchange_resume(entry->http);
}

static void on_late(void *arg)
{
	struct http_entry *entry = arg;
	http_exchange_time_out(entry->http);
}

static const struct body_events body_events = {.on_read_on = read_on, .on_late = on_late};

static void on_body_end(void *arg)
{
	struct http_entry *entry = arg;
	struct exchange *exchange = &entry->exchange;
	if (entry->body) {
		body_finish(entry->body);
		exchange->has_body = true;
		exchange->body_bytes = body_bytes(entry->body).len;
		exchange->body_hash = *body_digest(entry->body);
	} else {
		exchange->body_hash = digest_of((struct span){"", 0});
	}
	entry->hashed = true;
	entry->listener->on_exchange(exchange, entry->listener->arg);
}

static void pull(void *arg)
{
	struct http_entry *entry = arg;
	struct exchange *exchange = &entry->exchange;
	struct loop *loop = daemon_loop(entry->listener->daemon);
	uint64_t until_us = loop_now_us(loop) + PULL_US;
	struct slice piece = {0};
	for (size_t sent = 0; sent < PULL_BYTES && loop_now_us(loop) < until_us;) {
		if (!exchange->events->on_pull(&piece, exchange->arg)) {
			const struct exchange_events *events = exchange->events;
			void *events_arg = exchange->arg;
			entry_leave(entry);
			http_exchange_end(entry->http);
			events->on_complete(events_arg);
			return;
		}
		sent += piece.len_bytes;
		if (!http_exchange_send(entry->http, piece))
			return; /* on_drain goes on */
	}
	loop_queue(loop, &entry->later);
}

static void on_abort(void *arg)
{
	struct http_entry *entry = arg;
	const struct exchange_events *events = entry->exchange.events;
	void *events_arg = entry->exchange.arg;
	entry->aborted = true;
	entry_leave(entry);
	if (events)
		events->on_abort(events_arg);
}

static const struct http_exchange_events http_events = {
	.on_body = on_body,
	.on_body_end = on_body_end,
	.on_drain = pull,
	.on_abort = on_abort,
};

/* ---- What the one who serves asks of us ---- */

static struct span entry_header(const struct exchange *exchange, const char *name)
{
	const struct http_entry *entry = (const struct http_entry *)exchange;
	return http_exchange_header(entry->http, name);
}

static bool entry_header_at(
	const struct exchange *exchange, size_t i, struct span *name, struct span *value)
{
	const struct http_entry *entry = (const struct http_entry *)exchange;
	if (i >= http_exchange_header_count(entry->http))
		return false;
	http_exchange_header_at(entry->http, i, name, value);
	return true;
}

static void hand_body_over(void *arg)
{
	struct http_entry *entry = arg;
	struct slice slice = {0};
	if (entry->body)
		slice = body_slice(entry->body, 0, body_bytes(entry->body).len);
	body_unref(&entry->body);
	entry->exchange.events->on_body(slice, entry->exchange.arg);
}

static void entry_want_body(struct exchange *exchange)
{
	struct http_entry *entry = (struct http_entry *)exchange;
	deferred_init(&entry->later, hand_body_over, entry);
	loop_defer(daemon_loop(entry->listener->daemon), &entry->later);
}

static void note_cache(struct http_entry *entry, const struct answer_head *head)
{
	struct span cache = answer_head_field(head, "x-cache");
	size_t n = cache.len < sizeof entry->cache ? cache.len : sizeof entry->cache - 1;
	if (n)
		memcpy(entry->cache, cache.data, n);
}

static void write_lines(const struct answer_head *head, struct buf *lines)
{
	for (size_t i = 0; i < head->n_fields; i++) {
		if (http_header_add(lines, head->fields[i].name, head->fields[i].value) < 0)
			lines->failed = false; /* a value that HTTP cannot carry is left out */
	}
}

static void entry_respond(
	struct exchange *exchange, const struct answer_head *head, struct slice body)
{
	struct http_entry *entry = (struct http_entry *)exchange;
	struct buf lines = BUF_INIT(16384);
	write_lines(head, &lines);
	note_cache(entry, head);
	entry_leave(entry);
	http_exchange_respond(
		entry->http, head->status, (struct span){(char *)lines.data, lines.len}, &body, 1);
	buf_free(&lines);
}

static void entry_respond_stream(
	struct exchange *exchange, const struct answer_head *head, int64_t length)
{
	struct http_entry *entry = (struct http_entry *)exchange;
	struct buf lines = BUF_INIT(16384);
	write_lines(head, &lines);
	note_cache(entry, head);
	http_exchange_respond_start(
		entry->http, head->status, (struct span){(char *)lines.data, lines.len}, length);
	buf_free(&lines);
	deferred_init(&entry->later, pull, entry);
	loop_defer(daemon_loop(entry->listener->daemon), &entry->later);
}

static const struct exchange_ops http_ops = {
	.header = entry_header,
	.header_at = entry_header_at,
	.want_body = entry_want_body,
	.respond = entry_respond,
	.respond_stream = entry_respond_stream,
};

static void on_request(struct http_exchange *http, void *arg)
{
	struct exchange_http *listener = arg;
	if (health_serve(listener->daemon, http))
		return;
	struct http_entry *entry = calloc(1, sizeof *entry);
	if (!entry) {
		http_exchange_respond(http, 503, (struct span){0}, NULL, 0);
		return;
	}
	entry->listener = listener;
	entry->http = http;
	struct exchange *exchange = &entry->exchange;
	exchange->ops = &http_ops;
	exchange->method = http_exchange_method(http);
	exchange->target = http_exchange_target(http);
	exchange->path = http_exchange_path(http);
	exchange->host = http_exchange_host(http);
	exchange->started_us = loop_now_us(daemon_loop(listener->daemon));
	exchange_enter(exchange, http_exchange_header(http, "traceparent"), "tcp");
	http_exchange_set_context(http, entry);
	http_exchange_accept(http, &http_events, entry);
	int64_t length = http_exchange_content_length(http);
	if (length == 0)
		return;
	entry->body = body_new(listener->bodies, length, &body_events, entry);
	if (!entry->body)
		refuse_for_memory(entry);
}

/* ---- The access log ---- */

static void on_finished(struct http_exchange *http, int status, uint64_t bytes_in,
	uint64_t bytes_out, uint64_t duration_us, void *arg)
{
	struct exchange_http *listener = arg;
	struct http_entry *entry = http_exchange_context(http);
	struct access_entry line = access_entry_of(http, status, bytes_in, bytes_out, duration_us);
	struct trace trace;
	char trace_text[TRACE_PARENT_LEN + 1], hash[DIGEST_HEX + 1];
	if (!entry && status < 400)
		return; /* probes and scrapes */
	if (entry) {
		trace = entry->exchange.trace;
		line.cache = span_of(entry->cache);
		line.aborted = entry->aborted;
		if (entry->hashed) {
			digest_hex(&entry->exchange.body_hash, hash);
			line.body_hash = hash;
		}
	} else if (trace_parse(http_exchange_header(http, "traceparent"), &trace) < 0) {
		trace_start(&trace, false); /* refused before it was an exchange */
	} else {
		trace = trace_child(&trace);
	}
	line.trace = trace_format_text(&trace, trace_text);
	access_log_write(&listener->access_log, &line);
	free(entry);
}

/* ---- The listener ---- */

static const struct http_server_events server_events = {
	.on_request = on_request,
	.on_finished = on_finished,
};

struct exchange_http *exchange_http_new(struct daemon *daemon,
	const struct http_server_options *options, uint64_t body_budget_bytes,
	const double *access_log_share, void (*on_exchange)(struct exchange *exchange, void *arg),
	void *arg)
{
	struct exchange_http *listener = calloc(1, sizeof *listener);
	if (!listener)
		return NULL;
	listener->daemon = daemon;
	access_log_init(&listener->access_log, access_log_share);
	listener->on_exchange = on_exchange;
	listener->arg = arg;
	listener->bodies = bodies_new(
		daemon_loop(daemon), &(struct bodies_options){
					     .budget_bytes = body_budget_bytes,
					     .max_body_bytes = options->max_body_bytes,
					     .timeout_ms = options->body_timeout_ms,
					     .least_bytes_s = options->min_write_bytes_s,
				     });
	listener->server = http_server_new(daemon_loop(daemon), options, &server_events, listener);
	if (!listener->bodies || !listener->server) {
		exchange_http_free(&listener);
		return NULL;
	}
	http_server_measure(listener->server, daemon_metrics(daemon));
	return listener;
}

int exchange_http_listen(struct exchange_http *listener, int fd)
{
	return http_server_listen(listener->server, fd);
}

void exchange_http_drain(struct exchange_http *listener, void (*on_drained)(void *arg), void *arg)
{
	http_server_drain(listener->server, on_drained, arg);
}

void exchange_http_free(struct exchange_http **listener)
{
	if (!*listener)
		return;
	http_server_free(&(*listener)->server);
	bodies_free(&(*listener)->bodies);
	free(*listener);
	*listener = NULL;
}
