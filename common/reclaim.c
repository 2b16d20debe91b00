#include "common/reclaim.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Smaller ones are freed at once. */
#define LARGE_BYTES (1u << 20)
/* Given back at a time, and for how long in a turn. */
#define PIECE_BYTES (512u << 10)
#define PIECE_US    250
/* Free memory at the heap's end that is kept for the next request. */
#define TRIM_BYTES (4u << 20)

/* Lies in the block itself: its content is of no more use. */
struct reclaim_block {
	struct reclaim_block *next;
	size_t len_bytes; /* what may still have pages, from the start of the block */
};

void reclaim_setup(void)
{
	mallopt(M_MMAP_THRESHOLD, RECLAIM_MAPPED_BYTES);
	mallopt(M_TRIM_THRESHOLD, TRIM_BYTES);
}

void reclaim_part(void *data, size_t from, size_t to)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t begin = ((uintptr_t)data + from + page - 1) / page * page;
	uintptr_t end = ((uintptr_t)data + to) / page * page;
	if (begin < end)
		madvise((void *)begin, end - begin, MADV_DONTNEED);
}

/* The last piece goes; true when the block is small enough to be freed. */
static bool shrink(struct reclaim_block *block)
{
	reclaim_part(block, block->len_bytes - PIECE_BYTES, block->len_bytes);
	block->len_bytes -= PIECE_BYTES;
	return block->len_bytes <= LARGE_BYTES;
}

static void give_back(void *arg)
{
	struct reclaim_queue *queue = arg;
	uint64_t begin_us = loop_now_us(queue->loop);
	while (queue->first && loop_now_us(queue->loop) - begin_us < PIECE_US) {
		struct reclaim_block *block = queue->first;
		if (!shrink(block))
			continue;
		queue->first = block->next;
		if (!queue->first)
			queue->last = &queue->first;
		free(block);
	}
	if (queue->first)
		loop_queue(queue->loop, &queue->later);
}

void reclaim_queue_init(struct reclaim_queue *queue, struct loop *loop)
{
	*queue = (struct reclaim_queue){.loop = loop, .last = &queue->first};
	deferred_init(&queue->later, give_back, queue);
}

void reclaim(struct loop *loop, void *data, size_t len_bytes)
{
	if (len_bytes <= LARGE_BYTES) {
		free(data);
		return;
	}
	struct reclaim_queue *queue = loop_reclaim_queue(loop);
	struct reclaim_block *block = data;
	*block = (struct reclaim_block){.len_bytes = len_bytes};
	*queue->last = block;
	queue->last = &block->next;
	loop_queue(loop, &queue->later);
}

void reclaim_buf(struct loop *loop, struct buf *buf)
{
	size_t len_bytes = buf->capacity;
	reclaim(loop, buf_take(buf, NULL), len_bytes);
}

/* ---- As a slice ---- */

struct owner {
	struct loop *loop;
	void *data;
	size_t len_bytes;
};

static void release(void *arg)
{
	struct owner *owner = arg;
	reclaim(owner->loop, owner->data, owner->len_bytes);
	free(owner);
}

struct slice slice_reclaimed(struct loop *loop, void *data, size_t len_bytes)
{
	struct owner *owner = len_bytes > LARGE_BYTES ? malloc(sizeof *owner) : NULL;
	if (!owner)
		return slice_malloced(data, len_bytes);
	*owner = (struct owner){loop, data, len_bytes};
	return (struct slice){
		.data = data, .len_bytes = len_bytes, .release = release, .owner = owner};
}
