#include "gatewayd/parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/daemon.h"
#include "common/http_client.h"
#include "common/http_server.h"
#include "common/loop.h"
#include "common/otlp.h"
#include "common/workers.h"
#include "gatewayd/cache.h"
#include "gatewayd/cache_cleaner.h"
#include "gatewayd/client_keys.h"
#include "gatewayd/conf.h"
#include "gatewayd/embeddings.h"
#include "gatewayd/exchange_http.h"
#include "gatewayd/exchange_rpc.h"
#include "gatewayd/flight.h"
#include "gatewayd/gateway.h"
#include "gatewayd/lease.h"
#include "gatewayd/models.h"
#include "gatewayd/peers.h"
#include "gatewayd/provider.h"
#include "gatewayd/provider_attempt.h"
#include "gatewayd/provider_choice.h"
#include "gatewayd/purge.h"
#include "gatewayd/purge_epochs.h"
#include "gatewayd/purge_serve.h"
#include "gatewayd/refresh.h"
#include "gatewayd/store_dir.h"
#include "gatewayd/store_s3.h"
#include "gatewayd/store_tiers.h"

#define MAX_QUEUED_JOBS 65536
#define MAX_FLIGHTS     (1u << 20)
#define MAX_LOOK_UPS    256

struct parts {
	struct daemon *daemon;
	struct gateway gateway;
	struct http_client *http_client;
	struct exchange_http *http;
	struct exchange_rpc *rpc;
	struct rpc_server *rpc_server;
	struct rpc_method purge_methods[2];
	struct otlp *otlp;
	struct cache_cleaner *cleaner;
};

static void *must(void *part, const char *what)
{
	if (!part)
		die(EX_OSERR, "cannot make the %s: %s", what, strerror(errno));
	return part;
}

static void on_bought(struct span model, uint64_t tokens, size_t inputs, void *arg)
{
	(void)inputs;
	struct gateway *gateway = arg;
	/* Others say it with each of their calls. */
	if (gateway->mock)
		stats_count_bought(gateway->stats, model, tokens);
}

static void on_attempt(const struct provider_attempt *attempt, void *arg)
{
	struct gateway *gateway = arg;
	stats_count_attempt(gateway->stats, attempt);
}

static void on_fetched(const char *outcome, uint64_t duration_us, void *arg)
{
	struct gateway *gateway = arg;
	stats_observe_fetch(gateway->stats, outcome, duration_us);
}

static void make_provider(struct parts *parts, const struct gatewayd_conf *conf)
{
	struct gateway *gateway = &parts->gateway;
	gateway->mock = gatewayd_conf_is_mock(conf);
	gateway->keyless = gateway->mock || conf->provider == CONF_PROVIDER_OLLAMA;
	if (gateway->mock) {
		log_warn("provider: mock: embeddings are made up here, not bought");
	} else {
		struct http_client_options http = http_client_defaults;
		http.max_connections = (size_t)conf->provider_connections;
		http.max_connections_host = (size_t)conf->provider_connections;
		if (*conf->provider_ca_file)
			http.ca_file = conf->provider_ca_file;
		parts->http_client = must(http_client_new(gateway->loop, &http), "HTTP client");
	}
	struct provider_watch watch = {.on_attempt = on_attempt, .arg = gateway};
	gateway->provider = must(
		provider_choose(gateway->loop, parts->http_client, gateway->workers, conf, &watch),
		"provider");
}

static struct store *make_dir_store(const struct gateway *gateway, const struct gatewayd_conf *conf)
{
	struct store_dir_options options = {
		.dir = conf->store_dir,
		.prefix = gateway->provider->ops->store_prefix,
		.max_bytes = (uint64_t)conf->store_dir_max_bytes,
		.fsync = conf->store_dir_fsync ? STORE_FSYNC_FULL : STORE_FSYNC_NONE,
		.max_queued_puts = (size_t)conf->store_queue,
	};
	struct store *store = store_dir_new(gateway->loop, gateway->workers, &options);
	if (!store)
		die(EX_CANTCREAT, "STORE_DIR %s: %s", conf->store_dir, strerror(errno));
	return store;
}

