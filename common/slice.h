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

/* Bytes that several hold: the slice is released with the last reference. */
struct shared_slice {
	struct slice slice;
	unsigned refs; /* private */
};
/* Takes the slice over and returns the first reference; NULL when out of memory, and the slice is
 * released. */
struct shared_slice *shared_slice_new(struct slice slice);
struct shared_slice *shared_slice_ref(struct shared_slice *shared);
/* NULL is fine. Fits as the release function of a slice of a part. */
void shared_slice_unref(void *shared);

/* A slice over bytes that outlive everything (string constants). */
struct slice slice_static(const char *str);

#endif
