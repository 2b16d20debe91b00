#include "common/json_span.h"

#include <endian.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json_tape.h"
#include "common/number_text.h"
#include "common/utf8.h"

#define DEFAULT_DEPTH      128
#define DEFAULT_NODES      (UINT32_C(1) << 20)
#define MAX_INTEGER_DIGITS 4300
#define MAX_NUMBER_BYTES   65536

struct json_span_doc *json_span_new(struct span text, const struct json_span_limits *limits)
{
	struct json_span_doc *doc = calloc(1, sizeof *doc);
	if (!doc)
		return NULL;
	doc->text = text.data ? text.data : "";
	doc->len = text.len;
	doc->max_depth = limits && limits->max_depth ? limits->max_depth : DEFAULT_DEPTH;
	doc->max_nodes = limits && limits->max_nodes ? limits->max_nodes : DEFAULT_NODES;
	if (doc->max_nodes == JSON_SPAN_NONE)
		doc->max_nodes--;
	doc->open = JSON_SPAN_NONE;
	doc->state = JSON_TAPE_VALUE;
	return doc;
}

void json_span_free(struct json_span_doc **doc)
{
	if (*doc) {
		free((*doc)->nodes);
		free(*doc);
	}
	*doc = NULL;
}

size_t json_span_offset(const struct json_span_doc *doc)
{
	return doc->at;
}

size_t json_span_error_offset(const struct json_span_doc *doc)
{
	return doc->at;
}

const char *json_span_error_reason(const struct json_span_doc *doc)
{
	return doc->reason;
}

__attribute__((format(printf, 3, 4))) static void fail(
	struct json_span_doc *doc, size_t at, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(doc->reason, sizeof doc->reason, fmt, ap);
	va_end(ap);
	doc->at = at;
	doc->state = JSON_TAPE_FAILED;
}

/* A node that starts here, or NULL: failed. */
static struct json_tape_node *add_node(struct json_span_doc *doc, enum json_span_type type)
{
	if (doc->n_nodes == doc->max_nodes) {
		fail(doc, doc->at, "more than %u values", (unsigned)doc->max_nodes);
		return NULL;
	}
	if (doc->n_nodes == doc->capacity) {
		uint32_t capacity = doc->capacity ? doc->capacity : 8;
		capacity = capacity > doc->max_nodes / 2 ? doc->max_nodes : capacity * 2;
		struct json_tape_node *nodes = realloc(doc->nodes, capacity * sizeof *nodes);
		if (!nodes) {
			fail(doc, doc->at, "out of memory");
			return NULL;
		}
		doc->nodes = nodes;
		doc->capacity = capacity;
	}
	struct json_tape_node *node = &doc->nodes[doc->n_nodes++];
	*node = (struct json_tape_node){.start = (uint32_t)doc->at,
		.end = (uint32_t)doc->at,
		.next = doc->n_nodes,
		.type = (uint8_t)type};
	return node;
}

/* Past white space; false when the slice or the text (then failed, unless that is its place to end)
 * ended there. */
static inline bool peek(struct json_span_doc *doc, char *c)
{
	const char *at = doc->text + doc->at, *end = doc->text + doc->slice_end;
	while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
		at++;
	doc->at = (size_t)(at - doc->text);
	if (at < end) {
		*c = *at;
		return true;
	}
	if (doc->at == doc->len && doc->state != JSON_TAPE_END)
		fail(doc, doc->at,
			doc->n_nodes ? "the text ends too early" : "the text has no value");
	return false;
}

static void value_done(struct json_span_doc *doc)
{
	if (doc->open == JSON_SPAN_NONE) {
		doc->state = JSON_TAPE_END;
	} else {
		doc->nodes[doc->open].count++;
		doc->state = JSON_TAPE_AFTER_VALUE;
	}
}

/* ---- numbers ---- */

static inline bool starts_number(char c)
{
	return c == '-' || (c >= '0' && c <= '9');
}

static void fail_number(struct json_span_doc *doc)
{
	struct span rest = {doc->text + doc->at, doc->len - doc->at};
	bool infinity = rest.len > 1 && rest.data[1] == 'I';
	fail(doc, doc->at,
		infinity ? "NaN and Infinity are not JSON" : "not a number as JSON writes it");
}

