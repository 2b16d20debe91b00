/* The sketch of hot keys keeps Space-Saving's promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "redisproxy/hotkeys.h"
#include "redisproxy/key_hash.h"

#define KEYS     5000
#define COUNTERS 64
#define COMMANDS 200000

/* "key_hash": the count and error of the report, or false. */
static bool reported(const char *text, uint64_t hash, uint64_t *count, uint64_t *error)
{
	char wanted[64];

	snprintf(wanted, sizeof wanted, "\"key_hash\": \"%016llx\", ", (unsigned long long)hash);
	const char *at = strstr(text, wanted);
	unsigned long long c, e;

	if (!at || sscanf(at + strlen(wanted), "\"count\": %llu, \"error\": %llu", &c, &e) != 2)
		return false;
	*count = c / HOTKEYS_SAMPLE;
	*error = e / HOTKEYS_SAMPLE;
	return true;
}

static void test_bounds(void **state)
{
	static unsigned truth[KEYS];
	struct hotkeys *hot = hotkeys_new(COUNTERS, false);
	struct buf text = BUF_INIT(1 << 20);
	uint64_t hashes[KEYS];
	unsigned seen = 0;

	(void)state;
	srand(1);
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];

		snprintf(key, sizeof key, "k%u", i);
		hashes[i] = key_hash(span_of(key));
	}
	for (unsigned i = 0; i < COMMANDS; i++) {
		/* Key k about in proportion to 1/(k+1). */
		double u = (double)rand() / RAND_MAX;
		unsigned key = rand() % 3 ? (unsigned)(KEYS * u * u * u * u * u * u)
					  : (unsigned)rand() % KEYS;

		key = key < KEYS ? key : KEYS - 1;
		truth[key]++;
		hotkeys_count(hot, SPAN_LITERAL(""), hashes[key]);
	}
	hotkeys_write_json(hot, &text);
	buf_append_char(&text, '\0');
	for (unsigned i = 0; i < KEYS; i++) {
		uint64_t count, error;

		if (reported((char *)text.data, hashes[i], &count, &error)) {
			seen++;
			assert_true(count >= truth[i]);
			assert_true(count - error <= truth[i]);
			assert_true(error <= COMMANDS / COUNTERS);
		} else {
			assert_true(truth[i] <= COMMANDS / COUNTERS);
		}
	}
	assert_int_equal(seen, COUNTERS);
	buf_free(&text);
	hotkeys_free(&hot);
}

static void test_ages(void **state)
{
	struct hotkeys *hot = hotkeys_new(2, true);
	struct buf text = BUF_INIT(1 << 20);
	struct span key = SPAN_LITERAL("a\"b");

	(void)state;
	hotkeys_age(hot, 1);
	for (int i = 0; i < 10; i++)
		hotkeys_count(hot, key, key_hash(key));
	hotkeys_count(hot, SPAN_LITERAL("rare"), 1);
	hotkeys_age(hot, 61 * 1000000ull);
	hotkeys_write_json(hot, &text);
	buf_append_char(&text, '\0');
	assert_non_null(strstr((char *)text.data, "\"commands\": 80, "));
	assert_non_null(strstr((char *)text.data, "\"key\": \"a\\\"b\", "));
	assert_non_null(strstr((char *)text.data, "\"count\": 80, \"error\": 0, "));
	assert_null(strstr((char *)text.data, "rare"));
	buf_free(&text);
	hotkeys_free(&hot);
}

static void test_samples(void **state)
{
	struct hotkeys *hot = hotkeys_new(1, false);
	unsigned due = 0;

	(void)state;
	for (unsigned i = 0; i < 1600000; i++)
		due += hotkeys_due(hot);
	assert_in_range(due, 98000, 102000);
	hotkeys_free(&hot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_ages),
		cmocka_unit_test(test_samples),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
