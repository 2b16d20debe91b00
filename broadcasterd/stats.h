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
void stats_discovery(struct metrics *metrics, enum discovery_outcome outcome, size_t n_targets);

#endif
