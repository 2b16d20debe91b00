#ifndef GATEWAYD_EMBEDDINGS_SPAN_H
#define GATEWAYD_EMBEDDINGS_SPAN_H

/* What the span of an embeddings request says of its n elements, by where they came from. span may
 * be NULL. (OpenTelemetry's conventions for generative AI) */
#include "common/trace_span.h"
#include "gatewayd/stats.h"

void embeddings_span_note(
	struct trace_span *span, struct span model, size_t n, const size_t from[STATS_SOURCES]);

/* What it waited for was brought by this other one; *last is the one that was linked before, and
 * stays so: texts of one purchase are one link. */
void embeddings_span_link(struct trace_span *span, struct trace *last, const struct trace *other);

#endif
