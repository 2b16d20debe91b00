#include <errno.h>
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>
#include <jansson.h>

#include "common/log.h"
#include "common/log_line.h"
#include "common/log_sink.h"
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

/* ---- the sink ---- */

static uint64_t recovered;
static struct log_sink *sink;
static struct loop *loop;

static void on_recovered(uint64_t dropped, void *arg)
{
	(void)arg;
	recovered += dropped;
	log_sink_put(sink, "recovered\n", 10);
}

/* Number the lines, so that a missing or torn one shows. */
static void put_line(unsigned number, size_t len)
{
	char line[8192];
	memset(line, '.', len);
	snprintf(line, len, "%08u", number);
	line[8] = ' ';
	line[len - 1] = '\n';
	log_sink_put(sink, line, len);
}

static void stop_loop(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

static void turn_once(void)
{
	struct timer *end = timer_new(loop, stop_loop, NULL);
	timer_arm(end, 0);
	loop_run(loop);
	timer_free(&end);
}

/* Reads everything until the writer's lines stop coming; counts whole lines. */
struct reader {
	int fd;
	char line[8192];
	size_t len;
	unsigned lines, recovered_lines;
	bool torn;
};

static size_t read_some(struct reader *r)
{
	char data[65536];
	ssize_t n = read(r->fd, data, sizeof data);
	for (ssize_t i = 0; i < n; i++) {
		if (data[i] != '\n') {
			if (r->len < sizeof r->line)
				r->line[r->len++] = data[i];
			continue;
		}
		if (r->len == 9 && memcmp(r->line, "recovered", 9) == 0)
			r->recovered_lines++;
		else if (r->len < 9 || r->line[8] != ' ' || strspn(r->line, "0123456789") != 8)
			r->torn = true;
		else
			r->lines++;
		r->len = 0;
	}
	return n > 0 ? (size_t)n : 0;
}

static void slow_reader_blocks_nothing(int write_fd, int read_fd)
{
	enum { LINES = 20000, LEN = 101 };
	fcntl(read_fd, F_SETFL, O_NONBLOCK);
	recovered = 0;
	loop = loop_new();
	sink = log_sink_new(write_fd);
	log_sink_on_recovered(sink, on_recovered, NULL);
	log_sink_attach(sink, loop);
	alarm(60); /* a write that blocks would do so for ever */
	for (unsigned i = 0; i < LINES; i++) {
		put_line(i, LEN);
		if (i % 100 == 0)
			turn_once();
	}
	alarm(0);
	uint64_t dropped = log_sink_dropped(sink);
	assert_true(dropped > 0);
	/* What was kept is the bound and what the kernel holds, not less. */
	assert_true((LINES - dropped) * LEN >= LOG_SINK_MAX_BYTES - LEN);

	struct reader reader = {.fd = read_fd};
	for (int idle = 0; idle < 50;) {
		turn_once();
		idle = read_some(&reader) ? 0 : idle + 1;
	}
	assert_false(reader.torn);
	assert_int_equal(reader.lines, LINES - dropped);
	assert_int_equal(reader.recovered_lines, 1);
	assert_int_equal(recovered, dropped);
	/* And all is well again. */
	put_line(1, LEN);
	log_sink_detach(sink);
	while (read_some(&reader))
		;
	assert_int_equal(reader.lines, LINES - dropped + 1);
	assert_int_equal(log_sink_dropped(sink), dropped);
	log_sink_free(&sink);
	loop_free(&loop);
	close(write_fd);
	close(read_fd);
}

static void slow_pipe_blocks_nothing(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	slow_reader_blocks_nothing(fds[1], fds[0]);
}

static void slow_socket_blocks_nothing(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	slow_reader_blocks_nothing(fds[1], fds[0]);
}

/* A terminal whose reader does not read, as after Ctrl-S. */
static void stopped_terminal_blocks_nothing(void **state)
{
	(void)state;
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_int_equal(grantpt(master) | unlockpt(master), 0);
	int terminal = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(terminal >= 0);
	struct termios settings;
	tcgetattr(terminal, &settings);
	cfmakeraw(&settings); /* or each newline is two bytes */
	tcsetattr(terminal, TCSANOW, &settings);
	slow_reader_blocks_nothing(terminal, master);
}

/* A descriptor that cannot be opened a second time: the poll() way. */
static void foreign_pipe_blocks_nothing(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return; /* only root can give a pipe away and lose the right to open it */
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(fchown(fds[1], 1, 1) | fchmod(fds[1], 0600), 0);
	assert_int_equal(setresuid(-1, 65532, -1), 0);
	char path[32];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fds[1]);
	assert_int_equal(open(path, O_WRONLY), -1);
	slow_reader_blocks_nothing(fds[1], fds[0]);
	assert_int_equal(setresuid(-1, 0, -1), 0);
}

