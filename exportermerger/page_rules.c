#include <math.h>
#include <stdlib.h>

#include "exportermerger/page_private.h"
#include "exportermerger/sample_number.h"

/* What one series has shown so far. */
struct series {
	bool has_bucket, has_count, has_sum, negative_sum, negative_bucket;
	double last_order, last_value, count;
};

static bool is_histogram(enum page_type type)
{
	return type == PAGE_HISTOGRAM || type == PAGE_GAUGEHISTOGRAM;
}

static bool is_whole(double value)
{
	return isfinite(value) && value == floor(value);
}

static const char *check_value(const struct page_builder *b, const struct page_family *f,
	const struct record *r, double value)
{
	switch (f->type) {
	case PAGE_COUNTER:
		if (b->options.format == PAGE_TEXT && f->base_len == f->name.len)
			return "counter without _total";
		return isnan(value) ? "counter is NaN" : value < 0 ? "counter is negative" : NULL;
	case PAGE_SUMMARY:
		if (r->special_len == SPECIAL_NONE)
			return "quantile is missing";
		if (!(r->order >= 0 && r->order <= 1))
			return "quantile is not between 0 and 1";
		return value < 0 ? "value of a quantile is negative" : NULL;
	case PAGE_STATESET:
		if (r->special_len == SPECIAL_NONE)
			return "state is missing";
		return value != 0 && value != 1 ? "state is neither 0 nor 1" : NULL;
	case PAGE_INFO:
		return value != 1 ? "info is not 1" : NULL;
	case PAGE_HISTOGRAM:
	case PAGE_GAUGEHISTOGRAM:
		return "sample name does not fit the type of its family";
	default:
		return NULL;
	}
}

static const char *check_bucket(
	const struct page_builder *b, struct series *s, const struct record *r, double value)
{
	if (r->special_len == SPECIAL_NONE || r->special_is_text)
		return "le is missing or NaN";
	if (r->order == INFINITY && !span_equal_str(record_special(b, r), "+Inf"))
		return "infinite le is not written +Inf";
	if (isnan(value))
		return "bucket is NaN";
	if (value < 0)
		return "bucket is negative";
	if (!is_whole(value))
		return "bucket is not a whole number";
	if (s->has_bucket && value < s->last_value)
		return "bucket is below the one before";
	s->has_bucket = true;
	s->last_order = r->order;
	s->last_value = value;
	if (r->order < 0)
		s->negative_bucket = true;
	return NULL;
}

static const char *check_record(const struct page_builder *b, const struct page_family *f,
	struct series *s, const struct record *r)
{
	double value = sample_number_value(record_value(b, r));
	if (r->exemplar_len != EXEMPLAR_NONE && r->part != PAGE_BUCKET &&
		!(f->type == PAGE_COUNTER && r->part == PAGE_VALUE))
		return "exemplar on something else than a counter or a bucket";
	switch ((enum page_part)r->part) {
	case PAGE_VALUE:
		return check_value(b, f, r, value);
	case PAGE_BUCKET:
		return check_bucket(b, s, r, value);
	case PAGE_SUM:
		s->has_sum = true;
		s->negative_sum = value < 0;
		if (isnan(value))
			return "sum is NaN";
		return value < 0 && f->type != PAGE_GAUGEHISTOGRAM ? "sum is negative" : NULL;
	case PAGE_COUNT:
		s->has_count = true;
		s->count = value;
		return isnan(value)       ? "count is NaN"
		       : value < 0        ? "count is negative"
		       : !is_whole(value) ? "count is not a whole number"
					  : NULL;
	default:
		return NULL;
	}
}

static const char *check_histogram(const struct page_family *f, const struct series *s)
{
	if (!s->has_bucket || s->last_order != INFINITY)
		return "bucket +Inf is missing";
	if (s->has_count && s->count != s->last_value)
		return "count is not the bucket +Inf";
	if (s->has_sum && !s->has_count)
		return "sum without count";
	if (s->has_count && !s->has_sum)
		return "count without sum";
	if (f->type == PAGE_HISTOGRAM && s->negative_bucket && s->has_sum)
		return "sum beside negative buckets";
	if (f->type == PAGE_GAUGEHISTOGRAM && s->negative_sum && !s->negative_bucket)
		return "negative sum without negative buckets";
	return NULL;
}

const char *page_rules_check(const struct page_builder *b, const struct page_family *f,
	const struct record *records, size_t n, const struct record **at)
{
	struct series s = {0};
	for (size_t i = 0; i < n; i++) {
		*at = &records[i];
		const char *reason = check_record(b, f, &s, &records[i]);
		if (reason)
			return reason;
		if (f->type != PAGE_INFO && !span_equal(record_timestamp(b, &records[i]),
						    record_timestamp(b, &records[0])))
			return "samples of one series have different timestamps";
		if (b->options.strict && i && records[i - 1].part == PAGE_BUCKET &&
			records[i].part == PAGE_BUCKET && records[i].seq < records[i - 1].seq)
			return "buckets out of order";
	}
	return is_histogram(f->type) ? check_histogram(f, &s) : NULL;
}

const char *const *page_type_suffixes(enum page_type type)
{
	static const char *const none[] = {NULL}, *const counter[] = {"_total", "_created", NULL},
				 *const summary[] = {"_count", "_sum", "_created", NULL},
				 *const histogram[] = {"_count", "_sum", "_bucket", "_created",
					 NULL},
				 *const gaugehistogram[] = {"_gcount", "_gsum", "_bucket", NULL},
				 *const info[] = {"_info", NULL};
	switch (type) {
	case PAGE_COUNTER:
		return counter;
	case PAGE_SUMMARY:
		return summary;
	case PAGE_HISTOGRAM:
		return histogram;
	case PAGE_GAUGEHISTOGRAM:
		return gaugehistogram;
	case PAGE_INFO:
		return info;
	default:
		return none;
	}
}

static void check_unit(struct page_builder *b, const struct building *f)
{
	struct span name = f->family.name, unit = f->family.unit;
	if (unit.len == 0)
		return;
	if (f->family.type == PAGE_INFO || f->family.type == PAGE_STATESET)
		page_builder_note_error(b, f->line, "unit on an info or a stateset");
	else if (name.len < unit.len + 2 || name.data[name.len - unit.len - 1] != '_' ||
		 memcmp(name.data + name.len - unit.len, unit.data, unit.len) != 0)
		page_builder_note_error(b, f->line, "family name does not end with its unit");
}

void page_rules_check_names(struct page_builder *b)
{
	struct text_table names;
	if (text_table_init(&names) < 0) {
		page_builder_note_error(b, 0, "out of memory");
		return;
	}
	for (uint32_t i = 0; i < b->n_families; i++) {
		const struct building *f = &b->families[i];
		const char *const *suffix = page_type_suffixes(f->family.type);
		for (const char *add = ""; add; add = *suffix ? *suffix++ : NULL) {
			struct span name = text_store_join(
				b->text, f->family.name, span_of(add), (struct span){0});
			uint32_t other = name.data ? text_table_find(&names, name) : i;
			if (other != TEXT_TABLE_NONE) {
				uint32_t line = f->line;
				if (b->families[other].line > line)
					line = b->families[other].line;
				page_builder_note_error(
					b, line, "name clashes with another family's");
			} else if (text_table_add(&names, name, i) < 0) {
				page_builder_note_error(b, 0, "out of memory");
			}
		}
		check_unit(b, f);
	}
	text_table_free(&names);
}
