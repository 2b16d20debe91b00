#include "common/tracer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/trace_span.h"

/* Two lists of JSON values in the making, then one text. */
struct trace_span {
	struct trace ids;
	uint8_t parent[8];
	bool has_parent, is_remote; /* the parent is in another process */
	bool failed;
	enum trace_span_kind kind;
	uint64_t began_us;      /* monotonic */
	uint64_t began_wall_ns; /* since 1970 */
	uint32_t n_attributes, dropped_attributes;
	uint32_t n_links, dropped_links;
	struct buf attributes, links, message;
	char name[TRACE_SPAN_NAME_MAX_BYTES + 1];
};

bool trace_span_recording;

const char *const tracer_drop_names[TRACER_DROPS] = {
	"queue_full", "too_many", "too_large", "failed", "refused", "rejected", "stopped"};

/* The one of this process, as the log is. */
static struct {
	struct loop *loop;
	struct tracer_options options;
	struct tracer_counters counters;
	struct tracer_spans queue;
} tracer = {.queue = STAILQ_HEAD_INITIALIZER(tracer.queue)};

/* ---- The queue ---- */

void tracer_open(struct loop *loop, const struct tracer_options *options)
{
	tracer.loop = loop;
	tracer.options = *options;
	trace_span_recording = true;
}

void tracer_close(void)
{
	trace_span_recording = false;
	tracer.options.on_queued = NULL;
	struct tracer_spans rest = STAILQ_HEAD_INITIALIZER(rest);
	tracer_take(&rest, SIZE_MAX, SIZE_MAX);
	tracer_drop(&rest, TRACER_STOPPED);
}

const struct tracer_counters *tracer_counters(void)
{
	return &tracer.counters;
}

void tracer_count_dropped(enum tracer_drop why, uint64_t n)
{
	tracer.counters.dropped[why] += n;
}

size_t tracer_take(struct tracer_spans *to, size_t max, size_t max_bytes)
{
	size_t n = 0, bytes = 0;
	struct tracer_span *span;
	while (n < max && (span = STAILQ_FIRST(&tracer.queue)) &&
		(n == 0 || bytes + span->len <= max_bytes)) {
		STAILQ_REMOVE_HEAD(&tracer.queue, link);
		STAILQ_INSERT_TAIL(to, span, link);
		bytes += span->len;
		n++;
	}
	tracer.counters.queued -= n;
	tracer.counters.queued_bytes -= bytes;
	return n;
}

void tracer_drop(struct tracer_spans *spans, enum tracer_drop why)
{
	struct tracer_span *span;
	while ((span = STAILQ_FIRST(spans))) {
		STAILQ_REMOVE_HEAD(spans, link);
		free(span);
		tracer_count_dropped(why, 1);
	}
}

static void enqueue(struct buf *text)
{
	struct tracer_counters *counters = &tracer.counters;
	if (buf_failed(text)) {
		tracer_count_dropped(TRACER_TOO_LARGE, 1);
		return;
	}
	if (counters->queued_bytes + text->len > TRACER_MAX_QUEUED_BYTES) {
		tracer_count_dropped(TRACER_QUEUE_FULL, 1);
		return;
	}
	struct tracer_span *span = malloc(sizeof *span + text->len);
	if (!span) {
		tracer_count_dropped(TRACER_TOO_MANY, 1);
		return;
	}
	span->len = text->len;
	memcpy(span->text, text->data, text->len);
	STAILQ_INSERT_TAIL(&tracer.queue, span, link);
	counters->queued++;
	counters->queued_bytes += text->len;
	if (tracer.options.on_queued)
		tracer.options.on_queued(counters->queued, tracer.options.arg);
}

/* ---- Beginning ---- */

static uint64_t wall_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct trace_span *span_new(
	const struct trace *ids, enum trace_span_kind kind, struct span name)
{
	struct trace_span *span = tracer.counters.live < TRACER_MAX_LIVE ? malloc(sizeof *span)
									 : NULL;
	if (!span) {
		tracer_count_dropped(TRACER_TOO_MANY, 1);
		return NULL;
	}
	tracer.counters.live++;
	*span = (struct trace_span){.ids = *ids,
		.kind = kind,
		.began_us = loop_now_us(tracer.loop),
		.began_wall_ns = wall_ns(),
		.attributes = BUF_INIT(TRACER_MAX_SPAN_BYTES),
		.links = BUF_INIT(TRACER_MAX_SPAN_BYTES),
		.message = BUF_INIT(TRACER_MAX_SPAN_BYTES)};
	trace_span_name(span, name);
	return span;
}

