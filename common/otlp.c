#include "common/otlp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/daemon.h"
#include "common/http_client.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/otlp_metrics.h"
#include "common/otlp_text.h"
#include "common/retry.h"
#include "common/tracer.h"

#define BATCH_MAX_BYTES    (4u << 20)
#define RESPONSE_MAX_BYTES (64u << 10)
#define MAX_HEADERS        32
#define BACKOFF_MIN_MS     1000
#define BACKOFF_MAX_MS     10000
#define LOG_INTERVAL_US    (60ull * 1000 * 1000)

enum { SPANS, EXPORTED, DROPPED, QUEUED, EXPORTS, DURATION, METRIC_EXPORTS };

const struct metric_family otlp_families[] = {
	[SPANS] = {.name = "trace_spans_total",
		.type = METRIC_COUNTER,
		.help = "Spans of traces that were recorded and have ended."},
	[EXPORTED] = {.name = "trace_spans_exported_total",
		.type = METRIC_COUNTER,
		.help = "Those of them that a collector took."},
	[DROPPED] = {.name = "trace_spans_dropped_total",
		.type = METRIC_COUNTER,
		.labels = {"reason"},
		.help = "Those of them that were lost: queue_full, too_many (or no memory), too_large, "
			"failed (no collector), refused (the batch), rejected (by it, some of a batch), "
			"stopped."},
	[QUEUED] = {.name = "trace_spans_queued",
		.type = METRIC_GAUGE,
		.help = "Spans that wait for their export."},
	[EXPORTS] = {.name = "trace_exports_total",
		.type = METRIC_COUNTER,
		.labels = {"result"},
		.help = "Requests to the collector: ok, partial, retry (will be tried again), failed."},
	[DURATION] = {.name = "trace_export_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.buckets = metrics_latency_buckets,
		.help = "Time of one request with spans to the collector, in seconds."},
	[METRIC_EXPORTS] = {.name = "otlp_metric_exports_total",
		.type = METRIC_COUNTER,
		.labels = {"result"},
		.help = "Exports of metrics to the collector: ok, failed."},
	{.name = NULL},
};

enum otlp_state {
	OTLP_IDLE, /* the timer is set while something is queued */
	OTLP_SENDING,
	OTLP_BACKOFF, /* the timer is set */
};

struct otlp {
	const struct otlp_conf *conf;
	struct daemon *daemon;
	struct loop *loop;
	struct metrics *metrics;
	bool on; /* traces */

	char *url, *metrics_url;
	char *headers[MAX_HEADERS + 2]; /* Content-Type first; ends with NULL */
	struct buf resource;            /* JSON */
	struct buf head;                /* of every body, up to the spans */
	struct http_client *http;
	struct http_call *call;

	enum otlp_state state;
	struct timer *timer;
	struct tracer_spans batch; /* SENDING, BACKOFF */
	size_t batch_spans;
	uint64_t give_up_us; /* of the batch */
	struct backoff backoff;
	uint64_t exported;
	uint64_t next_log_us;
	struct otlp_metrics *exporter; /* of metrics; NULL: none */

	bool flushing, traces_flushed, metrics_flushed;
	struct timer *flush_timer;
	struct deferred flushed;
	void (*on_flushed)(void *arg);
	void *on_flushed_arg;
};

static void send_batch(struct otlp *otlp);

/* ---- Flushing ---- */

static void tell_flushed(void *arg)
{
	struct otlp *otlp = arg;
	void (*on_flushed)(void *arg) = otlp->on_flushed;
	otlp->on_flushed = NULL;
	if (on_flushed)
		on_flushed(otlp->on_flushed_arg);
}

static void end_flush(void *arg)
{
	struct otlp *otlp = arg;
	timer_disarm(otlp->flush_timer);
	loop_defer(otlp->loop, &otlp->flushed);
}

static void traces_flushed(struct otlp *otlp)
{
	otlp->traces_flushed = true;
	if (otlp->metrics_flushed)
		end_flush(otlp);
}

static void metrics_flushed(void *arg)
{
	struct otlp *otlp = arg;
	otlp->metrics_flushed = true;
	if (otlp->traces_flushed)
		end_flush(otlp);
}

