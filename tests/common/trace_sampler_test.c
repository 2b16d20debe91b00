#include "common/trace_sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static bool decide(enum trace_sampler_kind kind, double ratio, uint64_t low, const int *parent)
{
	struct trace trace = {.trace_id = {1}}, other = {.sampled = parent && *parent};
	for (int i = 0; i < 8; i++)
		trace.trace_id[15 - i] = (uint8_t)(low >> (8 * i));
	struct trace_sampler sampler = {.kind = kind, .ratio = ratio};
	return trace_sampler_decide(&sampler, &trace, parent ? &other : NULL);
}

static void test_parents(void **state)
{
	(void)state;
	static const struct {
		enum trace_sampler_kind kind;
		bool alone, below_sampled, below_unsampled;
	} cases[] = {
		{TRACE_SAMPLER_PARENT_ON, true, true, false},
		{TRACE_SAMPLER_PARENT_OFF, false, true, false},
		{TRACE_SAMPLER_ON, true, true, true},
		{TRACE_SAMPLER_OFF, false, false, false},
	};
	const int yes = 1, no = 0;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(decide(cases[i].kind, 0.5, 5, NULL), cases[i].alone);
		assert_int_equal(decide(cases[i].kind, 0.5, 5, &yes), cases[i].below_sampled);
		assert_int_equal(decide(cases[i].kind, 0.5, 5, &no), cases[i].below_unsampled);
	}
	assert_true(decide(TRACE_SAMPLER_PARENT_RATIO, 0, UINT64_MAX, &yes));
	assert_false(decide(TRACE_SAMPLER_PARENT_RATIO, 1, 0, &no));
	assert_true(decide(TRACE_SAMPLER_PARENT_RATIO, 0.5, 0, NULL));
	assert_false(decide(TRACE_SAMPLER_PARENT_RATIO, 0.5, UINT64_MAX, NULL));
}

/* The traces of a ratio are among those of a larger one, and as many as it says. */
static void test_ratio(void **state)
{
	(void)state;
	static const double ratios[] = {0, 0.001, 0.1, 0.25, 0.5, 0.9, 1};
	enum { N = 100000 };
	size_t n[7] = {0};
	uint64_t low = 88172645463325252u;
	for (int i = 0; i < N; i++) {
		bool before = false;
		low ^= low << 13, low ^= low >> 7, low ^= low << 17;
		for (size_t r = 0; r < 7; r++) {
			bool sampled = decide(TRACE_SAMPLER_RATIO, ratios[r], low, NULL);
			assert_true(sampled || !before);
			before = sampled;
			n[r] += sampled;
		}
	}
	for (size_t r = 0; r < 7; r++)
		assert_true(n[r] >= ratios[r] * N - 700 && n[r] <= ratios[r] * N + 700);
	assert_int_equal(n[0], 0);
	assert_int_equal(n[6], N);
	assert_true(decide(TRACE_SAMPLER_RATIO, 1, UINT64_MAX, NULL));
	assert_false(decide(TRACE_SAMPLER_RATIO, 0, 0, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parents), cmocka_unit_test(test_ratio)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
