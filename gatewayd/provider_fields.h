#ifndef GATEWAYD_PROVIDER_FIELDS_H
#define GATEWAYD_PROVIDER_FIELDS_H

/* What the header fields of a provider's answer say of keeping it. Each may come in several parts.
 */
#include <stdbool.h>

#include "common/buf.h"
#include "common/http_client.h"

/* May it be kept for others with the same credential (cache_control.h)? */
bool provider_fields_shareable(const struct http_call *http);
/* Its tags, as surrogate_keys_read() takes them, in place of what tags has. */
void provider_fields_tags(const struct http_call *http, struct buf *tags);

#endif