static void others_keep_their_blocking_pipe(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	sink = log_sink_new(fds[1]);
	assert_int_equal(fcntl(fds[1], F_GETFL) & O_NONBLOCK, 0);
	log_sink_put(sink, "x\n", 2);
	char data[4];
	assert_int_equal(read(fds[0], data, sizeof data), 2);
	log_sink_free(&sink);
	close(fds[0]);
	close(fds[1]);
}

static void reader_that_left_loses_lines_not_the_process(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	loop = loop_new();
	sink = log_sink_new(fds[1]);
	log_sink_on_recovered(sink, on_recovered, NULL);
	log_sink_attach(sink, loop);
	close(fds[0]);
	for (unsigned i = 0; i < 1000; i++)
		put_line(i, 1000);
	turn_once();
	turn_once();
	assert_int_equal(log_sink_dropped(sink), 1000);
	log_sink_detach(sink);
	log_sink_put(sink, "x\n", 2);
	assert_int_equal(log_sink_dropped(sink), 1001);
	log_sink_free(&sink);
	loop_free(&loop);
	close(fds[1]);
}

static void synchronous_writer_waits_once(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	fcntl(fds[1], F_SETPIPE_SZ, 4096);
	loop = loop_new();
	sink = log_sink_new(fds[1]);
	uint64_t start = loop_now_us(loop);
	for (unsigned i = 0; i < 100; i++)
		put_line(i, 1000);
	uint64_t took = loop_now_us(loop) - start;
	assert_in_range(took, LOG_SINK_WAIT_MS * 1000, LOG_SINK_WAIT_MS * 20000);
	assert_int_equal(log_sink_dropped(sink), 0);
	log_sink_free(&sink);
	loop_free(&loop);
	close(fds[0]);
	close(fds[1]);
}

static void lines_longer_than_a_piece_arrive_whole(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	loop = loop_new();
	sink = log_sink_new(fds[1]);
	log_sink_attach(sink, loop);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	struct reader reader = {.fd = fds[0]};
	for (unsigned i = 0; i < 40; i++) {
		put_line(i, i % 2 ? 7000 : 70);
		turn_once();
		while (read_some(&reader))
			turn_once();
	}
	assert_int_equal(reader.lines, 40);
	assert_false(reader.torn);
	log_sink_free(&sink);
	loop_free(&loop);
	close(fds[0]);
	close(fds[1]);
}

static char *temp_dir(char *path)
{
	assert_non_null(mkdtemp(path));
	return path;
}

static off_t size_of(const char *path)
{
	struct stat st;
	return stat(path, &st) < 0 ? -1 : st.st_size;
}

static void rotated_file_is_made_again(void **state)
{
	(void)state;
	char dir[] = "/tmp/log-test-XXXXXX", path[64], old[64];
	temp_dir(dir);
	snprintf(path, sizeof path, "%s/x.log", dir);
	snprintf(old, sizeof old, "%s/x.log.1", dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
	loop = loop_new();
	sink = log_sink_new(fd);
	log_sink_attach(sink, loop);
	put_line(1, 100);
	turn_once();
	assert_int_equal(size_of(path), 100);
	put_line(2, 100);
	assert_int_equal(rename(path, old), 0);
	log_sink_reopen(sink);
	assert_int_equal(size_of(old), 200);
	put_line(3, 50);
	turn_once();
	assert_int_equal(size_of(path), 50);
	assert_int_equal(size_of(old), 200);
	log_sink_reopen(sink); /* nothing happened since */
	put_line(4, 50);
	log_sink_detach(sink);
	assert_int_equal(size_of(path), 100);
	assert_int_equal(write(fd, "x", 1), 1); /* the caller's descriptor followed */
	assert_int_equal(size_of(path), 101);
	log_sink_free(&sink);
	loop_free(&loop);
	close(fd);
	unlink(path);
	unlink(old);
	rmdir(dir);
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
		cmocka_unit_test(slow_pipe_blocks_nothing),
		cmocka_unit_test(slow_socket_blocks_nothing),
		cmocka_unit_test(stopped_terminal_blocks_nothing),
		cmocka_unit_test(foreign_pipe_blocks_nothing),
		cmocka_unit_test(others_keep_their_blocking_pipe),
		cmocka_unit_test(reader_that_left_loses_lines_not_the_process),
		cmocka_unit_test(synchronous_writer_waits_once),
		cmocka_unit_test(lines_longer_than_a_piece_arrive_whole),
		cmocka_unit_test(rotated_file_is_made_again),
		cmocka_unit_test(lines_come_out_in_order),
		cmocka_unit_test(terminals_get_text_and_color),
		cmocka_unit_test(die_and_bug_speak_before_the_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
