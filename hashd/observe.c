#include "hashd/observe.h"

#include <stdio.h>
#include <stdlib.h>

#include "hashd/conf.h"

#define STATUS_MAX 600

/* Shown from the start; others come with their first request. */
static const char *const statuses[] = {
	"200", "400", "401", "404", "405", "413", "429", "499", "500", "502", "503", "504", NULL};

const struct metric_family observe_families[] = {
	[OBSERVE_REQUESTS] =
		{
			.name = "hashd_requests_total",
			.type = METRIC_COUNTER,
			.help = "HTTP requests answered, by status; 499: the client left first.",
			.labels = {"status"},
			.known = statuses,
		},
	[OBSERVE_DURATION] =
		{
			.name = "hashd_request_duration_seconds",
			.type = METRIC_HISTOGRAM,
			.help = "Time from the first byte of a request to the last byte of its answer.",
			.buckets = metrics_latency_buckets,
		},
	[OBSERVE_IN_FLIGHT] =
		{
			.name = "hashd_requests_in_flight",
			.type = METRIC_GAUGE,
			.help = "Requests that gatewayd has not answered completely.",
		},
	[OBSERVE_WAITING] =
		{
			.name = "hashd_requests_waiting",
			.type = METRIC_GAUGE,
			.help = "Requests that wait for a gatewayd to come up.",
		},
	[OBSERVE_CONNECTIONS] =
		{
			.name = "hashd_connections",
			.type = METRIC_GAUGE,
			.help = "Open HTTP connections.",
		},
	[OBSERVE_BYTES_IN] =
		{
			.name = "hashd_body_received_bytes_total",
			.type = METRIC_COUNTER,
			.help = "Bytes of request bodies received over HTTP.",
		},
	[OBSERVE_BYTES_OUT] =
		{
			.name = "hashd_body_sent_bytes_total",
			.type = METRIC_COUNTER,
			.help = "Bytes of response bodies sent over HTTP.",
		},
	[OBSERVE_BODY_BYTES] =
		{
			.name = "hashd_buffered_body_bytes",
			.type = METRIC_GAUGE,
			.help = "Memory taken by request bodies.",
		},
	[OBSERVE_PAUSED] =
		{
			.name = "hashd_paused_clients",
			.type = METRIC_GAUGE,
			.help = "Clients not read from because the body budget is used up.",
		},
	[OBSERVE_ABORTED] =
		{
			.name = "hashd_client_aborts_total",
			.type = METRIC_COUNTER,
			.help = "Clients that left before the end of their answer.",
		},
	[OBSERVE_FAILURES] =
		{
			.name = "hashd_request_failures_total",
			.type = METRIC_COUNTER,
			.help = "Requests for which gatewayd gave no complete answer, by reason.",
			.labels = {"reason"},
		},
	[OBSERVE_FAILOVERS] =
		{
			.name = "hashd_failovers_total",
			.type = METRIC_COUNTER,
			.help = "Requests asked a second time because their gatewayd was lost.",
			.labels = {"backend"},
		},
	[OBSERVE_REROUTED] =
		{
			.name = "hashd_rerouted_total",
			.type = METRIC_COUNTER,
			.help = "Requests sent to another gatewayd than their first choice, which was not up.",
		},
	[OBSERVE_BACKEND_UP] =
		{
			.name = "hashd_backend_up",
			.type = METRIC_GAUGE,
			.help = "1 while this gatewayd answers its health checks.",
			.labels = {"backend"},
		},
	[OBSERVE_BACKEND_DURATION] =
		{
			.name = "hashd_backend_request_duration_seconds",
			.type = METRIC_HISTOGRAM,
			.help = "Time from asking this gatewayd to the end of its answer, by result: "
				"ok, or failed (lost, refused, too late).",
			.labels = {"backend", "result"},
			.buckets = metrics_latency_buckets,
		},
	[OBSERVE_MAPPED] =
		{
			.name = "hashd_mapped_bytes",
			.type = METRIC_GAUGE,
			.help = "Memory of gatewayd instances that is mapped here, used or not.",
		},
	[OBSERVE_LEASES] =
		{
			.name = "hashd_leases",
			.type = METRIC_GAUGE,
			.help = "Answers being written to clients from gatewayd's memory.",
		},
	[OBSERVE_LENT_BYTES] =
		{
			.name = "hashd_lent_bytes",
			.type = METRIC_GAUGE,
			.help = "Bytes of those answers.",
		},
	[OBSERVE_LEASE_REFUSED] =
		{
			.name = "hashd_answers_outside_arena_total",
			.type = METRIC_COUNTER,
			.help = "Answers refused because they did not lie in gatewayd's memory.",
		},
	{0},
};

