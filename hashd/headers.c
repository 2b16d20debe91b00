#include "hashd/headers.h"

#include <stddef.h>

/*
 * RFC 9110 7.6.1, and Proxy-Authorization, which is for the next proxy: us. The length tells most
 * names apart, so that a field costs one comparison at most three times.
 */
static bool is_per_hop(struct span name)
{
	switch (name.len) {
	case 2:
		return span_equal_nocase(name, "te");
	case 7:
		return span_equal_nocase(name, "upgrade") || span_equal_nocase(name, "trailer");
	case 10:
		return span_equal_nocase(name, "connection") ||
		       span_equal_nocase(name, "keep-alive");
	case 16:
		return span_equal_nocase(name, "proxy-connection");
	case 17:
		return span_equal_nocase(name, "transfer-encoding");
	case 18:
		return span_equal_nocase(name, "proxy-authenticate");
	case 19:
		return span_equal_nocase(name, "proxy-authorization");
	default:
		return false;
	}
}

bool headers_pass_request(struct span name)
{
	switch (name.len) {
	case 4:
		return !span_equal_nocase(name, "host");
	case 6:
		return !span_equal_nocase(name, "expect");
	case 10:
		return !span_equal_nocase(name, "x-url-hash") && !is_per_hop(name);
	case 11:
		return !span_equal_nocase(name, "x-body-hash") &&
		       !span_equal_nocase(name, "x-path-hash") &&
		       !span_equal_nocase(name, "traceparent");
	case 14:
		return !span_equal_nocase(name, "content-length");
	case 15:
		return !span_equal_nocase(name, "x-original-host");
	default:
		return !is_per_hop(name);
	}
}

bool headers_pass_answer(struct span name)
{
	switch (name.len) {
	case 4:
		return !span_equal_nocase(name, "date");
	case 11:
		return !span_equal_nocase(name, "x-body-hash");
	case 13:
		return !span_equal_nocase(name, "surrogate-key");
	case 14:
		return !span_equal_nocase(name, "content-length");
	case 17:
		return !span_equal_nocase(name, "surrogate-control") && !is_per_hop(name);
	default:
		return !is_per_hop(name);
	}
}

bool headers_connection_names(struct span connection, struct span name)
{
	const char *at = connection.data, *end = connection.data + connection.len;

	while (at < end) {
		while (at < end && (*at == ',' || *at == ' ' || *at == '\t'))
			at++;
		const char *start = at;

		while (at < end && *at != ',' && *at != ' ' && *at != '\t')
			at++;
		size_t len = (size_t)(at - start);

		if (len && len == name.len && strncasecmp(start, name.data, len) == 0)
			return true;
	}
	return false;
}
