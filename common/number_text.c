#include "common/number_text.h"

#include <endian.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "read_exact() needs double arithmetic without excess precision"
#endif

/*
 * 10^q = power_of(q) * 2^(log2_of(q) - 127), rounded down to 128 bits of which the highest is set.
 * Exact for 0 <= q <= 55, since 5^55 < 2^128.
 */
#define POWER_MIN       (-342)
#define POWER_MAX       324
#define POWER_EXACT_MAX 55

struct power {
	uint64_t high, low;
};

static struct power powers[POWER_MAX - POWER_MIN + 1];

/* Big enough for 5^324 (753 bits), and for 2^1023 / 5^342 with 128 bits left. */
#define BIG_WORDS 32
struct big {
	uint32_t words[BIG_WORDS]; /* least significant first */
};

static struct power big_top(const struct big *big)
{
	int top = BIG_WORDS - 1;
	while (big->words[top] == 0)
		top--;
	unsigned __int128 bits = 0;
	unsigned shift = (unsigned)__builtin_clz(big->words[top]);
	for (int i = 0; i < 4; i++)
		bits = bits << 32 | (top - i >= 0 ? big->words[top - i] : 0);
	if (shift)
		bits = bits << shift | (top >= 4 ? big->words[top - 4] >> (32 - shift) : 0);
	return (struct power){(uint64_t)(bits >> 64), (uint64_t)bits};
}

static void big_multiply_5(struct big *big)
{
	uint64_t carry = 0;
	for (int i = 0; i < BIG_WORDS; i++) {
		carry += (uint64_t)big->words[i] * 5;
		big->words[i] = (uint32_t)carry;
		carry >>= 32;
	}
}

/* Rounds down, and so does any number of these after each other. */
static void big_divide_5(struct big *big)
{
	uint64_t rest = 0;
	for (int i = BIG_WORDS - 1; i >= 0; i--) {
		rest = rest << 32 | big->words[i];
		big->words[i] = (uint32_t)(rest / 5);
		rest %= 5;
	}
}

/* Before main(), so that no thread can see it half done. The factor 2^q of 10^q = 5^q * 2^q only
 * moves the binary point. */
__attribute__((constructor)) static void powers_make(void)
{
	struct big up = {.words[0] = 1};
	for (int q = 0; q <= POWER_MAX; q++) {
		powers[q - POWER_MIN] = big_top(&up);
		big_multiply_5(&up);
	}
	struct big down = {.words[BIG_WORDS - 1] = 1u << 31};
	for (int q = -1; q >= POWER_MIN; q--) {
		big_divide_5(&down);
		powers[q - POWER_MIN] = big_top(&down);
	}
}

static inline struct power power_of(int q)
{
	return powers[q - POWER_MIN];
}

/* floor(log2(10^q)) */
static inline int log2_of(int q)
{
	return (q * 1741647) >> 19;
}

/* ---- writing ---- */

struct decimal {
	uint64_t digits;
	int exponent; /* of ten */
};

/* The high 64 bits of power * c / 2^64, with its lowest bit set when something was cut off. */
static inline uint64_t multiply_sticky(struct power power, uint64_t c)
{
	unsigned __int128 low = (unsigned __int128)power.low * c;
	unsigned __int128 all = (unsigned __int128)power.high * c + (uint64_t)(low >> 64);
	return (uint64_t)(all >> 64) | ((uint64_t)all > 1);
}

/* Names as in the paper: the double is c * 2^q; k is the power of ten of its last useful digit; vb
 * and the bounds vbl and vbr are four times the value and the ends of its rounding interval, in
 * units of 10^k. */
static struct decimal shortest_general(uint64_t c, int q, bool closer_below)
{
	int k = (q * 1262611 - (closer_below ? 524031 : 0)) >> 22;
	int h = q + log2_of(-k) + 1;
	struct power g = power_of(-k);
	if (-k < 0 || -k > POWER_EXACT_MAX) { /* the paper rounds up */
		g.low++;
		g.high += g.low == 0;
	}
	uint64_t odd = c & 1;
	uint64_t lower = multiply_sticky(g, (4 * c - 2 + closer_below) << h) + odd;
	uint64_t vb = multiply_sticky(g, (4 * c) << h);
	uint64_t upper = multiply_sticky(g, (4 * c + 2) << h) - odd;

	uint64_t s = vb / 4;
	if (s >= 10) { /* one digit less, if exactly one such number is inside */
		uint64_t t = s / 10;
		bool below = lower <= 40 * t, above = 40 * t + 40 <= upper;
		if (below != above)
			return (struct decimal){t + above, k + 1};
	}
	bool below = lower <= 4 * s, above = 4 * s + 4 <= upper;
	if (below != above)
		return (struct decimal){s + above, k};
	uint64_t middle = 4 * s + 2;
	return (struct decimal){s + (vb > middle || (vb == middle && (s & 1))), k};
}

