#include <math.h>
#include <stdlib.h>

#include "exportermerger/page_private.h"
#include "exportermerger/sample_number.h"

#define MERGER_LABEL "merger_url"

static const char no_memory[] = "out of memory";

struct page_builder *page_builder_new(void)
{
	struct page_builder *b = calloc(1, sizeof *b);
	if (!b)
		return NULL;
	buf_init(&b->raw, PAGE_MAX_BYTES);
	buf_init(&b->packed, PAGE_MAX_BYTES);
	if (text_table_init(&b->names) < 0)
		page_builder_free(&b);
	return b;
}

int page_builder_start(struct page_builder *b, const struct page_options *options)
{
	text_store_free(&b->text);
	text_table_clear(&b->names);
	buf_clear(&b->raw);
	buf_clear(&b->packed);
	b->options = *options;
	b->n_families = b->n_records = 0;
	b->current = TEXT_TABLE_NONE;
	b->last_name.len = 0;
	memset(b->conflicts, 0, sizeof b->conflicts);
	b->error = (struct page_error){0};
	b->text = text_store_new();
	return b->text ? 0 : -1;
}

void page_builder_free(struct page_builder **builder)
{
	struct page_builder *b = *builder;
	if (!b)
		return;
	text_store_free(&b->text);
	text_table_free(&b->names);
	free(b->families);
	free(b->records);
	free(b->labels);
	free(b->last_name_copy);
	buf_free(&b->raw);
	buf_free(&b->packed);
	free(b);
	*builder = NULL;
}

void page_builder_conflict(struct page_builder *b, enum page_conflict conflict)
{
	b->conflicts[conflict]++;
}

/* ---- families ---- */

static struct building *new_family(
	struct page_builder *b, struct span name, uint64_t line, const char **reason)
{
	if (b->n_families == b->families_capacity) {
		uint32_t capacity = b->families_capacity ? 2 * b->families_capacity : 32;
		void *grown = reallocarray(b->families, capacity, sizeof *b->families);
		if (!grown) {
			*reason = no_memory;
			return NULL;
		}
		b->families = grown;
		b->families_capacity = capacity;
	}
	struct span kept = text_store_keep(b->text, name);
	if (!kept.data || text_table_add(&b->names, kept, b->n_families) < 0) {
		*reason = no_memory;
		return NULL;
	}
	struct building *family = &b->families[b->n_families++];
	*family = (struct building){.family = {.name = kept}, .line = (uint32_t)line};
	return family;
}

static struct building *find_family(const struct page_builder *b, struct span name)
{
	uint32_t index = text_table_find(&b->names, name);
	return index == TEXT_TABLE_NONE ? NULL : &b->families[index];
}

static bool strip_suffix(struct span *name, const char *suffix)
{
	size_t len = strlen(suffix);
	if (name->len <= len || memcmp(name->data + name->len - len, suffix, len) != 0)
		return false;
	name->len -= len;
	return true;
}

static const struct {
	const char *suffix;
	enum page_part part;
	unsigned text_types, openmetrics_types; /* bits of the types whose samples have it */
} suffixes[] = {
	{"_total", PAGE_VALUE, 0, 1u << PAGE_COUNTER},
	{"_info", PAGE_VALUE, 0, 1u << PAGE_INFO},
	{"_count", PAGE_COUNT, 1u << PAGE_SUMMARY | 1u << PAGE_HISTOGRAM,
		1u << PAGE_SUMMARY | 1u << PAGE_HISTOGRAM},
	{"_sum", PAGE_SUM, 1u << PAGE_SUMMARY | 1u << PAGE_HISTOGRAM,
		1u << PAGE_SUMMARY | 1u << PAGE_HISTOGRAM},
	{"_bucket", PAGE_BUCKET, 1u << PAGE_HISTOGRAM,
		1u << PAGE_HISTOGRAM | 1u << PAGE_GAUGEHISTOGRAM},
	{"_created", PAGE_CREATED, 0,
		1u << PAGE_COUNTER | 1u << PAGE_SUMMARY | 1u << PAGE_HISTOGRAM},
	{"_gcount", PAGE_COUNT, 0, 1u << PAGE_GAUGEHISTOGRAM},
	{"_gsum", PAGE_SUM, 0, 1u << PAGE_GAUGEHISTOGRAM},
};

