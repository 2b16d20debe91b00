#ifndef GATEWAYD_PURGE_SERVE_H
#define GATEWAYD_PURGE_SERVE_H

/*
 * Purges asked for over HTTP (method PURGE, any path) and RPC (`purge`): who may, and the answer.
 *
 * Whoever purges shows the purge token (PURGE_TOKEN): `Authorization: Bearer TOKEN`, or the
 * message's token. Compared in constant time, never logged. Without the setting HTTP gets 403, and
 * RPC is for root and the own uid alone. What is refused is a log line and a counter; nothing is
 * purged.
 *
 * The answer, 200 when every instance of the pod has purged, else 502:
 *
 *   {"purged":3,"total":2,"success":2,"failed":0,"results":[{"pod":"gatewayd.0","status":200,
 *    "success":true,"error":null},...]}
 *
 * and X-Instance-Id, another one with each start: an instance that shows a new one has lost what it
 * had in memory.
 */
#include "gatewayd/exchange.h"

struct gateway;
struct rpc_method;

void purge_serve(struct gateway *gateway, struct exchange *exchange);
/* The RPC method, arg to be set to the gateway. */
extern const struct rpc_method purge_rpc_method;

#endif
