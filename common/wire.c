#include "common/wire.h"

#include <string.h>

/* What the first byte of an object says. */
enum form {
	FORM_PLAIN, /* `head` bytes and nothing else */
	FORM_BYTES, /* then as many bytes as the length says */
	FORM_ITEMS, /* then as many objects as the count says */
	FORM_BAD,
};
struct shape {
	enum form form;
	unsigned head;         /* bytes before content, the first one counted */
	unsigned length_bytes; /* width of the length or count; 0: it is `length` */
	uint32_t length;
	uint32_t factor; /* objects per counted item: 2 in a map */
	unsigned extra;  /* bytes beyond the length: ext's type */
};

static uint64_t load_be(const uint8_t *p, unsigned bytes)
{
	uint64_t value = 0;
	while (bytes--)
		value = value << 8 | *p++;
	return value;
}

static struct shape shape_of(uint8_t first)
{
	if (first <= 0x7f || first >= 0xe0)
		return (struct shape){.form = FORM_PLAIN, .head = 1};
	if (first <= 0x8f)
		return (struct shape){FORM_ITEMS, 1, 0, first & 0x0fu, 2, 0};
	if (first <= 0x9f)
		return (struct shape){FORM_ITEMS, 1, 0, first & 0x0fu, 1, 0};
	if (first <= 0xbf)
		return (struct shape){FORM_BYTES, 1, 0, first & 0x1fu, 0, 0};
	switch (first) {
	case 0xc0: /* nil, false, true */
	case 0xc2:
	case 0xc3:
		return (struct shape){.form = FORM_PLAIN, .head = 1};
	case 0xc4: /* bin 8, 16, 32 */
	case 0xc5:
	case 0xc6: {
		unsigned n = 1u << (first - 0xc4);
		return (struct shape){FORM_BYTES, 1 + n, n, 0, 0, 0};
	}
	case 0xc7: /* ext 8, 16, 32 */
	case 0xc8:
	case 0xc9: {
		unsigned n = 1u << (first - 0xc7);
		return (struct shape){FORM_BYTES, 1 + n, n, 0, 0, 1};
	}
	case 0xca: /* float 32 */
		return (struct shape){.form = FORM_PLAIN, .head = 5};
	case 0xcb: /* float 64 */
		return (struct shape){.form = FORM_PLAIN, .head = 9};
	case 0xcc: /* uint 8 to 64 */
	case 0xcd:
	case 0xce:
	case 0xcf:
		return (struct shape){.form = FORM_PLAIN, .head = 1 + (1u << (first - 0xcc))};
	case 0xd0: /* int 8 to 64 */
	case 0xd1:
	case 0xd2:
	case 0xd3:
		return (struct shape){.form = FORM_PLAIN, .head = 1 + (1u << (first - 0xd0))};
	case 0xd4: /* fixext 1 to 16 */
	case 0xd5:
	case 0xd6:
	case 0xd7:
	case 0xd8:
		return (struct shape){.form = FORM_PLAIN, .head = 2 + (1u << (first - 0xd4))};
	case 0xd9: /* str 8, 16, 32 */
	case 0xda:
	case 0xdb: {
		unsigned n = 1u << (first - 0xd9);
		return (struct shape){FORM_BYTES, 1 + n, n, 0, 0, 0};
	}
	case 0xdc: /* array 16, 32 */
	case 0xdd: {
		unsigned n = 2u << (first - 0xdc);
		return (struct shape){FORM_ITEMS, 1 + n, n, 0, 1, 0};
	}
	case 0xde: /* map 16, 32 */
	case 0xdf: {
		unsigned n = 2u << (first - 0xde);
		return (struct shape){FORM_ITEMS, 1 + n, n, 0, 2, 0};
	}
	default:
		return (struct shape){.form = FORM_BAD};
	}
}

