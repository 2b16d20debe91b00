#ifndef REDISPROXY_PROXY_H
#define REDISPROXY_PROXY_H

/*
 * What all parts of the proxy share, and the turn of its loop.
 *
 *   client ──commands──▶ dispatch ──▶ upstream (shared or own) ──▶ server
 *   client ◀──replies, in the order of the upstream's queue──────── upstream
 *
 * The rule that keeps replies in order: the commands of one client that are under way are all on
 * one upstream connection. Before a client goes over to another one (reader, writer, its own), it
 * waits until nothing of it is under way. So a reply never has to be put aside, a pipeline is
 * executed in its order even where it spans two servers, and bytes pass through as they come.
 *
 * Callbacks of descriptors only read and queue. At the end of a turn proxy_schedule() has led to:
 * clients that can go on are looked at again, then upstreams are written to, then clients, then
 * what died is freed. So nothing is freed under anybody's feet and a turn costs one write for each
 * connection. Only a long run of commands (32 KiB) is written as soon as it was read, from where it
 * was read to.
 *
 * Where many clients are served the loop sleeps for some microseconds after a turn (loop_gather()):
 * what would come in several turns, each with its own wake-ups of all three processes, comes in
 * one.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/loop.h"
#include "redisproxy/command.h"
#include "redisproxy/conf.h"
#include "redisproxy/stats.h"
#include "redisproxy/zone.h"

#define PROXY_SCRATCH_BYTES (80 << 10)

struct client;
struct cluster;
struct place;
struct upstream;
struct pool;
struct resolver;
struct sentinel;
struct server;
struct tls;
struct daemon;
struct listener;

/* budget.h */
struct budget {
	uint64_t held, peak;    /* bytes for all clients; since memory was last given back */
	struct client *watched; /* the clients over the limit */
};

struct proxy {
	struct loop *loop;
	struct daemon *daemon;
	const struct redisproxy_conf *conf;
	struct commands *commands;
	struct stats stats;
	struct server *servers;         /* all of them */
	struct server *writer, *reader; /* reader may be NULL, never the writer */
	struct cluster *cluster;        /* NULL: no cluster; then the writer is its seed */
	struct sentinel *sentinel;      /* NULL: none */
	struct tls *tls;                /* NULL: none */
	struct resolver *resolver;
	struct zone zone;
	uint64_t epoch; /* of the cluster's map and connections */
	struct place *astray, **astray_end;
	struct deferred astray_run;
	struct timer *astray_timer;
	struct pool *pools;
	unsigned n_pools;
	struct pool *default_pool; /* of new clients */
	struct pool *login[2];     /* without and with credentials; see dispatch.c */

	struct client *clients;
	unsigned n_clients;
	struct budget budget;
	struct client *waiting, **waiting_end; /* for a connection */
	struct timer *wait_timer;              /* their deadlines */
	struct timer *sweep_timer;
	uint64_t next_client_id;
	unsigned next_slot;
	struct listener *listener;
	bool draining;

	struct deferred turn;
	/* First come, first served: two clients must not overtake each other for no reason. */
	struct client *dirty_clients, **dirty_clients_end;
	struct upstream *dirty_upstreams, **dirty_upstreams_end;
	struct upstream *upstreams;
	struct upstream *dead_upstreams;
	size_t reply_bytes; /* that came in this turn */
	uint64_t served_ms; /* this millisecond */
	unsigned n_served,
		n_served_before; /* clients that had replies in it, and in the last one */
	struct client *dead_clients;

	uint64_t paused_until_us;          /* CLIENT PAUSE was said here; 0: no */
	uint64_t now_us;                   /* when the present callback began */
	char scratch[PROXY_SCRATCH_BYTES]; /* what was just read */
	struct upstream *lent_to;          /* it holds some of that; upstream_keep() */
};

/* NULL when out of memory. The parts are the caller's. */
struct proxy *proxy_new(struct daemon *daemon, const struct redisproxy_conf *conf);
void proxy_free(struct proxy **proxy);
/* Take connections from this socket, which the proxy closes. 0 or -1. */
int proxy_listen(struct proxy *proxy, int fd);
/* Take no new clients and serve those that are there until they leave (all containers of a pod get
 * the signal at once); calls daemon_drained() when the last one is gone. */
void proxy_drain(struct proxy *proxy);
/* Run the end of the turn. */
static inline void proxy_schedule(struct proxy *proxy)
{
	loop_defer(proxy->loop, &proxy->turn);
}
/* For what is read from clients, the time of the first event of the turn is good enough. */
static inline void proxy_note_time(struct proxy *proxy)
{
	if (!deferred_scheduled(&proxy->turn))
		proxy->now_us = loop_now_us(proxy->loop);
}
/* Somebody has paused the writer, for as long as was said. */
static inline bool proxy_is_paused(const struct proxy *proxy)
{
	return proxy->paused_until_us && proxy->now_us < proxy->paused_until_us;
}
/* A client is gone. */
void proxy_client_closed(struct proxy *proxy);

#endif
