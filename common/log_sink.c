#include "common/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/buf.h"
#include "common/loop.h"

#define FLUSH_BYTES (64u << 10) /* gathered in one turn: written before its end */
#define KEEP_BYTES  (32u << 10) /* memory kept while nothing waits */
#define RETRY_MS    100         /* for descriptors that epoll does not take */

enum sink_kind { SINK_OWN, SINK_SOCKET, SINK_SHARED };

struct log_sink {
	int source_fd; /* the caller's */
	int fd;        /* the one written to */
	enum sink_kind kind;
	size_t piece_bytes;
	char *path; /* of a regular file, to find its successor after a rotation */

	struct buf waiting;
	size_t written; /* of waiting */
	uint64_t dropped, reported;
	bool blocked;      /* the reader does not read */
	bool broken;       /* the last write failed */
	bool gave_up;      /* a synchronous write waited in vain: do not wait again */
	bool in_recovered; /* the report itself must not report */

	struct loop *loop; /* NULL: synchronous */
	struct deferred flush;
	struct event *writable;
	struct timer *retry;
	void (*on_recovered)(uint64_t dropped, void *arg);
	void *arg;
};

static void flush_due(void *arg);

static void open_own(struct log_sink *sink)
{
	struct stat st;
	char path[32];
	sink->fd = sink->source_fd;
	sink->kind = SINK_SHARED;
	sink->piece_bytes = PIPE_BUF;
	if (fstat(sink->source_fd, &st) < 0)
		return;
	if (S_ISSOCK(st.st_mode)) {
		sink->kind = SINK_SOCKET;
		return;
	}
	if (S_ISREG(st.st_mode)) {
		/* Never blocks; and an offset of our own would not move with that of others who
		 * were given this descriptor (a shell script's `2>file`): they would overwrite us.
		 */
		sink->kind = SINK_OWN;
		sink->piece_bytes = FLUSH_BYTES;
		return;
	}
	snprintf(path, sizeof path, "/proc/self/fd/%d", sink->source_fd);
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return;
	sink->fd = fd;
	sink->kind = SINK_OWN;
}

static void close_own(struct log_sink *sink)
{
	if (sink->fd != sink->source_fd)
		close(sink->fd);
	sink->fd = sink->source_fd;
}

static bool is_file_at(int fd, const char *path)
{
	struct stat by_fd, by_path;
	return fstat(fd, &by_fd) == 0 && S_ISREG(by_fd.st_mode) && stat(path, &by_path) == 0 &&
	       by_fd.st_dev == by_path.st_dev && by_fd.st_ino == by_path.st_ino;
}

struct log_sink *log_sink_new(int fd)
{
	struct log_sink *sink = calloc(1, sizeof *sink);
	if (!sink)
		return NULL;
	sink->source_fd = fd;
	buf_init(&sink->waiting, 2 * LOG_SINK_MAX_BYTES);
	deferred_init(&sink->flush, flush_due, sink);
	open_own(sink);
	char link[32], target[PATH_MAX];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, target, sizeof target - 1);
	if (n > 0) {
		target[n] = '\0';
		if (is_file_at(fd, target))
			sink->path = strdup(target);
	}
	return sink;
}

void log_sink_on_recovered(
	struct log_sink *sink, void (*on_recovered)(uint64_t dropped, void *arg), void *arg)
{
	sink->on_recovered = on_recovered;
	sink->arg = arg;
}

