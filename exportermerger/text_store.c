#include "exportermerger/text_store.h"

#include <stdlib.h>

#include "common/digest.h"

#define CHUNK_BYTES 2048

struct chunk {
	struct chunk *next;
	size_t used, size;
	char data[];
};
struct text_store {
	struct chunk *chunks;
};

struct text_store *text_store_new(void)
{
	return calloc(1, sizeof(struct text_store));
}

void text_store_free(struct text_store **store)
{
	if (!*store)
		return;
	for (struct chunk *chunk = (*store)->chunks, *next; chunk; chunk = next) {
		next = chunk->next;
		free(chunk);
	}
	free(*store);
	*store = NULL;
}

static void put(char **to, struct span text)
{
	if (text.len)
		memcpy(*to, text.data, text.len);
	*to += text.len;
}

struct span text_store_join(struct text_store *store, struct span a, struct span b, struct span c)
{
	size_t len = a.len + b.len + c.len;
	struct chunk *chunk = store->chunks;
	if (!chunk || chunk->size - chunk->used < len + 1) {
		size_t size = len + 1 > CHUNK_BYTES ? len + 1 : CHUNK_BYTES;
		chunk = malloc(sizeof *chunk + size);
		if (!chunk)
			return (struct span){0};
		*chunk = (struct chunk){.size = size};
		/* A text that fills a chunk of its own does not close the one with room. */
		if (store->chunks && size > CHUNK_BYTES) {
			chunk->next = store->chunks->next;
			store->chunks->next = chunk;
		} else {
			chunk->next = store->chunks;
			store->chunks = chunk;
		}
	}
	char *start = chunk->data + chunk->used, *to = start;
	put(&to, a);
	put(&to, b);
	put(&to, c);
	chunk->used += len + (len == 0);
	return (struct span){start, len};
}

int text_table_init(struct text_table *table)
{
	*table = (struct text_table){.size = 64};
	digest_random(&table->seed, sizeof table->seed);
	table->slots = calloc(table->size, sizeof *table->slots);
	return table->slots ? 0 : -1;
}

void text_table_clear(struct text_table *table)
{
	if (table->used)
		memset(table->slots, 0, table->size * sizeof *table->slots);
	table->used = 0;
}

void text_table_free(struct text_table *table)
{
	free(table->slots);
	*table = (struct text_table){0};
}

/* FNV-1a from a random start, mixed at the end. */
static struct text_table_slot *find_slot(const struct text_table *table, struct span key)
{
	uint64_t hash = table->seed;
	for (size_t i = 0; i < key.len; i++)
		hash = (hash ^ (uint8_t)key.data[i]) * UINT64_C(0x100000001b3);
	hash ^= hash >> 32;
	hash *= UINT64_C(0x9e3779b97f4a7c15);
	for (size_t i = (size_t)(hash >> 32) & (table->size - 1);;
		i = (i + 1) & (table->size - 1)) {
		struct text_table_slot *slot = &table->slots[i];
		if (!slot->key.data || span_equal(slot->key, key))
			return slot;
	}
}

uint32_t text_table_find(const struct text_table *table, struct span key)
{
	const struct text_table_slot *slot = find_slot(table, key);
	return slot->key.data ? slot->value : TEXT_TABLE_NONE;
}

static int grow(struct text_table *table)
{
	struct text_table larger = {
		.size = table->size * 2, .used = table->used, .seed = table->seed};
	larger.slots = calloc(larger.size, sizeof *larger.slots);
	if (!larger.slots)
		return -1;
	for (size_t i = 0; i < table->size; i++)
		if (table->slots[i].key.data)
			*find_slot(&larger, table->slots[i].key) = table->slots[i];
	free(table->slots);
	*table = larger;
	return 0;
}

int text_table_add(struct text_table *table, struct span key, uint32_t value)
{
	if (table->used * 4 >= table->size * 3 && grow(table) < 0)
		return -1;
	*find_slot(table, key) = (struct text_table_slot){key, value};
	table->used++;
	return 0;
}
