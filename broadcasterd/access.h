#ifndef BROADCASTERD_ACCESS_H
#define BROADCASTERD_ACCESS_H

/*
 * Who may purge here. With BROADCASTERD_TOKEN set: who shows it, over HTTP and RPC alike. Without:
 * everybody who reaches the HTTP listener, and over RPC root and the own user. Tokens are compared
 * in constant time, and never logged.
 */
#include <stdbool.h>

#include "common/rpc.h"
#include "common/span.h"

struct broadcaster_conf;

/* authorization: the value of the field, "Bearer TOKEN"; data NULL when there is none. */
bool access_by_http(const struct broadcaster_conf *conf, struct span authorization);
bool access_by_rpc(
	const struct broadcaster_conf *conf, const struct rpc_peer *peer, struct span token);

#endif
