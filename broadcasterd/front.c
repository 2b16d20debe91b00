#include "broadcasterd/front.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "broadcasterd/access.h"
#include "broadcasterd/broadcast.h"
#include "broadcasterd/conf.h"
#include "broadcasterd/stats.h"
#include "common/daemon.h"
#include "common/health.h"
#include "common/http_server.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/purge_command.h"
#include "common/trace_span.h"

#define MAX_CONNECTIONS  1024
#define MAX_ANSWER_BYTES (4u << 20)

/* One PURGE: its body comes in, then the broadcast is under way, then it is over. */
struct visit {
	struct front *front;
	TAILQ_ENTRY(visit) entry;
	struct http_exchange *exchange;
	struct buf body;
	struct broadcast *broadcast;
	struct trace trace;
	struct trace_span *span;
};

struct front {
	struct front_parts parts;
	struct http_server *server;
	TAILQ_HEAD(, visit) visits;
};

/* ---- answers ---- */

static void respond_json(
	struct http_exchange *exchange, int status, const char *lines, struct buf *json)
{
	struct buf all = BUF_INIT(512);
	struct slice body = slice_static("{\"error\":\"out of memory\"}\n");
	size_t len;
	if (buf_failed(json)) {
		buf_free(json);
		status = 503;
	} else {
		void *data = buf_take(json, &len);
		body = slice_malloced(data, len);
	}
	buf_append_str(&all, lines);
	http_header_add(&all, "Content-Type", SPAN_LITERAL("application/json"));
	http_header_add(&all, "Cache-Control", SPAN_LITERAL("no-store"));
	http_exchange_respond(exchange, status,
		(struct span){(const char *)all.data, buf_failed(&all) ? 0 : all.len}, &body, 1);
	buf_free(&all);
}

/* And what is known of it afterwards. */
static void end_span(struct trace_span **span, int status, const char *error)
{
	trace_span_int(*span, "http.response.status_code", status);
	if (status >= 400)
		trace_span_fail(*span, status >= 500 ? "failed" : "refused", error);
	trace_span_end(span);
}

static void respond_error(
	struct http_exchange *exchange, int status, const char *lines, const char *error)
{
	struct buf json = BUF_INIT(1024);
	buf_append_str(&json, "{\"error\":");
	json_append_string(&json, span_of(error));
	buf_append_str(&json, "}\n");
	respond_json(exchange, status, lines, &json);
}

/* ---- a visit ---- */

static void visit_free(struct visit *v)
{
	broadcast_leave(&v->broadcast);
	trace_span_end(&v->span);
	buf_free(&v->body);
	TAILQ_REMOVE(&v->front->visits, v, entry);
	free(v);
}

static void on_broadcast_done(const struct broadcast_result *result, void *arg)
{
	struct visit *v = arg;
	struct buf json = BUF_INIT(MAX_ANSWER_BYTES);
	char purged[48];
	purge_report_write_json(&result->message, false, &json);
	snprintf(purged, sizeof purged, "X-Purged: %" PRIu64 "\r\n", result->message.purged);
	respond_json(v->exchange, (int)result->message.status, purged, &json);
	trace_span_int(v->span, "gateway.purge.targets", (int64_t)result->message.results.count);
	trace_span_int(v->span, "gateway.purge.objects", (int64_t)result->message.purged);
	end_span(&v->span, (int)result->message.status,
		result->n_failed ? "not every target has purged" : "nobody was told");
	v->broadcast = NULL;
	visit_free(v);
}

static void on_body(struct span data, void *arg)
{
	struct visit *v = arg;
	buf_append(&v->body, data.data, data.len); /* the server bounds it too */
}

static struct purge *make_purge(struct visit *v, int *status, const char **error)
{
	struct loop *loop = daemon_loop(v->front->parts.daemon);
	struct purge_header headers[PURGE_MAX_HEADERS];
	struct purge_source source = {
		.time_ms = loop_wall_ms(loop),
		.target = http_exchange_target(v->exchange),
		.body = {(const char *)v->body.data, v->body.len},
		.headers = headers,
		.n_headers = http_exchange_header_count(v->exchange),
	};
	*status = 413;
	*error = "the body is too large for a purge";
	if (buf_failed(&v->body))
		return NULL;
	/* The server takes no more than these. */
	for (size_t i = 0; i < source.n_headers; i++)
		http_exchange_header_at(v->exchange, i, &headers[i].name, &headers[i].value);
	return purge_new(&source, status, error);
}

