#ifndef GATEWAYD_EMBEDDINGS_SPAN_H
#define GATEWAYD_EMBEDDINGS_SPAN_H

/* What the span of an embeddings request says of its n elements, by where they came from. span may
 * be NULL. (OpenTelemetry's conventions for generative AI) */
#include "common/trace_span.h"
#include "gatewayd/stats.h"

void embeddings_span_note(
	struct trace_span *span, struct span model, size_t n, const size_t from[STATS_SOURCES]);

#endif
