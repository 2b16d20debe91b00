#ifndef GATEWAYD_GATEWAY_H
#define GATEWAYD_GATEWAY_H

/*
 * What serves requests: the router, and the parts that the requests share. Every exchange, from
 * HTTP or RPC, comes in at gateway_serve().
 */
#include <stdbool.h>

#include "gatewayd/conf.h"
#include "gatewayd/exchange.h"
#include "gatewayd/stats.h"

struct cache;
struct client_keys;
struct flights;
struct gateway;
struct leases;
struct loop;
struct models;
struct peers;
struct provider;
struct purge_epochs;
struct purger;
struct refresher;
struct store;
struct workers;

struct gateway {
	struct loop *loop;
	const struct gatewayd_conf *conf;
	struct workers *workers;
	struct cache *cache;
	struct leases *leases;
	struct store *store; /* NULL: STORE=none */
	struct provider *provider;
	struct peers *peers; /* NULL: the only instance */
	struct flights *flights;
	struct refresher *refresher;
	struct stats *stats;
	struct models *models;
	struct purger *purger;
	struct purge_epochs *epochs; /* NULL: no store */
	const char *instance_id;     /* random per start */
	uint64_t purges_refused;
	struct client_keys *client_keys; /* NULL: any key will do */
	bool mock;
	bool keyless;     /* the provider wants no credential: the mock, Ollama */
	bool legacy_read; /* what a Python gateway stored is of use: real vectors, shared by all */
};

/* An exchange_http/exchange_rpc callback; arg is the gateway. */
void gateway_serve(struct exchange *exchange, void *arg);

#endif