static struct s3_options s3_options_of(const struct gatewayd_conf *conf)
{
	return (struct s3_options){.endpoint = conf->s3_endpoint,
		.bucket = conf->s3_bucket,
		.region = conf->s3_region,
		.access_key = conf->s3_access_key,
		.secret = conf->s3_secret,
		.session_token = conf->s3_session_token};
}

static struct store *make_s3_store(const struct gateway *gateway, const struct gatewayd_conf *conf)
{
	struct store_s3_options options = {
		.s3 = s3_options_of(conf),
		.prefix = gateway->provider->ops->store_prefix,
		.max_queued_puts = (size_t)conf->store_queue,
		/* Whoever looks gives up first: an end by this would pass for an answer. */
		.get_timeout_ms = (uint32_t)conf->store_deadline_ms + 1000,
		.put_timeout_ms = (uint32_t)conf->s3_timeout_ms,
	};
	return must(store_s3_new(gateway->loop, gateway->workers, &options), "s3 store");
}

static void make_store(struct gateway *gateway, const struct gatewayd_conf *conf)
{
	switch ((enum conf_store)conf->store) {
	case CONF_STORE_NONE:
		break;
	case CONF_STORE_DIR:
		gateway->store = make_dir_store(gateway, conf);
		break;
	case CONF_STORE_S3:
		gateway->store = make_s3_store(gateway, conf);
		break;
	case CONF_STORE_DIR_S3:
		gateway->store = must(store_tiers_new(gateway->loop, make_dir_store(gateway, conf),
					      make_s3_store(gateway, conf)),
			"tiers of the store");
		break;
	}
}

static void on_epoch_news(const struct epoch *epoch, void *arg)
{
	struct gateway *gateway = arg;
	purge_for_epoch(gateway->purger, epoch);
}

static void on_epochs_known(void *arg)
{
	struct gateway *gateway = arg;
	store_epochs_known(gateway->store);
}

/* Purges of the store lie where the embeddings lie, in each of the stores. */
static void make_epochs(struct gateway *gateway, const struct gatewayd_conf *conf)
{
	const char *prefix = gateway->provider->ops->store_prefix;
	bool dir = conf->store == CONF_STORE_DIR || conf->store == CONF_STORE_DIR_S3;
	bool s3 = conf->store == CONF_STORE_S3 || conf->store == CONF_STORE_DIR_S3;
	if (!gateway->store)
		return;
	gateway->epochs = must(purge_epochs_new(gateway->loop, (uint64_t)conf->purge_reread_ms),
		"table of epochs");
	if (dir)
		purge_epochs_add_place(
			gateway->epochs, must(epoch_place_dir(gateway->loop, gateway->workers,
						      conf->store_dir, prefix),
						 "place of epochs"));
	struct s3_options bucket = s3_options_of(conf);
	if (s3)
		purge_epochs_add_place(gateway->epochs,
			must(epoch_place_s3(gateway->loop, &bucket, prefix), "place of epochs"));
	store_use_epochs(gateway->store, gateway->epochs);
	struct purge_epochs_events events = {
		.on_news = on_epoch_news, .on_known = on_epochs_known, .arg = gateway};
	purge_epochs_start(gateway->epochs, &events);
}

static void load_client_keys(struct gateway *gateway, const struct gatewayd_conf *conf)
{
	char error[256];
	if (!*conf->client_keys_file)
		return;
	gateway->client_keys = client_keys_load(conf->client_keys_file, error, sizeof error);
	if (!gateway->client_keys)
		die(EX_CONFIG, "CLIENT_KEYS_FILE %s", error);
	log_info("client keys: %zu", client_keys_count(gateway->client_keys));
}

