/* Pages that nobody uses go back to the kernel: see arena_holes_take() in arena.h. */
#include <fcntl.h>
#include <unistd.h>

#include "common/arena_private.h"
#include "common/log.h"

/* Smaller holes cost more in system calls and page faults than they give back. */
#define HOLE_MIN_BYTES (64u << 10)

/* The end of what may hold pages of the free block, in whole pages, at most max_bytes of it. false:
 * there is no whole page. */
static bool find_hole(const struct arena *a, const struct block *b, uint64_t max_bytes,
	uint64_t page, struct hole *hole)
{
	uint64_t start = (uint64_t)b->start * GRANULE, end = start + (uint64_t)b->size * GRANULE;
	uint64_t from = round_up(start, page);
	uint64_t to = round_up(start + (uint64_t)b->dirty * GRANULE, page);
	if (to > end / page * page)
		to = end / page * page;
	if (to <= from)
		return false;
	if (to - from > max_bytes)
		from = (to - max_bytes) / page * page;
	*hole = (struct hole){.offset = from, .len_bytes = to - from};
	BUG_ON(to > a->size_bytes);
	return true;
}

/* Cut it out of the free block, which is in no list. The ends stay free; parts of pages are as good
 * as clean. */
static bool cut_out(struct arena *a, uint32_t id, const struct hole *hole, uint64_t page)
{
	uint32_t before = (uint32_t)(hole->offset / GRANULE) - block_at(a, id)->start;
	if (before) {
		uint32_t rest = arena_block_split(a, id, before);
		if (before < page / GRANULE)
			block_at(a, id)->dirty = 0;
		arena_list_add(a, id);
		if (!rest)
			return false;
		id = rest;
	}
	uint32_t size = (uint32_t)(hole->len_bytes / GRANULE);
	if (block_at(a, id)->size > size) {
		uint32_t rest = arena_block_split(a, id, size);
		if (!rest) {
			arena_list_add(a, id);
			return false;
		}
		block_at(a, rest)->dirty = 0;
		arena_list_add(a, rest);
	}
	block_at(a, id)->state = BLOCK_HOLE;
	return true;
}

/* From one list. false: enough is taken. */
static bool take_from(
	struct arena *a, const struct free_list *list, uint64_t *budget_bytes, uint64_t page)
{
	uint32_t id;
	while ((id = list->head) && block_at(a, id)->dirty) {
		struct hole *hole = &a->holes[a->n_holes];
		if (a->n_holes == MAX_HOLES_OUT || *budget_bytes == 0)
			return false;
		arena_list_remove(a, id);
		if (!find_hole(a, block_at(a, id), *budget_bytes, page, hole)) {
			block_at(a, id)->dirty = 0;
			arena_list_add(a, id);
			continue;
		}
		if (!cut_out(a, id, hole, page))
			return false;
		a->n_holes++;
		/* A system call costs as much as a few pages. */
		uint64_t spent = hole->len_bytes > HOLE_MIN_BYTES ? hole->len_bytes
								  : HOLE_MIN_BYTES;
		*budget_bytes -= spent < *budget_bytes ? spent : *budget_bytes;
	}
	return true;
}

bool arena_holes_take(struct arena *a, uint64_t max_bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct class least = class_of(HOLE_MIN_BYTES / GRANULE);
	BUG_ON(a->n_holes);
	for (unsigned first = FIRST_LEVELS; first-- > least.first;) {
		for (unsigned second = SECOND_LEVELS; second-- > 0;) {
			if (!take_from(a, &a->lists[first][second], &max_bytes, page))
				return a->n_holes > 0;
		}
	}
	return a->n_holes > 0;
}

void arena_holes_punch(struct arena *a)
{
	for (size_t i = 0; i < a->n_holes; i++) {
		struct hole *hole = &a->holes[i];
		hole->punched = fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					(off_t)hole->offset, (off_t)hole->len_bytes) == 0;
		if (!hole->punched)
			return; /* nor will the next one be */
	}
}

uint64_t arena_holes_give_back(struct arena *a)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < a->n_holes; i++) {
		struct hole *hole = &a->holes[i];
		uint32_t id = arena_block_find(a, hole->offset / GRANULE);
		BUG_ON(!id || block_at(a, id)->state != BLOCK_HOLE);
		arena_block_free(a, id, hole->punched ? 0 : block_at(a, id)->size);
		if (hole->punched)
			sum += hole->len_bytes;
	}
	a->n_holes = 0;
	a->punched_bytes += sum;
	return sum;
}

uint64_t arena_trim(struct arena *a, uint64_t max_bytes)
{
	uint64_t sum = 0, got;
	do {
		if (sum >= max_bytes || !arena_holes_take(a, max_bytes - sum))
			break;
		arena_holes_punch(a);
		got = arena_holes_give_back(a);
		sum += got;
	} while (got > 0);
	return sum;
}
