#ifndef COMMON_METRICS_H
#define COMMON_METRICS_H

/*
 * The metrics of a daemon: families declared as constant rows, series made on first use, shown as
 * Prometheus text (version 0.0.4) and over RPC (`metrics`). Loop thread only.
 *
 * (Prometheus exposition formats: https://prometheus.io/docs/instrumenting/exposition_formats/)
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/buf.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

#define METRIC_MAX_LABELS 6

/* One row a family: the text on the page and docs/METRICS.md come from it. */
struct metric_family {
	const char *name; /* counters end in _total */
	enum metric_type type;
	const char *help;
	const char *labels[METRIC_MAX_LABELS + 1]; /* names, ends with NULL */
	const double *buckets;    /* histograms: ascending upper bounds, ends with 0 */
	const char *const *known; /* values of the only label, ends with NULL: shown from the start,
				     as rate() and increase() do not see a series' first value */
	unsigned max_series; /* further ones share a series whose labels are "other"; 0: 1,000 */
};
extern const double metrics_latency_buckets[]; /* 50 us to 60 s, in seconds */

struct metrics;
struct metric; /* one series; lives as long as its struct metrics */

struct metrics *metrics_new(void);
void metrics_free(struct metrics **metrics);
/* Announce families, so that those without labels and known series show a zero and all are known to
 * the docs. Ends
 * with a NULL name. */
void metrics_register(struct metrics *metrics, const struct metric_family *families);
/* The series with these label values (in the order of the row, exactly as many, then NULL). Bytes
 * that are not UTF-8 become U+FFFD, and values end after 256 bytes. Keep the pointer for hot paths.
 * Never NULL. */
struct metric *metrics_get(
	struct metrics *metrics, const struct metric_family *family, const char *const *values);
/* As metrics_get(), values as arguments: metric(m, &family, "openai", "200"). */
#define metric(metrics, family, ...) \
	metrics_get((metrics), (family), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

/* Forget all series of a family, for one whose labels come and go: pointers to them are dead. */
void metrics_forget(struct metrics *metrics, const struct metric_family *family);

void metric_add(struct metric *metric, double value); /* a counter ignores negative values */
void metric_set(struct metric *metric, double value);
void metric_observe(struct metric *metric, double value); /* a histogram; NaN is ignored */
double metric_value(const struct metric *metric);         /* a histogram's count */

/* Called before each exposition, to set gauges. Several may be added. */
void metrics_on_collect(struct metrics *metrics, void (*collect)(void *arg), void *arg);

/* Append the page: families by name, series in order of creation, one HELP and one TYPE each, only
 * families with a series. */
void metrics_write_text(struct metrics *metrics, struct buf *out);

/* For the RPC encoder: visit everything (after collecting). */
struct metrics_visitor {
	void (*family)(const struct metric_family *family, size_t n_series, void *arg);
	/* values: one a label. counts: cumulative per bucket with +Inf last; NULL unless histogram.
	 */
	void (*series)(const char *const *values, double value_or_sum, const uint64_t *counts,
		size_t n_counts, void *arg);
};
void metrics_visit(struct metrics *metrics, const struct metrics_visitor *visitor, void *arg);

/* A Markdown table of the registered families, for docs/METRICS.md. */
void metrics_print_markdown(const struct metrics *metrics, FILE *out);

#endif
