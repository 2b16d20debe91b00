/* Lists of targets: what is taken, what is refused and in which words. Patterns at work:
 * 50-reload.t. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "exportermerger/target.h"

#define A10(c)  c c c c c c c c c c
#define A120    A10("aaaaaaaaaaaa")
#define A300    A10(A10("aaa"))
#define RUN_DIR "/run/of/nobody"

static const struct {
	const char *list, *reason;
} refused[] = {
	{"ftp://x", "begins with http"},
	{"http://", "begins with http"},
	{"unix:", "without a path"},
	{"http://a http://a", "given twice"},
	{"http://a unix:b http://a", "given twice"},
	{"http://a#prefix=1x", "cannot begin"},
	{"http://a#prefix=a:", "cannot begin"},
	{"http://a#x", "not name=value"},
	{"http://a#le=1", "no name for a label"},
	{"http://a#__x=1", "no name for a label"},
	{"http://a#merger_url=1", "no name for a label"},
	{"http://a#x=1&x=2", "given twice"},
	{"http://a#x=%zz", "bad value"},
	{"http://a#x=%ff", "bad value"},
	{"http://a#x=%00", "bad value"},
	{"http://" A300, "longer than"},
	{"unix:/" A120, "too long"},
	{"http://\xc3\xa9/", "printable"},
	{"unix:*.*", "room for one *"},
	{"unix:**", "room for one *"},
	{"unix:/x*/a.*", "room for one *"},
	{"unix:/x*/a", "room for one *"},
	{"unix:*#le=1", "no name for a label"},
	{"unix:/" A120 "*", "too long"},
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		struct target_error error = {""};
		struct targets *targets = targets_parse(span_of(refused[i].list), RUN_DIR, &error);
		if (targets || !strstr(error.text, refused[i].reason))
			fail_msg("%s: \"%s\", not \"%s\"", refused[i].list, error.text,
				refused[i].reason);
		/* It names the target. */
		assert_non_null(strchr(error.text, ':'));
	}
}

static void test_taken(void **state)
{
	(void)state;
	struct target_error error;
	struct targets *targets = targets_parse(
		span_of(" unix:b.sock\thttp://u:p@a:1/m#prefix=x_&zone=%22e\n https://c unix:/d "
			"unix:/nowhere/*.sock#x=1 unix:e#star=*\n"),
		RUN_DIR, &error);
	assert_non_null(targets);
	assert_int_equal(targets->count, 5);
	const struct target *t = targets->items;
	assert_string_equal(t[0].name, "http://a:1/m");
	assert_string_equal(t[0].url, "http://u:p@a:1/m");
	assert_string_equal(t[0].prefix, "x_");
	assert_int_equal(t[0].n_labels, 1);
	assert_true(span_equal_str(t[0].labels[0].name, "zone"));
	assert_true(span_equal_str(t[0].labels[0].value, "\\\"e"));
	assert_string_equal(t[1].name, "https://c");
	assert_string_equal(t[2].name, "unix:/d");
	assert_string_equal(t[2].socket, "/d");
	assert_string_equal(t[3].socket, RUN_DIR "/b.sock");
	assert_string_equal(t[4].name, "unix:e");
	/* Nothing came. */
	assert_int_equal(targets->n_patterns, 1);
	assert_false(targets_look(&targets));
	targets_unref(&targets);
	assert_null(targets);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_taken),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
