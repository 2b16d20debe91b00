#include "supervisor/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/buf.h"
#include "common/log_sink.h"
#include "common/loop.h"
#include "supervisor/logfile.h"

#define READ_BYTES     16384
#define LINE_MAX_BYTES 8192 /* longer lines are cut into several */
/* A console with more than this to write takes no more, until it was read. */
#define CONSOLE_HIGH_BYTES (LOG_SINK_MAX_BYTES / 2)
#define RESUME_MS          10
#define DRAIN_READS        64 /* what a pipe holds, and more */

enum console { CONSOLE_STDOUT, CONSOLE_STDERR, CONSOLE_COUNT };

struct outputs {
	struct loop *loop;
	enum output_prefix prefix;
	struct log_sink *consoles[CONSOLE_COUNT]; /* made when first used */
	struct output *first;
	struct timer *resume;
	output_watch *watch;
	void *watch_arg;
};

struct output {
	struct outputs *outputs;
	struct output *next;
	char *label;
	bool is_stderr;
	char *path;
	int read_fd, write_fd;
	struct event *readable;
	bool paused;
	struct logfile *file;     /* or: */
	struct log_sink *console; /* or neither: /dev/null */
	bool raw;                 /* to the console as it comes */
	struct buf line;          /* the begun one; with prefix only */
	char *recent;             /* a ring of OUTPUT_RECENT_BYTES; made when first needed */
	size_t recent_total;      /* bytes that ever went there */
};

static void resume_paused(void *arg);

struct outputs *outputs_new(struct loop *loop, enum output_prefix prefix)
{
	struct outputs *outputs = calloc(1, sizeof *outputs);
	if (!outputs)
		return NULL;
	outputs->loop = loop;
	outputs->prefix = prefix;
	outputs->resume = timer_new(loop, resume_paused, outputs);
	if (!outputs->resume) {
		free(outputs);
		return NULL;
	}
	return outputs;
}

void outputs_free(struct outputs **outputs)
{
	struct outputs *o = *outputs;
	if (!o)
		return;
	*outputs = NULL;
	for (int i = 0; i < CONSOLE_COUNT; i++) {
		if (o->consoles[i])
			log_sink_detach(o->consoles[i]);
		log_sink_free(&o->consoles[i]);
	}
	timer_free(&o->resume);
	free(o);
}

void outputs_reopen(struct outputs *outputs)
{
	for (struct output *o = outputs->first; o; o = o->next)
		if (o->file)
			logfile_reopen(o->file);
}

static struct log_sink *console(struct outputs *outputs, enum console which)
{
	struct log_sink **sink = &outputs->consoles[which];
	if (!*sink) {
		*sink = log_sink_new(which == CONSOLE_STDOUT ? STDOUT_FILENO : STDERR_FILENO);
		if (*sink)
			log_sink_attach(*sink, outputs->loop);
	}
	return *sink;
}

static bool is_full(const struct output *o)
{
	return o->console && log_sink_waiting(o->console) > CONSOLE_HIGH_BYTES;
}

static void put_line(struct output *o, struct span text)
{
	char line[LINE_MAX_BYTES + 320];
	/* JSON lines say themselves whose they are, and stay readable for machines. */
	bool bare = o->outputs->prefix == OUTPUT_PREFIX_NEVER ||
		    (o->outputs->prefix == OUTPUT_PREFIX_AUTO && text.len && text.data[0] == '{');
	int n = bare ? snprintf(line, sizeof line, "%.*s\n", SPAN_ARG(text))
		     : snprintf(line, sizeof line, "%-14s | %.*s\n", o->label, SPAN_ARG(text));
	/* A NUL in the text ended it early: such bytes are not for a console. */
	if (n > 0)
		log_sink_put(o->console, line, strlen(line));
}

static void end_line(struct output *o)
{
	if (o->line.len)
		put_line(o, (struct span){(char *)o->line.data, o->line.len});
	buf_clear(&o->line);
}

static void put_lines(struct output *o, const char *data, size_t len)
{
	while (len) {
		const char *newline = memchr(data, '\n', len);
		size_t n = newline ? (size_t)(newline - data) : len;
		size_t room = LINE_MAX_BYTES - o->line.len;
		if (newline && !o->line.len && n <= LINE_MAX_BYTES) {
			put_line(o, (struct span){data, n});
		} else if (n < room) {
			buf_append(&o->line, data, n);
			if (newline)
				end_line(o);
		} else {
			n = room;
			newline = NULL;
			buf_append(&o->line, data, n);
			end_line(o);
		}
		n += newline ? 1 : 0;
		data += n;
		len -= n;
	}
}

static void remember(struct output *o, const char *data, size_t len)
{
	if (!o->recent)
		o->recent = malloc(OUTPUT_RECENT_BYTES);
	if (!o->recent)
		return;
	if (len > OUTPUT_RECENT_BYTES) {
		data += len - OUTPUT_RECENT_BYTES;
		o->recent_total += len - OUTPUT_RECENT_BYTES;
		len = OUTPUT_RECENT_BYTES;
	}
	size_t at = o->recent_total % OUTPUT_RECENT_BYTES;
	size_t first = OUTPUT_RECENT_BYTES - at < len ? OUTPUT_RECENT_BYTES - at : len;
	memcpy(o->recent + at, data, first);
	memcpy(o->recent, data + first, len - first);
	o->recent_total += len;
}