struct trace_span *trace_span_enter_recording(
	const struct trace *parent, struct trace *ours, struct span name)
{
	ours->sampled = trace_sampler_decide(&tracer.options.sampler, ours, parent);
	struct trace_span *span = ours->sampled ? span_new(ours, TRACE_SPAN_SERVER, name) : NULL;
	if (span && parent) {
		memcpy(span->parent, parent->span_id, sizeof span->parent);
		span->has_parent = span->is_remote = true;
	}
	return span;
}

struct trace_span *trace_span_begin_recording(
	const struct trace *parent, struct trace *ours, enum trace_span_kind kind, struct span name)
{
	struct trace child = trace_child(parent);
	struct trace_span *span = span_new(&child, kind, name);
	if (!span) {
		*ours = *parent;
		return NULL;
	}
	memcpy(span->parent, parent->span_id, sizeof span->parent);
	span->has_parent = true;
	*ours = child;
	return span;
}

/* ---- What it says ---- */

void trace_span_name(struct trace_span *span, struct span name)
{
	if (!span)
		return;
	size_t len = name.len <= TRACE_SPAN_NAME_MAX_BYTES ? name.len : TRACE_SPAN_NAME_MAX_BYTES;
	memset(span->name, 0, sizeof span->name);
	memcpy(span->name, name.data, len);
}

/* Digit by digit: printf() would be most of what a span costs. */
static void append_number(struct buf *text, uint64_t value)
{
	char digits[20];
	size_t at = sizeof digits;
	do
		digits[--at] = (char)('0' + value % 10);
	while (value /= 10);
	buf_append(text, digits + at, sizeof digits - at);
}

static void append_id(struct buf *text, const char *before, const uint8_t *id, size_t len)
{
	char hex[32];
	trace_format_hex(hex, id, len);
	buf_append_str(text, before);
	buf_append(text, hex, 2 * len);
	buf_append_char(text, '"');
}

/* {"key":NAME,"value":{TYPE: , and the caller goes on; false: there is no room. */
static bool begin_attribute(struct trace_span *span, const char *name, const char *type)
{
	if (!span)
		return false;
	if (span->n_attributes >= tracer.options.max_attributes) {
		span->dropped_attributes++;
		return false;
	}
	buf_append_str(&span->attributes, span->n_attributes ? ",{\"key\":\"" : "{\"key\":\"");
	buf_append_str(&span->attributes, name);
	buf_append_str(&span->attributes, "\",\"value\":{\"");
	buf_append_str(&span->attributes, type);
	buf_append_str(&span->attributes, "\":");
	span->n_attributes++;
	return true;
}

static void end_attribute(struct trace_span *span)
{
	buf_append_str(&span->attributes, "}}");
}

/* No character is cut in two. */
static struct span cut(struct span value)
{
	size_t max = tracer.options.max_value_bytes;
	if (value.len <= max)
		return value;
	while (max > 0 && ((unsigned char)value.data[max] & 0xc0) == 0x80)
		max--;
	return (struct span){value.data, max};
}

void trace_span_str(struct trace_span *span, const char *name, struct span value)
{
	if (!value.data || !begin_attribute(span, name, "stringValue"))
		return;
	json_append_string(&span->attributes, cut(value));
	end_attribute(span);
}

void trace_span_text(struct trace_span *span, const char *name, const char *value)
{
	trace_span_str(span, name, span_of(value));
}

void trace_span_int(struct trace_span *span, const char *name, int64_t value)
{
	/* 64-bit integers are strings in the JSON of protobuf. */
	if (!begin_attribute(span, name, "intValue"))
		return;
	buf_append_str(&span->attributes, value < 0 ? "\"-" : "\"");
	append_number(&span->attributes, value < 0 ? -(uint64_t)value : (uint64_t)value);
	buf_append_char(&span->attributes, '"');
	end_attribute(span);
}