static void on_body_end(void *arg)
{
	struct visit *v = arg;
	const struct front_parts *parts = &v->front->parts;
	struct metrics *metrics = daemon_metrics(parts->daemon);
	const char *error;
	int status;
	struct purge *purge = make_purge(v, &status, &error);
	if (!purge) {
		stats_refused(metrics, status == 503 ? STATS_BUSY : STATS_BAD);
		respond_error(v->exchange, status, "", error);
		end_span(&v->span, status, error);
		visit_free(v);
		return;
	}
	purge->trace = v->trace;
	purge->has_trace = true;
	trace_span_str(v->span, "gateway.purge.scope", purge->params.scope);
	v->broadcast = broadcast_start(parts->broadcasts, purge, on_broadcast_done, v);
	purge_unref(&purge);
	if (!v->broadcast) {
		stats_refused(metrics, STATS_BUSY);
		respond_error(v->exchange, 503, "Retry-After: 1\r\n", "too many purges at once");
		end_span(&v->span, 503, "too many purges at once");
		visit_free(v);
	}
}

static void on_abort(void *arg)
{
	visit_free(arg);
}

static const struct http_exchange_events exchange_events = {
	.on_body = on_body, .on_body_end = on_body_end, .on_abort = on_abort};

static void start_visit(struct front *front, struct http_exchange *exchange,
	const struct trace *trace, struct trace_span *span)
{
	struct visit *v = calloc(1, sizeof *v);
	if (!v) {
		respond_error(exchange, 503, "Retry-After: 1\r\n", "out of memory");
		end_span(&span, 503, "out of memory");
		return;
	}
	*v = (struct visit){.front = front,
		.exchange = exchange,
		.body = BUF_INIT(PURGE_MAX_BODY_BYTES),
		.trace = *trace,
		.span = span};
	TAILQ_INSERT_TAIL(&front->visits, v, entry);
	http_exchange_accept(exchange, &exchange_events, v);
}

static void on_request(struct http_exchange *exchange, void *arg)
{
	struct front *front = arg;
	const struct front_parts *parts = &front->parts;
	if (!span_equal_str(http_exchange_method(exchange), "PURGE")) {
		if (!health_serve(parts->daemon, exchange))
			respond_error(exchange, 405, "Allow: PURGE\r\n",
				"method not allowed: this is the purge broadcaster");
		return;
	}
	struct trace trace;
	struct trace_span *span = trace_span_enter(
		http_exchange_header(exchange, "traceparent"), &trace, SPAN_LITERAL("PURGE"));
	trace_span_text(span, "http.request.method", "PURGE");
	trace_span_str(span, "url.path", http_exchange_path(exchange));
	if (!access_by_http(parts->conf, http_exchange_header(exchange, "authorization"))) {
		log_fields(LOG_LEVEL_WARN, TRACE_TEXT(&trace), "purge refused: not the token",
			LOG_STR("client", http_exchange_peer(exchange)));
		stats_refused(daemon_metrics(parts->daemon), STATS_FORBIDDEN);
		respond_error(exchange, 403, "", "purging needs the token");
		end_span(&span, 403, "not the token");
	} else {
		start_visit(front, exchange, &trace, span);
	}
}

/* ---- life ---- */

static bool is_local(const char *address)
{
	return strchr(address, '/') || strncmp(address, "127.", 4) == 0 ||
	       strncmp(address, "[::1]", 5) == 0 || strncmp(address, "localhost:", 10) == 0;
}

struct front *front_new(const struct front_parts *parts)
{
	static const struct http_server_events events = {.on_request = on_request};
	struct http_server_options options = http_server_defaults;
	struct front *front = calloc(1, sizeof *front);
	if (!front)
		return NULL;
	front->parts = *parts;
	if (!parts->conf->token[0] && !is_local(parts->conf->listen))
		log_warn("whoever reaches %s can purge: BROADCASTERD_TOKEN is not set",
			parts->conf->listen);
	TAILQ_INIT(&front->visits);
	options.max_head_bytes = PURGE_MAX_TARGET_BYTES + PURGE_MAX_HEADER_BYTES;
	options.max_target_bytes = PURGE_MAX_TARGET_BYTES;
	options.max_headers = PURGE_MAX_HEADERS;
	options.max_body_bytes = PURGE_MAX_BODY_BYTES;
	options.max_connections = MAX_CONNECTIONS;
	front->server = http_server_new(daemon_loop(parts->daemon), &options, &events, front);
	if (!front->server || http_server_listen(front->server, daemon_listen(parts->daemon, "http",
									parts->conf->listen)) < 0)
		front_free(&front);
	else
		http_server_measure(front->server, daemon_metrics(parts->daemon));
	return front;
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
	struct visit *v;
	if (!front)
		return;
	*front_ = NULL;
	http_server_free(&front->server); /* aborts the visits */
	while ((v = TAILQ_FIRST(&front->visits)))
		visit_free(v);
	free(front);
}
