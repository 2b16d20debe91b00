/*
 * First byte: the slice; second: depth and node limits; the rest is the text. Whole and in slices
 * must agree to the last bit of the tape, every accessor must hold on every node, and what jansson
 * takes must be taken.
 */
#include <jansson.h>
#include <stdlib.h>

#include "common/json_span.h"
#include "common/json_tape.h"
#include "common/log.h"
#include "common/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct json_span_doc *scan(
	struct span text, size_t slice, const struct json_span_limits *limits)
{
	struct json_span_doc *doc = json_span_new(text, limits);
	size_t steps = 0;
	BUG_ON(!doc);
	while (json_span_step(doc, slice) == JSON_SPAN_MORE)
		BUG_ON(++steps > 4 * text.len);
	return doc;
}

static void check_same(const struct json_span_doc *a, const struct json_span_doc *b)
{
	BUG_ON(a->state != b->state);
	if (a->state == JSON_TAPE_FAILED) {
		BUG_ON(json_span_error_offset(a) != json_span_error_offset(b));
		BUG_ON(strcmp(json_span_error_reason(a), json_span_error_reason(b)) != 0);
		return;
	}
	BUG_ON(a->n_nodes != b->n_nodes);
	for (uint32_t i = 0; i < a->n_nodes; i++) {
		const struct json_tape_node *x = &a->nodes[i], *y = &b->nodes[i];
		BUG_ON(x->start != y->start || x->end != y->end || x->next != y->next ||
			x->count != y->count || x->type != y->type || x->flags != y->flags);
	}
}

static void check_string(const struct json_span_doc *doc, uint32_t node)
{
	struct buf out = BUF_INIT(json_span_text(doc, node).len), exact = BUF_INIT(out.max_len);
	struct span lent;
	BUG_ON(json_span_string(doc, node, &out) || json_span_string_exact(doc, node, &exact));
	BUG_ON(!json_span_equal(doc, node, (struct span){(char *)exact.data, exact.len}));
	if (json_span_borrow_string(doc, node, &lent))
		BUG_ON(!span_equal(lent, (struct span){(char *)out.data, out.len}));
	for (size_t i = 0, n; i < out.len; i += n) {
		n = utf8_sequence_len((char *)out.data + i, out.len - i);
		BUG_ON(n == 0);
	}
	buf_free(&out);
	buf_free(&exact);
}

static void check_numbers(const struct json_span_doc *doc, uint32_t node)
{
	struct json_span_numbers words = json_span_numbers(doc, node), values = words,
				 floats = words;
	struct span text;
	uint32_t count = 0;
	double value;
	float narrow;
	bool exact = true;
	while (json_span_numbers_next(&words, &text)) {
		count++;
		BUG_ON(text.len == 0 || json_span_read_doubles(&values, &value, 1) != 1);
		BUG_ON(json_span_read_floats(&floats, &narrow, 1, &exact) != 1);
	}
	BUG_ON(count != json_span_count(doc, node) || json_span_read_doubles(&values, &value, 1));
}

/* Children follow each other without a gap, inside their parent. */
static void check_children(const struct json_span_doc *doc, uint32_t node)
{
	uint32_t count = 0, expected = node + 1;
	bool object = json_span_type(doc, node) == JSON_SPAN_OBJECT;
	for (uint32_t n = json_span_first(doc, node); n != JSON_SPAN_NONE;
		n = json_span_next(doc, node, n)) {
		BUG_ON(n != expected);
		const struct json_tape_node *last = json_tape_node(doc, object ? n + 1 : n);
		BUG_ON(last->start <= doc->nodes[node].start || last->end >= doc->nodes[node].end);
		BUG_ON(object && json_span_type(doc, n) != JSON_SPAN_STRING);
		expected = last->next;
		count++;
	}
	BUG_ON(count != json_span_count(doc, node) || expected != doc->nodes[node].next);
}

static void check_nodes(const struct json_span_doc *doc)
{
	int64_t integer;
	double number;
	for (uint32_t i = 0; i < doc->n_nodes; i++) {
		switch (json_span_type(doc, i)) {
		case JSON_SPAN_STRING:
			check_string(doc, i);
			break;
		case JSON_SPAN_NUMBERS:
			check_numbers(doc, i);
			break;
		case JSON_SPAN_ARRAY:
		case JSON_SPAN_OBJECT:
			check_children(doc, i);
			break;
		case JSON_SPAN_NUMBER:
			BUG_ON(json_span_double(doc, i, &number) && !json_span_is_integer(doc, i));
			BUG_ON(json_span_int64(doc, i, &integer) == 0 &&
				!json_span_is_integer(doc, i));
			break;
		default:
			BUG_ON(json_span_count(doc, i) != 0);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	struct json_span_limits limits = {0};
	if (data[1])
		limits = (struct json_span_limits){data[1] & 15, data[1] >> 4};
	/* A copy of the exact size: the prefix must not hide a read before the text. */
	struct span text = {NULL, size - 2};
	char *copy = malloc(text.len ? text.len : 1);
	BUG_ON(!copy);
	memcpy(copy, data + 2, text.len);
	text.data = copy;
	struct json_span_doc *whole = scan(text, SIZE_MAX, &limits);
	struct json_span_doc *sliced = scan(text, data[0] + 1u, &limits);
	check_same(whole, sliced);
	if (whole->state == JSON_TAPE_DONE) {
		check_nodes(whole);
	} else if (data[1] == 0 &&
		   !memchr(copy, '\0', text.len)) { /* jansson passes over some NULs */
		json_t *tree = json_loadb(
			text.data, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
		BUG_ON(tree && !strstr(whole->reason, "nested") &&
			!strstr(whole->reason, "values"));
		json_decref(tree);
	}
	json_span_free(&whole);
	json_span_free(&sliced);
	free(copy);
	return 0;
}
