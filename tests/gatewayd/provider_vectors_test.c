#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gatewayd/provider_answer.h"

/* Of this many numbers the base64 is long enough to be taken out; of SHORT not. */
#define LONG  300
#define SHORT 20

/* A string of base64, in quotes. */
static void add_vector(struct buf *out, uint32_t dims, unsigned seed)
{
	float *values = calloc(dims, sizeof *values);
	assert_non_null(values);
	for (uint32_t i = 0; i < dims; i++)
		values[i] = (float)(seed * 1000 + i) / 7;
	buf_append_char(out, '"');
	assert_int_equal(vector_floats_append_base64(values, dims, out), 0);
	buf_append_char(out, '"');
	free(values);
}

static void add_item(struct buf *out, int index, uint32_t dims)
{
	buf_printf(out, "{\"object\":\"embedding\",\"index\":%d,\"embedding\":", index);
	add_vector(out, dims, (unsigned)index);
	buf_append_char(out, '}');
}

/* An array of numbers that float32 says exactly, with as many digits as that takes, and spaces. */
static void add_numbers(struct buf *out, uint32_t dims, unsigned seed)
{
	for (uint32_t i = 0; i < dims; i++)
		buf_printf(out, "%s%.17g", i ? ", " : "[ ",
			(double)((float)(seed * 1000 + i) / 7 - 99));
	buf_append_str(out, "\n]");
}

static void add_number_item(struct buf *out, int index, uint32_t dims)
{
	buf_printf(out, "{\"embedding\":");
	add_numbers(out, dims, (unsigned)index);
	buf_printf(out, ",\"index\":%d}", index);
}

/* OpenAI's answers, or Ollama's. */
struct how {
	int (*parse)(struct span body, size_t n_inputs, struct provider_answer *answer);
	int (*take)(struct buf *body, struct provider_vectors *vectors, size_t n_inputs,
		struct provider_answer *answer);
};
static const struct how openai = {provider_answer_parse, provider_answer_take};
static const struct how ollama = {provider_answer_parse_ollama, provider_answer_take_ollama};

/* As it would come in pieces of this size; *most: what the body was at most. */
static int arrive(const struct buf *whole, size_t piece, size_t n_inputs, const struct how *how,
	struct provider_answer *answer, size_t *most)
{
	struct provider_vectors vectors;
	struct buf body = BUF_INIT(whole->len);
	provider_vectors_init(&vectors, n_inputs);
	*most = 0;
	for (size_t at = 0; at < whole->len; at += piece) {
		size_t len = whole->len - at < piece ? whole->len - at : piece;
		assert_int_equal(buf_append(&body, whole->data + at, len), 0);
		provider_vectors_read(&vectors, &body);
		*most = body.len > *most ? body.len : *most;
	}
	int rc = how->take(&body, &vectors, n_inputs, answer);
	assert_null(vectors.list);
	return rc;
}

/* Whatever the cuts, the answer is the one that the whole body says. */
static void assert_same_of(const struct how *how, const struct buf *whole, size_t n_inputs)
{
	struct provider_answer expected, answer;
	struct span body = {(char *)whole->data, whole->len};
	int rc = how->parse(body, n_inputs, &expected);
	for (size_t piece = 1; piece <= whole->len; piece += piece < 70 ? 1 : piece / 2) {
		size_t most;
		assert_int_equal(arrive(whole, piece, n_inputs, how, &answer, &most), rc);
		if (rc < 0)
			assert_string_equal(answer.reason, expected.reason);
		for (size_t i = 0; rc == 0 && i < n_inputs; i++) {
			struct buf scratch = BUF_INIT(1 << 20);
			struct span text;
			assert_int_equal(embedding_text(&answer.embeddings[i], &scratch, &text), 0);
			assert_int_equal(answer.embeddings[i].dims, expected.embeddings[i].dims);
			assert_int_equal(
				answer.embeddings[i].source, expected.embeddings[i].source);
			assert_int_equal(text.len, expected.embeddings[i].text.len);
			assert_memory_equal(text.data, expected.embeddings[i].text.data, text.len);
			buf_free(&scratch);
		}
		provider_answer_free(&answer);
	}
	provider_answer_free(&expected);
}

