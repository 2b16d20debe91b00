#include "hashd/front.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/body.h"
#include "common/buf.h"
#include "common/daemon.h"
#include "common/health.h"
#include "common/http_server.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/trace_span.h"
#include "hashd/conf.h"
#include "hashd/headers.h"
#include "hashd/observe.h"
#include "hashd/request.h"

#define SPARE_COUNT     256
#define MAX_LINES_BYTES 65536
#define CACHE_TEXT      16
#define MAX_NAME_BYTES  256 /* of a field in an answer */

/* Hash headers, x-original-host and Host come beside the client's own. */
#define OWN_HEADERS 4

/* One exchange. It lives from on_request to on_finished; what it holds goes as soon as it can. */
struct visit {
	STAILQ_ENTRY(visit) spare_entry;
	struct front *front;
	struct http_exchange *exchange; /* NULL once the answer is complete or the client gone */
	struct request *request;        /* NULL unless under way */
	struct body *body;
	bool started, aborted;
	bool names_headers; /* a Connection field names others */
	const char *backend;
	char body_hash[DIGEST_HEX + 1];
	char path_hash[DIGEST_HEX + 1];
	char url_hash[DIGEST_HEX + 1];
	struct trace ids;
	struct trace_span *span; /* or NULL */
	char trace[TRACE_PARENT_LEN + 1];
	char cache[CACHE_TEXT]; /* X-Cache of the answer */
};

struct front {
	struct front_parts parts;
	struct http_server *server;
	struct buf lines; /* scratch: header lines of one answer */
	STAILQ_HEAD(, visit) spare;
	size_t n_spare;
};

/* ---- Errors, in OpenAI's shape ---- */

static void respond_error(struct http_exchange *exchange, int status, const char *header_lines,
	const char *type, const char *code, const char *message)
{
	char lines[256], *body = NULL;
	int n = asprintf(&body,
		"{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}\n",
		message, type, code);

	snprintf(lines, sizeof(lines), "Content-Type: application/json\r\n%s", header_lines);
	if (n < 0) {
		http_exchange_reset(exchange);
		return;
	}
	struct slice slice = slice_malloced(body, (size_t)n);

	http_exchange_respond(exchange, status, span_of(lines), &slice, 1);
}

/* Sentences of our own: what gatewayd said goes to the log, not to strangers. */
static const struct {
	int status;
	const char *code, *message;
} failures[REQUEST_FAILURES] = {
	[REQUEST_NOBODY_UP] = {503, "gateway_unavailable", "No gateway is up; try again soon."},
	[REQUEST_LOST] = {502, "gateway_lost", "The gateway was lost while it worked on this."},
	[REQUEST_BUSY] = {503, "gateway_busy", "The gateway has too much to do; try again soon."},
	[REQUEST_TIMED_OUT] = {504, "gateway_timeout", "The gateway took too long."},
	[REQUEST_REFUSED] = {502, "gateway_error", "The gateway could not answer this."},
	[REQUEST_NO_MEMORY] = {503, "out_of_memory", "Out of memory; try again soon."},
};

static void respond_failure(struct http_exchange *exchange, enum request_failure why)
{
	respond_error(exchange, failures[why].status,
		why == REQUEST_TIMED_OUT || why == REQUEST_REFUSED ? "" : "Retry-After: 1\r\n",
		"server_error", failures[why].code, failures[why].message);
}

/* ---- The request's side ---- */

static bool is_named(const struct visit *visit, struct span name)
{
	size_t n = http_exchange_header_count(visit->exchange);

	for (size_t i = 0; visit->names_headers && i < n; i++) {
		struct span field, value;

		http_exchange_header_at(visit->exchange, i, &field, &value);
		if (span_equal_nocase(field, "connection") && headers_connection_names(value, name))
			return true;
	}
	return false;
}

static void put(struct msg_headers *headers, const char *name, struct span value)
{
	if (headers->count < MSG_MAX_HEADERS)
		headers->items[headers->count++] = (struct msg_header){span_of(name), value};
}