/* A file that cannot be read changes nothing. */
void parts_reload(void *arg)
{
	struct parts *parts = arg;
	struct gateway *gateway = &parts->gateway;
	char error[256];
	if (!gateway->client_keys)
		return;
	struct client_keys *keys = client_keys_load(
		gateway->conf->client_keys_file, error, sizeof error);
	if (!keys) {
		log_error("CLIENT_KEYS_FILE not reloaded: %s", error);
		return;
	}
	client_keys_inherit(keys, gateway->client_keys);
	client_keys_free(&gateway->client_keys);
	gateway->client_keys = keys;
	log_info("client keys: %zu", client_keys_count(keys));
}

static void make_flights(struct gateway *gateway, const struct gatewayd_conf *conf)
{
	gateway->legacy_read = conf->store_legacy_read && gateway->store && !gateway->mock &&
			       conf->scope == CONF_SCOPE_SHARED;
	if (conf->instances > 1)
		gateway->peers = must(peers_new(gateway->loop, conf->daemon.run_dir,
					      (unsigned)conf->instance, (unsigned)conf->instances),
			"table of peers");
	struct flights_options options = {
		.max_flights = MAX_FLIGHTS,
		.max_look_ups = MAX_LOOK_UPS,
		.parallel_look_ups = (size_t)conf->store_parallel,
		.legacy_read = gateway->legacy_read,
		.legacy_layout = conf->store_legacy_layout == CONF_LEGACY_HASHED
					 ? STORE_LAYOUT_HASHED
					 : STORE_LAYOUT_EMBEDDINGS,
		.store_deadline_ms = (uint64_t)conf->store_deadline_ms,
		.ttl_ms = (uint64_t)conf->cache_ttl_ms,
		.grace_ms = (uint64_t)conf->cache_grace_ms,
	};
	struct flights_events events = {
		.on_object = embeddings_on_object,
		.on_failure = embeddings_on_failure,
		.on_bought = on_bought,
		.on_fetched = on_fetched,
		.arg = gateway,
	};
	gateway->flights = must(
		flights_new(gateway->loop, gateway->cache, gateway->store, gateway->workers,
			gateway->provider, gateway->peers, &options, &events),
		"table of flights");
}

static void make_purger(struct parts *parts, const struct gatewayd_conf *conf)
{
	struct gateway *gateway = &parts->gateway;
	parts->cleaner = must(cache_cleaner_new(gateway->loop, gateway->cache, gateway->workers),
		"cleaner of the cache");
	struct purger_options options = {
		.run_dir = conf->daemon.run_dir,
		.self = (unsigned)conf->instance,
		.n = (unsigned)conf->instances,
		.token = &conf->purge_token,
		.epochs = gateway->epochs,
		.cleaner = parts->cleaner,
	};
	gateway->purger = must(purger_new(gateway->loop, gateway->cache, &options), "purger");
}

static void make_listeners(struct parts *parts, const struct gatewayd_conf *conf)
{
	char address[64];
	const char *listen = conf->listen;
	if (!*listen) {
		snprintf(address, sizeof address, "127.0.0.1:%d", 8100 + (int)conf->instance);
		listen = address;
	}
	struct http_server_options options = http_server_defaults;
	options.max_body_bytes = (size_t)conf->max_body_bytes;
	options.max_connections = (size_t)conf->max_connections;
	parts->http = must(
		exchange_http_new(parts->daemon, &options, (uint64_t)conf->body_budget_bytes,
			&conf->access_log_sample, gateway_serve, &parts->gateway),
		"HTTP server");
	parts->rpc = must(exchange_rpc_new(parts->gateway.loop, parts->gateway.leases,
				  (size_t)conf->max_body_bytes, gateway_serve, &parts->gateway),
		"RPC server");
	parts->rpc_server = daemon_serve_rpc(parts->daemon, exchange_rpc_methods(parts->rpc));
	parts->purge_methods[0] = purge_rpc_method;
	parts->purge_methods[0].arg = &parts->gateway;
	if (rpc_server_add(parts->rpc_server, parts->purge_methods) < 0)
		die(EX_OSERR, "cannot serve purge");
	if (exchange_http_listen(parts->http, daemon_listen(parts->daemon, "http", listen)) < 0)
		die(EX_OSERR, "cannot listen on %s: %s", listen, strerror(errno));
}

