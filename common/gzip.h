#ifndef COMMON_GZIP_H
#define COMMON_GZIP_H

/* The gzip format (RFC 1952) by zlib, with its FEXTRA field. Safe on any thread. */
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"

/*
 * Append one gzip member. extra (may be empty, at most 65,535 bytes) becomes the FEXTRA field as it
 * is. level 1 to 9. mtime 0, no name, OS unknown: the same input makes the same bytes. 0, or -1
 * (out's ceiling, no memory; then out is as after any failed append).
 */
int gzip_compress(struct span data, struct span extra, int level, struct buf *out);

enum gzip_error { GZIP_OK, GZIP_BAD = -1, GZIP_TOO_LARGE = -2 };
/*
 * Append the decoded content of all members of data. GZIP_TOO_LARGE as soon as it passes out's
 * ceiling, so a bomb costs no more than that (or when there is no memory for it); GZIP_BAD for
 * anything malformed, truncated or followed by junk. After either, out's content is what it was,
 * and after GZIP_TOO_LARGE it is failed. extra (may be NULL) is set to the FEXTRA bytes of the
 * first member, borrowed from data; empty when there are none, data NULL on error or without the
 * field.
 */
enum gzip_error gzip_decompress(struct span data, struct buf *out, struct span *extra);

#endif
