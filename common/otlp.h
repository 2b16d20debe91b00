#ifndef COMMON_OTLP_H
#define COMMON_OTLP_H

/*
 * Sends a process's spans, and its metrics if that is wanted (otlp_metrics.h), to a collector: OTLP
 * over HTTP, JSON encoding, set up by the OTEL_* variables that every OpenTelemetry SDK knows. Off
 * unless an endpoint is set.
 * (https://opentelemetry.io/docs/specs/otlp/#otlphttp)
 *
 *               a full batch, or the delay is over           200
 *      IDLE ------------------------------------> SENDING --------> IDLE
 *                                          ^        | 429, 502, 503, 504, no answer
 *                                          |        v
 *                                       time over  BACKOFF (Retry-After holds)
 *
 * One batch is under way at a time; it is given up OTEL_BSP_EXPORT_TIMEOUT after its first attempt,
 * or at once when the collector does not want it (any other status). Meanwhile spans wait in the
 * tracer's queue, and are dropped and counted when that is full: a dead collector costs its bounds
 * and a line in the log each minute. Loop thread only.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/metrics.h"
#include "common/trace_sampler.h"

struct daemon;
struct otlp;

/* A part of a daemon's conf. */
struct otlp_conf {
	char *endpoint, *traces_endpoint, *metrics_endpoint; /* "" : none */
	char *headers; /* name=value,name=value; values percent-encoded */
	char *service_name, *resource_attributes;
	char *ca_file;
	int protocol;
	int64_t timeout_ms; /* of one HTTP request */
	bool disabled;
	int traces_exporter; /* OTLP_EXPORTER_NAMES */
	int sampler;         /* enum trace_sampler_kind */
	double sampler_ratio;
	int64_t max_queued, max_batch, delay_ms, export_timeout_ms;
	int64_t max_attributes, max_value_bytes, max_links;
	int metrics_exporter; /* enum otlp_metrics_exporter */
	int64_t metrics_interval_ms;
};
enum otlp_exporter { OTLP_EXPORTER_OTLP, OTLP_EXPORTER_NONE };
enum otlp_metrics_exporter { OTLP_METRICS_NONE, OTLP_METRICS_OTLP };

