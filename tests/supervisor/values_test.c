/* Values and expansions: what they take, and what they refuse. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "supervisor/config/expand.h"
#include "supervisor/config/values.h"

static void test_bool(void **state)
{
	(void)state;
	bool b = false;
	assert_int_equal(value_bool("TRUE", &b), 0);
	assert_true(b);
	assert_int_equal(value_bool("off", &b), 0);
	assert_false(b);
	assert_int_equal(value_bool("", &b), -1);
	assert_int_equal(value_bool("2", &b), -1);
}

static void test_int(void **state)
{
	(void)state;
	int64_t n = 7;
	assert_int_equal(value_int("-5", -5, 5, &n), 0);
	assert_int_equal(n, -5);
	static const char *const bad[] = {
		"", "-", "6", "-6", "1.0", " 1", "1 ", "+1", "0x1", "99999999999999999999", "1e1"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(value_int(bad[i], -5, 5, &n), -1);
	assert_int_equal(n, -5);
	assert_int_equal(value_octal("022", 0777, &n), 0);
	assert_int_equal(n, 022);
	assert_int_equal(value_octal("8", 0777, &n), -1);
	assert_int_equal(value_octal("1000", 0777, &n), -1);
}

static void test_time(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		uint64_t ms;
	} good[] = {{"0", 0}, {"10", 10000}, {"0.5", 500}, {"250ms", 250}, {"5 s", 5000},
		{"2m", 120000}, {"1h", 3600000}, {"0.0001", 1}};
	uint64_t ms;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_int_equal(value_ms(good[i].text, &ms), 0);
		assert_int_equal(ms, good[i].ms);
	}
	static const char *const bad[] = {"", "-1", ".", "1.2.3", "inf", "nan", "1e3", "0x10", "5x",
		"s", "99999999999", "123456789012345678901"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(value_ms(bad[i], &ms), -1);
}

static void test_bytes(void **state)
{
	(void)state;
	uint64_t n;
	assert_int_equal(value_bytes("1024", &n), 0);
	assert_int_equal(n, 1024);
	assert_int_equal(value_bytes("50MB", &n), 0);
	assert_int_equal(n, 50 << 20);
	assert_int_equal(value_bytes("2 gb", &n), 0);
	assert_int_equal(n, 2ull << 30);
	static const char *const bad[] = {"", "MB", "1TB", "-1", "1.5MB", "99999999999999GB", "1 "};
	for (size_t i = 0; i + 1 < sizeof bad / sizeof *bad; i++)
		assert_int_equal(value_bytes(bad[i], &n), -1);
}

static void test_signals(void **state)
{
	(void)state;
	int n;
	assert_int_equal(value_signal("TERM", &n), 0);
	assert_int_equal(n, SIGTERM);
	assert_int_equal(value_signal("sigquit", &n), 0);
	assert_int_equal(n, SIGQUIT);
	assert_int_equal(value_signal("9", &n), 0);
	assert_int_equal(n, SIGKILL);
	assert_int_equal(value_signal("0", &n), -1);
	assert_int_equal(value_signal("65", &n), -1);
	assert_int_equal(value_signal("SIG", &n), -1);
	assert_int_equal(value_signal("TERMINATE", &n), -1);
	assert_string_equal(value_signal_name(SIGHUP), "HUP");
	assert_string_equal(value_signal_name(0), "?");
}

static void test_exit_codes(void **state)
{
	(void)state;
	uint8_t codes[32];
	assert_int_equal(value_exit_codes("0, 2,255", codes), 0);
	assert_int_equal(codes[0], 5);
	assert_int_equal(codes[31], 0x80);
	assert_int_equal(value_exit_codes("256", codes), -1);
	assert_int_equal(value_exit_codes("0,x", codes), -1);
	assert_int_equal(codes[0], 5);
	assert_int_equal(value_exit_codes("", codes), 0);
	assert_int_equal(codes[0], 0);
}

static void expect_words(const char *text, const char *joined)
{
	struct strings words = {0};
	const char *why;
	assert_int_equal(value_words(text, &words, &why), 0);
	char all[256] = "";
	for (size_t i = 0; i < words.n; i++) {
		strncat(all, words.items[i], sizeof all - strlen(all) - 2);
		strncat(all, "|", 2);
	}
	assert_string_equal(all, joined);
	if (words.n)
		assert_null(words.items[words.n]);
	strings_free(&words);
}

static void test_words(void **state)
{
	(void)state;
	expect_words("a  b\tc\nd", "a|b|c|d|");
	expect_words("", "");
	expect_words("  ", "");
	expect_words("sh -c 'a \"b\" \\ c'", "sh|-c|a \"b\" \\ c|");
	expect_words("\"a b\"c d\\ e \\\"", "a bc|d e|\"|");
	expect_words("\"\\\" \\\\ \\x\"", "\" \\ \\x|");
	expect_words("'' x \"\"", "|x||");
	struct strings words = {0};
	const char *why;
	assert_int_equal(value_words("a 'b", &words, &why), -1);
	assert_string_equal(why, "a ' is not closed");
	strings_free(&words);
	assert_int_equal(value_words("a \"b", &words, &why), -1);
	strings_free(&words);
	assert_int_equal(value_words("a \\", &words, &why), -1);
	assert_string_equal(why, "a \\ at the end");
	strings_free(&words);
}

static void test_environment(void **state)
{
	(void)state;
	struct strings pairs = {0};
	const char *why;
	assert_int_equal(
		value_environment("A=1,B=\"two, three\",\n C='x' , D=,E=a\"b\"c", &pairs, &why), 0);
	assert_int_equal(pairs.n, 5);
	assert_string_equal(pairs.items[0], "A=1");
	assert_string_equal(pairs.items[1], "B=two, three");
	assert_string_equal(pairs.items[2], "C=x");
	assert_string_equal(pairs.items[3], "D=");
	assert_string_equal(pairs.items[4], "E=abc");
	strings_free(&pairs);
	static const char *const bad[] = {"A", "=1", "A=1 2", "A=\"x", "A=1,B", "A 1"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(value_environment(bad[i], &pairs, &why), -1);
		strings_free(&pairs);
	}
}

static void test_many_strings(void **state)
{
	(void)state;
	struct strings list = {0};
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(strings_add(&list, SPAN_LITERAL("x")), 0);
		assert_null(list.items[list.n]);
	}
	assert_int_equal(list.n, 1000);
	strings_free(&list);
}

/* ---- expansions ---- */

