#include "exportermerger/negotiate.h"

#include <stddef.h>

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

static struct span trim(struct span text)
{
	while (text.len && is_space(*text.data)) {
		text.data++;
		text.len--;
	}
	while (text.len && is_space(text.data[text.len - 1]))
		text.len--;
	return text;
}

/* Cut the part before the separator off the front (quoted strings do not hold separators here). */
static struct span next_part(struct span *rest, char separator)
{
	const char *end = rest->len ? memchr(rest->data, separator, rest->len) : NULL;
	size_t len = end ? (size_t)(end - rest->data) : rest->len;
	struct span part = {rest->data, len};
	rest->data += len + (end != NULL);
	rest->len -= len + (end != NULL);
	return trim(part);
}

/* "0.75" in thousandths; anything odd counts as 1, as if it had not been said. */
static int parse_weight(struct span text)
{
	int weight = 0, unit = 1000;
	bool point = false;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		if (c == '.' && !point) {
			point = true;
			continue;
		}
		if (c < '0' || c > '9')
			return 1000;
		if (point)
			unit /= 10;
		weight += (c - '0') * unit;
		if (weight > 1000)
			return 1000;
	}
	return text.len ? weight : 1000;
}

struct range {
	struct span type, version, escaping;
	int weight;
};

static struct range parse_range(struct span text)
{
	struct range range = {.type = next_part(&text, ';'), .weight = 1000};
	while (text.len) {
		struct span value = next_part(&text, ';'), name = next_part(&value, '=');
		value = trim(value);
		if (value.len >= 2 && *value.data == '"' && value.data[value.len - 1] == '"')
			value = (struct span){value.data + 1, value.len - 2};
		if (span_equal_nocase(name, "q"))
			range.weight = parse_weight(value);
		else if (span_equal_nocase(name, "version"))
			range.version = value;
		else if (span_equal_nocase(name, "escaping"))
			range.escaping = value;
	}
	return range;
}

struct negotiated negotiate_accept(struct span accept)
{
	struct negotiated best = {0};
	int best_weight = 0;
	while (accept.len) {
		struct range range = parse_range(next_part(&accept, ','));
		bool openmetrics = span_equal_nocase(range.type, "application/openmetrics-text");
		if (openmetrics) {
			if (range.version.len && !span_equal_str(range.version, "1.0.0") &&
				!span_equal_str(range.version, "0.0.1"))
				continue;
		} else if (span_equal_nocase(range.type, "text/plain")) {
			if (range.version.len && !span_equal_str(range.version, "0.0.4"))
				continue;
		} else if (!span_equal_str(range.type, "*/*") &&
			   !span_equal_nocase(range.type, "text/*")) {
			continue;
		}
		if (range.weight <= best_weight)
			continue;
		best_weight = range.weight;
		best = (struct negotiated){
			.openmetrics = openmetrics,
			.allow_utf8 = span_equal_nocase(range.escaping, "allow-utf-8"),
			.escaping = range.escaping.len > 0,
		};
	}
	return best;
}

const char *negotiate_content_type(const struct negotiated *n)
{
	static const char *const types[2][3] = {
		{"text/plain; version=0.0.4; charset=utf-8",
			"text/plain; version=0.0.4; charset=utf-8; escaping=values",
			"text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8"},
		{"application/openmetrics-text; version=1.0.0; charset=utf-8",
			"application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=values",
			"application/openmetrics-text; version=1.0.0; charset=utf-8; "
			"escaping=allow-utf-8"},
	};
	return types[n->openmetrics][n->allow_utf8 ? 2 : n->escaping ? 1 : 0];
}

bool negotiate_gzip(struct span accept_encoding)
{
	int gzip = -1, any = -1;
	while (accept_encoding.len) {
		struct range range = parse_range(next_part(&accept_encoding, ','));
		if (span_equal_nocase(range.type, "gzip") ||
			span_equal_nocase(range.type, "x-gzip"))
			gzip = range.weight;
		else if (span_equal_str(range.type, "*"))
			any = range.weight;
	}
	return gzip >= 0 ? gzip > 0 : any > 0;
}

bool negotiate_read_type(struct span content_type, bool *openmetrics)
{
	struct range range = parse_range(content_type);
	*openmetrics = span_equal_nocase(range.type, "application/openmetrics-text");
	return *openmetrics || range.type.len == 0 || span_equal_nocase(range.type, "text/plain") ||
	       span_equal_nocase(range.type, "application/octet-stream");
}