#define FRACTION_BITS 52

static struct decimal shortest(uint64_t bits)
{
	uint64_t fraction = bits & ((UINT64_C(1) << FRACTION_BITS) - 1);
	int biased = (int)(bits >> FRACTION_BITS & 0x7ff);
	if (biased == 0)
		return shortest_general(fraction, -1074, false);
	uint64_t c = fraction | UINT64_C(1) << FRACTION_BITS;
	int q = biased - 1075;
	/* An integer below 2^53 has no shorter neighbour inside its interval. */
	if (q <= 0 && q > -53 && (c & ((UINT64_C(1) << -q) - 1)) == 0)
		return (struct decimal){c >> -q, 0};
	return shortest_general(c, q, fraction == 0 && biased > 1);
}

/* Eight digits of value < 10^8, by halving: two numbers of four, four of two, eight of one. */
static inline void put_8_digits(uint32_t value, char *out)
{
	uint64_t v = value / 10000 | (uint64_t)(value % 10000) << 32;
	uint64_t hundreds = (v * 10486 >> 20) & UINT64_C(0x0000007f0000007f);
	v = hundreds | (v - 100 * hundreds) << 16;
	uint64_t tens = (v * 103 >> 10) & UINT64_C(0x000f000f000f000f);
	v = tens | (v - 10 * tens) << 8;
	v = htole64(v + UINT64_C(0x3030303030303030));
	memcpy(out, &v, sizeof v);
}

/* The digits without zeros at either end, at *first in text; at least one. */
static int put_digits(uint64_t digits, char text[24], int *first, int *cut_zeros)
{
	uint64_t high = digits / 100000000;
	put_8_digits((uint32_t)(high / 100000000), text);
	put_8_digits((uint32_t)(high % 100000000), text + 8);
	put_8_digits((uint32_t)(digits % 100000000), text + 16);
	int begin = high ? 7 : 16, end = 24;
	while (begin < 23 && text[begin] == '0')
		begin++;
	while (end > begin + 1 && text[end - 1] == '0')
		end--;
	*first = begin;
	*cut_zeros = 24 - end;
	return end - begin;
}

static char *put_exponent(char *out, int exponent)
{
	*out++ = 'e';
	*out++ = exponent < 0 ? '-' : '+';
	unsigned e = (unsigned)abs(exponent);
	if (e >= 100) {
		*out++ = (char)('0' + e / 100);
		e %= 100;
	}
	*out++ = (char)('0' + e / 10);
	*out++ = (char)('0' + e % 10);
	return out;
}

size_t number_text_write(double value, char out[NUMBER_TEXT_BYTES])
{
	uint64_t bits;
	memcpy(&bits, &value, sizeof bits);
	char *p = out;
	if (bits >> 63)
		*p++ = '-';
	bits &= ~(UINT64_C(1) << 63);
	if (bits == 0) {
		memcpy(p, "0.0", 3);
		return (size_t)(p - out) + 3;
	}
	if (bits >> FRACTION_BITS == 0x7ff)
		return 0;

	struct decimal d = shortest(bits);
	char text[48] = {0}; /* digits end at 24: copies below may run over */
	int first, zeros, n = put_digits(d.digits, text, &first, &zeros);
	const char *digits = text + first;
	int point = n + zeros + d.exponent; /* value = 0.digits * 10^point */

	if (point > 16 || point <= -4) {
		*p++ = digits[0];
		if (n > 1) {
			*p++ = '.';
			memcpy(p, digits + 1, 16);
			p += n - 1;
		}
		p = put_exponent(p, point - 1);
	} else if (point <= 0) {
		memcpy(p, "0.000", 5);
		p += 2 - point;
		memcpy(p, digits, 17);
		p += n;
	} else if (point < n) {
		memcpy(p, digits, 16);
		p += point;
		*p++ = '.';
		memcpy(p, digits + point, (size_t)(n - point));
		p += n - point;
	} else {
		memset(p, '0', 17);
		memcpy(p, digits, (size_t)n);
		p += point;
		memcpy(p, ".0", 2);
		p += 2;
	}
	return (size_t)(p - out);
}

int number_text_append_floats(struct buf *out, const float *values, size_t n)
{
	char text[32 * (NUMBER_TEXT_BYTES + 1)];
	size_t len = 0;
	for (size_t i = 0; i < n; i++) {
		if (i)
			text[len++] = ',';
		size_t more = number_text_write((double)values[i], text + len);
		len += more;
		if (more == 0 || len > sizeof text - NUMBER_TEXT_BYTES - 1) {
			if (buf_append(out, text, len) || more == 0)
				return -1;
			len = 0;
		}
	}
	return buf_append(out, text, len);
}

