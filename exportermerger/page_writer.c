#include "exportermerger/page_writer.h"

#include <stdlib.h>

#include "exportermerger/name_escape.h"
#include "exportermerger/sample_number.h"

#define MAX_HEAD_BYTES (8u << 20) /* a name of 1 MiB grows fourfold when it is escaped */

struct page_writer {
	const struct plan *plan;
	bool allow_utf8;
	size_t source; /* which one is read */
	bool started, ended;
	struct page_reader reader;
	/* For each part of the source: the line's start, `name{merger_url="..."`, and whether a
	 * label stands there. */
	struct buf heads[PAGE_PARTS];
	bool head_has_label[PAGE_PARTS];
	size_t bare_len[PAGE_PARTS]; /* of the head when no label follows: the name alone */
	struct buf
		special[PAGE_PARTS]; /* le, quantile or the name of a state set, as it is written */
	struct buf labels;           /* scratch: labels with escaped names */
};

struct page_writer *page_writer_new(const struct plan *plan, bool allow_utf8)
{
	struct page_writer *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	w->plan = plan;
	w->allow_utf8 = allow_utf8;
	for (unsigned i = 0; i < PAGE_PARTS; i++) {
		buf_init(&w->heads[i], MAX_HEAD_BYTES);
		buf_init(&w->special[i], MAX_HEAD_BYTES);
	}
	buf_init(&w->labels, 2 * MAX_HEAD_BYTES);
	return w;
}

void page_writer_free(struct page_writer **writer)
{
	struct page_writer *w = *writer;
	if (!w)
		return;
	for (unsigned i = 0; i < PAGE_PARTS; i++) {
		buf_free(&w->heads[i]);
		buf_free(&w->special[i]);
	}
	buf_free(&w->labels);
	page_reader_free(&w->reader);
	free(w);
	*writer = NULL;
}

/* ---- names ---- */

static void append_name(
	const struct page_writer *w, struct span name, bool is_label, struct buf *out)
{
	if (line_name_is_plain(name, is_label)) {
		buf_append(out, name.data, name.len);
	} else if (w->allow_utf8) {
		buf_append_char(out, '"');
		buf_append(out, name.data, name.len);
		buf_append_char(out, '"');
	} else {
		name_escape(name, is_label, out);
	}
}

/* The family's name as it stands behind # TYPE, and before the suffixes of its samples
 * (name_escape.h). */
static void append_family_name(
	const struct page_writer *w, const struct plan_source *s, struct buf *out)
{
	size_t suffix_len = s->family->name.len - s->family->base_len, start = out->len;
	bool is_rest = suffix_len && s->type && s->name.len == s->family->base_len;
	if (w->allow_utf8 || !is_rest || line_name_is_plain(s->name, false)) {
		append_name(w, s->name, false, out);
		return;
	}
	name_escape(s->family->name, false, out);
	if (!buf_failed(out) && out->len - start > suffix_len)
		out->len -= suffix_len;
}

/* Label names stand in quotes when they are not plain: write these ones escaped. */
static struct span escape_label_names(struct page_writer *w, struct span labels)
{
	const char *at = labels.data, *end = labels.data + labels.len;
	buf_clear(&w->labels);
	while (at < end) {
		const char *start = at;
		if (*at == '"') {
			at = memchr(at + 1, '"', (size_t)(end - at - 1));
			name_escape((struct span){start + 1, (size_t)(at - start - 1)}, true,
				&w->labels);
			start = ++at;
		}
		at = memchr(at, '"', (size_t)(end - at)); /* the value's */
		do
			at += *at == '\\' ? 2 : 1;
		while (*at != '"');
		at++;
		at += at < end; /* the comma */
		buf_append(&w->labels, start, (size_t)(at - start));
	}
	return (struct span){(const char *)w->labels.data, w->labels.len};
}

/* ---- families ---- */

static void append_help(const struct page_writer *w, struct span text, struct buf *out)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		if (c == '\n')
			buf_append(out, "\\n", 2);
		else if (c == '\\' || (c == '"' && w->plan->openmetrics))
			buf_append(out, (char[]){'\\', c}, 2);
		else
			buf_append_char(out, c);
	}
}

static void append_comment(const struct page_writer *w, const char *keyword,
	const struct plan_source *s, struct buf *out)
{
	buf_append(out, "# ", 2);
	buf_append_str(out, keyword);
	buf_append_char(out, ' ');
	append_family_name(w, s, out);
	buf_append_char(out, ' ');
}

/* HELP, TYPE and UNIT of the family that begins with this source. */
static void write_family(const struct page_writer *w, struct buf *out)
{
	const struct plan *plan = w->plan;
	const struct plan_source *first = &plan->sources[w->source];
	struct span help = {0}, unit = {0};
	const char *type = first->type;
	for (size_t i = w->source; i < plan->n_sources; i++) {
		const struct plan_source *s = &plan->sources[i];
		if (!span_equal(s->name, first->name))
			break;
		if (help.len == 0)
			help = s->family->help;
		if (unit.len == 0)
			unit = s->family->unit;
		if (type && (!s->type || strcmp(type, s->type) != 0))
			type = NULL;
	}
	if (help.len) {
		append_comment(w, "HELP", first, out);
		append_help(w, help, out);
		buf_append_char(out, '\n');
	}
	append_comment(w, "TYPE", first, out);
	buf_append_str(out, type ? type : plan->openmetrics ? "unknown" : "untyped");
	buf_append_char(out, '\n');
	if (!plan->openmetrics || unit.len == 0 || !type || first->name.len < unit.len + 2 ||
		memcmp(first->name.data + first->name.len - unit.len, unit.data, unit.len) != 0)
		return;
	append_comment(w, "UNIT", first, out);
	buf_append(out, unit.data, unit.len);
	buf_append_char(out, '\n');
}

