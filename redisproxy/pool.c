#include "redisproxy/pool.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"
#include "common/log.h"
#include "redisproxy/client.h"
#include "redisproxy/cluster.h"
#include "redisproxy/place.h"
#include "redisproxy/proxy.h"
#include "redisproxy/resp.h"
#include "redisproxy/sentinel.h"
#include "redisproxy/server.h"
#include "redisproxy/upstream.h"
#include "redisproxy/waiting.h"

#define LINGER_US        (10 * 1000000ull) /* a pool without clients */
#define DEFAULT_MAX_IDLE 16
#define DEMOTED_AGAIN_US 1000000
#define MAX_HELD_UP_US   5000000 /* by a client that takes its reply slowly */
#define LAST_WAIT_US     500000  /* of a blocking command whose client has sent its last byte */
#define WOKEN_FOR_ROOM   2

/* ---- keys ---- */

static bool same_key(const struct pool_key *a, const struct pool_key *b)
{
	return a->server == b->server && a->db == b->db && a->resp == b->resp &&
	       a->logins == b->logins && a->replica == b->replica && a->of_node == b->of_node &&
	       span_equal(a->user, b->user) && span_equal(a->password, b->password);
}

static struct span copy_span(struct span s)
{
	char *copy = malloc(s.len + 1);

	if (!copy)
		return (struct span){NULL, 0};
	if (s.len)
		memcpy(copy, s.data, s.len);
	copy[s.len] = '\0';
	return (struct span){copy, s.len};
}

static void make_login(struct pool *pool)
{
	struct span argv[5];
	uint32_t n = 0;
	struct span user = pool->key.user.len ? pool->key.user : SPAN_LITERAL("default");
	char db[16];

	buf_init(&pool->login, 1 << 20);
	if (pool->key.resp == 3) {
		argv[n++] = SPAN_LITERAL("HELLO");
		argv[n++] = SPAN_LITERAL("3");
	}
	if (pool->key.password.len) {
		argv[n++] = SPAN_LITERAL("AUTH");
		/* Servers before 6 know no users. */
		if (pool->key.resp == 3 || pool->key.user.len)
			argv[n++] = user;
		argv[n++] = pool->key.password;
	}
	if (n) {
		resp_append_command(&pool->login, argv, n);
		pool->login_count++;
	}
	if (pool->key.replica) {
		resp_append_command(&pool->login, (struct span[]){SPAN_LITERAL("READONLY")}, 1);
		pool->login_count++;
	}
	if (pool->key.db) {
		snprintf(db, sizeof db, "%u", pool->key.db);
		resp_append_command(
			&pool->login, (struct span[]){SPAN_LITERAL("SELECT"), span_of(db)}, 2);
		pool->login_count++;
	}
}

static void destroy(struct pool *pool)
{
	stats_pool_collect(&pool->stats);
	free((char *)pool->key.user.data);
	free((char *)pool->key.password.data);
	buf_free(&pool->login);
	for (unsigned i = 0; i < pool->n_nodes; i++)
		if (pool->nodes[i])
			pool_unref(&pool->nodes[i]);
	free(pool->nodes);
	free(pool);
}

struct pool *pool_get(struct proxy *proxy, const struct pool_key *key)
{
	for (struct pool *pool = proxy->pools; pool; pool = pool->next)
		if (same_key(&pool->key, key))
			return pool_ref(pool);
	if (!key->of_node && proxy->n_pools >= (unsigned)proxy->conf->max_pools)
		return NULL;
	struct pool *pool = calloc(1, sizeof *pool);

	if (!pool)
		return NULL;
	pool->proxy = proxy;
	pool->server = key->server;
	pool->key = *key;
	pool->key.user = copy_span(key->user);
	pool->key.password = copy_span(key->password);
	if (pool->key.user.data && pool->key.password.data && !key->logins)
		make_login(pool);
	if (!pool->key.user.data || !pool->key.password.data || buf_failed(&pool->login)) {
		destroy(pool);
		return NULL;
	}
	pool->next = proxy->pools;
	proxy->pools = pool;
	proxy->n_pools += !key->of_node;
	return pool_ref(pool);
}

struct pool *pool_of_node(struct pool *home, struct server *node, bool replica)
{
	unsigned at = server_id(node) * 2 + replica;

	if (at < home->n_nodes && home->nodes[at])
		return home->nodes[at];
	if (at >= home->n_nodes) {
		unsigned n = (at + 8) & ~7u;
		struct pool **nodes = realloc(home->nodes, n * sizeof *nodes);

		if (!nodes)
			return NULL;
		memset(nodes + home->n_nodes, 0, (n - home->n_nodes) * sizeof *nodes);
		home->nodes = nodes;
		home->n_nodes = n;
	}
	struct pool_key key = home->key;

