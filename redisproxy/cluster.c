#include "redisproxy/cluster.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "redisproxy/place.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/server.h"
#include "redisproxy/slots.h"
#include "redisproxy/waiting.h"

#define NOBODY       UINT16_MAX
#define AT_MOST_MS   100      /* between two questions */
#define HURT_MS      200      /* the same while a master is down */
#define ANSWER_MS    1000     /* after which the next node is asked */
#define KEPT_GONE_US 60000000 /* a node that the map does not name */

struct node {
	struct server *server; /* NULL: a free place */
	bool is_master, is_named;
	uint64_t gone_us; /* when it was last of use */
	unsigned n_replicas;
	uint16_t replicas[SLOTS_MAX_REPLICAS];
};

struct cluster {
	struct proxy *proxy;
	struct timer *timer;
	bool known, is_asked;
	uint64_t asked_us;
	unsigned asks_next;    /* node */
	unsigned n, n_masters; /* n: one more than the highest id */
	bool changed;
	uint16_t owner[SLOTS_N];
	struct node nodes[CLUSTER_MAX_NODES];
};

/* ---- nodes ---- */

static struct node *find_node(struct cluster *cluster, const char *address)
{
	struct node *free_place = NULL;

	for (unsigned i = 0; i < cluster->n; i++) {
		struct node *node = &cluster->nodes[i];

		if (!node->server)
			free_place = free_place ? free_place : node;
		else if (strcmp(server_address(node->server), address) == 0)
			return node;
	}
	if (!free_place && cluster->n < CLUSTER_MAX_NODES)
		free_place = &cluster->nodes[cluster->n];
	struct server *server = free_place ? server_new(cluster->proxy, address, SERVER_READER)
					   : NULL;

	if (!server)
		return NULL;
	*free_place = (struct node){.server = server, .gone_us = loop_now_us(cluster->proxy->loop)};
	if (free_place == &cluster->nodes[cluster->n])
		cluster->n++;
	return free_place;
}

static uint16_t id_of(const struct cluster *cluster, const struct node *node)
{
	return node ? (uint16_t)(node - cluster->nodes) : NOBODY;
}

bool cluster_known(const struct cluster *cluster)
{
	return cluster->known;
}

struct server *cluster_master(const struct cluster *cluster, uint16_t slot)
{
	uint16_t id = cluster->owner[slot];

	return id == NOBODY ? NULL : cluster->nodes[id].server;
}

struct server *cluster_replica(const struct cluster *cluster, uint16_t slot, unsigned salt)
{
	uint16_t id = cluster->owner[slot];
	const struct node *master = id == NOBODY ? NULL : &cluster->nodes[id];
	struct server *found = NULL;

	for (unsigned i = 0; master && i < master->n_replicas; i++) {
		unsigned at = (salt + i) % master->n_replicas;
		struct server *server = cluster->nodes[master->replicas[at]].server;

		if (!server || !server_up(server))
			continue;
		if (server_is_near(server))
			return server;
		found = found ? found : server;
	}
	return found;
}

struct server *cluster_any(const struct cluster *cluster, unsigned salt)
{
	struct server *found = NULL;

	for (unsigned i = 0; i < cluster->n; i++) {
		const struct node *node = &cluster->nodes[(salt + i) % cluster->n];

		if (!node->server || !node->is_master)
			continue;
		if (server_up(node->server))
			return node->server;
		found = node->server;
	}
	return found;
}

struct server *cluster_at(struct cluster *cluster, const char *address)
{
	struct node *node = find_node(cluster, address);

	return node ? node->server : NULL;
}

struct server *cluster_next_master(const struct cluster *cluster, unsigned from, unsigned *id)
{
	for (unsigned i = from; i < cluster->n; i++)
		if (cluster->nodes[i].server && cluster->nodes[i].is_master) {
			*id = i;
			return cluster->nodes[i].server;
		}
	return NULL;
}

unsigned cluster_masters(const struct cluster *cluster)
{
	return cluster->n_masters;
}