/* Past the number that starts here; false: failed. */
static inline bool skip_number(struct json_span_doc *doc, bool *integer)
{
	const char *at = doc->text + doc->at, *end = doc->text + doc->len;
	if (end - at > MAX_NUMBER_BYTES)
		end = at + MAX_NUMBER_BYTES + 1;
	struct number_text_form form;
	const char *after = number_text_skip(at, end, &form);
	if (!after) {
		fail_number(doc);
		return false;
	}
	if (after - at > MAX_NUMBER_BYTES) {
		fail(doc, doc->at, "a number longer than %d bytes", MAX_NUMBER_BYTES);
		return false;
	}
	if (form.first == '0' && after == at + (*at == '-') + 1 && after < end &&
		starts_number(*after)) {
		fail(doc, doc->at, "a number must not start with 0");
		return false;
	}
	if (form.integer && form.integer_digits > MAX_INTEGER_DIGITS) {
		fail(doc, doc->at, "an integer has more than %d digits", MAX_INTEGER_DIGITS);
		return false;
	}
	if (form.large && !form.integer) {
		double value;
		number_text_read(at, after, &value);
		if (isinf(value)) {
			fail(doc, doc->at, "number out of range");
			return false;
		}
	}
	doc->at = (size_t)(after - doc->text);
	*integer = form.integer;
	return true;
}

static void scan_number(struct json_span_doc *doc)
{
	struct json_tape_node *node = add_node(doc, JSON_SPAN_NUMBER);
	bool integer;
	if (!node || !skip_number(doc, &integer))
		return;
	node->end = (uint32_t)doc->at;
	node->flags = integer ? JSON_TAPE_INTEGER : 0;
	value_done(doc);
}

/* ---- arrays and objects ---- */

static void open_container(struct json_span_doc *doc, enum json_span_type type)
{
	if (doc->depth == doc->max_depth) {
		fail(doc, doc->at, "nested deeper than %u levels", (unsigned)doc->max_depth);
		return;
	}
	struct json_tape_node *node = add_node(doc, type);
	if (!node)
		return;
	node->next = doc->open;
	doc->open = (uint32_t)(node - doc->nodes);
	doc->depth++;
	doc->at++;
	doc->state = type == JSON_SPAN_OBJECT ? JSON_TAPE_FIRST_KEY : JSON_TAPE_FIRST_ELEMENT;
}

static void close_container(struct json_span_doc *doc)
{
	struct json_tape_node *node = &doc->nodes[doc->open];
	doc->at++;
	node->end = (uint32_t)doc->at;
	doc->open = node->next;
	node->next = doc->n_nodes;
	doc->depth--;
	value_done(doc);
}

/* Something else stands among the numbers: go back to the first and give each its node. The way
 * back costs no more than these bytes once more, and counts against the slice. */
static void numbers_are_mixed(struct json_span_doc *doc)
{
	struct json_tape_node *array = &doc->nodes[doc->open];
	size_t left = doc->slice_end - doc->at;
	array->type = JSON_SPAN_ARRAY;
	array->flags = 0;
	array->count = 0;
	doc->at = array->start + 1;
	if (!doc->unsliced)
		doc->slice_end = doc->at + left;
	doc->state = JSON_TAPE_VALUE;
}

static void step_numbers(struct json_span_doc *doc)
{
	struct json_tape_node *array = &doc->nodes[doc->open];
	char c;
	while (peek(doc, &c)) {
		if (doc->state == JSON_TAPE_NUMBERS) {
			bool integer;
			if (!starts_number(c)) {
				if (c != '\0' && strchr("\"{[tfn", c))
					numbers_are_mixed(doc);
				else
					fail(doc, doc->at, "a value was expected");
				return;
			}
			if (!skip_number(doc, &integer))
				return;
			array->count++;
			if (!integer)
				array->flags &= (uint8_t)~JSON_TAPE_INTEGER;
			doc->state = JSON_TAPE_AFTER_NUMBER;
		} else if (c == ',') {
			doc->at++;
			doc->state = JSON_TAPE_NUMBERS;
		} else if (c == ']') {
			close_container(doc);
			return;
		} else {
			fail(doc, doc->at, "a comma or a closing bracket was expected");
			return;
		}
	}
}

