#ifndef COMMON_HTTP_ACCEPT_H
#define COMMON_HTTP_ACCEPT_H

/* What a client is willing to take (RFC 9110 12.5.3). Pure. */
#include <stdbool.h>

#include "common/span.h"

/*
 * Does Accept-Encoding allow this coding ("gzip")? An absent field (data NULL) or one that does not
 * name it, by itself or by
 * "*", is a no: plain is always right. q=0 is a no.
 */
bool http_accepts_encoding(struct span accept_encoding, const char *coding);
/* Is a Content-Type field this media type, whatever its parameters? */
bool http_is_media_type(struct span content_type, const char *media_type);

#endif