/* ---- Batches ---- */

/* What is queued goes now, or when its time has come. */
static void next_batch(struct otlp *otlp)
{
	size_t queued = tracer_counters()->queued;
	otlp->state = OTLP_IDLE;
	if (queued >= (size_t)otlp->conf->max_batch || (queued && otlp->flushing))
		timer_arm(otlp->timer, 0);
	else if (queued)
		timer_arm(otlp->timer, (uint64_t)otlp->conf->delay_ms);
	else if (otlp->flushing && !otlp->traces_flushed)
		traces_flushed(otlp);
}

static void end_batch(struct otlp *otlp)
{
	backoff_reset(&otlp->backoff);
	otlp->batch_spans = 0;
	next_batch(otlp);
}

static void on_queued(size_t n, void *arg)
{
	struct otlp *otlp = arg;
	if (otlp->state != OTLP_IDLE)
		return;
	if (n >= (size_t)otlp->conf->max_batch)
		timer_arm(otlp->timer, 0);
	else if (!timer_armed(otlp->timer))
		timer_arm(otlp->timer, (uint64_t)otlp->conf->delay_ms);
}

static void drop_batch(struct otlp *otlp, enum tracer_drop why)
{
	tracer_drop(&otlp->batch, why);
	end_batch(otlp);
}

static void on_timer(void *arg)
{
	struct otlp *otlp = arg;
	if (otlp->state == OTLP_IDLE) {
		otlp->batch_spans = tracer_take(
			&otlp->batch, (size_t)otlp->conf->max_batch, BATCH_MAX_BYTES);
		otlp->give_up_us = loop_now_us(otlp->loop) +
				   (uint64_t)otlp->conf->export_timeout_ms * 1000;
	}
	if (otlp->batch_spans)
		send_batch(otlp);
	else
		next_batch(otlp);
}

/* ---- Answers ---- */

static void complain(struct otlp *otlp, const char *sentence, const char *why, int status)
{
	uint64_t now_us = loop_now_us(otlp->loop);
	if (otlp->next_log_us > now_us)
		return;
	otlp->next_log_us = now_us + LOG_INTERVAL_US;
	log_fields(LOG_LEVEL_WARN, NULL, sentence, LOG_STR("reason", why),
		LOG_INT("status", status), LOG_STR("url", otlp->url),
		LOG_INT("spans", otlp->batch_spans));
}

static void count(struct otlp *otlp, const char *result)
{
	metric_add(metric(otlp->metrics, &otlp_families[EXPORTS], result), 1);
}

static void took_batch(struct otlp *otlp, const struct buf *body)
{
	struct buf words = BUF_INIT(1024);
	uint64_t rejected = otlp_parse_rejected(
		(struct span){(const char *)body->data, body->len}, &words);
	buf_append_char(&words, '\0');
	if (rejected > otlp->batch_spans)
		rejected = otlp->batch_spans;
	otlp->exported += otlp->batch_spans - rejected;
	tracer_count_dropped(TRACER_REJECTED, rejected);
	count(otlp, rejected ? "partial" : "ok");
	if (rejected || words.len > 1)
		complain(otlp, "the collector has left spans out",
			buf_failed(&words) ? "" : (char *)words.data, 200);
	buf_free(&words);
	struct tracer_span *span;
	while ((span = STAILQ_FIRST(&otlp->batch))) {
		STAILQ_REMOVE_HEAD(&otlp->batch, link);
		free(span);
	}
	end_batch(otlp);
}

/* (OTLP/HTTP: "Failures"; no answer is one that is tried again too) */
static bool is_retryable(const struct http_call_result *result)
{
	switch (result->outcome) {
	case HTTP_CALL_OK:
		return result->status == 429 || result->status == 502 || result->status == 503 ||
		       result->status == 504;
	case HTTP_CALL_TOO_LARGE:
	case HTTP_CALL_BAD:
		return false;
	default:
		return true;
	}
}

