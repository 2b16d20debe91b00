#include "supervisor/ctl/top_summary.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"

#define RED    "\033[31m"
#define GREEN  "\033[32m"
#define YELLOW "\033[33m"
#define RESET  "\033[0m"

static const char *const breakers[] = {"closed", "open", "half-open"};
static const char *const breaker_colors[] = {GREEN, RED, YELLOW};

static double rate(const struct pod_look *look, enum pod_number number)
{
	return look->seconds > 0 ? look->recent[number] / look->seconds : 0;
}

/* Recent ones; all there were when nothing happened. */
static const double *elements(const struct pod_look *look, double *all)
{
	const double *of = look->recent;
	for (int pass = 0; pass < 2; pass++, of = look->total) {
		*all = 0;
		for (int i = POD_FROM_MEMORY; i <= POD_BOUGHT; i++)
			*all += of[i];
		if (*all > 0)
			return of;
	}
	return look->total;
}

/* ---- numbers ---- */

struct text {
	char bytes[48];
};

static const char *duration(double seconds, struct text *to)
{
	if (isnan(seconds))
		snprintf(to->bytes, sizeof to->bytes, "-");
	else if (seconds < 1e-3)
		snprintf(to->bytes, sizeof to->bytes, "%.0f us", seconds * 1e6);
	else if (seconds < 1)
		snprintf(to->bytes, sizeof to->bytes, "%.3g ms", seconds * 1e3);
	else
		snprintf(to->bytes, sizeof to->bytes, "%.3g s", seconds);
	return to->bytes;
}

static const char *count(double n, struct text *to)
{
	if (n < 1e4)
		snprintf(to->bytes, sizeof to->bytes, "%.0f", n);
	else if (n < 1e6)
		snprintf(to->bytes, sizeof to->bytes, "%.1fk", n / 1e3);
	else if (n < 1e9)
		snprintf(to->bytes, sizeof to->bytes, "%.2fM", n / 1e6);
	else
		snprintf(to->bytes, sizeof to->bytes, "%.2fG", n / 1e9);
	return to->bytes;
}

/* ---- lines ---- */

/* Pieces, as many as fit; what is most wanted comes first. */
struct line {
	struct buf *out;
	bool color, full;
	size_t width, used; /* 0: any */
	const char *between;
};

static struct line line_start(struct buf *out, bool color, size_t width, const char *label)
{
	struct line line = {.out = out, .color = color, .width = width, .between = ""};
	if (*label) {
		buf_printf(out, "%-11s", label);
		line.used = 11;
	}
	return line;
}

static void put(struct line *line, const char *color, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void put(struct line *line, const char *color, const char *fmt, ...)
{
	char text[256];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	size_t len = strlen(text), gap = strlen(line->between);
	size_t room = line->width > line->used + gap ? line->width - line->used - gap : 0;
	if (!line->width)
		room = len;
	/* The first piece is cut, the others are whole or not there. */
	line->full |= len > room && gap;
	if (line->full)
		return;
	len = len < room ? len : room;
	color = line->color ? color : "";
	buf_printf(
		line->out, "%s%s%.*s%s", line->between, color, (int)len, text, *color ? RESET : "");
	line->used += gap + len;
	line->between = "  ";
}

static void line_end(struct line *line)
{
	buf_append_char(line->out, '\n');
}

static void put_times(struct line *line, const struct pod_histogram *h)
{
	struct text half, most;
	put(line, "", "p50 %s", duration(pod_histogram_quantile(h, .5), &half));
	put(line, "", "p99 %s", duration(pod_histogram_quantile(h, .99), &most));
}

static void put_hits(struct line *line, const struct pod_look *look)
{
	double all;
	const double *of = elements(look, &all);
	if (all <= 0) {
		put(line, "", "-");
		return;
	}
	put(line, "", "%.1f%%", (of[POD_FROM_MEMORY] + of[POD_FROM_STORE]) * 100 / all);
	put(line, "", "memory %.1f%%", of[POD_FROM_MEMORY] * 100 / all);
	put(line, "", "store %.1f%%", of[POD_FROM_STORE] * 100 / all);
	put(line, "", "joined %.1f%%", of[POD_JOINED] * 100 / all);
	put(line, "", "bought %.1f%%", of[POD_BOUGHT] * 100 / all);
}

/* "gatewayd.1 is stopped", by what podctl status calls it. */
static const char *state_words(const char *state)
{
	static const char *const words[][2] = {{"STOPPED", "is stopped"},
		{"STARTING", "is starting"}, {"STOPPING", "is stopping"},
		{"BACKOFF", "is started again"}, {"EXITED", "has ended"}, {"FATAL", "has failed"}};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcmp(state, words[i][0]) == 0)
			return words[i][1];
	return "does not run";
}

static void put_trouble(struct line *line, const struct pod_look *look)
{
	if (look->silent[0])
		put(line, RED, "%s does not answer", look->silent);
	if (look->idle[0])
		put(line, YELLOW, "%s %s", look->idle, state_words(look->idle_state));
	if (look->n_idle > 1)
		put(line, YELLOW, "so %s %zu more", look->n_idle == 2 ? "is" : "are",
			look->n_idle - 1);
	put(line, "", "%zu of %zu daemons answer", look->n_answered, look->n_daemons);
}

