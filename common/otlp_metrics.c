#include "common/otlp_metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/http_client.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"

#define BODY_MAX_BYTES     (16u << 20)
#define RESPONSE_MAX_BYTES (64u << 10)
#define LOG_INTERVAL_US    (60ull * 1000 * 1000)

/* ---- The text ---- */

struct writing {
	struct buf *out;
	const struct metric_family *family;
	uint64_t start_ns, now_ns;
	size_t n_families, n_points, n_series; /* points of this family so far; series that come */
};

static bool ends_with(const char *name, const char *end)
{
	size_t n = strlen(name), m = strlen(end);
	return n >= m && strcmp(name + n - m, end) == 0;
}

/* By the suffixes that Prometheus wants. (UCUM, as OTLP wants it) */
static const char *unit_of(const char *name)
{
	if (ends_with(name, "_seconds") || ends_with(name, "_seconds_total"))
		return "s";
	if (ends_with(name, "_bytes") || ends_with(name, "_bytes_total"))
		return "By";
	return "1";
}

static void end_family(struct writing *w)
{
	static const char *const ends[] = {
		[METRIC_COUNTER] = "],\"aggregationTemporality\":2,\"isMonotonic\":true}}",
		[METRIC_GAUGE] = "]}}",
		[METRIC_HISTOGRAM] = "],\"aggregationTemporality\":2}}"};
	if (w->family)
		buf_append_str(w->out, ends[w->family->type]);
}

static void on_family(const struct metric_family *family, size_t n_series, void *arg)
{
	static const char *const kinds[] = {[METRIC_COUNTER] = "sum",
		[METRIC_GAUGE] = "gauge",
		[METRIC_HISTOGRAM] = "histogram"};
	struct writing *w = arg;
	(void)n_series;
	end_family(w);
	buf_append_str(w->out, w->n_families++ ? ",{\"name\":" : "{\"name\":");
	json_append_string(w->out, span_of(family->name));
	buf_append_str(w->out, ",\"description\":");
	json_append_string(w->out, span_of(family->help));
	buf_printf(w->out, ",\"unit\":\"%s\",\"%s\":{\"dataPoints\":[", unit_of(family->name),
		kinds[family->type]);
	w->family = family;
	w->n_points = 0;
}

static void write_attributes(struct writing *w, const char *const *values)
{
	if (!w->family->labels[0])
		return;
	buf_append_str(w->out, "\"attributes\":[");
	for (unsigned i = 0; w->family->labels[i]; i++) {
		buf_append_str(w->out, i ? ",{\"key\":" : "{\"key\":");
		json_append_string(w->out, span_of(w->family->labels[i]));
		buf_append_str(w->out, ",\"value\":{\"stringValue\":");
		json_append_string(w->out, span_of(values[i]));
		buf_append_str(w->out, "}}");
	}
	buf_append_str(w->out, "],");
}

/* Ours are cumulative, OTLP's are not. */
static void write_buckets(struct writing *w, const uint64_t *counts, size_t n)
{
	buf_printf(w->out, ",\"count\":\"%" PRIu64 "\",\"bucketCounts\":[", counts[n - 1]);
	for (size_t i = 0; i < n; i++)
		buf_printf(w->out, "%s\"%" PRIu64 "\"", i ? "," : "",
			counts[i] - (i ? counts[i - 1] : 0));
	buf_append_str(w->out, "],\"explicitBounds\":[");
	for (size_t i = 0; i + 1 < n; i++) {
		if (i)
			buf_append_char(w->out, ',');
		buf_append_double(w->out, w->family->buckets[i]);
	}
	buf_append_char(w->out, ']');
}

static void on_series(
	const char *const *values, double value, const uint64_t *counts, size_t n_counts, void *arg)
{
	struct writing *w = arg;
	if (!isfinite(value))
		return;
	buf_append_str(w->out, w->n_points++ ? ",{" : "{");
	write_attributes(w, values);
	if (w->family->type != METRIC_GAUGE)
		buf_printf(w->out, "\"startTimeUnixNano\":\"%" PRIu64 "\",", w->start_ns);
	buf_printf(w->out, "\"timeUnixNano\":\"%" PRIu64 "\"", w->now_ns);
	if (counts && n_counts)
		write_buckets(w, counts, n_counts);
	buf_append_str(w->out, counts ? ",\"sum\":" : ",\"asDouble\":");
	buf_append_double(w->out, value);
	buf_append_char(w->out, '}');
}

