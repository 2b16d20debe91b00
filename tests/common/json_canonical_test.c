/* The text itself is compared with Python's in 10-canonical.t; here is the rest of the contract. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/digest.h"
#include "common/json_canonical.h"

static struct json_span_doc *scan_ok(struct span text)
{
	struct json_span_doc *doc = json_span_new(text, NULL);
	assert_non_null(doc);
	if (json_span_step(doc, SIZE_MAX) != JSON_SPAN_DONE)
		fail_msg("%.*s: %s", SPAN_ARG(text), json_span_error_reason(doc));
	return doc;
}

static void assert_content(const struct buf *b, const char *expected)
{
	assert_false(buf_failed(b));
	assert_int_equal(b->len, strlen(expected));
	assert_memory_equal(b->data, expected, b->len);
}

static void assert_canonical(const char *text, const char *expected)
{
	struct json_span_doc *doc = scan_ok(span_of(text));
	struct buf out = BUF_INIT(10000);
	assert_int_equal(json_canonical_append(doc, json_span_root(), &out), 0);
	assert_content(&out, expected);
	buf_free(&out);
	json_span_free(&doc);
}

static void test_text(void **state)
{
	(void)state;
	assert_canonical(
		" { \"b\" : [ 1,-0 , 1E5,\"\x7f\\/\xc3\xa9\" ], \"a\" : {} , \"b\\u0061\":-0.0}",
		"{\"a\": {}, \"b\": [1, 0, 100000.0, \"\\u007f/\\u00e9\"], \"ba\": -0.0}");
	assert_canonical("[[],[1.50,-0],\"\\uD83D\\uDE00\\ud800\"]",
		"[[], [1.5, 0], \"\\ud83d\\ude00\\ud800\"]");
	assert_canonical(
		"{\"a\":1,\"\\u0061\":{\"x\":null},\"A\":2}", "{\"A\": 2, \"a\": {\"x\": null}}");
}

static void test_any_node_alone(void **state)
{
	(void)state;
	struct json_span_doc *doc = scan_ok(
		SPAN_LITERAL("{\"input\":[\"\\u0041\",[1,2],{\"b\":1,\"a\":2}]}"));
	static const char *const expected[] = {"\"A\"", "[1, 2]", "{\"a\": 2, \"b\": 1}"};
	uint32_t input = json_span_member(doc, json_span_root(), span_of("input"));
	size_t i = 0;
	for (uint32_t n = json_span_first(doc, input); n != JSON_SPAN_NONE;
		n = json_span_next(doc, input, n)) {
		struct buf out = BUF_INIT(100);
		assert_int_equal(json_canonical_append(doc, n, &out), 0);
		assert_content(&out, expected[i++]);
		buf_free(&out);
	}
	assert_int_equal(i, 3);
	json_span_free(&doc);
}

static void collect(const void *data, size_t len_bytes, void *arg)
{
	assert_int_not_equal(len_bytes, 0);
	assert_int_equal(buf_append(arg, data, len_bytes), 0);
}

/* Lengths around the size of the writer's own buffer, with pieces of every kind at its edge. */
static void test_pieces_join_up(void **state)
{
	(void)state;
	static char text[6000], expected[20000];
	for (size_t pad = 1980; pad < 2120; pad++) {
		memset(text, 'x', sizeof text);
		text[0] = '[';
		text[1] = '"';
		int n = snprintf(
			text + pad, 200, "\xc3\xa9\\n\",1.25,\"\\ud83d\\ude00\",[7,true],0.1]");
		struct json_span_doc *doc = scan_ok((struct span){text, pad + (size_t)n});
		memcpy(expected, text, pad);
		snprintf(expected + pad, 200,
			"\\u00e9\\n\", 1.25, \"\\ud83d\\ude00\", [7, true], 0.1]");
		struct buf out = BUF_INIT(20000);
		assert_int_equal(json_canonical_write(doc, json_span_root(), collect, &out), 0);
		assert_content(&out, expected);
		buf_free(&out);
		json_span_free(&doc);
	}
}

