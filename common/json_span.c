#include "common/json_span.h"

#include <math.h>

#include "common/json_tape.h"
#include "common/log.h"
#include "common/number_text.h"
#include "common/utf8.h"

/* Every question about a node goes through here: an index that is no node is our own mistake. */
static const struct json_tape_node *node_of(const struct json_span_doc *doc, uint32_t node)
{
	BUG_ON(doc->state != JSON_TAPE_DONE || node >= doc->n_nodes);
	return json_tape_node(doc, node);
}

enum json_span_type json_span_type(const struct json_span_doc *doc, uint32_t node)
{
	return (enum json_span_type)node_of(doc, node)->type;
}

struct span json_span_text(const struct json_span_doc *doc, uint32_t node)
{
	const struct json_tape_node *n = node_of(doc, node);
	return (struct span){doc->text + n->start, n->end - n->start};
}

uint32_t json_span_count(const struct json_span_doc *doc, uint32_t node)
{
	return node_of(doc, node)->count;
}

uint32_t json_span_first(const struct json_span_doc *doc, uint32_t parent)
{
	/* Only an array or object with children has nodes inside. */
	return node_of(doc, parent)->next > parent + 1 ? parent + 1 : JSON_SPAN_NONE;
}

uint32_t json_span_next(const struct json_span_doc *doc, uint32_t parent, uint32_t child)
{
	const struct json_tape_node *p = node_of(doc, parent);
	if (p->type == JSON_SPAN_OBJECT)
		child = json_span_value(child);
	uint32_t next = node_of(doc, child)->next;
	return next < p->next ? next : JSON_SPAN_NONE;
}

uint32_t json_span_member(const struct json_span_doc *doc, uint32_t object, struct span key)
{
	uint32_t found = JSON_SPAN_NONE;
	if (object == JSON_SPAN_NONE || json_span_type(doc, object) != JSON_SPAN_OBJECT)
		return found;
	for (uint32_t k = json_span_first(doc, object); k != JSON_SPAN_NONE;
		k = json_span_next(doc, object, k))
		if (json_span_equal(doc, k, key))
			found = json_span_value(k);
	return found;
}

/* ---- strings ---- */

