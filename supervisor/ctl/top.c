#include "supervisor/ctl/top.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/json.h"
#include "supervisor/ctl/pod_numbers.h"
#include "supervisor/ctl/top_summary.h"
#include "supervisor/ctl/top_table.h"

#define ANSWER_MAX_BYTES (4u << 20)
#define NAME_BYTES       160
#define DAEMONS_MS       500 /* patience with daemons that do not answer */

struct usage {
	char name[NAME_BYTES];
	uint64_t pid;
	double cpu_seconds, rss_bytes;
	double pss_bytes; /* -1: may not be read */
	double share;     /* of a processor; 0.5 is half of one */
};

struct look {
	struct msg_programs_result status;
	struct buf status_bytes;
	struct usage *usages;
};

static const struct usage *find(const struct usage *usages, size_t n, struct span name)
{
	for (size_t i = 0; i < n; i++)
		if (span_equal_str(name, usages[i].name))
			return &usages[i];
	return NULL;
}

static void take_family(struct look *look, const struct msg_metric_family *family)
{
	bool is_cpu = span_equal_str(family->name, "supervisor_program_cpu_seconds");
	bool is_rss = span_equal_str(family->name, "supervisor_program_resident_memory_bytes");
	for (size_t i = 0; (is_cpu || is_rss) && i < family->samples.count; i++) {
		const struct msg_metric_sample *sample = &family->samples.items[i];
		if (!sample->values.count)
			continue;
		struct usage *usage = (struct usage *)find(
			look->usages, look->status.programs.count, sample->values.items[0]);
		if (usage)
			*(is_cpu ? &usage->cpu_seconds : &usage->rss_bytes) = sample->value;
	}
}

/* proc(5). The kernel looks at each page of the process: 6 ms for a GB, here and not in a daemon.
 * 0: it has gone. */
