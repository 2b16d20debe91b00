#ifndef SUPERVISOR_CTL_TOP_TABLE_H
#define SUPERVISOR_CTL_TOP_TABLE_H

/*
 * The programs of `podctl top`, a line each, and their sum:
 *
 *   NAME            STATE         PID     CPU       PSS    UPTIME  RESTARTS
 *
 * PSS is the memory that a program has to itself and its part of what it shares with others: the
 * sum is true, though hashd maps the memory of every gatewayd. Where that may not be read the
 * column is RSS, and has no sum.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"

struct top_row {
	const char *name;
	struct span state;
	uint64_t pid; /* 0: no process */
	double cpu_share, memory_bytes;
	uint64_t uptime_ms, restarts;
};
struct top_table {
	const struct top_row *rows;
	size_t n;
	bool is_pss, color;
	/* 0: as it comes. Columns that do not fit are left out (PID, UPTIME, RESTARTS, memory, in
	 * this order), long names cut; where there are too few lines, those that run are left out
	 * first, and counted. */
	size_t width, height;
};

void top_table_write(const struct top_table *table, struct buf *out);

#endif