/* Types whose samples carry the family's own name in OpenMetrics. */
#define BARE_TYPES \
	(1u << PAGE_UNKNOWN | 1u << PAGE_GAUGE | 1u << PAGE_SUMMARY | 1u << PAGE_STATESET)

/* The family that a name belongs to: itself first, then one whose type gives samples a suffix. */
static struct building *resolve(
	const struct page_builder *b, struct span name, enum page_part *part, bool *is_sample)
{
	bool openmetrics = b->options.format == PAGE_OPENMETRICS;
	struct building *own = find_family(b, name);
	*part = PAGE_VALUE;
	*is_sample = own && (!openmetrics || BARE_TYPES & 1u << own->family.type);
	if (own && (*is_sample || !openmetrics))
		return own;
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		struct span base = name;
		unsigned types = openmetrics ? suffixes[i].openmetrics_types
					     : suffixes[i].text_types;
		if (!types || !strip_suffix(&base, suffixes[i].suffix))
			continue;
		struct building *family = find_family(b, base);
		if (family && types & 1u << family->family.type) {
			*part = suffixes[i].part;
			*is_sample = true;
			return family;
		}
	}
	return own;
}

/* Make it the current one; what was current is closed. */
static const char *open_family(struct page_builder *b, struct building *family)
{
	uint32_t index = (uint32_t)(family - b->families);
	if (index == b->current)
		return NULL;
	if (b->current != TEXT_TABLE_NONE) {
		struct building *before = &b->families[b->current];
		/* Classic comments may stand anywhere before the first sample. */
		before->closed = b->options.format == PAGE_OPENMETRICS ||
				 before->family.n_samples > 0;
	}
	b->current = index;
	b->last_name.len = 0;
	if (!family->closed)
		return NULL;
	if (b->options.strict)
		return "family opened twice";
	page_builder_conflict(b, PAGE_CONFLICT_REOPENED);
	return NULL;
}

/* ---- HELP, TYPE, UNIT ---- */

static int parse_type(struct span word, bool openmetrics, enum page_type *type)
{
	static const char *const names[] = {"unknown", "counter", "gauge", "summary", "histogram",
		"gaugehistogram", "stateset", "info"};
	if (!openmetrics) {
		if (span_equal_nocase(word, "untyped")) {
			*type = PAGE_UNKNOWN;
			return 0;
		}
		for (unsigned i = PAGE_COUNTER; i <= PAGE_HISTOGRAM; i++)
			if (span_equal_nocase(word, names[i])) {
				*type = (enum page_type)i;
				return 0;
			}
		return -1;
	}
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		if (span_equal_str(word, names[i])) {
			*type = (enum page_type)i;
			return 0;
		}
	return -1;
}

static struct span unescape_help(struct page_builder *b, struct span text)
{
	bool openmetrics = b->options.format == PAGE_OPENMETRICS;
	struct span kept = text_store_keep(b->text, text);
	if (!kept.data || !memchr(text.data, '\\', text.len))
		return kept;
	char *to = (char *)kept.data; /* our own copy, which only shrinks */
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i], next = i + 1 < text.len ? text.data[i + 1] : '\0';
		if (c == '\\' && (next == '\\' || next == 'n' || (next == '"' && openmetrics))) {
			c = next == 'n' ? '\n' : next;
			i++;
		}
		*to++ = c;
	}
	kept.len = (size_t)(to - kept.data);
	return kept;
}

static const char *add_type(struct page_builder *b, struct building *f, struct span word)
{
	enum page_type type;
	if (parse_type(word, b->options.format == PAGE_OPENMETRICS, &type) < 0)
		return "unknown type";
	f->has_type = true;
	f->family.type = type;
	return NULL;
}

