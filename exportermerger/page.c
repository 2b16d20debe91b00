#include "exportermerger/page.h"

#include <stdlib.h>

#include "common/log.h"
#include "exportermerger/text_store.h"

const char *const page_conflict_names[PAGE_CONFLICTS] = {
	[PAGE_CONFLICT_SERIES] = "series",
	[PAGE_CONFLICT_REOPENED] = "reopened",
	[PAGE_CONFLICT_METADATA] = "metadata",
	[PAGE_CONFLICT_LABEL] = "label",
	[PAGE_CONFLICT_NEWLINE] = "newline",
	[PAGE_CONFLICT_EOF] = "eof",
	[PAGE_CONFLICT_TYPE] = "type",
	[PAGE_CONFLICT_CLASH] = "clash",
};

void page_free(struct page **page)
{
	struct page *p = *page;
	if (!p)
		return;
	struct text_store *text = p->text;
	text_store_free(&text);
	free(p->families);
	free(p->encoded);
	free(p);
	*page = NULL;
}

const char *page_type_name(enum page_type type)
{
	static const char *const names[] = {"unknown", "counter", "gauge", "summary", "histogram",
		"gaugehistogram", "stateset", "info"};
	return names[type];
}

struct span page_special_label(const struct page_family *family, enum page_part part)
{
	if (part == PAGE_BUCKET)
		return SPAN_LITERAL("le");
	if (part != PAGE_VALUE)
		return (struct span){0};
	if (family->type == PAGE_SUMMARY)
		return SPAN_LITERAL("quantile");
	return family->type == PAGE_STATESET ? family->name : (struct span){0};
}

const char *page_part_suffix(const struct page_family *family, enum page_part part)
{
	bool gauge = family->type == PAGE_GAUGEHISTOGRAM;
	switch (part) {
	case PAGE_BUCKET:
		return "_bucket";
	case PAGE_SUM:
		return gauge ? "_gsum" : "_sum";
	case PAGE_COUNT:
		return gauge ? "_gcount" : "_count";
	case PAGE_CREATED:
		return "_created";
	default:
		return family->type == PAGE_INFO             ? "_info"
		       : family->base_len < family->name.len ? "_total"
							     : "";
	}
}

/* ---- reading what page_pack.c packed ---- */

void page_reader_start(struct page_reader *reader, const struct page_family *family)
{
	reader->at = family->samples;
	reader->end = family->samples + family->samples_len;
	reader->failed = false;
}

static size_t read_varint(struct page_reader *reader)
{
	size_t n = 0;
	for (unsigned shift = 0;; shift += 7) {
		uint8_t byte = *reader->at++;
		n |= (size_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return n;
	}
}

static struct span read_text(struct page_reader *reader)
{
	size_t len = read_varint(reader);
	struct span text = {(const char *)reader->at, len};
	reader->at += len;
	return text;
}

bool page_reader_next(struct page_reader *reader, struct page_sample *sample)
{
	if (reader->at == reader->end)
		return false;
	uint8_t flags = *reader->at++;
	size_t shared = read_varint(reader);
	struct span rest = read_text(reader);
	if (shared + rest.len > reader->labels_capacity) {
		size_t capacity = 2 * (shared + rest.len);
		char *grown = realloc(reader->labels, capacity);
		if (!grown) {
			reader->failed = true;
			return false;
		}
		reader->labels = grown;
		reader->labels_capacity = capacity;
	}
	if (rest.len)
		memcpy(reader->labels + shared, rest.data, rest.len);
	*sample = (struct page_sample){
		.part = (enum page_part)(flags & 7), .labels = {reader->labels, shared + rest.len}};
	if (flags & 1 << 3)
		sample->special = read_text(reader);
	sample->value = read_text(reader);
	if (flags & 1 << 4)
		sample->timestamp = read_text(reader);
	if (flags & 1 << 5)
		sample->exemplar = read_text(reader);
	BUG_ON(reader->at > reader->end);
	return true;
}

void page_reader_free(struct page_reader *reader)
{
	free(reader->labels);
	*reader = (struct page_reader){0};
}
