#include "common/otlp_text.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"
#include "common/json_span.h"

/* ---- Lists ---- */

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

static struct span trim(struct span text)
{
	while (text.len && (*text.data == ' ' || *text.data == '\t'))
		text = (struct span){text.data + 1, text.len - 1};
	while (text.len && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t'))
		text.len--;
	return text;
}

/* What is no percent-encoding stands for itself. */
static int decode(struct span text, struct buf *out)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		int high = c == '%' && i + 2 < text.len ? hex_digit(text.data[i + 1]) : -1;
		int low = high >= 0 ? hex_digit(text.data[i + 2]) : -1;
		if (low >= 0) {
			c = (char)(high << 4 | low);
			i += 2;
		}
		/* Nor a line end, in a header, nor the end of the text. */
		if (c == '\0' || c == '\r' || c == '\n')
			return -1;
		buf_append_char(out, c);
	}
	buf_append_char(out, '\0');
	return buf_failed(out) ? -1 : 0;
}

int otlp_list_next(const char **at, struct span *name, struct buf *value)
{
	struct span pair;
	do {
		if (!**at)
			return 0;
		pair = (struct span){*at, strcspn(*at, ",")};
		*at += pair.len + ((*at)[pair.len] == ',');
		pair = trim(pair);
	} while (pair.len == 0);
	const char *equals = memchr(pair.data, '=', pair.len);
	if (!equals)
		return -1;
	*name = trim((struct span){pair.data, (size_t)(equals - pair.data)});
	buf_clear(value);
	struct span text = {equals + 1, (size_t)(pair.data + pair.len - equals - 1)};
	return name->len && decode(trim(text), value) == 0 ? 1 : -1;
}

#define VALUE_MAX_BYTES (16u << 10)

bool otlp_list_valid(const char *list)
{
	struct buf value = BUF_INIT(VALUE_MAX_BYTES);
	struct span name;
	int more;
	while ((more = otlp_list_next(&list, &name, &value)) > 0)
		;
	buf_free(&value);
	return more == 0;
}

/* ---- The resource ---- */

static void append_attribute(struct buf *out, struct span name, struct span value)
{
	buf_append_str(out, out->data[out->len - 1] == '[' ? "{\"key\":" : ",{\"key\":");
	json_append_string(out, name);
	buf_append_str(out, ",\"value\":{\"stringValue\":");
	json_append_string(out, value);
	buf_append_str(out, "}}");
}

/* The last pair of that name. */
static bool list_has(const char *list, struct span wanted, const char **last)
{
	struct buf value = BUF_INIT(VALUE_MAX_BYTES);
	struct span name;
	*last = NULL;
	for (const char *at = list, *before = at; otlp_list_next(&at, &name, &value) > 0;
		before = at)
		if (span_equal(name, wanted))
			*last = before;
	buf_free(&value);
	return *last != NULL;
}

static bool is_ours(struct span name)
{
	return span_equal_str(name, "service.instance.id") ||
	       span_equal_str(name, "service.version") || span_equal_str(name, "process.pid") ||
	       span_equal_str(name, "telemetry.sdk.name");
}

static void append_list(struct buf *out, const struct otlp_resource *resource)
{
	struct buf value = BUF_INIT(VALUE_MAX_BYTES);
	struct span name;
	const char *last;
	for (const char *at = resource->attributes, *before = at;
		otlp_list_next(&at, &name, &value) > 0; before = at) {
		bool named = span_equal_str(name, "service.name") && *resource->service_name;
		if (named || is_ours(name) ||
			(list_has(resource->attributes, name, &last) && last != before))
			continue;
		append_attribute(out, name, span_of((char *)value.data));
	}
	buf_free(&value);
}

void otlp_append_resource(struct buf *out, const struct otlp_resource *resource)
{
	const char *last;
	char pid[24];
	snprintf(pid, sizeof pid, "%ld", resource->pid);
	buf_append_str(out, "{\"attributes\":[");
	if (*resource->service_name)
		append_attribute(
			out, SPAN_LITERAL("service.name"), span_of(resource->service_name));
	else if (!list_has(resource->attributes, SPAN_LITERAL("service.name"), &last))
		append_attribute(out, SPAN_LITERAL("service.name"), span_of(resource->daemon));
	append_attribute(out, SPAN_LITERAL("service.instance.id"), span_of(resource->instance_id));
	append_attribute(out, SPAN_LITERAL("service.version"), span_of(resource->version));
	append_attribute(
		out, SPAN_LITERAL("telemetry.sdk.name"), SPAN_LITERAL("embedding-gateway"));
	append_list(out, resource);
	buf_printf(out, ",{\"key\":\"process.pid\",\"value\":{\"intValue\":\"%s\"}}]}", pid);
}

/* ---- Answers ---- */

uint64_t otlp_parse_rejected(struct span body, struct buf *message)
{
	struct json_span_doc *doc = json_span_new(body, NULL);
	uint64_t rejected = 0;
	if (!doc)
		return 0;
	if (json_span_step(doc, SIZE_MAX) == JSON_SPAN_DONE) {
		uint32_t partial = json_span_member(
			doc, json_span_root(), SPAN_LITERAL("partialSuccess"));
		uint32_t n = json_span_member(doc, partial, SPAN_LITERAL("rejectedSpans"));
		uint32_t words = json_span_member(doc, partial, SPAN_LITERAL("errorMessage"));
		int64_t number = 0;
		struct span text;
		/* Both spellings are allowed for 64-bit integers. */
		if (n != JSON_SPAN_NONE && json_span_int64(doc, n, &number) < 0 &&
			json_span_borrow_string(doc, n, &text) && text.len < 20) {
			char digits[20] = "";
			memcpy(digits, text.data, text.len);
			number = strtoll(digits, NULL, 10);
		}
		rejected = number > 0 ? (uint64_t)number : 0;
		if (words != JSON_SPAN_NONE)
			json_span_string(doc, words, message);
	}
	json_span_free(&doc);
	return rejected;
}
