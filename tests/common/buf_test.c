#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/slice.h"
#include "common/utf8.h"

#define assert_buf(b, text)                                     \
	do {                                                    \
		assert_int_equal((b)->len, strlen(text));       \
		assert_memory_equal((b)->data, text, (b)->len); \
	} while (0)

static void appends_grow_and_keep_order(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(1 << 20);
	char expected[30001];
	for (int i = 0; i < 10000; i++) {
		assert_int_equal(buf_append_char(&b, (char)('a' + i % 26)), 0);
		assert_int_equal(buf_append_str(&b, "--"), 0);
		expected[3 * i] = (char)('a' + i % 26);
		expected[3 * i + 1] = expected[3 * i + 2] = '-';
	}
	expected[30000] = '\0';
	assert_buf(&b, expected);
	buf_free(&b);
	assert_null(b.data);
	assert_int_equal(b.max_len, 1 << 20);
}

static void ceiling_is_exact_and_failure_sticks(void **state)
{
	(void)state;
	for (size_t max = 0; max < 200; max++) {
		struct buf b = BUF_INIT(max);
		for (size_t i = 0; i < max; i++)
			assert_int_equal(buf_append_char(&b, 'x'), 0);
		assert_false(buf_failed(&b));
		assert_int_equal(buf_append_char(&b, 'y'), -1);
		assert_true(buf_failed(&b));
		assert_int_equal(b.len, max);
		assert_int_equal(buf_append(&b, "", 0), -1);
		assert_int_equal(buf_printf(&b, "%s", ""), -1);
		assert_null(buf_reserve(&b, 0));
		buf_clear(&b);
		assert_false(buf_failed(&b));
		assert_int_equal(buf_append(&b, "", 0), 0);
		buf_free(&b);
	}
}

static void printf_fills_to_the_ceiling(void **state)
{
	(void)state;
	char text[301];
	memset(text, 'q', 300);
	text[300] = '\0';
	for (size_t max = 0; max < 300; max++)
		for (size_t before = 0; before <= max && before < 3; before++) {
			struct buf b = BUF_INIT(max);
			buf_append(&b, "abc", before);
			int rest = (int)(max - before);
			assert_int_equal(buf_printf(&b, "%.*s", rest, text), 0);
			assert_int_equal(b.len, max);
			assert_memory_equal(b.data + before, text, (size_t)rest);
			assert_int_equal(buf_printf(&b, "!"), -1);
			assert_int_equal(b.len, max);
			buf_free(&b);
		}
	struct buf unlimited = BUF_INIT(SIZE_MAX);
	assert_int_equal(buf_printf(&unlimited, "%d-%s", 12, "ok"), 0);
	assert_buf(&unlimited, "12-ok");
	buf_free(&unlimited);
}

static void reserve_commit_consume_take(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(100);
	char *to = buf_reserve(&b, 10);
	memcpy(to, "0123456789", 10);
	buf_commit(&b, 7);
	assert_buf(&b, "0123456");
	buf_consume(&b, 0);
	buf_consume(&b, 3);
	assert_buf(&b, "3456");
	size_t len;
	char *data = buf_take(&b, &len);
	assert_int_equal(len, 4);
	assert_memory_equal(data, "3456", 4);
	free(data);
	assert_int_equal(b.len, 0);
	assert_null(b.data);
	buf_append_str(&b, "again");
	buf_consume(&b, 5);
	assert_int_equal(b.len, 0);
	assert_null(buf_reserve(&b, SIZE_MAX));
	assert_true(buf_failed(&b));
	buf_free(&b);
}

static void doubles_are_short_and_exact(void **state)
{
	(void)state;
	static const struct {
		double number;
		const char *text;
	} cases[] = {{0, "0"}, {-0.0, "0"}, {1, "1"}, {-17, "-17"}, {0.1, "0.1"},
		{1e14, "100000000000000"}, {999999999999999, "999999999999999"},
		{1e15, "1000000000000000"}, {1e16, "1e+16"}, {0.0005, "0.0005"}, {2.5, "2.5"},
		{0.1 + 0.2, "0.30000000000000004"}, {5e-324, "5e-324"}, {NAN, "NaN"},
		{INFINITY, "+Inf"}, {-INFINITY, "-Inf"}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct buf b = BUF_INIT(100);
		assert_int_equal(buf_append_double(&b, cases[i].number), 0);
		buf_append_char(&b, '\0');
		assert_string_equal((char *)b.data, cases[i].text);
		if (!isnan(cases[i].number))
			assert_true(strtod((char *)b.data, NULL) == cases[i].number);
		buf_free(&b);
	}
}

static int released;
static void count_release(void *owner)
{
	released += *(int *)owner;
}

static void slices_release_once(void **state)
{
	(void)state;
	int weight = 5;
	struct slice s = {.data = "x", .len_bytes = 1, .release = count_release, .owner = &weight};
	slice_release(&s);
	slice_release(&s);
	assert_int_equal(released, 5);
	struct slice fixed = slice_static("hello");
	assert_int_equal(fixed.len_bytes, 5);
	slice_release(&fixed);
	struct slice owned = slice_malloced(strdup("text"), 4);
	slice_release(&owned);
	assert_null(owned.data);
}

static void utf8_sequences(void **state)
{
	(void)state;
	static const struct {
		const char *bytes;
		size_t len, sequence;
	} cases[] = {{"a", 1, 1}, {"", 0, 0}, {"\0", 1, 1}, {"\x7f", 1, 1}, {"\x80", 1, 0},
		{"\xc1\x81", 2, 0}, {"\xc2\x80", 2, 2}, {"\xc3\xa4", 1, 0}, {"\xdf\xbf", 2, 2},
		{"\xe0\x9f\xbf", 3, 0}, {"\xe0\xa0\x80", 3, 3}, {"\xe2\x82\xac", 2, 0},
		{"\xed\x9f\xbf", 3, 3}, {"\xed\xa0\x80", 3, 0}, {"\xef\xbf\xbf", 3, 3},
		{"\xf0\x8f\xbf\xbf", 4, 0}, {"\xf0\x90\x80\x80", 4, 4}, {"\xf4\x8f\xbf\xbf", 4, 4},
		{"\xf4\x90\x80\x80", 4, 0}, {"\xf5\x80\x80\x80", 4, 0}, {"\xff", 1, 0},
		{"\xe2\x82(", 3, 0}, {"\xf0\x9f\x98", 3, 0}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_int_equal(
			utf8_sequence_len(cases[i].bytes, cases[i].len), cases[i].sequence);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appends_grow_and_keep_order),
		cmocka_unit_test(ceiling_is_exact_and_failure_sticks),
		cmocka_unit_test(printf_fills_to_the_ceiling),
		cmocka_unit_test(reserve_commit_consume_take),
		cmocka_unit_test(doubles_are_short_and_exact),
		cmocka_unit_test(slices_release_once),
		cmocka_unit_test(utf8_sequences),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
