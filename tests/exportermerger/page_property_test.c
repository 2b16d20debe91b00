/*
 * Any valid page, split over some targets and merged, has the same set of samples as the page; no
 * family is opened twice, no series is there twice (the strict reader accepts the merged page).
 * Pages are made by lot: all types, labels in any order, values, timestamps and exemplars of every
 * kind.
 */
#include <time.h>

#include "tests/exportermerger/page_fixture.h"

#define ROUNDS      600
#define MAX_SAMPLES 2000
#define MAX_TARGETS 5
#define PAGE_BYTES  (1u << 20)

static uint64_t random_state;

static unsigned draw(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)(random_state >> 33) % n;
}

struct made {
	bool openmetrics;
	unsigned n_targets;
	struct buf pages[MAX_TARGETS]; /* as the targets show them */
	char *samples[MAX_SAMPLES];    /* as the merged page should, without merger_url */
	size_t n_samples;
};

static const char *const label_names[] = {"a", "b", "code", "le2", "zone", "Z", "_x"};
#define N_LABELS (sizeof label_names / sizeof *label_names)

static const char *draw_text(void)
{
	static const char *const texts[] = {"", "x", "200", "a b", "\\\\", "\\\"", "\\n",
		"}{,=", "\xc3\xa9", "# EOF", "a=\\\"b\\\"", "0.5", "\xf0\x9f\x98\x80"};
	return texts[draw(sizeof texts / sizeof *texts)];
}

static const char *draw_value(void)
{
	static const char *const values[] = {"0", "1", "-3", "1.5", "NaN", "+Inf", "-Inf", "1e-9",
		"1.7e+308", "123456789012345678901234567890", ".5", "5.", "-0", "nan", "Infinity"};
	return values[draw(sizeof values / sizeof *values)];
}

/* One labelling: values[i] NULL: not there. sorted and shuffled are the same labels as text. */
struct labelling {
	char sorted[400], shuffled[400];
};

static void append(char *to, size_t size, const char *name, const char *value)
{
	size_t len = strlen(to);
	snprintf(to + len, size - len, "%s%s=\"%s\"", len ? "," : "", name, value);
}

/* Different for every number, whatever else is drawn. */
static struct labelling draw_labels(unsigned number)
{
	static const unsigned by_name[N_LABELS] = {5, 6, 0, 1, 2, 3, 4};
	const char *values[N_LABELS];
	struct labelling l = {"", ""};
	char id[16];
	snprintf(id, sizeof id, "id%u", number);
	for (unsigned i = 0; i < N_LABELS; i++)
		values[i] = draw(3) ? NULL : draw_text();
	values[0] = number ? id : NULL;
	for (unsigned i = 0; i < N_LABELS; i++)
		if (values[by_name[i]])
			append(l.sorted, sizeof l.sorted, label_names[by_name[i]],
				values[by_name[i]]);
	unsigned start = draw(N_LABELS), step = 1 + draw(N_LABELS - 1);
	for (unsigned i = 0; i < N_LABELS; i++) {
		unsigned at = (start + i * step) % N_LABELS; /* N_LABELS is prime */
		if (values[at])
			append(l.shuffled, sizeof l.shuffled, label_names[at], values[at]);
	}
	return l;
}

/* One sample onto its target's page, and onto the list of what is to come out. */
static void add_sample(struct made *m, struct buf *page, const char *name,
	const struct labelling *l, const char *special, const char *special_value, const char *rest)
{
	char labels[500];
	assert_true(m->n_samples < MAX_SAMPLES);
	for (int sorted = 0; sorted < 2; sorted++) {
		labels[0] = '\0';
		if (special && !sorted && draw(2))
			append(labels, sizeof labels, special, special_value);
		size_t len = strlen(labels);
		const char *own = sorted ? l->sorted : l->shuffled;
		snprintf(labels + len, sizeof labels - len, "%s%s", len && *own ? "," : "", own);
		if (special && !len)
			append(labels, sizeof labels, special, special_value);
		const char *open = *labels || (!sorted && draw(4) == 0) ? "{" : "";
		if (!sorted)
			buf_printf(
				page, "%s%s%s%s %s\n", name, open, labels, *open ? "}" : "", rest);
		else if (asprintf(&m->samples[m->n_samples++], "%s%s%s%s %s", name, open, labels,
				 *open ? "}" : "", rest) < 0)
			abort();
	}
}

static void draw_rest(
	const struct made *m, const char *value, bool timestamp, bool exemplar, char rest[200])
{
	snprintf(rest, 200, "%s%s%s", value,
		!timestamp       ? ""
		: m->openmetrics ? " 1520879607.789"
				 : " 1520879607789",
		m->openmetrics && exemplar ? " # {trace=\"}\\\"\",b=\"\"} .5 1.5" : "");
}

