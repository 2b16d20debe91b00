/*
 * What our parser says about requests, for the comparison with Node's: a line of hex bytes in, a
 * line of JSON out, for each request.
 *
 *   {"verdict":"accept"|"refuse"|"cut", "status":400, "reason":"...",
 * "messages":[{"method","target", "host","version","fields":[[name,value],...],"body"}],
 * "cuts":true}
 *
 * messages are the complete ones before a refusal or the end. cuts: the same came out with the
 * input cut at every byte, and with each byte alone.
 */
#include <stdio.h>

#include "tests/common/http_transcript.h"

static void add_text(struct buf *out, struct span text)
{
	buf_append_char(out, '"');
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = (uint8_t)text.data[i];
		if (c < 0x20 || c > 0x7e || c == '"' || c == '\\')
			buf_printf(out, "\\u%04x", c);
		else
			buf_append_char(out, (char)c);
	}
	buf_append_char(out, '"');
}

static void add_member(struct buf *out, const char *name, struct span text)
{
	buf_printf(out, "\"%s\":", name);
	add_text(out, text);
	buf_append_char(out, ',');
}

static void add_head(struct buf *out, const struct http_head *head, const char *at)
{
	buf_append_char(out, '{');
	add_member(out, "method", http_text_span(at, head->method));
	add_member(out, "target", http_text_span(at, head->target));
	add_member(out, "host", http_text_span(at, head->host));
	buf_printf(out, "\"version\":\"1.%u\",\"fields\":[", head->minor_version);
	for (uint32_t i = 0; i < head->n_fields; i++) {
		buf_append_str(out, i ? ",[" : "[");
		add_text(out, http_text_span(at, head->fields[i].name));
		buf_append_char(out, ',');
		add_text(out, http_text_span(at, head->fields[i].value));
		buf_append_char(out, ']');
	}
	buf_append_str(out, "],");
}

static void finish(struct buf *out, const char *verdict, const struct http_refusal *refusal)
{
	buf_printf(out, "],\"verdict\":\"%s\"", verdict);
	if (!refusal)
		return;
	buf_printf(out, ",\"status\":%d,\"reason\":", refusal->status);
	add_text(out, span_of(refusal->reason));
}

/* false: over. */
static bool add_message(
	struct buf *out, struct buf *body, const char **at, const char *end, bool first)
{
	struct http_field fields[TRANSCRIPT_FIELDS];
	struct http_head head;
	http_head_init(&head, HTTP_REQUEST, &transcript_limits, fields, TRANSCRIPT_FIELDS);
	enum http_result result = http_head_parse(&head, *at, (size_t)(end - *at));
	if (result != HTTP_DONE) {
		bool nothing = result == HTTP_MORE && *at == end && !first;
		finish(out,
			result == HTTP_BAD ? "refuse"
			: nothing          ? "accept"
					   : "cut",
			result == HTTP_BAD ? &head.refusal : NULL);
		return false;
	}
	const char *message = *at;
	*at += head.head_bytes;
	struct http_body parser;
	struct span piece;
	http_body_init(&parser, &head);
	buf_clear(body);
	for (;;) {
		switch (http_body_parse(&parser, at, end, &piece)) {
		case HTTP_BODY_DATA:
			buf_append(body, piece.data, piece.len);
			continue;
		case HTTP_BODY_MORE:
			finish(out, "cut", NULL);
			return false;
		case HTTP_BODY_BAD:
			finish(out, "refuse", &parser.refusal);
			return false;
		case HTTP_BODY_END:
			if (!first)
				buf_append_char(out, ',');
			add_head(out, &head, message);
			buf_append_str(out, "\"body\":");
			add_text(out, (struct span){(const char *)body->data, body->len});
			buf_append_char(out, '}');
			return true;
		}
	}
}

static bool same(const struct transcript *a, const struct transcript *b)
{
	return a->text.len == b->text.len && !memcmp(a->text.data, b->text.data, a->text.len);
}

static bool cuts_do_not_show(const char *data, size_t len)
{
	struct transcript whole, cut;
	bool equal = true;
	transcript_make(&whole, HTTP_REQUEST, data, len, len, len ? len : 1);
	for (size_t first = 0; first < len && equal; first++) {
		transcript_make(&cut, HTTP_REQUEST, data, len, first, len);
		equal = same(&whole, &cut);
		transcript_free(&cut);
	}
	if (equal) {
		transcript_make(&cut, HTTP_REQUEST, data, len, 1, 1);
		equal = same(&whole, &cut);
		transcript_free(&cut);
	}
	transcript_free(&whole);
	return equal;
}

int main(void)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	struct buf out, body;
	buf_init(&out, 1 << 24);
	buf_init(&body, 1 << 24);
	while ((n = getline(&line, &size, stdin)) > 0) {
		size_t len = (size_t)n / 2;
		char *data = malloc(len + 1);
		if (!data)
			return 1;
		for (size_t i = 0; i < len; i++) {
			unsigned byte;
			if (sscanf(line + 2 * i, "%2x", &byte) != 1)
				return 1;
			data[i] = (char)byte;
		}
		const char *at = data;
		bool first = true;
		buf_clear(&out);
		buf_append_str(&out, "{\"messages\":[");
		while (add_message(&out, &body, &at, data + len, first))
			first = false;
		buf_printf(&out, ",\"cuts\":%s}", cuts_do_not_show(data, len) ? "true" : "false");
		printf("%.*s\n", (int)out.len, (const char *)out.data);
		free(data);
	}
	buf_free(&out);
	buf_free(&body);
	free(line);
	return 0;
}
