#include "common/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/arena_private.h"
#include "common/log.h"

/*
 * How many blocks of the request's own class are tried: before a larger class is cut up, and when
 * no larger class has any. Bodies are often all of one length, which a block just freed fits
 * exactly.
 */
#define SAME_CLASS_FIRST_STEPS 4
#define SAME_CLASS_STEPS       64

/* Pages that are got before they are needed; and the most at a time: others want the loop too. */
#define POPULATE_AHEAD_BYTES (64u << 10)
#define POPULATE_MOST_BYTES  (64u << 10)
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* The smallest class of which every block is at least this large. */
static struct class class_for(uint32_t size)
{
	if (size < SECOND_LEVELS)
		return class_of(size);
	unsigned top = 31 - (unsigned)__builtin_clz(size);
	return class_of(size + (1u << (top - SECOND_SHIFT)) - 1);
}

/* --- records --- */

/* 0 when there is no memory for another one. */
static uint32_t record_new(struct arena *a)
{
	uint32_t id = a->unused;
	if (id) {
		a->unused = block_at(a, id)->next;
		return id;
	}
	return a->fresh < a->tables.records_bytes / sizeof(struct block) ? a->fresh++ : 0;
}

static void record_drop(struct arena *a, uint32_t id)
{
	struct block *b = block_at(a, id);
	b->state = BLOCK_UNUSED;
	b->next = a->unused;
	a->unused = id;
}

/* --- regions --- */

static void region_add(struct arena *a, uint32_t id)
{
	uint32_t start = block_at(a, id)->start;
	uint32_t *first = &a->tables.regions[start / REGION];
	if (!*first || block_at(a, *first)->start > start)
		*first = id;
}

static void region_remove(struct arena *a, uint32_t id)
{
	const struct block *b = block_at(a, id);
	uint32_t *first = &a->tables.regions[b->start / REGION];
	if (*first != id)
		return;
	bool same = b->next && block_at(a, b->next)->start / REGION == b->start / REGION;
	*first = same ? b->next : 0;
}

uint32_t arena_block_find(const struct arena *a, uint64_t start)
{
	if (start / REGION >= a->tables.n_regions)
		return 0;
	uint32_t id = a->tables.regions[start / REGION];
	while (id && block_at(a, id)->start < start)
		id = block_at(a, id)->next;
	return id && block_at(a, id)->start == start ? id : 0;
}

/* --- lists of free blocks --- */

void arena_list_add(struct arena *a, uint32_t id)
{
	struct block *b = block_at(a, id);
	struct class c = class_of(b->size);
	struct free_list *list = &a->lists[c.first][c.second];
	b->state = BLOCK_FREE;
	if (b->dirty) {
		b->list_prev = 0;
		b->list_next = list->head;
	} else {
		b->list_prev = list->tail;
		b->list_next = 0;
	}
	*(b->list_prev ? &block_at(a, b->list_prev)->list_next : &list->head) = id;
	*(b->list_next ? &block_at(a, b->list_next)->list_prev : &list->tail) = id;
	a->first_bits |= 1u << c.first;
	a->second_bits[c.first] |= 1u << c.second;
}

void arena_list_remove(struct arena *a, uint32_t id)
{
	struct block *b = block_at(a, id);
	struct class c = class_of(b->size);
	struct free_list *list = &a->lists[c.first][c.second];
	*(b->list_prev ? &block_at(a, b->list_prev)->list_next : &list->head) = b->list_next;
	*(b->list_next ? &block_at(a, b->list_next)->list_prev : &list->tail) = b->list_prev;
	if (list->head)
		return;
	a->second_bits[c.first] &= ~(1u << c.second);
	if (!a->second_bits[c.first])
		a->first_bits &= ~(1u << c.first);
}

/* A block of the request's own class that fits: the class holds smaller ones too. */
static uint32_t find_same_class(const struct arena *a, uint32_t size, int steps)
{
	struct class c = class_of(size);
	uint32_t id = a->lists[c.first][c.second].head;
	for (int i = 0; id && i < steps; i++) {
		if (block_at(a, id)->size >= size)
			return id;
		id = block_at(a, id)->list_next;
	}
	return 0;
}

/* Some block of the smallest class that surely fits. */
static uint32_t find_larger(const struct arena *a, uint32_t size)
{
	struct class c = class_for(size);
	if (c.first >= FIRST_LEVELS)
		return 0;
	unsigned first = c.first;
	uint32_t second = a->second_bits[first] & (~0u << c.second);
	if (!second) {
		uint32_t above = a->first_bits & (~0u << first) & ~(1u << first);
		if (!above)
			return 0;
		first = (unsigned)__builtin_ctz(above);
		second = a->second_bits[first];
	}
	return a->lists[first][__builtin_ctz(second)].head;
}

