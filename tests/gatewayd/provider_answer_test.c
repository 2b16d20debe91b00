#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gatewayd/provider_answer.h"

static struct provider_answer answer;

static int parse(const char *body, size_t n_inputs)
{
	provider_answer_free(&answer);
	return provider_answer_parse(span_of(body), n_inputs, &answer);
}

static int teardown(void **state)
{
	(void)state;
	provider_answer_free(&answer);
	return 0;
}

static void assert_text(size_t index, enum vector_source source, const char *text)
{
	const struct embedding *embedding = &answer.embeddings[index];
	assert_int_equal(embedding->source, source);
	assert_int_equal(embedding->text.len, strlen(text));
	assert_memory_equal(embedding->text.data, text, strlen(text));
}

/* [1, 0.5] as little-endian float32: 00 00 80 3f 00 00 00 3f. */
#define ONE_HALF "AACAPwAAAD8="

static void numbers_that_are_float32_become_base64(void **state)
{
	(void)state;
	assert_int_equal(
		parse("{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,"
		      "\"embedding\":[1, 0.5]}],\"model\":\"m-2\",\"usage\":{"
		      "\"prompt_tokens\":7,\"total_tokens\":8}}",
			1),
		0);
	assert_text(0, VECTOR_BASE64, ONE_HALF);
	assert_int_equal(answer.embeddings[0].dims, 2);
	assert_int_equal(answer.total_tokens, 8);
	assert_int_equal(answer.model.len, 3);
	assert_memory_equal(answer.model.data, "m-2", 3);
}

static void other_numbers_stay_as_they_are(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"data\":[{\"index\":0,\"embedding\":[0.1, 2]}]}", 1), 0);
	assert_text(0, VECTOR_TEXT, "[0.1, 2]");
	assert_int_equal(answer.total_tokens, 0);
	assert_int_equal(answer.model.len, 0);
}

static void base64_is_taken_and_put_in_order(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"data\":[{\"embedding\":\"AACAPw==\",\"index\":1},{\"index\":0,"
			       "\"embedding\":\"AAAAPw==\"}]}",
				 2),
		0);
	assert_text(0, VECTOR_BASE64, "AAAAPw==");
	assert_text(1, VECTOR_BASE64, "AACAPw==");
	/* A slash may be escaped. */
	assert_int_equal(parse("{\"data\":[{\"index\":0,\"embedding\":\"AAA\\/Pw==\"}]}", 1), 0);
	assert_text(0, VECTOR_BASE64, "AAA/Pw==");
}

static void without_index_the_place_counts(void **state)
{
	(void)state;
	assert_int_equal(parse("{\"data\":[{\"embedding\":[1]},{\"embedding\":[2]}]}", 2), 0);
	assert_text(0, VECTOR_BASE64, "AACAPw==");
	assert_text(1, VECTOR_BASE64, "AAAAQA==");
}

static const struct {
	const char *body;
	size_t n;
	const char *reason;
} broken[] = {
	{"", 1, "not valid JSON"},
	{"<html>", 1, "not valid JSON"},
	{"{\"data\":[{\"index\":0,\"embedding\":[NaN]}]}", 1, "not valid JSON"},
	{"{\"data\":[{\"index\":0,\"embedding\":[1e999]}]}", 1, "not valid JSON"},
	{"[]", 1, "not a JSON object"},
	{"{}", 1, "no list"},
	{"{\"data\":{}}", 1, "no list"},
	{"{\"data\":[]}", 1, "wrong number"},
	{"{\"data\":[{\"index\":0,\"embedding\":[1]}]}", 2, "wrong number"},
	{"{\"data\":[{\"embedding\":[1]},{\"embedding\":[1]}]}", 1, "wrong number"},
	{"{\"data\":[{\"index\":1,\"embedding\":[1]}]}", 1, "out of range"},
	{"{\"data\":[{\"index\":-1,\"embedding\":[1]}]}", 1, "out of range"},
	{"{\"data\":[{\"index\":\"0\",\"embedding\":[1]}]}", 1, "not a number"},
	{"{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":0,\"embedding\":[1]}]}", 2,
		"twice"},
	{"{\"data\":[{\"index\":0}]}", 1, "missing"},
	{"{\"data\":[7]}", 1, "no list"},
	{"{\"data\":[{\"index\":0,\"embedding\":[]}]}", 1, "neither"},
	{"{\"data\":[{\"index\":0,\"embedding\":[\"1\"]}]}", 1, "neither"},
	{"{\"data\":[{\"index\":0,\"embedding\":null}]}", 1, "neither"},
	{"{\"data\":[{\"index\":0,\"embedding\":[1e39]}]}", 1, "finite"},
	{"{\"data\":[{\"index\":0,\"embedding\":\"\"}]}", 1, "base64"},
	{"{\"data\":[{\"index\":0,\"embedding\":\"AACAPw\"}]}", 1, "base64"},
	{"{\"data\":[{\"index\":0,\"embedding\":\"AAAA\"}]}", 1, "base64"},
	{"{\"data\":[{\"index\":0,\"embedding\":\"AADAfw==\"}]}", 1, "base64"}, /* NaN */
	{"{\"data\":[{\"embedding\":[1]},{\"embedding\":[1,2]}]}", 2, "different lengths"},
};

static void broken_answers_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
		print_message("# case %zu\n", i);
		assert_int_equal(parse(broken[i].body, broken[i].n), -1);
		assert_non_null(strstr(answer.reason, broken[i].reason));
	}
}

static void every_prefix_is_refused(void **state)
{
	(void)state;
	static const char body[] =
		"{\"data\":[{\"index\":0,\"embedding\":\"AACAPw==\"},{\"index\":1,"
		"\"embedding\":[1]}],\"usage\":{\"total_tokens\":3}}";
	for (size_t n = 0; n < sizeof body - 1; n++) {
		provider_answer_free(&answer);
		assert_int_equal(provider_answer_parse((struct span){body, n}, 2, &answer), -1);
	}
	assert_int_equal(parse(body, 2), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(numbers_that_are_float32_become_base64, teardown),
		cmocka_unit_test_teardown(other_numbers_stay_as_they_are, teardown),
		cmocka_unit_test_teardown(base64_is_taken_and_put_in_order, teardown),
		cmocka_unit_test_teardown(without_index_the_place_counts, teardown),
		cmocka_unit_test_teardown(broken_answers_are_refused, teardown),
		cmocka_unit_test_teardown(every_prefix_is_refused, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
