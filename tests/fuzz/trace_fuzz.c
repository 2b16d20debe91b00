/* What strangers say of traces: traceparent and tracestate, lists in variables, a collector's
 * answers; and whatever text a request brings, the span that holds it is valid JSON within its
 * limits. */
#include <stdlib.h>

#include "common/json_span.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/otlp_text.h"
#include "common/trace_span.h"
#include "common/tracer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_headers(struct span text)
{
	struct trace trace, again;
	char parent[TRACE_PARENT_LEN + 1], state[TRACE_STATE_MAX_BYTES + 1];
	if (trace_parse(text, &trace) == 0) {
		trace_format(&trace, parent);
		BUG_ON(trace_parse(span_of(parent), &again) < 0);
		BUG_ON(memcmp(trace.trace_id, again.trace_id, 16) != 0);
	}
	trace_state_copy(text, state);
	BUG_ON(state[0] && strlen(state) != text.len);
}

static void check_json(struct span json)
{
	struct json_span_doc *doc = json_span_new(json, NULL);
	BUG_ON(!doc);
	if (json_span_step(doc, SIZE_MAX) != JSON_SPAN_DONE)
		log_bug(__FILE__, __LINE__, json_span_error_reason(doc));
	json_span_free(&doc);
}

static void check_list(struct span text)
{
	char *list = strndup(text.data, text.len);
	struct buf out = BUF_INIT(1u << 20);
	struct otlp_resource resource = {.service_name = "",
		.attributes = list,
		.daemon = "d",
		.instance_id = "i",
		.version = "v"};
	(void)otlp_list_valid(list);
	otlp_append_resource(&out, &resource);
	if (!buf_failed(&out))
		check_json((struct span){(char *)out.data, out.len});
	buf_free(&out);
	free(list);
}

static void check_span(struct loop *loop, struct span text)
{
	struct tracer_options options = {.sampler = {.kind = TRACE_SAMPLER_ON},
		.max_queued = 8,
		.max_attributes = 4,
		.max_links = 2,
		.max_value_bytes = 1 + (uint32_t)(text.len ? (unsigned char)text.data[0] : 0)};
	struct tracer_spans queue = STAILQ_HEAD_INITIALIZER(queue);
	struct trace ours;
	tracer_open(loop, &options);
	struct trace_span *span = trace_span_enter(text, &ours, text);
	for (int i = 0; i < 6; i++)
		trace_span_str(span, "k", text);
	trace_span_link(span, &ours);
	trace_span_fail(span, "type", "message");
	trace_span_end(&span);
	if (tracer_take(&queue, 1, 0) == 1) {
		struct tracer_span *ended = STAILQ_FIRST(&queue);
		check_json((struct span){ended->text, ended->len});
	}
	tracer_drop(&queue, TRACER_STOPPED);
	tracer_close();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct loop *loop;
	struct span text = {(const char *)data, size};
	struct buf words = BUF_INIT(256);
	if (!loop)
		loop = loop_new();
	check_headers(text);
	check_list(text);
	otlp_parse_rejected(text, &words);
	buf_free(&words);
	check_span(loop, text);
	return 0;
}
