#ifndef GATEWAYD_PROVIDER_STRINGS_H
#define GATEWAYD_PROVIDER_STRINGS_H

/*
 * The vectors of a provider's answer, taken out of its body while it arrives: a long string of
 * canonical base64 becomes the float32 that it says, and stands in the body as an empty string. So
 * an answer of 33 MB is never there as a whole: 25 MB of numbers are, and a body of a few bytes for
 * each. What the body says else is left for the parser, which asks for the numbers by their place;
 * a string that is not taken (short, escaped, not base64 of finite numbers) is the parser's too.
 * One thread at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

struct provider_string {
	size_t at; /* of the empty string's opening quote */
	uint32_t dims;
	float *values; /* owned; NULL once they were taken */
};

/* Zeroed takes nothing. All is private. */
struct provider_strings {
	struct provider_string *list; /* by place */
	size_t n, capacity, max;
	size_t scanned; /* of the body */
	size_t begin;   /* of the string that has not ended: behind its quote */
	bool in_string, plain, escaped;
};

/* For a new answer with at most max vectors. */
void provider_strings_init(struct provider_strings *strings, size_t max);
/* More of the answer was appended to the body; the body may be shorter afterwards. */
void provider_strings_read(struct provider_strings *strings, struct buf *body);
/* What the empty string at this place stood for: the caller frees it. NULL: nothing. */
float *provider_strings_take(struct provider_strings *strings, size_t at, uint32_t *dims);
void provider_strings_free(struct provider_strings *strings);

#endif
