/* Which pages are refused, on which line and why; that cutting them makes no difference; what
 * merging does with conflicts and between the formats. */
#include "tests/exportermerger/page_fixture.h"

#define OM "# EOF\n"

static const struct {
	enum page_format format;
	const char *page;
	uint64_t line;
	const char *reason; /* NULL: accepted */
} strict_cases[] = {
	/* Classic text: lines. */
	{PAGE_TEXT, "", 0, NULL},
	{PAGE_TEXT, "\n \t\n# only a comment\n#\n", 0, NULL},
	{PAGE_TEXT, "a 1\nb{} 2\nc{x=\"1\",} 3 4\n\td\t{ x = \"1\" , y=\"2\" }\t5\t-6\n", 0, NULL},
	{PAGE_TEXT, "a+1\nb{x=\"y\"}2\n", 0, NULL},
	{PAGE_TEXT, "a:b NaN\nc +Inf\nd -inf\ne 1e5\nf .5\ng 5.\nh INFINITY\n", 0, NULL},
	{PAGE_TEXT, "a 1", 1, "no newline at the end"},
	{PAGE_TEXT, "a 1\nb", 2, "no newline at the end"},
	{PAGE_TEXT, "1a 1\n", 1, "bad metric name"},
	{PAGE_TEXT, "a\n", 1, "bad value"},
	{PAGE_TEXT, "a x\n", 1, "bad value"},
	{PAGE_TEXT, "a 1_0\n", 1, "bad value"},
	{PAGE_TEXT, "a 0x10\n", 1, "bad value"},
	{PAGE_TEXT, "a +NaN\n", 1, "bad value"},
	{PAGE_TEXT, "a 1e\n", 1, "bad value"},
	{PAGE_TEXT, "a .\n", 1, "bad value"},
	{PAGE_TEXT, "a 1e400\n", 1, "value beyond a double's range"},
	{PAGE_TEXT, "a 1\r\n", 1, "bad value"},
	{PAGE_TEXT, "a 1 \n", 1, "bad timestamp"},
	{PAGE_TEXT, "a 1 2.5\n", 1, "bad timestamp"},
	{PAGE_TEXT, "a 1 9223372036854775807\nb 1 -9223372036854775808\n", 0, NULL},
	{PAGE_TEXT, "a 1 9223372036854775808\n", 1, "bad timestamp"},
	{PAGE_TEXT, "a 1 2 3\n", 1, "more after the timestamp"},
	{PAGE_TEXT, "a 1 # {x=\"y\"} 1\n", 1, "bad timestamp"},
	{PAGE_TEXT, "a{x=\"1\"\n", 1, "neither , nor } after a label"},
	{PAGE_TEXT, "a{x=\"1} 2\n", 1, "label value without its end"},
	{PAGE_TEXT, "a{x=\"1\\", 1, "no newline at the end"},
	{PAGE_TEXT, "a{x=\"1\\\n", 1, "label value without its end"},
	{PAGE_TEXT, "a{x=1} 2\n", 1, "label value without quotes"},
	{PAGE_TEXT, "a{x} 2\n", 1, "no = after a label name"},
	{PAGE_TEXT, "a{,} 2\n", 1, "bad label name"},
	{PAGE_TEXT, "a{x=\"1\",,} 2\n", 1, "bad label name"},
	{PAGE_TEXT, "a{x:y=\"1\"} 2\n", 1, "no = after a label name"},
	{PAGE_TEXT, "a{x=\"1\" y=\"2\"} 2\n", 1, "neither , nor } after a label"},
	{PAGE_TEXT, "a{x=\"1\",x=\"2\"} 2\n", 1, "label name given twice"},
	{PAGE_TEXT, "a{z=\"1\",b=\"1\",z=\"2\"} 2\n", 1, "label name given twice"},
	{PAGE_TEXT, "a{__name__=\"b\"} 2\n", 1, "label name __name__ is reserved"},
	{PAGE_TEXT, "a{x=\"\\t\"} 2\n", 1, "bad escape in a label value"},
	{PAGE_TEXT, "a{x=\"\\\\\\\"\\n\"} 2\n", 0, NULL},
	{PAGE_TEXT, "a{x=\"\xc3\xa9\"} 2\n", 0, NULL},
	{PAGE_TEXT, "a{x=\"\xff\"} 2\n", 1, "not UTF-8"},
	{PAGE_TEXT, "{\"a.b\",\"c d\"=\"1\"} 2\n", 0, NULL},
	{PAGE_TEXT, "{\"a.b\"} 2\nU__a_2e_b 2\n", 2, "series given twice"},
	{PAGE_TEXT, "a{\"c d\"=\"1\",U__c_20_d=\"2\"} 2\n", 1, "label name given twice"},
	{PAGE_TEXT, "{x=\"1\"} 2\n", 1, "bad metric name"},
	{PAGE_TEXT, "{\"\"} 2\n", 1, "empty name"},
	{PAGE_TEXT, "<html>\n", 1, "bad metric name"},
	/* Classic text: comments. */
	{PAGE_TEXT, "#HELP a\n# HELP a\n# HELP a x\\\\y\\nz\n#\tTYPE\ta\tCounter\na 1\n", 0, NULL},
	{PAGE_TEXT, "# HELP a b\\c\n", 1, "bad escape in a HELP text"},
	{PAGE_TEXT, "# HELP 1 b\n", 1, "bad metric name"},
	{PAGE_TEXT, "# TYPE a-b gauge\n", 1, "bad metric name"},
	{PAGE_TEXT, "# TYPE a foo\n", 1, "unknown type"},
	{PAGE_TEXT, "# TYPE a gauge \n", 1, "unknown type"},
	{PAGE_TEXT, "# TYPE a info\n", 1, "unknown type"},
	{PAGE_TEXT, "# HELP a b\n# HELP a c\n", 2, "second HELP of a family"},
	{PAGE_TEXT, "# TYPE a gauge\n# TYPE a gauge\n", 2, "second TYPE of a family"},
	{PAGE_TEXT, "a 1\n# TYPE a gauge\n", 2, "second TYPE of a family"},
	{PAGE_TEXT, "a 1\n# HELP a late\n", 0, NULL},
	{PAGE_TEXT, "# TYPE a histogram\n# TYPE a_sum gauge\n", 2, "second TYPE of a family"},
	{PAGE_TEXT, "a 1\na 2\n", 2, "series given twice"},
	{PAGE_TEXT, "a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 2\n", 2, "series given twice"},
	{PAGE_TEXT, "a{x=\"1\"} 1\nb 1\na{x=\"2\"} 2\n", 3, "family opened twice"},
	{PAGE_TEXT, "# TYPE a summary\na{quantile=\"x\"} 1\n", 2, "quantile is not a number"},
	{PAGE_TEXT, "# TYPE a histogram\na_bucket{le=\"\"} 1\n", 2, "le is not a number"},
	{PAGE_TEXT, "# TYPE a histogram\na_sum{le=\"x\"} 1\n", 2, "le or quantile is not a number"},
	{PAGE_TEXT, "# TYPE a histogram\na_bucket 1\na 2\n", 0, NULL},
	{PAGE_TEXT, "# EOF\na 1\n", 0, NULL},
	/* OpenMetrics: lines. */
	{PAGE_OPENMETRICS, "# EOF", 0, NULL},
	{PAGE_OPENMETRICS, "# TYPE U__a_2e_b counter\nU__a_2e_b__total -1\n" OM, 2,
		"counter is negative"},
	{PAGE_OPENMETRICS, OM, 0, NULL},
	{PAGE_OPENMETRICS, "", 0, "no # EOF at the end"},
	{PAGE_OPENMETRICS, "a 1\n", 1, "no # EOF at the end"},
	{PAGE_OPENMETRICS, "# EOF\n\n", 2, "more after # EOF"},
	{PAGE_OPENMETRICS, "# EOF\na", 2, "more after # EOF"},
	{PAGE_OPENMETRICS, "a 1\n\n" OM, 2, "blank line"},
	{PAGE_OPENMETRICS, "# comment\n" OM, 1, "neither HELP, TYPE, UNIT nor EOF in a comment"},
	{PAGE_OPENMETRICS, "#TYPE a gauge\n" OM, 1,
		"neither HELP, TYPE, UNIT nor EOF in a comment"},
	{PAGE_OPENMETRICS, "# TYPE a\n" OM, 1, "no space after the name in a comment"},
	{PAGE_OPENMETRICS, "# TYPE a Gauge\n" OM, 1, "unknown type"},
	{PAGE_OPENMETRICS, "# TYPE a untyped\n" OM, 1, "unknown type"},
	{PAGE_OPENMETRICS, "a  1\n" OM, 1, "bad value"},
	{PAGE_OPENMETRICS, " a 1\n" OM, 1, "bad metric name"},
	{PAGE_OPENMETRICS, "a{x=\"1\"}1\n" OM, 1, "no space before the value"},
	{PAGE_OPENMETRICS, "a{x=\"1\",} 1\n" OM, 1, "comma after the last label"},
	{PAGE_OPENMETRICS, "a{ x=\"1\"} 1\n" OM, 1, "bad label name"},
	{PAGE_OPENMETRICS, "a{x=\"\\t\"} 1\n" OM, 0, NULL},
	{PAGE_OPENMETRICS, "a 1 \n" OM, 1, "bad timestamp"},
	{PAGE_OPENMETRICS, "a 1 2.5e3\n" OM, 0, NULL},
	{PAGE_OPENMETRICS, "a 1 NaN\n" OM, 1, "bad timestamp"},
	{PAGE_OPENMETRICS, "a 1 2 3\n" OM, 1, "more after the sample"},
	{PAGE_OPENMETRICS, "a 1e400\n" OM, 0, NULL},
	/* OpenMetrics: families. */
	{PAGE_OPENMETRICS, "# TYPE a counter\na 1\n" OM, 2,
		"sample name does not fit the type of its family"},
	{PAGE_OPENMETRICS, "# TYPE a counter\na_total 1\na_created 2\n" OM, 0, NULL},
	{PAGE_OPENMETRICS, "# TYPE a counter\na_total -1\n" OM, 2, "counter is negative"},
	{PAGE_OPENMETRICS, "# TYPE a counter\na_total NaN\n" OM, 2, "counter is NaN"},
	{PAGE_OPENMETRICS, "# TYPE a gauge\na 1\n# HELP a x\n" OM, 3, "metadata after samples"},
	{PAGE_OPENMETRICS, "# TYPE a gauge\na 1\nb 1\na{x=\"1\"} 1\n" OM, 4, "family opened twice"},
	{PAGE_OPENMETRICS, "# TYPE a counter\na_total 1\n# TYPE a_total gauge\n" OM, 3,
		"name clashes with another family's"},
	{PAGE_OPENMETRICS, "a 1\na 2\n" OM, 2, "series given twice"},
	{PAGE_OPENMETRICS, "a 1 1\na 2 2\n" OM, 0, NULL},
	{PAGE_OPENMETRICS, "a 1 2\na 2 1\n" OM, 2, "timestamps go backwards"},
	{PAGE_OPENMETRICS, "a 1 2\na 2\n" OM, 2, "timestamps on some samples of a series only"},
	{PAGE_OPENMETRICS, "a{x=\"1\"} 1 1\na{x=\"2\"} 1 1\na{x=\"1\"} 1 2\n" OM, 3,
		"samples of one series do not stand together"},
	{PAGE_OPENMETRICS, "# TYPE a_s gauge\n# UNIT a_s s\na_s 1\n" OM, 0, NULL},
	{PAGE_OPENMETRICS, "# TYPE a gauge\n# UNIT a s\na 1\n" OM, 1,
		"family name does not end with its unit"},
	{PAGE_OPENMETRICS, "# TYPE a_s info\n# UNIT a_s s\n" OM, 1,
		"unit on an info or a stateset"},
	{PAGE_OPENMETRICS, "# TYPE i info\ni_info{v=\"1\"} 2\n" OM, 2, "info is not 1"},
	{PAGE_OPENMETRICS, "# TYPE s stateset\ns{s=\"a\"} 1\ns{s=\"b\"} 0\n" OM, 0, NULL},
	{PAGE_OPENMETRICS, "# TYPE s stateset\ns{s=\"a\"} 2\n" OM, 2, "state is neither 0 nor 1"},
	{PAGE_OPENMETRICS, "# TYPE s stateset\ns 1\n" OM, 2, "state is missing"},
	{PAGE_OPENMETRICS, "# TYPE s summary\ns 1\n" OM, 2, "quantile is missing"},
	{PAGE_OPENMETRICS, "# TYPE s summary\ns{quantile=\"1.5\"} 1\n" OM, 2,
		"quantile is not between 0 and 1"},
	{PAGE_OPENMETRICS, "# TYPE h histogram\nh_bucket{le=\"1\"} 1\n" OM, 2,
		"bucket +Inf is missing"},
	{PAGE_OPENMETRICS, "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_count 2\nh_sum 1\n" OM,
		3, "count is not the bucket +Inf"},
	{PAGE_OPENMETRICS, "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\n" OM,
		3, "bucket is below the one before"},
	{PAGE_OPENMETRICS, "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_bucket{le=\"1\"} 1\n" OM,
		2, "buckets out of order"},
	{PAGE_OPENMETRICS, "# TYPE h histogram\nh_bucket{le=\"inf\"} 1\n" OM, 2,
		"infinite le is not written +Inf"},
	{PAGE_OPENMETRICS, "# TYPE h histogram\nh_bucket 1\n" OM, 2, "le is missing or NaN"},
	{PAGE_OPENMETRICS, "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1.5\n" OM, 2,
		"bucket is not a whole number"},
	/* OpenMetrics: exemplars. */
	{PAGE_OPENMETRICS, "# TYPE a counter\na_total 1 # {t=\"x\"} 2 3\n" OM, 0, NULL},
	{PAGE_OPENMETRICS, "# TYPE a counter\na_total 1 9 # {} 2\n" OM, 0, NULL},
	{PAGE_OPENMETRICS, "# TYPE a gauge\na 1 # {t=\"x\"} 2 3\n" OM, 2,
		"exemplar on something else than a counter or a bucket"},
	{PAGE_OPENMETRICS, "# TYPE a counter\na_total 1 # t=\"x\" 2\n" OM, 2,
		"exemplar without labels"},
	{PAGE_OPENMETRICS, "# TYPE a counter\na_total 1 # {t=\"x\"}\n" OM, 2,
		"no space before the value of an exemplar"},
	{PAGE_OPENMETRICS, "# TYPE a counter\na_total 1 # {t=\"x\"} 2 3 4\n" OM, 2,
		"more after an exemplar"},
};

