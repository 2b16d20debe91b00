/* The journal of pending purges: what is written is read; cut at every byte it is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "broadcasterd/journal.h"

static struct purge *purge_of(const char *target, const char *name, const char *value)
{
	struct purge_header headers[] = {
		{span_of("X-Other"), span_of("")}, {span_of(name), span_of(value)}};
	struct purge_source source = {.time_ms = 1700000000123,
		.target = span_of(target),
		.body = span_of("body"),
		.headers = headers,
		.n_headers = 2};
	const char *error;
	int status;
	struct purge *purge = purge_new(&source, &status, &error);
	assert_non_null(purge);
	return purge;
}

struct seen {
	struct journal_entry entries[16];
	size_t count;
};

static void on_entry(const struct journal_entry *entry, void *arg)
{
	struct seen *seen = arg;
	assert_true(seen->count < 16);
	seen->entries[seen->count] = *entry;
	purge_ref(seen->entries[seen->count++].purge);
}

static void forget(struct seen *seen)
{
	while (seen->count)
		purge_unref(&seen->entries[--seen->count].purge);
}

static void write_some(struct buf *out, struct purge *a, struct purge *b)
{
	struct journal_entry entries[] = {
		{TARGET_POD, span_of("10.0.0.7:8100"), span_of(""), a},
		{TARGET_POD, span_of("10.0.0.7:8100"), span_of("0123"), b},
		{TARGET_POD, span_of("[fd00::7]:8100"), span_of(""), a},
		{TARGET_LOCAL, span_of("gatewayd.0"), span_of("abcd"), b},
	};
	journal_write(entries, 4, out);
	assert_false(buf_failed(out));
}

static void what_is_written_is_read(void **state)
{
	(void)state;
	struct purge *a = purge_of("/v1/models?x", "X-Mine", "yes");
	struct purge *b = purge_of("/", "Surrogate-Key", "red green");
	struct buf out = BUF_INIT(1 << 20);
	struct seen seen = {0};
	trace_start(&b->trace, true);
	b->has_trace = true;
	write_some(&out, a, b);
	struct span bytes = {(const char *)out.data, out.len};
	assert_int_equal(journal_read(bytes, on_entry, &seen), 0);
	assert_int_equal(seen.count, 4);
	assert_true(span_equal_str(seen.entries[1].target, "10.0.0.7:8100"));
	assert_true(span_equal_str(seen.entries[1].instance, "0123"));
	assert_true(span_equal_str(seen.entries[2].target, "[fd00::7]:8100"));
	assert_int_equal(seen.entries[3].kind, TARGET_LOCAL);
	assert_true(purge_equal(seen.entries[0].purge, a));
	assert_true(purge_equal(seen.entries[3].purge, b));
	/* One purge for two targets stays one. */
	assert_ptr_equal(seen.entries[0].purge, seen.entries[2].purge);
	assert_int_equal(seen.entries[0].purge->time_ms, 1700000000123);
	assert_null(purge_trace(seen.entries[0].purge));
	assert_memory_equal(purge_trace(seen.entries[3].purge)->trace_id, b->trace.trace_id, 16);
	assert_true(span_equal_str(seen.entries[3].purge->params.scope, "tag"));
	assert_int_equal(seen.entries[3].purge->params.values.count, 2);
	forget(&seen);
	buf_free(&out);
	purge_unref(&a);
	purge_unref(&b);
}

static void cut_anywhere_it_is_refused(void **state)
{
	(void)state;
	struct purge *a = purge_of("/", "X-Purge-All", "true");
	struct purge *b = purge_of("/b", "X-Mine", "1");
	struct buf out = BUF_INIT(1 << 20);
	struct seen seen = {0};
	write_some(&out, a, b);
	for (size_t len = 0; len < out.len; len++) {
		struct span bytes = {(const char *)out.data, len};
		assert_int_equal(journal_read(bytes, on_entry, &seen), -1);
		forget(&seen);
	}
	buf_append_char(&out, '\0');
	assert_int_equal(
		journal_read((struct span){(const char *)out.data, out.len}, on_entry, &seen), -1);
	forget(&seen);
	buf_free(&out);
	purge_unref(&a);
	purge_unref(&b);
}

/* A name becomes part of a URL, or of a path. */
static void names_that_lead_elsewhere_are_refused(void **state)
{
	(void)state;
	static const char *const names[] = {"../x", "a b", "h:1/x", "h?x", "u@h:1", "h#1", "h\n:1"};
	struct purge *a = purge_of("/", "X-Purge-All", "true");
	struct seen seen = {0};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct journal_entry entry = {TARGET_POD, span_of(names[i]), span_of(""), a};
		struct buf out = BUF_INIT(1 << 20);
		journal_write(&entry, 1, &out);
		assert_int_equal(journal_read((struct span){(const char *)out.data, out.len},
					 on_entry, &seen),
			-1);
		forget(&seen);
		buf_free(&out);
	}
	purge_unref(&a);
}

/* Written by another version, whose rules were others. */
static void what_is_no_purge_any_more_becomes_one_of_everything(void **state)
{
	(void)state;
	struct purge_header header = {SPAN_LITERAL("X-Purge-Some"), SPAN_LITERAL("1")};
	struct purge other = {
		.time_ms = 7, .target = SPAN_LITERAL("/x"), .headers = &header, .n_headers = 1};
	struct purge *known = purge_of("/", "Surrogate-Key", "red");
	struct buf out = BUF_INIT(1 << 20);
	struct seen seen = {0};
	write_some(&out, &other, known);
	assert_int_equal(
		journal_read((struct span){(const char *)out.data, out.len}, on_entry, &seen), 0);
	assert_int_equal(seen.count, 4);
	assert_true(span_equal_str(seen.entries[0].purge->params.scope, "all"));
	assert_false(seen.entries[0].purge->params.store);
	assert_int_equal(seen.entries[0].purge->time_ms, 7);
	assert_true(purge_equal(seen.entries[3].purge, known));
	forget(&seen);
	buf_free(&out);
	purge_unref(&known);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(cut_anywhere_it_is_refused),
		cmocka_unit_test(names_that_lead_elsewhere_are_refused),
		cmocka_unit_test(what_is_no_purge_any_more_becomes_one_of_everything),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
