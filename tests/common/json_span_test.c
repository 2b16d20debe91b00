#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json_span.h"

/* A doc over a copy of the exact size, so that the sanitizer sees a read beyond it. */
struct scanned {
	char *text;
	struct json_span_doc *doc;
	enum json_span_status status;
};

static struct scanned scan_in_slices(struct span text, size_t slice, struct json_span_limits limits)
{
	struct scanned s = {.text = malloc(text.len ? text.len : 1)};
	assert_non_null(s.text);
	if (text.len)
		memcpy(s.text, text.data, text.len);
	s.doc = json_span_new((struct span){s.text, text.len}, &limits);
	assert_non_null(s.doc);
	size_t steps = 0;
	while ((s.status = json_span_step(s.doc, slice)) == JSON_SPAN_MORE)
		assert_in_range(++steps, 1, slice >= text.len ? 0 : 4 * text.len + 4);
	return s;
}

static void end(struct scanned *s)
{
	json_span_free(&s->doc);
	assert_null(s->doc);
	json_span_free(&s->doc);
	free(s->text);
}

static void assert_error(const char *text, size_t len, size_t offset, const char *reason)
{
	struct scanned s = scan_in_slices(
		(struct span){text, len}, SIZE_MAX, (struct json_span_limits){0});
	if (s.status != JSON_SPAN_ERROR)
		fail_msg("'%s' was taken", text);
	if (!strstr(json_span_error_reason(s.doc), reason) ||
		json_span_error_offset(s.doc) != offset)
		fail_msg("'%s': '%s' at %zu, not '%s' at %zu", text, json_span_error_reason(s.doc),
			json_span_error_offset(s.doc), reason, offset);
	/* It stays an error. */
	assert_int_equal(json_span_step(s.doc, 100), JSON_SPAN_ERROR);
	end(&s);
}

/* Writes the tape as text again, without white space: shows types, counts and links at once. */
static void describe(const struct json_span_doc *doc, uint32_t node, struct buf *out)
{
	struct span text = json_span_text(doc, node);
	struct json_span_numbers numbers;
	struct span number;
	bool first = true;
	switch (json_span_type(doc, node)) {
	case JSON_SPAN_ARRAY:
		buf_printf(out, "%u[", json_span_count(doc, node));
		for (uint32_t n = json_span_first(doc, node); n != JSON_SPAN_NONE;
			n = json_span_next(doc, node, n)) {
			if (!first)
				buf_append_char(out, ',');
			first = false;
			describe(doc, n, out);
		}
		buf_append_char(out, ']');
		return;
	case JSON_SPAN_NUMBERS:
		buf_printf(out, "%u%s<", json_span_count(doc, node),
			json_span_is_integer(doc, node) ? "i" : "");
		numbers = json_span_numbers(doc, node);
		while (json_span_numbers_next(&numbers, &number)) {
			buf_printf(out, "%s%.*s", first ? "" : ",", SPAN_ARG(number));
			first = false;
		}
		buf_append_char(out, '>');
		return;
	case JSON_SPAN_OBJECT:
		buf_printf(out, "%u{", json_span_count(doc, node));
		for (uint32_t n = json_span_first(doc, node); n != JSON_SPAN_NONE;
			n = json_span_next(doc, node, n)) {
			if (!first)
				buf_append_char(out, ',');
			first = false;
			describe(doc, n, out);
			buf_append_char(out, ':');
			describe(doc, json_span_value(n), out);
		}
		buf_append_char(out, '}');
		return;
	default:
		assert_int_equal(json_span_first(doc, node), JSON_SPAN_NONE);
		buf_append(out, text.data, text.len);
	}
}

static void assert_described(const char *text, const char *expected)
{
	for (size_t slice = 1; slice <= strlen(text) + 1; slice++) {
		struct scanned s = scan_in_slices(
			span_of(text), slice, (struct json_span_limits){0});
		if (s.status != JSON_SPAN_DONE)
			fail_msg("%s: %s", text, json_span_error_reason(s.doc));
		struct buf out = BUF_INIT(10000);
		describe(s.doc, json_span_root(), &out);
		buf_append_char(&out, '\0');
		assert_string_equal((char *)out.data, expected);
		buf_free(&out);
		end(&s);
	}
}

static void test_shapes(void **state)
{
	(void)state;
	assert_described(" null ", "null");
	assert_described("true", "true");
	assert_described("\r\n\tfalse\n", "false");
	assert_described("-1.5e3", "-1.5e3");
	assert_described("\"x\"", "\"x\"");
	assert_described("[]", "0[]");
	assert_described("[ ]", "0[]");
	assert_described("{ }", "0{}");
	assert_described("[[],[[]],{}]", "3[0[],1[0[]],0{}]");
	assert_described("{\"a\":1,\"b\":{\"c\":[true]},\"\":\"\"}",
		"3{\"a\":1,\"b\":1{\"c\":1[true]},\"\":\"\"}");
	assert_described(
		"{\"input\": [\"a\", [1, 2]], \"n\": 3}", "2{\"input\":2[\"a\",2i<1,2>],\"n\":3}");
}

