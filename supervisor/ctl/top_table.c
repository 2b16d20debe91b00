#include "supervisor/ctl/top_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/ctl/table.h"

#define STATE_WIDTH    8
#define MIN_NAME_WIDTH 8
#define FRAME_LINES    2 /* head and sum */

/* As they stand; the last one to be left out has the highest rank. */
enum column { PID, CPU, MEMORY, UPTIME, RESTARTS, COLUMNS };
static const struct {
	const char *head;
	size_t width;
	int rank;
} columns[COLUMNS] = {
	[PID] = {"PID", 7, 0},
	[CPU] = {"CPU", 6, 4},
	[MEMORY] = {"PSS", 9, 3},
	[UPTIME] = {"UPTIME", 8, 1},
	[RESTARTS] = {"RESTARTS", 8, 2},
};

struct layout {
	size_t name;
	bool has[COLUMNS];
};

static size_t width_of(const struct layout *layout)
{
	size_t width = layout->name + 2 + STATE_WIDTH;
	for (int i = 0; i < COLUMNS; i++)
		width += layout->has[i] ? 2 + columns[i].width : 0;
	return width;
}

static struct layout lay_out(const struct top_table *table)
{
	struct layout layout = {.name = strlen("NAME"), .has = {true, true, true, true, true}};
	for (size_t i = 0; i < table->n; i++)
		if (strlen(table->rows[i].name) > layout.name)
			layout.name = strlen(table->rows[i].name);
	for (int rank = 0; table->width && rank < COLUMNS; rank++)
		for (int i = 0; i < COLUMNS; i++)
			if (columns[i].rank == rank && width_of(&layout) > table->width)
				layout.has[i] = false;
	size_t width = width_of(&layout);
	if (table->width && width > table->width) {
		size_t over = width - table->width;
		layout.name = layout.name > MIN_NAME_WIDTH + over ? layout.name - over
								  : MIN_NAME_WIDTH;
	}
	return layout;
}

/* ---- lines ---- */

static void put_cell(
	const struct layout *layout, enum column column, const char *text, struct buf *out)
{
	if (layout->has[column])
		buf_printf(out, "  %*s", (int)columns[column].width, text);
}

static void put_memory(const struct layout *layout, double bytes, struct buf *out)
{
	char text[32];
	snprintf(text, sizeof text, "%.1f MB", bytes / 1e6);
	put_cell(layout, MEMORY, text, out);
}

static void put_share(const struct layout *layout, double share, struct buf *out)
{
	char text[32];
	snprintf(text, sizeof text, "%.1f%%", share * 100);
	put_cell(layout, CPU, text, out);
}

static void write_head(const struct top_table *table, const struct layout *layout, struct buf *out)
{
	buf_printf(out, "%s%-*.*s  %-*s", table->color ? "\033[1m" : "", (int)layout->name,
		(int)layout->name, "NAME", STATE_WIDTH, "STATE");
	for (int i = 0; i < COLUMNS; i++)
		put_cell(layout, (enum column)i,
			i == MEMORY && !table->is_pss ? "RSS" : columns[i].head, out);
	buf_printf(out, "%s\n", table->color ? "\033[0m" : "");
}

static void write_row(const struct top_table *table, const struct layout *layout,
	const struct top_row *row, struct buf *out)
{
	char uptime[16] = "-", pid[24] = "-", restarts[24];
	if (row->pid) {
		table_duration(row->uptime_ms, uptime);
		snprintf(pid, sizeof pid, "%" PRIu64, row->pid);
	}
	snprintf(restarts, sizeof restarts, "%" PRIu64, row->restarts);
	buf_printf(out, "%-*.*s  %s%-*.*s%s", (int)layout->name, (int)layout->name, row->name,
		table->color ? table_state_color(row->state) : "", STATE_WIDTH,
		SPAN_ARG(row->state), table->color ? "\033[0m" : "");
	put_cell(layout, PID, pid, out);
	put_share(layout, row->cpu_share, out);
	put_memory(layout, row->memory_bytes, out);
	put_cell(layout, UPTIME, uptime, out);
	put_cell(layout, RESTARTS, restarts, out);
	buf_append_char(out, '\n');
}

static void write_sum(const struct top_table *table, const struct layout *layout, struct buf *out)
{
	double share = 0, bytes = 0;
	for (size_t i = 0; i < table->n; i++) {
		share += table->rows[i].cpu_share;
		bytes += table->rows[i].memory_bytes;
	}
	buf_printf(out, "%-*s  %*s", (int)layout->name, "all", STATE_WIDTH, "");
	put_cell(layout, PID, "", out);
	put_share(layout, share, out);
	if (table->is_pss)
		put_memory(layout, bytes, out);
	buf_append_char(out, '\n');
}

static bool runs(const struct top_row *row)
{
	return span_equal_str(row->state, "RUNNING");
}

void top_table_write(const struct top_table *table, struct buf *out)
{
	struct layout layout = lay_out(table);
	size_t room = table->n, hidden = 0, running_room;
	if (table->height && table->n + FRAME_LINES > table->height) {
		size_t lines = FRAME_LINES + 1; /* how many are not shown */
		room = table->height > lines ? table->height - lines : 0;
		hidden = table->n - room;
	}
	running_room = room;
	for (size_t i = 0; i < table->n; i++)
		running_room -= !runs(&table->rows[i]) && running_room;
	write_head(table, &layout, out);
	for (size_t i = 0; i < table->n && room; i++) {
		const struct top_row *row = &table->rows[i];
		if (runs(row) && hidden && running_room == 0)
			continue;
		running_room -= runs(row) && running_room;
		write_row(table, &layout, row, out);
		room--;
	}
	if (hidden)
		buf_printf(out, "and %zu more\n", hidden);
	write_sum(table, &layout, out);
}