/* > 0 bytes written, 0 the reader is not ready, -1 it never will be. */
static ssize_t write_some(struct log_sink *sink, const void *data, size_t len)
{
	struct pollfd p = {.fd = sink->fd, .events = POLLOUT};
	ssize_t n;
	do {
		if (sink->kind == SINK_SOCKET) {
			n = send(sink->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		} else {
			if (sink->kind == SINK_SHARED && poll(&p, 1, 0) == 0)
				return 0;
			n = write(sink->fd, data, len);
		}
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	return n;
}

/* How much to write at once: whole lines, unless the first alone is longer than a piece. */
static size_t next_piece(const struct log_sink *sink, const char *data, size_t len)
{
	if (len <= sink->piece_bytes)
		return len;
	const char *end = memrchr(data, '\n', sink->piece_bytes);
	if (end)
		return (size_t)(end - data) + 1;
	if (sink->kind == SINK_SHARED)
		return sink->piece_bytes;
	end = memchr(data, '\n', len);
	return end ? (size_t)(end - data) + 1 : len;
}

static size_t waiting_bytes(const struct log_sink *sink)
{
	return sink->waiting.len - sink->written;
}

static void forget_waiting(struct log_sink *sink)
{
	if (sink->waiting.capacity > KEEP_BYTES)
		buf_free(&sink->waiting);
	buf_clear(&sink->waiting);
	sink->written = 0;
}

static uint64_t count_lines(const void *data, size_t len)
{
	uint64_t lines = 0;
	const char *at = data, *end = at + len;
	while (at < end && (at = memchr(at, '\n', (size_t)(end - at)))) {
		lines++;
		at++;
	}
	return lines;
}

/* Write until all is out (true) or the reader is not ready (false). */
static bool write_out(struct log_sink *sink)
{
	while (waiting_bytes(sink) > 0) {
		const char *data = (const char *)sink->waiting.data + sink->written;
		size_t piece = next_piece(sink, data, waiting_bytes(sink));
		ssize_t n = write_some(sink, data, piece);
		if (n == 0)
			return false;
		if (n < 0) {
			sink->dropped += count_lines(data, waiting_bytes(sink));
			sink->broken = true;
			break;
		}
		sink->written += (size_t)n;
		sink->gave_up = false;
		sink->broken = false;
	}
	forget_waiting(sink);
	return true;
}

static void report_recovery(struct log_sink *sink)
{
	if (sink->dropped == sink->reported || sink->broken || sink->in_recovered ||
		!sink->on_recovered)
		return;
	uint64_t lost = sink->dropped - sink->reported;
	sink->reported = sink->dropped;
	sink->in_recovered = true;
	sink->on_recovered(lost, sink->arg);
	sink->in_recovered = false;
}

static void flush_attached(struct log_sink *sink)
{
	sink->blocked = !write_out(sink);
	if (sink->blocked) {
		if (!sink->writable || event_add(sink->writable, NULL) < 0)
			timer_arm(sink->retry, RETRY_MS);
	} else {
		report_recovery(sink);
	}
}

static void flush_due(void *arg)
{
	struct log_sink *sink = arg;
	if (!sink->blocked)
		flush_attached(sink);
}

static void reader_ready(void *arg)
{
	flush_attached(arg);
}

static void writable_due(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	reader_ready(arg);
}

static uint64_t monotonic_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void flush_now(struct log_sink *sink)
{
	uint64_t deadline = monotonic_ms() + LOG_SINK_WAIT_MS;
	while (!write_out(sink)) {
		uint64_t now = monotonic_ms();
		if (sink->gave_up || now >= deadline) {
			sink->gave_up = true;
			return;
		}
		struct pollfd p = {.fd = sink->fd, .events = POLLOUT};
		if (poll(&p, 1, (int)(deadline - now)) < 0 && errno != EINTR)
			return;
	}
}

void log_sink_attach(struct log_sink *sink, struct loop *loop)
{
	sink->retry = timer_new(loop, reader_ready, sink);
	if (!sink->retry)
		return; /* stays synchronous */
	sink->loop = loop;
	sink->writable = event_new(loop_base(loop), sink->fd, EV_WRITE, writable_due, sink);
	loop_defer(loop, &sink->flush);
}

static void forget_loop(struct log_sink *sink)
{
	if (!sink->loop)
		return;
	loop_defer_cancel(sink->loop, &sink->flush);
	if (sink->writable)
		event_free(sink->writable);
	sink->writable = NULL;
	timer_free(&sink->retry);
	sink->loop = NULL;
	sink->blocked = false;
}

void log_sink_detach(struct log_sink *sink)
{
	if (!sink->loop)
		return;
	forget_loop(sink);
	flush_now(sink);
	if (!sink->gave_up)
		report_recovery(sink);
}

void log_sink_put(struct log_sink *sink, const void *lines, size_t len_bytes)
{
	if (len_bytes > LOG_SINK_MAX_BYTES - waiting_bytes(sink)) {
		sink->dropped += count_lines(lines, len_bytes);
		return;
	}
	if (sink->written > LOG_SINK_MAX_BYTES / 2) {
		buf_consume(&sink->waiting, sink->written);
		sink->written = 0;
	}
	if (buf_append(&sink->waiting, lines, len_bytes) < 0) {
		sink->waiting.failed = false;
		sink->dropped += count_lines(lines, len_bytes);
		return;
	}
	if (!sink->loop)
		flush_now(sink);
	else if (sink->blocked)
		return;
	else if (waiting_bytes(sink) >= FLUSH_BYTES && !sink->in_recovered)
		flush_attached(sink);
	else
		loop_defer(sink->loop, &sink->flush);
}

size_t log_sink_waiting(const struct log_sink *sink)
{
	return waiting_bytes(sink);
}

uint64_t log_sink_dropped(const struct log_sink *sink)
{
	return sink->dropped;
}

bool log_sink_is_terminal(const struct log_sink *sink)
{
	return isatty(sink->source_fd) == 1;
}

void log_sink_reopen(struct log_sink *sink)
{
	struct loop *loop = sink->loop;
	forget_loop(sink);
	write_out(sink);
	if (sink->path && !is_file_at(sink->source_fd, sink->path)) {
		int fd = open(sink->path,
			O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0640);
		if (fd >= 0) {
			/* The caller's too: sanitizers and libraries write there. */
			dup2(fd, sink->source_fd);
			close(fd);
		}
	}
	close_own(sink);
	open_own(sink);
	sink->gave_up = false;
	if (loop)
		log_sink_attach(sink, loop);
}

void log_sink_free(struct log_sink **sink)
{
	struct log_sink *s = *sink;
	if (!s)
		return;
	*sink = NULL;
	forget_loop(s);
	close_own(s);
	buf_free(&s->waiting);
	free(s->path);
	free(s);
}