static double read_pss_bytes(uint64_t pid)
{
	char path[64], line[128];
	double kb = 0;
	snprintf(path, sizeof path, "/proc/%" PRIu64 "/smaps_rollup", pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return errno == EACCES || errno == EPERM ? -1 : 0;
	while (fgets(line, sizeof line, file) && sscanf(line, "Pss: %lf kB", &kb) != 1)
		;
	fclose(file);
	return kb * 1024;
}

static enum ctl_exit take(struct session *session, struct look *look)
{
	static const struct msg_programs_params all;
	static const struct msg_empty nothing;
	struct buf metrics = BUF_INIT(ANSWER_MAX_BYTES);
	struct msg_metrics_result result;
	struct msg_error error;
	*look = (struct look){.status_bytes = BUF_INIT(ANSWER_MAX_BYTES)};
	enum ctl_exit exit = session_ask(session, "status", msg_programs_params_schema(), &all, 0,
		false, &look->status_bytes);
	if (exit == CTL_OK)
		exit = session_ask(
			session, "metrics", msg_empty_schema(), &nothing, 0, false, &metrics);
	struct span status = {(char *)look->status_bytes.data, look->status_bytes.len};
	if (exit == CTL_OK && msg_programs_result_unpack(status, &look->status, &error) < 0)
		exit = CTL_FAILED;
	size_t n = look->status.programs.count;
	look->usages = calloc(n + 1, sizeof *look->usages);
	if (!look->usages)
		exit = CTL_FAILED;
	for (size_t i = 0; look->usages && i < n; i++) {
		const struct msg_program *p = &look->status.programs.items[i];
		snprintf(look->usages[i].name, NAME_BYTES, "%.*s", SPAN_ARG(p->name));
		look->usages[i].pid = p->pid;
		look->usages[i].pss_bytes = p->pid ? read_pss_bytes(p->pid) : 0;
	}
	if (exit == CTL_OK &&
		msg_metrics_result_unpack(
			(struct span){(char *)metrics.data, metrics.len}, &result, &error) == 0) {
		for (size_t i = 0; i < result.families.count; i++)
			take_family(look, &result.families.items[i]);
		msg_metrics_result_free(&result);
	}
	buf_free(&metrics);
	return exit;
}

static void look_free(struct look *look)
{
	msg_programs_result_free(&look->status);
	buf_free(&look->status_bytes);
	free(look->usages);
	*look = (struct look){0};
}

static void compare(struct look *now, const struct look *before, uint64_t interval_ms)
{
	for (size_t i = 0; i < now->status.programs.count; i++) {
		struct usage *usage = &now->usages[i];
		const struct usage *old = before->usages ? find(before->usages,
								   before->status.programs.count,
								   span_of(usage->name))
							 : NULL;
		double used = usage->cpu_seconds,
		       ms = (double)now->status.programs.items[i].uptime_ms;
		if (old && old->pid == usage->pid) {
			used -= old->cpu_seconds;
			ms = (double)interval_ms;
		}
		usage->share = ms > 0 && used > 0 ? used * 1000 / ms : 0;
	}
}

static void write_table(
	const struct look *look, bool color, struct winsize size, size_t above, struct buf *out)
{
	size_t n = look->status.programs.count;
	struct top_row *rows = calloc(n + 1, sizeof *rows);
	if (!rows)
		return;
	struct top_table table = {.rows = rows,
		.n = n,
		.is_pss = true,
		.color = color,
		.width = size.ws_col,
		.height = size.ws_row > above ? size.ws_row - above
			  : size.ws_row       ? 1
					      : 0};
	for (size_t i = 0; i < n; i++)
		table.is_pss &= look->usages[i].pss_bytes >= 0;
	for (size_t i = 0; i < n; i++) {
		const struct msg_program *p = &look->status.programs.items[i];
		const struct usage *usage = &look->usages[i];
		rows[i] = (struct top_row){.name = usage->name,
			.state = p->state,
			.pid = p->pid,
			.cpu_share = usage->share,
			.memory_bytes = table.is_pss ? usage->pss_bytes : usage->rss_bytes,
			.uptime_ms = p->uptime_ms,
			.restarts = p->restarts};
	}
	top_table_write(&table, out);
	free(rows);
}

static void write_json(const struct look *look, const struct pod_look *pod, struct buf *out)
{
	buf_append_str(out, "{\"pod\":");
	top_summary_write_json(pod, out);
	buf_append_str(out, ",\"programs\":[");
	for (size_t i = 0; i < look->status.programs.count; i++) {
		const struct msg_program *p = &look->status.programs.items[i];
		const struct usage *usage = &look->usages[i];
		buf_append_str(out, i ? ",{\"name\":" : "{\"name\":");
		json_append_string(out, p->name);
		buf_append_str(out, ",\"state\":");
		json_append_string(out, p->state);
		buf_printf(out,
			",\"pid\":%" PRIu64 ",\"cpu_seconds\":%.2f,\"cpu_share\":%.4f,"
			"\"resident_bytes\":%.0f,",
			p->pid, usage->cpu_seconds, usage->share, usage->rss_bytes);
		if (usage->pss_bytes >= 0)
			buf_printf(out, "\"pss_bytes\":%.0f,", usage->pss_bytes);
		else
			buf_append_str(out, "\"pss_bytes\":null,");
		buf_printf(out, "\"uptime_ms\":%" PRIu64 ",\"restarts\":%" PRIu64 "}", p->uptime_ms,
			p->restarts);
	}
	buf_append_str(out, "]}\n");
}

/* Over what is there, line by line, so that nothing flickers. The last line has no newline, which
 * would move all up by one. */
static void write_over(struct span rest, size_t height)
{
	fputs("\033[H", stdout);
	for (size_t n = 0; rest.len && (!height || n < height); n++) {
		const char *end = memchr(rest.data, '\n', rest.len);
		size_t len = end ? (size_t)(end - rest.data) : rest.len;
		fputs(n ? "\n" : "", stdout);
		fwrite(rest.data, 1, len, stdout);
		fputs("\033[K", stdout);
		len += end != NULL;
		rest = (struct span){rest.data + len, rest.len - len};
	}
	fputs("\033[J", stdout);
}

static size_t count_lines(struct span text)
{
	size_t n = 0;
	for (size_t i = 0; i < text.len; i++)
		n += text.data[i] == '\n';
	return n;
}

/* The first lines only. */
static void cut_lines(struct buf *text, size_t n)
{
	size_t at = 0;
	for (; n && at < text->len; at++)
		n -= text->data[at] == '\n';
	text->len = at;
}

/* Rows for trouble, even when the pod's numbers need the room. */
#define MIN_TABLE_LINES 6

static void write_frame(const struct look *now, const struct pod_look *pod, bool color,
	struct winsize size, struct buf *frame)
{
	top_summary_write(pod, color, size.ws_col, frame);
	size_t lines = count_lines((struct span){(const char *)frame->data, frame->len});
	size_t table = now->status.programs.count + 2;
	table = table < MIN_TABLE_LINES ? table : MIN_TABLE_LINES;
	if (size.ws_row && lines + table > size.ws_row) {
		lines = size.ws_row > table ? size.ws_row - table : 0;
		cut_lines(frame, lines);
	}
	write_table(now, color, size, lines, frame);
}

/* Zeros: as it comes. */
static struct winsize size_of_screen(const struct top_options *options)
{
	struct winsize size = {0};
	if (options->once || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
		return (struct winsize){0};
	return size;
}

static void show(
	const struct look *now, const struct pod_look *pod, const struct top_options *options)
{
	struct buf frame = BUF_INIT(ANSWER_MAX_BYTES);
	struct winsize size = size_of_screen(options);
	if (options->json)
		write_json(now, pod, &frame);
	else
		write_frame(now, pod, options->color, size, &frame);
	if (options->once)
		fwrite(frame.data, 1, frame.len, stdout);
	else
		write_over((struct span){(const char *)frame.data, frame.len}, size.ws_row);
	buf_free(&frame);
}

static struct pod_numbers *numbers_of(struct session *session)
{
	const char *socket = session_socket(session), *slash = strrchr(socket, '/');
	char dir[256];
	snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - socket) : 1, slash ? socket : ".");
	return pod_numbers_new(session_loop(session), dir);
}