static void add_histogram(struct made *m, struct buf *page, const char *name,
	const struct labelling *l, bool timestamp, bool gauge)
{
	static const char *const bounds[] = {"-1.5", "0", "0.1", "5e-1", "9", "10", "+Inf"};
	char full[64], rest[200], count[16] = "0";
	bool negative = draw(4) == 0;
	unsigned total = 0;
	for (unsigned i = negative ? 0 : 1; i < sizeof bounds / sizeof *bounds; i++) {
		total += draw(5);
		snprintf(count, sizeof count, "%u", total);
		draw_rest(m, count, timestamp, draw(3) == 0, rest);
		snprintf(full, sizeof full, "%s_bucket", name);
		add_sample(m, page, full, l, "le", bounds[i], rest);
	}
	if (negative && !gauge)
		return; /* has no sum, and so no count */
	draw_rest(m, count, timestamp, false, rest);
	snprintf(full, sizeof full, "%s_%scount", name, gauge ? "g" : "");
	add_sample(m, page, full, l, NULL, NULL, rest);
	draw_rest(m, "7.5", timestamp, false, rest);
	snprintf(full, sizeof full, "%s_%ssum", name, gauge ? "g" : "");
	add_sample(m, page, full, l, NULL, NULL, rest);
}

static void add_summary(struct made *m, struct buf *page, const char *name,
	const struct labelling *l, bool timestamp)
{
	static const char *const quantiles[] = {"0", "0.5", "9e-1", "1"};
	char full[64], rest[200];
	for (unsigned i = 0; i < 4; i++) {
		draw_rest(m, i ? "NaN" : "3", timestamp, false, rest);
		add_sample(m, page, name, l, "quantile", quantiles[i], rest);
	}
	draw_rest(m, "12", timestamp, false, rest);
	snprintf(full, sizeof full, "%s_sum", name);
	add_sample(m, page, full, l, NULL, NULL, rest);
	snprintf(full, sizeof full, "%s_count", name);
	add_sample(m, page, full, l, NULL, NULL, rest);
}

static void add_series(
	struct made *m, struct buf *page, enum page_type type, const char *name, unsigned number)
{
	struct labelling l = draw_labels(number);
	char full[64], rest[200];
	bool timestamp = draw(3) == 0;
	switch (type) {
	case PAGE_COUNTER:
		draw_rest(m, draw(2) ? "17" : "+Inf", timestamp, draw(2), rest);
		snprintf(full, sizeof full, "%s_total", name);
		add_sample(m, page, full, &l, NULL, NULL, rest);
		draw_rest(m, "15.5", timestamp, false, rest);
		snprintf(full, sizeof full, "%s_created", name);
		if (m->openmetrics && draw(2))
			add_sample(m, page, full, &l, NULL, NULL, rest);
		return;
	case PAGE_SUMMARY:
		add_summary(m, page, name, &l, timestamp);
		return;
	case PAGE_HISTOGRAM:
	case PAGE_GAUGEHISTOGRAM:
		add_histogram(m, page, name, &l, timestamp, type == PAGE_GAUGEHISTOGRAM);
		return;
	case PAGE_STATESET:
		draw_rest(m, "1", timestamp, false, rest);
		add_sample(m, page, name, &l, name, "on", rest);
		add_sample(m, page, name, &l, name, "off", rest);
		return;
	case PAGE_INFO:
		snprintf(full, sizeof full, "%s_info", name);
		add_sample(m, page, full, &l, NULL, NULL, "1");
		return;
	default:
		draw_rest(m, draw_value(), timestamp, false, rest);
		add_sample(m, page, name, &l, NULL, NULL, rest);
	}
}

