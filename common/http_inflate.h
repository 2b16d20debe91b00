#ifndef COMMON_HTTP_INFLATE_H
#define COMMON_HTTP_INFLATE_H

/*
 * The body of an answer with Content-Encoding: gzip or deflate (RFC 9110 section 8.4), decoded as
 * it comes, so much at a time: a few KiB may become megabytes, and who decodes holds the loop. One
 * thread at a time.
 */
#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/span.h"

struct http_inflate;

/* True for an encoding that is none: absent, empty, identity. */
bool http_inflate_is_identity(struct span encoding);
/* NULL when it is neither gzip, x-gzip nor deflate, or when memory is out. */
struct http_inflate *http_inflate_new(struct span encoding);
void http_inflate_free(struct http_inflate **decoder);

enum http_inflate_progress {
	HTTP_INFLATE_MORE,     /* all of it is decoded */
	HTTP_INFLATE_FULL,     /* most_bytes were made: give the same piece again later */
	HTTP_INFLATE_BAD = -1, /* not of this encoding, or out's ceiling: then out has failed */
};
/* Append what the piece says, about most_bytes of it. A piece given again may come in parts. */
enum http_inflate_progress http_inflate_piece(
	struct http_inflate *decoder, struct span piece, size_t most_bytes, struct buf *out);
/* The body may end here. */
bool http_inflate_ended(const struct http_inflate *decoder);

#endif
