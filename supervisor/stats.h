#ifndef SUPERVISOR_STATS_H
#define SUPERVISOR_STATS_H

/* Metrics of the processes of a pod, read when somebody asks for them. */
#include "common/metrics.h"

struct pod;
struct stats;

extern const struct metric_family stats_families[];

/* NULL when out of memory. Must outlive the last use of metrics; the pod too. */
struct stats *stats_new(struct metrics *metrics, struct pod *pod);
void stats_free(struct stats **stats);

#endif
