#include "exportermerger/sample_number.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "common/number_text.h"

#define MAX_SECONDS 9e15

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static const char *skip_digits(const char *at, const char *end)
{
	while (at < end && is_digit(*at))
		at++;
	return at;
}

static const char *skip_sign(const char *at, const char *end)
{
	return at < end && (*at == '+' || *at == '-') ? at + 1 : at;
}

/* strtod() wants a NUL, and text may be of any length. */
static double read_double(struct span text)
{
	char small[64], *copy = text.len < sizeof small ? small : malloc(text.len + 1);
	if (!copy)
		return NAN;
	memcpy(copy, text.data, text.len);
	copy[text.len] = '\0';
	double value = strtod(copy, NULL);
	if (copy != small)
		free(copy);
	return value;
}

static enum sample_number word_kind(const char *at, const char *end, bool is_signed)
{
	struct span word = {at, (size_t)(end - at)};
	if (span_equal_nocase(word, "inf") || span_equal_nocase(word, "infinity"))
		return SAMPLE_NUMBER_INFINITE;
	if (!is_signed && span_equal_nocase(word, "nan"))
		return SAMPLE_NUMBER_NAN;
	return SAMPLE_NUMBER_BAD;
}

enum sample_number sample_number_kind(struct span text)
{
	const char *end = text.data + text.len, *at = skip_sign(text.data, end), *start = at;
	at = skip_digits(at, end);
	size_t n_digits = (size_t)(at - start);
	if (at == end && n_digits > 0 && n_digits < 300)
		return SAMPLE_NUMBER_FINITE;
	if (at < end && *at == '.') {
		const char *fraction = at + 1;
		at = skip_digits(fraction, end);
		n_digits += (size_t)(at - fraction);
	}
	if (n_digits == 0)
		return word_kind(start, end, start != text.data);
	bool large = n_digits >= 300;
	if (at < end && (*at == 'e' || *at == 'E')) {
		const char *exponent = skip_sign(at + 1, end);
		at = skip_digits(exponent, end);
		if (at == exponent)
			return SAMPLE_NUMBER_BAD;
		large = true;
	}
	if (at != end)
		return SAMPLE_NUMBER_BAD;
	return large && isinf(read_double(text)) ? SAMPLE_NUMBER_TOO_LARGE : SAMPLE_NUMBER_FINITE;
}

double sample_number_value(struct span text)
{
	if (text.len <= 15) {
		uint64_t whole = 0;
		size_t i = 0;
		for (; i < text.len && is_digit(text.data[i]); i++)
			whole = whole * 10 + (uint64_t)(text.data[i] - '0');
		if (i == text.len)
			return (double)whole;
	}
	double value;
	return number_text_parse(text, &value) == 0 ? value : read_double(text);
}

bool sample_timestamp_valid(struct span text, bool openmetrics)
{
	if (openmetrics)
		return sample_number_kind(text) == SAMPLE_NUMBER_FINITE &&
		       fabs(sample_number_value(text)) <= MAX_SECONDS;
	const char *end = text.data + text.len, *at = skip_sign(text.data, end);
	if (at == end || skip_digits(at, end) != end)
		return false;
	while (at < end && *at == '0')
		at++;
	size_t n = (size_t)(end - at);
	if (n != 19)
		return n < 19;
	return memcmp(at, text.data[0] == '-' ? "9223372036854775808" : "9223372036854775807",
		       19) <= 0;
}

void sample_timestamp_to_seconds(struct span text, struct buf *out)
{
	const char *at = text.data, *end = text.data + text.len;
	bool negative = *at == '-';
	at = skip_sign(at, end);
	while (at < end && *at == '0')
		at++;
	size_t n = (size_t)(end - at);
	char ms[4] = "000";
	for (size_t i = 0; i < 3 && i < n; i++)
		ms[2 - i] = end[-1 - (ptrdiff_t)i];
	size_t decimals = 3;
	while (decimals > 0 && ms[decimals - 1] == '0')
		decimals--;
	if (negative && n)
		buf_append_char(out, '-');
	if (n > 3)
		buf_append(out, at, n - 3);
	else
		buf_append_char(out, '0');
	if (decimals) {
		buf_append_char(out, '.');
		buf_append(out, ms, decimals);
	}
}

void sample_timestamp_to_ms(struct span text, struct buf *out)
{
	const char *end = text.data + text.len, *at = skip_sign(text.data, end), *start = at;
	bool negative = text.data[0] == '-';
	at = skip_digits(at, end);
	size_t whole = (size_t)(at - start);
	const char *fraction = at < end && *at == '.' ? at + 1 : at;
	const char *fraction_end = skip_digits(fraction, end);
	if (fraction_end != end || whole > 16) {
		/* An exponent, or leading zeros: the value is what counts. */
		buf_printf(out, "%lld", (long long)trunc(sample_number_value(text) * 1000));
		return;
	}
	int64_t ms = 0;
	for (size_t i = 0; i < whole; i++)
		ms = ms * 10 + (start[i] - '0');
	for (size_t i = 0; i < 3; i++)
		ms = ms * 10 + (fraction + i < fraction_end ? fraction[i] - '0' : 0);
	buf_printf(out, "%lld", (long long)(negative ? -ms : ms));
}
