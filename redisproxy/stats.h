#ifndef REDISPROXY_STATS_H
#define REDISPROXY_STATS_H

/* The metrics of redisproxy, its slow log and its hot keys. Counters on the hot path are plain
 * numbers, moved over when somebody asks. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/metrics.h"

struct command;
struct entry;
struct hotkeys;
struct redisproxy_conf;
struct slowlog;
struct upstream;

enum stats_family {
	STATS_COMMANDS,
	STATS_CONNECTIONS,
	STATS_IDLE,
	STATS_UP,
	STATS_DURATION,
	STATS_CLIENTS,
	STATS_CLIENT_MEMORY,
	STATS_REJECTED,
	STATS_LOST,
	STATS_CONNECTED,
	STATS_READS,
	STATS_SLOW,
	STATS_DEMOTED,
	STATS_POOLS,
	STATS_TOPOLOGY,
	STATS_REDIRECTIONS,
	STATS_UPSTREAM_DURATION,
	STATS_REPLIES,
	STATS_N
};
extern const struct metric_family stats_families[];

/* What became of the commands that were sent. */
enum stats_result { STATS_OK, STATS_ERROR, STATS_GONE, STATS_RESULTS };

/* Of one pool. */
struct pool_stats {
	struct metric *duration;
	struct metric *replies[STATS_RESULTS];
	uint64_t n[STATS_RESULTS]; /* since they were last moved over */
};

struct stats {
	struct metrics *metrics;
	struct metric *duration;
	struct metric *clients, *pools;
	struct metric *slow_clients, *client_memory;
	struct slowlog *slowlog; /* NULL: not wanted */
	struct hotkeys *hotkeys; /* NULL: not wanted */
};
/* 0, or -1 when out of memory (what is there is freed by stats_free()). */
int stats_init(struct stats *stats, struct metrics *metrics, const struct redisproxy_conf *conf);
void stats_free(struct stats *stats);
/* A command goes out (frame: its first len bytes); fills in the entry. */
void stats_sent(struct stats *stats, struct entry *entry, const struct command *command,
	const char *frame, size_t len);
struct pool_key;
/* From now on these are the series of a pool of this server. */
void stats_pool_init(
	struct stats *stats, struct pool_stats *of, const char *server, const struct pool_key *key);
/* Move its numbers over: when somebody asks, and at its end. */
void stats_pool_collect(struct pool_stats *of);
/* The reply will not come. */
void stats_lost(const struct entry *entry, struct upstream *up);
/* Its reply is complete. */
void stats_replied(
	struct stats *stats, const struct entry *entry, struct upstream *up, bool failed);
/* One more in a family with one label. For what is rare. */
void stats_count(struct stats *stats, enum stats_family family, const char *value);

#endif
