#include "gatewayd/embeddings_span.h"

#include <string.h>

void embeddings_span_note(
	struct trace_span *span, struct span model, size_t n, const size_t from[STATS_SOURCES])
{
	static const char *const names[STATS_SOURCES] = {
		[STATS_MEMORY] = "gateway.elements.memory",
		[STATS_STORE] = "gateway.elements.store",
		[STATS_BOUGHT] = "gateway.elements.bought",
		[STATS_JOINED] = "gateway.elements.joined",
	};
	trace_span_text(span, "gen_ai.operation.name", "embeddings");
	trace_span_str(span, "gen_ai.request.model", model);
	trace_span_int(span, "gateway.elements", (int64_t)n);
	for (int i = 0; i < STATS_SOURCES; i++)
		trace_span_int(span, names[i], (int64_t)from[i]);
}

void embeddings_span_link(struct trace_span *span, struct trace *last, const struct trace *other)
{
	if (memcmp(last, other, sizeof *other) == 0)
		return;
	*last = *other;
	trace_span_link(span, other);
}