static void test_strict(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof strict_cases / sizeof *strict_cases; i++) {
		struct span text = span_of(strict_cases[i].page);
		struct page_options options = {.format = strict_cases[i].format, .strict = true};
		for (size_t step = 0; step <= text.len && step < 20; step++) {
			struct page_error error;
			struct page *page = read_page(text, &options, step, &error);
			const char *wanted = strict_cases[i].reason;
			if (!page != (wanted != NULL) ||
				(wanted && strcmp(error.reason, wanted) != 0) ||
				(wanted && error.line != strict_cases[i].line))
				fail_msg("%s: line %d: %s", text.data, (int)error.line,
					error.reason ? error.reason : "accepted");
			page_free(&page);
		}
	}
}

static void test_exemplar_length(void **state)
{
	(void)state;
	struct page_options options = {.format = PAGE_OPENMETRICS, .strict = true};
	for (int n = 126; n <= 129; n++) {
		char text[400], value[200] = {0};
		memset(value, 'v', (size_t)n - 1);
		snprintf(text, sizeof text, "# TYPE a counter\na_total 1 # {t=\"%s\"} 1\n# EOF\n",
			value);
		struct page_error error;
		struct page *page = read_page(span_of(text), &options, 0, &error);
		assert_int_equal(page != NULL, n <= 128);
		page_free(&page);
	}
}