static void describe(struct msg_request_params *params, void *arg)
{
	struct visit *visit = arg;
	struct http_exchange *exchange = visit->exchange;
	struct msg_headers *headers = &params->headers;
	size_t n = http_exchange_header_count(exchange);

	params->method = http_exchange_method(exchange);
	params->target = http_exchange_target(exchange);
	params->client = span_of(http_exchange_peer(exchange));
	params->trace = span_of(visit->trace);
	put(headers, "host", http_exchange_host(exchange));
	put(headers, "x-original-host", http_exchange_host(exchange));
	if (visit->path_hash[0])
		put(headers, "x-path-hash", span_of(visit->path_hash));
	if (visit->url_hash[0])
		put(headers, "x-url-hash", span_of(visit->url_hash));
	for (size_t i = 0; i < n && headers->count < MSG_MAX_HEADERS; i++) {
		struct msg_header *header = &headers->items[headers->count];

		http_exchange_header_at(exchange, i, &header->name, &header->value);
		if (headers_pass_request(header->name) && !is_named(visit, header->name))
			headers->count++;
	}
}

/* ---- The answer's side ---- */

/* The last use of the exchange: it is dead, or as good as, after what follows. */
static struct http_exchange *take_exchange(struct visit *visit)
{
	struct http_exchange *exchange = visit->exchange;

	visit->exchange = NULL;
	return exchange;
}

/* request.c ended the request. */
static void end_request(struct visit *visit)
{
	visit->request = NULL;
	body_unref(&visit->body);
}

static void note_cache(struct visit *visit, struct span value)
{
	size_t n = value.len < CACHE_TEXT ? value.len : CACHE_TEXT - 1;

	memcpy(visit->cache, value.data, n);
	visit->cache[n] = '\0';
}

static struct span answer_lines(struct visit *visit, const struct msg_request_result *answer)
{
	struct buf *lines = &visit->front->lines;

	buf_clear(lines);
	for (size_t i = 0; i < answer->headers.count; i++) {
		const struct msg_header *header = &answer->headers.items[i];
		char name[MAX_NAME_BYTES];

		if (!headers_pass_answer(header->name) || header->name.len >= sizeof(name))
			continue;
		memcpy(name, header->name.data, header->name.len);
		name[header->name.len] = '\0';
		if (http_header_add(lines, name, header->value) < 0)
			break;
		if (span_equal_nocase(header->name, "x-cache"))
			note_cache(visit, header->value);
	}
	if (visit->body_hash[0])
		http_header_add(lines, "X-Body-Hash", span_of(visit->body_hash));
	return (struct span){(const char *)lines->data, lines->len};
}

static struct slice copy(struct span data)
{
	void *bytes = malloc(data.len ? data.len : 1);

	if (!bytes)
		return (struct slice){0};
	if (data.len)
		memcpy(bytes, data.data, data.len);
	return slice_malloced(bytes, data.len);
}

static void on_answer(
	const struct msg_request_result *answer, struct span packed, struct slice lent, void *arg)
{
	struct visit *visit = arg;
	struct span lines = answer_lines(visit, answer);

	(void)packed;
	visit->backend = request_backend(visit->request);
	body_unref(&visit->body);
	if (buf_failed(&visit->front->lines)) {
		log_fields(LOG_LEVEL_ERROR, visit->trace, "bad header field in an answer",
			LOG_STR("backend", visit->backend));
		slice_release(&lent);
		request_cancel(&visit->request);
		respond_failure(take_exchange(visit), REQUEST_REFUSED);
		return;
	}
	if (answer->chunked) {
		visit->started = true;
		http_exchange_respond_start(visit->exchange, (int)answer->status, lines,
			answer->body_bytes >= 0 ? answer->body_bytes : -1);
		return;
	}
	struct slice body = lent.data ? lent : copy(answer->body);

	end_request(visit);
	if (body.data)
		http_exchange_respond(take_exchange(visit), (int)answer->status, lines, &body, 1);
	else
		respond_failure(take_exchange(visit), REQUEST_NO_MEMORY);
}

