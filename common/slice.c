#include "common/slice.h"

#include <stdlib.h>
#include <string.h>

struct slice slice_malloced(void *data, size_t len_bytes)
{
	return (struct slice){.data = data, .len_bytes = len_bytes, .release = free, .owner = data};
}

struct shared_slice *shared_slice_new(struct slice slice)
{
	struct shared_slice *shared = malloc(sizeof *shared);
	if (!shared) {
		slice_release(&slice);
		return NULL;
	}
	*shared = (struct shared_slice){.slice = slice, .refs = 1};
	return shared;
}

struct shared_slice *shared_slice_ref(struct shared_slice *shared)
{
	shared->refs++;
	return shared;
}

void shared_slice_unref(void *shared)
{
	struct shared_slice *s = shared;
	if (!s || --s->refs > 0)
		return;
	slice_release(&s->slice);
	free(s);
}

struct slice slice_static(const char *str)
{
	return (struct slice){.data = str, .len_bytes = strlen(str)};
}
