#ifndef COMMON_JSON_TAPE_H
#define COMMON_JSON_TAPE_H

/* What is inside a struct json_span_doc. For json_span*.c and json_canonical.c alone. */
#include "common/json_span.h"

enum json_tape_flags {
	JSON_TAPE_ESCAPED = 1, /* a string with a backslash */
	JSON_TAPE_VERBATIM =
		2, /* a string of U+0020 to U+007E without escapes: canonical as it is */
	JSON_TAPE_INTEGER = 4, /* every number lacks fraction and exponent */
};

struct json_tape_node {
	uint32_t start, end; /* in the text */
	uint32_t next; /* the node after this one and all its children; while an array or object
			  is still open: the one around it */
	uint32_t count;
	uint8_t type;
	uint8_t flags;
};

enum json_tape_state {
	JSON_TAPE_VALUE,         /* a value is expected */
	JSON_TAPE_FIRST_ELEMENT, /* a value or ] */
	JSON_TAPE_FIRST_KEY,     /* a key or } */
	JSON_TAPE_KEY,
	JSON_TAPE_COLON,
	JSON_TAPE_AFTER_VALUE, /* a comma, ] or } */
	JSON_TAPE_STRING,      /* inside one */
	JSON_TAPE_NUMBERS,     /* a number is expected in an array that had nothing else so far */
	JSON_TAPE_AFTER_NUMBER,
	JSON_TAPE_END, /* white space alone */
	JSON_TAPE_DONE,
	JSON_TAPE_FAILED,
};

struct json_span_doc {
	const char *text;
	size_t len, at, slice_end;
	uint32_t max_depth, max_nodes;
	struct json_tape_node *nodes;
	uint32_t n_nodes, capacity;
	uint32_t open; /* the innermost open array or object, or JSON_SPAN_NONE */
	uint32_t depth;
	enum json_tape_state state;
	bool in_key;   /* the string is a key */
	bool unsliced; /* this step is to end the work */
	char reason[80];
};

static inline const struct json_tape_node *json_tape_node(
	const struct json_span_doc *doc, uint32_t node)
{
	return &doc->nodes[node];
}

/* What stands between a string's quotes. */
static inline struct span json_tape_inside(
	const struct json_span_doc *doc, const struct json_tape_node *node)
{
	return (struct span){doc->text + node->start + 1, node->end - node->start - 2};
}

/* One UTF-16 unit of "\uXXXX", *at behind the u; the digits were checked. */
uint32_t json_tape_hex4(const char *at);
/* The character at *at, escapes undone, pairs of surrogates put together, lone ones given back as
 * they are; *at moves past it. */
uint32_t json_tape_character(const char **at, const char *end);

#endif