static void test_long_line(void **state)
{
	(void)state;
	struct page_options options = {.format = PAGE_TEXT};
	char *text = malloc(LINE_MAX_BYTES + 10);
	memset(text, ' ', LINE_MAX_BYTES + 10);
	for (size_t extra = 0; extra < 2; extra++) {
		text[LINE_MAX_BYTES - 1] = extra ? ' ' : '\n';
		text[LINE_MAX_BYTES + 1] = '\n';
		struct page_error error;
		struct page *page = read_page(
			(struct span){text, LINE_MAX_BYTES + 2}, &options, 65536, &error);
		assert_int_equal(page != NULL, !extra);
		if (extra)
			assert_string_equal(error.reason, "line over 1 MiB");
		page_free(&page);
	}
	free(text);
}

/* ---- merging ---- */

#define MAX_PAGES 4
struct merge_case {
	const char *what;
	struct {
		enum page_format format;
		const char *page;
		const char *prefix;
		const char *label; /* name=value */
	} in[MAX_PAGES];
	const char *text, *openmetrics; /* NULL: not looked at */
	enum page_conflict conflict;    /* the one counted; 0 with n_conflicts 0: none */
	unsigned n_conflicts;
};

static const struct merge_case merge_cases[] = {
	{.what = "families by name, pages by url, series by labels, buckets by number",
		.in = {{PAGE_TEXT,
			       "b 1\n# HELP a h\\\\1\\n\"q\"\na{y=\"2\",x=\"1\"} 1\na{x=\"0\"} 2\n",
			       0, 0},
			{PAGE_TEXT,
				"# TYPE h histogram\nh_bucket{le=\"+Inf\"} 3\nh_bucket{le=\"10\"} 2\n"
				"h_bucket{le=\"9\"} 1\nh_count 3\nh_sum 4\na 5\n",
				0, 0}},
		.text = "# HELP a h\\\\1\\n\"q\"\n# TYPE a untyped\n"
			"a{merger_url=\"u0\",x=\"0\"} 2\na{merger_url=\"u0\",x=\"1\",y=\"2\"} 1\n"
			"a{merger_url=\"u1\"} 5\n# TYPE b untyped\nb{merger_url=\"u0\"} 1\n"
			"# TYPE h histogram\nh_bucket{merger_url=\"u1\",le=\"9\"} 1\n"
			"h_bucket{merger_url=\"u1\",le=\"10\"} 2\nh_bucket{merger_url=\"u1\",le=\"+Inf\"} 3\n"
			"h_sum{merger_url=\"u1\"} 4\nh_count{merger_url=\"u1\"} 3\n",
		.openmetrics =
			"# HELP a h\\\\1\\n\\\"q\\\"\n# TYPE a unknown\n"
			"a{merger_url=\"u0\",x=\"0\"} 2\na{merger_url=\"u0\",x=\"1\",y=\"2\"} 1\n"
			"a{merger_url=\"u1\"} 5\n# TYPE b unknown\nb{merger_url=\"u0\"} 1\n"
			"# TYPE h histogram\nh_bucket{merger_url=\"u1\",le=\"9\"} 1\n"
			"h_bucket{merger_url=\"u1\",le=\"10\"} 2\nh_bucket{merger_url=\"u1\",le=\"+Inf\"} 3\n"
			"h_sum{merger_url=\"u1\"} 4\nh_count{merger_url=\"u1\"} 3\n# EOF\n"},
	{.what = "counters with and without _total, _created",
		.in = {{PAGE_TEXT,
			"# TYPE a_total counter\na_total 1\n# TYPE a_created gauge\na_created 5\n"
			"# TYPE b counter\nb 2\n",
			0, 0}},
		.text = "# TYPE a_created gauge\na_created{merger_url=\"u0\"} 5\n"
			"# TYPE a_total counter\na_total{merger_url=\"u0\"} 1\n"
			"# TYPE b counter\nb{merger_url=\"u0\"} 2\n",
		.openmetrics = "# TYPE a counter\na_total{merger_url=\"u0\"} 1\n"
			       "a_created{merger_url=\"u0\"} 5\n"
			       "# TYPE b unknown\nb{merger_url=\"u0\"} 2\n# EOF\n"},
	{.what = "all types of OpenMetrics",
		.in = {{PAGE_OPENMETRICS,
			"# TYPE c_s counter\n# UNIT c_s s\n# HELP c_s \\\"x\\\"\nc_s_total 1 2.0015 # {t=\"1\"} 1\n"
			"c_s_created 3 2.0015\n# TYPE g gaugehistogram\ng_bucket{le=\"+Inf\"} 2\ng_gcount 2\n"
			"g_gsum 3\n# TYPE i info\ni_info{v=\"1\"} 1\n# TYPE s stateset\ns{s=\"on\"} 1\n"
			"s{s=\"off\"} 0\nu 1e999 -1.5\n# EOF\n",
			0, 0}},
		.text = "# HELP c_s_created \"x\"\n# TYPE c_s_created gauge\n"
			"c_s_created{merger_url=\"u0\"} 3 2001\n"
			"# HELP c_s_total \"x\"\n# TYPE c_s_total counter\nc_s_total{merger_url=\"u0\"} 1 2001\n"
			"# TYPE g histogram\ng_bucket{merger_url=\"u0\",le=\"+Inf\"} 2\n"
			"# TYPE g_gcount gauge\ng_gcount{merger_url=\"u0\"} 2\n"
			"# TYPE g_gsum gauge\ng_gsum{merger_url=\"u0\"} 3\n"
			"# TYPE i_info gauge\ni_info{merger_url=\"u0\",v=\"1\"} 1\n"
			"# TYPE s gauge\ns{merger_url=\"u0\",s=\"off\"} 0\ns{merger_url=\"u0\",s=\"on\"} 1\n"
			"# TYPE u untyped\nu{merger_url=\"u0\"} +Inf -1500\n",
		.openmetrics =
			"# HELP c_s \\\"x\\\"\n# TYPE c_s counter\n# UNIT c_s s\n"
			"c_s_total{merger_url=\"u0\"} 1 2.0015 # {t=\"1\"} 1\nc_s_created{merger_url=\"u0\"} 3 2.0015\n"
			"# TYPE g gaugehistogram\ng_bucket{merger_url=\"u0\",le=\"+Inf\"} 2\n"
			"g_gsum{merger_url=\"u0\"} 3\ng_gcount{merger_url=\"u0\"} 2\n"
			"# TYPE i info\ni_info{merger_url=\"u0\",v=\"1\"} 1\n"
			"# TYPE s stateset\ns{merger_url=\"u0\",s=\"off\"} 0\ns{merger_url=\"u0\",s=\"on\"} 1\n"
			"# TYPE u unknown\nu{merger_url=\"u0\"} +Inf -1.5\n# EOF\n"},
	{.what = "milliseconds to seconds",
		.in = {{PAGE_TEXT, "a 1 1500\nb 1 -20\nc 1 0\nd 1 1700000000000\ne 1 +7\n", 0, 0}},
		.openmetrics = "# TYPE a unknown\na{merger_url=\"u0\"} 1 1.5\n"
			       "# TYPE b unknown\nb{merger_url=\"u0\"} 1 -0.02\n"
			       "# TYPE c unknown\nc{merger_url=\"u0\"} 1 0\n"
			       "# TYPE d unknown\nd{merger_url=\"u0\"} 1 1700000000\n"
			       "# TYPE e unknown\ne{merger_url=\"u0\"} 1 0.007\n# EOF\n"},
	{.what = "one name with two types",
		.in = {{PAGE_TEXT, "# TYPE a gauge\na 1\n", 0, 0},
			{PAGE_TEXT, "# TYPE a counter\na 2\n", 0, 0},
			{PAGE_TEXT, "# TYPE a gauge\n# HELP a third\na 3\nb 1\n", 0, 0}},
		.text = "# HELP a third\n# TYPE a untyped\na{merger_url=\"u0\"} 1\na{merger_url=\"u1\"} 2\n"
			"a{merger_url=\"u2\"} 3\n# TYPE b untyped\nb{merger_url=\"u2\"} 1\n",
		.conflict = PAGE_CONFLICT_TYPE,
		.n_conflicts = 1},
	{.what = "names that clash",
		.in = {{PAGE_TEXT, "# TYPE a summary\na{quantile=\"0.5\"} 1\na_sum 2\na_count 3\n",
			       0, 0},
			{PAGE_TEXT, "# TYPE a_count gauge\na_count 4\n", 0, 0}},
		.text = "# TYPE a untyped\na{merger_url=\"u0\",quantile=\"0.5\"} 1\n"
			"# TYPE a_count untyped\na_count{merger_url=\"u0\"} 3\na_count{merger_url=\"u1\"} 4\n"
			"# TYPE a_sum untyped\na_sum{merger_url=\"u0\"} 2\n",
		.conflict = PAGE_CONFLICT_CLASH,
		.n_conflicts = 2},
	{.what = "what OpenMetrics forbids",
		.in = {{PAGE_TEXT,
			"# TYPE a_total counter\na_total NaN\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\n",
			0, 0}},
		.text = "# TYPE a_total counter\na_total{merger_url=\"u0\"} NaN\n"
			"# TYPE h histogram\nh_bucket{merger_url=\"u0\",le=\"1\"} 1\nh_sum{merger_url=\"u0\"} 1\n",
		.openmetrics = "# TYPE a_total unknown\na_total{merger_url=\"u0\"} NaN\n"
			       "# TYPE h_bucket unknown\nh_bucket{merger_url=\"u0\",le=\"1\"} 1\n"
			       "# TYPE h_sum unknown\nh_sum{merger_url=\"u0\"} 1\n# EOF\n"},
	{.what = "a series given twice",
		.in = {{PAGE_TEXT, "a 1\na 2\nb 1 5\nb 2 7\nb 3 6\n", 0, 0}},
		.text = "# TYPE a untyped\na{merger_url=\"u0\"} 1\n# TYPE b untyped\nb{merger_url=\"u0\"} 2 7\n",
		.conflict = PAGE_CONFLICT_SERIES,
		.n_conflicts = 3},
	{.what = "a series at several times",
		.in = {{PAGE_OPENMETRICS, "a 1 5\na 2 7\nb 1\n# EOF\n", 0, 0}},
		.openmetrics = "# TYPE a unknown\na{merger_url=\"u0\"} 2 7\n"
			       "# TYPE b unknown\nb{merger_url=\"u0\"} 1\n# EOF\n",
		.conflict = PAGE_CONFLICT_SERIES,
		.n_conflicts = 1},
	{.what = "a family opened twice",
		.in = {{PAGE_TEXT, "a{x=\"1\"} 1\nb 1\na{x=\"2\"} 2\n", 0, 0}},
		.text = "# TYPE a untyped\na{merger_url=\"u0\",x=\"1\"} 1\na{merger_url=\"u0\",x=\"2\"} 2\n"
			"# TYPE b untyped\nb{merger_url=\"u0\"} 1\n",
		.conflict = PAGE_CONFLICT_REOPENED,
		.n_conflicts = 1},
	{.what = "metadata given twice",
		.in = {{PAGE_TEXT,
			"# TYPE a gauge\n# TYPE a counter\n# HELP a 1\n# HELP a 2\na 1\n", 0, 0}},
		.text = "# HELP a 1\n# TYPE a gauge\na{merger_url=\"u0\"} 1\n",
		.conflict = PAGE_CONFLICT_METADATA,
		.n_conflicts = 2},
	{.what = "labels that are taken",
		.in = {{PAGE_TEXT, "a{merger_url=\"x\",zone=\"own\",exported_zone=\"y\"} 1\nb 1\n",
			0, "zone=eu"}},
		.text = "# TYPE a untyped\na{merger_url=\"u0\",exported_exported_zone=\"own\","
			"exported_merger_url=\"x\",exported_zone=\"y\",zone=\"eu\"} 1\n"
			"# TYPE b untyped\nb{merger_url=\"u0\",zone=\"eu\"} 1\n",
		.conflict = PAGE_CONFLICT_LABEL,
		.n_conflicts = 2},
	{.what = "a prefix",
		.in = {{PAGE_OPENMETRICS,
			"# TYPE a counter\na_total 1\n# TYPE s stateset\ns{s=\"on\"} 1\n# EOF\n",
			"p_", 0}},
		.openmetrics = "# TYPE p_a counter\np_a_total{merger_url=\"u0\"} 1\n"
			       "# TYPE p_s stateset\np_s{merger_url=\"u0\",p_s=\"on\"} 1\n# EOF\n"},
	{.what = "no newline at the end",
		.in = {{PAGE_TEXT, "a 1\nb 23", 0, 0}},
		.text = "# TYPE a untyped\na{merger_url=\"u0\"} 1\n",
		.conflict = PAGE_CONFLICT_NEWLINE,
		.n_conflicts = 1},
	{.what = "# EOF in the middle",
		.in = {{PAGE_OPENMETRICS, "a 1\n# EOF\nb 1\nc", 0, 0}},
		.text = "# TYPE a untyped\na{merger_url=\"u0\"} 1\n",
		.conflict = PAGE_CONFLICT_EOF,
		.n_conflicts = 2},
	{.what = "escapes of OpenMetrics that classic text does not have",
		.in = {{PAGE_OPENMETRICS, "a{x=\"\\t\\\\\\n\\\"\"} 1\n# EOF\n", 0, 0}},
		.text = "# TYPE a untyped\na{merger_url=\"u0\",x=\"\\\\t\\\\\\n\\\"\"} 1\n"},
	{.what = "names in quotes",
		.in = {{PAGE_TEXT, "# TYPE \"a.b\" gauge\n{\"a.b\",\"x y\"=\"}\\\"=\",z=\"1\"} 1\n",
			0, 0}},
		.text = "# TYPE U__a_2e_b gauge\n"
			"U__a_2e_b{merger_url=\"u0\",U__x_20_y=\"}\\\"=\",z=\"1\"} 1\n"},
	{.what = "escaped names of a histogram and a counter, as a reader of plain names knows them",
		.in = {{PAGE_OPENMETRICS,
			"# TYPE \"a.b\" histogram\n{\"a.b_bucket\",le=\"+Inf\"} 2\n"
			"{\"a.b_count\"} 2\n{\"a.b_sum\"} 3\n{\"a.b_created\"} 4\n"
			"# TYPE \"c.d\" counter\n{\"c.d_total\"} 5\n{\"c.d_created\"} 6\n# EOF\n",
			0, 0}},
		.text = "# TYPE U__a_2e_b histogram\n"
			"U__a_2e_b_bucket{merger_url=\"u0\",le=\"+Inf\"} 2\n"
			"U__a_2e_b_sum{merger_url=\"u0\"} 3\nU__a_2e_b_count{merger_url=\"u0\"} 2\n"
			"# TYPE U__a_2e_b__created gauge\n"
			"U__a_2e_b__created{merger_url=\"u0\"} 4\n"
			"# TYPE U__c_2e_d__created gauge\n"
			"U__c_2e_d__created{merger_url=\"u0\"} 6\n"
			"# TYPE U__c_2e_d__total counter\nU__c_2e_d__total{merger_url=\"u0\"} 5\n",
		.openmetrics = "# TYPE U__a_2e_b histogram\n"
			       "U__a_2e_b_bucket{merger_url=\"u0\",le=\"+Inf\"} 2\n"
			       "U__a_2e_b_sum{merger_url=\"u0\"} 3\n"
			       "U__a_2e_b_count{merger_url=\"u0\"} 2\n"
			       "U__a_2e_b_created{merger_url=\"u0\"} 4\n"
			       "# TYPE U__c_2e_d_ counter\n"
			       "U__c_2e_d__total{merger_url=\"u0\"} 5\n"
			       "U__c_2e_d__created{merger_url=\"u0\"} 6\n# EOF\n"},
	{.what = "all spellings of one histogram and one counter",
		.in = {{PAGE_TEXT,
			       "# TYPE U__a_2e_b histogram\nU__a_2e_b_bucket{le=\"+Inf\"} 2\n"
			       "U__a_2e_b__sum 3\nU__a_2e_b_count 2\n"
			       "# TYPE U__c_2e_d__total counter\nU__c_2e_d__total 5\n",
			       0, 0},
			{PAGE_OPENMETRICS,
				"# TYPE \"a.b\" histogram\n{\"a.b_bucket\",le=\"+Inf\"} 2\n"
				"# TYPE U__c_2e_d_ counter\nU__c_2e_d_total 5\n# EOF\n",
				0, 0}},
		.text = "# TYPE U__a_2e_b histogram\n"
			"U__a_2e_b_bucket{merger_url=\"u0\",le=\"+Inf\"} 2\n"
			"U__a_2e_b_sum{merger_url=\"u0\"} 3\nU__a_2e_b_count{merger_url=\"u0\"} 2\n"
			"U__a_2e_b_bucket{merger_url=\"u1\",le=\"+Inf\"} 2\n"
			"# TYPE U__c_2e_d__total counter\nU__c_2e_d__total{merger_url=\"u0\"} 5\n"
			"U__c_2e_d__total{merger_url=\"u1\"} 5\n"},
	{.what = "an underscore behind an escape is no suffix of a sample",
		.in = {{PAGE_TEXT, "# TYPE U__a_2e_b_ gauge\nU__a_2e_b_ 1\nU__a_2e_b 2\n", 0, 0}},
		.text = "# TYPE U__a_2e_b untyped\nU__a_2e_b{merger_url=\"u0\"} 2\n"
			"# TYPE U__a_2e_b__ gauge\nU__a_2e_b__{merger_url=\"u0\"} 1\n"},
	{.what = "a name in quotes beside the same one escaped",
		.in = {{PAGE_TEXT, "{\"z\xc3\xa4hler\"} 1\n", 0, 0},
			{PAGE_TEXT, "# TYPE U__z_e4_hler gauge\nU__z_e4_hler{U__x_2e_y=\"1\"} 2\n",
				0, 0}},
		.text = "# TYPE U__z_e4_hler untyped\nU__z_e4_hler{merger_url=\"u0\"} 1\n"
			"U__z_e4_hler{merger_url=\"u1\",U__x_2e_y=\"1\"} 2\n",
		.conflict = PAGE_CONFLICT_TYPE,
		.n_conflicts = 1},
	{.what = "names that only look escaped",
		.in = {{PAGE_TEXT,
			"U__a 1\nU__a_22_b 1\nU__d800_ 1\nU__z_E4_ 1\nU__z_e4 1\nU__z_0e4_ 1\n", 0,
			0}},
		.text = "# TYPE U__a untyped\nU__a{merger_url=\"u0\"} 1\n"
			"# TYPE U__a_22_b untyped\nU__a_22_b{merger_url=\"u0\"} 1\n"
			"# TYPE U__d800_ untyped\nU__d800_{merger_url=\"u0\"} 1\n"
			"# TYPE U__z_0e4_ untyped\nU__z_0e4_{merger_url=\"u0\"} 1\n"
			"# TYPE U__z_E4_ untyped\nU__z_E4_{merger_url=\"u0\"} 1\n"
			"# TYPE U__z_e4 untyped\nU__z_e4{merger_url=\"u0\"} 1\n"},
	{.what = "nothing", .in = {{PAGE_TEXT, "\n", 0, 0}}, .text = "", .openmetrics = "# EOF\n"},
};

