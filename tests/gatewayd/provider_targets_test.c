/* Which base URL is next: weights, breakers, pauses; at exact times. */
#include "gatewayd/provider_targets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct provider_targets targets;
static const struct digest alice = {{1}}, bob = {{2}};
static struct provider_targets_refusal refusal;

static void set_up(const char *text)
{
	assert_null(provider_targets_parse(text, "openai", &targets));
	provider_targets_set_breakers(&targets, 2, 1000);
}

static struct provider_target *pick(uint32_t tried, const struct digest *who, uint64_t now_us)
{
	return provider_targets_pick(&targets, tried, who, now_us, &refusal);
}

static void test_parse(void **state)
{
	(void)state;
	set_up("  https://a/v1//|0,http://b:1\thttps://c|1000,");
	assert_int_equal(targets.n, 3);
	assert_string_equal(targets.list[0].url, "https://a/v1");
	assert_int_equal(targets.list[0].weight, 0);
	assert_string_equal(targets.list[1].url, "http://b:1");
	assert_int_equal(targets.list[1].weight, 1);
	assert_string_equal(targets.list[1].service, "openai:http://b:1");
	assert_int_equal(targets.list[2].weight, 1000);
	provider_targets_free(&targets);

	static const char *const wrong[] = {"", ",", "a", "http://", "https:///", "http://a|",
		"http://a|-1", "http://a|1.5", "http://a|1001", "http://a|99999999999999999999",
		"http://a|1|1", "http://u@a", "http://a?b", "http://a#b", "http://a\x01",
		"http://\x80", "http://a http://a", "http://a http://a/", "|1"};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_non_null(provider_targets_parse(wrong[i], "openai", &targets));

	char many[1024] = "";
	for (int i = 0; i <= PROVIDER_MAX_TARGETS; i++) {
		if (i == PROVIDER_MAX_TARGETS) {
			assert_null(provider_targets_parse(many, "openai", &targets));
			provider_targets_free(&targets);
		}
		snprintf(many + strlen(many), sizeof many - strlen(many), "http://a%d,", i);
	}
	assert_non_null(provider_targets_parse(many, "openai", &targets));
	char long_url[PROVIDER_MAX_TARGET_URL + 16] = "http://";
	memset(long_url + 7, 'a', PROVIDER_MAX_TARGET_URL - 7);
	assert_null(provider_targets_parse(long_url, "openai", &targets));
	provider_targets_free(&targets);
	long_url[PROVIDER_MAX_TARGET_URL] = 'a';
	assert_non_null(provider_targets_parse(long_url, "openai", &targets));
}

static void test_weights(void **state)
{
	(void)state;
	set_up("http://a|5,http://b|1,http://c|1,http://d|0");
	char turns[15] = "";
	for (int i = 0; i < 14; i++) {
		struct provider_target *target = pick(0, &alice, 1);
		turns[i] = target->url[7];
		breaker_success(&target->breaker);
	}
	assert_string_equal(turns, "aabacaaaabacaa"); /* spread, and 10 : 2 : 2 */
	assert_ptr_equal(pick(7, &alice, 1), &targets.list[3]);
	assert_null(pick(15, &alice, 1));
	assert_false(refusal.paused);
	assert_int_equal(refusal.wait_ms, 0);
	provider_targets_free(&targets);
}

static void test_breakers(void **state)
{
	(void)state;
	set_up("http://a|9,http://b");
	for (int i = 0; i < 2; i++)
		breaker_failure(&targets.list[0].breaker, 100);
	for (int i = 0; i < 5; i++) {
		assert_ptr_equal(pick(0, &alice, 200), &targets.list[1]);
		breaker_success(&targets.list[1].breaker);
	}
	assert_null(pick(2, &alice, 100));
	assert_int_equal(refusal.wait_ms, 1000);
	/* Half-open: one probe, everybody else goes to the other. */
	assert_ptr_equal(pick(0, &alice, 1000200), &targets.list[0]);
	assert_ptr_equal(pick(0, &alice, 1000200), &targets.list[1]);
	breaker_success(&targets.list[0].breaker);
	assert_ptr_equal(pick(0, &alice, 1000200), &targets.list[0]);
	provider_targets_free(&targets);
}

static void test_pauses(void **state)
{
	(void)state;
	set_up("http://a,http://b");
	provider_target_pause(&targets.list[0], &alice, 0, 5000);
	provider_target_pause(&targets.list[0], &alice, 0, 3000); /* the later end counts */
	assert_ptr_equal(pick(0, &alice, 4999), &targets.list[1]);
	assert_ptr_equal(pick(2, &bob, 4999), &targets.list[0]);
	assert_null(pick(2, &alice, 4000));
	assert_true(refusal.paused);
	assert_int_equal(refusal.wait_ms, 1);
	assert_ptr_equal(pick(2, &alice, 5000), &targets.list[0]);
	provider_target_pause(&targets.list[1], &alice, 6000, 2000006000);
	provider_target_pause(&targets.list[0], &alice, 6000, 1000006001);
	assert_null(pick(0, &alice, 6000));
	assert_int_equal(refusal.wait_ms, 1000001); /* the sooner, rounded up */
	provider_targets_free(&targets);
}

static void test_pauses_are_bounded(void **state)
{
	(void)state;
	set_up("http://a");
	struct digest who = {{0}}, other = {{[31] = 1}};
	for (unsigned i = 0; i <= PROVIDER_MAX_PAUSES; i++) {
		memcpy(who.bytes, &i, sizeof i);
		provider_target_pause(&targets.list[0], &who, 0, i < 10 ? 100 : 9000);
		assert_null(pick(0, &who, 50));
	}
	/* The first was forgotten for the last. */
	assert_int_equal(targets.list[0].n_pauses, PROVIDER_MAX_PAUSES);
	who = (struct digest){{0}};
	assert_non_null(pick(0, &who, 50));
	/* When some have ended, nobody has to be forgotten. */
	provider_target_pause(&targets.list[0], &other, 200, 9000);
	assert_int_equal(targets.list[0].n_pauses, PROVIDER_MAX_PAUSES - 9 + 1);
	provider_targets_free(&targets);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_breakers),
		cmocka_unit_test(test_pauses),
		cmocka_unit_test(test_pauses_are_bounded),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
