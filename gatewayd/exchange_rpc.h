#ifndef GATEWAYD_EXCHANGE_RPC_H
#define GATEWAYD_EXCHANGE_RPC_H

/*
 * Exchanges that come as RPC `request` from a trusted peer (hashd), or as `fetch` from another
 * instance (fetch.h). The body hash is believed, so a hit needs no body at all, and does not look
 * at one that came along: the body is asked for (by credit) only when somebody wants it, and
 * checked against the hash then. A peer that attached (lease.h) gets large bodies of the cache by
 * reference. While too much is lent, answers go in chunks, and of those whose peer does not take
 * them the oldest are given up.
 */
#include <stddef.h>

#include "gatewayd/exchange.h"

struct exchange_rpc;
struct leases;
struct loop;
struct rpc_method;

/* leases is borrowed. on_exchange: as exchange_http. NULL when out of memory. */
struct exchange_rpc *exchange_rpc_new(struct loop *loop, struct leases *leases,
	size_t max_body_bytes, void (*on_exchange)(struct exchange *exchange, void *arg),
	void *arg);
/* The method table for daemon_serve_rpc(); lives as long as the struct. */
const struct rpc_method *exchange_rpc_methods(const struct exchange_rpc *entry);
/* Refuse `fetch` from now on: the siblings do without this instance. `request` is served on. */
void exchange_rpc_drain(struct exchange_rpc *entry);
void exchange_rpc_free(struct exchange_rpc **entry);

#endif