static void check_merged(
	const struct merge_case *c, struct page *const *pages, size_t n, bool openmetrics)
{
	const char *wanted = openmetrics ? c->openmetrics : c->text;
	for (size_t piece = 1; wanted && piece < 5000; piece *= 7) {
		char *merged = write_pages(pages, n, openmetrics, false, piece, NULL);
		if (strcmp(merged, wanted) != 0)
			fail_msg("%s:\n%s\nwanted:\n%s", c->what, merged, wanted);
		free(merged);
	}
}

static void test_merge(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof merge_cases / sizeof *merge_cases; i++) {
		const struct merge_case *c = &merge_cases[i];
		struct page *pages[MAX_PAGES] = {NULL};
		size_t n = 0;
		for (; n < MAX_PAGES && c->in[n].page; n++) {
			char url[32];
			snprintf(url, sizeof url, "u%zu", n);
			struct page_options options = {
				.format = c->in[n].format, .source = span_of(url)};
			struct page_label label;
			if (c->in[n].prefix)
				options.prefix = span_of(c->in[n].prefix);
			if (c->in[n].label) {
				const char *equals = strchr(c->in[n].label, '=');
				label.name = (struct span){
					c->in[n].label, (size_t)(equals - c->in[n].label)};
				label.value = span_of(equals + 1);
				options.labels = &label;
				options.n_labels = 1;
			}
			struct page_error error;
			pages[n] = read_page(span_of(c->in[n].page), &options, 0, &error);
			if (!pages[n])
				fail_msg("%s: line %d: %s", c->what, (int)error.line, error.reason);
		}
		check_merged(c, pages, n, false);
		check_merged(c, pages, n, true);
		uint32_t between[MAX_PAGES][PAGE_CONFLICTS] = {{0}};
		free(write_pages(pages, n, false, false, 100, between));
		for (unsigned k = 0; k < PAGE_CONFLICTS; k++) {
			unsigned total = 0;
			for (size_t p = 0; p < n; p++)
				total += between[p][k] + pages[p]->conflicts[k];
			if (total != (k == c->conflict ? c->n_conflicts : 0))
				fail_msg("%s: %s: %u", c->what, page_conflict_names[k], total);
		}
		for (size_t p = 0; p < n; p++)
			page_free(&pages[p]);
	}
}

static void test_utf8_allowed(void **state)
{
	(void)state;
	struct page_options options = {.format = PAGE_TEXT, .source = SPAN_LITERAL("u")};
	struct page_error error;
	struct page *page = read_page(
		SPAN_LITERAL("# HELP \"a.b\" h\n{\"a.b\",\"x y\"=\"1\"} 1\n"), &options, 0, &error);
	assert_non_null(page);
	char *merged = write_pages(&page, 1, false, true, 1, NULL);
	assert_string_equal(merged, "# HELP \"a.b\" h\n# TYPE \"a.b\" untyped\n"
				    "{\"a.b\",merger_url=\"u\",\"x y\"=\"1\"} 1\n");
	free(merged);
	page_free(&page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strict),
		cmocka_unit_test(test_exemplar_length),
		cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_utf8_allowed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
