#ifndef GATEWAYD_PROVIDER_VECTORS_H
#define GATEWAYD_PROVIDER_VECTORS_H

/*
 * The vectors of a provider's answer, taken out of its body while it arrives: a long string of
 * canonical base64, or a long array of numbers that float32 says exactly, becomes those float32,
 * and stands in the body empty. So an answer of 33 MB of base64, or of 140 MB of numbers, is never
 * there as a whole: 25 MB of float32 are, and a body of a few bytes for each vector. What the body
 * says else is left for the parser, which asks for the vectors by their place; what is not taken
 * (short, escaped, not finite, numbers that float32 would change) is the parser's too, as it came.
 * One thread at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

struct provider_vector {
	size_t at; /* of the empty string's or array's first character */
	uint32_t dims;
	float *values; /* owned; NULL once they were taken */
};

enum provider_vectors_inside {
	PROVIDER_VECTORS_BETWEEN,
	PROVIDER_VECTORS_IN_STRING,
	PROVIDER_VECTORS_IN_ARRAY, /* with nothing but numbers so far, perhaps */
};

/* Zeroed takes nothing. All is private. */
struct provider_vectors {
	struct provider_vector *list; /* by place */
	size_t n, capacity, max;
	size_t scanned; /* of the body */
	enum provider_vectors_inside inside;
	size_t begin; /* of the string or array: behind its first character */
	bool plain, escaped;
};

/* For a new answer with at most max vectors. */
void provider_vectors_init(struct provider_vectors *vectors, size_t max);
/* More of the answer was appended to the body; the body may be shorter afterwards. */
void provider_vectors_read(struct provider_vectors *vectors, struct buf *body);
/* What the empty string or array at this place stood for: the caller frees it. NULL: nothing. */
float *provider_vectors_take(struct provider_vectors *vectors, size_t at, uint32_t *dims);
void provider_vectors_free(struct provider_vectors *vectors);

#endif
