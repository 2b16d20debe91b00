#ifndef TESTS_COMMON_HTTP_TRANSCRIPT_H
#define TESTS_COMMON_HTTP_TRANSCRIPT_H

/*
 * What the parser makes of some bytes, as text: the messages in them one after the other, up to the
 * first refusal or the end of the input. Whether the input comes whole or cut must not show, so the
 * tests and the fuzzers compare transcripts.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/http_parser.h"

#define TRANSCRIPT_FIELDS 16

static const struct http_limits transcript_limits = {
	.max_head_bytes = 1024, .max_target_bytes = 256, .max_body_bytes = 4096};

struct transcript {
	struct buf text;
	struct buf body;
	enum http_kind kind;
	struct http_head head;
	struct http_field fields[TRANSCRIPT_FIELDS];
	struct http_body body_parser;
	bool in_body, over;
};

static inline void transcript_begin(struct transcript *t, enum http_kind kind)
{
	buf_init(&t->text, 1 << 24);
	buf_init(&t->body, 1 << 24);
	t->kind = kind;
	t->in_body = t->over = false;
	http_head_init(&t->head, kind, &transcript_limits, t->fields, TRANSCRIPT_FIELDS);
}

static inline void transcript_add_head(struct transcript *t, const char *data)
{
	const struct http_head *head = &t->head;
	buf_printf(&t->text, "%.*s %.*s at %.*s, %u %.*s, HTTP/1.%u%s%s framing %d length %llu\n",
		SPAN_ARG(http_text_span(data, head->method)),
		SPAN_ARG(http_text_span(data, head->target)),
		SPAN_ARG(http_text_span(data, head->host)), head->status,
		SPAN_ARG(http_text_span(data, head->reason)), head->minor_version,
		head->keep_alive ? " keep" : "", head->expect_continue ? " expect" : "",
		(int)head->framing, (unsigned long long)head->content_length);
	for (uint32_t i = 0; i < head->n_fields; i++)
		buf_printf(&t->text, "%.*s=%.*s\n",
			SPAN_ARG(http_text_span(data, head->fields[i].name)),
			SPAN_ARG(http_text_span(data, head->fields[i].value)));
}

static inline void transcript_refuse(struct transcript *t, struct http_refusal refusal)
{
	buf_printf(&t->text, "%d %s\n", refusal.status, refusal.reason);
	t->over = true;
}

/* Returns how much of [data, data + len) was used; the rest comes again, with more. */
static inline size_t transcript_feed(struct transcript *t, const char *data, size_t len)
{
	const char *at = data, *end = data + len;
	while (!t->over) {
		if (!t->in_body) {
			enum http_result result = http_head_parse(&t->head, at, (size_t)(end - at));
			if (result == HTTP_MORE)
				break;
			if (result == HTTP_BAD) {
				transcript_refuse(t, t->head.refusal);
				break;
			}
			transcript_add_head(t, at);
			http_body_init(&t->body_parser, &t->head);
			at += t->head.head_bytes;
			t->in_body = true;
		}
		struct span piece;
		enum http_body_result result = http_body_parse(&t->body_parser, &at, end, &piece);
		if (result == HTTP_BODY_MORE)
			break;
		if (result == HTTP_BODY_DATA) {
			if (piece.data < data || piece.data + piece.len > end || piece.len == 0)
				abort();
			buf_append(&t->body, piece.data, piece.len);
			continue;
		}
		buf_printf(&t->text, "body %zu ", t->body.len);
		buf_append(&t->text, t->body.data, t->body.len);
		buf_append_char(&t->text, '\n');
		buf_clear(&t->body);
		if (result == HTTP_BODY_BAD) {
			transcript_refuse(t, t->body_parser.refusal);
			break;
		}
		t->in_body = false;
		http_head_init(&t->head, t->kind, &transcript_limits, t->fields, TRANSCRIPT_FIELDS);
	}
	return (size_t)(at - data);
}

/* The end of the input: what the last message lacks. */
static inline void transcript_end(struct transcript *t)
{
	if (t->over)
		return;
	if (t->in_body) {
		buf_printf(&t->text, "cut in body after %zu ", t->body.len);
		buf_append(&t->text, t->body.data, t->body.len);
		buf_printf(&t->text, " may close %d\n", http_body_may_close(&t->body_parser));
	} else {
		buf_append_str(&t->text, "cut in head\n");
	}
}

static inline void transcript_free(struct transcript *t)
{
	buf_free(&t->text);
	buf_free(&t->body);
}

/* Feeds data in pieces of step bytes, the first one of `first`; each lies in memory of its own
 * exact size, so that a look beyond it shows. The caller frees with transcript_free(). */
static inline void transcript_make(struct transcript *t, enum http_kind kind, const char *data,
	size_t len, size_t first, size_t step)
{
	transcript_begin(t, kind);
	size_t used = 0, have = first < len ? first : len;
	for (;;) {
		size_t n = have - used;
		char *copy = malloc(n ? n : 1);
		if (!copy)
			abort();
		memcpy(copy, data + used, n);
		used += transcript_feed(t, copy, n);
		free(copy);
		if (t->over || have == len)
			break;
		have = len - have < step ? len : have + step;
	}
	transcript_end(t);
}

#endif
