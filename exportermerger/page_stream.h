#ifndef EXPORTERMERGER_PAGE_STREAM_H
#define EXPORTERMERGER_PAGE_STREAM_H

/* The merged page in pieces, compressed (RFC 1952) or not. */
#include "common/buf.h"
#include "exportermerger/page_writer.h"

#define PAGE_STREAM_PIECE_BYTES (60u << 10)

struct page_stream;
/* plan is taken over, also on failure. NULL when out of memory. */
struct page_stream *page_stream_new(struct plan *plan, bool allow_utf8, bool gzip);
/* Append the next piece, of about PAGE_STREAM_PIECE_BYTES (or none, while the compressor gathers).
 * 1: there is more, 0: complete, -1: out of memory. */
int page_stream_next(struct page_stream *stream, struct buf *out);
void page_stream_free(struct page_stream **stream);

#endif
