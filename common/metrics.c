#include "common/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/utf8.h"

#define DEFAULT_MAX_SERIES 1000
#define LABEL_MAX_BYTES    256
#define FIRST_TABLE_SIZE   64
#define MAX_COLLECTORS     16

const double metrics_latency_buckets[] = {50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3,
	25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 0};

struct family {
	const struct metric_family *row;
	struct metric *first, **last;
	unsigned n_labels, n_buckets, n_series;
	struct family *next; /* by name */
};

struct metric {
	struct family *family;
	struct metric *next; /* in order of creation */
	uint64_t hash;
	double value;     /* a histogram's sum */
	uint64_t *counts; /* of each bucket alone, +Inf last */
	uint64_t n_counts;
	char *values; /* one string after the other */
	char *text;   /* a="x",b="y" */
};

struct metrics {
	struct family *families;
	struct metric **table; /* open addressing; the size is a power of two */
	size_t size, used;
	struct {
		void (*collect)(void *arg);
		void *arg;
	} collectors[MAX_COLLECTORS];
	unsigned n_collectors;
};

/* Where series go that there is no memory for: counted by nobody, harmful to nobody. */
static struct metric nowhere;

struct metrics *metrics_new(void)
{
	struct metrics *m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	m->size = FIRST_TABLE_SIZE;
	m->table = calloc(m->size, sizeof(struct metric *));
	if (!m->table) {
		free(m);
		return NULL;
	}
	return m;
}

static void free_series(struct family *f)
{
	for (struct metric *s = f->first, *next; s; s = next) {
		next = s->next;
		free(s->counts);
		free(s->values);
		free(s->text);
		free(s);
	}
	f->first = NULL;
	f->last = &f->first;
	f->n_series = 0;
}

void metrics_free(struct metrics **metrics)
{
	struct metrics *m = *metrics;
	if (!m)
		return;
	*metrics = NULL;
	for (struct family *f = m->families, *next; f; f = next) {
		next = f->next;
		free_series(f);
		free(f);
	}
	free(m->table);
	free(m);
}

static struct family *add_family(struct metrics *m, const struct metric_family *row)
{
	struct family **at = &m->families;
	int order = 1;
	while (*at && (order = strcmp((*at)->row->name, row->name)) < 0)
		at = &(*at)->next;
	if (*at && order == 0) {
		BUG_ON((*at)->row != row); /* two rows of one name */
		return *at;
	}
	struct family *f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	f->row = row;
	f->last = &f->first;
	while (row->labels[f->n_labels])
		f->n_labels++;
	for (const double *b = row->buckets; b && *b != 0; b++)
		f->n_buckets++;
	BUG_ON((row->type == METRIC_HISTOGRAM) != (f->n_buckets > 0));
	f->next = *at;
	*at = f;
	return f;
}

void metrics_register(struct metrics *metrics, const struct metric_family *families)
{
	for (const struct metric_family *row = families; row && row->name; row++) {
		add_family(metrics, row);
		if (!row->labels[0])
			metric(metrics, row);
		BUG_ON(row->known && (!row->labels[0] || row->labels[1]));
		for (const char *const *value = row->known; value && *value; value++)
			metric(metrics, row, *value);
	}
}

/* ---- finding a series ---- */

/* Prometheus wants UTF-8, and a label is no place for a text of any size. */
static const char *clean_value(const char *value, char clean[LABEL_MAX_BYTES + 4])
{
	size_t len = strnlen(value, LABEL_MAX_BYTES + 1), i = 0, out = 0;
	while (i < len && (uint8_t)value[i] < 0x80)
		i++;
	if (i == len && len <= LABEL_MAX_BYTES)
		return value;
	for (i = 0; i < len && out < LABEL_MAX_BYTES;) {
		size_t n = utf8_sequence_len(value + i, strnlen(value + i, 4));
		const char *from = n ? value + i : UTF8_REPLACEMENT;
		size_t n_out = n ? n : 3;
		if (out + n_out > LABEL_MAX_BYTES)
			break;
		memcpy(clean + out, from, n_out);
		out += n_out;
		i += n ? n : 1;
	}
	clean[out] = '\0';
	return clean;
}

/* FNV-1a; the series of a page are few, and bounded. */
static uint64_t hash_bytes(uint64_t hash, const void *data, size_t len)
{
	for (const uint8_t *p = data; len--; p++)
		hash = (hash ^ *p) * UINT64_C(0x100000001b3);
	return hash;
}

static uint64_t hash_of(const struct metric_family *row, const char *const *values, unsigned n)
{
	uint64_t hash = hash_bytes(UINT64_C(0xcbf29ce484222325), &row, sizeof row);
	for (unsigned i = 0; i < n; i++)
		hash = hash_bytes(hash, values[i], strlen(values[i]) + 1);
	return hash;
}

static bool same_values(const struct metric *s, const char *const *values)
{
	const char *own = s->values;
	for (unsigned i = 0; i < s->family->n_labels; i++) {
		if (strcmp(own, values[i]) != 0)
			return false;
		own += strlen(own) + 1;
	}
	return true;
}

