#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/vector.h"

static uint64_t random_state = 42;

static uint32_t random_u32(void)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(random_state >> 32);
}

static struct span span_of_buf(const struct buf *b)
{
	return (struct span){(const char *)b->data, b->len};
}

/* The slow way, a bit at a time. */
static size_t plain_encode(const uint8_t *data, size_t len, char *out)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t n = 0;
	for (size_t bit = 0; bit < len * 8; bit += 6) {
		unsigned value = 0;
		for (size_t i = bit; i < bit + 6; i++)
			value = value << 1 |
				(i < len * 8 ? (unsigned)data[i / 8] >> (7 - i % 8) & 1 : 0);
		out[n++] = alphabet[value];
	}
	while (n % 4)
		out[n++] = '=';
	return n;
}

static void base64_of_the_rfc(void **state)
{
	(void)state;
	/* RFC 4648, section 10 */
	static const char *const rows[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="},
		{"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="},
		{"foobar", "Zm9vYmFy"}};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char text[16], back[16];
		size_t len;
		vector_base64_encode(rows[i][0], strlen(rows[i][0]), text);
		assert_memory_equal(text, rows[i][1], strlen(rows[i][1]));
		assert_int_equal(vector_base64_decode(span_of(rows[i][1]), back, &len), 0);
		assert_int_equal(len, strlen(rows[i][0]));
		assert_memory_equal(back, rows[i][0], len);
	}
}

static void base64_goes_both_ways_for_all_lengths(void **state)
{
	(void)state;
	for (size_t len = 0; len < 300; len++) {
		/* Exact sizes, so that a sanitizer sees every step too far. */
		uint8_t *data = malloc(len + 1), *back = malloc(VECTOR_BASE64_LEN(len) / 4 * 3 + 1);
		char *text = malloc(VECTOR_BASE64_LEN(len) + 1), expected[404];
		for (size_t i = 0; i < len; i++)
			data[i] = (uint8_t)random_u32();
		uint8_t *exact = malloc(len ? len : 1);
		memcpy(exact, data, len);
		text[VECTOR_BASE64_LEN(len)] = '#';
		vector_base64_encode(exact, len, text);
		assert_int_equal(text[VECTOR_BASE64_LEN(len)], '#');
		assert_int_equal(plain_encode(data, len, expected), VECTOR_BASE64_LEN(len));
		assert_memory_equal(text, expected, VECTOR_BASE64_LEN(len));
		size_t n;
		assert_int_equal(
			vector_base64_decode((struct span){text, VECTOR_BASE64_LEN(len)}, back, &n),
			0);
		assert_int_equal(n, len);
		assert_memory_equal(back, data, len);
		/* Cut anywhere but between groups it is not valid. */
		for (size_t cut = 0; cut < VECTOR_BASE64_LEN(len); cut++)
			assert_int_equal(
				vector_base64_decode((struct span){text, cut}, back, &n) == 0,
				cut % 4 == 0);
		free(data);
		free(exact);
		free(back);
		free(text);
	}
}

static void base64_is_strict(void **state)
{
	(void)state;
	static const char *const bad[] = {"A", "AA", "AAA", "A===", "====", "AA=A", "=AAA",
		"AAA==", "AA==AAAA", "AAA=AAAA", "AB==", "AAB=", "AA A", "AAA\n", "AA-_",
		"AAAA====", " AAA", "AA\377A"};
	char out[16];
	size_t len;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(vector_base64_decode(span_of(bad[i]), out, &len), -1);
	assert_int_equal(vector_base64_decode((struct span){"AA\0A", 4}, out, &len), -1);
	/* Every byte at every place of two groups. */
	for (size_t place = 0; place < 8; place++) {
		for (int c = 0; c < 256; c++) {
			char text[] = "AAAAAAAA";
			text[place] = (char)c;
			bool good = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
				    (c >= '0' && c <= '9') || c == '+' || c == '/' ||
				    (c == '=' && place == 7);
			assert_int_equal(
				vector_base64_decode((struct span){text, 8}, out, &len) == 0, good);
		}
	}
}

/* base64 of floats, by the slow way. */
static struct span text_of_floats(const float *values, size_t n, char **memory)
{
	*memory = malloc(VECTOR_BASE64_LEN(n * 4) + 1);
	return (struct span){
		*memory, plain_encode((const uint8_t *)values, n * sizeof(float), *memory)};
}