static uint64_t wait_ms(struct otlp *otlp, const struct http_call *call)
{
	char text[64] = "";
	uint64_t wait = backoff_next_ms(&otlp->backoff) + BACKOFF_MIN_MS / 10;
	struct span value = http_call_header(call, "retry-after");
	if (!value.data || value.len >= sizeof text)
		return wait;
	memcpy(text, value.data, value.len);
	int64_t asked = retry_after_parse_ms(
		text, loop_wall_ms(otlp->loop), otlp->conf->export_timeout_ms + 1);
	return asked > (int64_t)wait ? (uint64_t)asked : wait;
}

static void try_again(
	struct otlp *otlp, const struct http_call *call, const struct http_call_result *result)
{
	uint64_t wait = wait_ms(otlp, call);
	complain(otlp, "traces cannot be exported",
		result->detail ? result->detail : "the collector asks to wait", result->status);
	if (otlp->flushing || loop_now_us(otlp->loop) + wait * 1000 > otlp->give_up_us) {
		count(otlp, "failed");
		drop_batch(otlp, TRACER_FAILED);
		return;
	}
	count(otlp, "retry");
	otlp->state = OTLP_BACKOFF;
	timer_arm(otlp->timer, wait);
}

static void on_done(struct http_call *call, const struct http_call_result *result, void *arg)
{
	struct otlp *otlp = arg;
	otlp->call = NULL;
	metric_observe(
		metric(otlp->metrics, &otlp_families[DURATION]), (double)result->duration_us / 1e6);
	if (result->outcome == HTTP_CALL_OK && result->status / 100 == 2) {
		took_batch(otlp, result->body);
	} else if (is_retryable(result)) {
		try_again(otlp, call, result);
	} else {
		complain(otlp, "the collector has refused traces",
			result->detail ? result->detail : "bad status", result->status);
		count(otlp, "failed");
		drop_batch(otlp, TRACER_REFUSED);
	}
}

static void send_batch(struct otlp *otlp)
{
	struct buf body = BUF_INIT(BATCH_MAX_BYTES + (1u << 20));
	struct tracer_span *span;
	buf_append(&body, otlp->head.data, otlp->head.len);
	STAILQ_FOREACH (span, &otlp->batch, link) {
		buf_append(&body, span->text, span->len);
		buf_append_char(&body, STAILQ_NEXT(span, link) ? ',' : ']');
	}
	buf_append_str(&body, "}]}]}");
	size_t len = 0;
	bool failed = buf_failed(&body);
	void *data = buf_take(&body, &len);
	uint64_t left_us = otlp->give_up_us - loop_now_us(otlp->loop);
	uint64_t timeout_ms = (uint64_t)otlp->conf->timeout_ms;
	if (otlp->give_up_us > loop_now_us(otlp->loop) && left_us / 1000 + 1 < timeout_ms)
		timeout_ms = left_us / 1000 + 1;
	struct http_call_options options = {
		.method = "POST",
		.url = otlp->url,
		.headers = (const char *const *)otlp->headers,
		.body = slice_malloced(data, len),
		.timeout_ms = (uint32_t)timeout_ms,
		.max_response_bytes = RESPONSE_MAX_BYTES,
	};
	otlp->state = OTLP_SENDING;
	if (failed)
		slice_release(&options.body);
	else
		otlp->call = http_client_call(otlp->http, &options, on_done, otlp);
	if (!otlp->call)
		drop_batch(otlp, TRACER_TOO_MANY);
}

/* ---- Settings ---- */

const char *otlp_conf_check(const struct otlp_conf *conf)
{
	if (!otlp_list_valid(conf->headers))
		return "OTEL_EXPORTER_OTLP_HEADERS must be like name=value,other=value";
	if (!otlp_list_valid(conf->resource_attributes))
		return "OTEL_RESOURCE_ATTRIBUTES must be like name=value,other=value";
	return NULL;
}

static bool wants_traces(const struct otlp_conf *conf)
{
	return !conf->disabled && conf->traces_exporter == OTLP_EXPORTER_OTLP &&
	       (*conf->traces_endpoint || *conf->endpoint);
}

