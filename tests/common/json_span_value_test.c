#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/json_span.h"

static struct json_span_doc *scan_ok(const char *text)
{
	struct json_span_doc *doc = json_span_new(span_of(text), NULL);
	assert_non_null(doc);
	if (json_span_step(doc, SIZE_MAX) != JSON_SPAN_DONE)
		fail_msg("%s: %s at %zu", text, json_span_error_reason(doc),
			json_span_error_offset(doc));
	return doc;
}

static void test_members(void **state)
{
	(void)state;
	struct json_span_doc *doc = scan_ok(
		"{\"a\":1,\"\\u0061b\":2,\"a\":3,\"\":4,\"\\ud83d\\ude00\":5,"
		"\"n\":{\"a\":6},\"\\u0000\":7,\"a\\/\":8}");
	uint32_t root = json_span_root();
	static const struct {
		struct span key;
		int64_t value;
	} cases[] = {{SPAN_LITERAL("a"), 3}, {SPAN_LITERAL("ab"), 2}, {SPAN_LITERAL(""), 4},
		{SPAN_LITERAL("\xf0\x9f\x98\x80"), 5}, {SPAN_LITERAL("\0"), 7},
		{SPAN_LITERAL("a/"), 8}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		int64_t value = 0;
		uint32_t node = json_span_member(doc, root, cases[i].key);
		assert_int_not_equal(node, JSON_SPAN_NONE);
		assert_int_equal(json_span_int64(doc, node, &value), 0);
		assert_int_equal(value, cases[i].value);
	}
	static const char *const absent[] = {"A", "abc", "\\u0061b", "b", "a\\/", "\xf0\x9f\x98"};
	for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++)
		assert_int_equal(json_span_member(doc, root, span_of(absent[i])), JSON_SPAN_NONE);
	/* On what is no object. */
	uint32_t one = json_span_member(doc, root, span_of("a"));
	assert_int_equal(json_span_member(doc, one, span_of("a")), JSON_SPAN_NONE);
	assert_int_equal(json_span_member(doc, JSON_SPAN_NONE, span_of("a")), JSON_SPAN_NONE);
	json_span_free(&doc);
}

static void assert_decoded(const char *text, struct span expected, struct span exact)
{
	struct json_span_doc *doc = scan_ok(text);
	struct buf out = BUF_INIT(1000);
	assert_int_equal(json_span_string(doc, json_span_root(), &out), 0);
	assert_int_equal(out.len, expected.len);
	assert_true(span_equal((struct span){(char *)out.data, out.len}, expected));
	buf_clear(&out);
	assert_int_equal(json_span_string_exact(doc, json_span_root(), &out), 0);
	assert_true(span_equal((struct span){(char *)out.data, out.len}, exact));
	assert_true(json_span_equal(doc, json_span_root(), exact));
	assert_false(json_span_equal(
		doc, json_span_root(), (struct span){exact.data, exact.len ? exact.len - 1 : 9}));
	struct span lent;
	bool escaped = strchr(text, '\\') != NULL;
	assert_int_equal(json_span_borrow_string(doc, json_span_root(), &lent), !escaped);
	if (!escaped)
		assert_true(span_equal(lent, exact));
	buf_free(&out);
	json_span_free(&doc);
}

#define BOTH(literal) SPAN_LITERAL(literal), SPAN_LITERAL(literal)
static void test_strings_are_decoded(void **state)
{
	(void)state;
	assert_decoded("\"\"", BOTH(""));
	assert_decoded("\"abc\"", BOTH("abc"));
	assert_decoded("\"\x7f\xc3\xa9\xf0\x9f\x98\x80\"", BOTH("\x7f\xc3\xa9\xf0\x9f\x98\x80"));
	assert_decoded("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", BOTH("\"\\/\b\f\n\r\t"));
	assert_decoded("\"a\\u0000b\"", BOTH("a\0b"));
	assert_decoded(
		"\"\\u00E9\\u20aC\\ud83D\\uDE00!\"", BOTH("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80!"));
	/* Halves of surrogate pairs: alone, in the wrong order, twice, before another escape. */
	assert_decoded("\"\\ud800\"", SPAN_LITERAL("\xef\xbf\xbd"), SPAN_LITERAL("\xed\xa0\x80"));
	assert_decoded("\"\\udc00\\ud800\"", SPAN_LITERAL("\xef\xbf\xbd\xef\xbf\xbd"),
		SPAN_LITERAL("\xed\xb0\x80\xed\xa0\x80"));
	assert_decoded("\"\\ud83d\\ud83d\\ude00\"", SPAN_LITERAL("\xef\xbf\xbd\xf0\x9f\x98\x80"),
		SPAN_LITERAL("\xed\xa0\xbd\xf0\x9f\x98\x80"));
	assert_decoded("\"\\ud83dx\\n\"", SPAN_LITERAL("\xef\xbf\xbdx\n"),
		SPAN_LITERAL("\xed\xa0\xbdx\n"));
	assert_decoded(
		"\"\\ud83d\\n\"", SPAN_LITERAL("\xef\xbf\xbd\n"), SPAN_LITERAL("\xed\xa0\xbd\n"));
	assert_decoded("\"\\ud83d\\u0041\"",
		SPAN_LITERAL("\xef\xbf\xbd"
			     "A"),
		SPAN_LITERAL("\xed\xa0\xbd"
			     "A"));

	struct json_span_doc *doc = scan_ok("\"abc\\ndef\"");
	struct buf small = BUF_INIT(5);
	assert_int_equal(json_span_string(doc, json_span_root(), &small), -1);
	assert_true(buf_failed(&small));
	buf_free(&small);
	json_span_free(&doc);
	doc = scan_ok("12");
	struct buf out = BUF_INIT(100);
	struct span lent;
	assert_int_equal(json_span_string(doc, json_span_root(), &out), -1);
	assert_false(json_span_borrow_string(doc, json_span_root(), &lent));
	assert_false(json_span_equal(doc, json_span_root(), span_of("12")));
	assert_false(json_span_equal(doc, json_span_root(), span_of("")));
	json_span_free(&doc);
}