static const char *add_metadata(struct page_builder *b, const struct line *line, uint64_t number)
{
	enum page_part part;
	bool is_sample, openmetrics = b->options.format == PAGE_OPENMETRICS;
	const char *reason = NULL;
	struct building *f = openmetrics ? find_family(b, line->name)
					 : resolve(b, line->name, &part, &is_sample);
	if (!f)
		f = new_family(b, line->name, number, &reason);
	if (!f)
		return reason;
	reason = open_family(b, f);
	if (reason)
		return reason;
	bool second = line->kind == LINE_HELP   ? f->has_help
		      : line->kind == LINE_TYPE ? f->has_type
						: f->has_unit;
	const char *late = NULL;
	if (second)
		late = line->kind == LINE_HELP   ? "second HELP of a family"
		       : line->kind == LINE_TYPE ? "second TYPE of a family"
						 : "second UNIT of a family";
	else if (f->family.n_samples && (openmetrics || line->kind == LINE_TYPE))
		late = "metadata after samples";
	if (late) {
		page_builder_conflict(b, PAGE_CONFLICT_METADATA);
		return b->options.strict ? late : NULL;
	}
	if (line->kind == LINE_TYPE)
		return add_type(b, f, line->text);
	if (line->kind == LINE_HELP) {
		f->has_help = true;
		f->family.help = unescape_help(b, line->text);
		return f->family.help.data ? NULL : no_memory;
	}
	f->has_unit = true;
	f->family.unit = text_store_keep(b->text, line->text);
	return f->family.unit.data ? NULL : no_memory;
}

/* ---- labels ---- */

static int add_scratch_label(struct page_builder *b, size_t n)
{
	if (n < b->labels_capacity)
		return 0;
	size_t capacity = b->labels_capacity ? 2 * b->labels_capacity : 32;
	void *grown = reallocarray(b->labels, capacity, sizeof *b->labels);
	if (!grown)
		return -1;
	b->labels = grown;
	b->labels_capacity = capacity;
	return 0;
}

static bool has_label(const struct line_label *labels, size_t n, struct span name)
{
	for (size_t i = 0; i < n; i++)
		if (span_equal(labels[i].name, name))
			return true;
	return false;
}

static int compare_labels(const void *a_, const void *b_)
{
	struct span a = ((const struct line_label *)a_)->name,
		    b = ((const struct line_label *)b_)->name;
	int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
	return order ? order : a.len < b.len ? -1 : a.len > b.len;
}

/* The page's labels with the target's, none twice, sorted, in b->labels. Returns how many, or -1.
 */
static ssize_t gather_labels(struct page_builder *b, const struct line_labels *given)
{
	size_t n = 0;
	struct span url = SPAN_LITERAL(MERGER_LABEL);
	for (; n < given->count; n++) {
		if (add_scratch_label(b, n) < 0)
			return -1;
		b->labels[n] = given->items[n];
	}
	const struct page_options *o = &b->options;
	for (size_t i = 0; i < n; i++) {
		struct span *name = &b->labels[i].name;
		bool taken = o->source.len && !o->source_is_default && span_equal(*name, url);
		for (size_t j = 0; j < o->n_labels; j++)
			taken |= span_equal(*name, o->labels[j].name);
		if (!taken)
			continue;
		page_builder_conflict(b, PAGE_CONFLICT_LABEL);
		do {
			*name = text_store_join(
				b->text, SPAN_LITERAL("exported_"), *name, (struct span){0});
			if (!name->data)
				return -1;
			taken = has_label(b->labels, i, *name) ||
				has_label(b->labels + i + 1, n - i - 1, *name);
			for (size_t j = 0; j < o->n_labels; j++)
				taken |= span_equal(*name, o->labels[j].name);
		} while (taken);
	}
	for (size_t i = 0; i <= o->n_labels; i++) {
		struct line_label label = {.name = url, .value = o->source};
		if (i < o->n_labels)
			label = (struct line_label){
				.name = o->labels[i].name, .value = o->labels[i].value};
		else if (!o->source_is_default || has_label(b->labels, n, url))
			continue;
		if (add_scratch_label(b, n) < 0)
			return -1;
		b->labels[n++] = label;
	}
	qsort(b->labels, n, sizeof *b->labels, compare_labels);
	return (ssize_t)n;
}

