#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gatewayd/usage.h"

static void shares_are_proportional(void **state)
{
	(void)state;
	const uint32_t weights[] = {10, 30, 60};
	uint64_t shares[3];
	assert_int_equal(usage_share(103, weights, 3, shares), 0);
	assert_int_equal(shares[0], 11); /* one each, then 10, 30, 60 of 100 */
	assert_int_equal(shares[1], 31);
	assert_int_equal(shares[2], 61);
}

static void ties_go_to_the_first(void **state)
{
	(void)state;
	const uint32_t weights[] = {1, 1, 1};
	uint64_t shares[3];
	assert_int_equal(usage_share(5, weights, 3, shares), 0);
	assert_int_equal(shares[0], 2);
	assert_int_equal(shares[1], 2);
	assert_int_equal(shares[2], 1);
}

static void fewer_tokens_than_inputs(void **state)
{
	(void)state;
	const uint32_t weights[] = {1, 9, 1};
	uint64_t shares[3];
	assert_int_equal(usage_share(1, weights, 3, shares), 0);
	assert_int_equal(shares[0] + shares[1] + shares[2], 1);
	assert_int_equal(shares[1], 1);
	assert_int_equal(usage_share(0, weights, 3, shares), 0);
	assert_int_equal(shares[0] + shares[1] + shares[2], 0);
}

static void every_sum_is_exact(void **state)
{
	(void)state;
	unsigned seed = 1;
	for (int round = 0; round < 2000; round++) {
		uint32_t weights[64];
		uint64_t shares[64];
		size_t n = (size_t)(rand_r(&seed) % 64) + 1;
		uint64_t total = (uint64_t)rand_r(&seed) * (uint64_t)(round % 3 ? 1 : 1000003);
		for (size_t i = 0; i < n; i++)
			weights[i] = (uint32_t)rand_r(&seed) + 1;
		assert_int_equal(usage_share(total, weights, n, shares), 0);
		uint64_t sum = 0;
		for (size_t i = 0; i < n; i++) {
			assert_true(total < n || shares[i] >= 1);
			sum += shares[i];
		}
		assert_true(sum == total);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares_are_proportional),
		cmocka_unit_test(ties_go_to_the_first),
		cmocka_unit_test(fewer_tokens_than_inputs),
		cmocka_unit_test(every_sum_is_exact),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
