#ifndef HASHD_LOCAL_H
#define HASHD_LOCAL_H

/*
 * The local API: any process of the pod that may open our RPC socket can ask for `request` (what a
 * client gets over HTTP, without HTTP) and `hash`. Bodies are inline or come as chunks; a body hash
 * or other field that only the front door may set is replaced or dropped, as it is there. A body
 * that comes too slowly (common/body.h) ends its call with RPC_FAILED.
 */
#include "common/rpc.h"

struct bodies;
struct hashd_conf;
struct local;
struct requests;

/* NULL when out of memory. */
struct local *local_new(
	const struct hashd_conf *conf, struct bodies *bodies, struct requests *requests);
/* The table to serve, for daemon_serve_rpc(); valid until local_free(). */
const struct rpc_method *local_methods(const struct local *local);
/* on_drained when nothing is under way: at once, or later. */
void local_drain(struct local *local, void (*on_drained)(void *arg), void *arg);
/* Ends what is under way with an error, and refuses what comes now: before the requests go. */
void local_stop(struct local *local);
/* After the RPC server, which holds the table. */
void local_free(struct local **local);

#endif
