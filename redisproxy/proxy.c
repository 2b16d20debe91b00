#include "redisproxy/proxy.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/daemon.h"
#include "common/log.h"
#include "common/resolve.h"
#include "redisproxy/budget.h"
#include "redisproxy/client.h"
#include "redisproxy/cluster.h"
#include "redisproxy/hotkeys.h"
#include "redisproxy/listener.h"
#include "redisproxy/place.h"
#include "redisproxy/pool.h"
#include "redisproxy/sentinel.h"
#include "redisproxy/server.h"
#include "redisproxy/tls.h"
#include "redisproxy/upstream.h"
#include "redisproxy/waiting.h"

#define SWEEP_MS     1000
#define MAX_ROUNDS   16 /* of clients that can go on at once */
#define GATHER_LEAST 4  /* what is expected soon */
#define GATHER_MOST  32
#define GATHER_EACH  5 /* microseconds for each of it */
#define GATHER_BYTES (64 << 10)

static void destroy_dead(struct proxy *proxy)
{
	while (proxy->dead_upstreams) {
		struct upstream *up = proxy->dead_upstreams;

		proxy->dead_upstreams = up->next_dirty;
		upstream_destroy(up);
	}
	while (proxy->dead_clients) {
		struct client *c = proxy->dead_clients;

		proxy->dead_clients = c->next_dirty;
		client_destroy(c);
	}
}

static void flush_upstreams(struct proxy *proxy)
{
	struct upstream *up = proxy->dirty_upstreams;

	proxy->dirty_upstreams = NULL;
	proxy->dirty_upstreams_end = &proxy->dirty_upstreams;
	while (up) {
		struct upstream *next = up->next_dirty;

		up->is_dirty = false;
		if (up->state == UPSTREAM_DEAD) {
			up->next_dirty = proxy->dead_upstreams;
			proxy->dead_upstreams = up;
		} else {
			upstream_flush(up);
		}
		up = next;
	}
}

/* Take the list; those that can go on do, and may put others, or themselves again, on a new one. */
static void run_clients(struct proxy *proxy, struct client **to_flush)
{
	struct client **end = to_flush;

	for (int round = 0; proxy->dirty_clients && round < MAX_ROUNDS; round++) {
		struct client *c = proxy->dirty_clients;

		proxy->dirty_clients = NULL;
		proxy->dirty_clients_end = &proxy->dirty_clients;
		while (c) {
			struct client *next = c->next_dirty;

			if (c->again)
				client_continue(c);
			c->next_dirty = NULL;
			*end = c;
			end = &c->next_dirty;
			c = next;
		}
		/* They are still marked dirty, so that none can be on both lists, except by asking
		 * to be looked at again. */
	}
}

static void flush_clients(struct proxy *proxy, struct client *c)
{
	while (c) {
		struct client *next = c->next_dirty;

		c->is_dirty = false;
		if (!c->dead)
			client_flush(c);
		if (c->dead && !c->in_flight && !c->buried) {
			c->buried = true;
			c->next_dirty = proxy->dead_clients;
			proxy->dead_clients = c;
		} else if (!c->dead && c->again && !c->is_dirty) {
			/* For the next turn. */
			client_mark(c);
		}
		c = next;
	}
}

static void note_served(struct proxy *proxy, struct client *c)
{
	uint64_t ms = proxy->now_us / 1000;

	if (ms != proxy->served_ms) {
		proxy->n_served_before = ms == proxy->served_ms + 1 ? proxy->n_served : 0;
		proxy->n_served = 0;
		proxy->served_ms = ms;
	}
	for (; c; c = c->next_dirty)
		if (c->served_ms != ms) {
			c->served_ms = ms;
			proxy->n_served++;
		}
}

/* Those that had replies in this turn are about to send their next commands, or to get the next of
 * their replies; of those that had some in this millisecond or the last one, some will soon. All of
 * it will be read, sent on and written together. Where there was much in this turn, enough has come
 * already; and where replies are large, their server waits for them to be read. */