static void test_members(void **state)
{
	(void)state;
	struct json_span_doc *doc = scan_ok(SPAN_LITERAL(
		"{\"b\":1,\"\\ud83d\\ude00\":2,\"a\":3,\"\xef\xbf\xbf\":4,\"\\u0062\":5,\"\":6,\"ab\":7}"));
	static const struct {
		const char *name, *value;
	} expected[] = {{"", "6"}, {"a", "3"}, {"ab", "7"}, {"b", "5"}, {"\xef\xbf\xbf", "4"},
		{"\xf0\x9f\x98\x80", "2"}};
	struct json_canonical_members members;
	assert_int_equal(json_canonical_members(doc, json_span_root(), &members), 0);
	assert_int_equal(members.count, 6);
	for (size_t i = 0; i < members.count; i++) {
		assert_true(span_equal_str(members.items[i].name, expected[i].name));
		struct span value = json_span_text(doc, json_span_value(members.items[i].key));
		assert_true(span_equal_str(value, expected[i].value));
	}
	json_canonical_members_free(&members);
	json_canonical_members_free(&members);
	uint32_t number = json_span_member(doc, json_span_root(), span_of("a"));
	assert_int_equal(json_canonical_members(doc, number, &members), -1);
	json_span_free(&doc);
	doc = scan_ok(SPAN_LITERAL("{}"));
	assert_int_equal(json_canonical_members(doc, json_span_root(), &members), 0);
	assert_int_equal(members.count, 0);
	json_canonical_members_free(&members);
	json_span_free(&doc);
}

static void assert_around(const char *text, const char *before, const char *after)
{
	static const struct span without[] = {
		SPAN_LITERAL("encoding_format"), SPAN_LITERAL("user")};
	struct json_span_doc *doc = scan_ok(span_of(text));
	struct buf b = BUF_INIT(1000), a = BUF_INIT(1000);
	assert_int_equal(
		json_canonical_around(doc, json_span_root(), span_of("input"), without, 2, &b, &a),
		0);
	assert_content(&b, before);
	assert_content(&a, after);
	buf_free(&b);
	buf_free(&a);
	json_span_free(&doc);
}

static void test_around_a_hole(void **state)
{
	(void)state;
	assert_around(
		"{\"model\":\"m\",\"input\":[\"a\"],\"dimensions\":3,\"user\":\"u\",\"encoding_format\":0}",
		"{\"dimensions\": 3, \"input\": ", ", \"model\": \"m\"}");
	assert_around("{\"input\":1}", "{\"input\": ", "}");
	assert_around("{}", "{\"input\": ", "}");
	assert_around("{\"model\":\"m\"}", "{\"input\": ", ", \"model\": \"m\"}");
	assert_around("{\"user\":1,\"a\":[1,2],\"b\":{\"y\":1,\"x\":2}}",
		"{\"a\": [1, 2], \"b\": {\"x\": 2, \"y\": 1}, \"input\": ", "}");
	assert_around(
		"{\"inpu\":1,\"inputs\":2,\"inp\\u0075t\":3,\"input\":4,\"\\u0075ser\":5,\"z\":6,\"z\":7}",
		"{\"inpu\": 1, \"input\": ", ", \"inputs\": 2, \"z\": 7}");

	struct json_span_doc *doc = scan_ok(SPAN_LITERAL("[1]"));
	struct buf b = BUF_INIT(1000), a = BUF_INIT(1000);
	assert_int_equal(
		json_canonical_around(doc, json_span_root(), span_of("input"), NULL, 0, &b, &a),
		-1);
	json_span_free(&doc);
	doc = scan_ok(SPAN_LITERAL("{\"a\":1,\"z\":2}"));
	for (size_t max = 0; max < 8; max++) {
		struct buf small = BUF_INIT(max);
		buf_clear(&b);
		assert_int_equal(json_canonical_around(doc, json_span_root(), span_of("input"),
					 NULL, 0, &b, &small),
			-1);
		buf_clear(&b);
		buf_free(&small);
		assert_int_equal(json_canonical_around(doc, json_span_root(), span_of("input"),
					 NULL, 0, &small, &b),
			-1);
		buf_free(&small);
	}
	buf_free(&b);
	buf_free(&a);
	json_span_free(&doc);
}

