#include "supervisor/ctl/top_summary.h"

#include <math.h>
#include <stdio.h>

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

static void put_duration(struct buf *out, double seconds)
{
	if (isnan(seconds))
		buf_append_str(out, "-");
	else if (seconds < 1e-3)
		buf_printf(out, "%.0f us", seconds * 1e6);
	else if (seconds < 1)
		buf_printf(out, "%.3g ms", seconds * 1e3);
	else
		buf_printf(out, "%.3g s", seconds);
}

static void put_count(struct buf *out, double n)
{
	if (n < 1e4)
		buf_printf(out, "%.0f", n);
	else if (n < 1e6)
		buf_printf(out, "%.1fk", n / 1e3);
	else if (n < 1e9)
		buf_printf(out, "%.2fM", n / 1e6);
	else
		buf_printf(out, "%.2fG", n / 1e9);
}

static void put_times(struct buf *out, const struct pod_histogram *h)
{
	buf_append_str(out, "p50 ");
	put_duration(out, pod_histogram_quantile(h, .5));
	buf_append_str(out, "  p99 ");
	put_duration(out, pod_histogram_quantile(h, .99));
}

static void put_hits(struct buf *out, const struct pod_look *look)
{
	double all;
	const double *of = elements(look, &all);
	buf_append_str(out, "hit ratio  ");
	if (all <= 0) {
		buf_append_str(out, "-\n");
		return;
	}
	buf_printf(out, "%.1f%%  memory %.1f%%  store %.1f%%  joined %.1f%%  bought %.1f%%\n",
		(of[POD_FROM_MEMORY] + of[POD_FROM_STORE]) * 100 / all,
		of[POD_FROM_MEMORY] * 100 / all, of[POD_FROM_STORE] * 100 / all,
		of[POD_JOINED] * 100 / all, of[POD_BOUGHT] * 100 / all);
}

void top_summary_write(const struct pod_look *look, bool color, struct buf *out)
{
	if (!look->n_daemons)
		return;
	if (look->silent[0])
		buf_printf(out, "%s%s does not answer%s (%zu of %zu daemons do)\n",
			color ? RED : "", look->silent, color ? RESET : "", look->n_answered,
			look->n_daemons);
	buf_printf(out, "requests   %.1f/s  ", rate(look, POD_REQUESTS));
	bool failing = color && look->recent[POD_FAILED] > 0;
	buf_printf(out, "%s%.1f/s failed%s  ", failing ? RED : "", rate(look, POD_FAILED),
		failing ? RESET : "");
	put_times(out, &look->times[POD_REQUEST_TIME]);
	buf_append_str(out, "\n");
	put_hits(out, look);
	buf_append_str(out, "saved      ");
	put_count(out, look->total[POD_SAVED_TOKENS]);
	buf_append_str(out, " of ");
	put_count(out, look->total[POD_TOKENS]);
	buf_printf(out, " tokens  $%.4f\n", look->total[POD_SAVED_DOLLARS]);
	buf_append_str(out, "provider   ");
	for (size_t i = 0; i < look->n_services; i++) {
		const struct pod_service *s = &look->services[i];
		buf_printf(out, "%s breaker %s%s%s  ", s->name,
			color ? breaker_colors[s->breaker] : "", breakers[s->breaker],
			color ? RESET : "");
	}
	buf_printf(out, "%.1f calls/s  %.1f/s purchases failed  ", rate(look, POD_PROVIDER_CALLS),
		rate(look, POD_PURCHASE_FAILURES));
	put_count(out, look->total[POD_PURGES]);
	buf_append_str(out, look->total[POD_PURGES] == 1 ? " purge\n" : " purges\n");
	buf_printf(out, "redis      %.1f/s  ", rate(look, POD_REDIS_COMMANDS));
	put_times(out, &look->times[POD_REDIS_TIME]);
	buf_append_str(out, "\n\n");
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
		[POD_REDIS_COMMANDS] = "redis_commands",
	};
	double all;
	const double *of = elements(look, &all);
	buf_printf(out, "{\"daemons\":%zu,\"daemons_answered\":%zu,", look->n_daemons,
		look->n_answered);
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
