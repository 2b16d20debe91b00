#ifndef BROADCASTERD_STATS_H
#define BROADCASTERD_STATS_H

/* The metric families of broadcasterd, and the events that count. */
#include <stddef.h>

#include "broadcasterd/broadcast.h"
#include "broadcasterd/delivery.h"
#include "broadcasterd/discovery.h"
#include "common/metrics.h"

extern const struct metric_family stats_families[];

/* Why a purge was not begun. */
enum stats_refusal { STATS_FORBIDDEN, STATS_BAD, STATS_BUSY };
void stats_refused(struct metrics *metrics, enum stats_refusal why);
void stats_purge(struct metrics *metrics, enum broadcast_outcome outcome, size_t n_targets,
	size_t n_failed, double seconds);
/* At first; redeliveries count apart. */
void stats_delivery(struct metrics *metrics, const struct delivery_result *result);
/* Of redelivery. */
enum stats_end {
	STATS_DELIVERED,
	STATS_LEFT,
	STATS_RESTARTED,
	STATS_REFUSED,
	STATS_MERGED,
	STATS_ENDS,
};
extern const char *const stats_end_names[STATS_ENDS + 1]; /* ends with NULL */
void stats_attempt(struct metrics *metrics, enum delivery_outcome outcome);
void stats_ended(struct metrics *metrics, enum stats_end how, size_t n);
void stats_lag(struct metrics *metrics, double seconds);
void stats_pending(struct metrics *metrics, size_t n_pending, size_t n_targets, size_t bytes,
	double oldest_seconds);
void stats_journal(struct metrics *metrics, bool ok, double seconds);

void stats_discovery(
	struct metrics *metrics, enum discovery_outcome outcome, size_t n_targets, double seconds);

#endif