static void put_provider(struct line *line, const struct pod_look *look)
{
	struct text purges;
	double calls = rate(look, POD_PROVIDER_CALLS), failed = rate(look, POD_PURCHASE_FAILURES);
	for (size_t i = 0; i < look->n_services; i++) {
		const struct pod_service *s = &look->services[i];
		put(line, breaker_colors[s->breaker], "%s breaker %s", s->name,
			breakers[s->breaker]);
	}
	put(line, "", "%.1f calls/s", calls);
	put(line, failed > 0 ? RED : "", "%.1f/s purchases failed", failed);
	put(line, "", "%s %s", count(look->total[POD_PURGES], &purges),
		look->total[POD_PURGES] == 1 ? "purge" : "purges");
}

void top_summary_write(const struct pod_look *look, bool color, size_t width, struct buf *out)
{
	struct text saved, tokens;
	struct line line;
	if (!look->n_daemons)
		return;
	if (look->silent[0] || look->n_idle) {
		line = line_start(out, color, width, "");
		put_trouble(&line, look);
		line_end(&line);
	}
	line = line_start(out, color, width, "requests");
	put(&line, "", "%.1f/s", rate(look, POD_REQUESTS));
	put(&line, look->recent[POD_FAILED] > 0 ? RED : "", "%.1f/s failed",
		rate(look, POD_FAILED));
	put_times(&line, &look->times[POD_REQUEST_TIME]);
	line_end(&line);
	line = line_start(out, color, width, "hit ratio");
	put_hits(&line, look);
	line_end(&line);
	line = line_start(out, color, width, "saved");
	put(&line, "", "%s of %s tokens", count(look->total[POD_SAVED_TOKENS], &saved),
		count(look->total[POD_TOKENS], &tokens));
	put(&line, "", "$%.4f", look->total[POD_SAVED_DOLLARS]);
	put(&line, "", "since the daemons' start");
	line_end(&line);
	line = line_start(out, color, width, "provider");
	put_provider(&line, look);
	line_end(&line);
	line = line_start(out, color, width, "redis");
	put(&line, "", "%.1f/s", rate(look, POD_REDIS_COMMANDS));
	put_times(&line, &look->times[POD_REDIS_TIME]);
	line_end(&line);
	buf_append_char(out, '\n');
}

/* ---- JSON ---- */

static void put_json_number(struct buf *out, const char *key, double value)
{
	if (isnan(value))
		buf_printf(out, "\"%s\":null,", key);
	else
		buf_printf(out, "\"%s\":%.17g,", key, value);
}

void top_summary_write_json(const struct pod_look *look, struct buf *out)
{
	static const char *const names[POD_NUMBERS] = {
		[POD_REQUESTS] = "requests",
		[POD_FAILED] = "failed",
		[POD_FROM_MEMORY] = "from_memory",
		[POD_FROM_STORE] = "from_store",
		[POD_JOINED] = "joined",
		[POD_BOUGHT] = "bought",
		[POD_TOKENS] = "tokens",
		[POD_SAVED_TOKENS] = "saved_tokens",
		[POD_SAVED_DOLLARS] = "saved_dollars",
		[POD_PROVIDER_CALLS] = "provider_calls",
		[POD_PURCHASE_FAILURES] = "purchase_failures",
		[POD_PURGES] = "purges",
		[POD_BROADCASTS] = "broadcasts",
		[POD_REDIS_COMMANDS] = "redis_commands",
	};
	double all;
	const double *of = elements(look, &all);
	buf_printf(out, "{\"daemons\":%zu,\"daemons_answered\":%zu,\"daemons_not_running\":%zu,",
		look->n_daemons, look->n_answered, look->n_idle);
	for (int i = 0; i < POD_NUMBERS; i++)
		put_json_number(out, names[i], look->total[i]);
	put_json_number(out, "rate_seconds", look->seconds);
	put_json_number(out, "requests_per_second", rate(look, POD_REQUESTS));
	put_json_number(out, "failed_per_second", rate(look, POD_FAILED));
	put_json_number(
		out, "hit_ratio", all > 0 ? (of[POD_FROM_MEMORY] + of[POD_FROM_STORE]) / all : NAN);
	put_json_number(
		out, "p50_seconds", pod_histogram_quantile(&look->times[POD_REQUEST_TIME], .5));
	put_json_number(
		out, "p99_seconds", pod_histogram_quantile(&look->times[POD_REQUEST_TIME], .99));
	put_json_number(out, "redis_p99_seconds",
		pod_histogram_quantile(&look->times[POD_REDIS_TIME], .99));
	buf_append_str(out, "\"breakers\":{");
	for (size_t i = 0; i < look->n_services; i++) {
		buf_append_str(out, i ? "," : "");
		json_append_string(out, span_of(look->services[i].name));
		buf_printf(out, ":\"%s\"", breakers[look->services[i].breaker]);
	}
	buf_append_str(out, "}}");
}