	key.server = node;
	key.replica = replica;
	key.of_node = true;
	return home->nodes[at] = pool_get(home->proxy, &key);
}

struct pool *pool_ref(struct pool *pool)
{
	pool->refs++;
	return pool;
}

void pool_unref(struct pool **pool)
{
	struct pool *p = *pool;

	*pool = NULL;
	if (p && --p->refs == 0)
		p->unused_since_us = loop_now_us(p->proxy->loop);
}

/* ---- shared connections ---- */

struct upstream *pool_shared(struct pool *pool, unsigned slot)
{
	unsigned n = pool->key.logins ? 1 : (unsigned)pool->proxy->conf->shared_connections;
	struct upstream **at = &pool->shared[slot % n];

	if (*at && !(*at)->retiring)
		return *at;
	/* A ready neighbour is better than one that has to be made. */
	struct upstream *made = NULL;

	if (server_count(pool->server)->open < (unsigned)pool->proxy->conf->max_connections)
		made = upstream_new(pool, true, NULL);
	if (made)
		return *at = made;
	/* Two connections to one node could put a client's commands into another order. */
	if (pool->key.of_node)
		return NULL;
	for (unsigned i = 0; i < n; i++)
		if (pool->shared[i] && !pool->shared[i]->retiring)
			return pool->shared[i];
	return NULL;
}

bool pool_has_ready(const struct pool *pool)
{
	for (unsigned i = 0; i < CONF_MAX_SHARED; i++)
		if (pool->shared[i] && pool->shared[i]->state == UPSTREAM_READY &&
			!pool->shared[i]->retiring)
			return true;
	return false;
}

/* ---- connections of a client's own ---- */

static struct upstream *pop_idle(struct pool *pool)
{
	struct upstream *up = pool->idle;

	if (!up)
		return NULL;
	pool->idle = up->next_idle;
	if (!pool->idle)
		pool->last_idle = NULL;
	pool->n_idle--;
	server_count(pool->server)->idle--;
	up->next_idle = NULL;
	return up;
}

static void push_idle(struct pool *pool, struct upstream *up)
{
	up->next_idle = NULL;
	if (pool->proxy->conf->strategy == 1) {
		up->next_idle = pool->idle;
		pool->idle = up;
		if (!pool->last_idle)
			pool->last_idle = up;
	} else {
		if (pool->last_idle)
			pool->last_idle->next_idle = up;
		else
			pool->idle = up;
		pool->last_idle = up;
	}
	pool->n_idle++;
	server_count(pool->server)->idle++;
}

static void remove_idle(struct pool *pool, struct upstream *gone)
{
	struct upstream *last = NULL;

	for (struct upstream **at = &pool->idle; *at; at = &(*at)->next_idle) {
		if (*at == gone) {
			*at = gone->next_idle;
			gone->next_idle = NULL;
			if (pool->last_idle == gone)
				pool->last_idle = last;
			pool->n_idle--;
			server_count(pool->server)->idle--;
			return;
		}
		last = *at;
	}
}

struct upstream *pool_take_own(struct pool *pool, struct client *client)
{
	struct upstream *up = pop_idle(pool);

	if (!up) {
		if (server_count(pool->server)->open >=
			(unsigned)pool->proxy->conf->max_connections)
			return NULL;
		return upstream_new(pool, false, client);
	}
	up->owner = client;
	return up;
}

static unsigned max_idle(const struct pool *pool)
{
	int64_t max = pool->proxy->conf->max_idle;
	int64_t min = pool->proxy->conf->min_idle;

	if (!max)
		max = DEFAULT_MAX_IDLE;
	return (unsigned)(max > min ? max : min);
}

void pool_give_back(struct pool *pool, struct upstream *up)
{
	up->owner = NULL;
	up->idle_since_us = loop_now_us(pool->proxy->loop);
	if (up->retiring || up->state != UPSTREAM_READY || pool->n_idle >= max_idle(pool) ||
		up->idle_since_us > up->expires_us)
		upstream_close(up, NULL);
	else
		push_idle(pool, up);
}

/* ---- what happens to connections ---- */

void pool_upstream_ready(struct pool *pool, struct upstream *up)
{
	if (up->is_shared)
		waiting_wake(up, NULL);
	else if (up->owner)
		client_wake(up->owner, NULL);
	else
		push_idle(pool, up);
	places_schedule(pool->proxy);
}

bool pool_upstream_has_room(struct pool *pool, struct upstream *up)
{
	places_schedule(pool->proxy);
	return waiting_wake_for_room(up, WOKEN_FOR_ROOM);
}

