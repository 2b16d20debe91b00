#ifndef BROADCASTERD_LOCAL_H
#define BROADCASTERD_LOCAL_H

/* RPC: `purge` to a broadcast, its end to the answer. A peer that leaves does not stop its purge.
 */
#include "common/rpc.h"

struct broadcaster_conf;
struct broadcasts;
struct daemon;
struct local;

struct local_parts {
	struct daemon *daemon;
	const struct broadcaster_conf *conf;
	struct broadcasts *broadcasts;
};

/* NULL when out of memory. */
struct local *local_new(const struct local_parts *parts);
/* For daemon_serve_rpc(); as long as the struct local. */
const struct rpc_method *local_methods(const struct local *local);
/* After daemon_close_rpc() or daemon_stop(). */
void local_free(struct local **local);

#endif
