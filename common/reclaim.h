#ifndef COMMON_RECLAIM_H
#define COMMON_RECLAIM_H

/*
 * Large blocks of memory, given back without holding the loop up. To unmap 32 MiB at once takes the
 * kernel 3 to 10 ms of the caller's time; so it is told, some pieces a turn, that their content is
 * not needed any more, before what is left is freed. Loop thread only, unless said otherwise.
 *
 * It rests on malloc() taking large blocks from the kernel one by one and growing them by moving
 * pages. glibc by itself stops doing so after the first large free(), and puts blocks of up to 32
 * MiB on its heap, where to grow one is to copy it (up to 100 ms, seen): reclaim_setup() fixes
 * that.
 */
#include <stddef.h>

#include "common/buf.h"
#include "common/loop.h"
#include "common/slice.h"

/* Blocks of this size and more are taken from the kernel one by one. */
#define RECLAIM_MAPPED_BYTES (512u << 10)

/* Once in a process, before it allocates large blocks, from any thread. */
void reclaim_setup(void);

/* free() of a malloc()ed block of at least len_bytes. NULL is fine. */
void reclaim(struct loop *loop, void *data, size_t len_bytes);
/* The same for what a buffer holds: buf_free(). */
void reclaim_buf(struct loop *loop, struct buf *buf);
/* What lies at [from, to) of a block is not needed any more, the rest is: its whole pages go at
 * once, and read as zeros from now on. Any thread. */
void reclaim_part(void *data, size_t from, size_t to);
/* As slice_malloced(), but released by reclaim(), on the loop's thread. */
struct slice slice_reclaimed(struct loop *loop, void *data, size_t len_bytes);

/* What waits to be given back: part of the loop. */
struct reclaim_queue {
	struct loop *loop;
	struct deferred later;
	struct reclaim_block *first, **last;
};
void reclaim_queue_init(struct reclaim_queue *queue, struct loop *loop);

#endif