static uint32_t find_free(const struct arena *a, uint32_t size)
{
	uint32_t id = find_same_class(a, size, SAME_CLASS_FIRST_STEPS);
	if (!id)
		id = find_larger(a, size);
	return id ? id : find_same_class(a, size, SAME_CLASS_STEPS);
}

/* --- blocks --- */

uint32_t arena_block_split(struct arena *a, uint32_t id, uint32_t size)
{
	uint32_t rest = record_new(a);
	if (!rest)
		return 0;
	struct block *b = block_at(a, id), *r = block_at(a, rest);
	*r = (struct block){
		.start = b->start + size,
		.size = b->size - size,
		.prev = id,
		.next = b->next,
		.dirty = b->dirty > size ? b->dirty - size : 0,
		.state = BLOCK_FREE,
	};
	if (r->next)
		block_at(a, r->next)->prev = rest;
	b->next = rest;
	b->size = size;
	if (b->dirty > size)
		b->dirty = size;
	region_add(a, rest);
	return rest;
}

/* The block after id becomes part of it. Neither is in a list; both have `dirty` set. */
static void swallow_next(struct arena *a, uint32_t id)
{
	struct block *b = block_at(a, id);
	uint32_t gone = b->next;
	struct block *g = block_at(a, gone);
	region_remove(a, gone);
	if (g->dirty)
		b->dirty = b->size + g->dirty;
	b->size += g->size;
	b->next = g->next;
	if (b->next)
		block_at(a, b->next)->prev = id;
	record_drop(a, gone);
}

static bool is_free(const struct arena *a, uint32_t id)
{
	return id && block_at(a, id)->state == BLOCK_FREE;
}

/*
 * A block about to be used from its start on, and beyond the pages it holds: get the next ones as
 * well, with one call. It takes two thirds of the time of faults one by one. What does not work
 * (Linux before 5.14, no memory) is left to the faults.
 */
static void populate(struct arena *a, struct block *b, uint32_t size)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t start = (uint64_t)b->start * GRANULE;
	uint64_t from = round_up(start + (uint64_t)b->dirty * GRANULE, page);
	uint64_t to = start + (uint64_t)size * GRANULE;
	uint64_t end = (start + (uint64_t)b->size * GRANULE) / page * page;
	if (to <= from || to - from > POPULATE_MOST_BYTES)
		return;
	to = round_up(to, page) + POPULATE_AHEAD_BYTES;
	if (to > end)
		to = end;
	if (to > from && madvise(a->base + from, to - from, MADV_POPULATE_WRITE) == 0)
		b->dirty = (uint32_t)((to - start) / GRANULE);
}

uint64_t arena_alloc(struct arena *a, uint64_t len_bytes)
{
	BUG_ON(len_bytes == 0);
	if (len_bytes > a->size_bytes)
		return ARENA_NONE;
	uint32_t size = granules_of(len_bytes);
	uint32_t id = find_free(a, size);
	if (!id)
		return ARENA_NONE;
	arena_list_remove(a, id);
	if (block_at(a, id)->dirty < size)
		populate(a, block_at(a, id), size);
	if (block_at(a, id)->size > size) {
		uint32_t rest = arena_block_split(a, id, size);
		arena_list_add(a, rest ? rest : id);
		if (!rest)
			return ARENA_NONE;
	}
	struct block *b = block_at(a, id);
	b->state = BLOCK_LIVE;
	b->owner[0] = b->owner[1] = 0;
	b->slack = (uint8_t)((uint64_t)size * GRANULE - len_bytes);
	a->live_bytes += len_bytes;
	a->used_granules += size;
	a->allocations++;
	if (b->start + size > a->top)
		a->top = b->start + size;
	arena_unpoison(arena_at(a, (uint64_t)b->start * GRANULE), len_bytes);
	return (uint64_t)b->start * GRANULE;
}

void arena_block_free(struct arena *a, uint32_t id, uint32_t dirty)
{
	struct block *b = block_at(a, id);
	b->dirty = dirty;
	if (is_free(a, b->next)) {
		arena_list_remove(a, b->next);
		swallow_next(a, id);
	}
	if (is_free(a, b->prev)) {
		id = b->prev;
		arena_list_remove(a, id);
		swallow_next(a, id);
	}
	arena_list_add(a, id);
}

void arena_release(struct arena *a, uint64_t offset)
{
	uint32_t id = offset % GRANULE == 0 ? arena_block_find(a, offset / GRANULE) : 0;
	BUG_ON(!id || block_at(a, id)->state != BLOCK_LIVE);
	struct block *b = block_at(a, id);
	a->live_bytes -= (uint64_t)b->size * GRANULE - b->slack;
	a->used_granules -= b->size;
	a->allocations--;
	arena_poison(arena_at(a, offset), (uint64_t)b->size * GRANULE);
	arena_block_free(a, id, b->size);
}