unsigned cluster_id(const struct cluster *cluster, const struct server *server)
{
	for (unsigned i = 0; i < cluster->n; i++)
		if (cluster->nodes[i].server == server)
			return i;
	return CLUSTER_MAX_NODES;
}

/* ---- the map ---- */

static void set_owner(struct cluster *cluster, unsigned slot, uint16_t id)
{
	cluster->changed = cluster->changed || cluster->owner[slot] != id;
	cluster->owner[slot] = id;
}

/* Commands of one client under way on both sides of a change could overtake each other: the epoch
 * has those clients wait first. */
static void end_change(struct cluster *cluster)
{
	if (!cluster->changed)
		return;
	cluster->changed = false;
	cluster->proxy->epoch++;
	stats_count(&cluster->proxy->stats, STATS_TOPOLOGY, "slots");
	waiting_wake_all(cluster->proxy);
	places_schedule(cluster->proxy);
}

void cluster_moved(struct cluster *cluster, uint16_t slot, const char *address)
{
	struct node *node = find_node(cluster, address);

	if (node) {
		if (!node->is_master)
			cluster->n_masters++;
		node->is_master = true;
		set_owner(cluster, slot, id_of(cluster, node));
	}
	end_change(cluster);
	cluster_refresh(cluster);
}

static void on_range(const struct slots_range *range, void *arg)
{
	struct cluster *cluster = arg;
	struct node *master = find_node(cluster, range->nodes[0]);
	uint16_t id = id_of(cluster, master);

	for (unsigned slot = range->first; slot <= range->last; slot++)
		set_owner(cluster, slot, id);
	if (!master || master->is_master)
		return;
	cluster->n_masters++;
	master->is_master = master->is_named = true;
	for (unsigned i = 1; i < range->n; i++) {
		struct node *replica = find_node(cluster, range->nodes[i]);

		if (!replica)
			continue;
		replica->is_named = true;
		master->replicas[master->n_replicas++] = id_of(cluster, replica);
	}
}

/* The ones that nobody names any more, and that nothing is connected to. */
static void forget_gone(struct cluster *cluster)
{
	uint64_t now = loop_now_us(cluster->proxy->loop);

	for (unsigned i = 0; i < cluster->n; i++) {
		struct node *node = &cluster->nodes[i];

		if (!node->server)
			continue;
		if (node->is_named || node->is_master || server_count(node->server)->open ||
			cluster->proxy->astray)
			node->gone_us = now;
		if (now - node->gone_us <= KEPT_GONE_US)
			continue;
		pools_forget_server(cluster->proxy, node->server);
		server_free(&node->server);
		*node = (struct node){0};
	}
}

void cluster_answered(
	struct cluster *cluster, struct server *server, const struct redisReply *reply)
{
	cluster->is_asked = false;
	uint16_t before[SLOTS_N];

	memcpy(before, cluster->owner, sizeof before);
	for (unsigned i = 0; i < cluster->n; i++) {
		cluster->nodes[i].is_master = cluster->nodes[i].is_named = false;
		cluster->nodes[i].n_replicas = 0;
	}
	cluster->n_masters = 0;
	timer_arm(cluster->timer, (uint64_t)cluster->proxy->conf->topology_refresh_ms);
	memset(cluster->owner, 0xff, sizeof cluster->owner);
	if (slots_read(reply, server_address(server), on_range, cluster) < 0 ||
		!cluster->n_masters) {
		log_warn("%s: %s", server_address(server),
			reply->type == REDIS_REPLY_ERROR ? reply->str
			: reply->type == REDIS_REPLY_ARRAY && !reply->elements
				? "the cluster has no slots yet, or this node knows of none"
				: "its answer to CLUSTER SLOTS cannot be used");
		/* What was known is better than nothing. */
		memcpy(cluster->owner, before, sizeof before);
		for (unsigned i = 0; i < SLOTS_N; i++)
			if (before[i] != NOBODY && !cluster->nodes[before[i]].is_master) {
				cluster->nodes[before[i]].is_master = true;
				cluster->n_masters++;
			}
		cluster->changed = false;
		cluster->asks_next++;
		return;
	}
	cluster->changed = memcmp(before, cluster->owner, sizeof before) != 0;
	if (!cluster->known)
		log_info("%s: a cluster of %u masters", server_address(server), cluster->n_masters);
	else if (cluster->changed)
		log_info("%s: slots are served by others now; %u masters", server_address(server),
			cluster->n_masters);
	cluster->known = true;
	bool is_hurt = false;