void output_recent(const struct output *o, size_t max_bytes, struct buf *out)
{
	size_t n = o->recent_total < OUTPUT_RECENT_BYTES ? o->recent_total : OUTPUT_RECENT_BYTES;
	if (!o->recent)
		return;
	for (size_t i = o->recent_total - (n < max_bytes ? n : max_bytes); i < o->recent_total; i++)
		buf_append_char(out, o->recent[i % OUTPUT_RECENT_BYTES]);
}

void outputs_watch(struct outputs *outputs, output_watch *watch, void *arg)
{
	outputs->watch = watch;
	outputs->watch_arg = arg;
}

/* One read; false when there was nothing to read. */
static bool read_some(struct output *o)
{
	static char data[READ_BYTES];
	ssize_t n;
	do
		n = read(o->read_fd, data, sizeof data);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return false;
	if (o->outputs->watch)
		o->outputs->watch(o->label, o->is_stderr, (struct span){data, (size_t)n},
			o->outputs->watch_arg);
	if (!o->file)
		remember(o, data, (size_t)n);
	if (o->file)
		logfile_write(o->file, data, (size_t)n);
	else if (o->raw)
		log_sink_put(o->console, data, (size_t)n);
	else
		put_lines(o, data, (size_t)n);
	return true;
}

static void readable_due(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct output *o = arg;
	if (!is_full(o)) {
		read_some(o);
		return;
	}
	event_del(o->readable);
	o->paused = true;
	if (!timer_armed(o->outputs->resume))
		timer_arm(o->outputs->resume, RESUME_MS);
}

static void resume_paused(void *arg)
{
	struct outputs *outputs = arg;
	bool again = false;
	for (struct output *o = outputs->first; o; o = o->next) {
		if (!o->paused)
			continue;
		if (is_full(o)) {
			again = true;
			continue;
		}
		o->paused = false;
		event_add(o->readable, NULL);
	}
	if (again)
		timer_arm(outputs->resume, RESUME_MS);
}

static int choose_target(
	struct output *o, const struct log_config *config, char *error, size_t size)
{
	enum console which = CONSOLE_STDERR;
	if (config->path) {
		o->path = strdup(config->path);
		if (!o->path)
			goto no_memory;
		o->raw = strcmp(o->path, "/dev/stdout") == 0 || strcmp(o->path, "/dev/stderr") == 0;
		if (!o->raw) {
			o->file = logfile_open(config->path, config->max_bytes,
				(unsigned)config->backups, error, size);
			return o->file ? 0 : -1;
		}
		/* Not opened by that name: it may be a socket or a pipe that cannot be. */
		if (strcmp(o->path, "/dev/stdout") == 0)
			which = CONSOLE_STDOUT;
	}
	o->console = console(o->outputs, which);
	if (o->console)
		return 0;
no_memory:
	snprintf(error, size, "out of memory");
	return -1;
}

static int make_pipe(struct output *o, char *error, size_t size)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0) {
		snprintf(error, size, "cannot make a pipe: %s", strerror(errno));
		return -1;
	}
	o->read_fd = fds[0];
	o->write_fd = fds[1];
	/* Ours only: the process finds an ordinary pipe. */
	fcntl(o->read_fd, F_SETFL, O_NONBLOCK);
	o->readable = event_new(
		loop_base(o->outputs->loop), o->read_fd, EV_READ | EV_PERSIST, readable_due, o);
	if (o->readable && event_add(o->readable, NULL) == 0)
		return 0;
	snprintf(error, size, "out of memory");
	return -1;
}

struct output *output_new(struct outputs *outputs, const struct log_config *config,
	const char *label, bool is_stderr, char *error, size_t error_size)
{
	struct output *o = calloc(1, sizeof *o);
	if (!o) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	o->outputs = outputs;
	o->label = strdup(label);
	o->is_stderr = is_stderr;
	o->read_fd = o->write_fd = -1;
	buf_init(&o->line, LINE_MAX_BYTES);
	o->next = outputs->first;
	outputs->first = o;
	if (!o->label) {
		snprintf(error, error_size, "out of memory");
		output_free(&o);
		return NULL;
	}
	if (config->kind != LOG_KIND_NONE && (choose_target(o, config, error, error_size) < 0 ||
						     make_pipe(o, error, error_size) < 0))
		output_free(&o);
	return o;
}

int output_fd(const struct output *output)
{
	return output->write_fd;
}

uint64_t output_lost_bytes(const struct output *output)
{
	return output->file ? logfile_lost_bytes(output->file) : 0;
}

const char *output_path(const struct output *output)
{
	return output->file ? output->path : NULL;
}

void output_drain(struct output *output)
{
	if (output->read_fd < 0)
		return;
	for (int i = 0; i < DRAIN_READS && !is_full(output) && read_some(output); i++)
		;
	end_line(output);
	buf_free(&output->line);
}

void output_free(struct output **output)
{
	struct output *o = *output;
	if (!o)
		return;
	*output = NULL;
	output_drain(o);
	for (struct output **at = &o->outputs->first; *at; at = &(*at)->next)
		if (*at == o) {
			*at = o->next;
			break;
		}
	if (o->readable)
		event_free(o->readable);
	if (o->read_fd >= 0) {
		close(o->read_fd);
		close(o->write_fd);
	}
	logfile_free(&o->file);
	buf_free(&o->line);
	free(o->path);
	free(o->label);
	free(o->recent);
	free(o);
}