/* The slot that holds the series, or the free one where it belongs. */
static struct metric **find_slot(struct metrics *m, uint64_t hash, const struct metric_family *row,
	const char *const *values)
{
	size_t i = (size_t)(hash ^ hash >> 32) & (m->size - 1);
	for (;; i = (i + 1) & (m->size - 1)) {
		struct metric *s = m->table[i];
		if (!s || (s->hash == hash && s->family->row == row && same_values(s, values)))
			return &m->table[i];
	}
}

static int grow_table(struct metrics *m)
{
	size_t size = m->size * 2;
	struct metric **table = calloc(size, sizeof(struct metric *));
	if (!table)
		return -1;
	for (size_t i = 0; i < m->size; i++) {
		struct metric *s = m->table[i];
		if (!s)
			continue;
		size_t j = (size_t)(s->hash ^ s->hash >> 32) & (size - 1);
		while (table[j])
			j = (j + 1) & (size - 1);
		table[j] = s;
	}
	free(m->table);
	m->table = table;
	m->size = size;
	return 0;
}

static void append_escaped(struct buf *out, const char *text, bool quotes)
{
	for (; *text; text++)
		if (*text == '\\')
			buf_append(out, "\\\\", 2);
		else if (*text == '\n')
			buf_append(out, "\\n", 2);
		else if (*text == '"' && quotes)
			buf_append(out, "\\\"", 2);
		else
			buf_append_char(out, *text);
}

static struct metric *new_series(struct family *f, uint64_t hash, const char *const *values)
{
	struct metric *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	struct buf packed = BUF_INIT(METRIC_MAX_LABELS * (LABEL_MAX_BYTES + 1) + 1);
	struct buf text = BUF_INIT(METRIC_MAX_LABELS * (2 * LABEL_MAX_BYTES + 128));
	for (unsigned i = 0; i < f->n_labels; i++) {
		buf_append(&packed, values[i], strlen(values[i]) + 1);
		buf_printf(&text, "%s%s=\"", i ? "," : "", f->row->labels[i]);
		append_escaped(&text, values[i], true);
		buf_append_char(&text, '"');
	}
	buf_append_char(&packed, '\0');
	buf_append_char(&text, '\0');
	if (f->n_buckets) {
		s->n_counts = f->n_buckets + 1;
		s->counts = calloc(s->n_counts, sizeof(uint64_t));
	}
	if (buf_failed(&packed) || buf_failed(&text) || (f->n_buckets && !s->counts)) {
		buf_free(&packed);
		buf_free(&text);
		free(s->counts);
		free(s);
		return NULL;
	}
	s->family = f;
	s->hash = hash;
	s->values = buf_take(&packed, NULL);
	s->text = buf_take(&text, NULL);
	*f->last = s;
	f->last = &s->next;
	f->n_series++;
	return s;
}

struct metric *metrics_get(
	struct metrics *metrics, const struct metric_family *row, const char *const *values)
{
	static const char *const others[METRIC_MAX_LABELS] = {
		"other", "other", "other", "other", "other", "other"};
	char clean[METRIC_MAX_LABELS][LABEL_MAX_BYTES + 4];
	const char *cleaned[METRIC_MAX_LABELS];
	unsigned n = 0;
	for (; row->labels[n]; n++) {
		BUG_ON(!values[n]);
		cleaned[n] = clean_value(values[n], clean[n]);
	}
	BUG_ON(values[n] != NULL);
	uint64_t hash = hash_of(row, cleaned, n);
	struct metric **slot = find_slot(metrics, hash, row, cleaned);
	if (*slot)
		return *slot;

	struct family *f = add_family(metrics, row);
	if (!f)
		return &nowhere;
	const char *const *given = cleaned;
	/* The series for the rest does not count, so that there is always room for it. */
	if (n && f->n_series >= (row->max_series ? row->max_series : DEFAULT_MAX_SERIES)) {
		given = others;
		hash = hash_of(row, given, n);
		slot = find_slot(metrics, hash, row, given);
		if (*slot)
			return *slot;
	}
	if (metrics->used * 4 >= metrics->size * 3) {
		if (grow_table(metrics) < 0)
			return &nowhere;
		slot = find_slot(metrics, hash, row, given);
	}
	*slot = new_series(f, hash, given);
	if (!*slot)
		return &nowhere;
	metrics->used++;
	return *slot;
}

void metrics_forget(struct metrics *metrics, const struct metric_family *row)
{
	struct family *family = metrics->families;
	while (family && family->row != row)
		family = family->next;
	if (!family)
		return;
	free_series(family);
	/* Open addressing: what stays takes its places anew. */
	memset(metrics->table, 0, metrics->size * sizeof *metrics->table);
	metrics->used = 0;
	for (struct family *f = metrics->families; f; f = f->next)
		for (struct metric *s = f->first; s; s = s->next) {
			size_t i = (size_t)(s->hash ^ s->hash >> 32) & (metrics->size - 1);
			while (metrics->table[i])
				i = (i + 1) & (metrics->size - 1);
			metrics->table[i] = s;
			metrics->used++;
		}
}

/* ---- changing one ---- */

