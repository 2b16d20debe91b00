#ifndef COMMON_JSON_SPAN_H
#define COMMON_JSON_SPAN_H

/*
 * A validating JSON reader (RFC 8259) that builds no tree of copies: it walks one buffer, which it
 * borrows, and leaves a tape of small nodes that say what stands where. A node is an index:
 *
 *     {"input": ["a", [1, 2]], "n": 3}
 *      0 object, 2 members
 *        1 string (key)  2 array of 2 -> 3 string, 4 number array of 2
 *                5 string (key)  6 number
 *
 * An array of numbers alone is one node whatever its length, so vectors and token ids cost no tape;
 * json_span_numbers() walks it. An empty array is a plain array.
 *
 * The work is cut into slices: call json_span_step() until it is done, with a bound on bytes per
 * call on the loop, or with SIZE_MAX on a worker. A doc has no shared state: any thread, one at a
 * time; once done, several threads may read it.
 *
 * What RFC 8259 leaves open, and what is refused:
 *   - duplicate keys are kept; json_span_member() finds the last, as Python does;
 *   - an escape that is half a surrogate pair ("\ud800") is accepted; see json_span_string();
 *   - errors: bytes that are not UTF-8 (a surrogate's three bytes too), a byte order mark, NaN and
 *     Infinity, a number with fraction or exponent beyond a double ("number out of range"), an
 *     integer of more than 4,300 digits (Python's limit), a number over 64 KiB of text, an empty
 *     text, anything after the value, a text of 4 GiB, and the limits below.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"

struct json_span_doc;

/* "No such node." */
#define JSON_SPAN_NONE UINT32_MAX

enum json_span_type {
	JSON_SPAN_NULL,
	JSON_SPAN_FALSE,
	JSON_SPAN_TRUE,
	JSON_SPAN_NUMBER,
	JSON_SPAN_STRING,
	JSON_SPAN_ARRAY,
	JSON_SPAN_NUMBERS, /* an array of one or more numbers and nothing else */
	JSON_SPAN_OBJECT
};

struct json_span_limits {
	uint32_t max_depth; /* arrays and objects inside each other; 0: 128 */
	uint32_t max_nodes; /* of 20 bytes each; 0: 1,048,576 */
};

enum json_span_status { JSON_SPAN_MORE, JSON_SPAN_DONE, JSON_SPAN_ERROR };

/* text is borrowed until json_span_free(); limits NULL: the defaults. NULL when out of memory. */
struct json_span_doc *json_span_new(struct span text, const struct json_span_limits *limits);
void json_span_free(struct json_span_doc **doc);

/* Go on for about max_bytes (a number or a character is not cut). MORE: call again; never
 * when max_bytes is the text's length or more. DONE and ERROR stay what they are. Nothing below but
 * json_span_error_*() may be asked before DONE. */
enum json_span_status json_span_step(struct json_span_doc *doc, size_t max_bytes);
/* Bytes looked at so far; may go back once per array when numbers turn out to be mixed with others.
 */
size_t json_span_offset(const struct json_span_doc *doc);
/* After ERROR: the byte where it went wrong, and why, in a few words without a full stop ("a comma
 * or a closing bracket was expected"). Lent. Out of memory is such an error too. */
size_t json_span_error_offset(const struct json_span_doc *doc);
const char *json_span_error_reason(const struct json_span_doc *doc);

static inline uint32_t json_span_root(void)
{
	return 0;
}
enum json_span_type json_span_type(const struct json_span_doc *doc, uint32_t node);
/* The node as written, quotes and brackets included. */
struct span json_span_text(const struct json_span_doc *doc, uint32_t node);
/* Elements of an array of either kind, members of an object (duplicates counted), else 0. */
uint32_t json_span_count(const struct json_span_doc *doc, uint32_t node);

/* Children of an ARRAY, keys of an OBJECT, in the order of the text; NONE at the end, and for all
 * other types:
 *     for (n = json_span_first(doc, a); n != JSON_SPAN_NONE; n = json_span_next(doc, a, n))
 * A key is a STRING node; its value is json_span_value(key). */
uint32_t json_span_first(const struct json_span_doc *doc, uint32_t parent);
uint32_t json_span_next(const struct json_span_doc *doc, uint32_t parent, uint32_t child);
static inline uint32_t json_span_value(uint32_t key)
{
	return key + 1;
}

/* The value of the last member with that key (UTF-8, compared after escapes are undone). NONE when
 * there is none, or when object is NONE or no OBJECT. Linear in the members. */
uint32_t json_span_member(const struct json_span_doc *doc, uint32_t object, struct span key);

/* ---- strings ---- */

/* A STRING node whose decoded content is utf8; false for every other node. */
bool json_span_equal(const struct json_span_doc *doc, uint32_t node, struct span utf8);
/* True for a STRING without escapes: *utf8 is its content, lent from the text. */
bool json_span_borrow_string(const struct json_span_doc *doc, uint32_t node, struct span *utf8);
/* Append the decoded content of a STRING: always UTF-8, half a surrogate pair becomes U+FFFD. 0; -1
 * when out failed, or for any other node. */
int json_span_string(const struct json_span_doc *doc, uint32_t node, struct buf *out);
/* Same, but half a surrogate pair is written as three bytes (WTF-8): memcmp() on such texts orders
 * them by code point, and different strings stay different. */
int json_span_string_exact(const struct json_span_doc *doc, uint32_t node, struct buf *out);

/* ---- numbers ---- */

/* A NUMBER, or every number of NUMBERS, has neither fraction nor exponent. */
bool json_span_is_integer(const struct json_span_doc *doc, uint32_t node);
/* -1 unless a NUMBER without fraction or exponent, in range. */
int json_span_int64(const struct json_span_doc *doc, uint32_t node, int64_t *value);
/* -1 unless a NUMBER; or an integer beyond a double. */
int json_span_double(const struct json_span_doc *doc, uint32_t node, double *value);

/* A walk over the numbers of a NUMBERS node; over nothing for any other. */
struct json_span_numbers {
	const char *at, *end;
};
struct json_span_numbers json_span_numbers(const struct json_span_doc *doc, uint32_t node);
/* The next number as written, lent; false at the end. */
bool json_span_numbers_next(struct json_span_numbers *numbers, struct span *number);
/* Read up to n more values; returns how many. An integer beyond the range is an infinity. */
size_t json_span_read_doubles(struct json_span_numbers *numbers, double *values, size_t n);
/* Same, rounded to float32. *exact becomes false when one of them is no finite float32 exactly, and
 * is left alone otherwise. */
size_t json_span_read_floats(
	struct json_span_numbers *numbers, float *values, size_t n, bool *exact);

#endif
