/* What tokens cost, from a table that a person wrote. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gatewayd/prices.h"

static void a_price_is_for_a_million_tokens(void **state)
{
	(void)state;
	static const char table[] = "a=0.02,vendor=x/m:1=3,b=1e-3";
	assert_true(prices_of(table, SPAN_LITERAL("a")) == 0.02 / 1e6);
	assert_true(prices_of(table, SPAN_LITERAL("vendor=x/m:1")) == 3 / 1e6);
	assert_true(prices_of(table, SPAN_LITERAL("b")) == 1e-3 / 1e6);
	assert_true(prices_of(table, SPAN_LITERAL("")) == 0);
	assert_true(prices_of(table, SPAN_LITERAL("aa")) == 0);
	assert_true(prices_of("", SPAN_LITERAL("a")) == 0);
	assert_true(prices_of(PRICES_DEFAULT, SPAN_LITERAL("text-embedding-3-large")) > 0);
}

static void what_is_no_table_is_refused(void **state)
{
	(void)state;
	static const char *const good[] = {"", PRICES_DEFAULT, "a=0", "a=1,b=2", "a=1,"};
	static const char *const bad[] = {"a", "=1", "a=", "a=x", "a=-1", "a=1x", "a=1,,b=2",
		",a=1", "a=inf", "a=nan", "a= 1", "a=1e999"};
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		assert_true(prices_valid(good[i]));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_false(prices_valid(bad[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_price_is_for_a_million_tokens),
		cmocka_unit_test(what_is_no_table_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