void metric_add(struct metric *metric, double value)
{
	/* A counter never falls: what a peer reports as negative is not believed. */
	if (metric->family && metric->family->row->type == METRIC_COUNTER && !(value >= 0))
		return;
	metric->value += value;
}

void metric_set(struct metric *metric, double value)
{
	metric->value = value;
}

void metric_observe(struct metric *metric, double value)
{
	if (!metric->counts || isnan(value))
		return;
	const double *buckets = metric->family->row->buckets;
	unsigned i = 0;
	while (buckets[i] != 0 && value > buckets[i])
		i++;
	metric->counts[i]++;
	metric->value += value;
}

double metric_value(const struct metric *metric)
{
	if (!metric->counts)
		return metric->value;
	uint64_t count = 0;
	for (uint64_t i = 0; i < metric->n_counts; i++)
		count += metric->counts[i];
	return (double)count;
}

/* ---- showing them ---- */

void metrics_on_collect(struct metrics *metrics, void (*collect)(void *arg), void *arg)
{
	BUG_ON(metrics->n_collectors == MAX_COLLECTORS);
	metrics->collectors[metrics->n_collectors].collect = collect;
	metrics->collectors[metrics->n_collectors++].arg = arg;
}

static void collect(struct metrics *m)
{
	for (unsigned i = 0; i < m->n_collectors; i++)
		m->collectors[i].collect(m->collectors[i].arg);
}

static const char *type_name(enum metric_type type)
{
	return type == METRIC_COUNTER ? "counter" : type == METRIC_GAUGE ? "gauge" : "histogram";
}

static void write_sample(
	struct buf *out, const char *name, const char *suffix, const char *labels, double value)
{
	buf_append_str(out, name);
	buf_append_str(out, suffix);
	if (*labels) {
		buf_append_char(out, '{');
		buf_append_str(out, labels);
		buf_append_char(out, '}');
	}
	buf_append_char(out, ' ');
	buf_append_double(out, value);
	buf_append_char(out, '\n');
}

static void write_histogram(struct buf *out, const struct metric *s)
{
	const struct metric_family *row = s->family->row;
	uint64_t count = 0;
	for (uint64_t i = 0; i < s->n_counts; i++) {
		count += s->counts[i];
		buf_printf(out, "%s_bucket{%s%sle=\"", row->name, s->text, *s->text ? "," : "");
		buf_append_double(out, i + 1 < s->n_counts ? row->buckets[i] : INFINITY);
		buf_printf(out, "\"} %llu\n", (unsigned long long)count);
	}
	write_sample(out, row->name, "_sum", s->text, s->value);
	write_sample(out, row->name, "_count", s->text, (double)count);
}

void metrics_write_text(struct metrics *metrics, struct buf *out)
{
	collect(metrics);
	for (const struct family *f = metrics->families; f; f = f->next) {
		if (!f->first)
			continue;
		buf_printf(out, "# HELP %s ", f->row->name);
		append_escaped(out, f->row->help, false);
		buf_printf(out, "\n# TYPE %s %s\n", f->row->name, type_name(f->row->type));
		for (const struct metric *s = f->first; s; s = s->next)
			if (s->counts)
				write_histogram(out, s);
			else
				write_sample(out, f->row->name, "", s->text, s->value);
	}
}

/* A histogram's counts, made cumulative, for one call of the visitor. */
static void visit_series(const struct metric *s, const struct metrics_visitor *visitor, void *arg)
{
	const char *values[METRIC_MAX_LABELS + 1] = {NULL};
	const char *value = s->values;
	for (unsigned i = 0; i < s->family->n_labels; i++) {
		values[i] = value;
		value += strlen(value) + 1;
	}
	uint64_t *cumulative = NULL;
	if (s->counts) {
		cumulative = malloc(s->n_counts * sizeof *cumulative);
		if (!cumulative)
			return;
		uint64_t count = 0;
		for (uint64_t i = 0; i < s->n_counts; i++)
			cumulative[i] = count += s->counts[i];
	}
	visitor->series(values, s->value, cumulative, s->n_counts, arg);
	free(cumulative);
}

void metrics_visit(struct metrics *metrics, const struct metrics_visitor *visitor, void *arg)
{
	collect(metrics);
	for (const struct family *f = metrics->families; f; f = f->next) {
		if (!f->first)
			continue;
		visitor->family(f->row, f->n_series, arg);
		for (const struct metric *s = f->first; s; s = s->next)
			visit_series(s, visitor, arg);
	}
}

void metrics_print_markdown(const struct metrics *metrics, FILE *out)
{
	fputs("\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n", out);
	for (const struct family *f = metrics->families; f; f = f->next) {
		fprintf(out, "| `%s` | %s |", f->row->name, type_name(f->row->type));
		for (unsigned i = 0; i < f->n_labels; i++)
			fprintf(out, "%s `%s`", i ? "," : "", f->row->labels[i]);
		fputs(" | ", out);
		for (const char *c = f->row->help; *c; c++)
			fprintf(out, "%s%c", *c == '|' ? "\\" : "", *c);
		fputs(" |\n", out);
	}
}
