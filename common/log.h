#ifndef COMMON_LOG_H
#define COMMON_LOG_H

/*
 * Logs: one JSON object a line on stderr (OpenTelemetry's log data model: time, severitytext, name,
 * body, traceid, spanid, then the fields), plain text when stderr is a terminal. Lines are gathered
 * and written when the loop is idle or the batch is full; a reader that does not read never blocks
 * the loop: past the bound, lines are dropped and counted. Before log_attach() and after
 * log_detach() lines are written at once.
 *
 * Secrets and texts are never logged, only lengths and hashes. Loop thread only, apart from
 * log_level().
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/span.h"

struct loop;

enum log_level {
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_INFO,
	LOG_LEVEL_WARN,
	LOG_LEVEL_ERROR,
	LOG_LEVEL_FATAL
};
enum log_format { LOG_FORMAT_AUTO, LOG_FORMAT_JSON, LOG_FORMAT_TEXT };

/* One field of a line. Strings are borrowed for the call; name is a constant without characters
 * that JSON escapes. */
struct log_field {
	const char *name;
	enum { LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_DOUBLE, LOG_FIELD_BOOL } type;
	union {
		struct span str;
		int64_t integer;
		double number;
		bool boolean;
	};
};
#define LOG_STR(n, s)  ((struct log_field){.name = (n), .type = LOG_FIELD_STR, .str = span_of(s)})
#define LOG_SPAN(n, s) ((struct log_field){.name = (n), .type = LOG_FIELD_STR, .str = (s)})
#define LOG_INT(n, v) \
	((struct log_field){.name = (n), .type = LOG_FIELD_INT, .integer = (int64_t)(v)})
#define LOG_DOUBLE(n, v) ((struct log_field){.name = (n), .type = LOG_FIELD_DOUBLE, .number = (v)})
#define LOG_BOOL(n, v)   ((struct log_field){.name = (n), .type = LOG_FIELD_BOOL, .boolean = (v)})

/* name is the daemon's, e.g. "gatewayd.0"; copied. Usable at once, before any loop exists. */
void log_open(const char *name, enum log_level level, enum log_format format);
void log_attach(struct loop *loop);
/* Write out what is gathered (waiting at most 1 s for the reader) and become synchronous. */
void log_detach(void);
/* log_detach() and give everything back; the next line opens the log again. */
void log_close(void);
void log_set_level(enum log_level level);
enum log_level log_level(void);
/* -1 for an unknown name; any case; "warning" is warn and "critical" is fatal. */
int log_level_parse(struct span name, enum log_level *level);
const char *log_level_name(enum log_level level);
uint64_t log_dropped(void);
uint64_t log_lines(enum log_level level);
/* After rotation: a file that was renamed is made again under its old name. Called on SIGHUP. */
void log_reopen(void);

/* trace: "00-<trace id>-<span id>-01" of the request or purge that the line is about (TRACE_TEXT()
 * in trace.h); NULL or "" when it is about none: a peer, a file, the daemon itself. */
void log_event(enum log_level level, const char *trace, const struct log_field *fields,
	unsigned n_fields, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

#define log_at(level, ...) \
	((level) >= log_level() ? log_event((level), NULL, NULL, 0, __VA_ARGS__) : (void)0)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...)  log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
/* log_fields(LOG_LEVEL_INFO, trace, "sentence", LOG_STR("peer", p), LOG_INT("bytes", n)) */
#define log_fields(level, trace, sentence, ...)                                                  \
	((level) >= log_level() ? log_event((level), (trace), (struct log_field[]){__VA_ARGS__}, \
					  sizeof((struct log_field[]){__VA_ARGS__}) /            \
						  sizeof(struct log_field),                      \
					  "%s", (sentence))                                      \
				: (void)0)

/* An impossible start-up: logs, writes everything out, exits with a sysexits(3) code. */
void die(int exit_code, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
/* Our own broken invariant: logs where, then abort()s. Stays on in release builds. */
#define BUG_ON(condition) ((condition) ? log_bug(__FILE__, __LINE__, #condition) : (void)0)
void log_bug(const char *file, int line, const char *what) __attribute__((noreturn));

#endif
