#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/trace.h"

static const char good[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

static void valid_headers(void **state)
{
	(void)state;
	struct trace t;
	char text[TRACE_PARENT_LEN + 1];
	assert_int_equal(trace_parse(span_of(good), &t), 0);
	assert_int_equal(t.trace_id[0], 0x0a);
	assert_int_equal(t.trace_id[15], 0x9c);
	assert_int_equal(t.span_id[0], 0xb7);
	assert_int_equal(t.span_id[7], 0x31);
	assert_true(t.sampled);
	trace_format(&t, text);
	assert_string_equal(text, good);
	assert_int_equal(
		trace_parse(SPAN_LITERAL("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fe"),
			&t),
		0);
	assert_false(t.sampled);
	trace_format(&t, text);
	assert_string_equal(text + 53, "00");
	/* A later version, with and without more behind it. */
	assert_int_equal(
		trace_parse(SPAN_LITERAL("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
			&t),
		0);
	assert_int_equal(
		trace_parse(
			SPAN_LITERAL("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x"),
			&t),
		0);
}

static void bad_headers(void **state)
{
	(void)state;
	static const char *const bad[] = {"", "00",
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011",
		"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
		"00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0G",
		" 0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"};
	struct trace t = {.sampled = true}, before = t;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(trace_parse(span_of(bad[i]), &t), -1);
	for (size_t len = 0; len < TRACE_PARENT_LEN; len++)
		assert_int_equal(trace_parse((struct span){good, len}, &t), -1);
	assert_int_equal(trace_parse((struct span){NULL, 0}, &t), -1);
	assert_memory_equal(&t, &before, sizeof t); /* untouched */
	/* Every byte matters: none may be replaced by one of another kind. */
	for (size_t at = 0; at < TRACE_PARENT_LEN; at++) {
		char text[sizeof good];
		memcpy(text, good, sizeof good);
		text[at] = text[at] == '-' ? '0' : '-';
		assert_int_equal(trace_parse(span_of(text), &t), -1);
	}
}

static void new_ids_are_random_and_children_keep_the_trace(void **state)
{
	(void)state;
	enum { N = 300 };
	static struct trace traces[N];
	for (int i = 0; i < N; i++) {
		trace_start(&traces[i], i % 2);
		assert_int_equal(traces[i].sampled, i % 2);
		for (int j = 0; j < i; j++) {
			assert_memory_not_equal(traces[i].trace_id, traces[j].trace_id, 16);
			assert_memory_not_equal(traces[i].span_id, traces[j].span_id, 8);
		}
		char text[TRACE_PARENT_LEN + 1];
		struct trace again;
		trace_format(&traces[i], text);
		assert_int_equal(strlen(text), TRACE_PARENT_LEN);
		assert_int_equal(trace_parse(span_of(text), &again), 0);
		struct trace child = trace_child(&traces[i]);
		assert_memory_equal(child.trace_id, traces[i].trace_id, 16);
		assert_memory_not_equal(child.span_id, traces[i].span_id, 8);
		assert_int_equal(child.sampled, traces[i].sampled);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_headers),
		cmocka_unit_test(bad_headers),
		cmocka_unit_test(new_ids_are_random_and_children_keep_the_trace),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
