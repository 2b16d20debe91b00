#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/number_text.h"

static uint64_t seed;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t bits_of(double value)
{
	uint64_t bits;
	memcpy(&bits, &value, sizeof bits);
	return bits;
}

static double double_of(uint64_t bits)
{
	double value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

static void assert_written(double value, const char *expected)
{
	char text[NUMBER_TEXT_BYTES + 1];
	text[number_text_write(value, text)] = '\0';
	assert_string_equal(text, expected);
}

static void assert_same(double got, double expected, const char *text)
{
	if (bits_of(got) != bits_of(expected))
		fail_msg("%s: %a, not %a", text, got, expected);
}

/* What Python 3's repr() prints. */
static void test_writes_as_python(void **state)
{
	(void)state;
	assert_written(0.0, "0.0");
	assert_written(-0.0, "-0.0");
	assert_written(1.0, "1.0");
	assert_written(-1.5, "-1.5");
	assert_written(0.1, "0.1");
	assert_written(1e-4, "0.0001");
	assert_written(0.00012345678901234567, "0.00012345678901234567");
	assert_written(1e-5, "1e-05");
	assert_written(-1.25e-5, "-1.25e-05");
	assert_written(1e15, "1000000000000000.0");
	assert_written(1e16, "1e+16");
	assert_written(1e22, "1e+22");
	assert_written(1e23, "1e+23");
	assert_written(9.5e-100, "9.5e-100");
	assert_written(123456789012345.0, "123456789012345.0");
	assert_written(9007199254740993.0, "9007199254740992.0");
	assert_written(12345678901234567.0, "1.2345678901234568e+16");
	assert_written(5e-324, "5e-324");
	assert_written(2.2250738585072014e-308, "2.2250738585072014e-308");
	assert_written(1.7976931348623157e308, "1.7976931348623157e+308");
	assert_written((double)0.1f, "0.10000000149011612");
	assert_written((double)-0.0023064255f, "-0.002306425478309393");
}

static void test_writes_nothing_for_what_is_no_number(void **state)
{
	(void)state;
	char text[NUMBER_TEXT_BYTES];
	assert_int_equal(number_text_write(NAN, text), 0);
	assert_int_equal(number_text_write(INFINITY, text), 0);
	assert_int_equal(number_text_write(-INFINITY, text), 0);
}

/* Shorter by one digit must not read back, and the C library must agree with both directions. */
static void check_round_trip(double value)
{
	char text[NUMBER_TEXT_BYTES + 1], other[40];
	size_t len = number_text_write(value, text);
	text[len] = '\0';
	assert_in_range(len, 3, 24);
	double back;
	assert_int_equal(number_text_parse((struct span){text, len}, &back), 0);
	assert_same(back, value, text);
	assert_same(strtod(text, NULL), value, text);

	int precision = 0; /* digits after the first */
	while (snprintf(other, sizeof other, "%.*e", precision, value) > 0 &&
		bits_of(strtod(other, NULL)) != bits_of(value))
		precision++;
	unsigned digits = 0, zeros = 0;
	for (const char *p = text; *p && *p != 'e'; p++) {
		if (*p < '0' || *p > '9' || (digits == 0 && *p == '0'))
			continue;
		digits++;
		zeros = *p == '0' ? zeros + 1 : 0;
	}
	if (digits - zeros > (unsigned)precision + 1)
		fail_msg("%s is longer than %s", text, other);
}

static void test_round_trips(void **state)
{
	(void)state;
	seed = 88172645463325252u;
	for (int i = 0; i < 20000; i++) {
		double value = double_of(next_random());
		if (isfinite(value) && value != 0)
			check_round_trip(value);
		check_round_trip((double)(float)((double)(next_random() >> 11) * 0x1p-55));
		check_round_trip((double)(next_random() % 100000000 + 1) / 1000.0);
	}
}

static void test_powers_of_two_and_their_neighbours(void **state)
{
	(void)state;
	for (int e = -1074; e <= 1023; e++) {
		double value = ldexp(1.0, e);
		check_round_trip(value);
		check_round_trip(nextafter(value, INFINITY));
		if (e > -1074)
			check_round_trip(nextafter(value, 0));
	}
}

static void assert_read(const char *text, double expected)
{
	double value;
	if (number_text_parse(span_of(text), &value))
		fail_msg("%s was refused", text);
	assert_same(value, expected, text);
}

static void test_reads(void **state)
{
	(void)state;
	static const char *const texts[] = {"0", "-0", "0.0", "-0.0e5", "7", "123456789", "1E5",
		"1e+5", "1e-05", "0.1", "3.14159265358979323846264338327950288",
		"9007199254740993", /* ties go to the even neighbour */
		"9007199254740993.0", "9007199254740995",
		"9007199254740993.00000000000000000000001",
		"9007199254740992.99999999999999999999999", "4503599627370496.5",
		"4503599627370497.5", "2.2250738585072011e-308", "2.2250738585072014e-308",
		"4.9406564584124654e-324", "2.4703282292062327e-324", "2.4703282292062328e-324",
		"1e-400", "1e-99999999999999999999", "1.7976931348623157e308",
		"1.7976931348623158e308", "1.7976931348623159e308", "1e309",
		"1e99999999999999999999", "0e99999999999999999999",
		"0.000000000000000000000000000001e30", "100000000000000000000000000000000000000000",
		"12345678901234567890123e-20", "8.5e-8", "6.631236846766476e-316",
		"1090544144181609348835077142190",
		"0.00000000000000000000000000000000000000000000012345678901234567890"};
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		assert_read(texts[i], strtod(texts[i], NULL));
}

/* The middle between two neighbours, in full: only then all 767 digits count. */
static void test_reads_exact_middles(void **state)
{
	(void)state;
	seed = 362436069;
	for (int i = 0; i < 300; i++) {
		double value = double_of(next_random() >> 1);
		if (i == 0)
			value = 5e-324;
		if (!isfinite(value) || fabs(value) > 1e300)
			continue;
		long double middle = ((long double)value +
					     (long double)nextafter(value, INFINITY)) /
				     2;
		char text[1200];
		snprintf(text, sizeof text, "%.1100Lf", middle);
		assert_read(text, strtod(text, NULL));
		text[strlen(text) - 1] = '1'; /* one beyond it */
		assert_read(text, strtod(text, NULL));
	}
}

static void test_reads_random_decimals(void **state)
{
	(void)state;
	seed = 521288629;
	for (int i = 0; i < 100000; i++) {
		char text[64];
		int len = snprintf(text, sizeof text, "%d.", (int)(next_random() % 100));
		for (unsigned n = 1 + (unsigned)(next_random() % 24); n; n--)
			text[len++] = (char)('0' + next_random() % 10);
		snprintf(text + len, sizeof text - (size_t)len, "e%d",
			(int)(next_random() % 660) - 340);
		assert_read(text, strtod(text, NULL));
	}
}

static void test_very_long_numbers(void **state)
{
	(void)state;
	enum { DIGITS = 60000 };
	static char text[DIGITS + 32];
	memset(text, '0', sizeof text);
	text[1] = '.';
	snprintf(text + DIGITS, 32, "25e%d", DIGITS - 1);
	assert_read(text, 2.5);
	memset(text, '9', DIGITS);
	text[1] = '.';
	snprintf(text + DIGITS, 32, "e-3");
	assert_read(text, 0.01);
	memset(text, '1', DIGITS);
	text[DIGITS] = '\0';
	assert_read(text, INFINITY);
	snprintf(text + DIGITS, 32, "e-%d", DIGITS - 1);
	assert_read(text, strtod(text, NULL));
}

static void test_refuses_what_json_does_not_allow(void **state)
{
	(void)state;
	static const char *const texts[] = {"", "-", "+1", "01", "-01", "1.", ".5", "-.5", "1e",
		"1e+", "1.e5", "1e5.0", "0x10", "NaN", "Infinity", "-Infinity", "1_000", "1 ", " 1",
		"--1", "1e--5", "1,5"};
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		double value;
		if (number_text_parse(span_of(texts[i]), &value) != -1)
			fail_msg("'%s' was taken", texts[i]);
	}
	double value;
	assert_int_equal(number_text_parse((struct span){NULL, 0}, &value), -1);
}

