#include "exportermerger/page_parser.h"

#include <stdlib.h>

#include "common/buf.h"

struct page_parser {
	const struct page_options *options;
	struct page_builder *builder;
	struct line line;
	struct buf partial; /* a line whose end has not come */
	struct buf names;   /* of the line's U__ names */
	uint64_t number;    /* of the line that is read */
	bool ended;         /* # EOF was read */
	bool went_on;       /* and then more */
	struct page_error error;
};

struct page_parser *page_parser_new(void)
{
	struct page_parser *parser = calloc(1, sizeof *parser);
	if (!parser)
		return NULL;
	buf_init(&parser->partial, LINE_MAX_BYTES);
	buf_init(&parser->names, LINE_MAX_BYTES);
	parser->builder = page_builder_new();
	if (!parser->builder)
		page_parser_free(&parser);
	return parser;
}

void page_parser_start(struct page_parser *p, const struct page_options *options)
{
	p->options = options;
	p->number = 0;
	p->ended = p->went_on = false;
	p->error = (struct page_error){0};
	buf_clear(&p->partial);
	if (page_builder_start(p->builder, options) < 0)
		p->error.reason = "out of memory";
}

void page_parser_free(struct page_parser **parser)
{
	struct page_parser *p = *parser;
	if (!p)
		return;
	page_builder_free(&p->builder);
	line_free(&p->line);
	buf_free(&p->partial);
	buf_free(&p->names);
	free(p);
	*parser = NULL;
}

const struct page_error *page_parser_error(const struct page_parser *parser)
{
	return &parser->error;
}

static int refuse(struct page_parser *p, const char *reason)
{
	p->error = (struct page_error){p->number, reason};
	return -1;
}

static int read_line(struct page_parser *p, struct span bytes)
{
	p->number++;
	if (p->ended) {
		if (p->options->strict)
			return refuse(p, "more after # EOF");
		if (!p->went_on)
			page_builder_conflict(p->builder, PAGE_CONFLICT_EOF);
		p->went_on = true;
		return 0;
	}
	const char *reason = line_parse(p->options->format, bytes, &p->line);
	if (!reason)
		reason = line_unescape_names(&p->line, p->options->format, &p->names);
	if (reason)
		return refuse(p, reason);
	if (p->line.kind == LINE_EOF)
		p->ended = true;
	else if (p->line.kind != LINE_NOTHING)
		return page_builder_add(p->builder, &p->line, p->number, &p->error);
	return 0;
}

int page_parser_feed(struct page_parser *p, struct span bytes)
{
	if (p->error.reason)
		return -1;
	if (bytes.len == 0)
		return 0;
	const char *at = bytes.data, *end = bytes.data + bytes.len;
	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		struct span part = {at, (size_t)((newline ? newline : end) - at)};
		at = newline ? newline + 1 : end;
		if (part.len > LINE_MAX_BYTES - p->partial.len) {
			p->number++;
			return refuse(p, "line over 1 MiB");
		}
		if (!newline || p->partial.len) {
			if (buf_append(&p->partial, part.data, part.len) < 0)
				return refuse(p, "out of memory");
			part = (struct span){(const char *)p->partial.data, p->partial.len};
		}
		if (!newline)
			return 0;
		if (read_line(p, part) < 0)
			return -1;
		buf_clear(&p->partial);
	}
	return 0;
}

static bool is_blank(struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] != ' ' && text.data[i] != '\t')
			return false;
	return true;
}

struct page *page_parser_finish(struct page_parser *p)
{
	if (p->error.reason)
		return NULL;
	bool openmetrics = p->options->format == PAGE_OPENMETRICS;
	struct span last = {(const char *)p->partial.data, p->partial.len};
	if (openmetrics && !p->ended && span_equal_str(last, "# EOF")) {
		p->ended = true; /* the one line that needs no newline */
	} else if (last.len && (openmetrics || !is_blank(last))) {
		p->number++;
		if (p->options->strict) {
			refuse(p, p->ended ? "more after # EOF" : "no newline at the end");
			return NULL;
		}
		page_builder_conflict(
			p->builder, p->ended ? PAGE_CONFLICT_EOF : PAGE_CONFLICT_NEWLINE);
	}
	if (openmetrics && !p->ended) {
		refuse(p, "no # EOF at the end");
		return NULL;
	}
	struct page_error error = {0};
	struct page *page = page_builder_finish(p->builder, &error);
	if (!page)
		p->error = error;
	return page;
}
