#ifndef COMMON_SPAN_H
#define COMMON_SPAN_H

/* Borrowed bytes: a pointer and a length, never NUL-terminated, owned by whoever lent them. */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct span {
	const char *data;
	size_t len;
};

#define SPAN_LITERAL(s) ((struct span){(s), sizeof(s) - 1})
/* For printf("%.*s"). */
#define SPAN_ARG(s) (int)(s).len, (s).data

static inline struct span span_of(const char *str)
{
	return (struct span){str, str ? strlen(str) : 0};
}

static inline bool span_equal(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool span_equal_str(struct span a, const char *str)
{
	return span_equal(a, span_of(str));
}

/* ASCII case-insensitive, as HTTP field names compare. */
static inline bool span_equal_nocase(struct span a, const char *str)
{
	return a.len == strlen(str) && strncasecmp(a.data, str, a.len) == 0;
}

#endif