static bool on_data(struct span data, bool end, void *arg)
{
	struct visit *visit = arg;
	struct slice slice = copy(data);
	bool more = true;

	if (end)
		end_request(visit);
	if (!slice.data) {
		request_cancel(&visit->request);
		http_exchange_reset(take_exchange(visit));
		return false;
	}
	if (data.len)
		more = http_exchange_send(visit->exchange, slice);
	else
		slice_release(&slice);
	if (end)
		http_exchange_end(take_exchange(visit));
	return more;
}

static void on_failed(enum request_failure why, const char *detail, const char *backend, void *arg)
{
	struct visit *visit = arg;

	visit->backend = backend;
	end_request(visit);
	log_fields(LOG_LEVEL_WARN, visit->trace, "request failed", LOG_STR("reason", detail),
		LOG_STR("code", failures[why].code), LOG_STR("backend", backend));
	if (visit->started)
		http_exchange_reset(take_exchange(visit));
	else
		respond_failure(take_exchange(visit), why);
}

static const struct request_events request_events = {
	.describe = describe, .on_answer = on_answer, .on_data = on_data, .on_failed = on_failed};

/* ---- The client's side ---- */

static void read_on(void *arg)
{
	struct visit *visit = arg;

	if (visit->exchange)
		http_exchange_resume(visit->exchange);
}

static void on_late(void *arg)
{
	struct visit *visit = arg;

	if (visit->exchange)
		http_exchange_time_out(visit->exchange);
}

static const struct body_events body_events = {.on_read_on = read_on, .on_late = on_late};

static void on_body(struct span data, void *arg)
{
	struct visit *visit = arg;
	enum body_flow flow;

	if (body_append(visit->body, data, &flow) < 0) {
		body_unref(&visit->body);
		respond_failure(take_exchange(visit), REQUEST_NO_MEMORY);
		return;
	}
	if (flow == BODY_STOP_READING)
		http_exchange_pause(visit->exchange);
}

static void on_body_end(void *arg)
{
	struct visit *visit = arg;
	struct digest key;

	if (visit->body) {
		body_finish(visit->body);
		if (body_bytes(visit->body).len == 0)
			body_unref(&visit->body);
	}
	if (visit->body) {
		key = *body_digest(visit->body);
		digest_hex(&key, visit->body_hash);
	} else {
		key = digest_of(http_exchange_target(visit->exchange));
	}
	visit->request = request_start(visit->front->parts.requests,
		&(struct request_options){
			.events = &request_events,
			.arg = visit,
			.key = &key,
			.body = visit->body,
			.body_hash = visit->body_hash,
			.trace = &visit->ids,
			.idempotent = request_is_idempotent(http_exchange_method(visit->exchange),
				http_exchange_path(visit->exchange)),
		});
	if (!visit->request) {
		body_unref(&visit->body);
		respond_failure(take_exchange(visit), REQUEST_NO_MEMORY);
	}
}

static void on_drain(void *arg)
{
	struct visit *visit = arg;

	if (visit->request)
		request_read_on(visit->request);
}

static void on_abort(void *arg)
{
	struct visit *visit = arg;

	visit->aborted = true;
	visit->exchange = NULL;
	if (visit->request)
		visit->backend = request_backend(visit->request);
	request_cancel(&visit->request);
	body_unref(&visit->body);
}

static const struct http_exchange_events exchange_events = {
	.on_body = on_body, .on_body_end = on_body_end, .on_drain = on_drain, .on_abort = on_abort};