static void start_source(struct page_writer *w)
{
	const struct plan_source *s = &w->plan->sources[w->source];
	struct span source_labels = w->plan->pages[s->page]->source_labels;
	page_reader_start(&w->reader, s->family);
	for (unsigned part = 0; part < PAGE_PARTS; part++) {
		struct buf *head = &w->heads[part], name = BUF_INIT(MAX_HEAD_BYTES);
		buf_clear(head);
		if (!(s->family->parts & s->parts & PAGE_PART_BIT(part)))
			continue;
		buf_append(&name, s->family->name.data,
			part == PAGE_VALUE ? s->family->name.len : s->family->base_len);
		if (part != PAGE_VALUE)
			buf_append_str(&name, page_part_suffix(s->family, (enum page_part)part));
		struct span whole = {(const char *)name.data, name.len};
		bool quoted = w->allow_utf8 && !line_name_is_plain(whole, false);
		if (quoted)
			buf_append_char(head, '{');
		if (w->allow_utf8) {
			append_name(w, whole, false, head);
		} else { /* that of the family on this page, and what the sample has behind it */
			append_family_name(w, s, head);
			buf_append(head, whole.data + s->name.len, whole.len - s->name.len);
		}
		w->bare_len[part] = quoted ? 0 : head->len;
		if (!quoted)
			buf_append_char(head, '{');
		else if (source_labels.len)
			buf_append_char(head, ',');
		buf_append(head, source_labels.data, source_labels.len);
		w->head_has_label[part] = quoted || source_labels.len > 0;
		struct span special = page_special_label(s->family, (enum page_part)part);
		buf_clear(&w->special[part]);
		if (special.data)
			append_name(w, special, true, &w->special[part]);
		head->failed |= buf_failed(&name) || buf_failed(&w->special[part]);
		buf_free(&name);
	}
}

/* ---- samples ---- */

static char *put(char *to, struct span text)
{
	if (text.len)
		memcpy(to, text.data, text.len);
	return to + text.len;
}

static void append_timestamp(const struct page_writer *w, const struct page *page,
	struct span timestamp, struct buf *out)
{
	buf_append_char(out, ' ');
	if ((page->format == PAGE_OPENMETRICS) == w->plan->openmetrics)
		buf_append(out, timestamp.data, timestamp.len);
	else if (w->plan->openmetrics)
		sample_timestamp_to_seconds(timestamp, out);
	else
		sample_timestamp_to_ms(timestamp, out);
}

static void write_sample(struct page_writer *w, const struct page_sample *sample, struct buf *out)
{
	const struct plan_source *s = &w->plan->sources[w->source];
	const struct buf *head = &w->heads[sample->part];
	struct span labels = sample->labels, special = {(const char *)w->special[sample->part].data,
						     w->special[sample->part].len};
	bool braces = labels.len || sample->special.data || w->head_has_label[sample->part];
	bool comma = w->head_has_label[sample->part];
	if (s->family->quoted_labels && !w->allow_utf8)
		labels = escape_label_names(w, labels);
	char *start = buf_reserve(out, head->len + labels.len + special.len + sample->special.len +
					       sample->value.len + 16);
	if (!start)
		return;
	char *to = put(start, (struct span){(const char *)head->data,
				      braces ? head->len : w->bare_len[sample->part]});
	if (labels.len) {
		if (comma)
			*to++ = ',';
		to = put(to, labels);
		comma = true;
	}
	if (sample->special.data) {
		if (comma)
			*to++ = ',';
		to = put(to, special);
		*to++ = '=';
		*to++ = '"';
		to = put(to, sample->special);
		*to++ = '"';
	}
	if (braces)
		*to++ = '}';
	*to++ = ' ';
	to = put(to, sample->value);
	buf_commit(out, (size_t)(to - start));
	if (sample->timestamp.len)
		append_timestamp(w, w->plan->pages[s->page], sample->timestamp, out);
	if (sample->exemplar.data && w->plan->openmetrics && s->type) {
		buf_append(out, " # ", 3);
		buf_append(out, sample->exemplar.data, sample->exemplar.len);
	}
	buf_append_char(out, '\n');
}

int page_writer_step(struct page_writer *w, struct buf *out, size_t want_bytes)
{
	const struct plan *plan = w->plan;
	while (out->len < want_bytes && w->source < plan->n_sources) {
		const struct plan_source *s = &plan->sources[w->source];
		struct page_sample sample;
		if (!w->started) {
			if (w->source == 0 || !span_equal(s->name, s[-1].name))
				write_family(w, out);
			start_source(w);
			w->started = true;
		}
		while (out->len < want_bytes && w->started) {
			if (page_reader_next(&w->reader, &sample)) {
				if (s->parts & PAGE_PART_BIT(sample.part))
					write_sample(w, &sample, out);
			} else {
				w->started = false;
				w->source++;
			}
		}
		if (buf_failed(out) || buf_failed(&w->labels) || w->reader.failed)
			return -1;
	}
	if (w->source < plan->n_sources)
		return 1;
	if (plan->openmetrics && !w->ended)
		buf_append_str(out, "# EOF\n");
	w->ended = true;
	return buf_failed(out) ? -1 : 0;
}