static void append_label(struct page_builder *b, struct building *f, const struct line_label *label)
{
	if (line_name_is_plain(label->name, true)) {
		buf_append(&b->raw, label->name.data, label->name.len);
	} else {
		f->family.quoted_labels = true;
		buf_append_char(&b->raw, '"');
		buf_append(&b->raw, label->name.data, label->name.len);
		buf_append_char(&b->raw, '"');
	}
	buf_append(&b->raw, "=\"", 2);
	if (!label->odd_escape) {
		buf_append(&b->raw, label->value.data, label->value.len);
	} else {
		for (size_t i = 0; i < label->value.len; i++) {
			char c = label->value.data[i];
			buf_append_char(&b->raw, c);
			if (c != '\\')
				continue;
			char next = label->value.data[i + 1];
			if (next == '\\' || next == '"' || next == 'n') {
				buf_append_char(&b->raw, next);
				i++;
			} else {
				buf_append_char(&b->raw, '\\');
			}
		}
	}
	buf_append_char(&b->raw, '"');
}

/* ---- samples ---- */

static const char *read_special(const struct page_builder *b, const struct page_family *f,
	struct record *r, struct span text)
{
	if (f->type == PAGE_STATESET) {
		r->special_is_text = true;
		return NULL;
	}
	enum sample_number kind = sample_number_kind(text);
	if (kind == SAMPLE_NUMBER_BAD || kind == SAMPLE_NUMBER_TOO_LARGE)
		return f->type == PAGE_SUMMARY ? "quantile is not a number" : "le is not a number";
	r->special_is_text = kind == SAMPLE_NUMBER_NAN;
	r->order = r->special_is_text ? INFINITY : sample_number_value(text);
	(void)b;
	return NULL;
}

/* Classic text wants numbers there whatever the part. */
static const char *check_other_numbers(const struct page_family *f, const struct line_label *label)
{
	bool number = (f->type == PAGE_SUMMARY && span_equal_str(label->name, "quantile")) ||
		      (f->type == PAGE_HISTOGRAM && span_equal_str(label->name, "le"));
	if (!number)
		return NULL;
	enum sample_number kind = sample_number_kind(label->value);
	return kind == SAMPLE_NUMBER_BAD || kind == SAMPLE_NUMBER_TOO_LARGE
		       ? "le or quantile is not a number"
		       : NULL;
}

/* Labels in their order, the special one apart and behind them. */
static const char *append_labels(struct page_builder *b, struct building *f, struct record *r,
	const struct line_labels *given)
{
	const struct line_label *labels = given->items, *special = NULL;
	size_t n = given->count, start = b->raw.len;
	struct span wanted = page_special_label(&f->family, (enum page_part)r->part);
	if (b->options.n_labels || b->options.source.len) {
		bool plain = !b->options.n_labels && !b->options.source_is_default &&
			     !has_label(labels, n, SPAN_LITERAL(MERGER_LABEL));
		ssize_t gathered = plain ? 0 : gather_labels(b, given);
		if (gathered < 0)
			return no_memory;
		if (!plain) {
			labels = b->labels;
			n = (size_t)gathered;
		}
	}
	for (size_t i = 0; i < n; i++) {
		if (wanted.data && span_equal(labels[i].name, wanted)) {
			special = &labels[i];
			continue;
		}
		const char *reason = b->options.format == PAGE_TEXT
					     ? check_other_numbers(&f->family, &labels[i])
					     : NULL;
		if (reason)
			return reason;
		if (b->raw.len > start)
			buf_append_char(&b->raw, ',');
		append_label(b, f, &labels[i]);
	}
	r->labels_len = (uint32_t)(b->raw.len - start);
	r->special_len = SPECIAL_NONE;
	if (!special)
		return NULL;
	size_t special_start = b->raw.len;
	if (special->odd_escape)
		return "escape in the name of a state";
	buf_append(&b->raw, special->value.data, special->value.len);
	r->special_len = (uint32_t)(b->raw.len - special_start);
	return read_special(b, &f->family, r, special->value);
}