uint32_t json_tape_hex4(const char *at)
{
	uint32_t value = 0;
	for (int i = 0; i < 4; i++) {
		char c = at[i];
		value = value << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	return value;
}

static uint32_t escaped_character(const char **at, const char *end)
{
	const char *p = *at;
	*at += 2;
	switch (p[1]) {
	case 'b':
		return '\b';
	case 'f':
		return '\f';
	case 'n':
		return '\n';
	case 'r':
		return '\r';
	case 't':
		return '\t';
	case 'u':
		break;
	default:
		return (unsigned char)p[1];
	}
	uint32_t c = json_tape_hex4(p + 2);
	*at += 4;
	if ((c & 0xfc00) == 0xd800 && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u') {
		uint32_t low = json_tape_hex4(*at + 2);
		if ((low & 0xfc00) == 0xdc00) {
			*at += 6;
			c = 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
		}
	}
	return c;
}

uint32_t json_tape_character(const char **at, const char *end)
{
	if (**at == '\\')
		return escaped_character(at, end);
	uint32_t c = 0;
	*at += utf8_decode(*at, (size_t)(end - *at), &c);
	return c;
}

bool json_span_equal(const struct json_span_doc *doc, uint32_t node, struct span utf8)
{
	const struct json_tape_node *n = node_of(doc, node);
	if (n->type != JSON_SPAN_STRING)
		return false;
	struct span inside = json_tape_inside(doc, n);
	if (!(n->flags & JSON_TAPE_ESCAPED))
		return span_equal(inside, utf8);
	if (inside.len < utf8.len) /* no escape is shorter than what it stands for */
		return false;
	const char *at = inside.data, *end = at + inside.len;
	size_t matched = 0;
	while (at < end) {
		char bytes[4];
		unsigned len = (unsigned)utf8_encode(json_tape_character(&at, end), bytes);
		if (utf8.len - matched < len || memcmp(utf8.data + matched, bytes, len) != 0)
			return false;
		matched += len;
	}
	return matched == utf8.len;
}

bool json_span_borrow_string(const struct json_span_doc *doc, uint32_t node, struct span *utf8)
{
	const struct json_tape_node *n = node_of(doc, node);
	if (n->type != JSON_SPAN_STRING || (n->flags & JSON_TAPE_ESCAPED))
		return false;
	*utf8 = json_tape_inside(doc, n);
	return true;
}

static int append_string(
	const struct json_span_doc *doc, uint32_t node, bool exact, struct buf *out)
{
	const struct json_tape_node *n = node_of(doc, node);
	if (n->type != JSON_SPAN_STRING)
		return -1;
	struct span inside = json_tape_inside(doc, n);
	const char *at = inside.data, *end = at + inside.len;
	while (at < end) {
		const char *escape = memchr(at, '\\', (size_t)(end - at));
		const char *run_end = escape ? escape : end;
		if (buf_append(out, at, (size_t)(run_end - at)))
			return -1;
		at = run_end;
		if (!escape)
			break;
		uint32_t c = json_tape_character(&at, end);
		if (!exact && (c & 0xfffff800) == 0xd800)
			c = 0xfffd;
		char bytes[4];
		if (buf_append(out, bytes, utf8_encode(c, bytes)))
			return -1;
	}
	return buf_failed(out) ? -1 : 0;
}

int json_span_string(const struct json_span_doc *doc, uint32_t node, struct buf *out)
{
	return append_string(doc, node, false, out);
}

int json_span_string_exact(const struct json_span_doc *doc, uint32_t node, struct buf *out)
{
	return append_string(doc, node, true, out);
}

/* ---- numbers ---- */

bool json_span_is_integer(const struct json_span_doc *doc, uint32_t node)
{
	return node_of(doc, node)->flags & JSON_TAPE_INTEGER;
}

int json_span_int64(const struct json_span_doc *doc, uint32_t node, int64_t *value)
{
	const struct json_tape_node *n = node_of(doc, node);
	if (n->type != JSON_SPAN_NUMBER || !(n->flags & JSON_TAPE_INTEGER))
		return -1;
	const char *at = doc->text + n->start, *end = doc->text + n->end;
	bool negative = *at == '-';
	at += negative;
	uint64_t sum = 0, limit = negative ? UINT64_C(1) << 63 : INT64_MAX;
	for (; at < end; at++) {
		unsigned digit = (unsigned)(*at - '0');
		if (sum > (limit - digit) / 10)
			return -1;
		sum = sum * 10 + digit;
	}
	*value = (int64_t)(negative ? 0 - sum : sum);
	return 0;
}

int json_span_double(const struct json_span_doc *doc, uint32_t node, double *value)
{
	if (json_span_type(doc, node) != JSON_SPAN_NUMBER)
		return -1;
	double d;
	if (number_text_parse(json_span_text(doc, node), &d) || isinf(d))
		return -1;
	*value = d;
	return 0;
}

static inline void skip_space(struct json_span_numbers *numbers)
{
	const char *at = numbers->at;
	while (at < numbers->end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
		at++;
	numbers->at = at;
}

/* To the next number, or to the end. */
static inline void skip_separator(struct json_span_numbers *numbers)
{
	skip_space(numbers);
	if (numbers->at < numbers->end) {
		numbers->at++; /* the scan saw to it that this is a comma */
		skip_space(numbers);
	}
}

struct json_span_numbers json_span_numbers(const struct json_span_doc *doc, uint32_t node)
{
	const struct json_tape_node *n = node_of(doc, node);
	struct json_span_numbers numbers = {NULL, NULL};
	if (n->type == JSON_SPAN_NUMBERS) {
		numbers.at = doc->text + n->start + 1;
		numbers.end = doc->text + n->end - 1;
		skip_space(&numbers);
	}
	return numbers;
}

bool json_span_numbers_next(struct json_span_numbers *numbers, struct span *number)
{
	if (numbers->at == numbers->end)
		return false;
	struct number_text_form form;
	const char *after = number_text_skip(numbers->at, numbers->end, &form);
	*number = (struct span){numbers->at, (size_t)(after - numbers->at)};
	numbers->at = after;
	skip_separator(numbers);
	return true;
}

size_t json_span_read_doubles(struct json_span_numbers *numbers, double *values, size_t n)
{
	size_t i = 0;
	for (; i < n && numbers->at < numbers->end; i++) {
		numbers->at = number_text_read(numbers->at, numbers->end, &values[i]);
		skip_separator(numbers);
	}
	return i;
}

size_t json_span_read_floats(
	struct json_span_numbers *numbers, float *values, size_t n, bool *exact)
{
	size_t i = 0;
	bool all = true;
	for (; i < n && numbers->at < numbers->end; i++) {
		double value;
		numbers->at = number_text_read(numbers->at, numbers->end, &value);
		values[i] = (float)value;
		all &= (double)values[i] == value && isfinite(values[i]);
		skip_separator(numbers);
	}
	if (!all)
		*exact = false;
	return i;
}
