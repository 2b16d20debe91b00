#ifndef EXPORTERMERGER_NEGOTIATE_H
#define EXPORTERMERGER_NEGOTIATE_H

/* Which form of the page a reader wants (RFC 9110 12.5.1, 12.5.3). */
#include <stdbool.h>

#include "common/span.h"

struct negotiated {
	bool openmetrics; /* 1.0.0; else classic text 0.0.4, also when nothing fits */
	bool allow_utf8;  /* escaping=allow-utf-8: names in quotes */
	bool escaping;    /* the reader spoke of escaping: the answer does too */
};
/* Of equal weights the type named first wins; wildcards mean classic text. */
struct negotiated negotiate_accept(struct span accept);
/* The Content-Type for it; a static string. */
const char *negotiate_content_type(const struct negotiated *negotiated);
/* gzip (or *) with a weight above 0. */
bool negotiate_gzip(struct span accept_encoding);

/* How a target's page is to be read, by its Content-Type. false: it says that it is something else.
 */
bool negotiate_read_type(struct span content_type, bool *openmetrics);

#endif
