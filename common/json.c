#include "common/json.h"

#include "common/utf8.h"

/* What must not stand in a string as it is. */
static int append_escape(struct buf *out, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	static const char short_escapes[] = "\"\"\\\\\bb\ff\nn\rr\tt";
	for (const char *p = short_escapes; *p; p += 2)
		if (*p == (char)c)
			return buf_append(out, (char[]){'\\', p[1]}, 2);
	return buf_append(out, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
}

int json_append_string(struct buf *out, struct span utf8)
{
	const char *at = utf8.data, *end = utf8.data + utf8.len, *run = at;
	buf_append_char(out, '"');
	while (at < end) {
		unsigned char c = (unsigned char)*at;
		if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
			at++;
			continue;
		}
		size_t len = utf8_sequence_len(at, (size_t)(end - at));
		if (len > 1) {
			at += len;
			continue;
		}
		if (at > run)
			buf_append(out, run, (size_t)(at - run));
		if (len == 0)
			buf_append_str(out, UTF8_REPLACEMENT);
		else
			append_escape(out, c);
		run = ++at;
	}
	if (at > run)
		buf_append(out, run, (size_t)(at - run));
	return buf_append_char(out, '"');
}
