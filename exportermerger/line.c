#include "exportermerger/line.h"

#include <stdint.h>
#include <stdlib.h>

#include "common/utf8.h"
#include "exportermerger/name_escape.h"
#include "exportermerger/sample_number.h"

static const char no_memory[] = "out of memory";

struct cursor {
	const char *at, *end;
	bool openmetrics;
};

enum { START = 1, DIGIT = 2, COLON = 4 };
static const uint8_t classes[256] = {
	['a' ... 'z'] = START,
	['A' ... 'Z'] = START,
	['_'] = START,
	['0' ... '9'] = DIGIT,
	[':'] = COLON,
};

static const char *skip_name(const char *at, const char *end, bool is_label)
{
	uint8_t first = is_label ? START : START | COLON;
	if (at == end || !(classes[(uint8_t)*at] & first))
		return at;
	while (at < end && classes[(uint8_t)*at] & (first | DIGIT))
		at++;
	return at;
}

bool line_name_is_plain(struct span name, bool is_label)
{
	return name.len > 0 &&
	       skip_name(name.data, name.data + name.len, is_label) == name.data + name.len;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static void skip_blanks(struct cursor *c)
{
	while (c->at < c->end && is_blank(*c->at))
		c->at++;
}

/* Where classic text allows blanks and OpenMetrics nothing. */
static void skip_text_blanks(struct cursor *c)
{
	if (!c->openmetrics)
		skip_blanks(c);
}

static bool next_is(const struct cursor *c, char wanted)
{
	return c->at < c->end && *c->at == wanted;
}

static struct span token(struct cursor *c)
{
	const char *start = c->at;
	while (c->at < c->end && !is_blank(*c->at))
		c->at++;
	return (struct span){start, (size_t)(c->at - start)};
}

static struct span rest(const struct cursor *c)
{
	return (struct span){c->at, (size_t)(c->end - c->at)};
}

static bool utf8_valid(struct span text)
{
	size_t i = 0;
	uint64_t word;
	while (i + sizeof word <= text.len) {
		memcpy(&word, text.data + i, sizeof word);
		if (word & UINT64_C(0x8080808080808080))
			break;
		i += sizeof word;
	}
	while (i < text.len) {
		size_t n = utf8_sequence_len(text.data + i, text.len - i);
		if (n == 0)
			return false;
		i += n;
	}
	return true;
}

/* ---- names ---- */

static const char *parse_quoted_name(struct cursor *c, struct span *name)
{
	const char *start = ++c->at;
	while (c->at < c->end && *c->at != '"') {
		if (*c->at == '\\')
			return "escape in a quoted name";
		c->at++;
	}
	if (c->at == c->end)
		return "quoted name without its end";
	*name = (struct span){start, (size_t)(c->at - start)};
	c->at++;
	return name->len ? NULL : "empty name";
}

static const char *parse_metadata_name(struct cursor *c, struct span *name)
{
	if (next_is(c, '"'))
		return parse_quoted_name(c, name);
	const char *end = skip_name(c->at, c->end, false);
	*name = (struct span){c->at, (size_t)(end - c->at)};
	c->at = end;
	return name->len ? NULL : "bad metric name";
}

/* ---- labels ---- */

static struct line_label *add_label(struct line_labels *labels)
{
	if (labels->count == labels->capacity) {
		size_t capacity = labels->capacity ? 2 * labels->capacity : 16;
		void *grown = reallocarray(labels->items, capacity, sizeof *labels->items);
		if (!grown)
			return NULL;
		labels->items = grown;
		labels->capacity = capacity;
	}
	return &labels->items[labels->count++];
}

static int compare_spans(struct span a, struct span b)
{
	int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
	return order ? order : a.len < b.len ? -1 : a.len > b.len;
}

static int compare_labels(const void *a, const void *b)
{
	return compare_spans(
		((const struct line_label *)a)->name, ((const struct line_label *)b)->name);
}

/* By insertion while they are few, as they nearly always are. */
#define FEW_LABELS 16

static const char *sort_labels(struct line_labels *labels)
{
	struct line_label *items = labels->items;
	if (labels->count > FEW_LABELS)
		qsort(items, labels->count, sizeof *items, compare_labels);
	for (size_t i = 1; i < labels->count; i++) {
		size_t at = i;
		int order = compare_labels(&items[i - 1], &items[i]);
		if (order > 0) {
			struct line_label moved = items[i];
			while (at > 0 && (order = compare_labels(&items[at - 1], &moved)) > 0) {
				items[at] = items[at - 1];
				at--;
			}
			items[at] = moved;
			order = at > 0 ? order : -1;
		}
		if (order == 0)
			return "label name given twice";
	}
	return NULL;
}

/* The cursor is behind the opening quote; it ends behind the closing one. */
static const char *parse_label_value(struct cursor *c, struct line_label *label)
{
	const char *start = c->at;
	label->odd_escape = false;
	for (;; c->at++) {
		if (c->at == c->end)
			return "label value without its end";
		if (*c->at == '"')
			break;
		if (*c->at != '\\')
			continue;
		if (++c->at == c->end)
			return "label value without its end";
		if (*c->at == '\\' || *c->at == '"' || *c->at == 'n')
			continue;
		if (!c->openmetrics)
			return "bad escape in a label value";
		label->odd_escape = true;
	}
	label->value = (struct span){start, (size_t)(c->at - start)};
	c->at++;
	return NULL;
}

/* One name="value", or the metric's own name in quotes. */
static const char *parse_label(struct cursor *c, struct line_labels *labels, struct span *metric)
{
	struct span name;
	bool quoted = next_is(c, '"');
	if (quoted) {
		const char *reason = parse_quoted_name(c, &name);
		if (reason)
			return reason;
	} else {
		const char *end = skip_name(c->at, c->end, true);
		name = (struct span){c->at, (size_t)(end - c->at)};
		c->at = end;
		if (name.len == 0)
			return "bad label name";
	}
	skip_text_blanks(c);
	if (quoted && metric && metric->len == 0 && labels->count == 0 &&
		(next_is(c, ',') || next_is(c, '}'))) {
		*metric = name;
		return NULL;
	}
	if (span_equal_str(name, "__name__"))
		return "label name __name__ is reserved";
	if (!next_is(c, '='))
		return "no = after a label name";
	c->at++;
	skip_text_blanks(c);
	if (!next_is(c, '"'))
		return "label value without quotes";
	c->at++;
	struct line_label *label = add_label(labels);
	if (!label)
		return no_memory;
	label->name = name;
	return parse_label_value(c, label);
}

/* The cursor is behind the opening brace; it ends behind the closing one. */
static const char *parse_labels(struct cursor *c, struct line_labels *labels, struct span *metric)
{
	labels->count = 0;
	skip_text_blanks(c);
	if (next_is(c, '}')) {
		c->at++;
		return NULL;
	}
	for (;;) {
		const char *reason = parse_label(c, labels, metric);
		if (reason)
			return reason;
		skip_text_blanks(c);
		if (next_is(c, '}'))
			break;
		if (!next_is(c, ','))
			return "neither , nor } after a label";
		c->at++;
		skip_text_blanks(c);
		if (next_is(c, '}')) {
			if (c->openmetrics)
				return "comma after the last label";
			break;
		}
	}
	c->at++;
	return sort_labels(labels);
}

/* ---- samples ---- */

static const char *parse_value(struct cursor *c, struct span *value)
{
	*value = token(c);
	switch (sample_number_kind(*value)) {
	case SAMPLE_NUMBER_BAD:
		return "bad value";
	case SAMPLE_NUMBER_TOO_LARGE:
		return c->openmetrics ? NULL : "value beyond a double's range";
	default:
		return NULL;
	}
}

static size_t count_characters(struct span text, bool escapes)
{
	size_t n = 0;
	for (size_t i = 0; i < text.len; i++) {
		if (escapes && text.data[i] == '\\' && i + 1 < text.len &&
			strchr("\\\"n", text.data[i + 1]))
			i++;
		if (((uint8_t)text.data[i] & 0xc0) != 0x80)
			n++;
	}
	return n;
}

/* " # {...} value [timestamp]", from the brace on. */
static const char *parse_exemplar(struct cursor *c, struct line *line)
{
	const char *start = c->at;
	if (!next_is(c, '{'))
		return "exemplar without labels";
	c->at++;
	const char *reason = parse_labels(c, &line->exemplar_labels, NULL);
	if (reason)
		return reason;
	size_t n = 0;
	for (size_t i = 0; i < line->exemplar_labels.count; i++)
		n += count_characters(line->exemplar_labels.items[i].name, false) +
		     count_characters(line->exemplar_labels.items[i].value, true);
	if (n > LINE_MAX_EXEMPLAR_CHARS)
		return "labels of an exemplar over 128 characters";
	if (!next_is(c, ' '))
		return "no space before the value of an exemplar";
	c->at++;
	struct span value, timestamp;
	reason = parse_value(c, &value);
	if (reason)
		return reason;
	if (next_is(c, ' ')) {
		c->at++;
		timestamp = token(c);
		if (!sample_timestamp_valid(timestamp, true))
			return "bad timestamp of an exemplar";
	}
	if (c->at != c->end)
		return "more after an exemplar";
	line->exemplar = (struct span){start, (size_t)(c->end - start)};
	return NULL;
}

static const char *parse_openmetrics_tail(struct cursor *c, struct line *line)
{
	const char *reason = parse_value(c, &line->value);
	if (reason)
		return reason;
	if (c->at == c->end)
		return NULL;
	if (!next_is(c, ' '))
		return "more after the value";
	c->at++;
	if (!next_is(c, '#')) {
		line->timestamp = token(c);
		if (!sample_timestamp_valid(line->timestamp, true))
			return "bad timestamp";
		if (c->at == c->end)
			return NULL;
		if (!next_is(c, ' '))
			return "more after the timestamp";
		c->at++;
	}
	if (c->end - c->at < 2 || c->at[0] != '#' || c->at[1] != ' ')
		return "more after the sample";
	c->at += 2;
	return parse_exemplar(c, line);
}

static const char *parse_text_tail(struct cursor *c, struct line *line)
{
	const char *reason = parse_value(c, &line->value);
	if (reason || c->at == c->end)
		return reason;
	skip_blanks(c);
	line->timestamp = token(c);
	if (!sample_timestamp_valid(line->timestamp, false))
		return "bad timestamp";
	return c->at == c->end ? NULL : "more after the timestamp";
}

static const char *parse_sample(struct cursor *c, struct line *line)
{
	line->kind = LINE_SAMPLE;
	const char *name_end = skip_name(c->at, c->end, false), *reason;
	line->name = (struct span){c->at, (size_t)(name_end - c->at)};
	if (line->name.len == 0 && !next_is(c, '{'))
		return "bad metric name";
	c->at = name_end;
	skip_text_blanks(c);
	if (next_is(c, '{')) {
		c->at++;
		reason = parse_labels(c, &line->labels, &line->name);
		if (reason)
			return reason;
		if (line->name.len == 0)
			return "bad metric name";
		skip_text_blanks(c);
	}
	if (!c->openmetrics)
		return parse_text_tail(c, line);
	if (!next_is(c, ' '))
		return "no space before the value";
	c->at++;
	return parse_openmetrics_tail(c, line);
}

/* ---- comments ---- */

static const char *parse_text_help(struct cursor *c)
{
	for (const char *at = c->at; at < c->end; at++) {
		if (*at != '\\')
			continue;
		if (++at == c->end || (*at != '\\' && *at != 'n'))
			return "bad escape in a HELP text";
	}
	return NULL;
}

static const char *parse_text_comment(struct cursor *c, struct line *line)
{
	c->at++;
	skip_blanks(c);
	struct span keyword = token(c);
	bool help = span_equal_str(keyword, "HELP"), type = span_equal_str(keyword, "TYPE");
	skip_blanks(c);
	if ((!help && !type) || c->at == c->end)
		return NULL;
	const char *reason = parse_metadata_name(c, &line->name);
	if (reason || c->at == c->end)
		return reason;
	if (!is_blank(*c->at))
		return "bad metric name";
	skip_blanks(c);
	line->text = rest(c);
	if (c->at == c->end)
		return NULL;
	line->kind = help ? LINE_HELP : LINE_TYPE;
	return help ? parse_text_help(c) : NULL;
}

static const char *parse_openmetrics_comment(struct cursor *c, struct line *line)
{
	static const struct {
		const char *start;
		enum line_kind kind;
	} kinds[] = {{"# HELP ", LINE_HELP}, {"# TYPE ", LINE_TYPE}, {"# UNIT ", LINE_UNIT}};
	struct span bytes = rest(c);
	if (span_equal_str(bytes, "# EOF")) {
		line->kind = LINE_EOF;
		return NULL;
	}
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		size_t len = strlen(kinds[i].start);
		if (bytes.len < len || memcmp(bytes.data, kinds[i].start, len) != 0)
			continue;
		c->at += len;
		const char *reason = parse_metadata_name(c, &line->name);
		if (reason)
			return reason;
		if (!next_is(c, ' '))
			return "no space after the name in a comment";
		c->at++;
		line->text = rest(c);
		line->kind = kinds[i].kind;
		return NULL;
	}
	return "neither HELP, TYPE, UNIT nor EOF in a comment";
}