struct observe {
	struct metrics *metrics;
	struct metric *duration, *bytes_in, *bytes_out, *aborted;
	struct metric *by_status[STATUS_MAX];
	struct access_log access_log;
};

struct observe *observe_new(struct metrics *metrics, const struct hashd_conf *conf)
{
	struct observe *observe = calloc(1, sizeof(*observe));

	if (!observe)
		return NULL;
	observe->metrics = metrics;
	access_log_init(&observe->access_log, &conf->access_log_sample);
	observe->duration = metric(metrics, observe_family(OBSERVE_DURATION));
	observe->bytes_in = metric(metrics, observe_family(OBSERVE_BYTES_IN));
	observe->bytes_out = metric(metrics, observe_family(OBSERVE_BYTES_OUT));
	observe->aborted = metric(metrics, observe_family(OBSERVE_ABORTED));
	return observe;
}

void observe_free(struct observe **observe)
{
	free(*observe);
	*observe = NULL;
}

static struct metric *status_counter(struct observe *observe, int status)
{
	if (status < 0 || status >= STATUS_MAX)
		status = 0;
	if (!observe->by_status[status]) {
		char text[8];

		snprintf(text, sizeof(text), "%d", status);
		observe->by_status[status] = metric(
			observe->metrics, observe_family(OBSERVE_REQUESTS), text);
	}
	return observe->by_status[status];
}

/* Paths that a name may have: what clients make up is none of them. */
static bool is_route(struct span path)
{
	static const char *const routes[] = {"/v1/embeddings", "/openai/v1/embeddings",
		"/v1/models", "/openai/v1/models", "/v1/chat/completions", "/v1/responses"};

	for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
		if (span_equal_str(path, routes[i]))
			return true;
	return false;
}

struct trace_span *observe_enter(
	struct span method, struct span path, struct span traceparent, struct trace *ids)
{
	struct trace_span *span = trace_span_enter(traceparent, ids, method);

	if (!span || !is_route(path))
		return span;
	char name[TRACE_SPAN_NAME_MAX_BYTES + 1];

	snprintf(name, sizeof(name), "%.*s %.*s", method.len < 16 ? (int)method.len : 16,
		method.data, SPAN_ARG(path));
	trace_span_name(span, span_of(name));
	trace_span_str(span, "http.route", path);
	return span;
}

/* (OpenTelemetry's conventions for HTTP servers) */
static void end_span(struct trace_span **span, const struct access_entry *x)
{
	char status[8];
	size_t path = 0;

	while (path < x->target.len && x->target.data[path] != '?')
		path++;
	trace_span_began_before(*span, x->duration_us);
	trace_span_str(*span, "http.request.method", x->method);
	trace_span_str(*span, "url.path", (struct span){x->target.data, path});
	trace_span_str(*span, "client.address", x->client);
	trace_span_str(*span, "user_agent.original", x->user_agent);
	trace_span_int(*span, "http.response.status_code", x->status);
	trace_span_int(*span, "http.request.body.size", (int64_t)x->bytes_in);
	trace_span_int(*span, "http.response.body.size", (int64_t)x->bytes_out);
	if (x->cache.len)
		trace_span_str(*span, "gateway.cache.result", x->cache);
	if (x->body_hash && *x->body_hash)
		trace_span_text(*span, "gateway.body_hash", x->body_hash);
	snprintf(status, sizeof(status), "%d", x->status);
	if (x->aborted)
		trace_span_fail(*span, "aborted", "the client left");
	else if (x->status >= 500)
		trace_span_fail(*span, status, NULL);
	trace_span_end(span);
}

void observe_finished(struct observe *observe, const struct observe_exchange *x)
{
	const struct access_entry *entry = &x->entry;

	if (x->span && *x->span)
		end_span(x->span, entry);
	metric_add(status_counter(observe, entry->status), 1);
	metric_observe(observe->duration, (double)entry->duration_us / 1e6);
	if (entry->bytes_in)
		metric_add(observe->bytes_in, (double)entry->bytes_in);
	if (entry->bytes_out)
		metric_add(observe->bytes_out, (double)entry->bytes_out);
	if (entry->aborted)
		metric_add(observe->aborted, 1);
	if (!x->quiet)
		access_log_write(&observe->access_log, entry);
}
