#ifndef GATEWAYD_LEASE_H
#define GATEWAYD_LEASE_H

/*
 * Answers by reference: a peer that asked `attach` as its first message maps our arena, and gets
 * (lease, offset, length) instead of bytes. A lease keeps its object alive, whatever eviction or
 * purge does, until the peer gives it back by `release`, or until its connection's EOF, never
 * earlier.
 *
 *   attach ──> lease_grant() ──> in the answer ──> release [ids]
 *                    └───────────── EOF ───────────────┘
 *
 * Ids are per connection and never the same twice in a row. A peer that gives back what it does not
 * hold (a wrong id, one given back before), or attaches twice or late, is cut off: we shut our side
 * down, and its leases stay until it closes its own.
 *
 * What peers hold is bounded: with a quarter of the arena lent there are no more leases, and
 * answers go as chunks. Loop thread only.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/rpc.h"
#include "gatewayd/cache_object.h"

struct leases;

struct leases_counters {
	uint64_t granted, refused; /* refused: too much is lent already */
	uint64_t peers, held;      /* now */
	uint64_t cut_off;          /* peers, so far */
	uint64_t reset;            /* answers in chunks that were given up for room, so far */
};

/* cache is borrowed. NULL when out of memory. */
struct leases *leases_new(struct cache *cache);
/* After the last peer. */
void leases_free(struct leases **leases);
const struct leases_counters *leases_counters(const struct leases *leases);
void leases_count_reset(struct leases *leases);
/* Lent bytes are over twice the bound for leases: slow answers must go. */
bool leases_overdrawn(const struct leases *leases);

/* The rpc_method `attach`; arg is the struct leases. */
void leases_serve_attach(struct rpc_request *request, struct span params, void *arg);

struct lease {
	uint64_t id; /* not 0 */
	uint64_t offset, length_bytes;
};
/* For the peer that asks this request. false: it has not attached, the form lies outside the arena,
 * too much is lent, or memory is out. The lease takes a reference of its own. */
bool lease_grant(const struct rpc_request *request, struct cache_object *object,
	enum cache_form form, struct lease *lease);

#endif
