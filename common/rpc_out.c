#include "common/rpc_out.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define BLOCK_BYTES   (32u << 10)
#define POOLED_BLOCKS 32 /* 1 MiB a process */
#define SMALL_SLICE   512
#define MAX_IOVECS    64
/* A peer that reads as fast as we write must not keep the loop. */
#define MAX_WRITE_BYTES (1u << 20)

struct rpc_out_node {
	struct rpc_out_node *next;
	const uint8_t *data;
	size_t len, done; /* bytes in it; of these written */
	struct slice slice;
	bool block; /* data is its own: a struct block */
};

struct block {
	struct rpc_out_node node;
	uint8_t bytes[BLOCK_BYTES - sizeof(struct rpc_out_node)];
};

static struct rpc_out_node *pool;
static unsigned pooled;
static size_t all_bytes;

size_t rpc_out_all_bytes(void)
{
	return all_bytes;
}

static void add_bytes(struct rpc_out *out, size_t n)
{
	out->bytes += n;
	all_bytes += n;
}

static void take_bytes(struct rpc_out *out, size_t n)
{
	out->bytes -= n;
	all_bytes -= n;
}

static struct rpc_out_node *block_new(void)
{
	struct rpc_out_node *node = pool;
	if (node) {
		pool = node->next;
		pooled--;
	} else {
		struct block *block = malloc(sizeof *block);
		if (!block)
			return NULL;
		node = &block->node;
	}
	*node = (struct rpc_out_node){.data = ((struct block *)node)->bytes, .block = true};
	return node;
}

static void node_free(struct rpc_out_node *node)
{
	if (node->block && pooled < POOLED_BLOCKS) {
		node->next = pool;
		pool = node;
		pooled++;
		return;
	}
	struct slice slice = node->slice;
	free(node);
	slice_release(&slice);
}

static void push(struct rpc_out *out, struct rpc_out_node *node)
{
	if (out->tail)
		out->tail->next = node;
	else
		out->head = node;
	out->tail = node;
}

int rpc_out_append(struct rpc_out *out, const void *data, size_t len_bytes)
{
	const uint8_t *from = data;
	while (len_bytes) {
		struct block *block = (struct block *)out->tail;
		if (!block || !block->node.block || block->node.len == sizeof block->bytes) {
			block = (struct block *)block_new();
			if (!block)
				return -1;
			push(out, &block->node);
		}
		size_t n = sizeof block->bytes - block->node.len;
		if (n > len_bytes)
			n = len_bytes;
		memcpy(block->bytes + block->node.len, from, n);
		block->node.len += n;
		add_bytes(out, n);
		from += n;
		len_bytes -= n;
	}
	return 0;
}

int rpc_out_append_slice(struct rpc_out *out, struct slice slice)
{
	int rc = 0;
	if (slice.len_bytes <= SMALL_SLICE) {
		rc = rpc_out_append(out, slice.data, slice.len_bytes);
		slice_release(&slice);
		return rc;
	}
	struct rpc_out_node *node = malloc(sizeof *node);
	if (!node) {
		slice_release(&slice);
		return -1;
	}
	*node = (struct rpc_out_node){.data = slice.data, .len = slice.len_bytes, .slice = slice};
	push(out, node);
	add_bytes(out, slice.len_bytes);
	return 0;
}

static void pop(struct rpc_out *out)
{
	struct rpc_out_node *node = out->head;
	out->head = node->next;
	if (!out->head)
		out->tail = NULL;
	node_free(node);
}

int rpc_out_write(struct rpc_out *out, int fd)
{
	size_t written = 0;
	while (out->head) {
		if (written >= MAX_WRITE_BYTES)
			return 0;
		struct iovec iov[MAX_IOVECS];
		struct msghdr message = {.msg_iov = iov};
		size_t total = 0;
		for (struct rpc_out_node *node = out->head; node && message.msg_iovlen < MAX_IOVECS;
			node = node->next) {
			struct iovec *v = &iov[message.msg_iovlen++];
			v->iov_base = (void *)(node->data + node->done);
			v->iov_len = node->len - node->done;
			total += v->iov_len;
		}
		ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
		size_t left = (size_t)n;
		written += left;
		bool partial = left < total;
		/* Releasing a slice may queue more or clear the queue. */
		while (out->head && (left || out->head->done == out->head->len)) {
			struct rpc_out_node *node = out->head;
			size_t here = node->len - node->done;
			if (here > left)
				here = left;
			node->done += here;
			take_bytes(out, here);
			left -= here;
			if (node->done < node->len)
				break;
			pop(out);
		}
		if (partial)
			return 0;
	}
	return 1;
}

void rpc_out_clear(struct rpc_out *out)
{
	while (out->head) {
		take_bytes(out, out->head->len - out->head->done);
		pop(out);
	}
}