void trace_span_bool(struct trace_span *span, const char *name, bool value)
{
	if (!begin_attribute(span, name, "boolValue"))
		return;
	buf_append_str(&span->attributes, value ? "true" : "false");
	end_attribute(span);
}

void trace_span_began_before(struct trace_span *span, uint64_t us)
{
	if (!span)
		return;
	uint64_t now_us = loop_now_us(tracer.loop), earlier_us = now_us - us;
	span->began_wall_ns -= (span->began_us - earlier_us) * 1000;
	span->began_us = earlier_us;
}

void trace_span_link(struct trace_span *span, const struct trace *other)
{
	if (!span)
		return;
	if (span->n_links >= tracer.options.max_links) {
		span->dropped_links++;
		return;
	}
	append_id(&span->links, span->n_links ? ",{\"traceId\":\"" : "{\"traceId\":\"",
		other->trace_id, sizeof other->trace_id);
	append_id(&span->links, ",\"spanId\":\"", other->span_id, sizeof other->span_id);
	buf_append_char(&span->links, '}');
	span->n_links++;
}

void trace_span_fail(struct trace_span *span, const char *error_type, const char *message)
{
	if (!span || span->failed)
		return;
	span->failed = true;
	if (message)
		json_append_string(&span->message, cut(span_of(message)));
	trace_span_text(span, "error.type", error_type);
}

/* ---- Ending ---- */

static void append_list(
	struct buf *text, const char *name, const struct buf *list, uint32_t dropped)
{
	if (list->len) {
		buf_printf(text, ",\"%s\":[", name);
		buf_append(text, list->data, list->len);
		buf_append_char(text, ']');
	}
	if (dropped)
		buf_printf(text, ",\"dropped%c%sCount\":%" PRIu32, name[0] - 'a' + 'A', name + 1,
			dropped);
	/* What did not fit is not to be sent in part. */
	text->failed |= list->failed;
}

/* (opentelemetry-proto, trace/v1/trace.proto: Span) */
static void write_span(const struct trace_span *span, struct buf *text)
{
	uint64_t us = loop_now_us(tracer.loop) - span->began_us;
	append_id(text, "{\"traceId\":\"", span->ids.trace_id, sizeof span->ids.trace_id);
	append_id(text, ",\"spanId\":\"", span->ids.span_id, sizeof span->ids.span_id);
	if (span->has_parent)
		append_id(text, ",\"parentSpanId\":\"", span->parent, sizeof span->parent);
	/* The W3C flags, then: it is known whether the parent is remote, and whether it is. */
	buf_append_str(text, ",\"flags\":");
	append_number(text, 0x101u | (span->is_remote ? 0x200u : 0));
	buf_append_str(text, ",\"name\":");
	json_append_string(text, span_of(span->name));
	buf_append_str(text, ",\"kind\":");
	append_number(text, span->kind);
	buf_append_str(text, ",\"startTimeUnixNano\":\"");
	append_number(text, span->began_wall_ns);
	buf_append_str(text, "\",\"endTimeUnixNano\":\"");
	append_number(text, span->began_wall_ns + us * 1000);
	buf_append_char(text, '"');
	append_list(text, "attributes", &span->attributes, span->dropped_attributes);
	append_list(text, "links", &span->links, span->dropped_links);
	if (span->failed) {
		buf_append_str(text, ",\"status\":{\"code\":2");
		if (span->message.len) {
			buf_append_str(text, ",\"message\":");
			buf_append(text, span->message.data, span->message.len);
		}
		buf_append_char(text, '}');
	}
	buf_append_char(text, '}');
}

void trace_span_end_recorded(struct trace_span **pointer)
{
	struct trace_span *span = *pointer;
	struct buf text = BUF_INIT(TRACER_MAX_SPAN_BYTES);
	*pointer = NULL;
	tracer.counters.ended++;
	if (!trace_span_recording) {
		tracer_count_dropped(TRACER_STOPPED, 1);
	} else if (tracer.counters.queued >= tracer.options.max_queued) {
		tracer_count_dropped(TRACER_QUEUE_FULL, 1);
	} else {
		write_span(span, &text);
		enqueue(&text);
	}
	buf_free(&text);
	buf_free(&span->attributes);
	buf_free(&span->links);
	buf_free(&span->message);
	free(span);
	tracer.counters.live--;
}
