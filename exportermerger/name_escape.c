#include "exportermerger/name_escape.h"

#include "common/utf8.h"
#include "exportermerger/line.h"

#define PREFIX         "U__"
#define PREFIX_LEN     3
#define MAX_CODE_POINT 0x10ffff
#define MAX_HEX_DIGITS 6

void name_escape(struct span name, bool is_label, struct buf *out)
{
	buf_append(out, PREFIX, PREFIX_LEN);
	for (size_t i = 0; i < name.len;) {
		uint32_t c;
		size_t n = utf8_decode(name.data + i, name.len - i, &c);
		struct span one = {name.data + i, n ? n : 1};
		if (*one.data == '_')
			buf_append(out, "__", 2);
		else if (line_name_is_plain(one, is_label) ||
			 (i && *one.data >= '0' && *one.data <= '9'))
			buf_append(out, one.data, one.len);
		else
			buf_printf(out, "_%x_", n ? (unsigned)c : (unsigned)(uint8_t)*one.data);
		i += one.len;
	}
}

/* "e4_", what stands behind the _. Returns its length, 0 when it is no character. */
static size_t read_code_point(struct span text, uint32_t *code_point)
{
	static const char digits[] = "0123456789abcdef";
	uint32_t c = 0;
	for (size_t i = 0; i < text.len && i <= MAX_HEX_DIGITS; i++) {
		if (text.data[i] == '_' && i) {
			*code_point = c;
			return c <= MAX_CODE_POINT ? i + 1 : 0;
		}
		const char *digit = memchr(digits, text.data[i], 16);
		if (!digit)
			return 0;
		c = c << 4 | (uint32_t)(digit - digits);
	}
	return 0;
}

static bool decode(struct span text, struct buf *out)
{
	while (text.len) {
		size_t n = 1;
		if (*text.data != '_') {
			buf_append_char(out, *text.data);
		} else if (text.len > 1 && text.data[1] == '_') {
			buf_append_char(out, '_');
			n = 2;
		} else {
			uint32_t c;
			char bytes[4];
			n = read_code_point((struct span){text.data + 1, text.len - 1}, &c);
			if (n == 0)
				return false;
			n++;
			buf_append(out, bytes, utf8_encode(c, bytes));
		}
		text.data += n;
		text.len -= n;
	}
	return !buf_failed(out);
}

static bool can_be_quoted(struct span name)
{
	for (size_t i = 0, n; i < name.len; i += n) {
		n = utf8_sequence_len(name.data + i, name.len - i);
		if (n == 0 || strchr("\"\\\n", name.data[i]))
			return false; /* strchr() finds the NUL too */
	}
	return name.len > 0;
}

bool name_unescape(struct span name, bool is_label, struct buf *out)
{
	if (name.len <= PREFIX_LEN || memcmp(name.data, PREFIX, PREFIX_LEN) != 0)
		return false;
	size_t start = out->len;
	bool ok = decode((struct span){name.data + PREFIX_LEN, name.len - PREFIX_LEN}, out);
	if (ok) {
		struct span real = {(const char *)out->data + start, out->len - start};
		struct buf again = BUF_INIT(2 * name.len + 16);
		ok = can_be_quoted(real) && !line_name_is_plain(real, is_label);
		if (ok) {
			name_escape(real, is_label, &again);
			ok = !buf_failed(&again) &&
			     span_equal(name, (struct span){(const char *)again.data, again.len});
		}
		buf_free(&again);
	}
	if (!ok)
		out->len = start;
	return ok;
}

bool name_unescape_metric(struct span name, bool is_openmetrics_family, struct buf *out)
{
	static const char *const suffixes[] = {
		"_bucket", "_sum", "_count", "_created", "_gsum", "_gcount", "_total", "_info"};
	if (name_unescape(name, false, out))
		return true;
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		size_t len = strlen(suffixes[i]);
		struct span family = {name.data, name.len - len};
		if (name.len <= len || memcmp(name.data + family.len, suffixes[i], len) != 0 ||
			!name_unescape(family, false, out))
			continue;
		buf_append(out, suffixes[i], len);
		return !buf_failed(out);
	}
	if (!name.len || name.data[name.len - 1] != '_' ||
		!name_unescape((struct span){name.data, name.len - 1}, false, out))
		return false;
	/* What is left of "__total"; elsewhere a name that nobody makes, and that must not meet it.
	 */
	if (!is_openmetrics_family)
		buf_append_char(out, '_');
	return !buf_failed(out);
}
