#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/metrics.h"

static const double small_buckets[] = {0.5, 1, 2.5, 0};
static const struct metric_family requests = {.name = "requests_total",
	.type = METRIC_COUNTER,
	.help = "Requests, \"all\" of them\\\nand more.",
	.labels = {"method", "code"}};
static const struct metric_family up = {.name = "up", .type = METRIC_GAUGE, .help = "Up."};
static const struct metric_family latency = {.name = "latency_seconds",
	.type = METRIC_HISTOGRAM,
	.help = "Latency.",
	.labels = {"route"},
	.buckets = small_buckets};
static const struct metric_family capped = {.name = "capped_total",
	.type = METRIC_COUNTER,
	.help = "Capped.",
	.labels = {"a", "b"},
	.max_series = 3};
static const struct metric_family many = {.name = "many",
	.type = METRIC_GAUGE,
	.help = "Many.",
	.labels = {"n"},
	.max_series = 20000};

static struct metrics *m;

static int make(void **state)
{
	(void)state;
	m = metrics_new();
	return m ? 0 : -1;
}
static int unmake(void **state)
{
	(void)state;
	metrics_free(&m);
	assert_null(m);
	metrics_free(&m);
	return 0;
}

static char *page(void)
{
	struct buf out = BUF_INIT(16 << 20);
	metrics_write_text(m, &out);
	buf_append_char(&out, '\0');
	assert_false(buf_failed(&out));
	return buf_take(&out, NULL);
}

static void assert_page(const char *expected)
{
	char *text = page();
	assert_string_equal(text, expected);
	free(text);
}

static void page_is_sorted_and_escaped(void **state)
{
	(void)state;
	static const struct metric_family all[] = {
		{.name = "zz_total", .type = METRIC_COUNTER, .help = "Z."}, {.name = NULL}};
	metrics_register(m, all);
	metric_set(metric(m, &up), -1.5);
	metric_add(metric(m, &requests, "GET", "200"), 1);
	metric_add(metric(m, &requests, "a\"b\\c\nd", ""), 0.25);
	metric_add(metric(m, &requests, "GET", "200"), 41);
	assert_page("# HELP requests_total Requests, \"all\" of them\\\\\\nand more.\n"
		    "# TYPE requests_total counter\n"
		    "requests_total{method=\"GET\",code=\"200\"} 42\n"
		    "requests_total{method=\"a\\\"b\\\\c\\nd\",code=\"\"} 0.25\n"
		    "# HELP up Up.\n# TYPE up gauge\nup -1.5\n"
		    "# HELP zz_total Z.\n# TYPE zz_total counter\nzz_total 0\n");
}

static void known_values_are_shown_from_the_start(void **state)
{
	(void)state;
	static const char *const results[] = {"ok", "failed", NULL};
	static const struct metric_family all[] = {{.name = "saves_total",
							   .type = METRIC_COUNTER,
							   .help = "Saves.",
							   .labels = {"result"},
							   .known = results},
		{.name = NULL}};
	metrics_register(m, all);
	metric_add(metric(m, &all[0], "failed"), 1);
	metric_add(metric(m, &all[0], "odd"), 2);
	assert_page("# HELP saves_total Saves.\n# TYPE saves_total counter\n"
		    "saves_total{result=\"ok\"} 0\n"
		    "saves_total{result=\"failed\"} 1\n"
		    "saves_total{result=\"odd\"} 2\n");
}

static void histogram_is_cumulative(void **state)
{
	(void)state;
	struct metric *h = metric(m, &latency, "/v1");
	static const double values[] = {0.5, 0.50001, 1, 2.5, 2.6, 100, -1, INFINITY};
	for (size_t i = 0; i < 7; i++)
		metric_observe(h, values[i]);
	metric_observe(h, NAN);
	assert_true(metric_value(h) == 7);
	assert_page("# HELP latency_seconds Latency.\n# TYPE latency_seconds histogram\n"
		    "latency_seconds_bucket{route=\"/v1\",le=\"0.5\"} 2\n"
		    "latency_seconds_bucket{route=\"/v1\",le=\"1\"} 4\n"
		    "latency_seconds_bucket{route=\"/v1\",le=\"2.5\"} 5\n"
		    "latency_seconds_bucket{route=\"/v1\",le=\"+Inf\"} 7\n"
		    "latency_seconds_sum{route=\"/v1\"} 106.10001\n"
		    "latency_seconds_count{route=\"/v1\"} 7\n");
	metric_observe(h, values[7]);
	assert_true(metric_value(h) == 8);
}

static void histogram_without_labels(void **state)
{
	(void)state;
	static const struct metric_family row = {
		.name = "h", .type = METRIC_HISTOGRAM, .help = "H.", .buckets = small_buckets};
	static const struct metric_family rows[] = {
		{.name = "a", .type = METRIC_GAUGE, .help = "A."}, {0}};
	metrics_register(m, rows);
	metric_observe(metric(m, &row), 2);
	char *text = page();
	assert_non_null(strstr(
		text, "h_bucket{le=\"2.5\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 2\nh_count 1\n"));
	free(text);
}

static void counters_never_fall(void **state)
{
	(void)state;
	struct metric *c = metric(m, &requests, "GET", "200");
	metric_add(c, 5);
	metric_add(c, -1);
	metric_add(c, NAN);
	assert_true(metric_value(c) == 5);
	metric_add(metric(m, &up), -2);
	assert_true(metric_value(metric(m, &up)) == -2);
}

static void special_values(void **state)
{
	(void)state;
	metric_set(metric(m, &up), INFINITY);
	assert_page("# HELP up Up.\n# TYPE up gauge\nup +Inf\n");
	metric_set(metric(m, &up), NAN);
	assert_page("# HELP up Up.\n# TYPE up gauge\nup NaN\n");
	metric_set(metric(m, &up), 1e300);
	assert_page("# HELP up Up.\n# TYPE up gauge\nup 1e+300\n");
}

