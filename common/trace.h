#ifndef COMMON_TRACE_H
#define COMMON_TRACE_H

/*
 * Trace context (W3C Trace Context, https://www.w3.org/TR/trace-context/): which trace a request
 * belongs to, carried through HTTP headers and RPC. Safe on any thread.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/span.h"

#define TRACE_PARENT_LEN 55 /* 00-<32 hex>-<16 hex>-<2 hex> */

struct trace {
	uint8_t trace_id[16];
	uint8_t span_id[8];
	bool sampled;
};

/* 0, or -1 when the header is absent or not valid (then a new trace begins with trace_start()). */
int trace_parse(struct span traceparent, struct trace *trace);
/* A new trace with random ids. */
void trace_start(struct trace *trace, bool sampled);
/* A child: same trace, new span id. */
struct trace trace_child(const struct trace *parent);
/* Writes TRACE_PARENT_LEN characters and a NUL. */
void trace_format(const struct trace *trace, char text[TRACE_PARENT_LEN + 1]);

#endif
