/* Frames, cut at every byte; what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "redisproxy/resp.h"

static void commands_end_where_they_end(void **state)
{
	static const struct {
		const char *text;
		size_t argc;
	} good[] = {
		{"*1\r\n$4\r\nPING\r\n", 1},
		{"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$5\r\na\r\n\r\n\r\n", 3},
		{"*0\r\n", 0},
		{"*-1\r\n", 0},
		{"*-10\r\n", 0},
	};
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		size_t len = strlen(good[i].text);
		char data[128];
		snprintf(data, sizeof data, "%s*1\r\n", good[i].text);
		for (size_t cut = 0; cut <= len; cut++) {
			struct resp_command s = {0};
			const char *error = NULL;
			if (cut < len)
				assert_int_equal(
					resp_command_scan(&s, data, cut, &error), RESP_MORE);
			assert_int_equal(
				resp_command_scan(&s, data, len + 4, &error), RESP_COMPLETE);
			assert_int_equal(s.at, len);
			assert_int_equal(s.argc, good[i].argc);
		}
	}
}

static void commands_can_be_forgotten_as_they_come(void **state)
{
	static const char text[] = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n";
	struct resp_command s = {0};
	const char *error;
	size_t start = 0;
	enum resp_result result = RESP_MORE;
	(void)state;
	for (size_t end = 1; end <= strlen(text); end++) {
		assert_int_equal(result, RESP_MORE);
		result = resp_command_scan(&s, text + start, end - start, &error);
		start += s.at;
		resp_command_forget(&s, s.at);
	}
	assert_int_equal(result, RESP_COMPLETE);
	assert_int_equal(start, strlen(text));
}

static void bad_commands_are_refused(void **state)
{
	static const struct {
		const char *text, *error;
	} wrong[] = {
		{"*x\r\n", "Protocol error: invalid multibulk length"},
		{"*1\rX", "Protocol error: invalid multibulk length"},
		{"*01\r\n", "Protocol error: invalid multibulk length"},
		{"*+1\r\n", "Protocol error: invalid multibulk length"},
		{"* 1\r\n", "Protocol error: invalid multibulk length"},
		{"*2147483648\r\n", "Protocol error: invalid multibulk length"},
		{"*99999999999999999999999999", "Protocol error: invalid multibulk length"},
		{"*-0\r\n", "Protocol error: invalid multibulk length"},
		{"*1\r\n:1\r\n", "Protocol error: expected '$'"},
		{"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"},
		{"*1\r\n$2000000000\r\n", "Protocol error: invalid bulk length"},
		{"*1\r\n$4\r\nPINGxx", "Protocol error: invalid bulk length"},
		{"*1\r\n$4\r\nPING\n\n", "Protocol error: invalid bulk length"},
		{"*1\r\n$04\r\nPING\r\n", "Protocol error: invalid bulk length"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		for (size_t cut = 0; cut <= strlen(wrong[i].text); cut++) {
			struct resp_command s = {0};
			const char *error = NULL;
			enum resp_result r = resp_command_scan(&s, wrong[i].text, cut, &error);
			assert_int_not_equal(r, RESP_COMPLETE);
			if (r == RESP_MORE)
				r = resp_command_scan(
					&s, wrong[i].text, strlen(wrong[i].text), &error);
			assert_int_equal(r, RESP_BAD);
			assert_string_equal(error, wrong[i].error);
		}
	}
}

static void arguments_are_walked(void **state)
{
	static const char frame[] = "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$12\r\nab\r\ncd\r\nefgh\r\n";
	struct resp_arguments a = resp_arguments_of(frame);
	struct span arg;
	(void)state;
	assert_true(resp_arguments_next(&a, &arg) && span_equal_str(arg, "SET"));
	assert_true(resp_arguments_next(&a, &arg) && arg.len == 0);
	assert_true(resp_arguments_next(&a, &arg) && span_equal_str(arg, "ab\r\ncd\r\nefgh"));
	assert_false(resp_arguments_next(&a, &arg));
}

static void inline_commands_become_frames(void **state)
{
	static const struct {
		const char *line, *frame; /* NULL: refused */
	} lines[] = {
		{"PING\r\n", "*1\r\n$4\r\nPING\r\n"},
		{"  SET\ta  b \n", "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"},
		{"\r\n", ""},
		{"\n", ""},
		{"   \r\n", ""},
		{"SET a \"x y\"\r\n", "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3\r\nx y\r\n"},
		{"SET a \"\\x41\\n\\q\"\r\n", "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3\r\nA\nq\r\n"},
		{"SET a 'it\\'s'\r\n", "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\nit's\r\n"},
		{"SET a \"\"\r\n", "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$0\r\n\r\n"},
		{"set \"\"\"test\"\"\" test\r\n", NULL},
		{"SET a \"x\r\n", NULL},
		{"SET a 'x\r\n", NULL},
		{"SET a \"x\"y\r\n", NULL},
	};
	struct buf frame = BUF_INIT(1 << 20);
	const char *error;
	size_t used;
	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		size_t len = strlen(lines[i].line);
		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(
				resp_inline(lines[i].line, cut, &used, &frame, &error), RESP_MORE);
		enum resp_result r = resp_inline(lines[i].line, len, &used, &frame, &error);
		if (!lines[i].frame) {
			assert_int_equal(r, RESP_BAD);
			assert_string_equal(error, "Protocol error: unbalanced quotes in request");
			continue;
		}
		assert_int_equal(r, RESP_COMPLETE);
		assert_int_equal(used, len);
		assert_int_equal(frame.len, strlen(lines[i].frame));
		if (frame.len)
			assert_memory_equal(frame.data, lines[i].frame, frame.len);
	}
	char *longest = malloc(RESP_MAX_INLINE_BYTES + 1);
	assert_non_null(longest);
	memset(longest, 'x', RESP_MAX_INLINE_BYTES + 1);
	assert_int_equal(
		resp_inline(longest, RESP_MAX_INLINE_BYTES, &used, &frame, &error), RESP_MORE);
	assert_int_equal(
		resp_inline(longest, RESP_MAX_INLINE_BYTES + 1, &used, &frame, &error), RESP_BAD);
	free(longest);
	buf_free(&frame);
}

