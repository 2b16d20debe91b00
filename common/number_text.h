#ifndef COMMON_NUMBER_TEXT_H
#define COMMON_NUMBER_TEXT_H

/*
 * Doubles to decimal text and back, exact in both directions, whatever the locale.
 *
 * Writing gives what Python's repr(float) gives: the shortest digits that read back as the same
 * double, of those the nearest to it ("0.1", "1e-05", "1e+16", "123456789012345.0", "-0.0"). It is
 * Schubfach (Raffaello Giulietti, "The Schubfach way to render doubles"). A float32 seen as a
 * double is written the same way; this is the text that OpenAI sends.
 *
 * Reading takes JSON's number grammar, rounds to nearest even, and works on text without a NUL
 * behind it. Up to 19 digits it is one or two multiplications (after Clinger, and Lemire's "Number
 * parsing at a gigabyte per second"); in doubt, and for subnormals, strtod decides.
 *
 * Safe on any thread: the table of powers is made before main().
 */
#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/span.h"

/* What number_text_write() may touch of out; the text itself has at most 24 bytes. */
#define NUMBER_TEXT_BYTES 32

/* Returns the length of the text (no NUL is written), 0 for NaN and the infinities. */
size_t number_text_write(double value, char out[NUMBER_TEXT_BYTES]);

/* Append n values, each as number_text_write((double)value), with commas between: the inside of a
 * JSON array. 0; -1 with out failed, or when a value is not finite (content up to there stays). */
int number_text_append_floats(struct buf *out, const float *values, size_t n);

/* What the grammar alone tells of a number. */
struct number_text_form {
	bool integer;          /* no fraction, no exponent */
	bool large;            /* may be beyond a double's range: reading it tells */
	unsigned char first;   /* leading digit */
	size_t integer_digits; /* digits before the point */
};

/* The end of the JSON number that starts at `at`, or NULL when none does. The number ends where the
 * grammar lets it end; what follows is the caller's business. */
const char *number_text_skip(const char *at, const char *end, struct number_text_form *form);

/* Same, with its value; beyond a double's range that is an infinity, too small gives 0. */
const char *number_text_read(const char *at, const char *end, double *value);

/* The whole of text must be one JSON number. 0, or -1. */
int number_text_parse(struct span text, double *value);

#endif
