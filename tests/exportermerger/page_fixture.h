/* What the tests of pages share: text in, merged text out. */
#ifndef TESTS_EXPORTERMERGER_PAGE_FIXTURE_H
#define TESTS_EXPORTERMERGER_PAGE_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h> /* before cmocka */

#include <cmocka.h>

#include "exportermerger/page_parser.h"
#include "exportermerger/page_writer.h"

/* NULL with *error; fed in pieces of step bytes (0: at once). */
static inline struct page *read_page(
	struct span text, const struct page_options *options, size_t step, struct page_error *error)
{
	struct page_parser *parser = page_parser_new();
	assert_non_null(parser);
	page_parser_start(parser, options);
	for (size_t at = 0; at < text.len;) {
		size_t n = step && step < text.len - at ? step : text.len - at;
		/* The exact size: an overrun must meet the sanitizer's red zone. */
		char *piece = malloc(n);
		memcpy(piece, text.data + at, n);
		page_parser_feed(parser, (struct span){piece, n});
		free(piece);
		at += n;
	}
	struct page *page = page_parser_finish(parser);
	*error = *page_parser_error(parser);
	assert_true(page ? !error->reason : error->reason != NULL);
	page_parser_free(&parser);
	return page;
}

/* The merged text, for free(). */
static inline char *write_pages(struct page *const *pages, size_t n, bool openmetrics,
	bool allow_utf8, size_t piece_bytes, uint32_t (*conflicts)[PAGE_CONFLICTS])
{
	struct plan *plan = plan_new(pages, n, openmetrics, conflicts);
	assert_non_null(plan);
	struct page_writer *writer = page_writer_new(plan, allow_utf8);
	assert_non_null(writer);
	struct buf all = BUF_INIT(64 << 20), piece = BUF_INIT(1 << 20);
	int more;
	do {
		more = page_writer_step(writer, &piece, piece_bytes);
		assert_true(more >= 0);
		buf_append(&all, piece.data, piece.len);
		buf_clear(&piece);
	} while (more);
	buf_append_char(&all, '\0');
	page_writer_free(&writer);
	plan_free(&plan);
	buf_free(&piece);
	return buf_take(&all, NULL);
}

#endif
