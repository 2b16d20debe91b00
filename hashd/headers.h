#ifndef HASHD_HEADERS_H
#define HASHD_HEADERS_H

/* Which header fields pass through the front door, in both directions. Pure. */
#include <stdbool.h>

#include "common/span.h"

/*
 * May a client's field go on to gatewayd? Not those that belong to one hop (RFC 9110 7.6.1; the
 * ones that Connection names are asked for with headers_connection_names()), not Host,
 * Content-Length and traceparent, which travel apart, and not those that only this daemon may set:
 * body, path and URL hashes, x-original-host.
 */
bool headers_pass_request(struct span name);
/* May a field of the answer go on to the client? Not per-hop ones, lengths, dates, nor tags of the
 * cache (Surrogate-*). */
bool headers_pass_answer(struct span name);
/* Does this Connection value name the field? */
bool headers_connection_names(struct span connection, struct span name);

#endif
