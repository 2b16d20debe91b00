#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/log.h"
#include "common/log_line.h"
#include "common/loop.h"

static const char trace[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/* ---- lines ---- */

static struct log_entry entry_of(struct span body, const struct log_field *fields, unsigned n)
{
	return (struct log_entry){.level = LOG_LEVEL_WARN,
		.time = {.tv_sec = 1700000000, .tv_nsec = 7999999},
		.name = "gatewayd.0",
		.body = body,
		.fields = fields,
		.n_fields = n};
}

static json_t *parse_line(const struct buf *line)
{
	json_error_t error;
	json_t *json = json_loadb((const char *)line->data, line->len,
		JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
	if (!json)
		fail_msg("%s: %.*s", error.text, (int)line->len, (const char *)line->data);
	assert_int_equal(line->data[line->len - 1], '\n');
	assert_ptr_equal(memchr(line->data, '\n', line->len), line->data + line->len - 1);
	return json;
}

static const char *text_of(json_t *json, const char *key)
{
	return json_string_value(json_object_get(json, key));
}

static void json_has_all_fields(void **state)
{
	(void)state;
	struct log_field fields[] = {LOG_STR("peer", "10.0.0.1"), LOG_INT("bytes", INT64_MIN),
		LOG_DOUBLE("ms", 0.25), LOG_BOOL("hit", true), LOG_DOUBLE("bad", NAN)};
	struct log_entry entry = entry_of(SPAN_LITERAL("it's done"), fields, 5);
	entry.trace = trace;
	struct buf line = BUF_INIT(1 << 20);
	log_line_json(&line, &entry);
	const char expected[] =
		"{\"time\":\"2023-11-14T22:13:20.007Z\",\"severitytext\":\"WARN\","
		"\"name\":\"gatewayd.0\",\"body\":\"it's done\","
		"\"traceid\":\"0af7651916cd43dd8448eb211c80319c\",\"spanid\":\"b7ad6b7169203331\","
		"\"peer\":\"10.0.0.1\",\"bytes\":-9223372036854775808,\"ms\":0.25,\"hit\":true,"
		"\"bad\":null}\n";
	assert_int_equal(line.len, sizeof expected - 1);
	assert_memory_equal(line.data, expected, line.len);
	buf_free(&line);
}

static void every_byte_and_pair_makes_valid_json(void **state)
{
	(void)state;
	struct buf line = BUF_INIT(1 << 20);
	for (unsigned c = 0; c < 65536; c++) {
		char bytes[2] = {(char)(c >> 8), (char)c};
		struct log_field field = LOG_SPAN("value", ((struct span){bytes, 2}));
		struct log_entry entry = entry_of((struct span){bytes, 2}, &field, 1);
		buf_clear(&line);
		log_line_json(&line, &entry);
		json_t *json = parse_line(&line);
		json_t *value = json_object_get(json, "value");
		if (bytes[0] >= 0 && bytes[1] >= 0) {
			assert_int_equal(json_string_length(value), 2);
			assert_memory_equal(json_string_value(value), bytes, 2);
		} else {
			assert_true(json_string_length(value) >= 2);
		}
		json_decref(json);
		buf_clear(&line);
		log_line_text(&line, &entry, false);
		for (size_t i = 0; i + 1 < line.len; i++)
			assert_true(line.data[i] >= 0x20 && line.data[i] != 0x7f);
	}
	buf_free(&line);
}

static void invalid_utf8_becomes_the_replacement(void **state)
{
	(void)state;
	struct log_entry entry = entry_of(
		SPAN_LITERAL("a\xff\xc3(\xe2\x82\xac\xed\xa0\x80z\x7f"), NULL, 0);
	struct buf line = BUF_INIT(1 << 20);
	log_line_json(&line, &entry);
	json_t *json = parse_line(&line);
	assert_string_equal(text_of(json, "body"),
		"a\xef\xbf\xbd\xef\xbf\xbd(\xe2\x82\xac\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\x7f");
	json_decref(json);
	buf_free(&line);
}

static void what_is_too_long_is_left_out_and_said(void **state)
{
	(void)state;
	char *big = malloc(100000);
	struct log_field fields[64];
	struct buf line = BUF_INIT(2 * LOG_LINE_MAX_BYTES);
	/* The worst byte takes six. */
	for (int filler = 0; filler < 2; filler++) {
		memset(big, filler ? 'x' : '\1', 100000);
		static char names[64][16];
		for (int i = 0; i < 64; i++) {
			snprintf(names[i], sizeof names[i], "f%d", i);
			fields[i] = LOG_SPAN(names[i], ((struct span){big, 100000}));
		}
		for (unsigned n = 0; n <= 64; n++) {
			struct log_entry entry = entry_of((struct span){big, 100000}, fields, n);
			buf_clear(&line);
			log_line_json(&line, &entry);
			assert_false(buf_failed(&line));
			assert_true(line.len <= LOG_LINE_MAX_BYTES);
			json_t *json = parse_line(&line);
			assert_true(json_is_true(json_object_get(json, "truncated")));
			assert_int_equal(json_string_length(json_object_get(json, "body")),
				LOG_VALUE_MAX_BYTES);
			json_decref(json);
			buf_clear(&line);
			log_line_text(&line, &entry, true);
			assert_false(buf_failed(&line));
			assert_true(line.len <= LOG_LINE_MAX_BYTES);
		}
	}
	free(big);
	buf_free(&line);
}

static void text_is_for_people(void **state)
{
	(void)state;
	struct log_field fields[] = {LOG_STR("peer", "10.0.0.1:80"), LOG_STR("why", "no \"route\""),
		LOG_STR("empty", ""), LOG_INT("n", 3)};
	struct log_entry entry = entry_of(SPAN_LITERAL("ta\ta \"quoted\" \033[31m"), fields, 4);
	struct buf line = BUF_INIT(1 << 20);
	log_line_text(&line, &entry, false);
	buf_append_char(&line, '\0');
	const char *text = (const char *)line.data;
	assert_non_null(strstr(text, ":20.007 WARN  gatewayd.0: ta\\x09a \"quoted\" \\x1b[31m "
				     "peer=10.0.0.1:80 why=\"no \\\"route\\\"\" empty=\"\" n=3\n"));
	buf_clear(&line);
	log_line_text(&line, &entry, true);
	buf_append_char(&line, '\0');
	assert_non_null(strstr((const char *)line.data, "\033[33mWARN \033[0m gatewayd.0"));
	buf_free(&line);
}

static void levels_by_name(void **state)
{
	(void)state;
	enum log_level level;
	for (int i = 0; i <= LOG_LEVEL_FATAL; i++) {
		assert_int_equal(
			log_level_parse(span_of(log_level_name((enum log_level)i)), &level), 0);
		assert_int_equal(level, i);
	}
	assert_int_equal(log_level_parse(SPAN_LITERAL("WARNING"), &level), 0);
	assert_int_equal(level, LOG_LEVEL_WARN);
	assert_int_equal(log_level_parse(SPAN_LITERAL("Critical"), &level), 0);
	assert_int_equal(level, LOG_LEVEL_FATAL);
	static const char *const bad[] = {"", "warnin", "warningx", "verbose", "0"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(log_level_parse(span_of(bad[i]), &level), -1);
}

/* ---- the log of a process, seen from outside ---- */

/* Runs child with stderr on a pipe; returns its wait status and what it wrote. */
static int run_child(void (*child)(void), char *output, size_t size)
{
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDERR_FILENO);
		close(fds[1]);
		struct sigaction act = {.sa_handler = SIG_DFL};
		sigaction(SIGABRT, &act, NULL);
		child();
		_exit(99);
	}
	close(fds[1]);
	size_t len = 0;
	ssize_t n;
	while ((n = read(fds[0], output + len, size - 1 - len)) > 0)
		len += (size_t)n;
	output[len] = '\0';
	close(fds[0]);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void log_a_little(void)
{
	log_open("hashd", LOG_LEVEL_INFO, LOG_FORMAT_AUTO);
	struct loop *l = loop_new();
	log_attach(l);
	log_debug("not seen %d", 1);
	log_info("seen %d", 2);
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("seen %d", 3);
	log_fields(LOG_LEVEL_ERROR, trace, "with fields", LOG_STR("peer", "p"), LOG_INT("n", 4));
	if (log_lines(LOG_LEVEL_INFO) != 1 || log_lines(LOG_LEVEL_DEBUG) != 1 || log_dropped() != 0)
		_exit(98);
	log_detach();
	loop_free(&l);
	log_warn("after");
	log_close();
	_exit(0);
}

static void lines_come_out_in_order(void **state)
{
	(void)state;
	char output[4096];
	assert_int_equal(run_child(log_a_little, output, sizeof output), 0);
	static const char *const bodies[] = {"seen 2", "seen 3", "with fields", "after"};
	char *at = output;
	for (size_t i = 0; i < 4; i++) {
		char *end = strchr(at, '\n');
		assert_non_null(end);
		json_t *json = json_loadb(at, (size_t)(end - at), 0, NULL);
		assert_non_null(json);
		assert_string_equal(text_of(json, "body"), bodies[i]);
		assert_string_equal(text_of(json, "name"), "hashd");
		json_decref(json);
		at = end + 1;
	}
	assert_string_equal(at, "");
}

static void log_to_a_terminal(void)
{
	log_open("hashd", LOG_LEVEL_INFO, LOG_FORMAT_AUTO);
	log_warn("for \a people");
	log_close();
	_exit(0);
}

/* What a child writes when its stderr is a terminal. */
static void read_terminal(char *output, size_t size)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_int_equal(grantpt(master) | unlockpt(master), 0);
	int terminal = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(terminal, STDERR_FILENO);
		log_to_a_terminal();
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	ssize_t n = read(master, output, size - 1);
	output[n > 0 ? n : 0] = '\0';
	close(terminal);
	close(master);
}

static void terminals_get_text_and_color(void **state)
{
	(void)state;
	char output[1024];
	unsetenv("NO_COLOR");
	setenv("TERM", "xterm", 1);
	read_terminal(output, sizeof output);
	assert_non_null(strstr(output, "\033[33mWARN \033[0m hashd: for \\x07 people\r\n"));
	setenv("NO_COLOR", "1", 1);
	read_terminal(output, sizeof output);
	assert_non_null(strstr(output, " WARN  hashd: for \\x07 people\r\n"));
	setenv("NO_COLOR", "", 1); /* as if it were not set */
	setenv("TERM", "dumb", 1);
	read_terminal(output, sizeof output);
	assert_null(strstr(output, "\033"));
}

static void die_early(void)
{
	log_open("hashd", LOG_LEVEL_FATAL, LOG_FORMAT_JSON);
	die(EX_UNAVAILABLE, "%s is in use", "port");
}

static void break_an_invariant(void)
{
	log_open("hashd", LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	struct loop *l = loop_new();
	log_attach(l);
	log_info("gathered before");
	int one = 1;
	BUG_ON(one == 1);
}

static void die_and_bug_speak_before_the_end(void **state)
{
	(void)state;
	char output[4096];
	int status = run_child(die_early, output, sizeof output);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), EX_UNAVAILABLE);
	assert_non_null(strstr(output, "\"severitytext\":\"FATAL\""));
	assert_non_null(strstr(output, "\"body\":\"port is in use\""));
	status = run_child(break_an_invariant, output, sizeof output);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_non_null(strstr(output, "gathered before"));
	assert_non_null(strstr(output, "log_test.c"));
	assert_non_null(strstr(output, "one == 1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_has_all_fields),
		cmocka_unit_test(every_byte_and_pair_makes_valid_json),
		cmocka_unit_test(invalid_utf8_becomes_the_replacement),
		cmocka_unit_test(what_is_too_long_is_left_out_and_said),
		cmocka_unit_test(text_is_for_people),
		cmocka_unit_test(levels_by_name),
		cmocka_unit_test(lines_come_out_in_order),
		cmocka_unit_test(terminals_get_text_and_color),
		cmocka_unit_test(die_and_bug_speak_before_the_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