static void into_digest(const void *data, size_t len_bytes, void *arg)
{
	digest_update(arg, (struct span){data, len_bytes});
}

/* The key of one element, as gatewayd makes it; the sum is Python's. */
static void test_element_key(void **state)
{
	(void)state;
	struct json_span_doc *doc = scan_ok(SPAN_LITERAL(
		"{\"model\":\"m\",\"input\":[\"caf\xc3\xa9\",[1,2]],\"dimensions\":3,\"user\":\"u\"}"));
	struct span user = SPAN_LITERAL("user");
	struct buf before = BUF_INIT(1000), after = BUF_INIT(1000);
	assert_int_equal(json_canonical_around(doc, json_span_root(), span_of("input"), &user, 1,
				 &before, &after),
		0);
	struct digest_state *prefix = digest_new(), *sum = digest_new();
	assert_non_null(prefix);
	assert_non_null(sum);
	digest_update(prefix, (struct span){(char *)before.data, before.len});
	static const char *const keys[] = {
		"360e5b089c664db460cbcaa2de12faf3d5b278ba66cb3db7fb7b3f8574ebd00b",
		"be97ac51d6aaa8fa1c27383c102d84b6c68ff7fb813e13481b42089989a557ea",
	};
	uint32_t input = json_span_member(doc, json_span_root(), span_of("input"));
	size_t i = 0;
	for (uint32_t n = json_span_first(doc, input); n != JSON_SPAN_NONE;
		n = json_span_next(doc, input, n)) {
		char hex[DIGEST_HEX + 1];
		digest_copy(sum, prefix);
		assert_int_equal(json_canonical_write(doc, n, into_digest, sum), 0);
		digest_update(sum, (struct span){(char *)after.data, after.len});
		struct digest key = digest_final(sum);
		digest_hex(&key, hex);
		assert_string_equal(hex, keys[i++]);
	}
	assert_int_equal(i, 2);
	digest_free(&prefix);
	digest_free(&sum);
	buf_free(&before);
	buf_free(&after);
	json_span_free(&doc);
}

static void test_strings_from_elsewhere(void **state)
{
	(void)state;
	static const struct {
		struct span text;
		const char *expected;
	} cases[] = {
		{SPAN_LITERAL(""), "\"\""},
		{SPAN_LITERAL("a/\"\\\n\x7f\0"), "\"a/\\\"\\\\\\n\\u007f\\u0000\""},
		{SPAN_LITERAL("\xc3\xa9\xf0\x9f\x98\x80"), "\"\\u00e9\\ud83d\\ude00\""},
		{SPAN_LITERAL("\xed\xa0\x80\xed\xbf\xbf"), "\"\\ud800\\udfff\""},
		{SPAN_LITERAL("\xff\xed\xa0"), "\"\\ufffd\\ufffd\\ufffd\""},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct buf out = BUF_INIT(100);
		char copy[32];
		memcpy(copy, cases[i].text.data, cases[i].text.len);
		assert_int_equal(
			json_canonical_append_string((struct span){copy, cases[i].text.len}, &out),
			0);
		assert_content(&out, cases[i].expected);
		buf_free(&out);
	}
	struct buf small = BUF_INIT(3);
	assert_int_equal(json_canonical_append_string(span_of("ab"), &small), -1);
	buf_free(&small);
}

static void test_a_full_buffer_fails(void **state)
{
	(void)state;
	struct json_span_doc *doc = scan_ok(SPAN_LITERAL("{\"a\":[1,{\"b\":[\"x\"]}]}"));
	size_t full = strlen("{\"a\": [1, {\"b\": [\"x\"]}]}");
	for (size_t max = 0; max <= full; max++) {
		struct buf out = BUF_INIT(max);
		assert_int_equal(
			json_canonical_append(doc, json_span_root(), &out), max < full ? -1 : 0);
		buf_free(&out);
	}
	json_span_free(&doc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_any_node_alone),
		cmocka_unit_test(test_pieces_join_up),
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_around_a_hole),
		cmocka_unit_test(test_element_key),
		cmocka_unit_test(test_strings_from_elsewhere),
		cmocka_unit_test(test_a_full_buffer_fails),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
