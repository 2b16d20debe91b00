#ifndef COMMON_RPC_CONNECTION_H
#define COMMON_RPC_CONNECTION_H

/*
 * One end of one RPC connection: a socket, the bytes that came and the bytes to go. It knows
 * frames, not calls. Part of rpc: the asking end (rpc_client.c) and the answering end
 * (rpc_server.c) each put their calls on top.
 *
 *   readable -> buffer -> whole frames -> on_frame          put_* -> queue -> flush, once a turn
 *
 * Frames put in one turn of the loop leave in one system call. Nothing here calls back from inside
 * a put. A frame that breaks the rules ends the connection with on_lost.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/rpc.h"
#include "common/rpc_frame.h"
#include "common/slice.h"

struct rpc_connection;

struct rpc_connection_events {
	void (*on_frame)(const struct rpc_frame *frame, void *arg);
	/* The connection is of no more use; only _free is allowed now. code: RPC_LOST or
	 * RPC_PROTOCOL. Not called after _free. */
	void (*on_lost)(int code, const char *reason, void *arg);
	/* The peer has read again after rpc_connection_congested() was true. */
	void (*on_drained)(void *arg);
	/* Instead of closing it, after rpc_connection_keep_socket(): the receiver closes it. Comes
	 * once, before on_lost or from inside _free. eof: the peer has closed its end. */
	void (*on_socket)(int fd, bool eof, void *arg);
	/* The very last word: no frame of the stack refers to the connection any more. */
	void (*on_free)(void *arg);
};

/*
 * Takes fd over (non-blocking), on failure too. answering: this end serves what others ask. It
 * reads nothing while congested; if both ends did, two peers full of each other's frames would wait
 * for ever: the asking end instead reports no credit and RPC_BUSY. And those who ask wait for each
 * other (loop_queue), while the answers of a daemon of ours, to all that ask it, wait for nobody.
 */
struct rpc_connection *rpc_connection_new(struct loop *loop, int fd, bool answering,
	const struct rpc_connection_events *events, void *arg);
/* May be called from any callback of this connection; what is queued is tried once. */
void rpc_connection_free(struct rpc_connection **connection);
/* The peer broke the rules: on_lost with RPC_PROTOCOL, now. reason is static. Only from
 * on_frame. */
void rpc_connection_fail(struct rpc_connection *connection, const char *reason);

/* At its end the socket is handed over by on_socket. */
void rpc_connection_keep_socket(struct rpc_connection *connection);
/* The next bytes to come may bring a descriptor; more than one is against the rules. */
void rpc_connection_expect_descriptor(struct rpc_connection *connection);
/* The descriptor that came, the caller's now; -1: none. From now on none is expected. */
int rpc_connection_take_descriptor(struct rpc_connection *connection);
/* Write a result with a descriptor beside it, at once, with nothing queued before it. What fails is
 * told by on_lost later. */
void rpc_connection_put_descriptor(
	struct rpc_connection *connection, uint32_t id, struct span result, int fd);

/* More than RPC_SEND_HIGH_WATER_BYTES were queued, and not yet half of that left. */
bool rpc_connection_congested(const struct rpc_connection *connection);
size_t rpc_connection_queued_bytes(const struct rpc_connection *connection);

/* Queue a frame. What fails here (out of memory, RPC_SEND_MAX_BYTES) is told by on_lost later. */
void rpc_connection_put_request(
	struct rpc_connection *connection, uint32_t id, struct span method, struct span params);
void rpc_connection_put_notification(
	struct rpc_connection *connection, struct span method, struct span params);
void rpc_connection_put_result(struct rpc_connection *connection, uint32_t id, struct span result);
void rpc_connection_put_error(
	struct rpc_connection *connection, uint32_t id, int code, struct span message);
/* As many chunk frames as the slice needs; the slice is taken over. */
void rpc_connection_put_chunks(
	struct rpc_connection *connection, uint32_t id, struct slice data, bool end);
void rpc_connection_put_credit(struct rpc_connection *connection, uint32_t id, uint64_t bytes);
void rpc_connection_put_cancel(struct rpc_connection *connection, uint32_t id);

#endif