enum wire_progress wire_scan(
	struct wire_scan *scan, const void *data, size_t len_bytes, size_t max_len)
{
	const uint8_t *bytes = data;
	if (scan->at == 0) {
		scan->depth = 0;
		scan->left[0] = 1;
	}
	for (;;) {
		while (scan->left[scan->depth] == 0) {
			if (scan->depth == 0)
				return scan->at <= len_bytes ? WIRE_DONE : WIRE_MORE;
			scan->depth--;
		}
		if (scan->at >= max_len)
			return WIRE_BAD;
		if (scan->at >= len_bytes)
			return WIRE_MORE;
		const uint8_t *p = bytes + scan->at;
		size_t room = max_len - scan->at;
		struct shape shape = shape_of(*p);
		if (shape.form == FORM_BAD || shape.head > room)
			return WIRE_BAD;
		if (shape.form == FORM_PLAIN) {
			scan->left[scan->depth]--;
			scan->at += shape.head;
			continue;
		}
		if (shape.head > len_bytes - scan->at)
			return WIRE_MORE;
		uint64_t length = shape.length_bytes ? load_be(p + 1, shape.length_bytes)
						     : shape.length;
		room -= shape.head;
		if (shape.form == FORM_BYTES) {
			if (length + shape.extra > room)
				return WIRE_BAD;
			scan->left[scan->depth]--;
			scan->at += shape.head + (size_t)length + shape.extra;
			continue;
		}
		length *= shape.factor;
		/* Each object has at least one byte. */
		if (length > room || length > UINT32_MAX)
			return WIRE_BAD;
		scan->left[scan->depth]--;
		scan->at += shape.head;
		/* Level 0 is the lone object itself, so depth counts the open containers. */
		if (scan->depth == WIRE_MAX_DEPTH)
			return WIRE_BAD;
		scan->left[++scan->depth] = (uint32_t)length;
	}
}

static size_t bytes_left(const struct wire *w)
{
	return (size_t)(w->end - w->at);
}

bool wire_at_nil(const struct wire *w)
{
	return w->at < w->end && *w->at == 0xc0;
}

int wire_read_nil(struct wire *w)
{
	if (!wire_at_nil(w))
		return -1;
	w->at++;
	return 0;
}

int wire_read_bool(struct wire *w, bool *value)
{
	if (w->at >= w->end || (*w->at != 0xc2 && *w->at != 0xc3))
		return -1;
	*value = *w->at++ == 0xc3;
	return 0;
}

/* An integer as sign and 64 bits. */
static int read_integer(struct wire *w, uint64_t *bits, bool *negative)
{
	if (w->at >= w->end)
		return -1;
	uint8_t first = *w->at;
	unsigned width;
	*negative = false;
	if (first <= 0x7f || first >= 0xe0) {
		*bits = (uint64_t)(int64_t)(int8_t)first;
		*negative = first >= 0xe0;
		w->at++;
		return 0;
	}
	if (first >= 0xcc && first <= 0xcf)
		width = 1u << (first - 0xcc);
	else if (first >= 0xd0 && first <= 0xd3)
		width = 1u << (first - 0xd0);
	else
		return -1;
	if (bytes_left(w) < 1 + width)
		return -1;
	uint64_t value = load_be(w->at + 1, width);
	if (first >= 0xd0) {
		unsigned shift = 64 - 8 * width;
		value = (uint64_t)((int64_t)(value << shift) >> shift);
		*negative = (int64_t)value < 0;
	}
	*bits = value;
	w->at += 1 + width;
	return 0;
}

int wire_read_u64(struct wire *w, uint64_t *value)
{
	struct wire copy = *w;
	uint64_t bits;
	bool negative;
	if (read_integer(&copy, &bits, &negative) != 0 || negative)
		return -1;
	*value = bits;
	*w = copy;
	return 0;
}

int wire_read_i64(struct wire *w, int64_t *value)
{
	struct wire copy = *w;
	uint64_t bits;
	bool negative;
	if (read_integer(&copy, &bits, &negative) != 0 || (!negative && bits > INT64_MAX))
		return -1;
	*value = (int64_t)bits;
	*w = copy;
	return 0;
}