void arena_blocks_clear(struct arena *a)
{
	a->unused = 0;
	a->fresh = 1;
	a->first_bits = 0;
	memset(a->second_bits, 0, sizeof a->second_bits);
	memset(a->lists, 0, sizeof a->lists);
	a->live_bytes = a->used_granules = a->allocations = 0;
}

uint32_t arena_block_append(struct arena *a, uint32_t prev, uint32_t size, enum block_state state)
{
	uint32_t id = record_new(a);
	BUG_ON(!id);
	struct block *b = block_at(a, id);
	*b = (struct block){.size = size, .prev = prev, .state = (uint8_t)state};
	if (prev) {
		b->start = block_at(a, prev)->start + block_at(a, prev)->size;
		block_at(a, prev)->next = id;
	}
	region_add(a, id);
	return id;
}

void *arena_at(const struct arena *a, uint64_t offset)
{
	return a->base + offset;
}

uint64_t arena_rounded(uint64_t len_bytes)
{
	return round_up(len_bytes, GRANULE);
}

/* --- life --- */

/* The file: sealed, and read-only to whoever opens it again; our mapping stays writable. */
static int make_file(struct arena *a)
{
	a->fd = memfd_create("arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (a->fd < 0)
		return -1;
	if (ftruncate(a->fd, (off_t)a->size_bytes) != 0)
		goto fail;
	a->base = mmap(NULL, a->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0);
	if (a->base == MAP_FAILED)
		goto fail;
	if (fchmod(a->fd, 0400) == 0 &&
		fcntl(a->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		return 0;
	int error = errno;
	munmap(a->base, a->size_bytes);
	errno = error;
fail:
	error = errno;
	close(a->fd);
	errno = error;
	return -1;
}

int arena_tables_new(const struct arena *a, struct arena_tables *tables)
{
	uint32_t granules = granules_of(a->size_bytes);
	/* One record a granule at worst, record 0, and one to spare while splitting. */
	*tables = (struct arena_tables){
		.records_bytes = ((uint64_t)granules + 2) * sizeof(struct block),
		.n_regions = granules / REGION,
	};
	tables->regions = calloc(tables->n_regions, sizeof *tables->regions);
	if (!tables->regions)
		return -1;
	void *records = mmap(NULL, tables->records_bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (records == MAP_FAILED) {
		free(tables->regions);
		return -1;
	}
	tables->records = records;
	return 0;
}

void arena_tables_free(struct arena_tables *tables)
{
	if (tables->records)
		munmap(tables->records, tables->records_bytes);
	free(tables->regions);
	*tables = (struct arena_tables){0};
}

struct arena *arena_new(uint64_t size_bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	if (size_bytes == 0 || size_bytes > (uint64_t)GRANULES_MAX * GRANULE - page) {
		errno = EINVAL;
		return NULL;
	}
	struct arena *a = calloc(1, sizeof *a);
	if (!a)
		return NULL;
	a->size_bytes = round_up(size_bytes, page);
	if (arena_tables_new(a, &a->tables) != 0)
		goto fail_arena;
	arena_blocks_clear(a);
	arena_list_add(a, arena_block_append(a, 0, granules_of(a->size_bytes), BLOCK_FREE));
	if (make_file(a) != 0)
		goto fail_tables;
	return a;

fail_tables:
	arena_tables_free(&a->tables);
fail_arena:
	free(a);
	return NULL;
}

struct arena_stats arena_stats(const struct arena *a)
{
	uint64_t largest = 0;
	if (a->first_bits) {
		unsigned first = 31 - (unsigned)__builtin_clz(a->first_bits);
		unsigned second = 31 - (unsigned)__builtin_clz(a->second_bits[first]);
		largest = block_at(a, a->lists[first][second].head)->size;
	}
	return (struct arena_stats){
		.size_bytes = a->size_bytes,
		.live_bytes = a->live_bytes,
		.used_bytes = a->used_granules * GRANULE,
		.index_bytes = sizeof *a + arena_tables_used(a),
		.largest_free_bytes = largest * GRANULE,
		.allocations = a->allocations,
		.punched_bytes = a->punched_bytes,
	};
}

uint64_t arena_total_bytes(const struct arena *a)
{
	return a->used_granules * GRANULE + sizeof *a + arena_tables_used(a);
}

int arena_open_reader(const struct arena *a)
{
	char path[32];
	snprintf(path, sizeof path, "/proc/self/fd/%d", a->fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

void arena_free(struct arena **arena)
{
	struct arena *a = *arena;
	if (!a)
		return;
	*arena = NULL;
	arena_unpoison(a->base, a->size_bytes);
	munmap(a->base, a->size_bytes);
	close(a->fd);
	arena_tables_free(&a->tables);
	free(a);
}