void otlp_metrics_write(struct metrics *metrics, struct span resource, uint64_t start_ns,
	uint64_t now_ns, struct buf *out)
{
	static const struct metrics_visitor visitor = {.family = on_family, .series = on_series};
	struct writing w = {.out = out, .start_ns = start_ns, .now_ns = now_ns};
	buf_append_str(out, "{\"resourceMetrics\":[{\"resource\":");
	buf_append(out, resource.data, resource.len);
	buf_append_str(out, ",\"scopeMetrics\":[{\"scope\":{\"name\":\"embedding-gateway\"},"
			    "\"metrics\":[");
	metrics_visit(metrics, &visitor, &w);
	end_family(&w);
	buf_append_str(out, "]}]}]}");
}

/* ---- Exports ---- */

struct otlp_metrics {
	struct loop *loop;
	struct http_client *http;
	struct metrics *metrics;
	struct otlp_metrics_options options;
	uint64_t start_ns;
	struct timer *timer;
	struct http_call *call;
	uint64_t exported, failed, next_log_us;
	struct deferred idle;
	void (*on_idle)(void *arg);
	void *on_idle_arg;
};

static uint64_t wall_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void tell_idle(void *arg)
{
	struct otlp_metrics *m = arg;
	void (*on_idle)(void *arg) = m->on_idle;
	m->on_idle = NULL;
	if (on_idle)
		on_idle(m->on_idle_arg);
}

static void ended(struct otlp_metrics *m)
{
	if (m->on_idle)
		loop_defer(m->loop, &m->idle);
	else
		timer_arm(m->timer, m->options.interval_ms);
}

static void fail(struct otlp_metrics *m, const char *why, int status)
{
	uint64_t now_us = loop_now_us(m->loop);
	m->failed++;
	if (m->next_log_us <= now_us) {
		m->next_log_us = now_us + LOG_INTERVAL_US;
		log_fields(LOG_LEVEL_WARN, NULL, "metrics cannot be exported",
			LOG_STR("reason", why), LOG_INT("status", status),
			LOG_STR("url", m->options.url));
	}
	ended(m);
}

static void on_done(struct http_call *call, const struct http_call_result *result, void *arg)
{
	(void)call;
	struct otlp_metrics *m = arg;
	m->call = NULL;
	if (result->outcome != HTTP_CALL_OK || result->status / 100 != 2) {
		fail(m, result->detail ? result->detail : "bad status", result->status);
		return;
	}
	m->exported++;
	ended(m);
}

static void export(void *arg)
{
	struct otlp_metrics *m = arg;
	struct buf body = BUF_INIT(BODY_MAX_BYTES);
	otlp_metrics_write(m->metrics, m->options.resource, m->start_ns, wall_ns(), &body);
	if (buf_failed(&body)) {
		buf_free(&body);
		fail(m, "out of memory", 0);
		return;
	}
	size_t len = 0;
	void *data = buf_take(&body, &len);
	struct http_call_options options = {
		.method = "POST",
		.url = m->options.url,
		.headers = m->options.headers,
		.body = slice_malloced(data, len),
		.timeout_ms = m->options.timeout_ms,
		.max_response_bytes = RESPONSE_MAX_BYTES,
	};
	m->call = http_client_call(m->http, &options, on_done, m);
	if (!m->call)
		fail(m, "out of memory", 0);
}

struct otlp_metrics *otlp_metrics_new(struct loop *loop, struct http_client *http,
	struct metrics *metrics, const struct otlp_metrics_options *options)
{
	struct otlp_metrics *m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	m->loop = loop;
	m->http = http;
	m->metrics = metrics;
	m->options = *options;
	m->start_ns = wall_ns();
	deferred_init(&m->idle, tell_idle, m);
	m->timer = timer_new(loop, export, m);
	if (!m->timer) {
		free(m);
		return NULL;
	}
	timer_arm(m->timer, options->interval_ms);
	return m;
}

void otlp_metrics_flush(struct otlp_metrics *m, void (*on_idle)(void *arg), void *arg)
{
	m->on_idle = on_idle;
	m->on_idle_arg = arg;
	timer_disarm(m->timer);
	/* One under way may be old, but there is no time for two. */
	if (!m->call)
		export(m);
}

uint64_t otlp_metrics_exported(const struct otlp_metrics *m)
{
	return m->exported;
}

uint64_t otlp_metrics_failed(const struct otlp_metrics *m)
{
	return m->failed;
}

void otlp_metrics_free(struct otlp_metrics **pointer)
{
	struct otlp_metrics *m = *pointer;
	if (!m)
		return;
	*pointer = NULL;
	http_call_cancel(&m->call);
	loop_defer_cancel(m->loop, &m->idle);
	timer_free(&m->timer);
	free(m);
}
