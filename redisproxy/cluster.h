#ifndef REDISPROXY_CLUSTER_H
#define REDISPROXY_CLUSTER_H

/*
 * The nodes of a Redis Cluster and the map from slots to them.
 *
 *   nobody asked --timer, MOVED, a node down--> ASKED --answer--> the map is replaced
 *                                               ASKED --1 s-----> the next node is asked
 *
 * Any node that is up is asked for CLUSTER SLOTS (slots.h), every --topology-refresh, and within
 * 100 ms of a MOVED or of a node that went down. A MOVED changes its one slot at once.
 * proxy->writer is the seed: it is asked while no node is known, and checks logins; when it is
 * down, it takes the address of a node that is up.
 *
 * A node that the map does not name any more is kept for a minute after its last connection was
 * closed, so pointers to servers are good for the rest of a turn.
 */
#include <stdbool.h>
#include <stdint.h>

#define CLUSTER_MAX_NODES 512

struct cluster;
struct proxy;
struct redisReply;
struct server;

/* NULL when out of memory. */
struct cluster *cluster_new(struct proxy *proxy);
void cluster_free(struct cluster **cluster);

/* Has the map been read? */
bool cluster_known(const struct cluster *cluster);
/* Who serves the slot; NULL: nobody, as far as is known. */
struct server *cluster_master(const struct cluster *cluster, uint16_t slot);
/* A replica of it that is up, of the own zone if there is one; salt chooses among them. NULL: none.
 */
struct server *cluster_replica(const struct cluster *cluster, uint16_t slot, unsigned salt);
/* A master, one that is up if possible; salt chooses. NULL: none is known. */
struct server *cluster_any(const struct cluster *cluster, unsigned salt);
/* The node at this address, which may be new. NULL: too many nodes, or out of memory. */
struct server *cluster_at(struct cluster *cluster, const char *address);
/* The masters one after the other: the first one whose id is at least `from`, its id in *id. NULL:
 * none is left. Ids are below CLUSTER_MAX_NODES and stay with their node. */
struct server *cluster_next_master(const struct cluster *cluster, unsigned from, unsigned *id);
unsigned cluster_masters(const struct cluster *cluster);
unsigned cluster_id(const struct cluster *cluster, const struct server *server);

/* A server said that the slot is there now. */
void cluster_moved(struct cluster *cluster, uint16_t slot, const char *address);
/* Ask for the map soon. */
void cluster_refresh(struct cluster *cluster);

/* From control.c: the answer to CLUSTER SLOTS; a node went up or down. */
void cluster_answered(
	struct cluster *cluster, struct server *server, const struct redisReply *reply);
void cluster_health_changed(struct cluster *cluster, struct server *server, bool up);

#endif
