#ifndef COMMON_TRACE_SPAN_H
#define COMMON_TRACE_SPAN_H

/*
 * The spans of a trace (OpenTelemetry's): a named piece of work with a beginning, an end and
 * attributes. (common/span.h is something else: borrowed bytes.)
 *
 *   trace_span_enter()  a request came in: decides whether its trace is recorded
 *     trace_span_begin()  a step of it: a look-up, a call
 *     trace_span_end()
 *   trace_span_end()    -> the tracer's queue (common/tracer.h)
 *
 * A span that is not recorded is NULL, and every function here takes NULL and does nothing; while
 * no tracer is open, that costs one test of a flag. A span is text from the beginning: setting an
 * attribute appends JSON (OTLP's), so an attribute can be set once only. What goes beyond the
 * limits is left out and counted in the span itself. Names of attributes are constants. Loop thread
 * only.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/span.h"
#include "common/trace.h"

struct trace_span;

/* As OTLP numbers them. */
enum trace_span_kind { TRACE_SPAN_INTERNAL = 1, TRACE_SPAN_SERVER, TRACE_SPAN_CLIENT };

#define TRACE_SPAN_NAME_MAX_BYTES 127

extern bool trace_span_recording; /* a tracer is open; private to this file and tracer.c */

struct trace_span *trace_span_enter_recording(
	const struct trace *parent, struct trace *ours, struct span name);
struct trace_span *trace_span_begin_recording(const struct trace *parent, struct trace *ours,
	enum trace_span_kind kind, struct span name);

/*
 * A request came in. traceparent: its header (data NULL: none); what is not valid begins a new
 * trace. *ours gets the ids that this process goes by, recorded or not: for the log, and as the
 * parent of what follows. Without a tracer a new trace is not sampled, and another's flag is passed
 * on.
 */
static inline struct trace_span *trace_span_enter(
	struct span traceparent, struct trace *ours, struct span name)
{
	struct trace parent;
	bool has_parent = trace_parse(traceparent, &parent) == 0;
	if (has_parent)
		*ours = trace_child(&parent);
	else
		trace_start(ours, false);
	return trace_span_recording
		       ? trace_span_enter_recording(has_parent ? &parent : NULL, ours, name)
		       : NULL;
}

/* A step below parent. *ours: the ids of the step, to be passed on; the parent's own ones when it
 * is not recorded. May be the same struct. */
static inline struct trace_span *trace_span_begin(
	const struct trace *parent, struct trace *ours, enum trace_span_kind kind, struct span name)
{
	if (trace_span_recording && parent->sampled)
		return trace_span_begin_recording(parent, ours, kind, name);
	*ours = *parent;
	return NULL;
}

/* Another name than at the beginning: once the route is known. */
void trace_span_name(struct trace_span *span, struct span name);

/* Attributes. Text that is not UTF-8 gets U+FFFD, and is cut at the limit. */
void trace_span_str(struct trace_span *span, const char *name, struct span value);
void trace_span_text(struct trace_span *span, const char *name, const char *value); /* NULL: none */
void trace_span_int(struct trace_span *span, const char *name, int64_t value);
void trace_span_bool(struct trace_span *span, const char *name, bool value);

/* It began so long before now, instead of when trace_span_begin() was called. */
void trace_span_began_before(struct trace_span *span, uint64_t us);
/* Something in another place of this trace, or in another trace, that this one waited for. */
void trace_span_link(struct trace_span *span, const struct trace *other);
/* It failed: status Error. message: one sentence, for people, or NULL; error_type (a constant, or
 * NULL) becomes the attribute error.type. The first one counts. */
void trace_span_fail(struct trace_span *span, const char *error_type, const char *message);

/* Over. Clears the pointer. */
void trace_span_end_recorded(struct trace_span **span);
static inline void trace_span_end(struct trace_span **span)
{
	if (*span)
		trace_span_end_recorded(span);
}

#endif