static void step_first_element(struct json_span_doc *doc)
{
	char c;
	if (!peek(doc, &c))
		return;
	struct json_tape_node *array = &doc->nodes[doc->open];
	if (c == ']') {
		close_container(doc);
	} else if (starts_number(c)) {
		array->type = JSON_SPAN_NUMBERS;
		array->flags = JSON_TAPE_INTEGER;
		doc->state = JSON_TAPE_NUMBERS;
	} else {
		doc->state = JSON_TAPE_VALUE;
	}
}

static void step_after_value(struct json_span_doc *doc)
{
	char c;
	if (!peek(doc, &c))
		return;
	bool object = doc->nodes[doc->open].type == JSON_SPAN_OBJECT;
	if (c == ',') {
		doc->at++;
		doc->state = object ? JSON_TAPE_KEY : JSON_TAPE_VALUE;
	} else if (c == (object ? '}' : ']')) {
		close_container(doc);
	} else {
		fail(doc, doc->at, "a comma or a closing %s was expected",
			object ? "brace" : "bracket");
	}
}

/* ---- strings ---- */

static void begin_string(struct json_span_doc *doc, bool key)
{
	struct json_tape_node *node = add_node(doc, JSON_SPAN_STRING);
	if (!node)
		return;
	node->flags = JSON_TAPE_VERBATIM;
	doc->in_key = key;
	doc->at++;
	doc->state = JSON_TAPE_STRING;
}

#define EACH_BYTE(b) (UINT64_C(0x0101010101010101) * (b))

/* The high bit of the lowest byte that is below 0x20, above 0x7e, a quote or a backslash, is the
 * lowest bit set; 0 when there is no such byte. */
static inline uint64_t special_bytes(uint64_t v)
{
	uint64_t quote = v ^ EACH_BYTE('"'), backslash = v ^ EACH_BYTE('\\');
	uint64_t del = v ^ EACH_BYTE(0x7f);
	return (((v - EACH_BYTE(0x20)) & ~v) | ((quote - EACH_BYTE(1)) & ~quote) |
		       ((backslash - EACH_BYTE(1)) & ~backslash) | ((del - EACH_BYTE(1)) & ~del) |
		       v) &
	       EACH_BYTE(0x80);
}

static inline const char *skip_plain(const char *at, const char *end)
{
	while (end - at >= 8) {
		uint64_t v;
		memcpy(&v, at, sizeof v);
		uint64_t special = special_bytes(le64toh(v));
		if (special)
			return at + __builtin_ctzll(special) / 8;
		at += 8;
	}
	while (at < end && *at >= 0x20 && *at < 0x7f && *at != '"' && *at != '\\')
		at++;
	return at;
}

/* Length of the escape at `at`, 0 when it is none. */
static size_t escape_len(const char *at, const char *end)
{
	if (end - at < 2 || at[1] == '\0' || !strchr("\"\\/bfnrtu", at[1]))
		return 0;
	if (at[1] != 'u')
		return 2;
	if (end - at < 6)
		return 0;
	for (int i = 2; i < 6; i++)
		if (!((at[i] >= '0' && at[i] <= '9') ||
			    ((at[i] | 0x20) >= 'a' && (at[i] | 0x20) <= 'f')))
			return 0;
	return 6;
}

/* Past one character that is not plain; false: failed. */
static bool skip_special(struct json_span_doc *doc, struct json_tape_node *node, const char **at)
{
	const char *end = doc->text + doc->len;
	size_t offset = (size_t)(*at - doc->text);
	unsigned char c = (unsigned char)**at;
	size_t len = 1;
	node->flags &= (uint8_t)~JSON_TAPE_VERBATIM;
	if (c == '\\') {
		node->flags |= JSON_TAPE_ESCAPED;
		len = escape_len(*at, end);
		if (len == 0)
			fail(doc, offset, "not an escape that JSON knows");
	} else if (c < 0x20) {
		fail(doc, offset, "a control character in a string must be escaped");
	} else if (c >= 0x80) {
		len = utf8_sequence_len(*at, (size_t)(end - *at));
		if (len == 0)
			fail(doc, offset, "bytes that are not UTF-8");
	}
	*at += len;
	return doc->state != JSON_TAPE_FAILED;
}