const char *line_parse(enum page_format format, struct span bytes, struct line *line)
{
	struct cursor c = {bytes.data, bytes.data + bytes.len, format == PAGE_OPENMETRICS};
	line->kind = LINE_NOTHING;
	line->name = line->text = line->value = line->timestamp = line->exemplar = (struct span){0};
	line->labels.count = 0;
	if (c.openmetrics && bytes.len == 0)
		return "blank line";
	skip_text_blanks(&c);
	if (c.at == c.end)
		return NULL;
	const char *reason;
	if (*c.at != '#')
		reason = parse_sample(&c, line);
	else if (c.openmetrics)
		reason = parse_openmetrics_comment(&c, line);
	else
		reason = parse_text_comment(&c, line);
	if (!reason && line->kind != LINE_NOTHING && !utf8_valid(bytes))
		return "not UTF-8";
	return reason;
}

static bool may_be_escaped(struct span name)
{
	return name.len > 3 && name.data[0] == 'U' && name.data[1] == '_' && name.data[2] == '_';
}

/* As the last thing that was appended to names. */
static void take_name(struct span *name, const struct buf *names, size_t start)
{
	*name = (struct span){(const char *)names->data + start, names->len - start};
}

static bool unescape_label(struct span *name, struct buf *names)
{
	size_t start = names->len;
	if (!may_be_escaped(*name) || !name_unescape(*name, true, names))
		return false;
	take_name(name, names, start);
	return true;
}

