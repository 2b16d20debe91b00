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
	STATS_REJECTED,
	STATS_LOST,
	STATS_CONNECTED,
	STATS_READS,
	STATS_SLOW,
	STATS_DEMOTED,
	STATS_POOLS,
	STATS_TOPOLOGY,
	STATS_REDIRECTIONS,
	STATS_N
};
extern const struct metric_family stats_families[];

#define STATS_LATENCY_BUCKETS 24

struct stats {
	struct metrics *metrics;
	struct metric *duration;
	struct metric *clients, *pools;
	struct metric *slow_clients;
	struct slowlog *slowlog; /* NULL: not wanted */
	struct hotkeys *hotkeys; /* NULL: not wanted */
};
/* 0, or -1 when out of memory (what is there is freed by stats_free()). */
int stats_init(struct stats *stats, struct metrics *metrics, const struct redisproxy_conf *conf);
void stats_free(struct stats *stats);
/* A command goes out (frame: its first len bytes); fills in the entry. */
void stats_sent(struct stats *stats, struct entry *entry, const struct command *command,
	const char *frame, size_t len);
/* Its reply is complete. */
void stats_replied(
	struct stats *stats, const struct entry *entry, const struct upstream *up, bool failed);
/* One more in a family with one label. For what is rare. */
void stats_count(struct stats *stats, enum stats_family family, const char *value);

#endif
