#ifndef GATEWAYD_QUERY_H
#define GATEWAYD_QUERY_H

/*
 * What an embeddings request asks for, taken from its body: the elements of `input` with their
 * keys, and what goes to the provider with them.
 *
 * Element key: SHA-256 of the canonical form (json_canonical.h) of the request for this element
 * alone,
 *   {"dimensions": 3, "input": E, "model": "M"}
 * with every parameter as sent but `encoding_format` and `user`, E the bare string or the bare
 * array of token ids. So "a" and ["a"], [1,2] and [[1,2]] are the same element. For a plain single
 * request it is the key that the Python gateway computed. With a scope its digest follows the
 * canonical form in the sum.
 *
 * Pure; safe on any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/span.h"
#include "gatewayd/api_error.h"

#define QUERY_MAX_MODEL_BYTES  256
#define QUERY_MAX_PARAMS_BYTES 16384
#define QUERY_MAX_DIMENSIONS   65536
/* Bodies up to this size are quick enough to be taken apart on the loop. */
#define QUERY_INLINE_BYTES (16u << 10)

enum query_encoding { QUERY_FLOAT, QUERY_BASE64 };

struct query_element {
	struct digest key;
	struct span json;   /* of the body */
	uint32_t next_same; /* the next element with the same key; 0: none */
	bool repeated;      /* an earlier element has the same key */
};

struct query {
	enum query_encoding encoding;
	int64_t dimensions;          /* 0: not given */
	struct span model_json;      /* of the body */
	struct buf model;            /* decoded */
	struct buf params_json;      /* for the provider: other members, `"user":"x",` each with its
					comma */
	struct buf canonical_params; /* canonical object of all that takes part in the key but
					`input` */
	/* Of the whole body as sent: what the Python gateway kept the answer under. Not set where
	 * it is the element's own key. */
	bool has_legacy_key;
	struct digest legacy_key;
	bool single; /* input is one element, not a list */
	size_t n;
	struct query_element *elements;
};

/*
 * Take body apart. scope may be NULL. 0, or -1 with *error (400); query_free() after both. The
 * query borrows from body.
 */
int query_parse(struct span body, size_t max_inputs, const struct digest *scope,
	struct query *query, struct api_error *error);
/* Same, with legacy_key. */
int query_parse_legacy(struct span body, size_t max_inputs, const struct digest *scope,
	struct query *query, struct api_error *error);
void query_free(struct query *query);

#endif