static void test_arrays_of_numbers_are_one_node(void **state)
{
	(void)state;
	assert_described("[1]", "1i<1>");
	assert_described("[ 1 ,\n-2 , 3 ]", "3i<1,-2,3>");
	assert_described("[1,2.0]", "2<1,2.0>");
	assert_described("[1e1,2]", "2<1e1,2>");
	assert_described("[[1,2],[3],[]]", "3[2i<1,2>,1i<3>,0[]]");
	/* Mixed: every number gets its node after all. */
	assert_described("[1,2,\"a\"]", "3[1,2,\"a\"]");
	assert_described("[1,2,[3,4],5]", "4[1,2,2i<3,4>,5]");
	assert_described("[1,{\"a\":[2,null]}]", "2[1,1{\"a\":2[2,null]}]");
	assert_described("[1,true]", "2[1,true]");
	assert_described("[1,false,1]", "3[1,false,1]");
	assert_described("[\"a\",1,2]", "3[\"a\",1,2]");

	enum { MANY = 100000 };
	char *text = malloc(MANY * 2 + 2);
	assert_non_null(text);
	for (int i = 0; i < MANY; i++)
		memcpy(text + 2 * i, i ? ",7" : "[7", 2);
	text[2 * MANY] = ']';
	struct scanned s = scan_in_slices((struct span){text, 2 * MANY + 1}, SIZE_MAX,
		(struct json_span_limits){.max_nodes = 1});
	assert_int_equal(s.status, JSON_SPAN_DONE);
	assert_int_equal(json_span_count(s.doc, json_span_root()), MANY);
	end(&s);
	free(text);
}

