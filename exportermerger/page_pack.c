#include <math.h>
#include <stdlib.h>

#include "exportermerger/page_private.h"
#include "exportermerger/sample_number.h"

static const char no_memory[] = "out of memory";

struct span record_labels(const struct page_builder *b, const struct record *r)
{
	return (struct span){(const char *)b->raw.data + r->offset, r->labels_len};
}

static size_t special_bytes(const struct record *r)
{
	return r->special_len == SPECIAL_NONE ? 0 : r->special_len;
}

struct span record_special(const struct page_builder *b, const struct record *r)
{
	return (struct span){
		(const char *)b->raw.data + r->offset + r->labels_len, special_bytes(r)};
}

struct span record_value(const struct page_builder *b, const struct record *r)
{
	return (struct span){
		(const char *)b->raw.data + r->offset + r->labels_len + special_bytes(r),
		r->value_len};
}

struct span record_timestamp(const struct page_builder *b, const struct record *r)
{
	struct span value = record_value(b, r);
	return (struct span){value.data + value.len, r->timestamp_len};
}

struct span record_exemplar(const struct page_builder *b, const struct record *r)
{
	if (r->exemplar_len == EXEMPLAR_NONE)
		return (struct span){0};
	struct span timestamp = record_timestamp(b, r);
	return (struct span){timestamp.data + timestamp.len, r->exemplar_len};
}

void page_builder_note_error(struct page_builder *b, uint64_t line, const char *reason)
{
	if (!b->error.reason || line < b->error.line)
		b->error = (struct page_error){line, reason};
}

/* ---- order ---- */

static int compare_texts(struct span a, struct span b)
{
	size_t n = a.len < b.len ? a.len : b.len;
	int order = n ? memcmp(a.data, b.data, n) : 0;
	return order ? order : a.len < b.len ? -1 : a.len > b.len;
}

static int compare_times(struct span a, struct span b)
{
	if (a.len == 0 || b.len == 0)
		return a.len ? 1 : b.len ? -1 : 0;
	if (span_equal(a, b))
		return 0;
	double x = sample_number_value(a), y = sample_number_value(b);
	return x < y ? -1 : x > y;
}

/* 0: the same series. */
static int compare_series(
	const struct page_builder *b, const struct record *x, const struct record *y)
{
	if (x->part != y->part)
		return x->part < y->part ? -1 : 1;
	if ((x->special_len == SPECIAL_NONE) != (y->special_len == SPECIAL_NONE))
		return x->special_len == SPECIAL_NONE ? -1 : 1;
	if (x->order != y->order)
		return x->order < y->order ? -1 : 1;
	if (x->special_is_text != y->special_is_text)
		return x->special_is_text ? 1 : -1;
	return x->special_is_text ? compare_texts(record_special(b, x), record_special(b, y)) : 0;
}

/* By labels, then parts and buckets, then age; points of one time together in OpenMetrics, where a
 * series may be given at several times. */
static int compare_records(const void *x_, const void *y_, void *arg)
{
	const struct page_builder *b = arg;
	const struct record *x = x_, *y = y_;
	bool openmetrics = b->options.format == PAGE_OPENMETRICS;
	int order = compare_texts(record_labels(b, x), record_labels(b, y));
	if (order == 0 && openmetrics)
		order = compare_times(record_timestamp(b, x), record_timestamp(b, y));
	if (order == 0)
		order = compare_series(b, x, y);
	if (order == 0 && !openmetrics)
		order = compare_times(record_timestamp(b, x), record_timestamp(b, y));
	/* Of equals the first stays, so it stands last, as the newest does. */
	return order ? order : x->seq > y->seq ? -1 : 1;
}

static void sort_records(struct page_builder *b, struct record *records, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (compare_records(&records[i - 1], &records[i], b) > 0) {
			qsort_r(records, n, sizeof *records, compare_records, b);
			return;
		}
}

/* ---- one family ---- */

/* All samples of a labelling stand together on an OpenMetrics page. */
static void check_grouping(
	struct page_builder *b, const struct page_family *f, const struct record *records, size_t n)
{
	uint32_t low = UINT32_MAX, high = 0;
	for (size_t i = 0; i < n; i++) {
		low = records[i].seq < low ? records[i].seq : low;
		high = records[i].seq > high ? records[i].seq : high;
	}
	if (f->type != PAGE_INFO && (size_t)(high - low) + 1 != n)
		page_builder_note_error(
			b, records[n - 1].line, "samples of one series do not stand together");
}

