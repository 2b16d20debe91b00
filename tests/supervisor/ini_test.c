/* INI text as Python's RawConfigParser reads it, and what is no INI text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "supervisor/config/ini.h"

/* What was reported, one line each: "E 3 text". */
static char reported[8192];

static void note(void *arg, bool is_error, const char *file, unsigned line, const char *text)
{
	(void)arg;
	size_t len = strlen(reported);
	snprintf(reported + len, sizeof reported - len, "%c %s:%u %s\n", is_error ? 'E' : 'W', file,
		line, text);
}

static struct report report;
static struct ini doc;

static int parse_bytes(const char *text, size_t len)
{
	/* An exact copy, so that a read past the end is seen by the sanitizer. */
	char *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	memcpy(copy, text, len);
	int result = ini_parse(&doc, "x.conf", copy, len, &report);
	free(copy);
	return result;
}

static int parse(const char *text)
{
	return parse_bytes(text, strlen(text));
}

static const char *value(const char *section, const char *key)
{
	const struct ini_entry *entry = ini_entry(ini_section(&doc, section), key);
	return entry ? entry->value : NULL;
}

static int set_up(void **state)
{
	(void)state;
	reported[0] = '\0';
	report = (struct report){.line = note};
	doc = (struct ini){0};
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	ini_free(&doc);
	return 0;
}

static void test_sections_and_values(void **state)
{
	(void)state;
	assert_int_equal(parse("[a]\nx=1\ny = two words \nz: 3\n\n[ b c ]\nX=4\nempty=\n"), 0);
	assert_int_equal(doc.n_sections, 2);
	assert_string_equal(value("a", "x"), "1");
	assert_string_equal(value("a", "y"), "two words");
	assert_string_equal(value("a", "z"), "3");
	assert_string_equal(value("b c", "x"), "4");
	assert_string_equal(value("b c", "empty"), "");
	assert_null(value("b c", "y"));
	assert_null(ini_section(&doc, "d"));
	assert_int_equal(ini_entry(ini_section(&doc, "b c"), "x")->line, 7);
	assert_string_equal(reported, "");
}

static void test_comments(void **state)
{
	(void)state;
	assert_int_equal(parse("; one\n# two\n  ; three\n[a] ; four\nx=1 ; five\ny=a;b#c\nz=a #d\n"
			       "w=;all of it\nv=\"a ; b\"\n"),
		0);
	assert_string_equal(value("a", "x"), "1");
	assert_string_equal(value("a", "y"), "a;b#c");
	assert_string_equal(value("a", "z"), "a");
	assert_string_equal(value("a", "w"), "");
	assert_string_equal(value("a", "v"), "\"a");
	assert_string_equal(reported, "");
}

static void test_continued_lines(void **state)
{
	(void)state;
	assert_int_equal(parse("[a]\nenv=A=1,\n    B=2 ; said\n; not part\n\n\tC=3\nx=1\n"), 0);
	assert_string_equal(value("a", "env"), "A=1,\nB=2\nC=3");
	assert_string_equal(value("a", "x"), "1");
}

static void test_line_ends_and_byte_order_mark(void **state)
{
	(void)state;
	assert_int_equal(parse("\xef\xbb\xbf[a]\r\nx = 1\r\ny=2"), 0);
	assert_string_equal(value("a", "x"), "1");
	assert_string_equal(value("a", "y"), "2");
}

static void test_a_section_goes_on_and_a_key_is_replaced(void **state)
{
	(void)state;
	assert_int_equal(parse("[a]\nx=1\n[b]\n[a]\nx=2\ny=3\n"), 0);
	assert_int_equal(doc.n_sections, 2);
	assert_string_equal(value("a", "x"), "2");
	assert_string_equal(value("a", "y"), "3");
	assert_string_equal(reported, "W x.conf:5 \"x\" replaces the one at x.conf:2 in [a]\n");
}

static void test_several_files_are_one_document(void **state)
{
	(void)state;
	assert_int_equal(parse("[a]\nx=1\n"), 0);
	assert_int_equal(ini_parse(&doc, "y.conf", "[b]\ny=2\n", 8, &report), 0);
	assert_string_equal(ini_section(&doc, "a")->file, "x.conf");
	assert_string_equal(ini_entry(ini_section(&doc, "b"), "y")->file, "y.conf");
}

static void test_every_mistake_is_named_with_its_line(void **state)
{
	(void)state;
	assert_int_equal(
		parse("lost=1\nlost2=1\n[a]\nnonsense\n=1\n[]\nskipped=1\n[b\n[c] x\n"), -1);
	assert_string_equal(reported,
		"E x.conf:1 \"lost\" stands before the first [section]\n"
		"E x.conf:4 expected [section], key = value or ; comment, not \"nonsense\"\n"
		"E x.conf:5 expected [section], key = value or ; comment, not \"=1\"\n"
		"E x.conf:6 a section without a name\n"
		"E x.conf:8 a section header is written [name]\n"
		"E x.conf:9 a section header is written [name]\n");
	assert_int_equal(report.errors, 6);
}

static void test_hostile_bytes(void **state)
{
	(void)state;
	assert_int_equal(parse_bytes("[a]\nx=\0y\n", 9), -1);
	assert_string_equal(reported, "E x.conf:2 a NUL byte: this is not a text file\n");
	reported[0] = '\0';
	assert_int_equal(parse("[a]\n\033[2J\001\n"), -1);
	assert_null(strchr(reported, '\033'));
	assert_null(strchr(reported, '\001'));
}

static void test_too_long(void **state)
{
	(void)state;
	size_t len = INI_MAX_BYTES + 1;
	char *text = malloc(len);
	assert_non_null(text);
	memset(text, '\n', len);
	assert_int_equal(parse_bytes(text, len), -1);
	assert_int_equal(parse_bytes(text, len - 1), 0);
	free(text);
}

static void test_too_many_sections(void **state)
{
	(void)state;
	char *text = malloc((INI_MAX_SECTIONS + 1) * 8);
	size_t len = 0;
	assert_non_null(text);
	for (unsigned i = 0; i < INI_MAX_SECTIONS; i++)
		len += (size_t)snprintf(text + len, 8, "[%x]\n", i);
	assert_int_equal(parse_bytes(text, len), 0);
	assert_int_equal(parse("[more]\n"), -1);
	assert_non_null(strstr(reported, "more than 4096 sections"));
	free(text);
}

/* Cut anywhere, a file is read or refused, and never read past its end. */
static void test_cut_at_every_byte(void **state)
{
	(void)state;
	static const char text[] =
		"\xef\xbb\xbf; c\n[program:x]\ncommand=a \"b\n  c\" ; d\nk: v\r\n[y]\n";
	for (size_t len = 0; len < sizeof text; len++) {
		set_up(NULL);
		parse_bytes(text, len);
		assert_true(report.errors <= 2);
		ini_free(&doc);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sections_and_values, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_comments, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_continued_lines, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_line_ends_and_byte_order_mark, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_a_section_goes_on_and_a_key_is_replaced, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_several_files_are_one_document, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_every_mistake_is_named_with_its_line, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hostile_bytes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_long, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_many_sections, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_cut_at_every_byte, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
