#ifndef COMMON_OTLP_METRICS_H
#define COMMON_OTLP_METRICS_H

/*
 * The metrics of a process, sent to a collector once in a while: what /metrics shows, as OTLP JSON,
 * under the same names, cumulative since the start. What cannot be sent is not sent again: the next
 * export says it all. Part of otlp.h. Loop thread only.
 * (opentelemetry-proto, metrics/v1/metrics.proto)
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/metrics.h"
#include "common/span.h"

struct http_client;
struct loop;
struct otlp_metrics;

struct otlp_metrics_options {
	const char *url;
	const char *const *headers; /* lent */
	struct span resource;       /* JSON, lent */
	uint64_t interval_ms;
	uint32_t timeout_ms;
};

/* {"resourceMetrics":...}; nothing that is not a number is in it. Times are nanoseconds since 1970.
 */
void otlp_metrics_write(struct metrics *metrics, struct span resource, uint64_t start_ns,
	uint64_t now_ns, struct buf *out);

/* http and metrics are borrowed. NULL when out of memory. */
struct otlp_metrics *otlp_metrics_new(struct loop *loop, struct http_client *http,
	struct metrics *metrics, const struct otlp_metrics_options *options);
/* Export now, for the last time. on_idle comes once, when that has ended, never from inside. */
void otlp_metrics_flush(struct otlp_metrics *metrics, void (*on_idle)(void *arg), void *arg);
uint64_t otlp_metrics_exported(const struct otlp_metrics *metrics); /* requests that succeeded */
uint64_t otlp_metrics_failed(const struct otlp_metrics *metrics);
void otlp_metrics_free(struct otlp_metrics **metrics);

#endif
