#include "supervisor/ctl/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/terminal.h"

#define RED    "\033[31m"
#define GREEN  "\033[32m"
#define YELLOW "\033[33m"
#define DIM    "\033[2m"
#define BOLD   "\033[1m"
#define RESET  "\033[0m"

static const struct {
	const char *state, *color;
} colors[] = {{"RUNNING", GREEN}, {"STARTING", YELLOW}, {"STOPPING", YELLOW}, {"BACKOFF", YELLOW},
	{"FATAL", RED}, {"EXITED", DIM}, {"STOPPED", DIM}};

const char *table_state_color(struct span state)
{
	for (size_t i = 0; i < sizeof colors / sizeof *colors; i++)
		if (span_equal_str(state, colors[i].state))
			return colors[i].color;
	return "";
}

void table_duration(uint64_t ms, char text[16])
{
	uint64_t s = ms / 1000;
	if (s < 1)
		snprintf(text, 16, "%u ms", (unsigned)ms);
	else if (s < 60)
		snprintf(text, 16, "%us", (unsigned)s);
	else if (s < 3600)
		snprintf(text, 16, "%um %us", (unsigned)(s / 60), (unsigned)(s % 60));
	else if (s < 86400)
		snprintf(text, 16, "%uh %um", (unsigned)(s / 3600), (unsigned)(s / 60 % 60));
	else
		snprintf(text, 16, "%" PRIu64 "d %uh", s / 86400 % 100000,
			(unsigned)(s / 3600 % 24));
}

static void put_row(
	struct buf *out, const struct msg_program *program, size_t name_width, bool color)
{
	char pid[24] = "-", uptime[16] = "-", restarts[24];
	if (program->pid) {
		snprintf(pid, sizeof pid, "%" PRIu64, program->pid);
		table_duration(program->uptime_ms, uptime);
	}
	snprintf(restarts, sizeof restarts, "%" PRIu64, program->restarts);
	terminal_put(out, program->name, name_width);
	buf_append_str(out, "  ");
	if (color)
		buf_append_str(out, table_state_color(program->state));
	terminal_put(out, program->state.len ? program->state : SPAN_LITERAL("-"), 8);
	if (color)
		buf_append_str(out, RESET);
	buf_printf(out, "  %7s  %8s  %8s", pid, uptime, restarts);
	struct span detail = program->error.len ? program->error : program->description;
	if (detail.len) {
		buf_append_str(out, "  ");
		if (color)
			buf_append_str(out, program->error.len ? RED : DIM);
		terminal_put(out, detail, 0);
		if (color)
			buf_append_str(out, RESET);
	}
	buf_append_char(out, '\n');
}

void table_write(const struct msg_program_list *programs, bool color, struct buf *out)
{
	size_t width = strlen("NAME");
	for (size_t i = 0; i < programs->count; i++)
		if (programs->items[i].name.len > width)
			width = programs->items[i].name.len;
	if (color)
		buf_append_str(out, BOLD);
	terminal_put(out, SPAN_LITERAL("NAME"), width);
	buf_printf(
		out, "  %-8s  %7s  %8s  %8s  %s", "STATE", "PID", "UPTIME", "RESTARTS", "DETAIL");
	if (color)
		buf_append_str(out, RESET);
	buf_append_char(out, '\n');
	for (size_t i = 0; i < programs->count; i++)
		put_row(out, &programs->items[i], width, color);
}

void table_write_json(const struct msg_program_list *programs, struct buf *out)
{
	buf_append_str(out, "{\"programs\":[");
	for (size_t i = 0; i < programs->count; i++) {
		const struct msg_program *p = &programs->items[i];
		buf_append_str(out, i ? ",{\"name\":" : "{\"name\":");
		json_append_string(out, p->name);
		buf_append_str(out, ",\"state\":");
		json_append_string(out, p->state);
		buf_printf(out,
			",\"ready\":%s,\"pid\":%" PRIu64 ",\"uptime_ms\":%" PRIu64
			",\"restarts\":%" PRIu64 ",\"exit_code\":",
			p->ready ? "true" : "false", p->pid, p->uptime_ms, p->restarts);
		if (p->exit_code >= 0)
			buf_printf(out, "%" PRId64, p->exit_code);
		else
			buf_append_str(out, "null");
		buf_append_str(out, ",\"description\":");
		json_append_string(out, p->description);
		buf_append_str(out, ",\"error\":");
		if (p->error.len)
			json_append_string(out, p->error);
		else
			buf_append_str(out, "null");
		buf_append_char(out, '}');
	}
	buf_append_str(out, "]}\n");
}