static bool wants_metrics(const struct otlp_conf *conf)
{
	return !conf->disabled && conf->metrics_exporter == OTLP_METRICS_OTLP &&
	       (*conf->metrics_endpoint || *conf->endpoint);
}

static int make_headers(struct otlp *otlp)
{
	struct buf value = BUF_INIT(16384);
	struct span name;
	size_t n = 0;
	const char *at = otlp->conf->headers;
	otlp->headers[n++] = strdup("Content-Type: application/json");
	while (n <= MAX_HEADERS && otlp_list_next(&at, &name, &value) > 0)
		if (asprintf(&otlp->headers[n++], "%.*s: %s", SPAN_ARG(name), (char *)value.data) <
			0)
			otlp->headers[n - 1] = NULL;
	buf_free(&value);
	return otlp->headers[n - 1] ? 0 : -1;
}

static char *make_url(const char *whole, const char *base, const char *signal)
{
	char *url = NULL;
	if (*whole)
		return strdup(whole);
	return asprintf(&url, "%s/v1/%s", base, signal) < 0 ? NULL : url;
}

static int make_texts(struct otlp *otlp)
{
	const struct otlp_conf *conf = otlp->conf;
	char service[64];
	/* "gatewayd" of "gatewayd.1": instances are told apart by their ids. */
	snprintf(service, sizeof service, "%s", daemon_name(otlp->daemon));
	service[strcspn(service, ".")] = '\0';
	struct otlp_resource resource = {
		.service_name = conf->service_name,
		.attributes = conf->resource_attributes,
		.daemon = service,
		.instance_id = daemon_instance_id(otlp->daemon),
		.version = daemon_version(),
		.pid = getpid(),
	};
	otlp->url = make_url(conf->traces_endpoint, conf->endpoint, "traces");
	otlp->metrics_url = make_url(conf->metrics_endpoint, conf->endpoint, "metrics");
	otlp_append_resource(&otlp->resource, &resource);
	buf_append_str(&otlp->head, "{\"resourceSpans\":[{\"resource\":");
	buf_append(&otlp->head, otlp->resource.data, otlp->resource.len);
	buf_append_str(&otlp->head, ",\"scopeSpans\":[{\"scope\":{\"name\":\"embedding-gateway\"},"
				    "\"spans\":[");
	bool failed = !otlp->url || !otlp->metrics_url || buf_failed(&otlp->resource) ||
		      buf_failed(&otlp->head);
	return failed ? -1 : make_headers(otlp);
}

static void start_traces(struct otlp *otlp)
{
	const struct otlp_conf *conf = otlp->conf;
	struct tracer_options options = {
		.sampler = {.kind = (enum trace_sampler_kind)conf->sampler,
			.ratio = conf->sampler_ratio},
		.max_queued = (size_t)conf->max_queued,
		.max_attributes = (uint32_t)conf->max_attributes,
		.max_links = (uint32_t)conf->max_links,
		.max_value_bytes = (uint32_t)conf->max_value_bytes,
		.on_queued = on_queued,
		.arg = otlp,
	};
	tracer_open(otlp->loop, &options);
	otlp->on = true;
	log_fields(LOG_LEVEL_INFO, NULL, "traces are exported", LOG_STR("url", otlp->url));
}

static int start_metrics(struct otlp *otlp)
{
	struct otlp_metrics_options options = {
		.url = otlp->metrics_url,
		.headers = (const char *const *)otlp->headers,
		.resource = {(const char *)otlp->resource.data, otlp->resource.len},
		.interval_ms = (uint64_t)otlp->conf->metrics_interval_ms,
		.timeout_ms = (uint32_t)otlp->conf->timeout_ms,
	};
	otlp->exporter = otlp_metrics_new(otlp->loop, otlp->http, otlp->metrics, &options);
	return otlp->exporter ? 0 : -1;
}

