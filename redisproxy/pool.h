#ifndef REDISPROXY_POOL_H
#define REDISPROXY_POOL_H

/*
 * The connections to one server for one user, database and RESP version: a few that all ordinary
 * clients share, and those that are a client's own for a while. A pool is shared by clients with
 * the same credentials only, which the server itself has checked for each of them.
 *
 * Each client holds a reference. A pool without clients is closed a little later.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"
#include "redisproxy/conf.h"
#include "redisproxy/stats.h"

struct client;
struct proxy;
struct server;
struct upstream;

struct pool_key {
	struct server *server;
	struct span user, password; /* no password: the default user without AUTH */
	uint32_t db;
	uint8_t resp;   /* 2 or 3 */
	uint8_t logins; /* 0; 1, 2: the connections that check AUTH and HELLO */
	bool replica;   /* of a cluster: READONLY is said */
	bool of_node;   /* of a cluster: belongs to another pool, see pool_of_node() */
};

struct pool {
	struct proxy *proxy;
	struct server *server;
	struct pool_key key; /* its spans are owned */
	struct buf login;    /* the commands that a new connection begins with */
	unsigned login_count;
	unsigned refs;
	uint64_t unused_since_us;
	struct pool_stats stats;
	uint64_t tried_us; /* when a waiting client last had us connect */
	struct upstream *shared[CONF_MAX_SHARED];
	struct upstream *idle, *last_idle;
	unsigned n_idle;
	struct pool *next;
	/* In a cluster: the pools of the same user, database and version at the nodes; references,
	 * made when needed, by twice the id of the node, and one more for READONLY. */
	struct pool **nodes;
	unsigned n_nodes;
};

/* The pool with a reference for the caller. NULL: too many pools, or out of memory. */
struct pool *pool_get(struct proxy *proxy, const struct pool_key *key);
struct pool *pool_ref(struct pool *pool);
void pool_unref(struct pool **pool);
/* The pool for the same user, database and version at a node of the cluster; borrowed, lives as
 * long as `home`. NULL when out of memory. */
struct pool *pool_of_node(struct pool *home, struct server *node, bool replica);

/* A shared connection, which may not be ready yet; slot chooses among them. NULL: none can be made
 * just now. */
struct upstream *pool_shared(struct pool *pool, unsigned slot);
bool pool_has_ready(const struct pool *pool);
/* A connection of the client's own, which may not be ready yet. NULL as above. */
struct upstream *pool_take_own(struct pool *pool, struct client *client);
/* Give it back; nothing is under way, nothing is left of its state. */
void pool_give_back(struct pool *pool, struct upstream *up);

/* It takes nothing new and is closed when nothing is under way; another one takes its place. */
void pool_set_apart(struct upstream *up);

/* From upstream.c. */
void pool_upstream_ready(struct pool *pool, struct upstream *up);
/* Wakes some of those who wait for room. True: there are more. */
bool pool_upstream_has_room(struct pool *pool, struct upstream *up);
void pool_upstream_closed(struct pool *pool, struct upstream *up, const char *never_ready_because);
void pool_login_refused(struct pool *pool, struct upstream *up);
/* The server said READONLY. */
void pool_demoted(struct pool *pool);
uint64_t pool_expiry_us(struct pool *pool, uint64_t now_us);

/* From cluster.c and sentinel.c. Answer what is under way on the shared connections to it with this
 * error. */
void pools_close_shared(struct proxy *proxy, struct server *server, const char *reason);
/* The same for connections of clients' own. */
void pools_close_own(struct proxy *proxy, struct server *server, const char *reason);
/* The server has another address: its connections take nothing new and go when they are at rest. */
void pools_replace(struct proxy *proxy, struct server *server);
/* No client needs it: its pools go. */
void pools_forget_server(struct proxy *proxy, struct server *server);

/* From control.c. Who comes now may do less than those who came before: the connections of clients
 * that have not said AUTH take nothing new, and others are made. */
void pools_log_in_anew(struct proxy *proxy, struct server *server);
/* The server says nothing: shared connections are closed, those of clients' own stay. */
void pools_silent(struct proxy *proxy, struct server *server);
void pools_health_changed(struct proxy *proxy, struct server *server, bool up);
/* Once a second: times of connections and pools. */
void pools_sweep(struct proxy *proxy);
/* At the end. */
void pools_free(struct proxy *proxy);

#endif