static void step_string(struct json_span_doc *doc)
{
	struct json_tape_node *node = &doc->nodes[doc->n_nodes - 1];
	const char *at = doc->text + doc->at, *stop = doc->text + doc->slice_end;
	while ((at = skip_plain(at, stop)) < stop) {
		if (*at == '"') {
			doc->at = (size_t)(at - doc->text) + 1;
			node->end = (uint32_t)doc->at;
			if (doc->in_key)
				doc->state = JSON_TAPE_COLON;
			else
				value_done(doc);
			return;
		}
		if (!skip_special(doc, node, &at))
			return;
	}
	doc->at = (size_t)(at - doc->text);
	if (doc->at == doc->len)
		fail(doc, doc->at, "the text ends inside a string");
}

/* ---- values ---- */

static void scan_literal(struct json_span_doc *doc, struct span word, enum json_span_type type)
{
	if (doc->len - doc->at < word.len ||
		memcmp(doc->text + doc->at, word.data, word.len) != 0) {
		fail(doc, doc->at, "a value was expected");
		return;
	}
	struct json_tape_node *node = add_node(doc, type);
	if (!node)
		return;
	doc->at += word.len;
	node->end = (uint32_t)doc->at;
	value_done(doc);
}

static void step_value(struct json_span_doc *doc)
{
	char c;
	if (!peek(doc, &c))
		return;
	switch (c) {
	case '"':
		begin_string(doc, false);
		break;
	case '{':
		open_container(doc, JSON_SPAN_OBJECT);
		break;
	case '[':
		open_container(doc, JSON_SPAN_ARRAY);
		break;
	case 't':
		scan_literal(doc, SPAN_LITERAL("true"), JSON_SPAN_TRUE);
		break;
	case 'f':
		scan_literal(doc, SPAN_LITERAL("false"), JSON_SPAN_FALSE);
		break;
	case 'n':
		scan_literal(doc, SPAN_LITERAL("null"), JSON_SPAN_NULL);
		break;
	case 'N':
	case 'I':
		fail(doc, doc->at, "NaN and Infinity are not JSON");
		break;
	case '\xef':
		fail(doc, doc->at,
			doc->at == 0 ? "a byte order mark is not JSON" : "a value was expected");
		break;
	default:
		if (starts_number(c))
			scan_number(doc);
		else
			fail(doc, doc->at, "a value was expected");
	}
}

static void step_key(struct json_span_doc *doc)
{
	char c;
	if (!peek(doc, &c))
		return;
	if (c == '"')
		begin_string(doc, true);
	else if (c == '}' && doc->state == JSON_TAPE_FIRST_KEY)
		close_container(doc);
	else
		fail(doc, doc->at, "a key in quotes was expected");
}

static void step_colon(struct json_span_doc *doc)
{
	char c;
	if (!peek(doc, &c))
		return;
	if (c != ':') {
		fail(doc, doc->at, "a colon was expected");
		return;
	}
	doc->at++;
	doc->state = JSON_TAPE_VALUE;
}

static void step_end(struct json_span_doc *doc)
{
	char c;
	if (peek(doc, &c))
		fail(doc, doc->at, "something follows the value");
	else if (doc->at == doc->len)
		doc->state = JSON_TAPE_DONE;
}

static void (*const steps[])(struct json_span_doc *doc) = {
	[JSON_TAPE_VALUE] = step_value,
	[JSON_TAPE_FIRST_ELEMENT] = step_first_element,
	[JSON_TAPE_FIRST_KEY] = step_key,
	[JSON_TAPE_KEY] = step_key,
	[JSON_TAPE_COLON] = step_colon,
	[JSON_TAPE_AFTER_VALUE] = step_after_value,
	[JSON_TAPE_STRING] = step_string,
	[JSON_TAPE_NUMBERS] = step_numbers,
	[JSON_TAPE_AFTER_NUMBER] = step_numbers,
	[JSON_TAPE_END] = step_end,
};

enum json_span_status json_span_step(struct json_span_doc *doc, size_t max_bytes)
{
	if (doc->len > UINT32_MAX - 1)
		fail(doc, 0, "a text of 4 GiB or more");
	size_t left = doc->len - doc->at;
	if (max_bytes == 0)
		max_bytes = 1;
	doc->unsliced = max_bytes >= doc->len;
	doc->slice_end = doc->at + (max_bytes < left ? max_bytes : left);
	while (doc->state < JSON_TAPE_DONE) {
		if (doc->at >= doc->slice_end && doc->slice_end < doc->len)
			return JSON_SPAN_MORE;
		steps[doc->state](doc);
	}
	return doc->state == JSON_TAPE_DONE ? JSON_SPAN_DONE : JSON_SPAN_ERROR;
}