/* The rows for a daemon's table; AT(member) is the offset of that member of its otlp_conf. */
/* clang-format off */
#define OTLP_CONFIG_ROWS(AT) \
	{"otel-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT", CONFIG_URL, AT(endpoint), \
		.section = "Traces and metrics by OTLP", \
		.help = "base URL of a collector, e.g. http://127.0.0.1:4318; traces go to /v1/traces there, metrics to /v1/metrics"}, \
	{"otel-traces-endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", CONFIG_URL, AT(traces_endpoint), \
		.help = "the whole URL for traces, instead"}, \
	{NULL, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", CONFIG_SECRET, AT(headers), \
		.env_alias = "OTEL_EXPORTER_OTLP_HEADERS", \
		.help = "headers of every export: name=value,name=value; values percent-encoded"}, \
	{"otel-protocol", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", CONFIG_CHOICE, AT(protocol), \
		.env_alias = "OTEL_EXPORTER_OTLP_PROTOCOL", .def = "http/json", .choices = "http/json", \
		.help = "the one protocol that is spoken"}, \
	{"otel-timeout", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", CONFIG_MS, AT(timeout_ms), \
		.env_alias = "OTEL_EXPORTER_OTLP_TIMEOUT", .def = "10000", .min = 1, .max = 600000, \
		.unit = "ms", .help = "of one HTTP request to the collector"}, \
	{"otel-certificate", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", CONFIG_PATH, AT(ca_file), \
		.env_alias = "OTEL_EXPORTER_OTLP_CERTIFICATE", \
		.help = "PEM file of certificate authorities for an https endpoint; the system's when not set"}, \
	{"otel-service-name", "OTEL_SERVICE_NAME", CONFIG_STRING, AT(service_name), \
		.help = "service.name; the name of the daemon when not set"}, \
	{"otel-resource-attributes", "OTEL_RESOURCE_ATTRIBUTES", CONFIG_STRING, AT(resource_attributes), \
		.help = "more about this process: name=value,name=value; percent-encoded"}, \
	{"otel-sdk-disabled", "OTEL_SDK_DISABLED", CONFIG_BOOL, AT(disabled), .def = "false", \
		.help = "no traces and no metrics by OTLP, whatever else is set"}, \
	{"otel-traces-exporter", "OTEL_TRACES_EXPORTER", CONFIG_CHOICE, AT(traces_exporter), \
		.def = "otlp", .choices = "otlp|none", .help = "none: no traces"}, \
	{"otel-traces-sampler", "OTEL_TRACES_SAMPLER", CONFIG_CHOICE, AT(sampler), \
		.def = "parentbased_always_on", .choices = TRACE_SAMPLER_NAMES, \
		.help = "which traces are recorded; parentbased: as the caller's traceparent says, if there is one"}, \
	{"otel-traces-sampler-arg", "OTEL_TRACES_SAMPLER_ARG", CONFIG_DOUBLE, AT(sampler_ratio), \
		.def = "1", .min = 0, .max = 1, .help = "share of the traces, for traceidratio"}, \
	{"otel-bsp-max-queue-size", "OTEL_BSP_MAX_QUEUE_SIZE", CONFIG_INT, AT(max_queued), \
		.def = "2048", .min = 1, .max = 1000000, \
		.help = "spans that wait for their export; further ones are dropped and counted"}, \
	{"otel-bsp-max-export-batch-size", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", CONFIG_INT, AT(max_batch), \
		.def = "512", .min = 1, .max = 10000, .help = "spans of one export"}, \
	{"otel-bsp-schedule-delay", "OTEL_BSP_SCHEDULE_DELAY", CONFIG_MS, AT(delay_ms), \
		.def = "5000", .min = 1, .max = 3600000, .unit = "ms", \
		.help = "a batch that is not full goes out so long after its first span"}, \
	{"otel-bsp-export-timeout", "OTEL_BSP_EXPORT_TIMEOUT", CONFIG_MS, AT(export_timeout_ms), \
		.def = "30000", .min = 1, .max = 3600000, .unit = "ms", \
		.help = "a batch that could not be exported for so long is dropped and counted"}, \
	{"otel-span-attribute-count-limit", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", CONFIG_INT, AT(max_attributes), \
		.env_alias = "OTEL_ATTRIBUTE_COUNT_LIMIT", .def = "128", .min = 1, .max = 10000, \
		.help = "attributes of one span"}, \
	{"otel-span-attribute-value-length-limit", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", CONFIG_INT, AT(max_value_bytes), \
		.env_alias = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", .def = "1024", .min = 1, .max = 32768, \
		.help = "bytes of one attribute's text; the rest is cut off"}, \
	{"otel-span-link-count-limit", "OTEL_SPAN_LINK_COUNT_LIMIT", CONFIG_INT, AT(max_links), \
		.def = "128", .min = 1, .max = 400, .help = "links of one span"}, \
	{"otel-metrics-exporter", "OTEL_METRICS_EXPORTER", CONFIG_CHOICE, AT(metrics_exporter), \
		.def = "none", .choices = "none=prometheus|otlp", \
		.help = "otlp: metrics go to the collector too; /metrics is there in any case"}, \
	{"otel-metrics-endpoint", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", CONFIG_URL, AT(metrics_endpoint), \
		.help = "the whole URL for metrics, instead of the base URL"}, \
	{"otel-metric-export-interval", "OTEL_METRIC_EXPORT_INTERVAL", CONFIG_MS, AT(metrics_interval_ms), \
		.def = "60000", .min = 10, .max = 3600000, .unit = "ms", \
		.help = "time between two exports of metrics"}
/* clang-format on */

extern const struct metric_family otlp_families[];
/* For a daemon's check(): NULL, or what is wrong (static). */
const char *otlp_conf_check(const struct otlp_conf *conf);

/* Opens the tracer, unless the settings want no traces: then *otlp only shows zeros. conf is
 * borrowed. NULL when out of memory. */
struct otlp *otlp_new(struct daemon *daemon, const struct otlp_conf *conf);
/* The daemon's last work: send what is queued, and the metrics, if that can be done within
 * OTLP_FLUSH_MS. on_flushed comes once, never from inside this call. */
#define OTLP_FLUSH_MS 500
void otlp_flush(struct otlp *otlp, void (*on_flushed)(void *arg), void *arg);
/* Closes the tracer. */
void otlp_free(struct otlp **otlp);

#endif
