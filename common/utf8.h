#ifndef COMMON_UTF8_H
#define COMMON_UTF8_H

/* Well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF). */
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

#endif
