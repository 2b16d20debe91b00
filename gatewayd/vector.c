#include "gatewayd/vector.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/number_text.h"

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "stored vectors are little-endian float32");
_Static_assert(sizeof(float) == 4, "float is IEEE 754 binary32");

/* Numbers are worked through in runs of this many, on the stack. A multiple of 3, so that the
 * base64 of one run ends without padding. */
#define RUN_FLOATS 384

/*
 * Two characters for each 12 bits, and for each character its 6 bits at the place where they belong
 * in a group of four; ALIEN for what is no base64. Filled before main(): constant from then on, so
 * threads read it freely.
 */
#define ALIEN 0xff000000u
static uint16_t pair_of[4096];
static uint32_t bits_of[4][256];

__attribute__((constructor)) static void vector_fill_tables(void)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (unsigned i = 0; i < 4096; i++) {
		char pair[2] = {alphabet[i >> 6], alphabet[i & 63]};
		memcpy(&pair_of[i], pair, 2);
	}
	for (unsigned place = 0; place < 4; place++) {
		for (unsigned c = 0; c < 256; c++)
			bits_of[place][c] = ALIEN;
		for (unsigned i = 0; i < 64; i++)
			bits_of[place][(unsigned char)alphabet[i]] = i << (18 - 6 * place);
	}
}

static void encode_triple(const uint8_t *in, char *out)
{
	uint32_t bits = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
	memcpy(out, &pair_of[bits >> 12], 2);
	memcpy(out + 2, &pair_of[bits & 4095], 2);
}

void vector_base64_encode(const void *data, size_t len_bytes, char *out)
{
	const uint8_t *in = data;
	/* Six bytes at a time; eight are read. */
	while (len_bytes >= 8) {
		uint64_t bits;
		memcpy(&bits, in, 8);
		bits = be64toh(bits);
		uint64_t text = (uint64_t)pair_of[bits >> 52] |
				(uint64_t)pair_of[bits >> 40 & 4095] << 16 |
				(uint64_t)pair_of[bits >> 28 & 4095] << 32 |
				(uint64_t)pair_of[bits >> 16 & 4095] << 48;
		memcpy(out, &text, 8);
		in += 6;
		out += 8;
		len_bytes -= 6;
	}
	for (; len_bytes >= 3; len_bytes -= 3, in += 3, out += 4)
		encode_triple(in, out);
	if (len_bytes) {
		uint8_t last[3] = {in[0], len_bytes == 2 ? in[1] : 0, 0};
		encode_triple(last, out);
		out[3] = '=';
		if (len_bytes == 1)
			out[2] = '=';
	}
}

static uint32_t group_bits(const uint8_t *in)
{
	return bits_of[0][in[0]] | bits_of[1][in[1]] | bits_of[2][in[2]] | bits_of[3][in[3]];
}

/* The last group, which may be padded: the number of bytes it gives, 0 when it is not valid. */
static size_t decode_last(const uint8_t *in, uint8_t *out)
{
	size_t n = in[3] != '=' ? 3 : in[2] != '=' ? 2 : 1;
	uint8_t group[4] = {in[0], in[1], n >= 2 ? in[2] : 'A', n == 3 ? in[3] : 'A'};
	uint32_t bits = group_bits(group);
	uint32_t unused = n == 3 ? 0 : n == 2 ? 0xff : 0xffff;
	if (bits >= ALIEN || bits & unused)
		return 0;
	for (size_t i = 0; i < n; i++)
		out[i] = (uint8_t)(bits >> (16 - 8 * i));
	return n;
}

