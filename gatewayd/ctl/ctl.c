#include "gatewayd/ctl/ctl.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR_WIDTH     24
#define DRAW_EVERY_US 100000

static uint64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- URLs ---- */

bool ctl_check_url(const char *url, size_t len)
{
	size_t scheme = len > 7 && strncasecmp(url, "http://", 7) == 0    ? 7
			: len > 8 && strncasecmp(url, "https://", 8) == 0 ? 8
									  : 0;
	if (scheme && !strchr("/:?#", url[scheme]))
		return true;
	fprintf(stderr, "cachectl: %.*s: not a URL; one looks like http://HOST:PORT\n", (int)len,
		url);
	return false;
}

int ctl_url_len(const char *url)
{
	size_t len = strlen(url);
	while (len && url[len - 1] == '/')
		len--;
	return (int)len;
}

/* ---- Progress ---- */

void ctl_progress_init(struct ctl_progress *progress, const struct ctl_options *options)
{
	*progress = (struct ctl_progress){
		.shown = !options->quiet && isatty(STDERR_FILENO), .started_us = now_us()};
}

double ctl_progress_seconds(const struct ctl_progress *progress)
{
	return (double)(now_us() - progress->started_us) / 1e6;
}

static void format_eta(const struct ctl_progress *progress, double part, char text[32])
{
	double done = part - progress->before;
	if (done <= 0) {
		snprintf(text, 32, "--:--");
		return;
	}
	double left = ctl_progress_seconds(progress) * (1 - part) / done;
	uint64_t seconds = left < 1e7 ? (uint64_t)left : 0;
	if (seconds >= 3600)
		snprintf(text, 32, "%" PRIu64 ":%02u:%02u", seconds / 3600,
			(unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60));
	else
		snprintf(text, 32, "%u:%02u", (unsigned)(seconds / 60), (unsigned)(seconds % 60));
}

void ctl_progress_draw(struct ctl_progress *progress, double part, const char *text)
{
	uint64_t now = now_us();
	if (!progress->shown || now - progress->drawn_us < DRAW_EVERY_US)
		return;
	progress->drawn_us = now;
	if (part < 0) {
		fprintf(stderr, "\r\033[K%s", text);
		return;
	}
	char bar[BAR_WIDTH + 1], eta[32];
	if (part > 1)
		part = 1;
	int full = (int)(part * BAR_WIDTH);
	for (int i = 0; i < BAR_WIDTH; i++)
		bar[i] = i < full ? '#' : '.';
	bar[BAR_WIDTH] = 0;
	format_eta(progress, part, eta);
	fprintf(stderr, "\r\033[K[%s] %3d%%  %s  ETA %s", bar, (int)(part * 100), text, eta);
}

void ctl_progress_end(struct ctl_progress *progress)
{
	if (progress->shown)
		fprintf(stderr, "\r\033[K");
}

/* ---- Lines ---- */

bool ctl_lines_next(struct ctl_lines *lines, struct span *line)
{
	ssize_t len = getline(&lines->line, &lines->size, lines->file);
	if (len < 0)
		return false;
	lines->number++;
	lines->offset += (uint64_t)len;
	while (len > 0 && (lines->line[len - 1] == '\n' || lines->line[len - 1] == '\r'))
		len--;
	*line = (struct span){lines->line, (size_t)len};
	if (line->len > CTL_MAX_LINE_BYTES)
		line->len = CTL_MAX_LINE_BYTES;
	return true;
}

void ctl_lines_close(struct ctl_lines *lines)
{
	if (lines->file)
		fclose(lines->file);
	free(lines->line);
	*lines = (struct ctl_lines){0};
}

/* ---- Numbers for people ---- */

void ctl_format_bytes(uint64_t bytes, char text[32])
{
	static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB"};
	double value = (double)bytes;
	size_t unit = 0;
	while (value >= 1000 && unit + 1 < sizeof units / sizeof units[0]) {
		value /= 1000;
		unit++;
	}
	snprintf(text, 32, unit && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

void ctl_format_count(uint64_t count, char text[32])
{
	char digits[32];
	int n = snprintf(digits, sizeof digits, "%" PRIu64, count), out = 0;
	for (int i = 0; i < n; i++) {
		if (i && (n - i) % 3 == 0)
			text[out++] = ',';
		text[out++] = digits[i];
	}
	text[out] = 0;
}

/* ---- Signals ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

void ctl_catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

bool ctl_interrupted(void)
{
	return interrupted != 0;
}