static void unescape_metric(struct line *line, enum page_format format, struct buf *names)
{
	size_t start = names->len;
	bool is_family = line->kind != LINE_SAMPLE && format == PAGE_OPENMETRICS;
	if (may_be_escaped(line->name) && name_unescape_metric(line->name, is_family, names))
		take_name(&line->name, names, start);
}

const char *line_unescape_names(struct line *line, enum page_format format, struct buf *names)
{
	bool has_labels = line->kind == LINE_SAMPLE, moved = false;
	size_t n = has_labels ? line->labels.count : 0, bytes = 0;
	for (size_t i = 0; i < n; i++)
		if (may_be_escaped(line->labels.items[i].name))
			bytes += line->labels.items[i].name.len;
	if (may_be_escaped(line->name))
		bytes += line->name.len;
	if (bytes == 0)
		return NULL;
	buf_clear(names);
	/* All at once: spans of it must not move. */
	if (!buf_reserve(names, bytes))
		return no_memory;
	unescape_metric(line, format, names);
	for (size_t i = 0; i < n; i++)
		moved |= unescape_label(&line->labels.items[i].name, names);
	return buf_failed(names) ? no_memory : moved ? sort_labels(&line->labels) : NULL;
}

void line_free(struct line *line)
{
	free(line->labels.items);
	free(line->exemplar_labels.items);
	*line = (struct line){.kind = LINE_NOTHING};
}