static void replies_end_where_they_end(void **state)
{
	static const char *const replies[] = {"+OK\r\n", "-ERR x\r\n", ":1\r\n", "$-1\r\n",
		"$0\r\n\r\n", "$5\r\na\r\nbc\r\n", "*-1\r\n", "*0\r\n",
		"*2\r\n*1\r\n$1\r\na\r\n*2\r\n:1\r\n+x\r\n", "_\r\n", "#t\r\n", ",1.5\r\n",
		"(12345678901234567890\r\n", "!5\r\nERR x\r\n", "=7\r\ntxt:abc\r\n",
		"%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n+c\r\n*0\r\n", "~1\r\n+a\r\n", ">2\r\n+a\r\n:1\r\n",
		"|1\r\n+ttl\r\n:3\r\n*1\r\n+x\r\n", "%0\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n"};
	(void)state;
	for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
		size_t len = strlen(replies[i]), used;
		char data[128];
		snprintf(data, sizeof data, "%s+NEXT\r\n", replies[i]);
		for (size_t cut = 0; cut <= len; cut++) {
			struct resp_reply s = {0};
			size_t done = 0;
			if (cut && cut < len) {
				assert_int_equal(resp_reply_scan(&s, data, cut, &done), RESP_MORE);
				assert_true(cut - done < 32);
			}
			assert_int_equal(
				resp_reply_scan(&s, data + done, strlen(data) - done, &used),
				RESP_COMPLETE);
			assert_int_equal(done + used, len);
			assert_int_equal(s.type, replies[i][0]);
		}
	}
}

static void bad_replies_are_refused(void **state)
{
	static const char *const wrong[] = {"x\r\n", "\r\n", "$x\r\n", "$-2\r\n", "*-2\r\n",
		"%-1\r\n", "$?\r\n", "*99999999999\r\n", "*9999999999999999999999999\r\n",
		"$00\r\n", ">-1\r\n"};
	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct resp_reply s = {0};
		size_t used;
		assert_int_equal(resp_reply_scan(&s, wrong[i], strlen(wrong[i]), &used), RESP_BAD);
	}
}

static void depth_costs_nothing(void **state)
{
	struct resp_reply s = {0};
	size_t used;
	(void)state;
	for (int i = 0; i < 1000000; i++)
		assert_int_equal(resp_reply_scan(&s, "*1\r\n", 4, &used), RESP_MORE);
	assert_int_equal(resp_reply_scan(&s, "*0\r\n", 4, &used), RESP_COMPLETE);
	/* Counts that multiply are no counts that are added. */
	s = (struct resp_reply){0};
	for (int i = 0; i < 600 && used; i++)
		if (resp_reply_scan(&s, "*2147483647\r\n", 13, &used) == RESP_BAD)
			return;
	fail_msg("no limit");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commands_end_where_they_end),
		cmocka_unit_test(commands_can_be_forgotten_as_they_come),
		cmocka_unit_test(bad_commands_are_refused),
		cmocka_unit_test(arguments_are_walked),
		cmocka_unit_test(inline_commands_become_frames),
		cmocka_unit_test(replies_end_where_they_end),
		cmocka_unit_test(bad_replies_are_refused),
		cmocka_unit_test(depth_costs_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
