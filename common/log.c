#include "common/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log_line.h"
#include "common/log_sink.h"
#include "common/terminal.h"

/* One process has one stderr: the only module of common/ with state of its own. */
static struct {
	struct log_sink *sink;
	char name[64];
	enum log_format format;
	bool text, color;
	uint64_t lines[LOG_LEVEL_FATAL + 1];
	struct buf line;
} logger = {.line = BUF_INIT(2 * LOG_LINE_MAX_BYTES)};
static _Atomic int threshold = LOG_LEVEL_INFO;

static const char *const level_names[] = {"debug", "info", "warn", "error", "fatal"};

static void lines_were_dropped(uint64_t dropped, void *arg)
{
	(void)arg;
	log_fields(LOG_LEVEL_WARN, NULL, "log lines were dropped: stderr was not read fast enough",
		LOG_INT("dropped", dropped));
}

static void choose_form(void)
{
	bool terminal = logger.sink && log_sink_is_terminal(logger.sink);
	logger.text = logger.format == LOG_FORMAT_TEXT ||
		      (logger.format == LOG_FORMAT_AUTO && terminal);
	logger.color = terminal && terminal_allows_color();
}

void log_open(const char *name, enum log_level level, enum log_format format)
{
	snprintf(logger.name, sizeof logger.name, "%s", name);
	logger.format = format;
	log_set_level(level);
	if (!logger.sink) {
		logger.sink = log_sink_new(STDERR_FILENO);
		if (logger.sink)
			log_sink_on_recovered(logger.sink, lines_were_dropped, NULL);
	}
	choose_form();
}

static void open_if_needed(void)
{
	if (!logger.sink)
		log_open(logger.name[0] ? logger.name : program_invocation_short_name, log_level(),
			logger.format);
}

void log_attach(struct loop *loop)
{
	open_if_needed();
	if (logger.sink)
		log_sink_attach(logger.sink, loop);
}

void log_detach(void)
{
	if (logger.sink)
		log_sink_detach(logger.sink);
}

void log_close(void)
{
	log_detach();
	log_sink_free(&logger.sink);
	buf_free(&logger.line);
}

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&threshold, (int)level, memory_order_relaxed);
}

enum log_level log_level(void)
{
	return (enum log_level)atomic_load_explicit(&threshold, memory_order_relaxed);
}

int log_level_parse(struct span name, enum log_level *level)
{
	static const struct {
		const char *name;
		enum log_level level;
	} aliases[] = {{"warning", LOG_LEVEL_WARN}, {"critical", LOG_LEVEL_FATAL}};
	for (int i = 0; i <= LOG_LEVEL_FATAL; i++)
		if (span_equal_nocase(name, level_names[i])) {
			*level = (enum log_level)i;
			return 0;
		}
	for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
		if (span_equal_nocase(name, aliases[i].name)) {
			*level = aliases[i].level;
			return 0;
		}
	return -1;
}

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

uint64_t log_dropped(void)
{
	return logger.sink ? log_sink_dropped(logger.sink) : 0;
}

uint64_t log_lines(enum log_level level)
{
	return logger.lines[level];
}

void log_reopen(void)
{
	if (!logger.sink)
		return;
	log_sink_reopen(logger.sink);
	choose_form();
}

void log_event(enum log_level level, const char *trace, const struct log_field *fields,
	unsigned n_fields, const char *fmt, ...)
{
	open_if_needed();
	if (!logger.sink)
		return;
	char body[LOG_VALUE_MAX_BYTES + 2];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(body, sizeof body, fmt, ap);
	va_end(ap);
	struct log_entry entry = {.level = level,
		.name = logger.name,
		.trace = trace,
		.body = {body, n < 0                     ? 0
			       : (size_t)n < sizeof body ? (size_t)n
							 : sizeof body - 1},
		.fields = fields,
		.n_fields = n_fields};
	clock_gettime(CLOCK_REALTIME, &entry.time);
	buf_clear(&logger.line);
	if (logger.text)
		log_line_text(&logger.line, &entry, logger.color);
	else
		log_line_json(&logger.line, &entry);
	logger.lines[level]++;
	if (!buf_failed(&logger.line))
		log_sink_put(logger.sink, logger.line.data, logger.line.len);
}

void die(int exit_code, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	log_event(LOG_LEVEL_FATAL, NULL, NULL, 0, "%s", text);
	log_close();
	exit(exit_code);
}

void log_bug(const char *file, int line, const char *what)
{
	static _Atomic bool again;
	/* On the loop thread what is gathered goes out first: it says how it came to this.
	 * Elsewhere nothing of ours may be touched. */
	if (!atomic_exchange(&again, true) && gettid() == getpid()) {
		log_event(LOG_LEVEL_FATAL, NULL, NULL, 0, "BUG at %s:%d: %s", file, line, what);
		log_detach();
	} else {
		dprintf(STDERR_FILENO, "%s: BUG at %s:%d: %s\n", logger.name, file, line, what);
	}
	abort();
}
