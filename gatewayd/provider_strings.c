#include "gatewayd/provider_strings.h"

#include <stdlib.h>
#include <string.h>

#include "gatewayd/vector.h"

/* Shorter ones are left in the body: to move what follows them up would cost more than they do. */
#define LONG_BYTES 1024

void provider_strings_init(struct provider_strings *strings, size_t max)
{
	*strings = (struct provider_strings){.max = max};
}

static bool make_room(struct provider_strings *strings)
{
	if (strings->n < strings->capacity)
		return true;
	size_t capacity = strings->capacity ? strings->capacity * 2 : 64;
	if (capacity > strings->max)
		capacity = strings->max;
	struct provider_string *list = strings->n < capacity
					       ? realloc(strings->list, capacity * sizeof *list)
					       : NULL;
	if (!list)
		return false;
	strings->list = list;
	strings->capacity = capacity;
	return true;
}

/* The string's closing quote is at `end`: what lies between goes, if it is a vector. */
static void close_string(struct provider_strings *strings, struct buf *body, size_t end)
{
	size_t begin = strings->begin;
	struct span text = {(char *)body->data + begin, end - begin};
	strings->in_string = false;
	strings->scanned = end + 1;
	if (!strings->plain || text.len < LONG_BYTES || !make_room(strings))
		return;
	struct provider_string string = {.at = begin - 1};
	string.values = vector_base64_floats(text, &string.dims);
	if (!string.values)
		return;
	strings->list[strings->n++] = string;
	memmove(body->data + begin, body->data + end, body->len - end);
	body->len -= text.len;
	strings->scanned = begin + 1;
}

void provider_strings_read(struct provider_strings *strings, struct buf *body)
{
	while (strings->scanned < body->len) {
		const uint8_t *from = body->data + strings->scanned;
		size_t len = body->len - strings->scanned;
		if (strings->escaped) {
			strings->escaped = false;
			strings->scanned++;
			continue;
		}
		const uint8_t *quote = memchr(from, '"', len);
		if (quote)
			len = (size_t)(quote - from);
		const uint8_t *escape = strings->in_string ? memchr(from, '\\', len) : NULL;
		if (escape) {
			strings->plain = false;
			strings->escaped = true;
			strings->scanned += (size_t)(escape - from) + 1;
		} else if (!quote) {
			strings->scanned = body->len;
		} else if (strings->in_string) {
			close_string(strings, body, strings->scanned + len);
		} else {
			strings->scanned += len + 1;
			strings->begin = strings->scanned;
			strings->in_string = strings->plain = true;
		}
	}
}

float *provider_strings_take(struct provider_strings *strings, size_t at, uint32_t *dims)
{
	size_t low = 0, high = strings->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (strings->list[middle].at < at)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == strings->n || strings->list[low].at != at)
		return NULL;
	float *values = strings->list[low].values;
	strings->list[low].values = NULL;
	*dims = strings->list[low].dims;
	return values;
}

void provider_strings_free(struct provider_strings *strings)
{
	for (size_t i = 0; i < strings->n; i++)
		free(strings->list[i].values);
	free(strings->list);
	*strings = (struct provider_strings){0};
}
