#ifndef GATEWAYD_CTL_CTL_H
#define GATEWAYD_CTL_CTL_H

/*
 * What the commands of cachectl share: options, exit codes, progress on the terminal, lines of a
 * file. cachectl.c is the table of commands.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/buf.h"
#include "common/span.h"

enum ctl_exit {
	CTL_OK = 0,
	CTL_PROBLEMS = 1,     /* done, and something is not well */
	CTL_USAGE = 64,       /* EX_USAGE */
	CTL_NO_INPUT = 66,    /* EX_NOINPUT */
	CTL_UNAVAILABLE = 69, /* EX_UNAVAILABLE: gateway or store cannot be reached */
	CTL_INTERRUPTED = 130,
};

struct ctl_options {
	const char *url, *key, *model, *store, *requests;
	unsigned parallel, batch;
	bool json, quiet, restart, overwrite, color;
};

enum ctl_exit ctl_warm(const struct ctl_options *options, const char *file);
enum ctl_exit ctl_verify(const struct ctl_options *options);
enum ctl_exit ctl_import(const struct ctl_options *options, const char *source);
enum ctl_exit ctl_export(const struct ctl_options *options, const char *target);
enum ctl_exit ctl_stats(const struct ctl_options *options);
/* Has options of its own: argv begins with the command's name. */
enum ctl_exit ctl_purge(int argc, char **argv);

/* Does it begin with http:// or https:// and name a host? If not, a sentence on stderr. len: it
 * need not end there. */
bool ctl_check_url(const char *url, size_t len);
/* Its length without slashes at its end. */
int ctl_url_len(const char *url);

/* ---- One line that says how far it is; drawn at most ten times a second, on a terminal ---- */

struct ctl_progress {
	bool shown; /* stderr is a terminal, and nobody asked for quiet */
	uint64_t started_us, drawn_us;
	double before; /* part that was done before this run */
};
void ctl_progress_init(struct ctl_progress *progress, const struct ctl_options *options);
/* part: 0 to 1, negative when unknown; text: what to say behind the bar. */
void ctl_progress_draw(struct ctl_progress *progress, double part, const char *text);
/* Remove the line. */
void ctl_progress_end(struct ctl_progress *progress);
double ctl_progress_seconds(const struct ctl_progress *progress);

/* ---- Lines ---- */

/* The next line without its end, borrowed until the next call; false at the end of the file. Lines
 * may be as long as CTL_MAX_LINE_BYTES; a longer one is cut there. */
#define CTL_MAX_LINE_BYTES (32u << 20)
struct ctl_lines {
	FILE *file;
	char *line;
	size_t size;
	uint64_t number; /* of the line, from 1 */
	uint64_t offset; /* of the first byte behind it */
};
bool ctl_lines_next(struct ctl_lines *lines, struct span *line);
void ctl_lines_close(struct ctl_lines *lines);

/* "12.3 GB"; "1,234,567". text: at least 32 bytes. */
void ctl_format_bytes(uint64_t bytes, char text[32]);
void ctl_format_count(uint64_t count, char text[32]);

/* SIGINT and SIGTERM end the run politely. */
void ctl_catch_signals(void);
bool ctl_interrupted(void);

#endif