static void gather(struct proxy *proxy, struct client *served)
{
	unsigned clients = 0, expected = 0;
	bool is_much = proxy->reply_bytes >= GATHER_BYTES;

	proxy->reply_bytes = 0;
	note_served(proxy, served);
	if (!served || is_much)
		return;
	for (const struct client *c = served; c && expected < GATHER_MOST; c = c->next_dirty) {
		clients++;
		expected += 1 + c->in_flight;
	}
	if (expected < proxy->n_served / 2)
		expected = proxy->n_served / 2;
	if (expected < proxy->n_served_before / 2)
		expected = proxy->n_served_before / 2;
	if (expected >= GATHER_LEAST && clients < GATHER_MOST)
		loop_gather(proxy->loop, expected * GATHER_EACH);
}

static void on_turn(void *arg)
{
	struct proxy *proxy = arg;
	struct client *to_flush = NULL;

	proxy->now_us = loop_now_us(proxy->loop);
	run_clients(proxy, &to_flush);
	flush_upstreams(proxy);
	gather(proxy, to_flush);
	flush_clients(proxy, to_flush);
	budget_keep(proxy);
	destroy_dead(proxy);
}

static void on_sweep(void *arg)
{
	struct proxy *proxy = arg;

	pools_sweep(proxy);
	budget_sweep(proxy);
	if (proxy->stats.hotkeys)
		hotkeys_age(proxy->stats.hotkeys, proxy->now_us);
	timer_arm(proxy->sweep_timer, SWEEP_MS);
}

static void collect(void *arg)
{
	struct proxy *proxy = arg;
	metric_set(proxy->stats.clients, proxy->n_clients);
	metric_set(proxy->stats.pools, proxy->n_pools);
	metric_set(proxy->stats.client_memory, proxy->budget.held);
	for (struct pool *pool = proxy->pools; pool; pool = pool->next)
		stats_pool_collect(&pool->stats);
	/* Nodes come and go, and take each other's addresses. */
	if (proxy->cluster)
		for (size_t i = STATS_CONNECTIONS; i <= STATS_UP; i++)
			metrics_forget(proxy->stats.metrics, &stats_families[i]);
	for (struct server *server = proxy->servers; server; server = server_next(server)) {
		const char *address = server_address(server);
		struct server_count *n = server_count(server);
		unsigned idle = 0;

		for (struct upstream *up = proxy->upstreams; up; up = up->next)
			idle += up->pool->server == server && !up->count && !up->owner;
		metric_set(
			metric(proxy->stats.metrics, &stats_families[STATS_CONNECTIONS], address),
			n->open);
		metric_set(
			metric(proxy->stats.metrics, &stats_families[STATS_IDLE], address), idle);
		metric_set(metric(proxy->stats.metrics, &stats_families[STATS_UP], address),
			server_up(server));
	}
}

static int make_pools(struct proxy *proxy)
{
	const struct redisproxy_conf *conf = proxy->conf;
	struct pool_key key = {.server = proxy->writer,
		.user = span_of(conf->remote_username),
		.password = span_of(conf->remote_password),
		.resp = 2};

	proxy->default_pool = pool_get(proxy, &key);
	for (uint8_t i = 0; i < 2; i++) {
		key = (struct pool_key){.server = proxy->writer, .resp = 2, .logins = i + 1};
		proxy->login[i] = pool_get(proxy, &key);
	}
	return proxy->default_pool && proxy->login[0] && proxy->login[1] ? 0 : -1;
}

/* What conf.c let pass can only be wrong in the files. */
static int make_tls(struct proxy *proxy)
{
	const struct redisproxy_conf *conf = proxy->conf;
	char error[256];

	if (zone_init(&proxy->zone, conf->zone_cidrs, conf->own_ip, error, sizeof error) < 0)
		return -1;
	if (!conf->tls)
		return 0;
	proxy->tls = tls_new(conf, error, sizeof error);
	if (!proxy->tls)
		log_error("%s", error);
	return proxy->tls ? 0 : -1;
}

struct proxy *proxy_new(struct daemon *daemon, const struct redisproxy_conf *conf)
{
	struct proxy *proxy = calloc(1, sizeof *proxy);
	char error[256];

