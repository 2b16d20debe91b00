#include "common/http_accept.h"

static struct span trim(struct span s)
{
	while (s.len && (s.data[0] == ' ' || s.data[0] == '\t')) {
		s.data++;
		s.len--;
	}
	while (s.len && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
		s.len--;
	return s;
}

/* Cut *rest at the first separator; what is before it, trimmed. */
static struct span cut(struct span *rest, char separator)
{
	const char *at = memchr(rest->data, separator, rest->len);
	struct span head = {rest->data, at ? (size_t)(at - rest->data) : rest->len};
	size_t used = at ? head.len + 1 : head.len;
	rest->data += used;
	rest->len -= used;
	return trim(head);
}

/* "q=0", "q=0.", "q=0.000": refused. Anything else is some degree of yes. */
static bool is_refusal(struct span parameter)
{
	if (parameter.len < 3 || (parameter.data[0] | 0x20) != 'q' || parameter.data[1] != '=' ||
		parameter.data[2] != '0')
		return false;
	for (size_t i = 3; i < parameter.len; i++)
		if (parameter.data[i] != (i == 3 ? '.' : '0'))
			return false;
	return true;
}

bool http_accepts_encoding(struct span accept_encoding, const char *coding)
{
	bool any = false;
	struct span rest = accept_encoding;
	while (rest.len) {
		struct span item = cut(&rest, ',');
		struct span name = cut(&item, ';');
		bool named = span_equal_nocase(name, coding);
		if (!named && !span_equal_str(name, "*"))
			continue;
		bool refused = false;
		while (item.len)
			refused = is_refusal(cut(&item, ';')) || refused;
		if (named)
			return !refused;
		any = !refused;
	}
	return any;
}

bool http_is_media_type(struct span content_type, const char *media_type)
{
	return span_equal_nocase(cut(&content_type, ';'), media_type);
}
