#ifndef COMMON_RPC_OUT_H
#define COMMON_RPC_OUT_H

/*
 * Bytes waiting for a socket: small ones gathered in blocks, large ones kept where they are as
 * slices, all written by one sendmsg(2). Part of rpc. Blocks are pooled per process.
 */
#include <stddef.h>

#include "common/slice.h"

struct rpc_out_node;
struct rpc_out {
	struct rpc_out_node *head, *tail;
	size_t bytes; /* queued, slices counted */
};

/* 0, or -1 when out of memory: then a part may have been queued, so the stream is of no more use.
 */
int rpc_out_append(struct rpc_out *out, const void *data, size_t len_bytes);
/* The slice is taken over, also on failure. */
int rpc_out_append_slice(struct rpc_out *out, struct slice slice);
/* Write what the socket takes: 1 when all is written, 0 when it takes no more for now, -1 with
 * errno. Slices written are released, which may call back into the owner. */
int rpc_out_write(struct rpc_out *out, int fd);
/* Queued in all of them, of the whole process. */
size_t rpc_out_all_bytes(void);
/* Drop everything; slices are released. */
void rpc_out_clear(struct rpc_out *out);

#endif