/* ---- reading ---- */

static inline bool is_digit(char c)
{
	return (unsigned char)(c - '0') < 10;
}

static inline bool is_8_digits(uint64_t v)
{
	return ((v & UINT64_C(0xf0f0f0f0f0f0f0f0)) |
		       ((v + UINT64_C(0x0606060606060606)) & UINT64_C(0xf0f0f0f0f0f0f0f0)) >> 4) ==
	       UINT64_C(0x3333333333333333);
}

/* The reverse of put_8_digits(); v is little-endian text. */
static inline uint32_t value_of_8_digits(uint64_t v)
{
	v -= UINT64_C(0x3030303030303030);
	v = v * 10 + (v >> 8);
	return (uint32_t)(((v & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x000f424000000064) +
				  (v >> 16 & UINT64_C(0x000000ff000000ff)) *
					  UINT64_C(0x0000271000000001)) >>
			  32);
}

/* Past the digits; *value takes them in, modulo 2^64. */
static inline const char *read_digits(const char *at, const char *end, uint64_t *value)
{
	uint64_t sum = *value, v;
	while (end - at >= 8) {
		memcpy(&v, at, sizeof v);
		v = le64toh(v);
		if (!is_8_digits(v))
			break;
		sum = sum * 100000000 + value_of_8_digits(v);
		at += 8;
	}
	while (at < end && is_digit(*at))
		sum = sum * 10 + (uint64_t)(*at++ - '0');
	*value = sum;
	return at;
}

/* A number taken apart. */
struct parts {
	bool negative;
	const char *integer, *integer_end;
	const char *fraction, *fraction_end; /* equal when there is none */
	bool has_exponent;
	int64_t exponent; /* as written, cut at +-EXPONENT_LIMIT */
	uint64_t digits;  /* of both, modulo 2^64 */
};

/* Beyond this no text of a possible length can bring the value back into range. */
#define EXPONENT_LIMIT INT64_C(1000000000000000)

static inline const char *read_exponent(const char *at, const char *end, struct parts *parts)
{
	bool negative = false;
	at++;
	if (at < end && (*at == '+' || *at == '-'))
		negative = *at++ == '-';
	if (at == end || !is_digit(*at))
		return NULL;
	int64_t e = 0;
	for (; at < end && is_digit(*at); at++)
		if (e < EXPONENT_LIMIT)
			e = e * 10 + (*at - '0');
	parts->exponent = negative ? -e : e;
	parts->has_exponent = true;
	return at;
}

static inline const char *read_parts(const char *at, const char *end, struct parts *parts)
{
	parts->negative = at < end && *at == '-';
	at += parts->negative;
	if (at == end || !is_digit(*at))
		return NULL;
	parts->digits = 0;
	parts->integer = at;
	if (*at == '0')
		at++;
	else
		at = read_digits(at, end, &parts->digits);
	parts->integer_end = at;
	parts->fraction = parts->fraction_end = at;
	if (at < end && *at == '.') {
		parts->fraction = at + 1;
		at = parts->fraction_end = read_digits(at + 1, end, &parts->digits);
		if (at == parts->fraction)
			return NULL;
	}
	parts->has_exponent = false;
	parts->exponent = 0;
	if (at < end && (*at | 0x20) == 'e')
		at = read_exponent(at, end, parts);
	return at;
}

