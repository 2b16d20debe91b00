#ifndef REDISPROXY_STATS_H
#define REDISPROXY_STATS_H

/* The metrics of redisproxy. Counters on the hot path are plain numbers, moved over when somebody
 * asks. */
#include <stdint.h>

#include "common/metrics.h"

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
	STATS_N
};
extern const struct metric_family stats_families[];

#define STATS_LATENCY_BUCKETS 24

struct stats {
	struct metrics *metrics;
	struct metric *duration;
	struct metric *clients, *pools;
	struct metric *slow_clients;
};
void stats_init(struct stats *stats, struct metrics *metrics);
/* One more in a family with one label. For what is rare. */
void stats_count(struct stats *stats, enum stats_family family, const char *value);

#endif