int vector_base64_decode(struct span text, void *out, size_t *len_bytes)
{
	const uint8_t *in = (const uint8_t *)text.data;
	uint8_t *to = out;
	*len_bytes = 0;
	if (text.len % 4)
		return -1;
	if (!text.len)
		return 0;
	uint32_t seen = 0;
	size_t groups = text.len / 4 - 1;
	for (size_t i = 0; i < groups; i++) {
		uint32_t bits = group_bits(in);
		seen |= bits;
		to[0] = (uint8_t)(bits >> 16);
		to[1] = (uint8_t)(bits >> 8);
		to[2] = (uint8_t)bits;
		in += 4;
		to += 3;
	}
	if (seen >= ALIEN)
		return -1;
	size_t last = decode_last(in, to);
	if (!last)
		return -1;
	*len_bytes = (size_t)(to - (uint8_t *)out) + last;
	return 0;
}

/* Infinities and NaN have all exponent bits set. */
static bool all_finite(const float *values, size_t n)
{
	uint32_t bad = 0;
	for (size_t i = 0; i < n; i++) {
		uint32_t bits;
		memcpy(&bits, &values[i], 4);
		bad |= (bits & 0x7f800000u) == 0x7f800000u;
	}
	return !bad;
}

static bool base64_dims(struct span base64, uint32_t *dims)
{
	if (!base64.len || base64.len % 4 ||
		base64.len > VECTOR_BASE64_LEN((size_t)VECTOR_MAX_DIMS * 4))
		return false;
	size_t n_bytes = base64.len / 4 * 3;
	n_bytes -= base64.data[base64.len - 1] == '=';
	n_bytes -= base64.data[base64.len - 2] == '=';
	*dims = (uint32_t)(n_bytes / 4);
	return n_bytes % 4 == 0 && *dims > 0;
}

/* The next run of numbers of a base64 text; 0 when it is not valid. *base64 moves on. */
static size_t next_run(struct span *base64, float run[RUN_FLOATS])
{
	struct span part = *base64;
	size_t n_bytes;
	if (part.len > VECTOR_BASE64_LEN(RUN_FLOATS * 4))
		part.len = VECTOR_BASE64_LEN(RUN_FLOATS * 4);
	if (vector_base64_decode(part, run, &n_bytes) || n_bytes % 4 || !n_bytes)
		return 0;
	base64->data += part.len;
	base64->len -= part.len;
	/* Padding ends a text. */
	if (base64->len && n_bytes != part.len / 4 * 3)
		return 0;
	return all_finite(run, n_bytes / 4) ? n_bytes / 4 : 0;
}

int vector_read_base64(struct span base64, struct buf *floats, uint32_t *dims)
{
	float run[RUN_FLOATS];
	if (!base64_dims(base64, dims))
		return -1;
	/* Not kept when the text turns out to be bad. */
	size_t before = floats ? floats->len : 0;
	while (base64.len) {
		size_t n = next_run(&base64, run);
		if (!n || (floats && buf_append(floats, run, n * sizeof(float)))) {
			if (floats)
				floats->len = before;
			return -1;
		}
	}
	return 0;
}

float *vector_base64_floats(struct span base64, uint32_t *dims)
{
	size_t n_bytes;
	if (!base64_dims(base64, dims))
		return NULL;
	float *values = malloc(base64.len / 4 * 3);
	if (values && (vector_base64_decode(base64, values, &n_bytes) < 0 ||
			      n_bytes != *dims * sizeof *values || !all_finite(values, *dims))) {
		free(values);
		values = NULL;
	}
	return values;
}

/* ---- Number text ---- */

static const char *skip_white(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
		at++;
	return at;
}

/* Where a JSON array stands while its numbers are read a run at a time. */
struct text_reader {
	const char *at, *end;
	uint32_t dims;
	bool exact; /* so far */
	bool ended;
};

static int text_begin(struct text_reader *reader, struct span array)
{
	*reader = (struct text_reader){.exact = true};
	if (!array.len || array.len > VECTOR_MAX_TEXT_BYTES || array.data[0] != '[')
		return -1;
	reader->at = array.data + 1;
	reader->end = array.data + array.len;
	return 0;
}

