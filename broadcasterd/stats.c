#include "broadcasterd/stats.h"

enum {
	PURGES,
	PURGE_DURATION,
	DELIVERIES,
	DELIVERY_DURATION,
	DISCOVERIES,
	DISCOVERY_DURATION,
	TARGETS,
	PENDING,
	PENDING_TARGETS,
	PENDING_BYTES,
	OLDEST,
	ATTEMPTS,
	ENDED,
	LAG,
	SAVES,
	SAVE_DURATION,
};
/* A pod that is cut off comes back in seconds or in hours. */
static const double lag_buckets[] = {
	0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400, 0};

static const char *const purge_results[] = {
	"ok", "failed", "no_pods", "discovery", "forbidden", "bad", "busy", NULL};
static const char *const delivery_results[] = {
	"ok", "connect", "timeout", "broken", "denied", "refused", "failed", NULL};
static const char *const discovery_results[] = {"ok", "none", "failed", NULL};
const char *const stats_end_names[STATS_ENDS + 1] = {
	[STATS_DELIVERED] = "delivered",
	[STATS_LEFT] = "left",
	[STATS_RESTARTED] = "restarted",
	[STATS_REFUSED] = "refused",
	[STATS_MERGED] = "merged",
};
static const char *const save_results[] = {"ok", "failed", NULL};

const struct metric_family stats_families[] = {
	[PURGES] = {.name = "broadcaster_purges_total",
		.type = METRIC_COUNTER,
		.help = "Purges asked for: ok, failed (by a target at least), no_pods, discovery, "
			"forbidden, bad, or busy.",
		.labels = {"result"},
		.known = purge_results},
	[PURGE_DURATION] = {.name = "broadcaster_purge_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.help = "Time from a purge to its answer, when targets were found.",
		.buckets = metrics_latency_buckets},
	[DELIVERIES] = {.name = "broadcaster_deliveries_total",
		.type = METRIC_COUNTER,
		.help = "First attempts at a target: ok, connect, timeout, broken, denied, refused or "
			"failed.",
		.labels = {"result"},
		.known = delivery_results},
	[DELIVERY_DURATION] = {.name = "broadcaster_delivery_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.help = "Time that a target took to purge, at the first attempt.",
		.buckets = metrics_latency_buckets},
	[DISCOVERIES] = {.name = "broadcaster_discoveries_total",
		.type = METRIC_COUNTER,
		.help = "Searches for targets: ok, none or failed.",
		.labels = {"result"},
		.known = discovery_results},
	[DISCOVERY_DURATION] = {.name = "broadcaster_discovery_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.help = "Time of a search for targets, DNS included.",
		.buckets = metrics_latency_buckets},
	[TARGETS] = {.name = "broadcaster_targets",
		.type = METRIC_GAUGE,
		.help = "Targets found by the last search."},
	[PENDING] = {.name = "broadcaster_redeliveries_pending",
		.type = METRIC_GAUGE,
		.help = "Purges that targets still have to be told, each target counted."},
	[PENDING_TARGETS] = {.name = "broadcaster_redelivery_targets",
		.type = METRIC_GAUGE,
		.help = "Targets that still have to be told a purge."},
	[PENDING_BYTES] = {.name = "broadcaster_redelivery_bytes",
		.type = METRIC_GAUGE,
		.help = "Memory of the pending purges."},
	[OLDEST] = {.name = "broadcaster_redelivery_oldest_seconds",
		.type = METRIC_GAUGE,
		.help = "Age of the oldest pending purge: for how long a target may have served "
			"what was purged."},
	[ATTEMPTS] = {.name = "broadcaster_redelivery_attempts_total",
		.type = METRIC_COUNTER,
		.help = "Attempts at telling a target again: ok, connect, timeout, broken, denied, "
			"refused or failed.",
		.labels = {"result"},
		.known = delivery_results},
	[ENDED] = {.name = "broadcaster_redeliveries_ended_total",
		.type = METRIC_COUNTER,
		.help = "Pending purges that ended: delivered; left (the target is gone), restarted, "
			"refused; merged with others into one of everything.",
		.labels = {"result"},
		.known = stats_end_names},
	[LAG] = {.name = "broadcaster_redelivery_lag_seconds",
		.type = METRIC_HISTOGRAM,
		.help = "Time from a purge to its delivery to a target that failed at first.",
		.buckets = lag_buckets},
	[SAVES] = {.name = "broadcaster_journal_saves_total",
		.type = METRIC_COUNTER,
		.help = "Writes of the journal of pending purges: ok or failed.",
		.labels = {"result"},
		.known = save_results},
	[SAVE_DURATION] = {.name = "broadcaster_journal_save_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.help = "Time of one write of the journal, syncing to disk included.",
		.buckets = metrics_latency_buckets},
	{0},
};

