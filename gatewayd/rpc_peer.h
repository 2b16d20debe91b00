#ifndef GATEWAYD_RPC_PEER_H
#define GATEWAYD_RPC_PEER_H

/*
 * What one RPC peer makes us hold, all its requests together: how they came, their bodies, and
 * answers that it does not take. A peer is many clients (hashd), or somebody hostile.
 *
 *   requests as they came    RPC_PEER_PARAMS_BYTES; more are refused
 *   bodies                   a number of the largest one; others wait for their turn, in order,
 * each for all of its length: none can be stuck half-way for want of room answers
 * RPC_PEER_ANSWER_BYTES; of those that wait for the peer the oldest are given up
 *
 * What is lent of the cache is bounded by lease.h. Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>

#include "common/slice.h"

#define RPC_PEER_PARAMS_BYTES (64u << 20)
#define RPC_PEER_BODIES       4 /* of the largest size */
#define RPC_PEER_ANSWER_BYTES (128u << 20)

struct loop;
struct rpc_asker;
struct rpc_peer;
struct rpc_peers;

/* NULL when out of memory. Freed with the last of its peers. */
struct rpc_peers *rpc_peers_new(struct loop *loop, size_t max_body_bytes);
void rpc_peers_free(struct rpc_peers **peers);

/* The account of whoever asks, for one request, which came in params_bytes. NULL when it has too
 * much of them under way, or memory is out. */
struct rpc_peer *rpc_peer_enter(
	struct rpc_peers *peers, const struct rpc_asker *asker, size_t params_bytes);
void rpc_peer_leave(struct rpc_peer *peer, size_t params_bytes);

/*
 * Room for a body: at once, if rpc_peer_body_has_room() then says so; else on_room is called once,
 * from the loop, when there is; not after _free. NULL when out of memory. rpc_peer_body_take()
 * makes a slice of the body, which holds the room until it is released: data is malloc()ed, and
 * both are the slice's then.
 */
struct rpc_peer_body;
struct rpc_peer_body *rpc_peer_body_new(
	struct rpc_peer *peer, size_t len_bytes, void (*on_room)(void *arg), void *arg);
bool rpc_peer_body_has_room(const struct rpc_peer_body *body);
struct slice rpc_peer_body_take(struct rpc_peer_body **body, void *data, size_t len_bytes);
/* NULL is fine. */
void rpc_peer_body_free(struct rpc_peer_body **body);

/* Bytes of answers that wait for the peer: more, or fewer. */
void rpc_peer_answer_more(struct rpc_peer *peer, size_t len_bytes);
void rpc_peer_answer_less(struct rpc_peer *peer, size_t len_bytes);
bool rpc_peer_answers_too_much(const struct rpc_peer *peer);

#endif