void pool_login_refused(struct pool *pool, struct upstream *up)
{
	char text[600];
	size_t len = up->refusal.len - 3; /* '-' ... CRLF */

	snprintf(text, sizeof text, "%.*s", (int)len, (const char *)up->refusal.data + 1);
	waiting_wake(up, text);
	places_refused(pool->proxy, pool, text);
	upstream_close(up, text);
}

void pool_upstream_closed(struct pool *pool, struct upstream *up, const char *never_ready_because)
{
	for (unsigned i = 0; i < CONF_MAX_SHARED; i++)
		if (pool->shared[i] == up) {
			pool->shared[i] = NULL;
			pool->proxy->epoch++;
		}
	if (!up->is_shared && !up->owner)
		remove_idle(pool, up);
	waiting_wake_for_room(up, UINT_MAX);
	if (up->slow)
		client_upstream_gone(up->slow, up);
	if (never_ready_because && up->is_shared && pool->refs)
		log_debug("%s: %s", server_address(pool->server), never_ready_because);
}

uint64_t pool_expiry_us(struct pool *pool, uint64_t now_us)
{
	const struct redisproxy_conf *conf = pool->proxy->conf;
	uint32_t random;

	if (!conf->max_lifetime_ms)
		return UINT64_MAX;
	digest_random(&random, sizeof random);
	double share = (double)random / 2147483648.0 - 1; /* [-1, 1) */

	return now_us +
	       (uint64_t)((double)conf->max_lifetime_ms * 1000 * (1 + share * conf->jitter));
}

void pool_set_apart(struct upstream *up)
{
	struct pool *pool = up->pool;

	if (up->retiring)
		return;
	up->retiring = true;
	if (!up->apart_us)
		up->apart_us = pool->proxy->now_us;
	/* Its place is free at once; clients with something under way stay until it is done. */
	for (unsigned i = 0; i < CONF_MAX_SHARED; i++)
		if (pool->shared[i] == up) {
			pool->shared[i] = NULL;
			pool->proxy->epoch++;
		}
	if (!up->count && !up->owner)
		upstream_close(up, NULL);
}

void pool_demoted(struct pool *pool)
{
	static uint64_t last_us;
	struct proxy *proxy = pool->proxy;

	if (pool->server != proxy->writer || proxy->now_us - last_us < DEMOTED_AGAIN_US)
		return;
	last_us = proxy->now_us;
	log_warn("%s says READONLY: it is no writer any more; looking it up again",
		server_address(pool->server));
	metric_add(metric(proxy->stats.metrics, &stats_families[STATS_DEMOTED]), 1);
	server_refresh(pool->server);
	if (proxy->sentinel)
		sentinel_refresh(proxy->sentinel);
	pools_replace(proxy, proxy->writer);
}

static void replace(struct upstream *up)
{
	/* The present one may be in use by our caller: it goes with the next sweep. */
	if (up->count || up->owner)
		up->retiring = true;
	else
		pool_set_apart(up);
}

void pools_replace(struct proxy *proxy, struct server *server)
{
	for (struct upstream *up = proxy->upstreams, *next; up; up = next) {
		next = up->next;
		if (up->pool->server == server && !up->retiring)
			replace(up);
	}
}

void pools_log_in_anew(struct proxy *proxy, struct server *server)
{
	const struct pool_key *ours = &proxy->default_pool->key;

	/* Its clients' next commands go to other connections: not before what is under way. */
	proxy->epoch++;
	for (struct upstream *up = proxy->upstreams, *next; up; up = next) {
		const struct pool_key *key = &up->pool->key;

		next = up->next;
		if (up->pool->server == server && !up->retiring &&
			(!key->password.len || (span_equal(key->user, ours->user) &&
						       span_equal(key->password, ours->password))))
			replace(up);
	}
}

void pools_silent(struct proxy *proxy, struct server *server)
{
	for (struct upstream *up = proxy->upstreams, *next; up; up = next) {
		next = up->next;
		if (up->pool->server == server && !up->owner)
			upstream_close(
				up, up->is_shared ? "the upstream does not answer: the command may "
						    "have been executed all the same"
						  : NULL);
	}
}

void pools_close_shared(struct proxy *proxy, struct server *server, const char *reason)
{
	for (struct upstream *up = proxy->upstreams, *next; up; up = next) {
		next = up->next;
		if (up->pool->server == server && up->is_shared)
			upstream_close(up, reason);
	}
}

void pools_close_own(struct proxy *proxy, struct server *server, const char *reason)
{
	for (struct upstream *up = proxy->upstreams, *next; up; up = next) {
		next = up->next;
		if (up->pool->server == server && up->owner)
			upstream_close(up, reason);
	}
}