static void count(struct metrics *metrics, unsigned family, const char *result)
{
	metric_add(metric(metrics, &stats_families[family], result), 1);
}

void stats_refused(struct metrics *metrics, enum stats_refusal why)
{
	static const char *const names[] = {
		[STATS_FORBIDDEN] = "forbidden", [STATS_BAD] = "bad", [STATS_BUSY] = "busy"};
	count(metrics, PURGES, names[why]);
}

void stats_purge(struct metrics *metrics, enum broadcast_outcome outcome, size_t n_targets,
	size_t n_failed, double seconds)
{
	if (!n_targets) {
		count(metrics, PURGES, outcome == BROADCAST_NOBODY ? "no_pods" : "discovery");
		return;
	}
	count(metrics, PURGES, n_failed ? "failed" : "ok");
	metric_observe(metric(metrics, &stats_families[PURGE_DURATION]), seconds);
}

void stats_delivery(struct metrics *metrics, const struct delivery_result *result)
{
	count(metrics, DELIVERIES, delivery_outcome_names[result->outcome]);
	if (result->outcome == DELIVERY_OK)
		metric_observe(metric(metrics, &stats_families[DELIVERY_DURATION]),
			(double)result->duration_us / 1e6);
}

void stats_discovery(
	struct metrics *metrics, enum discovery_outcome outcome, size_t n_targets, double seconds)
{
	static const char *const names[] = {
		[DISCOVERY_OK] = "ok", [DISCOVERY_NONE] = "none", [DISCOVERY_FAILED] = "failed"};
	count(metrics, DISCOVERIES, names[outcome]);
	metric_observe(metric(metrics, &stats_families[DISCOVERY_DURATION]), seconds);
	if (outcome != DISCOVERY_FAILED)
		metric_set(metric(metrics, &stats_families[TARGETS]), (double)n_targets);
}

/* ---- redelivery ---- */

void stats_attempt(struct metrics *metrics, enum delivery_outcome outcome)
{
	count(metrics, ATTEMPTS, delivery_outcome_names[outcome]);
}

void stats_ended(struct metrics *metrics, enum stats_end how, size_t n)
{
	metric_add(metric(metrics, &stats_families[ENDED], stats_end_names[how]), (double)n);
}

void stats_lag(struct metrics *metrics, double seconds)
{
	metric_observe(metric(metrics, &stats_families[LAG]), seconds);
}

void stats_pending(struct metrics *metrics, size_t n_pending, size_t n_targets, size_t bytes,
	double oldest_seconds)
{
	metric_set(metric(metrics, &stats_families[PENDING]), (double)n_pending);
	metric_set(metric(metrics, &stats_families[PENDING_TARGETS]), (double)n_targets);
	metric_set(metric(metrics, &stats_families[PENDING_BYTES]), (double)bytes);
	metric_set(metric(metrics, &stats_families[OLDEST]), oldest_seconds);
}

void stats_journal(struct metrics *metrics, bool ok, double seconds)
{
	count(metrics, SAVES, ok ? "ok" : "failed");
	metric_observe(metric(metrics, &stats_families[SAVE_DURATION]), seconds);
}
