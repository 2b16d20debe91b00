/*
 * Canonical text must be ASCII, mean the same (as jansson sees it), be its own canonical text, and
 * come out alike whole, in pieces, and from json_canonical_around().
 */
#include <jansson.h>
#include <stdlib.h>

#include "common/json_canonical.h"
#include "common/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct json_span_doc *scan(struct span text)
{
	struct json_span_doc *doc = json_span_new(text, NULL);
	BUG_ON(!doc);
	json_span_step(doc, SIZE_MAX);
	return doc;
}

static void collect(const void *data, size_t len_bytes, void *out)
{
	BUG_ON(len_bytes == 0 || buf_append(out, data, len_bytes));
}

static void check_meaning(struct span text, struct span canonical)
{
	json_t *a = json_loadb(text.data, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	if (!a)
		return; /* half a surrogate pair, an integer over 64 bits: jansson takes neither */
	json_t *b = json_loadb(
		canonical.data, canonical.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	BUG_ON(!b || !json_equal(a, b));
	json_decref(a);
	json_decref(b);
}

/* Around the first key, in canonical order, with that member's value put back: the whole text. */
static void check_around(const struct json_span_doc *doc, const struct buf *whole)
{
	struct json_canonical_members members;
	if (json_canonical_members(doc, json_span_root(), &members))
		return;
	for (size_t i = 0; i < members.count && i < 3; i++) {
		struct buf before = BUF_INIT(whole->max_len), after = BUF_INIT(whole->max_len);
		struct span name = members.items[i].name;
		BUG_ON(json_canonical_around(
			doc, json_span_root(), name, NULL, 0, &before, &after));
		BUG_ON(json_canonical_append(doc, json_span_value(members.items[i].key), &before));
		BUG_ON(before.len + after.len != whole->len);
		BUG_ON(memcmp(whole->data, before.data, before.len) != 0);
		BUG_ON(memcmp(whole->data + before.len, after.data, after.len) != 0);
		buf_free(&before);
		buf_free(&after);
	}
	json_canonical_members_free(&members);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span text = {(const char *)data, size};
	struct json_span_doc *doc = scan(text);
	struct buf whole = BUF_INIT(64u << 20), again = BUF_INIT(64u << 20);
	if (json_span_error_reason(doc)[0] == '\0') {
		BUG_ON(json_canonical_write(doc, json_span_root(), collect, &whole));
		BUG_ON(whole.len == 0);
		for (size_t i = 0; i < whole.len; i++)
			BUG_ON(whole.data[i] < 0x20 || whole.data[i] > 0x7e);
		struct span canonical = {(char *)whole.data, whole.len};
		check_meaning(text, canonical);
		check_around(doc, &whole);
		struct json_span_doc *second = scan(canonical);
		BUG_ON(json_span_error_reason(second)[0] != '\0');
		BUG_ON(json_canonical_append(second, json_span_root(), &again));
		BUG_ON(again.len != whole.len || memcmp(again.data, whole.data, whole.len) != 0);
		json_span_free(&second);
	}
	buf_free(&whole);
	buf_clear(&again);
	/* Any bytes at all are a string to append. */
	BUG_ON(json_canonical_append_string(text, &again));
	struct json_span_doc *string = scan((struct span){(char *)again.data, again.len});
	BUG_ON(json_span_error_reason(string)[0] != '\0');
	json_span_free(&string);
	buf_free(&again);
	json_span_free(&doc);
	return 0;
}
