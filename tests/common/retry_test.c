#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "common/retry.h"

static void test_backoff_stays_under_its_ceiling(void **state)
{
	(void)state;
	for (int run = 0; run < 200; run++) {
		struct backoff b;
		backoff_init(&b, 100, 1000, 2);
		static const uint32_t ceilings[] = {100, 200, 400, 800, 1000, 1000, 1000};
		for (size_t i = 0; i < sizeof ceilings / sizeof ceilings[0]; i++)
			assert_in_range(backoff_next_ms(&b), 0, ceilings[i]);
		assert_int_equal(b.attempt, 7);
		backoff_reset(&b);
		assert_in_range(backoff_next_ms(&b), 0, 100);
	}
}

/* Full jitter: the whole range is used, evenly. */
static void test_backoff_is_spread_evenly(void **state)
{
	(void)state;
	struct backoff b;
	unsigned tenths[10] = {0};
	for (int i = 0; i < 10000; i++) {
		backoff_init(&b, 999, 100000, 2);
		uint32_t ms = backoff_next_ms(&b);
		assert_in_range(ms, 0, 999);
		tenths[ms / 100]++;
	}
	for (int i = 0; i < 10; i++)
		assert_in_range(tenths[i], 800, 1200);
}

static void test_backoff_of_odd_settings(void **state)
{
	(void)state;
	static const struct {
		uint32_t base_ms, max_ms;
		double factor;
		uint32_t most;
	} cases[] = {
		{0, 1000, 2, 1000},
		{1000, 0, 2, 0},
		{5000, 1000, 2, 1000},
		{100, UINT32_MAX, 1e300, UINT32_MAX},
		{100, 1000, 0.5, 100},
		{100, 1000, 1, 100},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct backoff b;
		backoff_init(&b, cases[i].base_ms, cases[i].max_ms, cases[i].factor);
		b.attempt = 3;
		for (int n = 0; n < 3000; n++)
			assert_in_range(backoff_next_ms(&b), 0, cases[i].most);
	}
}

/* 1994-11-06 08:49:37 UTC */
#define NOV_1994_MS UINT64_C(784111777000)
#define DAY_MS      86400000
#define MAX_MS      (400LL * 366 * DAY_MS)

