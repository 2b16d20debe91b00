#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gatewayd/query.h"

static struct query query;
static struct api_error error;

static int parse(const char *body)
{
	query_free(&query);
	return query_parse(span_of(body), 1000, NULL, &query, &error);
}

static int teardown(void **state)
{
	(void)state;
	query_free(&query);
	return 0;
}

static void assert_key(size_t index, const char *hex)
{
	char text[DIGEST_HEX + 1];
	digest_hex(&query.elements[index].key, text);
	assert_string_equal(text, hex);
}

static void assert_buf(const struct buf *buf, const char *text)
{
	assert_int_equal(buf->len, strlen(text));
	assert_memory_equal(buf->data, text, buf->len);
}

/* The sums were made by Python: sha256(json.dumps(request, sort_keys=True)). */
#define HELLO   "e5620448bdda6920a4be277ffe18fd7289df3b1a4f5d13692a480b8dacfb3a09"
#define HELLO_3 "58572e47c423b457c879e7ca339f40d65aa6b29d1c4e0d301f3558899652fd34"
#define TOKENS  "bf1146dbc79ce4ae3a50eff7cddbad70e8fe040bf4c1eb0c35bae9417fd4f951"
#define UNICODE "1ef47f7eb313fbaf6153db427aec1c165d87ed8adb9a46c6451869b2e2e0a0c3"

static void a_single_text_has_pythons_key(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"input\": \"hello\", \"model\": \"m\"}"), 0);
	assert_int_equal(query.n, 1);
	assert_true(query.single);
	assert_int_equal(query.encoding, QUERY_FLOAT);
	assert_key(0, HELLO);
	assert_buf(&query.model, "m");
	assert_buf(&query.params_json, "");
	assert_buf(&query.canonical_params, "{\"model\": \"m\"}");
}

static void spelling_does_not_matter(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"model\":\"m\" ,\n\t\"input\":\"h\\u0065llo\"}"), 0);
	assert_key(0, HELLO);
	assert_int_equal(parse("{\"\\u006dodel\":\"m\",\"inpu\\u0074\":\"hello\"}"), 0);
	assert_key(0, HELLO);
	assert_int_equal(
		parse("{\"model\":\"x\",\"input\":[],\"model\":\"m\",\"input\":\"hello\"}"),
		0); /* the last of duplicates counts */
	assert_key(0, HELLO);
	assert_int_equal(parse("{\"input\":\"h\xc3\xa9\xf0\x9f\x98\x80\",\"zeta\":[1.0,{\"b\":1,"
			       "\"a\":null}],\"model\":\"m\"}"),
		0);
	assert_key(0, UNICODE);
	assert_int_equal(parse("{\"zeta\":[1.0e0,{\"a\":null,\"b\":1}],\"model\":\"m\","
			       "\"input\":\"h\\u00e9\\ud83d\\ude00\"}"),
		0);
	assert_key(0, UNICODE);
}

static void format_and_user_do_not_matter(void **state)
{
	(void)state;
	assert_int_equal(
		parse("{\"encoding_format\":\"base64\",\"input\":\"hello\",\"model\":\"m\","
		      "\"user\":\"u\"}"),
		0);
	assert_int_equal(query.encoding, QUERY_BASE64);
	assert_key(0, HELLO);
	assert_buf(&query.params_json, "\"user\":\"u\",");
	assert_buf(&query.canonical_params, "{\"model\": \"m\"}");
}

static void parameters_matter(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"dimensions\":3,\"input\":\"hello\",\"model\":\"m\"}"), 0);
	assert_key(0, HELLO_3);
	assert_int_equal(query.dimensions, 3);
	assert_buf(&query.params_json, "\"dimensions\":3,");
	assert_buf(&query.canonical_params, "{\"dimensions\": 3, \"model\": \"m\"}");
}

static void elements_of_lists_have_the_keys_of_singles(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"input\":[\"hello\",\"x\",\"hello\"],\"model\":\"m\"}"), 0);
	assert_int_equal(query.n, 3);
	assert_false(query.single);
	assert_key(0, HELLO);
	assert_key(2, HELLO);
	assert_false(digest_equal(&query.elements[0].key, &query.elements[1].key));
	assert_true(span_equal_str(query.elements[1].json, "\"x\""));
	assert_int_equal(parse("{\"input\":[1,2],\"model\":\"m\"}"), 0);
	assert_int_equal(query.n, 1);
	assert_key(0, TOKENS);
	assert_int_equal(parse("{\"input\":[[ 1 , 2 ],[3]],\"model\":\"m\"}"), 0);
	assert_int_equal(query.n, 2);
	assert_key(0, TOKENS);
}

static void repeated_elements_are_linked(void **state)
{
	(void)state;
	assert_int_equal(
		parse("{\"input\":[\"a\",\"b\",\"a\",\"\\u0061\",\"b\",\"c\"],\"model\":\"m\"}"),
		0);
	static const uint32_t next[] = {2, 4, 3, 0, 0, 0};
	static const bool repeated[] = {false, false, true, true, true, false};
	for (size_t i = 0; i < 6; i++) {
		assert_int_equal(query.elements[i].next_same, next[i]);
		assert_int_equal(query.elements[i].repeated, repeated[i]);
	}
}

