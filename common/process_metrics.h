#ifndef COMMON_PROCESS_METRICS_H
#define COMMON_PROCESS_METRICS_H

/*
 * The metrics that every daemon has: what the process uses (read when somebody asks), its version,
 * its log, the lag of its loop.
 */
struct loop;
struct metrics;
struct process_metrics;

/* Registers the families; the values follow the process from now on. loop may be NULL, for a
 * listing of the families. NULL when out of memory. */
struct process_metrics *process_metrics_new(struct metrics *metrics, struct loop *loop);
/* Before the metrics and the loop. */
void process_metrics_free(struct process_metrics **process);

#endif
