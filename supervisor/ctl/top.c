#include "supervisor/ctl/top.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "supervisor/ctl/pod_numbers.h"
#include "supervisor/ctl/table.h"
#include "supervisor/ctl/top_summary.h"

#define ANSWER_MAX_BYTES (4u << 20)
#define NAME_BYTES       160
#define DAEMONS_MS       500 /* patience with daemons that do not answer */

struct usage {
	char name[NAME_BYTES];
	uint64_t pid;
	double cpu_seconds, rss_bytes;
	double share; /* of a processor; 0.5 is half of one */
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

static void write_table(const struct look *look, bool color, struct buf *out)
{
	int width = 4;
	double share = 0, rss = 0;
	size_t n = look->status.programs.count;
	for (size_t i = 0; i < n; i++)
		if ((int)strlen(look->usages[i].name) > width)
			width = (int)strlen(look->usages[i].name);
	buf_printf(out, "%s%-*s  %-8s  %7s  %6s  %8s  %8s  %8s%s\n", color ? "\033[1m" : "", width,
		"NAME", "STATE", "PID", "CPU", "MEMORY", "UPTIME", "RESTARTS",
		color ? "\033[0m" : "");
	for (size_t i = 0; i < n; i++) {
		const struct msg_program *p = &look->status.programs.items[i];
		const struct usage *usage = &look->usages[i];
		char uptime[16] = "-", pid[24] = "-";
		if (p->pid) {
			table_duration(p->uptime_ms, uptime);
			snprintf(pid, sizeof pid, "%" PRIu64, p->pid);
		}
		buf_printf(out, "%-*s  %s%-8.*s%s  %7s  %5.1f%%  %5.1f MB  %8s  %8" PRIu64 "\n",
			width, usage->name, color ? table_state_color(p->state) : "",
			SPAN_ARG(p->state), color ? "\033[0m" : "", pid, usage->share * 100,
			usage->rss_bytes / 1e6, uptime, p->restarts);
		share += usage->share;
		rss += usage->rss_bytes;
	}
	buf_printf(out, "%-*s  %-8s  %7s  %5.1f%%  %5.1f MB\n", width, "all", "", "", share * 100,
		rss / 1e6);
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
			"\"resident_bytes\":%.0f,\"uptime_ms\":%" PRIu64 ",\"restarts\":%" PRIu64
			"}",
			p->pid, usage->cpu_seconds, usage->share, usage->rss_bytes, p->uptime_ms,
			p->restarts);
	}
	buf_append_str(out, "]}\n");
}

/* Over what is there, line by line, so that nothing flickers. */
static void write_over(const struct buf *frame)
{
	struct span rest = {(const char *)frame->data, frame->len};
	fputs("\033[H", stdout);
	while (rest.len) {
		const char *end = memchr(rest.data, '\n', rest.len);
		size_t len = end ? (size_t)(end - rest.data) : rest.len;
		fwrite(rest.data, 1, len, stdout);
		fputs("\033[K\n", stdout);
		len += end != NULL;
		rest = (struct span){rest.data + len, rest.len - len};
	}
	fputs("\033[J", stdout);
}

static void show(
	const struct look *now, const struct pod_look *pod, const struct top_options *options)
{
	struct buf frame = BUF_INIT(ANSWER_MAX_BYTES);
	if (options->json) {
		write_json(now, pod, &frame);
	} else {
		top_summary_write(pod, options->color, &frame);
		write_table(now, options->color, &frame);
	}
	if (options->once)
		fwrite(frame.data, 1, frame.len, stdout);
	else
		write_over(&frame);
	buf_free(&frame);
}

static struct pod_numbers *numbers_of(struct session *session)
{
	const char *socket = session_socket(session), *slash = strrchr(socket, '/');
	char dir[256];
	snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - socket) : 1, slash ? socket : ".");
	return pod_numbers_new(session_loop(session), dir);
}

enum ctl_exit top_show(struct session *session, const struct top_options *options)
{
	struct look before = {0}, now;
	struct pod_numbers *numbers = numbers_of(session);
	enum ctl_exit exit = numbers ? CTL_OK : CTL_FAILED;
	if (numbers && !options->once)
		fputs("\033[2J", stdout);
	while (numbers) {
		struct pod_look pod;
		exit = take(session, &now);
		if (exit != CTL_OK) {
			look_free(&now);
			break;
		}
		compare(&now, &before, options->interval_ms);
		pod_numbers_look(numbers, &now.status.programs, DAEMONS_MS, &pod);
		show(&now, &pod, options);
		look_free(&before);
		before = now;
		if (fflush(stdout) != 0 || options->once)
			break;
		if (!session_sleep(session, options->interval_ms)) {
			exit = CTL_NO_SUPERVISOR;
			break;
		}
	}
	look_free(&before);
	pod_numbers_free(&numbers);
	return exit;
}
