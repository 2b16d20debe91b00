#ifndef COMMON_ARENA_PRIVATE_H
#define COMMON_ARENA_PRIVATE_H

/* What arena.c (the allocator), arena_gather.c (moving blocks), arena_keep.c (all but some goes)
 * and arena_trim.c (giving pages back) know of each other. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"

/*
 * Everything is counted in granules. A block is a run of them, live or free; two free blocks never
 * touch. Its record has a small id and lies in a table of our own:
 *
 * records: id -> where the block starts, how long it is, its neighbours in the arena (prev, next)
 * and, if free, in its list. Room for the most there can be, of which only what was used takes
 * memory.
 *
 * regions: page of the arena -> the first block that starts there: from an offset to its record in
 * at most a page's worth of steps, mostly none.
 *
 * lists: free blocks by size class: the power of two (first level), cut in 32 (second level);
 * bitmaps over both find the smallest class that surely fits in a few instructions.
 *
 * In every list the free blocks that may still hold pages stand before the clean ones: they are
 * used first, which saves page faults, and arena_trim() need not look past the first clean one.
 */
#define GRANULE       64
#define REGION        (4096 / GRANULE)
#define SECOND_LEVELS 32
#define SECOND_SHIFT  5
#define FIRST_LEVELS  28
/* Sizes in granules fit 32 bits with room for the sum of two. */
#define GRANULES_MAX (UINT32_C(1) << 31)

/* BLOCK_HOLE: free, and being given back: nobody gets it meanwhile. */
enum block_state { BLOCK_UNUSED, BLOCK_LIVE, BLOCK_FREE, BLOCK_HOLE };

/* Record 0 is nobody: the end of every list. */
struct block {
	uint32_t start, size;
	uint32_t prev, next; /* neighbours in the arena; next is also the list of unused records */
	union {
		struct {
			uint32_t list_prev, list_next; /* free */
		};
		uint32_t owner[2]; /* live: a pointer, in halves, so that a record stays 32 bytes */
	};
	uint32_t dirty; /* free: so much from its start on may hold pages; the rest holds none */
	uint8_t state;
	uint8_t slack; /* live: bytes of the last granule that were not asked for */
};

_Static_assert(sizeof(struct block) == ARENA_RECORD_BYTES, "see arena.h");

struct free_list {
	uint32_t head, tail;
};

/* One run of pages on its way back; the arena's holes are all taken and given back together. */
struct hole {
	uint64_t offset, len_bytes;
	bool punched;
};
#define MAX_HOLES_OUT ARENA_KEEP_ROOM

struct arena {
	int fd;
	uint8_t *base;
	uint64_t size_bytes;

	struct arena_tables tables;
	uint32_t unused; /* records to use again */
	uint32_t fresh;  /* the next record never used */

	uint32_t first_bits;
	uint32_t second_bits[FIRST_LEVELS];
	struct free_list lists[FIRST_LEVELS][SECOND_LEVELS];

	uint64_t live_bytes, used_granules, allocations, punched_bytes;
	uint32_t top; /* nothing behind it was ever handed out */

	struct hole holes[MAX_HOLES_OUT];
	size_t n_holes;
};

static inline struct block *block_at(const struct arena *a, uint32_t id)
{
	return &a->tables.records[id];
}

/* What the records take. */
static inline uint64_t arena_tables_used(const struct arena *a)
{
	return a->tables.n_regions * sizeof *a->tables.regions + a->fresh * sizeof(struct block);
}

/* AddressSanitizer sees use after release, as with malloc(). */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define arena_poison(data, len)   ASAN_POISON_MEMORY_REGION(data, len)
#define arena_unpoison(data, len) ASAN_UNPOISON_MEMORY_REGION(data, len)
#else
#define arena_poison(data, len)   ((void)(data), (void)(len))
#define arena_unpoison(data, len) ((void)(data), (void)(len))
#endif

static inline uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

static inline uint32_t granules_of(uint64_t len_bytes)
{
	return (uint32_t)(round_up(len_bytes, GRANULE) / GRANULE);
}

struct class
{
	unsigned first, second;
};

/* The class that holds blocks of this size. */
static inline struct class class_of(uint32_t size)
{
	if (size < SECOND_LEVELS)
		return (struct class){0, size};
	unsigned top = 31 - (unsigned)__builtin_clz(size);
	return (struct class){
		top - SECOND_SHIFT + 1, (size >> (top - SECOND_SHIFT)) & (SECOND_LEVELS - 1)};
}

/* In arena.c: */

/* Nothing is allocated and no block known; then blocks one behind the other, to the end. Of a live
 * one owner and slack are to be set. */
void arena_blocks_clear(struct arena *arena);
uint32_t arena_block_append(
	struct arena *arena, uint32_t prev, uint32_t size, enum block_state state);
/* What a free block that is in no list has behind `size`, as a free block of its own, which is in
 * no list either. 0 when there is no record for it. */
uint32_t arena_block_split(struct arena *arena, uint32_t id, uint32_t size);
/* The block is free from now on, and joins its neighbours. */
void arena_block_free(struct arena *arena, uint32_t id, uint32_t dirty);
/* Put a block in, and take it out of, the list of free ones of its class. */
void arena_list_add(struct arena *arena, uint32_t id);
void arena_list_remove(struct arena *arena, uint32_t id);
/* The block that starts at this granule; 0 when none does. */
uint32_t arena_block_find(const struct arena *arena, uint64_t start);

#endif
