#include "common/buf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/number_text.h"

void buf_init(struct buf *b, size_t max_len)
{
	*b = (struct buf)BUF_INIT(max_len);
}

void buf_free(struct buf *b)
{
	free(b->data);
	buf_init(b, b->max_len);
}

void buf_clear(struct buf *b)
{
	b->len = 0;
	b->failed = false;
}

void *buf_reserve(struct buf *b, size_t len_bytes)
{
	if (b->failed)
		return NULL;
	if (len_bytes > b->max_len - b->len) {
		b->failed = true;
		return NULL;
	}
	size_t need = b->len + len_bytes;
	if (need > b->capacity || !b->data) {
		size_t capacity = b->capacity ? b->capacity : 64;
		while (capacity < need)
			capacity = capacity > b->max_len / 2 ? b->max_len : capacity * 2;
		if (capacity < 64)
			capacity = 64;
		uint8_t *data = realloc(b->data, capacity);
		if (!data) {
			b->failed = true;
			return NULL;
		}
		b->data = data;
		b->capacity = capacity;
	}
	return b->data + b->len;
}

void buf_commit(struct buf *b, size_t len_bytes)
{
	BUG_ON(len_bytes > b->capacity - b->len);
	b->len += len_bytes;
}

int buf_append_slowly(struct buf *b, const void *data, size_t len_bytes)
{
	void *to = buf_reserve(b, len_bytes);
	if (!to)
		return -1;
	if (len_bytes)
		memcpy(to, data, len_bytes);
	b->len += len_bytes;
	return 0;
}

int buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
	if (b->failed)
		return -1;
	/* What is free already is enough for most texts: format there first. */
	size_t room = b->data ? b->capacity - b->len : 0;
	va_list again;
	va_copy(again, ap);
	int n = vsnprintf(room ? (char *)b->data + b->len : NULL, room, fmt, ap);
	if (n < 0 || (size_t)n > b->max_len - b->len) {
		b->failed = true;
		va_end(again);
		return -1;
	}
	if ((size_t)n >= room) {
		/* One byte more than the text, for vsnprintf's NUL: kept out of ceiling and len. */
		size_t max_len = b->max_len;
		b->max_len += max_len < SIZE_MAX;
		char *to = buf_reserve(b, (size_t)n + 1);
		b->max_len = max_len;
		if (to)
			vsnprintf(to, (size_t)n + 1, fmt, again);
	}
	va_end(again);
	if (b->failed)
		return -1;
	b->len += (size_t)n;
	return 0;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int rc = buf_vprintf(b, fmt, ap);
	va_end(ap);
	return rc;
}

int buf_append_double(struct buf *b, double number)
{
	if (isnan(number))
		return buf_append_str(b, "NaN");
	if (isinf(number))
		return buf_append_str(b, number > 0 ? "+Inf" : "-Inf");
	if (number == trunc(number) && fabs(number) < 1e15)
		return buf_printf(b, "%lld", (long long)number);
	char text[NUMBER_TEXT_BYTES];
	size_t len = number_text_write(number, text);
	/* Python writes whole numbers with ".0". */
	if (len > 2 && memcmp(text + len - 2, ".0", 2) == 0)
		len -= 2;
	return buf_append(b, text, len);
}

void buf_consume(struct buf *b, size_t len_bytes)
{
	BUG_ON(len_bytes > b->len);
	if (len_bytes > 0 && len_bytes < b->len)
		memmove(b->data, b->data + len_bytes, b->len - len_bytes);
	b->len -= len_bytes;
}

void *buf_take(struct buf *b, size_t *len_bytes)
{
	void *data = b->data;
	if (len_bytes)
		*len_bytes = b->len;
	buf_init(b, b->max_len);
	return data;
}
