#include "common/http_inflate.h"

#include <stdlib.h>
#include <strings.h>

#include <zlib.h>

#define STEP_BYTES (32u << 10)
/* The largest window, and the header tells gzip from zlib. */
#define ANY_WINDOW (15 + 32)

struct http_inflate {
	z_stream z;
	size_t ahead; /* of the piece that comes again: decoded already */
	bool ended;   /* at the end of a member */
};

static bool is(struct span encoding, const char *name)
{
	return span_of(name).len == encoding.len &&
	       strncasecmp(encoding.data, name, encoding.len) == 0;
}

bool http_inflate_is_identity(struct span encoding)
{
	return !encoding.len || is(encoding, "identity");
}

struct http_inflate *http_inflate_new(struct span encoding)
{
	if (!is(encoding, "gzip") && !is(encoding, "x-gzip") && !is(encoding, "deflate"))
		return NULL;
	struct http_inflate *decoder = calloc(1, sizeof *decoder);
	if (decoder && inflateInit2(&decoder->z, ANY_WINDOW) != Z_OK) {
		free(decoder);
		decoder = NULL;
	}
	return decoder;
}

void http_inflate_free(struct http_inflate **decoder)
{
	if (*decoder)
		inflateEnd(&(*decoder)->z);
	free(*decoder);
	*decoder = NULL;
}

/* One step: Z_OK; Z_BUF_ERROR: it needs more input; else it is bad. */
static int step(struct http_inflate *decoder, struct buf *out)
{
	/* At the ceiling it may still end well: one byte beside the buffer tells. */
	unsigned char beyond;
	z_stream *z = &decoder->z;
	size_t room = out->max_len - out->len;
	bool full = room == 0;
	room = room < STEP_BYTES ? room : STEP_BYTES;
	z->next_out = full ? &beyond : buf_reserve(out, room);
	z->avail_out = full ? 1 : (uInt)room;
	if (!z->next_out)
		return Z_MEM_ERROR;
	if (decoder->ended) {
		/* Another member follows, or nothing. */
		if (!z->avail_in)
			return Z_BUF_ERROR;
		inflateReset(z);
		decoder->ended = false;
	}
	int rc = inflate(z, Z_NO_FLUSH);
	size_t made = (full ? 1 : room) - z->avail_out;
	if (full && made)
		return buf_append(out, &beyond, 1) == 0 ? Z_DATA_ERROR : Z_MEM_ERROR;
	if (!full)
		buf_commit(out, made);
	decoder->ended = rc == Z_STREAM_END;
	return rc == Z_STREAM_END ? Z_OK : rc;
}

enum http_inflate_progress http_inflate_piece(
	struct http_inflate *decoder, struct span piece, size_t most_bytes, struct buf *out)
{
	size_t skip = decoder->ahead < piece.len ? decoder->ahead : piece.len;
	size_t begin = out->len;
	decoder->ahead -= skip;
	decoder->z.next_in = (z_const Bytef *)piece.data + skip;
	decoder->z.avail_in = (uInt)(piece.len - skip);
	for (;;) {
		int rc = step(decoder, out);
		if (rc == Z_BUF_ERROR)
			return HTTP_INFLATE_MORE;
		if (rc != Z_OK)
			return HTTP_INFLATE_BAD;
		if (out->len - begin >= most_bytes) {
			decoder->ahead += piece.len - decoder->z.avail_in;
			return HTTP_INFLATE_FULL;
		}
	}
}

bool http_inflate_ended(const struct http_inflate *decoder)
{
	return decoder->ended;
}
