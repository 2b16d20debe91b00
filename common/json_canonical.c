#include "common/json_canonical.h"

#include <stdlib.h>

#include "common/json_tape.h"
#include "common/number_text.h"
#include "common/utf8.h"

/* ---- pieces ---- */

/* Gathers small pieces, so that a sink which hashes is not called for every comma. */
struct writer {
	json_canonical_sink *sink;
	void *arg;
	size_t used;
	char stage[2048];
};

static void flush(struct writer *w)
{
	if (w->used)
		w->sink(w->stage, w->used, w->arg);
	w->used = 0;
}

static void put(struct writer *w, const char *data, size_t len)
{
	if (len > sizeof w->stage - w->used) {
		flush(w);
		if (len > sizeof w->stage) {
			w->sink(data, len, w->arg);
			return;
		}
	}
	memcpy(w->stage + w->used, data, len);
	w->used += len;
}

/* Room for at least len (small) bytes. */
static char *room(struct writer *w, size_t len)
{
	if (len > sizeof w->stage - w->used)
		flush(w);
	return w->stage + w->used;
}

#define PUT_LITERAL(w, literal) put((w), (literal), sizeof(literal) - 1)

/* ---- strings ---- */

static bool is_plain(char c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* One UTF-16 unit of a string. */
static void put_unit(struct writer *w, uint32_t unit)
{
	static const char hex[] = "0123456789abcdef";
	static const char short_escapes[] = "\"\"\\\\\bb\ff\nn\rr\tt";
	char *to = room(w, 6);
	if (unit < 0x7f && is_plain((char)unit)) {
		*to = (char)unit;
		w->used++;
		return;
	}
	*to++ = '\\';
	for (const char *p = short_escapes; unit < 0x7f && *p; p += 2)
		if ((uint32_t)*p == unit) {
			*to = p[1];
			w->used += 2;
			return;
		}
	*to++ = 'u';
	for (int shift = 12; shift >= 0; shift -= 4)
		*to++ = hex[unit >> shift & 15];
	w->used += 6;
}

static void put_code_point(struct writer *w, uint32_t c)
{
	if (c < 0x10000) {
		put_unit(w, c);
		return;
	}
	put_unit(w, 0xd800 + ((c - 0x10000) >> 10));
	put_unit(w, 0xdc00 + (c & 0x3ff));
}

static const char *put_plain_run(struct writer *w, const char *at, const char *end)
{
	const char *run = at;
	while (at < end && is_plain(*at))
		at++;
	put(w, run, (size_t)(at - run));
	return at;
}

static void put_string(
	struct writer *w, const struct json_span_doc *doc, const struct json_tape_node *node)
{
	if (node->flags & JSON_TAPE_VERBATIM) {
		put(w, doc->text + node->start, node->end - node->start);
		return;
	}
	struct span inside = json_tape_inside(doc, node);
	const char *at = inside.data, *end = at + inside.len;
	PUT_LITERAL(w, "\"");
	while (at < end) {
		if (is_plain(*at))
			at = put_plain_run(w, at, end);
		else
			put_code_point(w, json_tape_character(&at, end));
	}
	PUT_LITERAL(w, "\"");
}

/* ---- numbers ---- */

static void put_number(struct writer *w, struct span text, bool integer)
{
	double value;
	if (integer && span_equal_str(text, "-0")) {
		PUT_LITERAL(w, "0");
	} else if (integer) {
		put(w, text.data, text.len);
	} else {
		number_text_parse(text, &value); /* the scan refused what is out of range */
		w->used += number_text_write(value, room(w, NUMBER_TEXT_BYTES));
	}
}

static void put_numbers(struct writer *w, const struct json_span_doc *doc, uint32_t node)
{
	struct json_span_numbers numbers = json_span_numbers(doc, node);
	struct span text;
	bool integers = json_span_is_integer(doc, node), first = true;
	PUT_LITERAL(w, "[");
	while (json_span_numbers_next(&numbers, &text)) {
		if (!first)
			PUT_LITERAL(w, ", ");
		first = false;
		bool integer = integers;
		if (!integers) {
			integer = true;
			for (size_t i = 0; i < text.len && integer; i++)
				integer = text.data[i] == '-' ||
					  (text.data[i] >= '0' && text.data[i] <= '9');
		}
		put_number(w, text, integer);
	}
	PUT_LITERAL(w, "]");
}

/* ---- members ---- */

static int compare_names(struct span a, struct span b)
{
	size_t common = a.len < b.len ? a.len : b.len;
	int order = common ? memcmp(a.data, b.data, common) : 0;
	return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_members(const void *a, const void *b)
{
	const struct json_canonical_member *x = a, *y = b;
	int order = compare_names(x->name, y->name);
	return order ? order : (x->key > y->key) - (x->key < y->key);
}

/* Decode into *to, which moves on. */
static struct span decode_name(struct span inside, char **to)
{
	const char *at = inside.data, *end = at + inside.len;
	struct span name = {*to, 0};
	while (at < end) {
		char bytes[4];
		size_t len = utf8_encode(json_tape_character(&at, end), bytes);
		memcpy(*to, bytes, len);
		*to += len;
	}
	name.len = (size_t)(*to - name.data);
	return name;
}

int json_canonical_members(
	const struct json_span_doc *doc, uint32_t object, struct json_canonical_members *members)
{
	*members = (struct json_canonical_members){0};
	if (json_span_type(doc, object) != JSON_SPAN_OBJECT)
		return -1;
	size_t count = json_span_count(doc, object), names_bytes = 0;
	if (count == 0)
		return 0;
	for (uint32_t k = json_span_first(doc, object); k != JSON_SPAN_NONE;
		k = json_span_next(doc, object, k))
		if (json_tape_node(doc, k)->flags & JSON_TAPE_ESCAPED)
			names_bytes += json_span_text(doc, k).len; /* never shorter than decoded */
	members->items = calloc(count, sizeof *members->items);
	members->names = names_bytes ? malloc(names_bytes) : NULL;
	if (!members->items || (names_bytes && !members->names)) {
		json_canonical_members_free(members);
		return -1;
	}
	char *to = members->names;
	size_t n = 0;
	for (uint32_t k = json_span_first(doc, object); k != JSON_SPAN_NONE;
		k = json_span_next(doc, object, k)) {
		const struct json_tape_node *node = json_tape_node(doc, k);
		struct span inside = json_tape_inside(doc, node);
		members->items[n++] = (struct json_canonical_member){.key = k,
			.name = node->flags & JSON_TAPE_ESCAPED ? decode_name(inside, &to)
								: inside};
	}
	qsort(members->items, count, sizeof *members->items, compare_members);
	for (size_t i = 0; i < count; i++)
		if (i + 1 == count ||
			!span_equal(members->items[i].name, members->items[i + 1].name))
			members->items[members->count++] = members->items[i];
	return 0;
}

void json_canonical_members_free(struct json_canonical_members *members)
{
	free(members->items);
	free(members->names);
	*members = (struct json_canonical_members){0};
}

/* ---- values ---- */

/* An array or object that is being written. */
struct frame {
	uint32_t node, child; /* of an array: what comes next */
	bool object;
	struct json_canonical_members members;
	size_t n_written;
};

struct stack {
	struct frame *frames;
	size_t depth, capacity;
};

static int push(struct stack *stack, const struct json_span_doc *doc, uint32_t node)
{
	if (stack->depth == stack->capacity) {
		size_t capacity = stack->capacity ? stack->capacity * 2 : 4;
		struct frame *frames = realloc(stack->frames, capacity * sizeof *frames);
		if (!frames)
			return -1;
		stack->frames = frames;
		stack->capacity = capacity;
	}
	struct frame *frame = &stack->frames[stack->depth];
	*frame = (struct frame){.node = node,
		.child = json_span_first(doc, node),
		.object = json_span_type(doc, node) == JSON_SPAN_OBJECT};
	if (frame->object && json_canonical_members(doc, node, &frame->members))
		return -1;
	stack->depth++;
	return 0;
}

static void pop(struct stack *stack)
{
	json_canonical_members_free(&stack->frames[--stack->depth].members);
}

/* All of a value; of an array or object its opening bracket, and a frame for the rest. */
static int put_value(
	struct writer *w, struct stack *stack, const struct json_span_doc *doc, uint32_t node)
{
	switch (json_span_type(doc, node)) {
	case JSON_SPAN_ARRAY:
		PUT_LITERAL(w, "[");
		return push(stack, doc, node);
	case JSON_SPAN_OBJECT:
		PUT_LITERAL(w, "{");
		return push(stack, doc, node);
	case JSON_SPAN_STRING:
		put_string(w, doc, json_tape_node(doc, node));
		return 0;
	case JSON_SPAN_NUMBER:
		put_number(w, json_span_text(doc, node), json_span_is_integer(doc, node));
		return 0;
	case JSON_SPAN_NUMBERS:
		put_numbers(w, doc, node);
		return 0;
	case JSON_SPAN_NULL:
		PUT_LITERAL(w, "null");
		return 0;
	case JSON_SPAN_FALSE:
		PUT_LITERAL(w, "false");
		return 0;
	case JSON_SPAN_TRUE:
		PUT_LITERAL(w, "true");
		return 0;
	}
	return -1;
}

/* The next child of the innermost frame, or its end. */
static int put_next(struct writer *w, struct stack *stack, const struct json_span_doc *doc)
{
	struct frame *frame = &stack->frames[stack->depth - 1];
	bool first = frame->n_written == 0;
	uint32_t value;
	if (frame->object) {
		if (frame->n_written == frame->members.count) {
			PUT_LITERAL(w, "}");
			pop(stack);
			return 0;
		}
		uint32_t key = frame->members.items[frame->n_written].key;
		if (!first)
			PUT_LITERAL(w, ", ");
		put_string(w, doc, json_tape_node(doc, key));
		PUT_LITERAL(w, ": ");
		value = json_span_value(key);
	} else {
		if (frame->child == JSON_SPAN_NONE) {
			PUT_LITERAL(w, "]");
			pop(stack);
			return 0;
		}
		if (!first)
			PUT_LITERAL(w, ", ");
		value = frame->child;
		frame->child = json_span_next(doc, frame->node, value);
	}
	frame->n_written++;
	return put_value(w, stack, doc, value);
}

int json_canonical_write(
	const struct json_span_doc *doc, uint32_t node, json_canonical_sink *sink, void *arg)
{
	struct writer w;
	w.sink = sink;
	w.arg = arg;
	w.used = 0;
	struct stack stack = {0};
	int rc = put_value(&w, &stack, doc, node);
	while (rc == 0 && stack.depth)
		rc = put_next(&w, &stack, doc);
	while (stack.depth)
		pop(&stack);
	free(stack.frames);
	flush(&w);
	return rc;
}

static void append_sink(const void *data, size_t len, void *out)
{
	buf_append(out, data, len);
}

int json_canonical_append(const struct json_span_doc *doc, uint32_t node, struct buf *out)
{
	return json_canonical_write(doc, node, append_sink, out) || buf_failed(out) ? -1 : 0;
}

int json_canonical_append_string(struct span utf8, struct buf *out)
{
	struct writer w;
	w.sink = append_sink;
	w.arg = out;
	w.used = 0;
	const char *at = utf8.data, *end = at + utf8.len;
	PUT_LITERAL(&w, "\"");
	while (at < end) {
		if (is_plain(*at)) {
			at = put_plain_run(&w, at, end);
			continue;
		}
		const unsigned char *p = (const unsigned char *)at;
		uint32_t c = 0xfffd;
		size_t len = utf8_decode(at, (size_t)(end - at), &c);
		if (len == 0 && end - at >= 3 && p[0] == 0xed && (p[1] & 0xe0) == 0xa0 &&
			(p[2] & 0xc0) == 0x80) {
			len = 3;
			c = 0xd000 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
		}
		at += len ? len : 1;
		put_code_point(&w, c);
	}
	PUT_LITERAL(&w, "\"");
	flush(&w);
	return buf_failed(out) ? -1 : 0;
}

/* ---- around a hole ---- */

static bool is_one_of(struct span name, const struct span *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (span_equal(name, names[i]))
			return true;
	return false;
}

static int append_member(const struct json_span_doc *doc, uint32_t key, bool first, struct buf *out)
{
	if (!first)
		buf_append_str(out, ", ");
	int rc = json_canonical_append(doc, key, out);
	buf_append_str(out, ": ");
	return rc | json_canonical_append(doc, json_span_value(key), out);
}

int json_canonical_around(const struct json_span_doc *doc, uint32_t object, struct span hole,
	const struct span *without, size_t n_without, struct buf *before, struct buf *after)
{
	struct json_canonical_members members;
	if (json_canonical_members(doc, object, &members))
		return -1;
	bool first = true;
	int rc = 0;
	size_t i = 0;
	buf_append_str(before, "{");
	for (; i < members.count && compare_names(members.items[i].name, hole) < 0; i++)
		if (!is_one_of(members.items[i].name, without, n_without)) {
			rc |= append_member(doc, members.items[i].key, first, before);
			first = false;
		}
	if (!first)
		buf_append_str(before, ", ");
	json_canonical_append_string(hole, before);
	buf_append_str(before, ": ");
	for (; i < members.count; i++)
		if (!span_equal(members.items[i].name, hole) &&
			!is_one_of(members.items[i].name, without, n_without))
			rc |= append_member(doc, members.items[i].key, false, after);
	buf_append_str(after, "}");
	json_canonical_members_free(&members);
	return rc || buf_failed(before) || buf_failed(after) ? -1 : 0;
}
