/* All blocks but a few go at once: see arena_keep_only() in arena.h. */
#include <stdlib.h>
#include <string.h>

#include "common/arena_private.h"
#include "common/log.h"

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* What lies between two blocks that stay. */
static uint32_t append_free(struct arena *a, uint32_t prev, uint32_t size)
{
	uint32_t id = arena_block_append(a, prev, size, BLOCK_FREE);
	struct block *b = block_at(a, id);
	b->dirty = b->start >= a->top ? 0 : size < a->top - b->start ? size : a->top - b->start;
	arena_poison(arena_at(a, (uint64_t)b->start * GRANULE), (uint64_t)b->dirty * GRANULE);
	arena_list_add(a, id);
	return id;
}

static uint32_t append_as_it_was(struct arena *a, uint32_t prev, const struct block *was)
{
	uint32_t id = arena_block_append(a, prev, was->size, (enum block_state)was->state);
	struct block *b = block_at(a, id);
	if (was->state == BLOCK_HOLE)
		return id;
	memcpy(b->owner, was->owner, sizeof b->owner);
	b->slack = was->slack;
	a->live_bytes += (uint64_t)b->size * GRANULE - b->slack;
	a->used_granules += b->size;
	a->allocations++;
	return id;
}

void arena_keep_only(struct arena *a, uint64_t *offsets, size_t n, struct arena_tables *tables)
{
	for (size_t i = 0; i < a->n_holes; i++)
		offsets[n++] = a->holes[i].offset;
	qsort(offsets, n, sizeof *offsets, compare);
	for (size_t i = 0; i < n; i++) {
		uint32_t id = arena_block_find(a, offsets[i] / GRANULE);
		BUG_ON(!id || block_at(a, id)->state == BLOCK_FREE);
		offsets[i] = id;
	}
	struct arena_tables old = a->tables;
	old.used_bytes = arena_tables_used(a);
	a->tables = *tables;
	*tables = old;
	arena_blocks_clear(a);
	uint32_t at = 0, end = granules_of(a->size_bytes), last = 0;
	for (size_t i = 0; i < n; i++) {
		const struct block *was = &old.records[offsets[i]];
		if (was->start > at)
			last = append_free(a, last, was->start - at);
		last = append_as_it_was(a, last, was);
		at = was->start + was->size;
	}
	if (at < end)
		append_free(a, last, end - at);
}