void pools_health_changed(struct proxy *proxy, struct server *server, bool is_up)
{
	if (proxy->cluster)
		cluster_health_changed(proxy->cluster, server, is_up);
	if (proxy->sentinel && !is_up)
		sentinel_refresh(proxy->sentinel);
	if (is_up || server != proxy->reader)
		return;
	metric_add(metric(proxy->stats.metrics, &stats_families[STATS_READS]), 1);
	/* Reads that hang would wait for long; the writer can answer their repetition. */
	pools_close_shared(proxy, server, "the reader is down");
}

/* ---- once a second ---- */

static void sweep_upstream(struct upstream *up, uint64_t now)
{
	const struct redisproxy_conf *conf = up->proxy->conf;
	bool at_rest = !up->count && !up->owner;
	uint64_t silent_us = now > up->heard_us ? now - up->heard_us : 0;

	if (at_rest && !out_pending(&up->out))
		out_free(&up->out);
	if (up->state < UPSTREAM_READY) {
		if (now - up->opened_us > (uint64_t)conf->connect_timeout_ms * 1000)
			upstream_close(up, "the upstream does not answer");
		return;
	}
	if (up->slow && up->is_shared && up->count > 1 && now - up->apart_us > MAX_HELD_UP_US) {
		client_too_slow(up->slow, "holds up others");
		return;
	}
	if ((up->is_shared || server_silent(up->pool->server)) && up->count && !up->slow &&
		!proxy_is_paused(up->proxy) &&
		silent_us > (uint64_t)conf->response_timeout_ms * 1000) {
		upstream_close(up, "the upstream does not answer");
		return;
	}
	/* Redis itself ends the wait of a client that has sent its last byte at once; but here the
	 * answer may be on its way. */
	if (up->owner && up->owner->ends && silent_us > LAST_WAIT_US &&
		upstream_waits_for_others(up)) {
		client_finish(up->owner);
		return;
	}
	if (now > up->expires_us || (up->retiring && up->is_shared)) {
		up->retiring = false;
		pool_set_apart(up);
		return;
	}
	if (at_rest && up->retiring)
		upstream_close(up, NULL);
	else if (at_rest && conf->max_idle_time_ms &&
		 now - up->idle_since_us > (uint64_t)conf->max_idle_time_ms * 1000 &&
		 (up->is_shared || up->pool->n_idle > (unsigned)conf->min_idle))
		upstream_close(up, NULL);
}

static void close_all(struct pool *pool)
{
	for (struct upstream *up = pool->proxy->upstreams, *next; up; up = next) {
		next = up->next;
		if (up->pool == pool)
			upstream_close(up, NULL);
	}
}

void pools_sweep(struct proxy *proxy)
{
	uint64_t now = loop_now_us(proxy->loop);

	proxy->now_us = now;
	for (struct upstream *up = proxy->upstreams, *next; up; up = next) {
		next = up->next;
		sweep_upstream(up, now);
	}
	struct pool **at = &proxy->pools;

	while (*at) {
		struct pool *pool = *at;

		if (pool->refs || now - pool->unused_since_us < LINGER_US) {
			/* The pool that new clients begin in has its connections ready. */
			if (pool == proxy->default_pool && server_up(pool->server))
				while (pool->n_idle < (unsigned)proxy->conf->min_idle) {
					struct upstream *up = upstream_new(pool, false, NULL);

					if (!up || up->state != UPSTREAM_READY)
						break;
				}
			at = &pool->next;
			continue;
		}
		close_all(pool);
		*at = pool->next;
		proxy->n_pools -= !pool->key.of_node;
		/* Its connections are destroyed at the end of the turn and do not look at it. */
		destroy(pool);
	}
}

void pools_forget_server(struct proxy *proxy, struct server *server)
{
	unsigned id = server_id(server);

	for (struct pool *pool = proxy->pools; pool; pool = pool->next)
		for (unsigned i = id * 2; i < id * 2 + 2; i++)
			if (i < pool->n_nodes && pool->nodes[i])
				pool_unref(&pool->nodes[i]);
	for (struct pool **at = &proxy->pools; *at;) {
		struct pool *pool = *at;

		if (pool->server != server) {
			at = &pool->next;
			continue;
		}
		BUG_ON(pool->refs);
		close_all(pool);
		*at = pool->next;
		proxy->n_pools -= !pool->key.of_node;
		destroy(pool);
	}
}

void pools_free(struct proxy *proxy)
{
	/* The pools of nodes go after those that hold them. */
	for (struct pool *pool = proxy->pools; pool; pool = pool->next) {
		close_all(pool);
		for (unsigned i = 0; i < pool->n_nodes; i++)
			if (pool->nodes[i])
				pool_unref(&pool->nodes[i]);
	}
	while (proxy->pools) {
		struct pool *pool = proxy->pools;

		proxy->pools = pool->next;
		destroy(pool);
	}
}