static void test_retry_after_seconds(void **state)
{
	(void)state;
	static const struct {
		const char *value;
		int64_t ms;
	} cases[] = {
		{"0", 0},
		{"1", 1000},
		{"120", 120000},
		{"007", 7000},
		{" 5\t", 5000},
		{"3600", 3600000},
		{"3601", 3600000},
		{"99999999999999999999999999999999", 3600000},
		{"18446744073709551616", 3600000},
		{"", -1},
		{" ", -1},
		{"-1", -1},
		{"+1", -1},
		{"1.5", -1},
		{"1s", -1},
		{"1 2", -1},
		{"0x10", -1},
		{"soon", -1},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_int_equal(
			retry_after_parse_ms(cases[i].value, NOV_1994_MS, 3600000), cases[i].ms);
	assert_int_equal(retry_after_parse_ms(NULL, NOV_1994_MS, 1000), -1);
	assert_int_equal(retry_after_parse_ms("2", NOV_1994_MS, 1500), 1500);
	assert_int_equal(retry_after_parse_ms("1", NOV_1994_MS, 1500), 1000);
}

static void test_retry_after_dates(void **state)
{
	(void)state;
	static const struct {
		const char *value;
		int64_t ms;
	} cases[] = {
		{"Sun, 06 Nov 1994 08:49:37 GMT", 0},
		{"Sunday, 06-Nov-94 08:49:37 GMT", 0},
		{"Sun Nov  6 08:49:37 1994", 0},
		{"Sun, 06 Nov 1994 08:49:47 GMT", 10000},
		{"Sunday, 06-Nov-94 08:49:47 GMT", 10000},
		{"Sun Nov  6 08:49:47 1994", 10000},
		{"Wed Nov 16 08:49:37 1994", 10LL * DAY_MS},
		{"Sat, 05 Nov 1994 08:49:37 GMT", 0},
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0},
		{"Sat, 31 Dec 1994 23:59:60 GMT",
			55LL * DAY_MS + (15 * 3600 + 10 * 60 + 23) * 1000},
		{"Thu, 29 Feb 1996 08:49:37 GMT", 480LL * DAY_MS},
		/* Two digits of year: at most 50 ahead. */
		{"Sunday, 06-Nov-44 08:49:37 GMT", 18263LL * DAY_MS},
		{"Sunday, 06-Nov-45 08:49:37 GMT", 0},
		{"Sunday, 06-Nov-00 08:49:37 GMT", 2192LL * DAY_MS},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_int_equal(
			retry_after_parse_ms(cases[i].value, NOV_1994_MS, MAX_MS), cases[i].ms);
	assert_int_equal(
		retry_after_parse_ms("Fri, 31 Dec 9999 23:59:59 GMT", NOV_1994_MS, 60000), 60000);
}

static void test_retry_after_refuses_other_dates(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"Sun, 6 Nov 1994 08:49:37 GMT",
		"Sun, 06 Nov 1994 08:49:37",
		"Sun, 06 Nov 1994 08:49:37 UTC",
		"Sun, 06 Nov 1994 08:49:37 GMT+1",
		"Sun, 06 Nov 1994 8:49:37 GMT",
		"Sun, 06 Nov 94 08:49:37 GMT",
		"sun, 06 Nov 1994 08:49:37 GMT",
		"Sun, 06 nov 1994 08:49:37 GMT",
		"Xyz, 06 Nov 1994 08:49:37 GMT",
		"Sun, 06 Nov 1994 24:00:00 GMT",
		"Sun, 06 Nov 1994 08:60:37 GMT",
		"Sun, 06 Nov 1994 08:49:61 GMT",
		"Sun, 00 Nov 1994 08:49:37 GMT",
		"Sun, 31 Nov 1994 08:49:37 GMT",
		"Wed, 29 Feb 1995 08:49:37 GMT",
		"Thu, 29 Feb 1900 08:49:37 GMT",
		"Sun, 06-Nov-94 08:49:37 GMT",
		"Sunday, 06-Nov-1994 08:49:37 GMT",
		"Sun Nov 6 08:49:37 1994",
		"Sun Nov  6 08:49:37 1994 GMT",
		"1994-11-06T08:49:37Z",
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(retry_after_parse_ms(bad[i], NOV_1994_MS, MAX_MS), -1);
	/* Cut at every byte. */
	static const char date[] = "Sun, 06 Nov 1994 08:49:37 GMT";
	for (size_t len = 0; len < sizeof date - 1; len++) {
		char cut[sizeof date] = {0};
		for (size_t i = 0; i < len; i++)
			cut[i] = date[i];
		assert_int_equal(retry_after_parse_ms(cut, NOV_1994_MS, MAX_MS), -1);
	}
}

#define S UINT64_C(1000000)

static void test_breaker_opens_after_failures_in_a_row(void **state)
{
	(void)state;
	struct breaker b;
	breaker_init(&b, 3, 1000);
	for (int i = 0; i < 10; i++) {
		breaker_failure(&b, S);
		breaker_failure(&b, S);
		breaker_neutral(&b);
		assert_true(breaker_allow(&b, S));
		breaker_success(&b);
	}
	breaker_failure(&b, S);
	breaker_failure(&b, S);
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_int_equal(breaker_wait_ms(&b, S), 0);
	breaker_failure(&b, S);
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_false(breaker_allow(&b, S));
	assert_int_equal(breaker_wait_ms(&b, S), 1000);
	assert_int_equal(breaker_wait_ms(&b, S + 1), 1000);
	assert_int_equal(breaker_wait_ms(&b, S + 1000), 999);
}

static struct breaker opened(void)
{
	struct breaker b;
	breaker_init(&b, 1, 1000);
	breaker_failure(&b, S);
	return b;
}

static void test_breaker_lets_one_probe_through(void **state)
{
	(void)state;
	struct breaker b = opened();
	assert_false(breaker_allow(&b, 2 * S - 1));
	assert_true(breaker_allow(&b, 2 * S));
	assert_int_equal(b.state, BREAKER_HALF_OPEN);
	assert_false(breaker_allow(&b, 2 * S));
	assert_false(breaker_allow(&b, 99 * S));
	assert_int_equal(breaker_wait_ms(&b, 2 * S), 0);
	breaker_success(&b);
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_true(breaker_allow(&b, 2 * S));
	assert_true(breaker_allow(&b, 2 * S));
}

static void test_breaker_opens_again_when_the_probe_fails(void **state)
{
	(void)state;
	struct breaker b;
	breaker_init(&b, 5, 1000);
	for (int i = 0; i < 5; i++)
		breaker_failure(&b, S);
	assert_true(breaker_allow(&b, 3 * S));
	breaker_failure(&b, 4 * S);
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_false(breaker_allow(&b, 5 * S - 1));
	assert_true(breaker_allow(&b, 5 * S));
}

static void test_breaker_neutral_probe_lets_another_try(void **state)
{
	(void)state;
	struct breaker b = opened();
	assert_true(breaker_allow(&b, 2 * S));
	breaker_neutral(&b);
	assert_int_equal(b.state, BREAKER_HALF_OPEN);
	assert_true(breaker_allow(&b, 2 * S));
	assert_false(breaker_allow(&b, 2 * S));
}

static void test_breaker_ignores_late_reports_while_open(void **state)
{
	(void)state;
	struct breaker b = opened();
	breaker_success(&b);
	assert_int_equal(b.state, BREAKER_OPEN);
	breaker_failure(&b, S + S / 2); /* does not move the end */
	assert_false(breaker_allow(&b, 2 * S - 1));
	assert_true(breaker_allow(&b, 2 * S));
}

static void test_breaker_of_zero_never_opens(void **state)
{
	(void)state;
	struct breaker b;
	breaker_init(&b, 0, 1000);
	for (int i = 0; i < 100; i++)
		breaker_failure(&b, S);
	assert_true(breaker_allow(&b, S));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_backoff_stays_under_its_ceiling),
		cmocka_unit_test(test_backoff_is_spread_evenly),
		cmocka_unit_test(test_backoff_of_odd_settings),
		cmocka_unit_test(test_retry_after_seconds),
		cmocka_unit_test(test_retry_after_dates),
		cmocka_unit_test(test_retry_after_refuses_other_dates),
		cmocka_unit_test(test_breaker_opens_after_failures_in_a_row),
		cmocka_unit_test(test_breaker_lets_one_probe_through),
		cmocka_unit_test(test_breaker_opens_again_when_the_probe_fails),
		cmocka_unit_test(test_breaker_neutral_probe_lets_another_try),
		cmocka_unit_test(test_breaker_ignores_late_reports_while_open),
		cmocka_unit_test(test_breaker_of_zero_never_opens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