static void assert_same(const struct buf *whole, size_t n_inputs)
{
	assert_same_of(&openai, whole, n_inputs);
}

static void vectors_are_the_same_however_they_come(void **state)
{
	(void)state;
	struct buf whole = BUF_INIT(1 << 20);
	buf_append_str(&whole, "{\"object\":\"list\",\"data\":[");
	add_item(&whole, 1, LONG);
	buf_append_char(&whole, ',');
	add_item(&whole, 0, LONG);
	buf_append_str(&whole, "],\"model\":\"a \\\"quoted\\\\\",\"usage\":{\"total_tokens\":8}}");
	assert_same(&whole, 2);
	buf_free(&whole);
}

static void short_ones_and_numbers_too(void **state)
{
	(void)state;
	struct buf whole = BUF_INIT(1 << 20);
	buf_append_str(&whole, "{\"data\":[");
	add_item(&whole, 0, SHORT);
	buf_append_str(&whole, ",{\"embedding\":[1");
	for (int i = 1; i < SHORT; i++)
		buf_append_str(&whole, ", 0.5");
	buf_append_str(&whole, "]}]}");
	assert_same(&whole, 2);
	buf_free(&whole);
}

/* Vectors where none belong: as a key, in a field that is not read, more than there are inputs,
 * twice for an index; and bodies that end too soon. */
static void what_is_not_expected_is_treated_alike(void **state)
{
	(void)state;
	for (int kind = 0; kind < 6; kind++) {
		struct buf whole = BUF_INIT(1 << 20);
		buf_append_char(&whole, '{');
		if (kind < 3) {
			add_vector(&whole, LONG, 7);
			buf_append_char(&whole, ':');
			add_vector(&whole, LONG, 8);
			buf_append_char(&whole, ',');
		}
		buf_append_str(&whole, "\"data\":[");
		add_item(&whole, 0, LONG);
		buf_append_char(&whole, ',');
		add_item(&whole, kind == 3 ? 0 : 1, kind == 4 ? LONG + 3 : LONG);
		if (kind == 1)
			buf_append_str(&whole, ",\"\"");
		if (kind != 5)
			buf_append_str(&whole, "]}");
		assert_same(&whole, 2);
		buf_free(&whole);
	}
}

/* A letter that is no base64, an escape, infinity: the string is left to the parser. */
static void bad_ones_are_refused(void **state)
{
	(void)state;
	static const char *const instead[] = {"*", "\\u0041", "\\/", "\\\"", "\\\\", "\n", "="};
	for (size_t i = 0; i < sizeof instead / sizeof *instead; i++) {
		struct buf item = BUF_INIT(1 << 20), whole = BUF_INIT(1 << 20);
		add_item(&item, 0, LONG);
		buf_append_str(&whole, "{\"data\":[");
		buf_append(&whole, item.data, 400);
		buf_append_str(&whole, instead[i]);
		buf_append(&whole, item.data + 401, item.len - 401);
		buf_append_str(&whole, "]}");
		assert_same(&whole, 1);
		buf_free(&item);
		buf_free(&whole);
	}
	struct buf whole = BUF_INIT(1 << 20);
	buf_append_str(&whole, "{\"data\":[{\"embedding\":\"");
	for (int i = 0; i < LONG; i++)
		buf_append_str(&whole, "AACAfwAAgH8AAIB/"); /* infinity, three times */
	buf_append_str(&whole, "\"}]}");
	assert_same(&whole, 1);
	buf_free(&whole);
}

