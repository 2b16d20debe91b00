/* Room in one piece out of free memory in many: see arena_gather() in arena.h. */
#include <string.h>

#include "common/arena_private.h"
#include "common/log.h"

/* How many blocks are moved for one piece of room. */
#define MAX_MOVES 32
/* And how many pieces are looked at for one whose neighbour can move. */
#define MAX_HOLES 16

void arena_set_owner(struct arena *a, uint64_t offset, void *owner)
{
	uint32_t id = arena_block_find(a, offset / GRANULE);
	BUG_ON(!id || block_at(a, id)->state != BLOCK_LIVE);
	memcpy(block_at(a, id)->owner, &owner, sizeof owner);
}

static uint32_t largest_free(const struct arena *a)
{
	if (!a->first_bits)
		return 0;
	unsigned first = 31 - (unsigned)__builtin_clz(a->first_bits);
	unsigned second = 31 - (unsigned)__builtin_clz(a->second_bits[first]);
	return a->lists[first][second].head;
}

/* The live block `id` into another piece than `hole`. */
static bool move(struct arena *a, uint32_t id, uint32_t hole, const struct arena_mover *mover)
{
	if (!id || block_at(a, id)->state != BLOCK_LIVE)
		return false;
	const struct block *b = block_at(a, id);
	uint64_t from = (uint64_t)b->start * GRANULE;
	uint64_t len_bytes = (uint64_t)b->size * GRANULE - b->slack;
	void *owner;
	memcpy(&owner, b->owner, sizeof owner);
	if (!owner || !mover->may_move(owner, from))
		return false;
	arena_list_remove(a, hole);
	uint64_t to = arena_alloc(a, len_bytes);
	arena_list_add(a, hole);
	if (to == ARENA_NONE)
		return false;
	memcpy(a->base + to, a->base + from, len_bytes);
	arena_set_owner(a, to, owner);
	mover->moved(owner, from, to);
	arena_release(a, from);
	return true;
}

/* The free block after this one, of the same class or the next smaller one. */
static uint32_t next_smaller(const struct arena *a, uint32_t id)
{
	const struct block *b = block_at(a, id);
	if (b->list_next)
		return b->list_next;
	struct class c = class_of(b->size);
	uint32_t second = a->second_bits[c.first] & ((1u << c.second) - 1);
	if (!second) {
		uint32_t below = a->first_bits & ((1u << c.first) - 1);
		if (!below)
			return 0;
		c.first = 31 - (unsigned)__builtin_clz(below);
		second = a->second_bits[c.first];
	}
	return a->lists[c.first][31 - (unsigned)__builtin_clz(second)].head;
}

bool arena_gather(struct arena *a, uint64_t len_bytes, const struct arena_mover *mover)
{
	uint32_t size = granules_of(len_bytes);
	for (int moves = 0; moves < MAX_MOVES; moves++) {
		uint32_t hole = largest_free(a);
		if (hole && block_at(a, hole)->size >= size)
			return true;
		bool moved = false;
		for (int i = 0; hole && !moved && i < MAX_HOLES; i++) {
			moved = move(a, block_at(a, hole)->next, hole, mover) ||
				move(a, block_at(a, hole)->prev, hole, mover);
			hole = moved ? 0 : next_smaller(a, hole);
		}
		if (!moved)
			return false;
	}
	return false;
}
