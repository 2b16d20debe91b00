/* Names to addresses: what a machine without a network can answer. DNS: tests/pod. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/loop.h"
#include "common/resolve.h"

struct answer {
	struct loop *loop;
	unsigned calls, wanted;
	enum resolve_outcome outcome;
	size_t count;
	char first[64];
	struct resolver *again; /* ask it once more from the callback */
	enum resolve_extent extent;
};

static void on_done(const struct resolve_result *result, void *arg)
{
	struct answer *a = arg;
	a->calls++;
	a->outcome = result->outcome;
	a->count = result->count;
	assert_true((result->outcome == RESOLVE_OK) == (result->detail == NULL));
	if (result->count) {
		size_t len = strlen(result->addresses[0]);
		assert_true(len < sizeof a->first);
		memcpy(a->first, result->addresses[0], len + 1);
	}
	if (a->again) {
		struct resolver *again = a->again;
		a->again = NULL;
		assert_non_null(resolve_start(again, "127.0.0.2", 10000, on_done, a));
	}
	if (a->calls == a->wanted)
		loop_stop(a->loop);
}

static void ask(const char *host, struct answer *a)
{
	struct resolver *resolver = resolver_new(a->loop, a->extent);
	assert_non_null(resolver);
	a->wanted = a->wanted ? a->wanted : 1;
	for (unsigned i = 0; i < a->wanted; i++)
		assert_non_null(resolve_start(resolver, host, 10000, on_done, a));
	assert_int_equal(a->calls, 0);
	loop_run(a->loop);
	resolver_free(&resolver);
	assert_null(resolver);
}

static void numeric_addresses(void **state)
{
	(void)state;
	static const char *const hosts[] = {"10.1.2.3", "fd00::7"};
	struct loop *loop = loop_new();
	for (size_t i = 0; i < 4; i++) {
		struct answer a = {.loop = loop, .extent = i < 2 ? RESOLVE_ANY : RESOLVE_ALL};
		ask(hosts[i % 2], &a);
		assert_int_equal(a.outcome, RESOLVE_OK);
		assert_int_equal(a.count, 1);
		assert_string_equal(a.first, hosts[i % 2]);
	}
	loop_free(&loop);
}

static void a_name_of_the_hosts_file(void **state)
{
	(void)state;
	struct answer a = {.loop = loop_new()};
	ask("localhost", &a);
	assert_int_equal(a.outcome, RESOLVE_OK);
	assert_true(strcmp(a.first, "127.0.0.1") == 0 || strcmp(a.first, "::1") == 0);
	loop_free(&a.loop);
}

static void what_is_no_name(void **state)
{
	(void)state;
	struct answer a = {.loop = loop_new()};
	ask("no name at all", &a);
	assert_true(a.outcome == RESOLVE_NONE || a.outcome == RESOLVE_FAILED);
	assert_int_equal(a.count, 0);
	loop_free(&a.loop);
}

static void many_at_once_share_queries(void **state)
{
	(void)state;
	struct answer a = {.loop = loop_new(), .wanted = 1000};
	ask("127.0.0.1", &a);
	assert_int_equal(a.calls, 1000);
	loop_free(&a.loop);
}

static void asked_again_from_the_callback(void **state)
{
	(void)state;
	struct answer a = {.loop = loop_new(), .wanted = 2};
	struct resolver *resolver = resolver_new(a.loop, RESOLVE_ANY);
	a.again = resolver;
	assert_non_null(resolve_start(resolver, "127.0.0.1", 10000, on_done, &a));
	loop_run(a.loop);
	assert_string_equal(a.first, "127.0.0.2");
	resolver_free(&resolver);
	loop_free(&a.loop);
}

static void cancelled_and_freed(void **state)
{
	(void)state;
	struct answer a = {.loop = loop_new(), .wanted = 1};
	struct resolver *resolver = resolver_new(a.loop, RESOLVE_ANY);
	struct resolve_lookup *lookup = resolve_start(resolver, "127.0.0.1", 10000, on_done, &a);
	resolve_cancel(&lookup);
	assert_null(lookup);
	resolve_cancel(&lookup);
	/* The others are not harmed, however many threads are about. */
	for (unsigned i = 0; i < 20; i++) {
		lookup = resolve_start(resolver, "127.0.0.3", 10000, on_done, &a);
		if (i != 10)
			resolve_cancel(&lookup);
	}
	loop_run(a.loop);
	assert_int_equal(a.calls, 1);
	/* With queries on threads: they end by themselves, without a callback. */
	for (unsigned i = 0; i < 20; i++)
		assert_non_null(resolve_start(
			resolver, i % 2 ? "localhost" : "127.0.0.1", 10000, on_done, &a));
	resolver_free(&resolver);
	assert_int_equal(a.calls, 1);
	loop_free(&a.loop);
}

static void deadline(void **state)
{
	(void)state;
	struct answer a = {.loop = loop_new()};
	struct resolver *resolver = resolver_new(a.loop, RESOLVE_ANY);
	a.wanted = 1;
	/* The answer of a thread needs a turn of the loop; a deadline that has passed comes first,
	 * or the answer does: one callback in any case. */
	assert_non_null(resolve_start(resolver, "localhost", 0, on_done, &a));
	loop_run(a.loop);
	assert_int_equal(a.calls, 1);
	assert_true(a.outcome == RESOLVE_TIMEOUT || a.outcome == RESOLVE_OK);
	resolver_free(&resolver);
	loop_free(&a.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numeric_addresses),
		cmocka_unit_test(a_name_of_the_hosts_file),
		cmocka_unit_test(what_is_no_name),
		cmocka_unit_test(many_at_once_share_queries),
		cmocka_unit_test(asked_again_from_the_callback),
		cmocka_unit_test(cancelled_and_freed),
		cmocka_unit_test(deadline),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
