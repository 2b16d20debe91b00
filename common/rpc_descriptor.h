#ifndef COMMON_RPC_DESCRIPTOR_H
#define COMMON_RPC_DESCRIPTOR_H

/* One descriptor beside bytes on a Unix stream socket (SCM_RIGHTS). Part of rpc. */
#include <stddef.h>
#include <sys/types.h>

#include "common/span.h"

#define RPC_DESCRIPTOR_BAD (-2)

/* Both spans in one message, with fd beside them. 0, or -1: not, or not all, was sent. */
int rpc_descriptor_send(int socket, struct span head, struct span rest, int fd);
/*
 * recv(2) that keeps a descriptor which comes along (close-on-exec) in *fd, the caller's.
 * RPC_DESCRIPTOR_BAD: there were several, or *fd was set already; none is kept of those that came.
 */
ssize_t rpc_descriptor_recv(int socket, void *data, size_t len_bytes, int *fd);

#endif