/* The next numbers, 1 to RUN_FLOATS; 0 when the text is bad. ended is set with the last. */
static size_t text_next_run(struct text_reader *reader, float run[RUN_FLOATS])
{
	const char *at = reader->at, *end = reader->end;
	size_t n = 0;
	while (n < RUN_FLOATS) {
		double value;
		at = skip_white(at, end);
		at = at < end ? number_text_read(at, end, &value) : NULL;
		if (!at || reader->dims == VECTOR_MAX_DIMS)
			return 0;
		/* A double beyond float's range may be converted only where IEEE 754 says how:
		 * it becomes an infinity here, which all_finite() finds. */
		run[n] = (float)value;
		reader->exact &= (double)run[n] == value;
		n++;
		reader->dims++;
		at = skip_white(at, end);
		if (at == end)
			return 0;
		if (*at == ']') {
			if (at + 1 != end)
				return 0;
			reader->ended = true;
			break;
		}
		if (*at++ != ',')
			return 0;
	}
	reader->at = at;
	return all_finite(run, n) ? n : 0;
}

enum vector_exactness vector_read_text(struct span array, struct buf *floats, uint32_t *dims)
{
	struct text_reader reader;
	float run[RUN_FLOATS];
	size_t before = floats ? floats->len : 0;
	*dims = 0;
	if (text_begin(&reader, array))
		return VECTOR_BAD;
	while (!reader.ended) {
		size_t n = text_next_run(&reader, run);
		if (!n || (floats && buf_append(floats, run, n * sizeof(float)))) {
			if (floats)
				floats->len = before;
			return VECTOR_BAD;
		}
	}
	*dims = reader.dims;
	return reader.exact ? VECTOR_EXACT : VECTOR_INEXACT;
}

float *vector_text_floats(struct span array, uint32_t *dims)
{
	struct text_reader reader;
	float run[RUN_FLOATS];
	struct buf floats = BUF_INIT(VECTOR_MAX_DIMS * sizeof(float));
	float *values = NULL;
	if (text_begin(&reader, array))
		return NULL;
	while (!reader.ended) {
		size_t n = text_next_run(&reader, run);
		if (!n || !reader.exact || buf_append(&floats, run, n * sizeof(float)))
			goto out;
	}
	*dims = reader.dims;
	values = malloc(floats.len);
	if (values)
		memcpy(values, floats.data, floats.len);
out:
	buf_free(&floats);
	return values;
}

/* ---- From one form to the other ---- */

int vector_floats_append_base64(const float *values, uint32_t dims, struct buf *out)
{
	if (!dims || dims > VECTOR_MAX_DIMS || !all_finite(values, dims))
		return -1;
	size_t len = vector_base64_len(dims);
	char *to = buf_reserve(out, len);
	if (!to)
		return -1;
	vector_base64_encode(values, (size_t)dims * sizeof(float), to);
	buf_commit(out, len);
	return 0;
}

int vector_base64_append(struct span text, struct buf *out)
{
	struct text_reader reader;
	float run[RUN_FLOATS];
	size_t before = out->len;
	if (text_begin(&reader, text))
		return -1;
	while (!reader.ended) {
		size_t n = text_next_run(&reader, run);
		if (!n || vector_floats_append_base64(run, (uint32_t)n, out)) {
			out->len = before;
			return -1;
		}
	}
	return 0;
}

int vector_text_append(struct span base64, struct buf *out)
{
	float run[RUN_FLOATS];
	uint32_t dims;
	size_t before = out->len;
	if (!base64_dims(base64, &dims))
		return -1;
	char mark = '[';
	while (base64.len) {
		size_t n = next_run(&base64, run);
		if (!n || buf_append_char(out, mark) || number_text_append_floats(out, run, n)) {
			out->len = before;
			return -1;
		}
		mark = ',';
	}
	if (buf_append_char(out, ']')) {
		out->len = before;
		return -1;
	}
	return 0;
}
