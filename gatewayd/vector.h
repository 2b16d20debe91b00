#ifndef GATEWAYD_VECTOR_H
#define GATEWAYD_VECTOR_H

/*
 * The two texts of one embedding. It is held as base64 (RFC 4648, with padding) of little-endian
 * float32: exact, small, quick to turn into number text. Only when the provider's numbers are not
 * exact float32 it is held as the provider's JSON array, verbatim; base64 of it is then what
 * float32 can say.
 *
 *   base64  -- vector_text_append() -->  [0.1,0.2]      shortest decimals, what OpenAI sends
 *   text    -- vector_base64_append() -> base64         each number rounded to float32
 *
 * A vector has 1 to VECTOR_MAX_DIMS finite numbers. Pure; safe on any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"

#define VECTOR_MAX_DIMS       65536
#define VECTOR_MAX_TEXT_BYTES (4u << 20) /* of a JSON array, white space included */

enum vector_source {
	VECTOR_BASE64, /* base64 of float32 */
	VECTOR_TEXT,   /* the provider's JSON array, verbatim */
};

/* Characters of base64 that n_bytes become. */
#define VECTOR_BASE64_LEN(n_bytes) (((size_t)(n_bytes) + 2) / 3 * 4)
/* ... and dims float32. */
static inline size_t vector_base64_len(uint32_t dims)
{
	return VECTOR_BASE64_LEN((size_t)dims * sizeof(float));
}

/* ---- base64 of any bytes ---- */

/* Writes VECTOR_BASE64_LEN(len_bytes) characters, no NUL. */
void vector_base64_encode(const void *data, size_t len_bytes, char *out);
/* Writes the decoded bytes, at most text.len / 4 * 3, and their number; -1 unless text is canonical
 * base64: length a multiple of 4, right padding, unused bits zero, nothing else. out may hold
 * anything then. */
int vector_base64_decode(struct span text, void *out, size_t *len_bytes);

/* ---- Reading what a provider or a store says ---- */

/*
 * The characters of a base64 string: 0 and the number of float32 values, or -1 unless it is
 * canonical base64 of 1 to VECTOR_MAX_DIMS finite numbers. floats (may be NULL) gets them appended
 * in this machine's order; -1 with floats failed when its ceiling or memory ends.
 */
int vector_read_base64(struct span base64, struct buf *floats, uint32_t *dims);
/* The same in memory of exactly their size, for free(). NULL when it is not such a string, or when
 * memory is out. */
float *vector_base64_floats(struct span base64, uint32_t *dims);

enum vector_exactness {
	VECTOR_BAD = -1,    /* not an array of finite numbers, or out of bounds */
	VECTOR_EXACT = 0,   /* every number is a float32: hold as base64 */
	VECTOR_INEXACT = 1, /* hold as text */
};
/*
 * The span of a JSON array of numbers, brackets included; its grammar is checked here, so the span
 * may come from anywhere. floats (may be NULL) gets the numbers, rounded to float32, appended. A
 * number beyond float32's range is VECTOR_BAD. VECTOR_BAD also when floats failed: buf_failed()
 * tells.
 */
enum vector_exactness vector_read_text(struct span array, struct buf *floats, uint32_t *dims);
/* The numbers of a VECTOR_EXACT array in memory of exactly their size, for free(). NULL when it is
 * not one, or when memory is out. */
float *vector_text_floats(struct span array, uint32_t *dims);

/* ---- From one form to the other; both append to out: 0, or -1 (out failed, or bad input) ---- */

int vector_base64_append(struct span text, struct buf *out);
int vector_text_append(struct span base64, struct buf *out);
/* From numbers in memory. -1 also when one is not finite. */
int vector_floats_append_base64(const float *values, uint32_t dims, struct buf *out);

#endif
