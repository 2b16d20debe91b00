/*
 * Canonical text by the batch, for NN-canonical.t. stdin: documents, each as "<bytes>\n<text>\n".
 * stdout, for each: "ok <canonical text>", or "error <offset> <reason>". On the way it is checked
 * that slices of the scan, pieces of the sink and a second round make no difference.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_canonical.h"
#include "common/json_span.h"

#define MAX_TEXT (256u << 20)

__attribute__((noreturn)) static void give_up(const char *what)
{
	fflush(stdout);
	fprintf(stderr, "canonical_tool: %s\n", what);
	exit(1);
}

/* The canonical text, or the error. Returns the status. */
static enum json_span_status canonical(struct span text, size_t slice, struct buf *out)
{
	struct json_span_doc *doc = json_span_new(text, NULL);
	if (!doc)
		give_up("out of memory");
	enum json_span_status status;
	while ((status = json_span_step(doc, slice)) == JSON_SPAN_MORE)
		;
	buf_clear(out);
	if (status == JSON_SPAN_ERROR)
		buf_printf(out, "error %zu %s", json_span_error_offset(doc),
			json_span_error_reason(doc));
	else if (buf_append_str(out, "ok ") || json_canonical_append(doc, json_span_root(), out))
		give_up("out of memory");
	json_span_free(&doc);
	return status;
}

static void expect_same(const struct buf *a, const struct buf *b, const char *what)
{
	if (a->len != b->len || memcmp(a->data, b->data, a->len) != 0)
		give_up(what);
}

static void answer(struct span text)
{
	struct buf whole = BUF_INIT(MAX_TEXT), other = BUF_INIT(MAX_TEXT);
	enum json_span_status status = canonical(text, SIZE_MAX, &whole);
	/* Every slice size for the short, some for the others. */
	size_t step = text.len < 300 ? 1 : text.len / 8 + 1;
	for (size_t slice = 1; slice <= text.len; slice += step) {
		canonical(text, slice, &other);
		expect_same(&whole, &other, "a slice made a difference");
	}
	if (status == JSON_SPAN_DONE) {
		struct span once = {(char *)whole.data + 3, whole.len - 3};
		if (canonical(once, SIZE_MAX, &other) != JSON_SPAN_DONE)
			give_up("canonical text was refused");
		expect_same(&whole, &other, "a second round made a difference");
	}
	fwrite(whole.data, 1, whole.len, stdout);
	putchar('\n');
	buf_free(&whole);
	buf_free(&other);
}

int main(void)
{
	size_t len;
	while (scanf("%zu", &len) == 1) {
		if (getchar() != '\n' || len > MAX_TEXT)
			give_up("bad input");
		char *text = malloc(len ? len : 1); /* the exact size, for the sanitizer */
		if (!text || fread(text, 1, len, stdin) != len || getchar() != '\n')
			give_up("bad input");
		answer((struct span){text, len});
		free(text);
	}
	return fflush(stdout) ? 1 : 0;
}
