#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <stdlib.h>

#include "common/json.h"

static void assert_string(struct span in, const char *expected)
{
	/* A copy of the exact size, so that the sanitizer sees a read beyond it. */
	char *copy = malloc(in.len ? in.len : 1);
	assert_non_null(copy);
	memcpy(copy, in.data, in.len);
	struct buf out = BUF_INIT(1000);
	assert_int_equal(json_append_string(&out, (struct span){copy, in.len}), 0);
	assert_int_equal(out.len, strlen(expected));
	assert_memory_equal(out.data, expected, out.len);
	buf_free(&out);
	free(copy);
}

static void test_plain_and_escaped(void **state)
{
	(void)state;
	assert_string(SPAN_LITERAL(""), "\"\"");
	assert_string(SPAN_LITERAL("abc/def"), "\"abc/def\"");
	assert_string(SPAN_LITERAL("a\"b\\c"), "\"a\\\"b\\\\c\"");
	assert_string(SPAN_LITERAL("\b\f\n\r\t"), "\"\\b\\f\\n\\r\\t\"");
	assert_string(SPAN_LITERAL("\0\x1f\x7f"), "\"\\u0000\\u001f\\u007f\"");
}

static void test_utf8_stays(void **state)
{
	(void)state;
	assert_string(SPAN_LITERAL("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf"),
		"\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf\"");
	assert_string(SPAN_LITERAL("\xed\x9f\xbf\xee\x80\x80"), "\"\xed\x9f\xbf\xee\x80\x80\"");
}

#define R "\xef\xbf\xbd"
static void test_what_is_not_utf8_is_replaced(void **state)
{
	(void)state;
	assert_string(SPAN_LITERAL("a\xff"
				   "b"),
		"\"a" R "b\"");
	assert_string(SPAN_LITERAL("\xc0\x80"), "\"" R R "\"");             /* overlong */
	assert_string(SPAN_LITERAL("\xe0\x9f\xbf"), "\"" R R R "\"");       /* overlong */
	assert_string(SPAN_LITERAL("\xf0\x8f\xbf\xbf"), "\"" R R R R "\""); /* overlong */
	assert_string(SPAN_LITERAL("\xed\xa0\x80"), "\"" R R R "\"");       /* surrogate */
	assert_string(SPAN_LITERAL("\xf4\x90\x80\x80"), "\"" R R R R "\""); /* above U+10FFFF */
	assert_string(SPAN_LITERAL("\xf5\x80\x80\x80"), "\"" R R R R "\"");
	assert_string(SPAN_LITERAL("\x80"), "\"" R "\"");
}

static void test_cut_inside_a_character(void **state)
{
	(void)state;
	static const char text[] = "\xf0\x9f\x98\x80";
	assert_string((struct span){text, 1}, "\"" R "\"");
	assert_string((struct span){text, 2}, "\"" R R "\"");
	assert_string((struct span){text, 3}, "\"" R R R "\"");
}

static void test_a_full_buffer_fails(void **state)
{
	(void)state;
	for (size_t max = 0; max < 8; max++) {
		struct buf out = BUF_INIT(max);
		assert_int_equal(json_append_string(&out, SPAN_LITERAL("ab\ncd")), -1);
		assert_true(buf_failed(&out));
		buf_free(&out);
	}
	struct buf out = BUF_INIT(8);
	assert_int_equal(json_append_string(&out, SPAN_LITERAL("ab\ncd")), 0);
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_and_escaped),
		cmocka_unit_test(test_utf8_stays),
		cmocka_unit_test(test_what_is_not_utf8_is_replaced),
		cmocka_unit_test(test_cut_inside_a_character),
		cmocka_unit_test(test_a_full_buffer_fails),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