static const char *append_record(
	struct page_builder *b, struct building *f, struct record *r, const struct line *line)
{
	const char *reason = append_labels(b, f, r, &line->labels);
	if (reason)
		return reason;
	struct span value = line->value;
	if (sample_number_kind(value) == SAMPLE_NUMBER_TOO_LARGE)
		value = value.data[0] == '-' ? SPAN_LITERAL("-Inf") : SPAN_LITERAL("+Inf");
	buf_append(&b->raw, value.data, value.len);
	buf_append(&b->raw, line->timestamp.data, line->timestamp.len);
	buf_append(&b->raw, line->exemplar.data, line->exemplar.len);
	r->value_len = (uint32_t)value.len;
	r->timestamp_len = (uint32_t)line->timestamp.len;
	r->exemplar_len = line->exemplar.data ? (uint32_t)line->exemplar.len : EXEMPLAR_NONE;
	return buf_failed(&b->raw) ? "page too large" : NULL;
}

/* OpenMetrics: samples of one series one after the other have times, or none; never backwards. All
 * samples of an info count as one series, whose times are free. */
static const char *check_times(const struct page_builder *b, const struct record *r)
{
	const struct record *before = r - 1;
	bool info = b->families[r->family].family.type == PAGE_INFO;
	if (b->n_records == 0 || before->family != r->family ||
		(!info && !span_equal(record_labels(b, before), record_labels(b, r))))
		return NULL;
	struct span a = record_timestamp(b, before), c = record_timestamp(b, r);
	if ((a.len == 0) != (c.len == 0))
		return "timestamps on some samples of a series only";
	if (a.len && !info && sample_number_value(a) > sample_number_value(c))
		return "timestamps go backwards";
	return NULL;
}

static int remember_name(struct page_builder *b, struct span name, enum page_part part)
{
	if (name.len > b->last_name_capacity) {
		char *grown = realloc(b->last_name_copy, name.len);
		if (!grown)
			return -1;
		b->last_name_copy = grown;
		b->last_name_capacity = name.len;
	}
	memcpy(b->last_name_copy, name.data, name.len);
	b->last_name = (struct span){b->last_name_copy, name.len};
	b->last_part = part;
	return 0;
}

static struct building *family_of_sample(
	struct page_builder *b, const struct line *line, uint64_t number, const char **reason)
{
	enum page_part part;
	bool is_sample;
	if (b->last_name.len && span_equal(b->last_name, line->name))
		return &b->families[b->current];
	struct building *f = resolve(b, line->name, &part, &is_sample);
	if (f && !is_sample) {
		*reason = "sample name does not fit the type of its family";
		return NULL;
	}
	if (!f) {
		part = PAGE_VALUE;
		f = new_family(b, line->name, number, reason);
	}
	if (!f)
		return NULL;
	*reason = open_family(b, f);
	if (!*reason && remember_name(b, line->name, part) < 0)
		*reason = no_memory;
	return *reason ? NULL : f;
}

static const char *add_sample(struct page_builder *b, const struct line *line, uint64_t number)
{
	const char *reason = NULL;
	struct building *f = family_of_sample(b, line, number, &reason);
	if (!f)
		return reason;
	if (b->n_records == b->records_capacity) {
		uint32_t capacity = b->records_capacity ? 2 * b->records_capacity : 256;
		void *grown = reallocarray(b->records, capacity, sizeof *b->records);
		if (!grown)
			return no_memory;
		b->records = grown;
		b->records_capacity = capacity;
	}
	struct record *r = &b->records[b->n_records];
	*r = (struct record){.family = b->current,
		.seq = f->family.n_samples,
		.line = (uint32_t)number,
		.offset = (uint32_t)b->raw.len,
		.part = (uint8_t)b->last_part};
	reason = append_record(b, f, r, line);
	if (!reason && b->options.format == PAGE_OPENMETRICS)
		reason = check_times(b, r);
	if (reason)
		return reason;
	f->family.parts |= PAGE_PART_BIT(b->last_part);
	f->family.n_samples++;
	f->has_type = true; /* none can come any more */
	b->n_records++;
	return NULL;
}

int page_builder_add(
	struct page_builder *b, const struct line *line, uint64_t number, struct page_error *error)
{
	const char *reason = line->kind == LINE_SAMPLE ? add_sample(b, line, number)
						       : add_metadata(b, line, number);
	if (!reason)
		return 0;
	*error = (struct page_error){number, reason};
	return -1;
}
