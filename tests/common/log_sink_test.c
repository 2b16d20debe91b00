#include <fcntl.h>
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
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log_sink.h"
#include "common/loop.h"

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

/* As a shell's `2>file` makes it: one offset for all that were given the descriptor. */
static void others_write_to_the_same_file(void **state)
{
	(void)state;
	char dir[] = "/tmp/log-test-XXXXXX", path[64];
	temp_dir(dir);
	snprintf(path, sizeof path, "%s/x.log", dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
	sink = log_sink_new(fd);
	for (int i = 1; i <= 3; i++) {
		put_line(i, 100);
		assert_int_equal(write(fd, "other\n", 6), 6);
		assert_int_equal(size_of(path), i * 106);
	}
	log_sink_free(&sink);
	close(fd);
	unlink(path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slow_pipe_blocks_nothing),
		cmocka_unit_test(slow_socket_blocks_nothing),
		cmocka_unit_test(stopped_terminal_blocks_nothing),
		cmocka_unit_test(foreign_pipe_blocks_nothing),
		cmocka_unit_test(others_keep_their_blocking_pipe),
		cmocka_unit_test(reader_that_left_loses_lines_not_the_process),
		cmocka_unit_test(synchronous_writer_waits_once),
		cmocka_unit_test(lines_longer_than_a_piece_arrive_whole),
		cmocka_unit_test(rotated_file_is_made_again),
		cmocka_unit_test(others_write_to_the_same_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