/* w * 10^q when both, and so the result's rounding, are exact in double arithmetic. */
static inline bool read_exact(uint64_t w, int64_t q, double *value)
{
	static const double tens[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
		1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
	if (w > UINT64_C(1) << 53 || q < -22 || q > 22)
		return false;
	*value = q < 0 ? (double)w / tens[-q] : (double)w * tens[q];
	return true;
}

/*
 * w * 10^q by one 64 x 128 bit product. The table rounds down, so the true product's upper 128 bits
 * lie in [product, product + 2); where that leaves the rounding open, or the result is subnormal,
 * the answer is false.
 */
static bool read_product(uint64_t w, int64_t q64, double *value)
{
	if (w == 0 || q64 < POWER_MIN) { /* 2^64 * 10^-343 is less than half the least double */
		*value = 0;
		return true;
	}
	if (q64 > 308) {
		*value = HUGE_VAL;
		return true;
	}
	int q = (int)q64, zeros = __builtin_clzll(w);
	bool exact = q >= 0 && q <= POWER_EXACT_MAX;
	struct power power = power_of(q);
	w <<= zeros;
	unsigned __int128 lower = (unsigned __int128)w * power.low;
	unsigned __int128 product = (unsigned __int128)w * power.high + (uint64_t)(lower >> 64);
	uint64_t high = (uint64_t)(product >> 64), low = (uint64_t)product;

	unsigned top = (unsigned)(high >> 63);
	uint64_t mantissa = high >> (10 + top);
	uint64_t half = high >> (9 + top) & 1;
	uint64_t mask = (UINT64_C(1) << (9 + top)) - 1, below = high & mask;
	if (exact) {
		bool tie = below == 0 && low == 0 && (uint64_t)lower == 0;
		mantissa += half & (tie ? mantissa & 1 : 1);
	} else {
		if (below == mask && low >= UINT64_MAX - 1)
			return false;
		if (half && below == 0 && low == 0)
			return false;
		mantissa += half;
	}
	int biased = log2_of(q) - zeros + 11 + (int)top + 1075;
	if (mantissa >> 53) {
		mantissa >>= 1;
		biased++;
	}
	if (biased <= 0)
		return false;
	uint64_t bits = biased >= 0x7ff ? UINT64_C(0x7ff) << FRACTION_BITS
					: (uint64_t)biased << FRACTION_BITS |
						  (mantissa & ((UINT64_C(1) << FRACTION_BITS) - 1));
	memcpy(value, &bits, sizeof bits);
	return true;
}

/* No double, and no middle between two, has more significant digits than 767: past these it only
 * matters whether something follows. */
#define DIGITS_KEPT 768

/* By strtod, on a bounded copy in the C locale. `first` is the first digit that is not 0. */
static double read_slowly(const struct parts *parts, const char *first)
{
	char copy[DIGITS_KEPT + 32];
	size_t n = 0;
	bool more = false;
	int64_t exponent = parts->exponent - (parts->fraction_end - parts->fraction);
	for (const char *p = first; p < parts->fraction_end; p++) {
		if (!is_digit(*p))
			continue;
		if (n < DIGITS_KEPT) {
			copy[n++] = *p;
		} else {
			more |= *p != '0';
			exponent++;
		}
	}
	if (more) {
		copy[n++] = '1';
		exponent--;
	}
	if ((int64_t)n + exponent < -400)
		return 0;
	if ((int64_t)n + exponent > 400)
		return HUGE_VAL;
	snprintf(copy + n, sizeof copy - n, "e%d", (int)exponent);
	locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* glibc's constant object */
	double value = strtod_l(copy, NULL, c_locale);
	freelocale(c_locale);
	return value;
}

/* More than 19 digits: leading zeros do not count, and what follows the first 19 seldom matters. */
static double read_long(const struct parts *parts)
{
	const char *end = parts->fraction_end, *first = parts->integer;
	while (first < end && (*first == '0' || *first == '.'))
		first++;
	uint64_t w = 0;
	int n = 0;
	const char *p = first;
	for (; p < end && n < 19; p++)
		if (is_digit(*p)) {
			w = w * 10 + (uint64_t)(*p - '0');
			n++;
		}
	/* Digits not taken in scale what was. */
	int64_t q = parts->exponent;
	if (p <= parts->integer_end)
		q += parts->integer_end - p;
	else
		q -= p - parts->fraction;
	bool cut = p < end;
	double value, next;
	if (read_product(w, q, &value) &&
		(!cut || (read_product(w + 1, q, &next) && value == next)))
		return value;
	return read_slowly(parts, first);
}

const char *number_text_read(const char *at, const char *end, double *value)
{
	struct parts parts;
	at = read_parts(at, end, &parts);
	if (!at)
		return NULL;
	int64_t n_fraction = parts.fraction_end - parts.fraction;
	int64_t q = parts.exponent - n_fraction;
	double magnitude;
	if (parts.integer_end - parts.integer + n_fraction > 19)
		magnitude = read_long(&parts);
	else if (!read_exact(parts.digits, q, &magnitude) &&
		 !read_product(parts.digits, q, &magnitude)) {
		const char *first = parts.integer;
		while (*first == '0' || *first == '.')
			first++;
		magnitude = read_slowly(&parts, first);
	}
	*value = parts.negative ? -magnitude : magnitude;
	return at;
}

int number_text_parse(struct span text, double *value)
{
	if (text.len == 0)
		return -1;
	return number_text_read(text.data, text.data + text.len, value) == text.data + text.len
		       ? 0
		       : -1;
}

const char *number_text_skip(const char *at, const char *end, struct number_text_form *form)
{
	struct parts parts;
	at = read_parts(at, end, &parts);
	if (!at)
		return NULL;
	form->integer = !parts.has_exponent && parts.fraction_end == parts.integer_end;
	form->first = (unsigned char)*parts.integer;
	form->integer_digits = (size_t)(parts.integer_end - parts.integer);
	form->large = parts.exponent + (parts.integer_end - parts.integer) > 308;
	return at;
}
