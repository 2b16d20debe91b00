#ifndef EXPORTERMERGER_SAMPLE_NUMBER_H
#define EXPORTERMERGER_SAMPLE_NUMBER_H

/*
 * The numbers of a metrics page, as text: they are checked and passed on, not rounded. Both formats
 * write a value as a decimal number, [+-]Inf, [+-]Infinity or NaN in any case. Safe on any thread.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"

enum sample_number {
	SAMPLE_NUMBER_BAD = -1,
	SAMPLE_NUMBER_FINITE,
	SAMPLE_NUMBER_INFINITE,
	SAMPLE_NUMBER_NAN,
	SAMPLE_NUMBER_TOO_LARGE, /* well formed, beyond a double: readers of the classic text refuse
				    it */
};

enum sample_number sample_number_kind(struct span text);
/* The value of a well-formed text. */
double sample_number_value(struct span text);

/* Classic timestamps are whole milliseconds that fit 64 bits; OpenMetrics timestamps are seconds,
 * any finite decimal number, here at most 9e15 of them. false: it is not one. */
bool sample_timestamp_valid(struct span text, bool openmetrics);
/* Append text (valid) in the other format's unit: milliseconds become the shortest decimal of
 * seconds, seconds are cut after the third decimal. */
void sample_timestamp_to_seconds(struct span text, struct buf *out);
void sample_timestamp_to_ms(struct span text, struct buf *out);

#endif
