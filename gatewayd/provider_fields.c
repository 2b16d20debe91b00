#include "gatewayd/provider_fields.h"

#include "gatewayd/cache_control.h"

#define MAX_TAGS_BYTES (128u << 10) /* more than a head has */

bool provider_fields_shareable(const struct http_call *http)
{
	struct cache_control_answer part;
	size_t i = 0;
	do {
		part = (struct cache_control_answer){
			.set_cookie = http_call_header_at(http, "set-cookie", i),
			.cache_control = http_call_header_at(http, "cache-control", i),
			.surrogate_control = http_call_header_at(http, "surrogate-control", i),
			.vary = http_call_header_at(http, "vary", i),
		};
		if (!cache_control_shareable(&part))
			return false;
		i++;
	} while (part.cache_control.data || part.surrogate_control.data || part.vary.data);
	return true;
}

void provider_fields_tags(const struct http_call *http, struct buf *tags)
{
	struct span part;
	buf_free(tags);
	buf_init(tags, MAX_TAGS_BYTES);
	for (size_t i = 0; (part = http_call_header_at(http, "surrogate-key", i)).data; i++) {
		buf_append_char(tags, ' ');
		buf_append(tags, part.data, part.len);
	}
}