static float random_float(void)
{
	for (;;) {
		uint32_t bits = random_u32();
		float value;
		memcpy(&value, &bits, sizeof value);
		if (isfinite(value))
			return value;
	}
}

static void floats_of_every_size_survive(void **state)
{
	(void)state;
	static const uint32_t sizes[] = {1, 2, 3, 4, 5, 8, 127, 383, 384, 385, 386, 387, 767, 768,
		769, 1536, 3072, 4096, VECTOR_MAX_DIMS};
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		uint32_t n = sizes[i], dims;
		float *values = malloc(n * sizeof *values);
		char *memory;
		for (uint32_t k = 0; k < n; k++)
			values[k] = random_float();
		values[0] = -0.0f;
		values[n / 2] = FLT_MAX;
		values[n - 1] = 1e-45f;
		struct span base64 = text_of_floats(values, n, &memory);
		struct buf floats = BUF_INIT(n * sizeof(float)), text = BUF_INIT(4 << 20),
			   again = BUF_INIT(base64.len);
		assert_int_equal(vector_base64_len(n), base64.len);
		assert_int_equal(vector_read_base64(base64, NULL, &dims), 0);
		assert_int_equal(dims, n);
		assert_int_equal(vector_read_base64(base64, &floats, &dims), 0);
		assert_memory_equal(floats.data, values, n * sizeof(float));
		/* To text and back: the same bits. */
		assert_int_equal(vector_text_append(base64, &text), 0);
		assert_int_equal(vector_read_text(span_of_buf(&text), NULL, &dims), VECTOR_EXACT);
		assert_int_equal(dims, n);
		assert_int_equal(vector_base64_append(span_of_buf(&text), &again), 0);
		assert_int_equal(again.len, base64.len);
		assert_memory_equal(again.data, base64.data, base64.len);
		buf_clear(&again);
		assert_int_equal(vector_floats_append_base64(values, n, &again), 0);
		assert_memory_equal(again.data, base64.data, base64.len);
		buf_free(&floats);
		buf_free(&text);
		buf_free(&again);
		free(memory);
		free(values);
	}
}

static void number_text_is_what_openai_sends(void **state)
{
	(void)state;
	const float values[] = {0.1f, 1.0f, -0.0f, -0.0227f, 1e-7f, 1e20f};
	static const char expected[] =
		"[0.10000000149011612,1.0,-0.0,-0.022700000554323196,1.0000000116860974e-07,"
		"1.0000000200408773e+20]";
	char *memory;
	struct span base64 = text_of_floats(values, 6, &memory);
	struct buf text = BUF_INIT(1000);
	assert_int_equal(vector_text_append(base64, &text), 0);
	assert_int_equal(text.len, strlen(expected));
	assert_memory_equal(text.data, expected, strlen(expected));
	buf_free(&text);
	free(memory);
}

static void what_is_not_finite_is_refused_anywhere(void **state)
{
	(void)state;
	const float bad[] = {NAN, INFINITY, -INFINITY};
	static const uint32_t places[] = {0, 1, 383, 384, 499};
	for (size_t i = 0; i < 15; i++) {
		float values[500] = {0};
		uint32_t dims;
		char *memory;
		values[places[i % 5]] = bad[i / 5];
		struct span base64 = text_of_floats(values, 500, &memory);
		struct buf out = BUF_INIT(1 << 20);
		buf_append_str(&out, "before");
		assert_int_equal(vector_read_base64(base64, &out, &dims), -1);
		assert_int_equal(out.len, 6);
		assert_int_equal(vector_text_append(base64, &out), -1);
		assert_int_equal(out.len, 6);
		assert_int_equal(vector_floats_append_base64(values, 500, &out), -1);
		assert_int_equal(out.len, 6);
		assert_false(buf_failed(&out));
		buf_free(&out);
		free(memory);
	}
}