static void hash_headers(struct visit *visit, struct http_exchange *exchange)
{
	const struct hashd_conf *conf = visit->front->parts.conf;
	struct digest digest;

	if (conf->path_hash) {
		digest = digest_of(http_exchange_path(exchange));
		digest_hex(&digest, visit->path_hash);
	}
	if (conf->url_hash) {
		struct buf url = BUF_INIT(1 << 20);
		struct span host = http_exchange_host(exchange),
			    target = http_exchange_target(exchange);

		buf_append(&url, host.data, host.len);
		buf_append(&url, target.data, target.len);
		if (!buf_failed(&url)) {
			digest = digest_of((struct span){(const char *)url.data, url.len});
			digest_hex(&digest, visit->url_hash);
		}
		buf_free(&url);
	}
}

static struct visit *visit_new(struct front *front, struct http_exchange *exchange)
{
	struct visit *visit = STAILQ_FIRST(&front->spare);

	if (visit) {
		STAILQ_REMOVE_HEAD(&front->spare, spare_entry);
		front->n_spare--;
	} else if (!(visit = malloc(sizeof(*visit)))) {
		return NULL;
	}
	*visit = (struct visit){.front = front, .exchange = exchange};
	struct span connection = http_exchange_header(exchange, "connection");

	visit->names_headers = connection.data && !span_equal_nocase(connection, "keep-alive") &&
			       !span_equal_nocase(connection, "close");
	visit->span = observe_enter(http_exchange_method(exchange), http_exchange_path(exchange),
		http_exchange_header(exchange, "traceparent"), &visit->ids);
	trace_format(&visit->ids, visit->trace);
	hash_headers(visit, exchange);
	return visit;
}

static void visit_free(struct visit *visit)
{
	struct front *front = visit->front;

	BUG_ON(visit->exchange || visit->request || visit->body);
	if (front->n_spare == SPARE_COUNT) {
		free(visit);
		return;
	}
	STAILQ_INSERT_HEAD(&front->spare, visit, spare_entry);
	front->n_spare++;
}

/* What gatewayd would say of a path; nothing is allowed where there is nothing. */
static const char *allow_line(struct span path)
{
	if (span_equal_str(path, "/v1/embeddings") || span_equal_str(path, "/openai/v1/embeddings"))
		return "Allow: POST\r\n";
	if (span_equal_str(path, "/v1/models") || span_equal_str(path, "/openai/v1/models"))
		return "Allow: GET, HEAD\r\n";
	return "Allow: \r\n";
}

static void on_request(struct http_exchange *exchange, void *arg)
{
	struct front *front = arg;

	if (health_serve(front->parts.daemon, exchange))
		return;
	if (span_equal_str(http_exchange_method(exchange), "PURGE")) {
		respond_error(exchange, 405, allow_line(http_exchange_path(exchange)),
			"invalid_request_error", "method_not_allowed",
			"PURGE is not allowed here.");
		return;
	}
	struct visit *visit = visit_new(front, exchange);

	if (!visit) {
		respond_failure(exchange, REQUEST_NO_MEMORY);
		return;
	}
	http_exchange_set_context(exchange, visit);
	http_exchange_set_trace(exchange, visit->trace);
	http_exchange_accept(exchange, &exchange_events, visit);
	int64_t length = http_exchange_content_length(exchange);

	if (length == 0)
		return;
	visit->body = body_new(front->parts.bodies, length, &body_events, visit);
	if (!visit->body)
		respond_failure(take_exchange(visit), REQUEST_NO_MEMORY);
}

static void on_finished(struct http_exchange *exchange, int status, uint64_t bytes_in,
	uint64_t bytes_out, uint64_t duration_us, void *arg)
{
	struct front *front = arg;
	struct visit *visit = http_exchange_context(exchange);
	struct trace_span *span = NULL;
	struct trace trace;
	char text[TRACE_PARENT_LEN + 1];
	struct observe_exchange seen = {
		.entry = access_entry_of(exchange, status, bytes_in, bytes_out, duration_us),
		.quiet = !visit && status < 400, /* probes and scrapes */
	};

	if (visit) {
		seen.entry.cache = span_of(visit->cache);
		seen.entry.trace = visit->trace;
		seen.entry.body_hash = visit->body_hash;
		seen.entry.backend = visit->backend;
		seen.entry.aborted = visit->aborted;
		seen.span = &visit->span;
	} else if (!seen.quiet) { /* refused before it was a visit */
		span = observe_enter(seen.entry.method, http_exchange_path(exchange),
			http_exchange_header(exchange, "traceparent"), &trace);
		seen.entry.trace = trace_format_text(&trace, text);
		seen.span = &span;
	}
	observe_finished(front->parts.observe, &seen);
	if (visit)
		visit_free(visit);
}

