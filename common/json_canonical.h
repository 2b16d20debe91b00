#ifndef COMMON_JSON_CANONICAL_H
#define COMMON_JSON_CANONICAL_H

/*
 * The canonical text of JSON: byte for byte what Python 3 prints for
 *
 *     json.dumps(json.loads(text), sort_keys=True)
 *
 * Keys sorted by code point, the last of duplicates; ", " and ": "; ASCII alone, \uXXXX in lower
 * case for the rest (U+007F too, and each half of a surrogate pair); integers as written except
 * "-0", which is "0"; floats as repr() writes them.
 *
 * A key for one element of a batch is the hash of the request with `input` replaced. What stands
 * around the hole is made once:
 *
 *     json_canonical_around(doc, root, SPAN_LITERAL("input"), without, n, &before, &after);
 *     (for every element) hash before, json_canonical_write(doc, element, into_the_hash, ...),
 * after
 *
 * The doc must be DONE. No shared state: any thread.
 */
#include "common/buf.h"
#include "common/json_span.h"
#include "common/span.h"

/* Takes the next piece of the text (of at most a few KB, or a long string at once); must not keep
 * it. */
typedef void json_canonical_sink(const void *data, size_t len_bytes, void *arg);

/* Write node's canonical text into sink, piece by piece. 0; -1 when out of memory: the text is cut
 * then. Memory in proportion to the members of the objects that are open at once. */
int json_canonical_write(
	const struct json_span_doc *doc, uint32_t node, json_canonical_sink *sink, void *arg);
/* Same, appended to out. -1 when out failed, too. */
int json_canonical_append(const struct json_span_doc *doc, uint32_t node, struct buf *out);
/* A string that comes from elsewhere, e.g. a key; half a surrogate pair in three bytes is written
 * as its escape, any other byte that is not UTF-8 as U+FFFD. 0, or -1 when out failed. */
int json_canonical_append_string(struct span utf8, struct buf *out);

/* The members of an object in canonical order, without the duplicates that do not count. */
struct json_canonical_member {
	struct span name; /* decoded as json_span_string_exact() does; lent by doc or by members */
	uint32_t key;     /* its node; json_span_value(key) is the value */
};
struct json_canonical_members {
	struct json_canonical_member *items;
	size_t count;
	char *names; /* private */
};
/* 0; -1 when out of memory, or when object is no OBJECT: nothing to free then. */
int json_canonical_members(
	const struct json_span_doc *doc, uint32_t object, struct json_canonical_members *members);
void json_canonical_members_free(struct json_canonical_members *members);

/* The canonical text of object with the value of the member `hole` (present or not) cut out and the
 * members named in `without` left out: `{"dimensions": 3, "input": ` goes to before, and
 * `, "model": "m"}` to after. 0; -1 when out of memory, when a buffer failed, or when object is no
 * OBJECT. */
int json_canonical_around(const struct json_span_doc *doc, uint32_t object, struct span hole,
	const struct span *without, size_t n_without, struct buf *before, struct buf *after);

#endif
