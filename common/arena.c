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

/* Trimming smaller holes costs more in system calls and page faults than it gives back. */
#define TRIM_MIN_BYTES (64u << 10)

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
	if (a->fresh >> CHUNK_SHIFT == a->n_chunks) {
		if (a->n_chunks == a->chunks_max)
			return 0;
		struct block *chunk = malloc(CHUNK_RECORDS * sizeof *chunk);
		if (!chunk)
			return 0;
		a->chunks[a->n_chunks++] = chunk;
	}
	return a->fresh++;
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
	uint32_t *first = &a->regions[start / REGION];
	if (!*first || block_at(a, *first)->start > start)
		*first = id;
}

static void region_remove(struct arena *a, uint32_t id)
{
	const struct block *b = block_at(a, id);
	uint32_t *first = &a->regions[b->start / REGION];
	if (*first != id)
		return;
	bool same = b->next && block_at(a, b->next)->start / REGION == b->start / REGION;
	*first = same ? b->next : 0;
}

uint32_t arena_block_find(const struct arena *a, uint64_t start)
{
	if (start / REGION >= a->n_regions)
		return 0;
	uint32_t id = a->regions[start / REGION];
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

/* Let `rest` be the part of block id, which is in no list, from `size` on: a free block. */
static void split(struct arena *a, uint32_t id, uint32_t size, uint32_t rest)
{
	struct block *b = block_at(a, id), *r = block_at(a, rest);
	*r = (struct block){
		.start = b->start + size,
		.size = b->size - size,
		.prev = id,
		.next = b->next,
		.dirty = b->dirty > size ? b->dirty - size : 0,
	};
	if (r->next)
		block_at(a, r->next)->prev = rest;
	b->next = rest;
	b->size = size;
	region_add(a, rest);
	arena_list_add(a, rest);
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

uint64_t arena_alloc(struct arena *a, uint64_t len_bytes)
{
	BUG_ON(len_bytes == 0);
	if (len_bytes > a->size_bytes)
		return ARENA_NONE;
	uint32_t size = granules_of(len_bytes);
	uint32_t id = find_free(a, size);
	if (!id)
		return ARENA_NONE;
	uint32_t rest = 0;
	if (block_at(a, id)->size > size) {
		rest = record_new(a);
		if (!rest)
			return ARENA_NONE;
	}
	arena_list_remove(a, id);
	if (rest)
		split(a, id, size, rest);
	struct block *b = block_at(a, id);
	b->state = BLOCK_LIVE;
	b->owner[0] = b->owner[1] = 0;
	b->slack = (uint8_t)((uint64_t)size * GRANULE - len_bytes);
	a->live_bytes += len_bytes;
	a->used_granules += size;
	a->allocations++;
	return (uint64_t)b->start * GRANULE;
}

void arena_release(struct arena *a, uint64_t offset)
{
	uint32_t id = offset % GRANULE == 0 ? arena_block_find(a, offset / GRANULE) : 0;
	BUG_ON(!id || block_at(a, id)->state != BLOCK_LIVE);
	struct block *b = block_at(a, id);
	a->live_bytes -= (uint64_t)b->size * GRANULE - b->slack;
	a->used_granules -= b->size;
	a->allocations--;
	b->dirty = b->size;
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

void *arena_at(const struct arena *a, uint64_t offset)
{
	return a->base + offset;
}

uint64_t arena_rounded(uint64_t len_bytes)
{
	return round_up(len_bytes, GRANULE);
}

/* --- giving pages back --- */

/* Give back at most about max_bytes from the end of the dirty part, which shrinks. -1 on failure.
 */
static int64_t punch(struct arena *a, struct block *b, uint64_t max_bytes, uint64_t page)
{
	uint64_t start = (uint64_t)b->start * GRANULE, end = start + (uint64_t)b->size * GRANULE;
	uint64_t from = round_up(start, page);
	uint64_t to = round_up(start + (uint64_t)b->dirty * GRANULE, page);
	if (to > end / page * page)
		to = end / page * page;
	if (to <= from) {
		b->dirty = 0;
		return 0;
	}
	bool all = to - from <= max_bytes;
	if (!all)
		from = (to - max_bytes) / page * page;
	if (fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
		    (off_t)(to - from)) != 0)
		return -1;
	b->dirty = all ? 0 : (uint32_t)((from - start) / GRANULE);
	a->punched_bytes += to - from;
	return (int64_t)(to - from);
}

/* Trim the blocks of one list. False when the budget is used up or the kernel refuses. */
static bool trim_list(
	struct arena *a, const struct free_list *list, uint64_t *budget_bytes, uint64_t page)
{
	uint32_t id;
	while ((id = list->head) && block_at(a, id)->dirty) {
		int64_t got = *budget_bytes ? punch(a, block_at(a, id), *budget_bytes, page) : -1;
		if (got < 0)
			return false;
		if (!block_at(a, id)->dirty) {
			arena_list_remove(a, id);
			arena_list_add(a, id);
		}
		/* A system call costs as much as a few pages. */
		uint64_t spent = (uint64_t)got > TRIM_MIN_BYTES ? (uint64_t)got : TRIM_MIN_BYTES;
		*budget_bytes -= spent < *budget_bytes ? spent : *budget_bytes;
	}
	return true;
}

uint64_t arena_trim(struct arena *a, uint64_t max_bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t before = a->punched_bytes, budget = max_bytes;
	struct class least = class_of(TRIM_MIN_BYTES / GRANULE);
	for (unsigned first = FIRST_LEVELS; first-- > least.first;) {
		for (unsigned second = SECOND_LEVELS; second-- > 0;) {
			if (!trim_list(a, &a->lists[first][second], &budget, page))
				return a->punched_bytes - before;
		}
	}
	return a->punched_bytes - before;
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
	uint32_t granules = granules_of(a->size_bytes);
	a->n_regions = granules / REGION;
	/* One record a granule at worst, record 0, and one to spare while splitting. */
	a->chunks_max = (granules + 2) / CHUNK_RECORDS + 1;
	a->fresh = 1;
	a->regions = calloc(a->n_regions, sizeof *a->regions);
	a->chunks = calloc(a->chunks_max, sizeof *a->chunks);
	if (!a->regions || !a->chunks)
		goto fail;
	uint32_t id = record_new(a);
	if (!id)
		goto fail;
	*block_at(a, id) = (struct block){.size = granules};
	region_add(a, id);
	arena_list_add(a, id);
	if (make_file(a) != 0)
		goto fail;
	return a;

fail:
	if (a->n_chunks)
		free(a->chunks[0]);
	free(a->chunks);
	free(a->regions);
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
		.index_bytes = sizeof *a + a->n_regions * sizeof *a->regions +
			       a->chunks_max * sizeof *a->chunks +
			       (uint64_t)a->n_chunks * CHUNK_RECORDS * sizeof(struct block),
		.largest_free_bytes = largest * GRANULE,
		.allocations = a->allocations,
		.punched_bytes = a->punched_bytes,
	};
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
	munmap(a->base, a->size_bytes);
	close(a->fd);
	for (uint32_t i = 0; i < a->n_chunks; i++)
		free(a->chunks[i]);
	free(a->chunks);
	free(a->regions);
	free(a);
}