static void base64_that_is_no_vector_is_refused(void **state)
{
	(void)state;
	uint32_t dims;
	/* 0, 3, 1, 5 and 6 bytes. */
	static const char *const bad[] = {
		"", "AAAA", "AA==", "AAAAAAA=", "AAAAAAAA", "AAAAA===", "AAAAA=A="};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(vector_read_base64(span_of(bad[i]), NULL, &dims), -1);
	/* One number too many. */
	size_t len = VECTOR_BASE64_LEN((VECTOR_MAX_DIMS + 1) * sizeof(float));
	uint8_t *zeros = calloc(VECTOR_MAX_DIMS + 1, sizeof(float));
	char *text = malloc(len);
	vector_base64_encode(zeros, (VECTOR_MAX_DIMS + 1) * sizeof(float), text);
	assert_int_equal(vector_read_base64((struct span){text, len}, NULL, &dims), -1);
	/* Padding in the middle, where a run of 512 groups ends. */
	vector_base64_encode(zeros, 600 * sizeof(float), text);
	assert_int_equal(vector_read_base64((struct span){text, 3200}, NULL, &dims), 0);
	memcpy(text + 2044, "AA==", 4);
	assert_int_equal(vector_read_base64((struct span){text, 3200}, NULL, &dims), -1);
	memcpy(text + 2044, "AAA=", 4);
	assert_int_equal(vector_read_base64((struct span){text, 3200}, NULL, &dims), -1);
	free(zeros);
	free(text);
}

static void number_arrays_are_told_apart(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int exactness;
		uint32_t dims;
	} rows[] = {
		{"[0.5]", VECTOR_EXACT, 1},
		{"[1,2,3]", VECTOR_EXACT, 3},
		{" [1]", VECTOR_BAD, 0},
		{"[1] ", VECTOR_BAD, 0},
		{"[ 1 ,\t2\n,\r3 ]", VECTOR_EXACT, 3},
		{"[0.10000000149011612]", VECTOR_EXACT, 1},
		{"[0.1]", VECTOR_INEXACT, 1},
		{"[0.5,0.1,0.5]", VECTOR_INEXACT, 3},
		{"[16777217]", VECTOR_INEXACT, 1},
		{"[16777216,-0,-0.0,0e5]", VECTOR_EXACT, 4},
		{"[1e-50]", VECTOR_INEXACT, 1},
		{"[3.4028234663852886e38]", VECTOR_EXACT, 1},
		{"[3.5e38]", VECTOR_BAD, 0},
		{"[1e400]", VECTOR_BAD, 0},
		{"[]", VECTOR_BAD, 0},
		{"[", VECTOR_BAD, 0},
		{"", VECTOR_BAD, 0},
		{"[1,]", VECTOR_BAD, 0},
		{"[,1]", VECTOR_BAD, 0},
		{"[1 2]", VECTOR_BAD, 0},
		{"[1],", VECTOR_BAD, 0},
		{"[01]", VECTOR_BAD, 0},
		{"[+1]", VECTOR_BAD, 0},
		{"[.5]", VECTOR_BAD, 0},
		{"[NaN]", VECTOR_BAD, 0},
		{"[Infinity]", VECTOR_BAD, 0},
		{"[null]", VECTOR_BAD, 0},
		{"[\"1\"]", VECTOR_BAD, 0},
		{"[[1]]", VECTOR_BAD, 0},
		{"[0x1]", VECTOR_BAD, 0},
		{"{1}", VECTOR_BAD, 0},
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		uint32_t dims;
		size_t len = strlen(rows[i].text);
		char *exact = malloc(len ? len : 1);
		memcpy(exact, rows[i].text, len);
		struct buf floats = BUF_INIT(100), base64 = BUF_INIT(100);
		struct span text = {exact, len};
		if (vector_read_text(text, &floats, &dims) != rows[i].exactness)
			fail_msg("%s", rows[i].text);
		assert_int_equal(dims, rows[i].dims);
		assert_int_equal(floats.len, rows[i].dims * sizeof(float));
		assert_int_equal(vector_base64_append(text, &base64),
			rows[i].exactness == VECTOR_BAD ? -1 : 0);
		assert_int_equal(base64.len, rows[i].dims ? vector_base64_len(rows[i].dims) : 0);
		buf_free(&floats);
		buf_free(&base64);
		free(exact);
	}
}

static void number_arrays_cut_anywhere_are_refused(void **state)
{
	(void)state;
	static const char text[] = "[ 0.25, -1e-3 ,12.5E+2, 7]";
	uint32_t dims;
	for (size_t cut = 0; cut < sizeof text - 1; cut++) {
		char *exact = malloc(cut ? cut : 1);
		memcpy(exact, text, cut);
		assert_int_equal(
			vector_read_text((struct span){exact, cut}, NULL, &dims), VECTOR_BAD);
		free(exact);
	}
	assert_int_equal(vector_read_text(span_of(text), NULL, &dims), VECTOR_INEXACT);
	assert_int_equal(dims, 4);
}

