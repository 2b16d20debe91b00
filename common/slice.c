#include "common/slice.h"

#include <stdlib.h>
#include <string.h>

struct slice slice_malloced(void *data, size_t len_bytes)
{
	return (struct slice){.data = data, .len_bytes = len_bytes, .release = free, .owner = data};
}

struct slice slice_static(const char *str)
{
	return (struct slice){.data = str, .len_bytes = strlen(str)};
}
