#ifndef COMMON_JSON_H
#define COMMON_JSON_H

/* Writing small JSON texts by hand: logs, error bodies, status pages. Reading is json_span's. Safe
 * on any thread. */
#include "common/buf.h"
#include "common/span.h"

/* Append utf8 as a JSON string, quotes included: quote, backslash and control characters (U+007F
 * too) escaped, all else as it is; every byte that is not part of UTF-8 becomes U+FFFD. 0, or -1
 * with the buffer failed (content up to there stays). */
int json_append_string(struct buf *out, struct span utf8);

#endif