int wire_read_f64(struct wire *w, double *value)
{
	if (w->at < w->end && *w->at == 0xca) {
		if (bytes_left(w) < 5)
			return -1;
		uint32_t bits = (uint32_t)load_be(w->at + 1, 4);
		float f;
		memcpy(&f, &bits, sizeof f);
		*value = (double)f;
		w->at += 5;
		return 0;
	}
	if (w->at < w->end && *w->at == 0xcb) {
		if (bytes_left(w) < 9)
			return -1;
		uint64_t bits = load_be(w->at + 1, 8);
		memcpy(value, &bits, sizeof *value);
		w->at += 9;
		return 0;
	}
	uint64_t bits;
	bool negative;
	if (read_integer(w, &bits, &negative) != 0)
		return -1;
	*value = negative ? (double)(int64_t)bits : (double)bits;
	return 0;
}

/* first_wide: the type with an 8-bit length; 16 and 32 bits follow it. */
static int read_bytes(struct wire *w, uint8_t first_wide, bool has_fix, struct span *value)
{
	if (w->at >= w->end)
		return -1;
	uint8_t first = *w->at;
	size_t head = 1;
	uint64_t length;
	if (has_fix && first >= 0xa0 && first <= 0xbf) {
		length = first & 0x1fu;
	} else if (first >= first_wide && first <= first_wide + 2) {
		unsigned width = 1u << (first - first_wide);
		head += width;
		if (bytes_left(w) < head)
			return -1;
		length = load_be(w->at + 1, width);
	} else {
		return -1;
	}
	if (length > bytes_left(w) - head)
		return -1;
	*value = (struct span){(const char *)w->at + head, (size_t)length};
	w->at += head + (size_t)length;
	return 0;
}

int wire_read_str(struct wire *w, struct span *value)
{
	return read_bytes(w, 0xd9, true, value);
}

int wire_read_bin(struct wire *w, struct span *value)
{
	return read_bytes(w, 0xc4, false, value);
}

int wire_read_array(struct wire *w, uint32_t *count)
{
	if (w->at >= w->end)
		return -1;
	uint8_t first = *w->at;
	size_t head = 1;
	uint64_t n;
	if (first >= 0x90 && first <= 0x9f) {
		n = first & 0x0fu;
	} else if (first == 0xdc || first == 0xdd) {
		unsigned width = 2u << (first - 0xdc);
		head += width;
		if (bytes_left(w) < head)
			return -1;
		n = load_be(w->at + 1, width);
	} else {
		return -1;
	}
	if (n > bytes_left(w) - head)
		return -1;
	*count = (uint32_t)n;
	w->at += head;
	return 0;
}

int wire_skip(struct wire *w, struct span *raw)
{
	struct wire_scan scan = {0};
	size_t left = bytes_left(w);
	if (wire_scan(&scan, w->at, left, left) != WIRE_DONE)
		return -1;
	if (raw)
		*raw = (struct span){(const char *)w->at, scan.at};
	w->at += scan.at;
	return 0;
}

int wire_buf_write(void *buf, const char *data, size_t len_bytes)
{
	struct buf *b = buf;
	/* Most writes are a few bytes into room that is there. */
	if (!b->failed && b->capacity - b->len >= len_bytes && b->max_len - b->len >= len_bytes &&
		len_bytes) {
		memcpy(b->data + b->len, data, len_bytes);
		b->len += len_bytes;
		return 0;
	}
	return buf_append(b, data, len_bytes);
}

void wire_write_str(msgpack_packer *packer, struct span value)
{
	msgpack_pack_str(packer, value.len);
	msgpack_pack_str_body(packer, value.data, value.len);
}

void wire_write_bin(msgpack_packer *packer, struct span value)
{
	msgpack_pack_bin(packer, value.len);
	msgpack_pack_bin_body(packer, value.data, value.len);
}
