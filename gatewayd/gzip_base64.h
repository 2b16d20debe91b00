#ifndef GATEWAYD_GZIP_BASE64_H
#define GATEWAYD_GZIP_BASE64_H

/*
 * A gzip member (RFC 1952) of text that is base64 but for a little around it, as stored objects
 * are. Such text repeats nothing, so that all deflate (RFC 1951) can do is to give its 64
 * characters six bits each instead of eight; zlib takes 60 us to find that out for 8 KB. Here the
 * code is known before: one block with a fixed set of code lengths, 6 bits for most of base64, 8
 * for '+' and '/', 14 for what else JSON has, 15 for every other byte. Any text is encoded right,
 * other than base64 makes it longer. Safe on any thread.
 */
#include "common/buf.h"
#include "common/span.h"

/* As gzip_compress(), which it can stand in for. */
int gzip_base64_compress(struct span data, struct span extra, struct buf *out);

#endif