/* On a screen: says that the supervisor is away, until it is back. */
static bool await_supervisor(struct session *session, const struct top_options *options)
{
	char line[400];
	struct winsize size = size_of_screen(options);
	size_t len = (size_t)snprintf(line, sizeof line,
		"the supervisor is away: waiting for it (%s)", session_socket(session));
	len = len < sizeof line ? len : sizeof line - 1;
	write_over((struct span){line, size.ws_col && size.ws_col < len ? size.ws_col : len},
		size.ws_row);
	while (fflush(stdout) == 0)
		if (session_await(session, options->interval_ms))
			return true;
	return false;
}

enum ctl_exit top_show(struct session *session, const struct top_options *options)
{
	struct look before = {0}, now;
	struct pod_numbers *numbers = numbers_of(session);
	enum ctl_exit exit = numbers ? CTL_OK : CTL_FAILED;
	if (numbers && !options->once) {
		fputs("\033[2J", stdout);
		session_set_quiet(session);
	}
	while (numbers) {
		struct pod_look pod;
		exit = take(session, &now);
		if (exit == CTL_OK) {
			compare(&now, &before, options->interval_ms);
			pod_numbers_look(numbers, &now.status.programs, DAEMONS_MS, &pod);
			show(&now, &pod, options);
			look_free(&before);
			before = now;
		} else {
			look_free(&now);
		}
		if (options->once || fflush(stdout) != 0)
			break;
		if (exit != CTL_OK && exit != CTL_NO_SUPERVISOR)
			break;
		bool there = exit == CTL_OK && session_sleep(session, options->interval_ms);
		if (!there && !await_supervisor(session, options))
			break;
	}
	look_free(&before);
	pod_numbers_free(&numbers);
	return exit;
}
