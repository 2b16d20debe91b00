#ifndef COMMON_SLICE_H
#define COMMON_SLICE_H

/*
 * Bytes on their way out, lent by an owner who must hear when they were written. Whoever takes a
 * slice calls slice_release() exactly once: after the last byte was handed to the kernel, or when
 * the bytes are not wanted any more.
 */
#include <stddef.h>

struct slice {
	const void *data;
	size_t len_bytes;
	void (*release)(void *owner); /* NULL: nobody needs to hear (static bytes) */
	void *owner;
};

static inline void slice_release(struct slice *s)
{
	if (s->release)
		s->release(s->owner);
	*s = (struct slice){0};
}

/* A slice that owns malloc()ed memory: released by free(). */
struct slice slice_malloced(void *data, size_t len_bytes);
/* A slice over bytes that outlive everything (string constants). */
struct slice slice_static(const char *str);

#endif
