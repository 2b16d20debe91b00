#ifndef COMMON_RPC_FRAME_H
#define COMMON_RPC_FRAME_H

/*
 * The frames of common/rpc: bytes to struct and back, nothing else. Part of rpc, used by nobody
 * else. Pure: no descriptor, no memory, safe on any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/rpc.h"
#include "common/span.h"

enum rpc_frame_type {
	RPC_FRAME_REQUEST,
	RPC_FRAME_RESULT, /* a response without error */
	RPC_FRAME_ERROR,  /* a response with one */
	RPC_FRAME_CHUNK,
	RPC_FRAME_CREDIT,
	RPC_FRAME_CANCEL,
	RPC_FRAME_NOTIFICATION, /* another method's: this version ignores it */
};

/* Spans point into the frame's bytes. */
struct rpc_frame {
	enum rpc_frame_type type;
	uint32_t id;            /* all but NOTIFICATION */
	struct span method;     /* REQUEST, NOTIFICATION */
	struct span payload;    /* REQUEST: params, RESULT: result (packed), CHUNK: data (bare) */
	bool end;               /* CHUNK */
	uint64_t credit_bytes;  /* CREDIT */
	struct rpc_error error; /* ERROR */
};

/* Credit saturates: a peer that gives more than this gives "as much as you like". */
#define RPC_MAX_CREDIT_BYTES ((uint64_t)1 << 40)
static inline uint64_t rpc_credit_add(uint64_t credit, uint64_t bytes)
{
	return bytes > RPC_MAX_CREDIT_BYTES - credit ? RPC_MAX_CREDIT_BYTES : credit + bytes;
}

/* NULL, or what is wrong (a static string). bytes is one whole msgpack object, as wire_scan()
 * found it. */
const char *rpc_frame_parse(struct span bytes, struct rpc_frame *frame);

/* What stands before the payload of a frame, and behind it. */
#define RPC_METHOD_MAX_BYTES 64
#define RPC_HEAD_MAX_BYTES   (RPC_METHOD_MAX_BYTES + 16)
struct rpc_head {
	uint8_t data[RPC_HEAD_MAX_BYTES];
	size_t len;
};
/* method is at most RPC_METHOD_MAX_BYTES long; then the params. */
void rpc_head_request(struct rpc_head *head, uint32_t id, struct span method);
/* Then the params. */
void rpc_head_notification(struct rpc_head *head, struct span method);
/* Then the result. */
void rpc_head_result(struct rpc_head *head, uint32_t id);
/* Then the message's bytes. */
void rpc_head_error(struct rpc_head *head, uint32_t id, int code, size_t message_len);
/* Then the data, then one more byte: rpc_tail_chunk(). */
void rpc_head_chunk(struct rpc_head *head, uint32_t id, size_t data_len);
uint8_t rpc_tail_chunk(bool end);
/* These two are whole frames. */
void rpc_head_credit(struct rpc_head *head, uint32_t id, uint64_t bytes);
void rpc_head_cancel(struct rpc_head *head, uint32_t id);

#endif