/* The samples of one labelling; returns how many are kept, in their order. */
static size_t settle_group(
	struct page_builder *b, struct page_family *f, struct record *r, size_t n)
{
	bool openmetrics = b->options.format == PAGE_OPENMETRICS;
	const struct record *at;
	const char *reason;
	size_t kept = 0;
	if (openmetrics && b->options.strict)
		check_grouping(b, f, r, n);
	for (size_t i = 0; i < n; i++) {
		bool same = i + 1 < n && compare_series(b, &r[i], &r[i + 1]) == 0;
		bool same_time = i + 1 < n && compare_times(record_timestamp(b, &r[i]),
						      record_timestamp(b, &r[i + 1])) == 0;
		if (same && (!openmetrics || same_time)) {
			if (b->options.strict)
				page_builder_note_error(b, r[i].line, "series given twice");
			page_builder_conflict(b, PAGE_CONFLICT_SERIES);
			continue;
		}
		r[kept++] = r[i];
		if (openmetrics && i + 1 < n && !same_time && f->type != PAGE_INFO) {
			/* A newer point follows: this one is complete, checked, and left out. */
			reason = page_rules_check(b, f, r, kept, &at);
			if (reason)
				page_builder_note_error(b, at->line, reason);
			for (; kept; kept--)
				page_builder_conflict(b, PAGE_CONFLICT_SERIES);
		}
	}
	reason = page_rules_check(b, f, r, kept, &at);
	if (reason && openmetrics)
		page_builder_note_error(b, at->line, reason);
	if (reason)
		f->openmetrics_valid = false;
	return kept;
}

static void append_varint(struct buf *out, size_t n)
{
	while (n >= 0x80) {
		buf_append_char(out, (char)(0x80 | (n & 0x7f)));
		n >>= 7;
	}
	buf_append_char(out, (char)n);
}

static void append_text(struct buf *out, struct span text)
{
	append_varint(out, text.len);
	buf_append(out, text.data, text.len);
}

/* flags, labels as shared + rest, [special], value, [timestamp], [exemplar]; page_reader_next()
 * reads it. */
static void pack_record(
	const struct page_builder *b, const struct record *r, struct span before, struct buf *out)
{
	struct span labels = record_labels(b, r);
	size_t shared = 0, most = labels.len < before.len ? labels.len : before.len;
	while (shared < most && labels.data[shared] == before.data[shared])
		shared++;
	bool special = r->special_len != SPECIAL_NONE, exemplar = r->exemplar_len != EXEMPLAR_NONE;
	buf_append_char(
		out, (char)(r->part | special << 3 | (r->timestamp_len > 0) << 4 | exemplar << 5));
	append_varint(out, shared);
	append_text(out, (struct span){labels.data + shared, labels.len - shared});
	if (special)
		append_text(out, record_special(b, r));
	append_text(out, record_value(b, r));
	if (r->timestamp_len)
		append_text(out, record_timestamp(b, r));
	if (exemplar)
		append_text(out, record_exemplar(b, r));
}

static void settle_family(struct page_builder *b, struct building *building, struct buf *out)
{
	struct page_family *f = &building->family;
	struct record *records = b->records + building->first;
	size_t n = f->n_samples;
	f->openmetrics_valid = true;
	f->n_samples = 0;
	sort_records(b, records, n);
	size_t start = out->len;
	struct span before = {0};
	for (size_t i = 0; i < n;) {
		struct span labels = record_labels(b, &records[i]);
		size_t end = i + 1;
		while (end < n && span_equal(labels, record_labels(b, &records[end])))
			end++;
		size_t kept = settle_group(b, f, records + i, end - i);
		for (size_t k = 0; k < kept; k++) {
			pack_record(b, &records[i + k], before, out);
			before = labels;
		}
		f->n_samples += (uint32_t)kept;
		i = end;
	}
	f->samples_len = out->len - start;
}

/* ---- the page ---- */

/* Classic text has no _created samples: what a library writes there is a gauge of its own, which
 * belongs to its counter, summary or histogram. */
static void fold_created(struct page_builder *b)
{
	bool any = false;
	for (uint32_t i = 0; i < b->n_families; i++) {
		struct building *gauge = &b->families[i];
		struct span name = gauge->family.name, base = name;
		gauge->first = i; /* where its records go */
		if (gauge->family.type != PAGE_GAUGE || name.len <= 8 ||
			memcmp(name.data + name.len - 8, "_created", 8) != 0)
			continue;
		base.len -= 8;
		uint32_t owner = text_table_find(&b->names, base);
		if (owner == TEXT_TABLE_NONE ||
			(b->families[owner].family.type != PAGE_SUMMARY &&
				b->families[owner].family.type != PAGE_HISTOGRAM)) {
			struct span counter = text_store_join(
				b->text, base, SPAN_LITERAL("_total"), (struct span){0});
			owner = counter.data ? text_table_find(&b->names, counter)
					     : TEXT_TABLE_NONE;
			if (owner == TEXT_TABLE_NONE ||
				b->families[owner].family.type != PAGE_COUNTER)
				continue;
		}
		gauge->first = owner;
		any = true;
	}
	for (uint32_t i = 0; any && i < b->n_records; i++) {
		struct record *r = &b->records[i];
		struct building *own = &b->families[r->family];
		if (own->first == r->family)
			continue;
		r->family = own->first;
		own->family.n_samples = 0;
		r->part = PAGE_CREATED;
		struct page_family *owner = &b->families[r->family].family;
		owner->parts |= PAGE_PART_BIT(PAGE_CREATED);
		r->seq = owner->n_samples++;
	}
}