/* ---- Life ---- */

static int open_listener(struct front *front)
{
	const struct hashd_conf *conf = front->parts.conf;
	char address[300];

	if (conf->listen[0])
		snprintf(address, sizeof(address), "%s", conf->listen);
	else
		snprintf(address, sizeof(address),
			strchr(conf->host, ':') ? "[%s]:%lld" : "%s:%lld", conf->host,
			(long long)conf->port);
	return http_server_listen(
		front->server, daemon_listen(front->parts.daemon, "http", address));
}

static void collect(void *arg)
{
	struct front *front = arg;
	struct metrics *metrics = daemon_metrics(front->parts.daemon);

	metric_set(metric(metrics, observe_family(OBSERVE_CONNECTIONS)),
		(double)http_server_connections(front->server));
	metric_set(metric(metrics, observe_family(OBSERVE_BODY_BYTES)),
		(double)(bodies_bytes(front->parts.bodies) +
			 bodies_bytes(front->parts.local_bodies)));
	metric_set(metric(metrics, observe_family(OBSERVE_PAUSED)),
		(double)(bodies_paused(front->parts.bodies) +
			 bodies_paused(front->parts.local_bodies)));
}

struct front *front_new(const struct front_parts *parts)
{
	static const struct http_server_events events = {
		.on_request = on_request, .on_finished = on_finished};
	const struct hashd_conf *conf = parts->conf;
	struct http_server_options options = http_server_defaults;
	struct front *front = calloc(1, sizeof(*front));

	if (!front)
		return NULL;
	front->parts = *parts;
	STAILQ_INIT(&front->spare);
	buf_init(&front->lines, MAX_LINES_BYTES);
	options.max_head_bytes = (size_t)conf->max_head_bytes;
	options.max_headers = MSG_MAX_HEADERS - OWN_HEADERS;
	options.max_body_bytes = (size_t)conf->max_body_bytes;
	options.max_connections = (size_t)conf->max_connections;
	options.idle_timeout_ms = (uint32_t)conf->idle_timeout_ms;
	options.header_timeout_ms = (uint32_t)conf->header_timeout_ms;
	options.body_timeout_ms = (uint32_t)conf->body_timeout_ms;
	options.write_timeout_ms = (uint32_t)conf->write_timeout_ms;
	options.min_write_bytes_s = (uint32_t)conf->min_write_bytes_s;
	front->server = http_server_new(daemon_loop(parts->daemon), &options, &events, front);
	if (!front->server || open_listener(front) < 0)
		front_free(&front);
	else
		metrics_on_collect(daemon_metrics(parts->daemon), collect, front);
	return front;
}

void front_retire(struct front *front)
{
	http_server_retire(front->server);
}

void front_drain(struct front *front, void (*on_drained)(void *arg), void *arg)
{
	http_server_drain(front->server, on_drained, arg);
}

size_t front_connections(const struct front *front)
{
	return http_server_connections(front->server);
}

void front_free(struct front **front_)
{
	struct front *front = *front_;
	struct visit *visit;

	if (!front)
		return;
	http_server_free(&front->server);
	while ((visit = STAILQ_FIRST(&front->spare))) {
		STAILQ_REMOVE_HEAD(&front->spare, spare_entry);
		free(visit);
	}
	buf_free(&front->lines);
	free(front);
	*front_ = NULL;
}
