#include "gatewayd/cache_control.h"

#include "gatewayd/exchange.h"

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The next element of a comma-separated list; commas in quotes do not part. */
static bool next_element(struct span *rest, struct span *element)
{
	if (rest->len == 0)
		return false;
	size_t at = 0;
	bool quoted = false;
	for (; at < rest->len && (quoted || rest->data[at] != ','); at++) {
		if (quoted && rest->data[at] == '\\' && at + 1 < rest->len)
			at++;
		else if (rest->data[at] == '"')
			quoted = !quoted;
	}
	*element = (struct span){rest->data, at};
	size_t used = at < rest->len ? at + 1 : at;
	*rest = (struct span){rest->data + used, rest->len - used};
	return true;
}

static struct span name_of(struct span element)
{
	while (element.len && is_blank(*element.data))
		element = (struct span){element.data + 1, element.len - 1};
	size_t len = 0;
	while (len < element.len && element.data[len] != '=' && !is_blank(element.data[len]))
		len++;
	return (struct span){element.data, len};
}

bool cache_control_has(struct span field, const char *directive)
{
	struct span element;
	while (next_element(&field, &element))
		if (span_equal_nocase(name_of(element), directive))
			return true;
	return false;
}

bool cache_control_asks(const struct exchange *exchange, const char *directive)
{
	struct span name, value;
	for (size_t i = 0; exchange_header_at(exchange, i, &name, &value); i++)
		if (span_equal_nocase(name, "cache-control") && cache_control_has(value, directive))
			return true;
	return false;
}

bool cache_control_shareable(const struct cache_control_answer *answer)
{
	return !answer->set_cookie.data && !cache_control_has(answer->cache_control, "private") &&
	       !cache_control_has(answer->cache_control, "no-cache") &&
	       !cache_control_has(answer->cache_control, "no-store") &&
	       !cache_control_has(answer->surrogate_control, "no-store") &&
	       !cache_control_has(answer->vary, "*");
}
