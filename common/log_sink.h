#ifndef COMMON_LOG_SINK_H
#define COMMON_LOG_SINK_H

/*
 * Where log lines go: a descriptor that may be a file, a pipe, a socket or a terminal, and whose
 * reader may not read. Lines are gathered and written at the end of the turn; a full descriptor is
 * waited for by the loop. At most LOG_SINK_MAX_BYTES wait; further lines are dropped and counted.
 * Without a loop lines are written at once, waiting up to LOG_SINK_WAIT_MS for the reader.
 *
 *   file                   as it is, since it never blocks and its offset may be shared
 *   pipe, terminal         reopened through /proc/self/fd, so that O_NONBLOCK is ours alone
 *   socket                 sent with MSG_DONTWAIT
 *   when reopening fails   poll(), then at most PIPE_BUF bytes (a terminal that was stopped with
 *                          Ctrl-S can block then)
 *
 * Pieces end at line ends, and are at most PIPE_BUF bytes unless it is a file, so that lines of
 * processes that share a pipe do not mix.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_SINK_MAX_BYTES (256u << 10)
#define LOG_SINK_WAIT_MS   1000

struct loop;
struct log_sink;

/* fd stays the caller's and open. NULL when out of memory. */
struct log_sink *log_sink_new(int fd);
/* on_recovered: called when lines can be written again after `dropped` were lost since the last
 * call; it may put one line. */
void log_sink_on_recovered(
	struct log_sink *sink, void (*on_recovered)(uint64_t dropped, void *arg), void *arg);
void log_sink_attach(struct log_sink *sink, struct loop *loop);
/* Writes out what waits, for at most LOG_SINK_WAIT_MS. */
void log_sink_detach(struct log_sink *sink);
/* One or more whole lines; copied. */
void log_sink_put(struct log_sink *sink, const void *lines, size_t len_bytes);
/* Bytes that wait for the reader: for writers who would rather wait than lose lines. */
size_t log_sink_waiting(const struct log_sink *sink);
/* All lines lost so far: no room, or a write error. */
uint64_t log_sink_dropped(const struct log_sink *sink);
bool log_sink_is_terminal(const struct log_sink *sink);
/* A file that was renamed or deleted since is made again under its old name. */
void log_sink_reopen(struct log_sink *sink);
void log_sink_free(struct log_sink **sink);

#endif