struct parts *parts_new(struct daemon *daemon, const struct gatewayd_conf *conf)
{
	struct parts *parts = must(calloc(1, sizeof *parts), "parts");
	struct gateway *gateway = &parts->gateway;
	parts->daemon = daemon;
	gateway->loop = daemon_loop(daemon);
	gateway->conf = conf;
	parts->otlp = must(otlp_new(daemon, &conf->otlp), "exporter of traces");
	gateway->workers = must(
		workers_new(gateway->loop, (unsigned)conf->worker_threads, MAX_QUEUED_JOBS),
		"worker threads");
	struct cache_options cache = {.budget_bytes = (uint64_t)conf->cache_bytes};
	gateway->cache = must(cache_new(&cache), "memory cache");
	gateway->leases = must(leases_new(gateway->cache), "table of leases");
	make_provider(parts, conf);
	load_client_keys(gateway, conf);
	make_store(gateway, conf);
	make_epochs(gateway, conf);
	make_flights(gateway, conf);
	gateway->refresher = must(
		refresher_new(gateway->loop, gateway->cache, gateway->store,
			(uint64_t)conf->cache_ttl_ms, (uint64_t)conf->cache_grace_ms),
		"refresher");
	make_purger(parts, conf);
	gateway->models = must(models_new(gateway), "table of lists");
	gateway->instance_id = daemon_instance_id(daemon);
	gateway->stats = must(stats_new(daemon_metrics(daemon), gateway), "statistics");
	make_listeners(parts, conf);
	return parts;
}

/* ---- Drain: each part tells the next ---- */

static void on_flushed(void *arg)
{
	struct parts *parts = arg;
	daemon_drained(parts->daemon);
}

static void on_store_drained(void *arg)
{
	struct parts *parts = arg;
	otlp_flush(parts->otlp, on_flushed, parts);
}

static void on_flights_idle(void *arg)
{
	struct parts *parts = arg;
	if (parts->gateway.store)
		store_drain(parts->gateway.store, on_store_drained, parts);
	else
		on_store_drained(parts);
}

static void on_rpc_drained(void *arg)
{
	struct parts *parts = arg;
	flights_on_idle(parts->gateway.flights, on_flights_idle, parts);
}

static void on_http_drained(void *arg)
{
	struct parts *parts = arg;
	rpc_server_drain(parts->rpc_server, on_rpc_drained, parts);
}

void parts_drain(void *arg)
{
	struct parts *parts = arg;
	/* The siblings drain too, perhaps: nobody waits for the other. */
	exchange_rpc_drain(parts->rpc);
	if (parts->gateway.peers)
		peers_drain(parts->gateway.peers);
	exchange_http_drain(parts->http, on_http_drained, parts);
}

void parts_free(struct parts **pointer)
{
	struct parts *parts = *pointer;
	struct gateway *gateway = &parts->gateway;
	/* First those whose requests wait for flights. */
	exchange_http_free(&parts->http);
	daemon_close_rpc(parts->daemon);
	purger_free(&gateway->purger);
	models_free(&gateway->models);
	flights_free(&gateway->flights);
	peers_free(&gateway->peers);
	refresher_free(&gateway->refresher);
	store_free(&gateway->store);
	purge_epochs_free(&gateway->epochs);
	provider_free(&gateway->provider);
	workers_free(&gateway->workers);
	http_client_free(&parts->http_client);
	leases_free(&gateway->leases);
	cache_cleaner_free(&parts->cleaner);
	cache_free(&gateway->cache);
	exchange_rpc_free(&parts->rpc);
	stats_free(&gateway->stats);
	client_keys_free(&gateway->client_keys);
	otlp_free(&parts->otlp);
	free(parts);
	*pointer = NULL;
}
