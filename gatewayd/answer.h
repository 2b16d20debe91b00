#ifndef GATEWAYD_ANSWER_H
#define GATEWAYD_ANSWER_H

/*
 * The body of an embeddings answer, made from elements: bytes in, bytes out, no tree.
 *
 *   {"object":"list","data":[{"object":"embedding","index":0,"embedding":…},…],"model":"…",
 *    "usage":{"prompt_tokens":N,"total_tokens":N}}
 *
 * usage sums what the elements cost when they were bought.
 */
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "gatewayd/cache_object.h"
#include "gatewayd/query.h"

struct answer {
	struct cache_object *const *elements; /* borrowed */
	size_t n;                             /* at least 1 */
	enum query_encoding encoding;
};

/* Length in bytes; -1 when only writing it tells (number text). */
int64_t answer_length(const struct answer *answer);
/* Append all of it. 0, or -1 with the buffer failed. */
int answer_write(const struct answer *answer, struct buf *out);
/*
 * Append the next elements from *next on until out has at_least_bytes; after the last one the end.
 * *next is n then. 0, or -1 with the buffer failed.
 */
int answer_write_some(
	const struct answer *answer, size_t *next, size_t at_least_bytes, struct buf *out);

/*
 * The same for another instance: each element packed as messages.h says (fetch_element). sources[i]
 * is the enum stats_source of element i.
 */
int answer_pack_some(const struct answer *answer, const uint8_t *sources, size_t *next,
	size_t at_least_bytes, struct buf *out);

#endif
