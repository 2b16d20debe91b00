#ifndef EXPORTERMERGER_PAGE_WRITER_H
#define EXPORTERMERGER_PAGE_WRITER_H

/*
 * Writes the merged page piece by piece, so that it never stands in memory as a whole. Every sample
 * line begins with its page's merger_url, then come its own labels by name, then le or quantile;
 * the merger's own samples, which may have that label themselves, have it among the others.
 *
 * Names that are not plain are written in quotes for readers that take them
 * (escaping=allow-utf-8), else as U__ names (name_escape.h).
 */
#include "common/buf.h"
#include "exportermerger/plan.h"

struct page_writer;
/* plan is borrowed. NULL when out of memory. */
struct page_writer *page_writer_new(const struct plan *plan, bool allow_utf8);
/* Append until out has at least want_bytes or the page is complete. 1: there is more, 0: complete,
 * -1: out of memory. */
int page_writer_step(struct page_writer *writer, struct buf *out, size_t want_bytes);
void page_writer_free(struct page_writer **writer);

#endif