static const char *env_of(const char *variable, void *arg)
{
	(void)arg;
	if (strcmp(variable, "HOME") == 0)
		return "/root";
	return strcmp(variable, "EMPTY") == 0 ? "" : NULL;
}

static const struct expand_name names[] = {{"name", "web", 0}, {"num", NULL, 3}, {0}};

static void expect_expanded(const char *text, const char *wanted)
{
	struct expand_names known = {names, env_of, NULL};
	struct buf out = BUF_INIT(1024);
	char error[256];
	assert_int_equal(expand(text, &known, &out, error, sizeof error), 0);
	buf_append_char(&out, '\0');
	assert_string_equal((char *)out.data, wanted);
	buf_free(&out);
}

static void expect_refused(const char *text, const char *part_of_the_error)
{
	struct expand_names known = {names, env_of, NULL};
	struct buf out = BUF_INIT(64);
	char error[256] = "";
	assert_int_equal(expand(text, &known, &out, error, sizeof error), -1);
	assert_non_null(strstr(error, part_of_the_error));
	buf_free(&out);
}

static void test_expand(void **state)
{
	(void)state;
	expect_expanded("", "");
	expect_expanded("plain", "plain");
	expect_expanded("%(name)s-%(num)02d-%(num)d-%(num)s%%", "web-03-3-3%");
	expect_expanded("[%(name)5s|%(name)-5s|%(num)-3d|%(num)3d]", "[  web|web  |3  |  3]");
	expect_expanded("%(ENV_HOME)s/x", "/root/x");
	expect_expanded("%(ENV_NO:-8080)s", "8080");
	expect_expanded("%(ENV_EMPTY:-a b)s", "a b");
	expect_expanded("%(ENV_HOME:-x)s", "/root");
	expect_expanded("%(ENV_NO:-)s", "");
	expect_expanded("%(ENV_EMPTY)s", "");
}

static void test_expand_refuses(void **state)
{
	(void)state;
	expect_refused("%(ENV_NO)s", "the environment has no NO");
	expect_refused("%(other)s", "not a known expansion");
	expect_refused("100%", "a % must be");
	expect_refused("%d", "a % must be");
	expect_refused("%(name", "a % must be");
	expect_refused("%(name)", "must be followed by s or d");
	expect_refused("%(name)x", "must be followed by s or d");
	expect_refused("%(name)d", "not a number");
	expect_refused("%(num)999999999999d", "must be followed by");
	expect_refused("%(num)99d%(num)99d", "too long");
	char longest[600];
	memset(longest, 'a', sizeof longest);
	memcpy(longest, "%(", 2);
	memcpy(longest + sizeof longest - 3, ")s", 3);
	expect_refused(longest, "very long name");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bool),
		cmocka_unit_test(test_int),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_exit_codes),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_many_strings),
		cmocka_unit_test(test_expand),
		cmocka_unit_test(test_expand_refuses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
