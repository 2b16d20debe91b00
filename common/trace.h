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

/* What a request's headers say of its trace, to be passed on. */
#define TRACE_STATE_MAX_BYTES 512 /* what must be passed on at least, and what we do */
struct trace_context {
	struct trace trace;
	char state[TRACE_STATE_MAX_BYTES + 1]; /* tracestate; "": none */
};
/* The state as it was sent, if it can be passed on: "" when it is absent (data NULL), too long, or
 * not printable ASCII. */
void trace_state_copy(struct span tracestate, char state[TRACE_STATE_MAX_BYTES + 1]);

/* 0, or -1 when the header is absent or not valid (then a new trace begins with trace_start()). */
int trace_parse(struct span traceparent, struct trace *trace);
/* A new trace with random ids. */
void trace_start(struct trace *trace, bool sampled);
/* A child: same trace, new span id. */
struct trace trace_child(const struct trace *parent);
/* n bytes as 2 n characters, without a NUL; returns what follows them. */
char *trace_format_hex(char *text, const uint8_t *bytes, size_t n);
/* Writes TRACE_PARENT_LEN characters and a NUL. */
void trace_format(const struct trace *trace, char text[TRACE_PARENT_LEN + 1]);
/* Same, and returns text: for the argument of a call. NULL for NULL. */
const char *trace_format_text(const struct trace *trace, char text[TRACE_PARENT_LEN + 1]);
/* Same, in memory that ends with the block around it: for arguments, not for what is kept. */
#define TRACE_TEXT(trace) trace_format_text((trace), (char[TRACE_PARENT_LEN + 1]){0})

#endif
