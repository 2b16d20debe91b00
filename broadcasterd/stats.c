#include "broadcasterd/stats.h"

enum {
	PURGES,
	PURGE_DURATION,
	DELIVERIES,
	DELIVERY_DURATION,
	DISCOVERIES,
	TARGETS,
};
const struct metric_family stats_families[] = {
	[PURGES] = {.name = "broadcaster_purges_total",
		.type = METRIC_COUNTER,
		.help = "Purges asked for: ok, failed (by a target at least), no_pods, discovery, "
			"forbidden, bad, or busy.",
		.labels = {"result"}},
	[PURGE_DURATION] = {.name = "broadcaster_purge_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.help = "Time from a purge to its answer, when targets were found.",
		.buckets = metrics_latency_buckets},
	[DELIVERIES] = {.name = "broadcaster_deliveries_total",
		.type = METRIC_COUNTER,
		.help = "First attempts at a target: ok, connect, timeout, broken, denied, refused or "
			"failed.",
		.labels = {"result"}},
	[DELIVERY_DURATION] = {.name = "broadcaster_delivery_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.help = "Time that a target took to purge, at the first attempt.",
		.buckets = metrics_latency_buckets},
	[DISCOVERIES] = {.name = "broadcaster_discoveries_total",
		.type = METRIC_COUNTER,
		.help = "Searches for targets: ok, none or failed.",
		.labels = {"result"}},
	[TARGETS] = {.name = "broadcaster_targets",
		.type = METRIC_GAUGE,
		.help = "Targets found by the last search."},
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

void stats_discovery(struct metrics *metrics, enum discovery_outcome outcome, size_t n_targets)
{
	static const char *const names[] = {
		[DISCOVERY_OK] = "ok", [DISCOVERY_NONE] = "none", [DISCOVERY_FAILED] = "failed"};
	count(metrics, DISCOVERIES, names[outcome]);
	if (outcome != DISCOVERY_FAILED)
		metric_set(metric(metrics, &stats_families[TARGETS]), (double)n_targets);
}