static void add_family(struct made *m, unsigned number)
{
	static const char *const stems[] = {"m", "go_x", "a:b", "zz", "_q"};
	enum page_type type = (enum page_type)draw(
		m->openmetrics ? PAGE_INFO + 1 : PAGE_HISTOGRAM + 1);
	char name[32];
	bool with_type = type != PAGE_UNKNOWN || draw(2), seen[MAX_TARGETS] = {false};
	/* A state set's name is a label too, where a colon has no place. */
	snprintf(name, sizeof name, "%s%u", type == PAGE_STATESET ? "s" : stems[draw(5)], number);
	unsigned n_series = 1 + draw(6);
	unsigned target = draw(m->n_targets);
	const char *word = type == PAGE_UNKNOWN && !m->openmetrics ? "untyped"
								   : page_type_name(type);
	bool total = type == PAGE_COUNTER && !m->openmetrics;
	for (unsigned i = 0; i < n_series; i++) {
		if (draw(2))
			target = draw(m->n_targets);
		struct buf *page = &m->pages[target];
		/* A family is one group on each page; others of it have been written there before.
		 */
		if (!seen[target]) {
			buf_printf(page, "# HELP %s%s Help \\\\ \\n %u.\n", name,
				total ? "_total" : "", number);
			if (with_type)
				buf_printf(page, "# TYPE %s%s %s\n", name, total ? "_total" : "",
					word);
		}
		seen[target] = true;
		add_series(m, page, type, name, i);
	}
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* name{merger_url="u1",a="b"} 1 -> name{a="b"} 1, in place. */
static void strip_url(char *line)
{
	char *at = strstr(line, "{merger_url=\"u");
	assert_non_null(at);
	char *end = strchr(at + 14, '"') + 1;
	if (*end == ',')
		memmove(at + 1, end + 1, strlen(end + 1) + 1);
	else
		memmove(at, end + 1, strlen(end + 1) + 1);
}

static void check_samples(const struct made *m, char *merged)
{
	char *found[MAX_SAMPLES + 1], *save = NULL;
	size_t n = 0;
	for (char *line = strtok_r(merged, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (*line == '#')
			continue;
		strip_url(line);
		assert_true(n < m->n_samples);
		found[n++] = line;
	}
	assert_int_equal(n, m->n_samples);
	qsort(found, n, sizeof *found, compare_texts);
	for (size_t i = 0; i < n; i++)
		assert_string_equal(found[i], m->samples[i]);
}

static void check_round(bool openmetrics, unsigned round)
{
	struct made m = {.openmetrics = openmetrics, .n_targets = 1 + draw(MAX_TARGETS)};
	struct page *pages[MAX_TARGETS] = {NULL};
	struct page_error error;
	for (unsigned i = 0; i < MAX_TARGETS; i++)
		buf_init(&m.pages[i], PAGE_BYTES);
	for (unsigned i = 0, n = 1 + draw(12); i < n; i++)
		add_family(&m, i);
	qsort(m.samples, m.n_samples, sizeof *m.samples, compare_texts);
	for (unsigned i = 0; i < m.n_targets; i++) {
		char url[32];
		snprintf(url, sizeof url, "u%u", i);
		if (openmetrics)
			buf_append_str(&m.pages[i], "# EOF\n");
		/* Strict: what is split is valid, so no conflict may be found. */
		struct page_options options = {.format = openmetrics ? PAGE_OPENMETRICS : PAGE_TEXT,
			.strict = true,
			.source = span_of(url)};
		struct span text = {(const char *)m.pages[i].data, m.pages[i].len};
		pages[i] = read_page(text, &options, draw(3) ? 0 : 1 + draw(100), &error);
		if (!pages[i])
			fail_msg("round %u: line %d: %s:\n%.*s", round, (int)error.line,
				error.reason, SPAN_ARG(text));
	}
	uint32_t conflicts[MAX_TARGETS][PAGE_CONFLICTS] = {{0}};
	for (int form = 0; form < 2; form++) {
		char *merged = write_pages(
			pages, m.n_targets, form, false, 1 + draw(5000), conflicts);
		struct page_options strict = {
			.format = form ? PAGE_OPENMETRICS : PAGE_TEXT, .strict = true};
		struct page *again = read_page(span_of(merged), &strict, 0, &error);
		if (!again)
			fail_msg("round %u: merged, line %d: %s:\n%s", round, (int)error.line,
				error.reason, merged);
		assert_int_equal(again->n_samples, m.n_samples);
		page_free(&again);
		if (form == openmetrics)
			check_samples(&m, merged);
		free(merged);
	}
	for (unsigned i = 0; i < MAX_TARGETS; i++) {
		for (unsigned k = 0; k < PAGE_CONFLICTS; k++)
			assert_int_equal(conflicts[i][k], 0);
		page_free(&pages[i]);
		buf_free(&m.pages[i]);
	}
	for (size_t i = 0; i < m.n_samples; i++)
		free(m.samples[i]);
}

static void check_rounds(bool openmetrics)
{
	const char *seed = getenv("EG_SEED");
	random_state = seed ? strtoull(seed, NULL, 10) + 1 : 1;
	for (unsigned round = 0; round < ROUNDS; round++)
		check_round(openmetrics, round);
}

static void test_text(void **state)
{
	(void)state;
	check_rounds(false);
}

static void test_openmetrics(void **state)
{
	(void)state;
	check_rounds(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text), cmocka_unit_test(test_openmetrics)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