static void number_arrays_are_bounded(void **state)
{
	(void)state;
	uint32_t dims;
	struct buf text = BUF_INIT(8 << 20);
	buf_append_char(&text, '[');
	for (unsigned i = 0; i < VECTOR_MAX_DIMS; i++)
		buf_append_str(&text, i ? ",1" : "1");
	buf_append_char(&text, ']');
	assert_int_equal(vector_read_text(span_of_buf(&text), NULL, &dims), VECTOR_EXACT);
	assert_int_equal(dims, VECTOR_MAX_DIMS);
	text.len--;
	buf_append_str(&text, ",1]");
	assert_int_equal(vector_read_text(span_of_buf(&text), NULL, &dims), VECTOR_BAD);
	buf_clear(&text);
	buf_append_str(&text, "[1");
	while (text.len < VECTOR_MAX_TEXT_BYTES - 1)
		buf_append_char(&text, ' ');
	buf_append_char(&text, ']');
	assert_int_equal(vector_read_text(span_of_buf(&text), NULL, &dims), VECTOR_EXACT);
	text.len--;
	buf_append_str(&text, " ]");
	assert_int_equal(vector_read_text(span_of_buf(&text), NULL, &dims), VECTOR_BAD);
	buf_free(&text);
}

static void text_that_is_no_float32_is_rounded_for_base64(void **state)
{
	(void)state;
	const float expected[] = {0.1f, 16777216.0f, 0.0f};
	struct buf base64 = BUF_INIT(100), floats = BUF_INIT(100);
	uint32_t dims;
	assert_int_equal(vector_base64_append(span_of("[0.1,16777217,1e-60]"), &base64), 0);
	assert_int_equal(vector_read_base64(span_of_buf(&base64), &floats, &dims), 0);
	assert_int_equal(dims, 3);
	assert_memory_equal(floats.data, expected, sizeof expected);
	buf_free(&base64);
	buf_free(&floats);
}

static void a_full_buffer_fails_and_keeps_its_content(void **state)
{
	(void)state;
	float values[1000];
	char *memory;
	uint32_t dims;
	for (size_t i = 0; i < 1000; i++)
		values[i] = random_float();
	struct span base64 = text_of_floats(values, 1000, &memory);
	struct buf text = BUF_INIT(1 << 20);
	assert_int_equal(vector_text_append(base64, &text), 0);
	for (size_t max = 4; max < text.len; max += 97) {
		struct buf out = BUF_INIT(max);
		buf_append_str(&out, "kept");
		assert_int_equal(vector_text_append(base64, &out), -1);
		assert_true(buf_failed(&out));
		assert_int_equal(out.len, 4);
		buf_free(&out);
	}
	for (size_t max = 4; max < base64.len; max += 97) {
		struct buf out = BUF_INIT(max);
		buf_append_str(&out, "kept");
		assert_int_equal(vector_base64_append(span_of_buf(&text), &out), -1);
		assert_int_equal(out.len, 4);
		buf_clear(&out);
		buf_append_str(&out, "kept");
		assert_int_equal(vector_floats_append_base64(values, 1000, &out), -1);
		assert_int_equal(out.len, 4);
		buf_free(&out);
	}
	for (size_t max = 4; max < sizeof values; max += 97) {
		struct buf out = BUF_INIT(max);
		assert_int_equal(vector_read_base64(base64, &out, &dims), -1);
		assert_true(buf_failed(&out));
		buf_clear(&out);
		assert_int_equal(vector_read_text(span_of_buf(&text), &out, &dims), VECTOR_BAD);
		assert_true(buf_failed(&out));
		buf_free(&out);
	}
	buf_free(&text);
	free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(base64_of_the_rfc),
		cmocka_unit_test(base64_goes_both_ways_for_all_lengths),
		cmocka_unit_test(base64_is_strict),
		cmocka_unit_test(floats_of_every_size_survive),
		cmocka_unit_test(number_text_is_what_openai_sends),
		cmocka_unit_test(what_is_not_finite_is_refused_anywhere),
		cmocka_unit_test(base64_that_is_no_vector_is_refused),
		cmocka_unit_test(number_arrays_are_told_apart),
		cmocka_unit_test(number_arrays_cut_anywhere_are_refused),
		cmocka_unit_test(number_arrays_are_bounded),
		cmocka_unit_test(text_that_is_no_float32_is_rounded_for_base64),
		cmocka_unit_test(a_full_buffer_fails_and_keeps_its_content),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
