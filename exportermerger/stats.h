#ifndef EXPORTERMERGER_STATS_H
#define EXPORTERMERGER_STATS_H

/*
 * The merger's own metrics. Those about targets live apart from the daemon's others, so that they
 * can go when a target goes: stats_keep(). They stand on the merged page only.
 */
#include "common/buf.h"
#include "common/metrics.h"
#include "exportermerger/page.h"
#include "exportermerger/target.h"

extern const struct metric_family stats_families[];

enum stats_failure {
	STATS_CONNECT,
	STATS_TIMEOUT,
	STATS_RESET,
	STATS_TOO_LARGE,
	STATS_PROTOCOL,
	STATS_STATUS,
	STATS_CONTENT_TYPE,
	STATS_MALFORMED,
	STATS_RPC,
	STATS_RESOURCES,
	STATS_FAILURES,
};
extern const char *const stats_failure_names[STATS_FAILURES];

enum stats_page { STATS_PAGE_OK, STATS_PAGE_BUSY, STATS_PAGE_FAILED, STATS_PAGE_ABORTED };

struct stats;
/* metrics are the daemon's. NULL when out of memory. */
struct stats *stats_new(struct metrics *metrics);
void stats_free(struct stats **stats);
/* Forget targets that are not among these; show the others from the start. */
void stats_keep(struct stats *stats, const struct targets *targets);
void stats_reload(struct stats *stats, bool ok);

void stats_target_up(struct stats *stats, const char *target, double seconds, size_t bytes,
	const struct page *page);
/* true: that is news, since it was up, or had not failed for this reason yet. */
bool stats_target_down(
	struct stats *stats, const char *target, double seconds, enum stats_failure why);
void stats_conflicts(
	struct stats *stats, const char *target, const uint32_t counts[PAGE_CONFLICTS]);
void stats_page(struct stats *stats, enum stats_page outcome, double seconds, size_t bytes);

/* Append all of it, the daemon's metrics too, as classic text. */
void stats_write_text(struct stats *stats, struct buf *out);

#endif
