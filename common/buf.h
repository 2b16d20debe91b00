#ifndef COMMON_BUF_H
#define COMMON_BUF_H

/*
 * A growable run of bytes with a ceiling that is stated when it is made. It owns its memory. A
 * failed append (ceiling reached, or no memory) leaves the content as it was and makes the buffer
 * sticky-failed: a writer appends a whole message and asks once, buf_failed(), at the end.
 *
 * Safe on any thread, one at a time.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf {
	uint8_t *data; /* len bytes; NULL while nothing was appended */
	size_t len;
	size_t capacity;
	size_t max_len; /* the ceiling */
	bool failed;
};

#define BUF_INIT(max)            \
	{                        \
		.max_len = (max) \
	}

/* Start empty with a ceiling of max_len bytes. Allocates nothing. */
void buf_init(struct buf *b, size_t max_len);
/* Give the memory back; the buffer is empty and usable again, with the same ceiling. */
void buf_free(struct buf *b);
/* Forget content and failure, keep the memory. */
void buf_clear(struct buf *b);

/* For the appenders below: when there is no room yet. */
int buf_append_slowly(struct buf *b, const void *data, size_t len_bytes);

/* Appenders: 0, or -1 with the buffer unchanged and failed. */
static inline int buf_append(struct buf *b, const void *data, size_t len_bytes)
{
	/* In line, since most appends are a few bytes into room that is there. The capacity may be
	 * beyond the ceiling, and a failed buffer has room too. */
	if (len_bytes == 0 || b->failed || len_bytes > b->max_len - b->len ||
		len_bytes > b->capacity - b->len)
		return buf_append_slowly(b, data, len_bytes);
	memcpy(b->data + b->len, data, len_bytes);
	b->len += len_bytes;
	return 0;
}

static inline int buf_append_str(struct buf *b, const char *str)
{
	return buf_append(b, str, strlen(str));
}

static inline int buf_append_char(struct buf *b, char c)
{
	return buf_append(b, &c, 1);
}

int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int buf_vprintf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
/* The shortest text that reads back as the same double (-0.0 is "0"); "NaN", "+Inf", "-Inf". Whole
 * numbers have no ".0". */
int buf_append_double(struct buf *b, double number);

/* Make room for len_bytes more and return where they go (NULL on failure); then buf_commit() what
 * was used. */
void *buf_reserve(struct buf *b, size_t len_bytes);
void buf_commit(struct buf *b, size_t len_bytes);

/* Drop len_bytes (at most len) from the front; the rest moves down. */
void buf_consume(struct buf *b, size_t len_bytes);

/* Move the memory out: the caller frees it with free(). The buffer is empty afterwards. */
void *buf_take(struct buf *b, size_t *len_bytes);

static inline bool buf_failed(const struct buf *b)
{
	return b->failed;
}

#endif