/* Every cut of a number either ends it earlier or makes it no number; no byte beyond is read. */
static void test_stops_at_the_end_it_is_given(void **state)
{
	(void)state;
	static const char text[] = "-12345678901.2345678901e+12";
	for (size_t len = 0; len < sizeof text; len++) {
		char *copy = malloc(len ? len : 1); /* so that the sanitizer sees an overrun */
		assert_non_null(copy);
		memcpy(copy, text, len);
		struct number_text_form form;
		double value;
		const char *read = number_text_read(copy, copy + len, &value);
		const char *skipped = number_text_skip(copy, copy + len, &form);
		assert_ptr_equal(read, skipped);
		char last = len ? text[len - 1] : '-';
		assert_int_equal(read == NULL, last < '0' || last > '9');
		if (read) {
			char number[sizeof text];
			snprintf(number, sizeof number, "%.*s", (int)len, text);
			assert_ptr_equal(read, copy + len);
			assert_same(value, strtod(number, NULL), number);
		}
		free(copy);
	}
}

static void test_form(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool integer, large;
		size_t integer_digits;
	} cases[] = {{"0", true, false, 1}, {"-120", true, false, 3}, {"1.0", false, false, 1},
		{"1e2", false, false, 1}, {"1e308", false, true, 1}, {"1e307", false, false, 1},
		{"-10E307,", false, true, 2}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct number_text_form form;
		assert_non_null(number_text_skip(
			cases[i].text, cases[i].text + strlen(cases[i].text), &form));
		assert_int_equal(form.integer, cases[i].integer);
		assert_int_equal(form.large, cases[i].large);
		assert_int_equal(form.integer_digits, cases[i].integer_digits);
	}
}