static void test_syntax_errors(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t offset;
		const char *reason;
	} cases[] = {
		{"", 0, "no value"},
		{"  \n", 3, "no value"},
		{"\xef\xbb\xbf{}", 0, "byte order mark"},
		{"{} {}", 3, "something follows"},
		{"1 2", 2, "something follows"},
		{"\"a\"]", 3, "something follows"},
		{"[", 1, "too early"},
		{"[1", 2, "too early"},
		{"[1,", 3, "too early"},
		{"{\"a\"", 4, "too early"},
		{"{\"a\":", 5, "too early"},
		{"[1,]", 3, "a value"},
		{"[\"a\",]", 5, "a value"},
		{"[,1]", 1, "a value"},
		{"[1 2]", 3, "a comma or a closing bracket"},
		{"[1}", 2, "a comma or a closing bracket"},
		{"[\"a\"}", 4, "a comma or a closing bracket"},
		{"{\"a\":1]", 6, "a comma or a closing brace"},
		{"{,}", 1, "a key"},
		{"{\"a\":1,}", 7, "a key"},
		{"{a:1}", 1, "a key"},
		{"{1:1}", 1, "a key"},
		{"{\"a\" 1}", 5, "a colon"},
		{"{\"a\":}", 5, "a value"},
		{"'a'", 0, "a value"},
		{"tru", 0, "a value"},
		{"nul1", 0, "a value"},
		{"True", 0, "a value"},
		{"[1,undefined]", 3, "a value"},
		{"// a\n1", 0, "a value"},
		{"\xc2\xa0"
		 "1",
			0, "a value"},
		{"\f1", 0, "a value"},
		{"]", 0, "a value"},
		{"NaN", 0, "NaN"},
		{"Infinity", 0, "NaN"},
		{"-Infinity", 0, "NaN"},
		{"[1,-Infinity]", 3, "NaN"},
		{"01", 0, "must not start with 0"},
		{"-00", 0, "must not start with 0"},
		{"[1,02]", 3, "must not start with 0"},
		{"0-1", 0, "must not start with 0"},
		{"-", 0, "not a number"},
		{"+1", 0, "a value"},
		{".5", 0, "a value"},
		{"1.", 0, "not a number"},
		{"[1.e5]", 1, "not a number"},
		{"1e", 0, "not a number"},
		{"1E+", 0, "not a number"},
		{"0x10", 1, "something follows"},
		{"1e400", 0, "number out of range"},
		{"[1,-1e400]", 3, "number out of range"},
		{"1.7976931348623159e308", 0, "number out of range"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_error(
			cases[i].text, strlen(cases[i].text), cases[i].offset, cases[i].reason);
	assert_error("1\0", 2, 1, "something follows");
	assert_error("[1,\0", 4, 3, "a value");
	assert_error("\0", 1, 0, "a value");
	struct scanned s = scan_in_slices((struct span){NULL, 0}, 1, (struct json_span_limits){0});
	assert_int_equal(s.status, JSON_SPAN_ERROR);
	end(&s);
}

static void test_string_errors(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t offset;
		const char *reason;
	} cases[] = {
		{"\"", 1, "inside a string"},
		{"\"abc", 4, "inside a string"},
		{"\"abc\\\"", 6, "inside a string"},
		{"{\"abcdefghijklmnop", 18, "inside a string"},
		{"\"a\nb\"", 2, "control character"},
		{"\"abcdefghij\x01\"", 11, "control character"},
		{"\"\\", 1, "escape"},
		{"\"\\x41\"", 1, "escape"},
		{"\"\\u12\"", 1, "escape"},
		{"\"\\u12g4\"", 1, "escape"},
		{"\"\\U0041\"", 1, "escape"},
		{"\"\\u", 1, "escape"},
		{"\"\\'\"", 1, "escape"},
		{"\"\x80\"", 1, "UTF-8"},
		{"\"abcdefgh\xff\"", 9, "UTF-8"},
		{"\"\xc0\x80\"", 1, "UTF-8"},
		{"\"\xc3\"", 1, "UTF-8"},
		{"\"\xe2\x82\"", 1, "UTF-8"},
		{"\"\xed\xa0\x80\"", 1, "UTF-8"},
		{"\"\xf4\x90\x80\x80\"", 1, "UTF-8"},
		{"\"\xf0\x9f\x98", 1, "UTF-8"},
		{"{\"\xff\":1}", 2, "UTF-8"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_error(
			cases[i].text, strlen(cases[i].text), cases[i].offset, cases[i].reason);
	assert_error("\"a\0b\"", 5, 2, "control character");
	assert_error("\"\\\0\"", 4, 1, "escape");
}

static void test_depth_limit(void **state)
{
	(void)state;
	char text[300];
	for (unsigned depth = 1; depth <= 129; depth++) {
		memset(text, '[', depth);
		memset(text + depth, ']', depth);
		struct scanned s = scan_in_slices(
			(struct span){text, 2 * depth}, SIZE_MAX, (struct json_span_limits){0});
		assert_int_equal(s.status, depth <= 128 ? JSON_SPAN_DONE : JSON_SPAN_ERROR);
		if (depth == 129) {
			assert_string_equal(
				json_span_error_reason(s.doc), "nested deeper than 128 levels");
			assert_int_equal(json_span_error_offset(s.doc), 128);
		}
		end(&s);
	}
	struct json_span_limits two = {.max_depth = 2};
	struct scanned s = scan_in_slices(span_of("{\"a\":[1]}"), SIZE_MAX, two);
	assert_int_equal(s.status, JSON_SPAN_DONE);
	end(&s);
	s = scan_in_slices(span_of("{\"a\":[[1]]}"), SIZE_MAX, two);
	assert_int_equal(s.status, JSON_SPAN_ERROR);
	end(&s);
}

static void test_node_limit(void **state)
{
	(void)state;
	static const char text[] = "[\"a\",\"b\",{\"c\":null},[],[1,2,3]]"; /* 8 nodes */
	for (uint32_t max = 1; max < 40; max++) {
		struct scanned s = scan_in_slices(
			span_of(text), SIZE_MAX, (struct json_span_limits){.max_nodes = max});
		assert_int_equal(s.status, max >= 8 ? JSON_SPAN_DONE : JSON_SPAN_ERROR);
		if (max < 8)
			assert_non_null(strstr(json_span_error_reason(s.doc), " values"));
		end(&s);
	}
}

static void test_long_numbers(void **state)
{
	(void)state;
	enum { LONGEST = 65536 };
	static char text[LONGEST + 10];
	memset(text, '9', sizeof text);
	struct json_span_limits none = {0};
	for (size_t digits = 4299; digits <= 4301; digits++) {
		for (int minus = 0; minus < 2; minus++) {
			text[0] = minus ? '-' : '9';
			struct scanned s = scan_in_slices(
				(struct span){text, digits + (size_t)minus}, SIZE_MAX, none);
			assert_int_equal(
				s.status, digits <= 4300 ? JSON_SPAN_DONE : JSON_SPAN_ERROR);
			if (digits > 4300)
				assert_non_null(strstr(json_span_error_reason(s.doc), "4300"));
			end(&s);
		}
	}
	text[0] = '0';
	text[1] = '.';
	for (size_t len = LONGEST - 1; len <= LONGEST + 2; len++) {
		struct scanned s = scan_in_slices((struct span){text, len}, SIZE_MAX, none);
		assert_int_equal(s.status, len <= LONGEST ? JSON_SPAN_DONE : JSON_SPAN_ERROR);
		double value;
		if (len <= LONGEST) {
			assert_int_equal(json_span_double(s.doc, json_span_root(), &value), 0);
			assert_true(value == 1.0);
		} else {
			assert_non_null(strstr(json_span_error_reason(s.doc), "65536"));
		}
		end(&s);
	}
}

#define REQUEST                                                                               \
	"{\"model\": \"m\\u00e9\", \"input\": [\"caf\xc3\xa9\", [1, -2], [1.5, 2e3, \"x\"], " \
	"[true, null]], \"user\": {\"\": [[], {}, [[0.25]]]}, \"n\": -0, \"\\ud83d\\ude00\": 1}"

/* A slice may end anywhere; the text may end anywhere. */
static void test_cut_everywhere(void **state)
{
	(void)state;
	assert_described(REQUEST,
		"5{\"model\":\"m\\u00e9\",\"input\":4[\"caf\xc3\xa9\",2i<1,-2>,3[1.5,2e3,\"x\"],"
		"2[true,null]],\"user\":1{\"\":3[0[],0{},1[1<0.25>]]},\"n\":-0,"
		"\"\\ud83d\\ude00\":1}");
	size_t len = strlen(REQUEST);
	for (size_t cut = 0; cut < len; cut++) {
		size_t offset = 0;
		for (size_t slice = 1; slice < len; slice++) {
			struct scanned s = scan_in_slices(
				(struct span){REQUEST, cut}, slice, (struct json_span_limits){0});
			assert_int_equal(s.status, JSON_SPAN_ERROR);
			assert_in_range(json_span_error_offset(s.doc), 0, cut);
			if (slice == 1)
				offset = json_span_error_offset(s.doc);
			assert_int_equal(json_span_error_offset(s.doc), offset);
			end(&s);
		}
	}
}

/* One step does not do much more than it was asked to, also where numbers are gone over again. */
static void test_a_slice_is_bounded(void **state)
{
	(void)state;
	enum { LEN = 100000, SLICE = 1000 };
	char *text = malloc(LEN);
	assert_non_null(text);
	for (int kind = 0; kind < 3; kind++) {
		memset(text, ' ', LEN);
		if (kind == 0) { /* one long string */
			memset(text, 'x', LEN);
			text[0] = text[LEN - 1] = '"';
		} else if (kind == 1) { /* numbers, then a string */
			for (int i = 0; i + 1 < LEN; i += 2)
				memcpy(text + i, i ? ",1" : "[1", 2);
			memcpy(text + LEN - 6, ",\"a\" ]", 6);
		} else { /* white space */
			text[LEN - 1] = '1';
		}
		struct json_span_doc *doc = json_span_new((struct span){text, LEN}, NULL);
		assert_non_null(doc);
		size_t before = 0, steps = 1;
		while (json_span_step(doc, SLICE) == JSON_SPAN_MORE) {
			size_t after = json_span_offset(doc);
			assert_true(after < before || after - before <= SLICE + 8);
			before = after;
			steps++;
		}
		assert_int_equal(json_span_step(doc, SLICE), JSON_SPAN_DONE);
		assert_in_range(steps, LEN / (SLICE + 8), 2 * LEN / SLICE + 4);
		json_span_free(&doc);
	}
	free(text);
}

static void *scan_in_thread(void *unused)
{
	(void)unused;
	for (int i = 0; i < 200; i++) {
		struct json_span_doc *doc = json_span_new(span_of(REQUEST), NULL);
		if (!doc || json_span_step(doc, SIZE_MAX) != JSON_SPAN_DONE)
			return NULL;
		uint32_t user = json_span_member(doc, json_span_root(), span_of("user"));
		if (json_span_count(doc, user) != 1)
			return NULL;
		json_span_free(&doc);
	}
	return (void *)REQUEST;
}

static void test_threads(void **state)
{
	(void)state;
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, scan_in_thread, NULL), 0);
	for (int i = 0; i < 4; i++) {
		void *result = NULL;
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_non_null(result);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_arrays_of_numbers_are_one_node),
		cmocka_unit_test(test_syntax_errors),
		cmocka_unit_test(test_string_errors),
		cmocka_unit_test(test_depth_limit),
		cmocka_unit_test(test_node_limit),
		cmocka_unit_test(test_long_numbers),
		cmocka_unit_test(test_cut_everywhere),
		cmocka_unit_test(test_a_slice_is_bounded),
		cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