static void test_numbers(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int rc;
		int64_t value;
	} cases[] = {{"0", 0, 0}, {"-0", 0, 0}, {"7", 0, 7}, {"-12", 0, -12},
		{"9223372036854775807", 0, INT64_MAX}, {"9223372036854775808", -1, 0},
		{"-9223372036854775808", 0, INT64_MIN}, {"-9223372036854775809", -1, 0},
		{"99999999999999999999", -1, 0}, {"1.0", -1, 0}, {"1e2", -1, 0}, {"\"1\"", -1, 0},
		{"[1]", -1, 0}, {"true", -1, 0}, {"18446744073709551616", -1, 0}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct json_span_doc *doc = scan_ok(cases[i].text);
		int64_t value = 42;
		assert_int_equal(json_span_int64(doc, json_span_root(), &value), cases[i].rc);
		assert_int_equal(value, cases[i].rc ? 42 : cases[i].value);
		json_span_free(&doc);
	}
	double value;
	struct json_span_doc *doc = scan_ok("-2.5e-1");
	assert_false(json_span_is_integer(doc, json_span_root()));
	assert_int_equal(json_span_double(doc, json_span_root(), &value), 0);
	assert_true(value == -0.25);
	json_span_free(&doc);
	doc = scan_ok("\"1\"");
	assert_int_equal(json_span_double(doc, json_span_root(), &value), -1);
	json_span_free(&doc);
	char huge[401]; /* an integer may be beyond a double, as in Python */
	memset(huge, '1', 400);
	huge[400] = '\0';
	doc = scan_ok(huge);
	assert_true(json_span_is_integer(doc, json_span_root()));
	assert_int_equal(json_span_double(doc, json_span_root(), &value), -1);
	json_span_free(&doc);
}

static void test_vectors_are_read(void **state)
{
	(void)state;
	struct json_span_doc *doc = scan_ok("[ 0.5 , -1,\t1e3,0.10000000149011612 ,16777216\n]");
	struct json_span_numbers walk = json_span_numbers(doc, json_span_root());
	double doubles[8];
	assert_int_equal(json_span_read_doubles(&walk, doubles, 2), 2);
	assert_true(doubles[0] == 0.5 && doubles[1] == -1);
	assert_int_equal(json_span_read_doubles(&walk, doubles, 8), 3);
	assert_true(doubles[0] == 1000 && doubles[1] == (double)0.1f && doubles[2] == 16777216);
	assert_int_equal(json_span_read_doubles(&walk, doubles, 8), 0);

	walk = json_span_numbers(doc, json_span_root());
	float floats[8];
	bool exact = true;
	assert_int_equal(json_span_read_floats(&walk, floats, 8, &exact), 5);
	assert_true(exact);
	assert_true(floats[3] == 0.1f);
	json_span_free(&doc);

	static const char *const inexact[] = {
		"[0.5,0.1]", "[16777217,1]", "[1e39]", "[-1e300]", "[1,1e-60]"};
	for (size_t i = 0; i < sizeof inexact / sizeof inexact[0]; i++) {
		doc = scan_ok(inexact[i]);
		walk = json_span_numbers(doc, json_span_root());
		exact = true;
		assert_int_equal(json_span_read_floats(&walk, floats, 8, &exact),
			json_span_count(doc, json_span_root()));
		if (exact)
			fail_msg("%s seemed exact", inexact[i]);
		json_span_free(&doc);
	}
	/* Nothing to walk over. */
	static const char *const none[] = {"[]", "[ ]", "[1,\"a\"]", "\"a\"", "{}"};
	for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
		struct span number;
		doc = scan_ok(none[i]);
		walk = json_span_numbers(doc, json_span_root());
		assert_int_equal(json_span_read_doubles(&walk, doubles, 8), 0);
		assert_int_equal(json_span_read_floats(&walk, floats, 8, &exact), 0);
		assert_false(json_span_numbers_next(&walk, &number));
		json_span_free(&doc);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_strings_are_decoded),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_vectors_are_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