static void a_scope_makes_other_keys(void **state)
{
	(void)state;
	const char *body = "{\"input\":\"hello\",\"model\":\"m\"}";
	struct digest a = digest_of(SPAN_LITERAL("a")), b = digest_of(SPAN_LITERAL("b"));
	struct query of_a, of_b;
	assert_int_equal(query_parse(span_of(body), 10, &a, &of_a, &error), 0);
	assert_int_equal(query_parse(span_of(body), 10, &b, &of_b, &error), 0);
	assert_int_equal(parse(body), 0);
	assert_false(digest_equal(&of_a.elements[0].key, &of_b.elements[0].key));
	assert_false(digest_equal(&of_a.elements[0].key, &query.elements[0].key));
	assert_buf(&of_a.canonical_params, "{\"model\": \"m\"}");
	query_free(&of_a);
	query_free(&of_b);
}

/* Body, the parameter that the error names, a piece of its message. */
static const struct {
	const char *body, *param, *message;
} bad[] = {
	{"", NULL, "not valid JSON"},
	{"{", NULL, "not valid JSON"},
	{"{\"input\":\"a\",\"model\":\"m\"} x", NULL, "not valid JSON"},
	{"{\"input\":NaN,\"model\":\"m\"}", NULL, "not valid JSON"},
	{"{\"input\":\"a\",\"model\":\"m\",\"x\":1e400}", NULL, "out of range"},
	{"{\"input\":\"\xed\xa0\x80\",\"model\":\"m\"}", NULL, "UTF-8"},
	{"[]", NULL, "must be a JSON object"},
	{"\"input\"", NULL, "must be a JSON object"},
	{"{}", "model", "model"},
	{"{\"input\":\"a\"}", "model", "model"},
	{"{\"input\":\"a\",\"model\":\"\"}", "model", "model"},
	{"{\"input\":\"a\",\"model\":5}", "model", "string"},
	{"{\"input\":\"a\",\"model\":null}", "model", "string"},
	{"{\"model\":\"m\"}", "input", "input"},
	{"{\"model\":\"m\",\"input\":\"\"}", "input", "empty string"},
	{"{\"model\":\"m\",\"input\":[]}", "input", "empty array"},
	{"{\"model\":\"m\",\"input\":null}", "input", "must be a string"},
	{"{\"model\":\"m\",\"input\":5}", "input", "must be a string"},
	{"{\"model\":\"m\",\"input\":true}", "input", "must be a string"},
	{"{\"model\":\"m\",\"input\":{}}", "input", "must be a string"},
	{"{\"model\":\"m\",\"input\":[\"a\",\"\"]}", "input", "empty string"},
	{"{\"model\":\"m\",\"input\":[\"a\",1]}", "input", "must be a string"},
	{"{\"model\":\"m\",\"input\":[\"a\",[1]]}", "input", "must be a string"},
	{"{\"model\":\"m\",\"input\":[[1],\"a\"]}", "input", "must be a string"},
	{"{\"model\":\"m\",\"input\":[[1],[]]}", "input", "must be a string"},
	{"{\"model\":\"m\",\"input\":[null]}", "input", "must be a string"},
	{"{\"model\":\"m\",\"input\":[[[1]]]}", "input", "must be a string"},
	{"{\"model\":\"m\",\"input\":[1.5]}", "input", "token ids"},
	{"{\"model\":\"m\",\"input\":[1,-2]}", "input", "token ids"},
	{"{\"model\":\"m\",\"input\":[12345678901]}", "input", "token ids"},
	{"{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":\"hex\"}", "encoding_format",
		"base64"},
	{"{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":1}", "encoding_format", "base64"},
	{"{\"model\":\"m\",\"input\":\"a\",\"dimensions\":0}", "dimensions", "whole number"},
	{"{\"model\":\"m\",\"input\":\"a\",\"dimensions\":1.5}", "dimensions", "whole number"},
	{"{\"model\":\"m\",\"input\":\"a\",\"dimensions\":\"3\"}", "dimensions", "whole number"},
};

static void bad_requests_are_named(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		print_message("# case %zu\n", i);
		assert_int_equal(parse(bad[i].body), -1);
		assert_int_equal(error.status, 400);
		assert_non_null(strstr(error.message, bad[i].message));
		if (bad[i].param)
			assert_string_equal(error.param, bad[i].param);
		else
			assert_null(error.param);
	}
}

static void every_prefix_is_refused(void **state)
{
	(void)state;
	static const char body[] =
		"{\"dimensions\":3,\"input\":[\"h\\u00e9\",\"b\"],\"model\":\"m\"}";
	for (size_t n = 0; n < sizeof body - 1; n++) {
		query_free(&query);
		assert_int_equal(query_parse((struct span){body, n}, 10, NULL, &query, &error), -1);
		assert_int_equal(error.status, 400);
	}
	assert_int_equal(parse(body), 0);
}

static void too_many_inputs(void **state)
{
	(void)state;
	query_free(&query);
	assert_int_equal(
		query_parse(SPAN_LITERAL("{\"model\":\"m\",\"input\":[\"a\",\"b\",\"c\"]}"), 2,
			NULL, &query, &error),
		-1);
	assert_string_equal(error.message, "input has 3 elements; 2 are allowed.");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(a_single_text_has_pythons_key, teardown),
		cmocka_unit_test_teardown(spelling_does_not_matter, teardown),
		cmocka_unit_test_teardown(format_and_user_do_not_matter, teardown),
		cmocka_unit_test_teardown(parameters_matter, teardown),
		cmocka_unit_test_teardown(elements_of_lists_have_the_keys_of_singles, teardown),
		cmocka_unit_test_teardown(repeated_elements_are_linked, teardown),
		cmocka_unit_test_teardown(a_scope_makes_other_keys, teardown),
		cmocka_unit_test_teardown(bad_requests_are_named, teardown),
		cmocka_unit_test_teardown(every_prefix_is_refused, teardown),
		cmocka_unit_test_teardown(too_many_inputs, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