static void numbers_are_the_same_however_they_come(void **state)
{
	(void)state;
	struct buf whole = BUF_INIT(1 << 20);
	buf_append_str(&whole, "{\"object\":\"list\",\"data\": [ ");
	add_number_item(&whole, 1, LONG);
	buf_append_char(&whole, ',');
	add_item(&whole, 0, LONG);
	buf_append_char(&whole, ',');
	add_number_item(&whole, 2, LONG);
	buf_append_str(&whole, "],\"usage\":{\"total_tokens\":8}}");
	assert_same(&whole, 3);
	buf_free(&whole);
	buf_append_str(&whole, "{\"embeddings\":[");
	add_numbers(&whole, LONG, 1);
	buf_append_char(&whole, ',');
	add_numbers(&whole, LONG, 2);
	buf_append_str(&whole, "],\"prompt_eval_count\":7}");
	assert_same_of(&ollama, &whole, 2);
	buf_free(&whole);
}

/* Something else between numbers, a number that float32 would change or that is none, arrays in
 * arrays: all is left to the parser, or treated as it would. */
static void odd_arrays_are_treated_alike(void **state)
{
	(void)state;
	static const char *const between[] = {"0.1", "1e39", "1e999", "-0.0", "01", "+1", "null",
		"\"1, 2\"", "\"]\"", "[1]", "[]", "{\"a\":[1,2]}", "1,", "1]", "]", "[", "\"",
		"\\"};
	for (size_t i = 0; i < sizeof between / sizeof *between; i++) {
		struct buf whole = BUF_INIT(1 << 20);
		buf_append_str(&whole, "{\"data\":[{\"embedding\":");
		add_numbers(&whole, LONG, 1);
		whole.len -= 2; /* "\n]" */
		buf_printf(&whole, ",%s", between[i]);
		for (int n = 0; n < LONG; n++)
			buf_append_str(&whole, ",0.5");
		buf_append_str(&whole, "]}]}");
		assert_same(&whole, 1);
		buf_free(&whole);
	}
}

/* The whole answer, one array too deep, for an index. */
static void numbers_where_none_belong(void **state)
{
	(void)state;
	static const char *const before[] = {
		"", "{\"data\":[{\"embedding\":[[", "{\"data\":[{\"index\":"};
	static const char *const behind[] = {"", "]]}]}", ",\"embedding\":[1]}]}"};
	for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
		struct buf whole = BUF_INIT(1 << 20);
		buf_append_str(&whole, before[i]);
		add_numbers(&whole, LONG, 1);
		buf_append_str(&whole, behind[i]);
		assert_same_of(&openai, &whole, 1);
		assert_same_of(&ollama, &whole, 1);
		buf_free(&whole);
	}
	/* Base64 is not what Ollama sends. */
	struct buf whole = BUF_INIT(1 << 20);
	buf_append_str(&whole, "{\"embeddings\":[");
	add_vector(&whole, LONG, 1);
	buf_append_str(&whole, "]}");
	assert_same_of(&ollama, &whole, 1);
	buf_free(&whole);
}

static void assert_body_stays_small(
	void (*add)(struct buf *out, int index, uint32_t dims), size_t least)
{
	struct buf whole = BUF_INIT(32 << 20);
	struct provider_answer answer;
	size_t most;
	buf_append_str(&whole, "{\"data\":[");
	for (int i = 0; i < 200; i++) {
		if (i)
			buf_append_char(&whole, ',');
		add(&whole, i, 3072);
	}
	buf_append_str(&whole, "]}");
	assert_true(whole.len > least);
	assert_int_equal(arrive(&whole, 16384, 200, &openai, &answer, &most), 0);
	assert_true(most < 128 << 10);
	provider_answer_free(&answer);
	buf_free(&whole);
}

static void the_body_stays_small(void **state)
{
	(void)state;
	assert_body_stays_small(add_item, 3 << 20);
	assert_body_stays_small(add_number_item, 9 << 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vectors_are_the_same_however_they_come),
		cmocka_unit_test(short_ones_and_numbers_too),
		cmocka_unit_test(what_is_not_expected_is_treated_alike),
		cmocka_unit_test(bad_ones_are_refused),
		cmocka_unit_test(numbers_are_the_same_however_they_come),
		cmocka_unit_test(odd_arrays_are_treated_alike),
		cmocka_unit_test(numbers_where_none_belong),
		cmocka_unit_test(the_body_stays_small),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