static void test_a_locale_with_commas_changes_nothing(void **state)
{
	(void)state;
	/* Absent on a small machine: then this repeats the test in the C locale. */
	setlocale(LC_ALL, "de_DE.UTF-8");
	assert_written(0.5, "0.5");
	double value;
	assert_int_equal(number_text_parse(SPAN_LITERAL("4.9406564584124654e-324"), &value), 0);
	setlocale(LC_ALL, "C");
	assert_same(value, 5e-324, "4.9406564584124654e-324");
}

static void test_appends_arrays(void **state)
{
	(void)state;
	struct buf out = BUF_INIT(100000);
	assert_int_equal(number_text_append_floats(&out, NULL, 0), 0);
	assert_int_equal(out.len, 0);
	static const float few[] = {0.5f, -1.0f, 0.1f};
	assert_int_equal(number_text_append_floats(&out, few, 3), 0);
	assert_int_equal(out.len, strlen("0.5,-1.0,0.10000000149011612"));
	assert_memory_equal(out.data, "0.5,-1.0,0.10000000149011612", out.len);

	enum { MANY = 1536 };
	static float many[MANY];
	seed = 12345;
	for (int i = 0; i < MANY; i++)
		many[i] = (float)((double)(int64_t)next_random() * 0x1p-63);
	buf_clear(&out);
	assert_int_equal(number_text_append_floats(&out, many, MANY), 0);
	const char *at = (const char *)out.data, *end = at + out.len;
	for (int i = 0; i < MANY; i++) {
		double value;
		at = number_text_read(at, end, &value);
		assert_non_null(at);
		assert_same(value, (double)many[i], "");
		assert_true(at == end ? i == MANY - 1 : *at++ == ',');
	}

	many[MANY / 2] = INFINITY;
	assert_int_equal(number_text_append_floats(&out, many, MANY), -1);
	assert_false(buf_failed(&out));
	buf_free(&out);
	struct buf small = BUF_INIT(10);
	assert_int_equal(number_text_append_floats(&small, few, 3), -1);
	assert_true(buf_failed(&small));
	buf_free(&small);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_writes_as_python),
		cmocka_unit_test(test_writes_nothing_for_what_is_no_number),
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_powers_of_two_and_their_neighbours),
		cmocka_unit_test(test_reads),
		cmocka_unit_test(test_reads_exact_middles),
		cmocka_unit_test(test_reads_random_decimals),
		cmocka_unit_test(test_very_long_numbers),
		cmocka_unit_test(test_refuses_what_json_does_not_allow),
		cmocka_unit_test(test_stops_at_the_end_it_is_given),
		cmocka_unit_test(test_form),
		cmocka_unit_test(test_a_locale_with_commas_changes_nothing),
		cmocka_unit_test(test_appends_arrays),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
