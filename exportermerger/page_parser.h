#ifndef EXPORTERMERGER_PAGE_PARSER_H
#define EXPORTERMERGER_PAGE_PARSER_H

/*
 * Bytes in, however they are cut; one struct page out, or the line that is wrong and why. It cuts
 * lines and knows where a page ends: line.h reads them, page.h puts them together.
 */
#include "exportermerger/page.h"

struct page_parser;
struct page_parser *page_parser_new(void); /* NULL when out of memory */
/* Begin a page. A parser reads one after the other and keeps its memory for the next. options are
 * borrowed until the page's end. */
void page_parser_start(struct page_parser *parser, const struct page_options *options);
/* 0, or -1: the page is refused, see page_parser_error(); more bytes are ignored. */
int page_parser_feed(struct page_parser *parser, struct span bytes);
/* The page is complete. NULL: refused. */
struct page *page_parser_finish(struct page_parser *parser);
const struct page_error *page_parser_error(const struct page_parser *parser);
void page_parser_free(struct page_parser **parser);

#endif
