#ifndef COMMON_ARENA_H
#define COMMON_ARENA_H

/*
 * Memory for cached bodies that another process may map: one memfd of a fixed size, and an O(1)
 * coalescing allocator over it (TLSF: Masmano, Ripoll, Crespo, Real, "TLSF: a New Dynamic Memory
 * Allocator for Real-Time Systems", ECRTS 2004). The allocator's own data lies outside the shared
 * pages, so a reader sees bodies only and a corrupt page never corrupts the allocator. Whole pages
 * that become free are given back by punching holes, when asked for: a full cache uses freed pages
 * again at once, and then a system call for each would be wasted. Loop thread only, unless said
 * otherwise.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"

struct arena;

#define ARENA_NONE         UINT64_MAX
#define ARENA_RECORD_BYTES 32

struct arena_stats {
	uint64_t size_bytes;
	uint64_t live_bytes;  /* asked for and not freed */
	uint64_t used_bytes;  /* live + rounding */
	uint64_t index_bytes; /* the allocator's own memory, outside the arena: of a live block
				 ARENA_RECORD_BYTES, and some of free ones */
	uint64_t largest_free_bytes; /* lower bound, at most 1/32 too low */
	uint64_t allocations;        /* live */
	uint64_t punched_bytes;      /* given back to the kernel so far */
};

/*
 * size_bytes (> 0, under 128 GiB) is rounded up to whole pages; memory is used as it is allocated
 * (some pages ahead).
 * The memfd has mode 0400 and is sealed F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL. NULL with errno.
 */
struct arena *arena_new(uint64_t size_bytes);
/* Offset (a multiple of 64) of len_bytes (> 0), or ARENA_NONE when there is no room: the caller
 * evicts and asks again.
 */
uint64_t arena_alloc(struct arena *arena, uint64_t len_bytes);
/* For arena_gather(): whose block it is. Unset, or NULL: it never moves. */
void arena_set_owner(struct arena *arena, uint64_t offset, void *owner);
/*
 * Free memory may be in pieces, each too small. Put together room for len_bytes, by moving some of
 * the blocks beside the largest piece into others; may_move is asked first, and told to moved,
 * after the copy. false: it cannot be had so.
 */
struct arena_mover {
	bool (*may_move)(void *owner, uint64_t offset);
	void (*moved)(void *owner, uint64_t from_offset, uint64_t to_offset);
};
bool arena_gather(struct arena *arena, uint64_t len_bytes, const struct arena_mover *mover);
/* offset is exactly what arena_alloc() gave; anything else is a bug and ends the process. */
void arena_release(struct arena *arena, uint64_t offset);

/*
 * Free every block but these n, at once: it costs what is kept, however much is freed. offsets may
 * be in any order, has room for ARENA_KEEP_ROOM more, and is used up. tables are new ones of this
 * arena; in exchange come those that hold the records of all blocks that were: whoever gets them
 * frees them, on any thread.
 */
#define ARENA_KEEP_ROOM 64
struct arena_tables {
	struct block *records;
	uint64_t records_bytes; /* of addresses */
	uint32_t *regions;
	size_t n_regions;
	uint64_t used_bytes; /* of memory */
};
/* 0, or -1 with errno. */
int arena_tables_new(const struct arena *arena, struct arena_tables *tables);
void arena_keep_only(struct arena *arena, uint64_t *offsets, size_t n, struct arena_tables *tables);
void arena_tables_free(struct arena_tables *tables);

/*
 * Give pages of large free blocks (64 KiB and more) back to the kernel, the largest blocks first.
 * 1 MiB of pages held takes the kernel about 0.2 ms, so it is done in three steps, the second of
 * which may be another thread's. Between the first and the last the pages are nobody's: the arena
 * is used as ever, without them. One at a time.
 *
 * _take: about max_bytes; false when there is nothing to give back. _give_back: how many it were; 0
 * when the kernel refused.
 */
bool arena_holes_take(struct arena *arena, uint64_t max_bytes);
void arena_holes_punch(struct arena *arena);
uint64_t arena_holes_give_back(struct arena *arena);
/* All three, here and now, as long as there is something and max_bytes are not used up. */
uint64_t arena_trim(struct arena *arena, uint64_t max_bytes);
/* Where it is in this process. */
void *arena_at(const struct arena *arena, uint64_t offset);
/* What an allocation of this size really takes. */
uint64_t arena_rounded(uint64_t len_bytes);
struct arena_stats arena_stats(const struct arena *arena);
/* used_bytes + index_bytes of these. */
uint64_t arena_total_bytes(const struct arena *arena);
/* A new read-only descriptor of it (reopened, so that the receiver cannot write); the caller closes
 * it. -1 with errno. */
int arena_open_reader(const struct arena *arena);
void arena_free(struct arena **arena);

#endif
