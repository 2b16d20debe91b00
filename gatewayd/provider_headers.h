#ifndef GATEWAYD_PROVIDER_HEADERS_H
#define GATEWAYD_PROVIDER_HEADERS_H

/* The header fields of a call to a provider: what it is told of the body, the trace and the caller.
 */
#include <stdbool.h>

#include "common/trace.h"
#include "gatewayd/provider.h"

/* Zeroed is empty. */
struct provider_headers {
	char *lines[7];    /* "Name: value", ends with NULL */
	char *traceparent; /* the value of that one, to be overwritten by another; NULL: none */
};

/* trace and credential may be NULL: nothing of them is sent. 0, or -1 when out of memory. */
int provider_headers_write(struct provider_headers *headers, bool has_body,
	const struct trace_context *trace, const struct credential *credential);
void provider_headers_free(struct provider_headers *headers);

#endif