	if (!proxy)
		return NULL;
	proxy->daemon = daemon;
	proxy->loop = daemon_loop(daemon);
	proxy->conf = conf;
	proxy->dirty_clients_end = &proxy->dirty_clients;
	proxy->dirty_upstreams_end = &proxy->dirty_upstreams;
	deferred_init(&proxy->turn, on_turn, proxy);
	proxy->commands = commands_new(daemon_metrics(daemon));
	proxy->sweep_timer = timer_new(proxy->loop, on_sweep, proxy);
	proxy->resolver = resolver_new(proxy->loop, RESOLVE_ANY);
	if (!proxy->resolver || make_tls(proxy) < 0)
		goto fail;
	proxy->writer = server_new(
		proxy, conf->mode == CONF_SENTINEL ? "" : conf->remote_address, SERVER_WRITER);
	if (places_init(proxy) < 0 || waiting_init(proxy) < 0 ||
		stats_init(&proxy->stats, daemon_metrics(daemon), conf) < 0)
		goto fail;
	if (!proxy->commands || !proxy->sweep_timer || !proxy->writer)
		goto fail;
	if (conf->mode == CONF_CLUSTER) {
		proxy->cluster = cluster_new(proxy);
		if (!proxy->cluster)
			goto fail;
	} else if (conf->mode == CONF_SENTINEL) {
		if (conf->reader_routing)
			proxy->reader = server_new(proxy, "", SERVER_READER);
		if (conf->reader_routing && !proxy->reader)
			goto fail;
		proxy->sentinel = sentinel_new(proxy, error, sizeof error);
		if (!proxy->sentinel) {
			log_error("%s", error);
			goto fail;
		}
	} else if (conf->reader_routing && *conf->reader_address &&
		   strcmp(conf->reader_address, conf->remote_address) != 0) {
		proxy->reader = server_new(proxy, conf->reader_address, SERVER_READER);
		if (!proxy->reader)
			goto fail;
	}
	if (*conf->reader_address && !conf->reader_routing)
		log_warn("READER_REMOTE_ADDRESS is not used without READER_ROUTING");
	if (make_pools(proxy) < 0)
		goto fail;
	metrics_on_collect(daemon_metrics(daemon), collect, proxy);
	timer_arm(proxy->sweep_timer, SWEEP_MS);
	return proxy;
fail:
	proxy_free(&proxy);
	return NULL;
}

void proxy_free(struct proxy **proxy_)
{
	struct proxy *proxy = *proxy_;

	if (!proxy)
		return;
	*proxy_ = NULL;
	/* Nobody is told about the end of the last client now. */
	proxy->draining = false;
	listener_free(&proxy->listener);
	while (proxy->clients)
		client_close(proxy->clients);
	struct client *none = NULL;

	for (struct client *c = proxy->dirty_clients, *next; c; c = next) {
		next = c->next_dirty;
		c->again = false;
		c->next_dirty = none;
		none = c;
	}
	proxy->dirty_clients = NULL;
	proxy->dirty_clients_end = &proxy->dirty_clients;
	/* Closing the connections ends what was under way for clients that are gone. */
	for (struct upstream *up = proxy->upstreams, *next; up; up = next) {
		next = up->next;
		upstream_close(up, NULL);
	}
	places_free(proxy);
	flush_upstreams(proxy);
	flush_clients(proxy, none);
	destroy_dead(proxy);
	pool_unref(&proxy->default_pool);
	pool_unref(&proxy->login[0]);
	pool_unref(&proxy->login[1]);
	pools_free(proxy);
	cluster_free(&proxy->cluster);
	sentinel_free(&proxy->sentinel);
	server_free(&proxy->reader);
	server_free(&proxy->writer);
	resolver_free(&proxy->resolver);
	tls_free(&proxy->tls);
	waiting_free(proxy);
	timer_free(&proxy->sweep_timer);
	commands_free(&proxy->commands);
	stats_free(&proxy->stats);
	loop_defer_cancel(proxy->loop, &proxy->turn);
	free(proxy);
}

int proxy_listen(struct proxy *proxy, int fd)
{
	proxy->listener = listener_new(proxy, fd);
	return proxy->listener ? 0 : -1;
}

void proxy_drain(struct proxy *proxy)
{
	proxy->draining = true;
	listener_free(&proxy->listener);
	proxy_client_closed(proxy);
}

void proxy_client_closed(struct proxy *proxy)
{
	if (proxy->listener)
		listener_resume(proxy->listener);
	if (proxy->draining && !proxy->n_clients)
		daemon_drained(proxy->daemon);
}
