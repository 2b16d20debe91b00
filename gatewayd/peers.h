#ifndef GATEWAYD_PEERS_H
#define GATEWAYD_PEERS_H

/*
 * The other gatewayd of this pod. Every element key has an owner among the configured instances, by
 * rendezvous hashing; whoever misses an element asks its owner by RPC `fetch`, so that the pod as a
 * whole looks it up and buys it once. An owner that cannot be reached is passed over: the next in
 * rank counts, at last oneself.
 *
 * A connection is made when it is needed and closed a second after its last fetch, so an instance
 * that drains need not wait for its siblings. While fetches are under way the peer is pinged; one
 * that does not answer for a second is given up, and what was asked of it is lost.
 *
 * Views that differ cannot loop: the receiver of a fetch never passes it on.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/rpc.h"

struct loop;
struct peers;

#define PEERS_SELF (-1)

/* One fetch, as its peer knows it. Embedded in who makes it. */
struct peer_user {
	/* The peer was given up: not called for RPC's own errors. It has left the list. */
	void (*on_lost)(void *arg);
	void *arg;
	struct peer_user *next, **prev; /* private */
};

/* Sockets are <run_dir>/gatewayd.<n>.sock. NULL when out of memory. */
struct peers *peers_new(struct loop *loop, const char *run_dir, unsigned self, unsigned n);
/* Who should look this up and buy it: an instance, or PEERS_SELF. */
int peers_owner(struct peers *peers, const struct digest *key);
/* The connection to ask on; NULL when it is gone since. Each user must leave. */
struct rpc_client *peers_join(struct peers *peers, int peer, struct peer_user *user);
void peers_leave(struct peers *peers, int peer, struct peer_user *user);
/* From now on everything is one's own; connections close when their last fetch ends. */
void peers_drain(struct peers *peers);
/* All users must have left. */
void peers_free(struct peers **peers);

#endif
