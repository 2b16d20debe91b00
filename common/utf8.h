#ifndef COMMON_UTF8_H
#define COMMON_UTF8_H

/* Well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF). Safe
 * on any thread. */
#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* The length (1 to 4) of the character that the len bytes begin with, 0 when they begin with none.
 */
static inline size_t utf8_sequence_len(const char *data, size_t len)
{
	const uint8_t *s = (const uint8_t *)data;
	if (len == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	size_t n;
	uint8_t low = 0x80, high = 0xbf; /* what the second byte may be */
	if (s[0] >= 0xc2 && s[0] <= 0xdf) {
		n = 2;
	} else if (s[0] >= 0xe0 && s[0] <= 0xef) {
		n = 3;
		if (s[0] == 0xe0)
			low = 0xa0;
		else if (s[0] == 0xed)
			high = 0x9f;
	} else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		n = 4;
		if (s[0] == 0xf0)
			low = 0x90;
		else if (s[0] == 0xf4)
			high = 0x8f;
	} else {
		return 0;
	}
	if (len < n || s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return n;
}

/* Same, with the character's code point. */
static inline size_t utf8_decode(const char *data, size_t len, uint32_t *code_point)
{
	static const uint8_t first_bits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
	size_t n = utf8_sequence_len(data, len);
	if (n == 0)
		return 0;
	uint32_t c = (uint8_t)data[0] & first_bits[n];
	for (size_t i = 1; i < n; i++)
		c = c << 6 | ((uint8_t)data[i] & 0x3f);
	*code_point = c;
	return n;
}

/* Writes 1 to 4 bytes and returns how many. A surrogate is written like any other code point of
 * three bytes (which is WTF-8, not UTF-8): the caller decides. */
static inline size_t utf8_encode(uint32_t c, char out[4])
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

#endif
