#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "common/digest.h"

#define EMPTY_SUM "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC_SUM   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static void assert_digest(struct digest digest, const char *expected)
{
	char text[DIGEST_HEX + 1];
	digest_hex(&digest, text);
	assert_string_equal(text, expected);
}

/* The examples of FIPS 180-4's validation suite, and the empty message. */
static void test_known_sums(void **state)
{
	(void)state;
	assert_digest(digest_of((struct span){NULL, 0}), EMPTY_SUM);
	assert_digest(digest_of(SPAN_LITERAL("abc")), ABC_SUM);
	assert_digest(
		digest_of(SPAN_LITERAL("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
		"248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void test_pieces_make_the_same_sum(void **state)
{
	(void)state;
	char data[300];
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (char)(i * 7);
	struct digest_state *sum = digest_new();
	assert_non_null(sum);
	for (size_t cut = 0; cut <= sizeof data; cut++) {
		digest_update(sum, (struct span){data, cut});
		digest_update(sum, (struct span){data + cut, sizeof data - cut});
		struct digest in_pieces = digest_final(sum);
		struct digest whole = digest_of((struct span){data, sizeof data});
		assert_true(digest_equal(&in_pieces, &whole));
	}
	/* After digest_final() it starts from empty. */
	assert_digest(digest_final(sum), EMPTY_SUM);
	digest_free(&sum);
	assert_null(sum);
	digest_free(&sum);
}

static void test_copy_goes_on_from_a_prefix(void **state)
{
	(void)state;
	struct digest_state *prefix = digest_new();
	struct digest_state *sum = digest_new();
	digest_update(prefix, SPAN_LITERAL("ab"));
	for (int i = 0; i < 3; i++) {
		digest_update(sum, SPAN_LITERAL("to be thrown away"));
		digest_copy(sum, prefix);
		digest_update(sum, SPAN_LITERAL("c"));
		assert_digest(digest_final(sum), ABC_SUM);
	}
	digest_update(prefix, SPAN_LITERAL("c"));
	assert_digest(digest_final(prefix), ABC_SUM);
	digest_free(&prefix);
	digest_free(&sum);
}

static void test_hex_both_cases(void **state)
{
	(void)state;
	struct digest lower, upper;
	char text[DIGEST_HEX + 1] = ABC_SUM;
	assert_int_equal(digest_parse_hex(span_of(text), &lower), 0);
	assert_digest(lower, ABC_SUM);
	for (char *c = text; *c; c++)
		*c = *c >= 'a' ? (char)(*c - 'a' + 'A') : *c;
	assert_int_equal(digest_parse_hex(span_of(text), &upper), 0);
	assert_true(digest_equal(&lower, &upper));
	assert_true(digest_equal_secret(&lower, &upper));
}

static void test_hex_refuses_what_is_not_hex(void **state)
{
	(void)state;
	struct digest digest = {{1, 2, 3}}, before = digest;
	char text[DIGEST_HEX + 2] = ABC_SUM "0";
	for (size_t len = 0; len <= DIGEST_HEX + 1; len++) {
		if (len != DIGEST_HEX)
			assert_int_equal(digest_parse_hex((struct span){text, len}, &digest), -1);
	}
	static const char bad[] = {'g', 'G', '/', ':', '@', '`', ' ', '\0', '-', (char)0xff};
	for (size_t at = 0; at < DIGEST_HEX; at++) {
		char keep = text[at];
		for (size_t i = 0; i < sizeof bad; i++) {
			text[at] = bad[i];
			assert_int_equal(
				digest_parse_hex((struct span){text, DIGEST_HEX}, &digest), -1);
		}
		text[at] = keep;
	}
	assert_true(digest_equal(&digest, &before));
}

static void test_equal_sees_every_bit(void **state)
{
	(void)state;
	struct digest a = digest_of(SPAN_LITERAL("abc"));
	for (size_t bit = 0; bit < DIGEST_BYTES * 8; bit++) {
		struct digest b = a;
		b.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_false(digest_equal(&a, &b));
		assert_false(digest_equal_secret(&a, &b));
	}
}

static void test_random_fills_everything(void **state)
{
	(void)state;
	uint8_t data[70], ever_set[70] = {0};
	memset(data, 0, sizeof data);
	for (int i = 0; i < 16; i++) {
		digest_random(data + 1, sizeof data - 2);
		for (size_t at = 0; at < sizeof data; at++)
			ever_set[at] |= data[at];
	}
	assert_int_equal(ever_set[0], 0);
	assert_int_equal(ever_set[sizeof data - 1], 0);
	for (size_t at = 1; at < sizeof data - 1; at++)
		assert_int_not_equal(ever_set[at], 0);
}

#define THREADS 4

static void *sums_on_a_thread(void *arg)
{
	unsigned *wrong = arg;
	char text[DIGEST_HEX + 1];
	for (int i = 0; i < 500; i++) {
		struct digest digest = digest_of(SPAN_LITERAL("abc"));
		digest_hex(&digest, text);
		*wrong += strcmp(text, ABC_SUM) != 0;
	}
	return NULL;
}

static void test_threads_do_not_disturb_each_other(void **state)
{
	(void)state;
	pthread_t threads[THREADS];
	unsigned wrong[THREADS] = {0};
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, sums_on_a_thread, &wrong[i]), 0);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(wrong[i], 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_sums),
		cmocka_unit_test(test_pieces_make_the_same_sum),
		cmocka_unit_test(test_copy_goes_on_from_a_prefix),
		cmocka_unit_test(test_hex_both_cases),
		cmocka_unit_test(test_hex_refuses_what_is_not_hex),
		cmocka_unit_test(test_equal_sees_every_bit),
		cmocka_unit_test(test_random_fills_everything),
		cmocka_unit_test(test_threads_do_not_disturb_each_other),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
