#include "exportermerger/page_stream.h"

#include <stdlib.h>

#include <zlib.h>

/* Larger than any line of a page that was accepted can become. */
#define MAX_PIECE_BYTES (64u << 20)
#define ROOM_BYTES      4096 /* for the line that crosses the end */
#define GZIP_WINDOW     (15 + 16)
#define GZIP_LEVEL      1 /* a page is text that repeats: more costs much and gains little */

struct page_stream {
	struct plan *plan;
	struct page_writer *writer;
	bool gzip;
	z_stream z;
	struct buf plain; /* what the compressor reads */
};

struct page_stream *page_stream_new(struct plan *plan, bool allow_utf8, bool gzip)
{
	struct page_stream *s = calloc(1, sizeof *s);
	if (!s) {
		plan_free(&plan);
		return NULL;
	}
	s->plan = plan;
	buf_init(&s->plain, MAX_PIECE_BYTES);
	s->writer = page_writer_new(plan, allow_utf8);
	if (gzip && s->writer)
		s->gzip = deflateInit2(&s->z, GZIP_LEVEL, Z_DEFLATED, GZIP_WINDOW, 8,
				  Z_DEFAULT_STRATEGY) == Z_OK;
	if (!s->writer || s->gzip != gzip)
		page_stream_free(&s);
	return s;
}

void page_stream_free(struct page_stream **stream)
{
	struct page_stream *s = *stream;
	if (!s)
		return;
	if (s->gzip)
		deflateEnd(&s->z);
	page_writer_free(&s->writer);
	plan_free(&s->plan);
	buf_free(&s->plain);
	free(s);
	*stream = NULL;
}

static int compress_piece(struct page_stream *s, bool last, struct buf *out)
{
	s->z.next_in = s->plain.data;
	s->z.avail_in = (uInt)s->plain.len;
	for (;;) {
		void *room = buf_reserve(out, PAGE_STREAM_PIECE_BYTES);
		if (!room)
			return -1;
		s->z.next_out = room;
		s->z.avail_out = PAGE_STREAM_PIECE_BYTES;
		int rc = deflate(&s->z, last ? Z_FINISH : Z_NO_FLUSH);
		buf_commit(out, PAGE_STREAM_PIECE_BYTES - s->z.avail_out);
		if (rc == Z_STREAM_END || (!last && s->z.avail_in == 0 && s->z.avail_out > 0))
			return 0;
		if (rc != Z_OK && rc != Z_BUF_ERROR)
			return -1;
	}
}

int page_stream_next(struct page_stream *s, struct buf *out)
{
	/* All the room at once: growing would copy the piece again and again. */
	if (!buf_reserve(s->gzip ? &s->plain : out, PAGE_STREAM_PIECE_BYTES + ROOM_BYTES))
		return -1;
	if (!s->gzip)
		return page_writer_step(s->writer, out, PAGE_STREAM_PIECE_BYTES);
	int more = page_writer_step(s->writer, &s->plain, PAGE_STREAM_PIECE_BYTES);
	if (more >= 0 && compress_piece(s, more == 0, out) < 0)
		return -1;
	buf_clear(&s->plain);
	return more;
}