/* Records of a family side by side, in order of arrival. */
static int group_records(struct page_builder *b)
{
	uint32_t at = 0;
	bool grouped = true;
	for (uint32_t i = 0; i < b->n_families; i++) {
		b->families[i].first = at;
		at += b->families[i].family.n_samples;
	}
	for (uint32_t i = 1; i < b->n_records && grouped; i++)
		grouped = b->records[i - 1].family < b->records[i].family ||
			  (b->records[i - 1].family == b->records[i].family &&
				  b->records[i - 1].seq < b->records[i].seq);
	if (grouped)
		return 0;
	struct record *sorted = malloc(b->n_records * sizeof *sorted);
	if (!sorted)
		return -1;
	for (uint32_t i = 0; i < b->n_records; i++) {
		const struct record *r = &b->records[i];
		sorted[b->families[r->family].first + r->seq] = *r;
	}
	free(b->records);
	b->records = sorted;
	b->records_capacity = b->n_records;
	return 0;
}

/* From the name that the page's lines use to the one that classic text uses, with the prefix. */
static int name_family(struct page_builder *b, struct page_family *f)
{
	struct span suffix = {0}, name = f->name, prefix = b->options.prefix;
	if (b->options.format == PAGE_OPENMETRICS) {
		if (f->type == PAGE_COUNTER)
			suffix = SPAN_LITERAL("_total");
		else if (f->type == PAGE_INFO)
			suffix = SPAN_LITERAL("_info");
		f->base_len = prefix.len + name.len;
	} else {
		f->base_len = prefix.len + name.len;
		if (f->type == PAGE_COUNTER && name.len > 6 &&
			memcmp(name.data + name.len - 6, "_total", 6) == 0)
			f->base_len -= 6;
	}
	if (prefix.len || suffix.len)
		f->name = text_store_join(b->text, prefix, name, suffix);
	return f->name.data ? 0 : -1;
}

static int compare_families(const void *a, const void *b)
{
	return compare_texts(
		((const struct page_family *)a)->name, ((const struct page_family *)b)->name);
}

static struct page *make_page(struct page_builder *b)
{
	const struct page_options *o = &b->options;
	struct page *page = calloc(1, sizeof *page);
	if (!page)
		return NULL;
	page->families = calloc(b->n_families + 1, sizeof *page->families);
	page->encoded = malloc(b->packed.len + 1);
	page->source_labels = SPAN_LITERAL("");
	if (o->source.len && !o->source_is_default)
		page->source_labels = text_store_join(
			b->text, SPAN_LITERAL("merger_url=\""), o->source, SPAN_LITERAL("\""));
	if (!page->families || !page->encoded || !page->source_labels.data) {
		page_free(&page);
		return NULL;
	}
	page->format = o->format;
	memcpy(page->conflicts, b->conflicts, sizeof page->conflicts);
	if (b->packed.len)
		memcpy(page->encoded, b->packed.data, b->packed.len);
	const uint8_t *samples = page->encoded;
	for (uint32_t i = 0; i < b->n_families; i++) {
		struct page_family *f = &b->families[i].family;
		f->samples = samples;
		samples += f->samples_len;
		if (f->n_samples == 0)
			continue;
		page->n_samples += f->n_samples;
		page->families[page->n_families++] = *f;
	}
	qsort(page->families, page->n_families, sizeof *page->families, compare_families);
	page->text = b->text;
	b->text = NULL;
	return page;
}

struct page *page_builder_finish(struct page_builder *b, struct page_error *error)
{
	struct page *page = NULL;
	if (b->options.format == PAGE_OPENMETRICS)
		page_rules_check_names(b);
	else
		fold_created(b);
	int failed = group_records(b);
	for (uint32_t i = 0; i < b->n_families && !failed; i++) {
		failed = name_family(b, &b->families[i].family);
		if (!failed)
			settle_family(b, &b->families[i], &b->packed);
	}
	if (failed || buf_failed(&b->packed))
		page_builder_note_error(b, 0, no_memory);
	if (!b->error.reason && !(page = make_page(b)))
		page_builder_note_error(b, 0, no_memory);
	*error = b->error;
	return page;
}