static int start(struct otlp *otlp)
{
	const struct otlp_conf *conf = otlp->conf;
	struct http_client_options http = http_client_defaults;
	if (!wants_traces(conf) && !wants_metrics(conf))
		return 0;
	if (*conf->ca_file)
		http.ca_file = conf->ca_file;
	http.max_connections = 2;
	otlp->http = http_client_new(otlp->loop, &http);
	if (!otlp->http || make_texts(otlp) < 0)
		return -1;
	if (wants_metrics(conf) && start_metrics(otlp) < 0)
		return -1;
	if (wants_traces(conf))
		start_traces(otlp);
	return 0;
}

/* ---- Life ---- */

static void collect(void *arg)
{
	const struct otlp *otlp = arg;
	const struct tracer_counters *counters = tracer_counters();
	metric_set(metric(otlp->metrics, &otlp_families[SPANS]), (double)counters->ended);
	metric_set(metric(otlp->metrics, &otlp_families[EXPORTED]), (double)otlp->exported);
	metric_set(metric(otlp->metrics, &otlp_families[QUEUED]),
		(double)(counters->queued + otlp->batch_spans));
	if (otlp->exporter) {
		metric_set(metric(otlp->metrics, &otlp_families[METRIC_EXPORTS], "ok"),
			(double)otlp_metrics_exported(otlp->exporter));
		metric_set(metric(otlp->metrics, &otlp_families[METRIC_EXPORTS], "failed"),
			(double)otlp_metrics_failed(otlp->exporter));
	}
	for (int i = 0; i < TRACER_DROPS; i++)
		metric_set(metric(otlp->metrics, &otlp_families[DROPPED], tracer_drop_names[i]),
			(double)counters->dropped[i]);
}

struct otlp *otlp_new(struct daemon *daemon, const struct otlp_conf *conf)
{
	struct otlp *otlp = calloc(1, sizeof *otlp);
	if (!otlp)
		return NULL;
	otlp->conf = conf;
	otlp->daemon = daemon;
	otlp->loop = daemon_loop(daemon);
	otlp->metrics = daemon_metrics(daemon);
	STAILQ_INIT(&otlp->batch);
	buf_init(&otlp->resource, 1u << 19);
	buf_init(&otlp->head, 1u << 20);
	deferred_init(&otlp->flushed, tell_flushed, otlp);
	backoff_init(&otlp->backoff, BACKOFF_MIN_MS, BACKOFF_MAX_MS, 2);
	otlp->timer = timer_new(otlp->loop, on_timer, otlp);
	otlp->flush_timer = timer_new(otlp->loop, end_flush, otlp);
	if (!otlp->timer || !otlp->flush_timer || start(otlp) < 0) {
		otlp_free(&otlp);
		return NULL;
	}
	metrics_on_collect(otlp->metrics, collect, otlp);
	return otlp;
}

void otlp_flush(struct otlp *otlp, void (*on_flushed)(void *arg), void *arg)
{
	otlp->on_flushed = on_flushed;
	otlp->on_flushed_arg = arg;
	otlp->flushing = true;
	otlp->metrics_flushed = !otlp->exporter;
	if (otlp->on || otlp->exporter)
		timer_arm(otlp->flush_timer, OTLP_FLUSH_MS);
	if (otlp->exporter)
		otlp_metrics_flush(otlp->exporter, metrics_flushed, otlp);
	if (otlp->state == OTLP_BACKOFF)
		timer_arm(otlp->timer, 0);
	else if (otlp->state == OTLP_IDLE)
		next_batch(otlp);
}

void otlp_free(struct otlp **pointer)
{
	struct otlp *otlp = *pointer;
	if (!otlp)
		return;
	*pointer = NULL;
	if (otlp->on)
		tracer_close();
	tracer_drop(&otlp->batch, TRACER_STOPPED);
	otlp_metrics_free(&otlp->exporter);
	http_call_cancel(&otlp->call);
	http_client_free(&otlp->http);
	loop_defer_cancel(otlp->loop, &otlp->flushed);
	timer_free(&otlp->timer);
	timer_free(&otlp->flush_timer);
	for (size_t i = 0; otlp->headers[i]; i++)
		free(otlp->headers[i]);
	buf_free(&otlp->resource);
	buf_free(&otlp->head);
	free(otlp->url);
	free(otlp->metrics_url);
	free(otlp);
}
