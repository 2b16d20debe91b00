#include "gatewayd/provider_vectors.h"

#include <stdlib.h>
#include <string.h>

#include "gatewayd/vector.h"

/* Shorter ones are left in the body: to move what follows them up would cost more than they do. */
#define LONG_BYTES 1024
/* Longer arrays are left to the parser, which has a worker to itself: hostile digits take half a
 * microsecond a number, and here is the loop. Room for 10,000 numbers with all their digits. */
#define ARRAY_BYTES  (256u << 10)
#define WINDOW_BYTES 256

void provider_vectors_init(struct provider_vectors *vectors, size_t max)
{
	*vectors = (struct provider_vectors){.max = max};
}

static bool make_room(struct provider_vectors *vectors)
{
	if (vectors->n < vectors->capacity)
		return true;
	size_t capacity = vectors->capacity ? vectors->capacity * 2 : 64;
	if (capacity > vectors->max)
		capacity = vectors->max;
	struct provider_vector *list = vectors->n < capacity
					       ? realloc(vectors->list, capacity * sizeof *list)
					       : NULL;
	if (!list)
		return false;
	vectors->list = list;
	vectors->capacity = capacity;
	return true;
}

/* The closing character is at `end`: what lies before it goes, if it is a vector. */
static void close_vector(struct provider_vectors *vectors, struct buf *body, size_t end)
{
	size_t begin = vectors->begin, len = end - begin;
	const char *text = (const char *)body->data + begin;
	bool array = vectors->inside == PROVIDER_VECTORS_IN_ARRAY;
	vectors->inside = PROVIDER_VECTORS_BETWEEN;
	if (!vectors->plain || len < LONG_BYTES || (array && len > ARRAY_BYTES) ||
		!make_room(vectors))
		return;
	struct provider_vector vector = {.at = begin - 1};
	vector.values = array ? vector_text_floats((struct span){text - 1, len + 2}, &vector.dims)
			      : vector_base64_floats((struct span){text, len}, &vector.dims);
	if (!vector.values)
		return;
	vectors->list[vectors->n++] = vector;
	memmove(body->data + begin, body->data + end, body->len - end);
	body->len -= len;
	vectors->scanned = begin + 1;
}

static void open_vector(struct provider_vectors *vectors, enum provider_vectors_inside inside)
{
	vectors->inside = inside;
	vectors->begin = vectors->scanned;
	vectors->plain = true;
}

/* The first of these characters, or NULL. A window at a time: where many of one stand close
 * together, the others are not looked for up to the end again and again. */
static const uint8_t *find_one_of(const uint8_t *from, size_t len, const char *characters)
{
	while (len) {
		size_t window = len < WINDOW_BYTES ? len : WINDOW_BYTES, before = window;
		for (const char *c = characters; *c; c++) {
			const uint8_t *found = memchr(from, *c, before);
			before = found ? (size_t)(found - from) : before;
		}
		if (before < window)
			return from + before;
		from += window;
		len -= window;
	}
	return NULL;
}

void provider_vectors_read(struct provider_vectors *vectors, struct buf *body)
{
	static const char *const stops[] = {
		[PROVIDER_VECTORS_BETWEEN] = "\"[",
		[PROVIDER_VECTORS_IN_STRING] = "\"\\",
		[PROVIDER_VECTORS_IN_ARRAY] = "][\"", /* the innermost one counts */
	};
	while (vectors->scanned < body->len) {
		if (vectors->escaped) {
			vectors->escaped = false;
			vectors->scanned++;
			continue;
		}
		const uint8_t *at = find_one_of(body->data + vectors->scanned,
			body->len - vectors->scanned, stops[vectors->inside]);
		if (!at) {
			vectors->scanned = body->len;
			return;
		}
		size_t place = (size_t)(at - body->data);
		vectors->scanned = place + 1;
		if (*at == '\\') {
			vectors->plain = false;
			vectors->escaped = true;
		} else if (*at == '[') {
			open_vector(vectors, PROVIDER_VECTORS_IN_ARRAY);
		} else if (*at == ']' || vectors->inside == PROVIDER_VECTORS_IN_STRING) {
			close_vector(vectors, body, place);
		} else {
			open_vector(vectors, PROVIDER_VECTORS_IN_STRING);
		}
	}
}

float *provider_vectors_take(struct provider_vectors *vectors, size_t at, uint32_t *dims)
{
	size_t low = 0, high = vectors->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (vectors->list[middle].at < at)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == vectors->n || vectors->list[low].at != at)
		return NULL;
	float *values = vectors->list[low].values;
	vectors->list[low].values = NULL;
	*dims = vectors->list[low].dims;
	return values;
}

void provider_vectors_free(struct provider_vectors *vectors)
{
	for (size_t i = 0; i < vectors->n; i++)
		free(vectors->list[i].values);
	free(vectors->list);
	*vectors = (struct provider_vectors){0};
}
