#ifndef COMMON_TRACER_H
#define COMMON_TRACER_H

/*
 * Where a process's spans go when they end: a queue with bounds, from which an exporter takes
 * batches. One tracer a process, as there is one log; none is open unless traces are wanted. Never
 * waits: a span for which there is no room is dropped and counted. Loop thread only.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/trace_sampler.h"

struct loop;

struct tracer_options {
	struct trace_sampler sampler;
	size_t max_queued; /* spans that have ended */
	uint32_t max_attributes, max_links;
	uint32_t max_value_bytes;
	/* Called after each span that was queued; n: so many are now. */
	void (*on_queued)(size_t n, void *arg);
	void *arg;
};

/* Bounds of our own, beside those of the settings. */
#define TRACER_MAX_LIVE         65536       /* spans that have not ended */
#define TRACER_MAX_SPAN_BYTES   (64u << 10) /* the text of one */
#define TRACER_MAX_QUEUED_BYTES (16u << 20) /* of all that are queued */

/* Why spans were dropped. */
enum tracer_drop {
	TRACER_QUEUE_FULL,
	TRACER_TOO_MANY, /* were open at the same time, or memory was short */
	TRACER_TOO_LARGE,
	TRACER_FAILED,   /* the receiver could not be reached in time */
	TRACER_REFUSED,  /* it did not want the batch */
	TRACER_REJECTED, /* it left some of a batch out: partial success */
	TRACER_STOPPED,  /* not sent before the end of the process */
	TRACER_DROPS
};
extern const char *const tracer_drop_names[TRACER_DROPS];

struct tracer_counters {
	uint64_t ended; /* spans, dropped or not */
	uint64_t dropped[TRACER_DROPS];
	size_t live, queued;
	size_t queued_bytes;
};

/* A span that has ended: its OTLP JSON. */
struct tracer_span {
	STAILQ_ENTRY(tracer_span) link;
	size_t len;
	char text[];
};
STAILQ_HEAD(tracer_spans, tracer_span);

/* From now on spans are recorded. options are copied. */
void tracer_open(struct loop *loop, const struct tracer_options *options);
/* Nothing is recorded any more; what is queued is dropped. Spans that are open may still end. */
void tracer_close(void);
const struct tracer_counters *tracer_counters(void);
/* Move up to max spans of at most max_bytes (but one in any case) to *to, the oldest first; how
 * many. */
size_t tracer_take(struct tracer_spans *to, size_t max, size_t max_bytes);
/* Free them; why says how they are counted. */
void tracer_drop(struct tracer_spans *spans, enum tracer_drop why);
void tracer_count_dropped(enum tracer_drop why, uint64_t n);

#endif