static void series_are_found_again_among_many(void **state)
{
	(void)state;
	enum { N = 20000 };
	static struct metric *series[N];
	char name[20];
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof name, "%d", i);
		series[i] = metric(m, &many, name);
		metric_set(series[i], i);
	}
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof name, "%d", i);
		assert_ptr_equal(metric(m, &many, name), series[i]);
		assert_true(metric_value(series[i]) == i);
	}
	/* Values that run together are not the same series. */
	assert_ptr_not_equal(metric(m, &requests, "ab", "c"), metric(m, &requests, "a", "bc"));
	assert_ptr_not_equal(metric(m, &requests, "", "x"), metric(m, &requests, "x", ""));
}

static void series_beyond_the_cap_are_other(void **state)
{
	(void)state;
	struct metric *kept[3];
	const char *names[] = {"x", "y", "z"};
	for (int i = 0; i < 3; i++)
		kept[i] = metric(m, &capped, names[i], "1");
	struct metric *other = metric(m, &capped, "v", "1");
	assert_ptr_equal(metric(m, &capped, "w", "2"), other);
	assert_ptr_equal(metric(m, &capped, "other", "other"), other);
	for (int i = 0; i < 3; i++)
		assert_ptr_equal(metric(m, &capped, names[i], "1"), kept[i]);
	metric_add(other, 7);
	char *text = page();
	assert_non_null(strstr(text, "capped_total{a=\"other\",b=\"other\"} 7\n"));
	free(text);
}

static void hostile_label_values_are_bounded_utf8(void **state)
{
	(void)state;
	char big[5000];
	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = '\0';
	struct metric *s = metric(m, &many, big);
	big[300] = 'y';
	assert_ptr_equal(metric(m, &many, big), s); /* the first 256 bytes are equal */
	big[255] = 'y';
	assert_ptr_not_equal(metric(m, &many, big), s);
	for (size_t at = 250; at < 260; at++) {
		memset(big, 'x', 300);
		memcpy(big + at, "\xe2\x82\xac\xff", 4); /* cut within a character */
		metric(m, &many, big);
	}
	metric(m, &requests, "a\xff\xc3(", "\xe2\x82\xac");
	char *text = page();
	assert_non_null(
		strstr(text, "method=\"a\xef\xbf\xbd\xef\xbf\xbd(\",code=\"\xe2\x82\xac\"}"));
	for (const char *line = text; line;
		line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		assert_true(strcspn(line, "\n") < 400);
	assert_null(strstr(text, "\xff"));
	assert_null(strstr(text, "\xe2\x82\""));
	free(text);
}

static int collected;
static void set_up(void *arg)
{
	collected++;
	metric_set(metric(m, &up), *(double *)arg);
}

static struct {
	int families, series;
	double sum;
	uint64_t last_count;
} seen;
static void see_family(const struct metric_family *family, size_t n_series, void *arg)
{
	assert_ptr_equal(arg, &seen);
	assert_true(n_series > 0);
	assert_non_null(family->name);
	seen.families++;
}
static void see_series(
	const char *const *values, double value, const uint64_t *counts, size_t n_counts, void *arg)
{
	assert_ptr_equal(arg, &seen);
	seen.series++;
	seen.sum += value;
	if (counts) {
		assert_int_equal(n_counts, 4);
		assert_string_equal(values[0], "/x");
		assert_null(values[1]);
		seen.last_count = counts[3];
	}
}

static void visitor_sees_everything_after_collecting(void **state)
{
	(void)state;
	double value = 8;
	metrics_on_collect(m, set_up, &value);
	metric_observe(metric(m, &latency, "/x"), 2);
	metric_observe(metric(m, &latency, "/x"), 3);
	metric_add(metric(m, &requests, "GET", "1"), 1);
	metric_add(metric(m, &requests, "GET", "2"), 1);
	static const struct metrics_visitor visitor = {see_family, see_series};
	metrics_visit(m, &visitor, &seen);
	assert_int_equal(collected, 1);
	assert_int_equal(seen.families, 3);
	assert_int_equal(seen.series, 4);
	assert_true(seen.sum == 8 + 5 + 2);
	assert_int_equal(seen.last_count, 2);
	free(page());
	assert_int_equal(collected, 2);
}

static void markdown_lists_families(void **state)
{
	(void)state;
	static const struct metric_family rows[] = {
		{.name = "b_total", .type = METRIC_COUNTER, .help = "a|b", .labels = {"x", "y"}},
		{.name = "a", .type = METRIC_GAUGE, .help = "A."}, {0}};
	metrics_register(m, rows);
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	metrics_print_markdown(m, out);
	fclose(out);
	assert_non_null(strstr(
		text, "| `a` | gauge | | A. |\n| `b_total` | counter | `x`, `y` | a\\|b |\n"));
	free(text);
}

int main(void)
{
#define with_metrics(test) cmocka_unit_test_setup_teardown(test, make, unmake)
	const struct CMUnitTest tests[] = {
		with_metrics(page_is_sorted_and_escaped),
		with_metrics(known_values_are_shown_from_the_start),
		with_metrics(histogram_is_cumulative),
		with_metrics(histogram_without_labels),
		with_metrics(counters_never_fall),
		with_metrics(special_values),
		with_metrics(series_are_found_again_among_many),
		with_metrics(series_beyond_the_cap_are_other),
		with_metrics(hostile_label_values_are_bounded_utf8),
		with_metrics(visitor_sees_everything_after_collecting),
		with_metrics(markdown_lists_families),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