	for (unsigned i = 0; i < cluster->n; i++) {
		struct node *node = &cluster->nodes[i];

		/* What hangs there would wait for long. */
		if (node->server && !node->is_master && !server_up(node->server))
			pools_close_shared(cluster->proxy, node->server, "the node is down");
		is_hurt = is_hurt || (node->server && node->is_master && !server_up(node->server));
	}
	/* Somebody will take its place. */
	if (is_hurt)
		timer_arm(cluster->timer, HURT_MS);
	end_change(cluster);
	forget_gone(cluster);
}

/* ---- asking ---- */

static struct server *ask_one(struct cluster *cluster)
{
	for (unsigned i = 0; i < cluster->n; i++) {
		struct node *node = &cluster->nodes[(cluster->asks_next + i) % cluster->n];

		if (node->server && node->is_named && server_up(node->server) &&
			server_ask_slots(node->server)) {
			cluster->asks_next = (unsigned)(node - cluster->nodes);
			return node->server;
		}
	}
	return server_ask_slots(cluster->proxy->writer) ? cluster->proxy->writer : NULL;
}

/* Logins are checked at the seed: somebody else may take its place. */
static void replace_seed(struct cluster *cluster)
{
	struct server *seed = cluster->proxy->writer;
	struct server *other = server_up(seed) ? NULL : cluster_any(cluster, cluster->asks_next);

	if (!other || !server_up(other) || strcmp(server_address(other), server_address(seed)) == 0)
		return;
	log_info("%s stands in for %s", server_address(other), server_address(seed));
	if (server_set_address(seed, server_address(other)) == 0)
		pools_replace(cluster->proxy, seed);
}

static void on_timer(void *arg)
{
	struct cluster *cluster = arg;

	if (cluster->is_asked)
		cluster->asks_next++;
	replace_seed(cluster);
	cluster->is_asked = ask_one(cluster) != NULL;
	cluster->asked_us = loop_now_us(cluster->proxy->loop);
	timer_arm(cluster->timer, cluster->is_asked ? ANSWER_MS : AT_MOST_MS);
}

void cluster_refresh(struct cluster *cluster)
{
	uint64_t since_ms = (loop_now_us(cluster->proxy->loop) - cluster->asked_us) / 1000;

	if (cluster->is_asked)
		return;
	timer_arm(cluster->timer, since_ms < AT_MOST_MS ? AT_MOST_MS - since_ms : 0);
}

void cluster_health_changed(struct cluster *cluster, struct server *server, bool up)
{
	(void)server;
	if (up && cluster->known)
		return;
	cluster_refresh(cluster);
}

struct cluster *cluster_new(struct proxy *proxy)
{
	struct cluster *cluster = calloc(1, sizeof *cluster);

	if (!cluster)
		return NULL;
	cluster->proxy = proxy;
	memset(cluster->owner, 0xff, sizeof cluster->owner);
	cluster->timer = timer_new(proxy->loop, on_timer, cluster);
	if (!cluster->timer) {
		free(cluster);
		return NULL;
	}
	timer_arm(cluster->timer, 0);
	return cluster;
}

void cluster_free(struct cluster **cluster_)
{
	struct cluster *cluster = *cluster_;

	if (!cluster)
		return;
	*cluster_ = NULL;
	for (unsigned i = 0; i < cluster->n; i++)
		server_free(&cluster->nodes[i].server);
	timer_free(&cluster->timer);
	free(cluster);
}
