#ifndef GATEWAYD_CACHE_CONTROL_H
#define GATEWAYD_CACHE_CONTROL_H

/* What requests and answers say about being kept (RFC 9111 5.2; Surrogate-Control: Edge
 * Architecture Specification, W3C Note 2001). Pure. */
#include <stdbool.h>

#include "common/span.h"

struct exchange;

/* Does a Cache-Control or Vary field name this directive, in any case, whatever its argument? An
 * absent field names nothing. */
bool cache_control_has(struct span field, const char *directive);
/* The same of all Cache-Control fields of a request. */
bool cache_control_asks(const struct exchange *exchange, const char *directive);

/* The fields of an answer that matter; data NULL when absent. */
struct cache_control_answer {
	struct span set_cookie, cache_control, surrogate_control, vary;
};
/* May it be kept for others with the same credential? */
bool cache_control_shareable(const struct cache_control_answer *answer);

#endif
