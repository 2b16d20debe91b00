#include "gatewayd/gzip_base64.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

#define END_OF_BLOCK 256
#define SYMBOLS      257
#define MAX_BITS     15
#define HEAD_BYTES   10
#define TAIL_BYTES   8
#define EXTRA_MAX    65535
#define FLAG_EXTRA   4
#define OS_UNKNOWN   255

/* The code is complete, as inflaters demand: 63/2^6 + 1/2^7 + 63/2^14 + 130/2^15 = 1. */
#define N_SHORT 63
/* The symbols of 14 bits: these, then as many of the others as it takes. */
static const char punctuation[] = "{}[]\":,._- \n";

/* Bits as they go out, the first one lowest. */
struct code {
	uint16_t bits;
	uint8_t n;
};
static struct code codes[SYMBOLS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A block's beginning: what it is, and the lengths of its codes. */
#define BLOCK_HEAD_MAX 96
static uint8_t block_head[BLOCK_HEAD_MAX];
static size_t block_head_bits;

/* ---- The code ---- */

static void set_lengths(uint8_t lengths[SYMBOLS])
{
	static const char base64[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+";
	memset(lengths, 0, SYMBOLS);
	for (const char *c = base64; *c; c++)
		lengths[(uint8_t)*c] = 6;
	lengths['/'] = 7;
	int left = N_SHORT - 1;
	lengths[END_OF_BLOCK] = MAX_BITS - 1;
	for (const char *c = punctuation; *c; c++, left--)
		lengths[(uint8_t)*c] = MAX_BITS - 1;
	for (int symbol = 0; symbol < SYMBOLS; symbol++) {
		if (lengths[symbol])
			continue;
		lengths[symbol] = left > 0 ? MAX_BITS - 1 : MAX_BITS;
		left--;
	}
}

static uint16_t reversed(unsigned bits, unsigned n)
{
	unsigned out = 0;
	for (unsigned i = 0; i < n; i++)
		out |= (bits >> i & 1) << (n - 1 - i);
	return (uint16_t)out;
}

/* The canonical code of these lengths (RFC 1951 3.2.2). */
static void make_codes(const uint8_t *lengths, int n_symbols, struct code *out)
{
	unsigned next[MAX_BITS + 2] = {0}, count[MAX_BITS + 1] = {0};
	for (int symbol = 0; symbol < n_symbols; symbol++)
		count[lengths[symbol]]++;
	count[0] = 0;
	for (int n = 1; n <= MAX_BITS; n++)
		next[n] = (next[n - 1] + count[n - 1]) << 1;
	for (int symbol = 0; symbol < n_symbols; symbol++) {
		unsigned n = lengths[symbol];
		out[symbol] = (struct code){n ? reversed(next[n]++, n) : 0, (uint8_t)n};
	}
}

static void add_head_bits(unsigned bits, unsigned n)
{
	for (unsigned i = 0; i < n; i++, block_head_bits++)
		block_head[block_head_bits / 8] |= (uint8_t)((bits >> i & 1)
							     << block_head_bits % 8);
}

/* The last block, with its own codes; their lengths are coded in turn (RFC 1951 3.2.7). */
static void make_block_head(const uint8_t lengths[SYMBOLS])
{
	static const uint8_t order[19] = {
		16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
	/* Of the lengths that there are: 1/2 + 1/4 + 1/8 + 2/16 = 1. */
	static const uint8_t of_length[19] = {
		[MAX_BITS] = 1, [MAX_BITS - 1] = 2, [6] = 3, [7] = 4, [0] = 4};
	struct code of_lengths[19];
	make_codes(of_length, 19, of_lengths);
	add_head_bits(1, 1);
	add_head_bits(2, 2);
	add_head_bits(SYMBOLS - 257, 5);
	add_head_bits(0, 5); /* one distance, of no bits: none is used */
	add_head_bits(19 - 4, 4);
	for (int i = 0; i < 19; i++)
		add_head_bits(of_length[order[i]], 3);
	for (int symbol = 0; symbol < SYMBOLS; symbol++)
		add_head_bits(of_lengths[lengths[symbol]].bits, of_lengths[lengths[symbol]].n);
	add_head_bits(of_lengths[0].bits, of_lengths[0].n);
}

static void set_up(void)
{
	uint8_t lengths[SYMBOLS];
	set_lengths(lengths);
	make_codes(lengths, SYMBOLS, codes);
	make_block_head(lengths);
}

/* ---- Encoding ---- */

struct bits {
	uint8_t *at;
	uint64_t held;
	unsigned n; /* held, under 32 between symbols */
};

static inline void put(struct bits *b, struct code code)
{
	b->held |= (uint64_t)code.bits << b->n;
	b->n += code.n;
}

static inline void flush_words(struct bits *b)
{
	if (b->n < 32)
		return;
	uint8_t bytes[4] = {(uint8_t)b->held, (uint8_t)(b->held >> 8), (uint8_t)(b->held >> 16),
		(uint8_t)(b->held >> 24)};
	memcpy(b->at, bytes, sizeof bytes);
	b->at += sizeof bytes;
	b->held >>= 32;
	b->n -= 32;
}

static void flush_rest(struct bits *b)
{
	for (; b->n > 0; b->n -= b->n < 8 ? b->n : 8, b->held >>= 8)
		*b->at++ = (uint8_t)b->held;
}

static uint8_t *put_le32(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		*at++ = (uint8_t)(value >> (8 * i));
	return at;
}

static uint8_t *put_member_head(uint8_t *at, struct span extra)
{
	const uint8_t head[HEAD_BYTES] = {
		0x1f, 0x8b, Z_DEFLATED, extra.len ? FLAG_EXTRA : 0, 0, 0, 0, 0, 0, OS_UNKNOWN};
	memcpy(at, head, sizeof head);
	at += sizeof head;
	if (!extra.len)
		return at;
	*at++ = (uint8_t)extra.len;
	*at++ = (uint8_t)(extra.len >> 8);
	memcpy(at, extra.data, extra.len);
	return at + extra.len;
}

static uint8_t *put_block(uint8_t *at, struct span data)
{
	size_t whole = block_head_bits / 8;
	memcpy(at, block_head, whole);
	struct bits b = {.at = at + whole, .held = block_head[whole], .n = block_head_bits % 8};
	const uint8_t *text = (const uint8_t *)data.data;
	size_t i = 0;
	/* Under 32 bits and two codes of at most 15 fit. */
	for (; i + 2 <= data.len; i += 2) {
		put(&b, codes[text[i]]);
		put(&b, codes[text[i + 1]]);
		flush_words(&b);
	}
	if (i < data.len)
		put(&b, codes[text[i]]);
	flush_words(&b);
	put(&b, codes[END_OF_BLOCK]);
	flush_rest(&b);
	return b.at;
}

int gzip_base64_compress(struct span data, struct span extra, struct buf *out)
{
	pthread_once(&once, set_up);
	bool fits = extra.len <= EXTRA_MAX && data.len <= UINT32_MAX;
	/* What it may take at worst. */
	size_t most = HEAD_BYTES + 2 + extra.len + BLOCK_HEAD_MAX + data.len * 2 + 8 + TAIL_BYTES;
	uint8_t *begin = fits ? buf_reserve(out, most) : NULL;
	if (!begin) {
		out->failed = true;
		return -1;
	}
	uint8_t *at = put_block(put_member_head(begin, extra), data);
	at = put_le32(at, (uint32_t)crc32_z(0, (const Bytef *)data.data, data.len));
	at = put_le32(at, (uint32_t)data.len);
	buf_commit(out, (size_t)(at - begin));
	return 0;
}
