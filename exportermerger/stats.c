#include "exportermerger/stats.h"

#include <stdlib.h>

#define MAX_SERIES 100000 /* the list of targets is the operator's, and bounded */

enum {
	UP,
	DURATION,
	BYTES,
	SERIES,
	SCRAPES,
	FAILURES,
	CONFLICTS,
	TARGETS,
	PAGES,
	PAGE_DURATION,
	PAGE_BYTES,
	RELOADS,
};
static const char *const page_outcomes[] = {
	[STATS_PAGE_OK] = "ok",
	[STATS_PAGE_BUSY] = "busy",
	[STATS_PAGE_FAILED] = "failed",
	[STATS_PAGE_ABORTED] = "aborted",
	NULL,
};
static const char *const reload_results[] = {"ok", "bad", NULL};

const struct metric_family stats_families[] = {
	[UP] = {.name = "merger_up",
		.type = METRIC_GAUGE,
		.help = "1 when the target's last page was read and is on the merged page.",
		.labels = {"merger_url"},
		.max_series = MAX_SERIES},
	[DURATION] = {.name = "merger_scrape_duration_seconds",
		.type = METRIC_GAUGE,
		.help = "How long the target's last page took.",
		.labels = {"merger_url"},
		.max_series = MAX_SERIES},
	[BYTES] = {.name = "merger_scrape_size_bytes",
		.type = METRIC_GAUGE,
		.help = "Bytes of the target's last page.",
		.labels = {"merger_url"},
		.max_series = MAX_SERIES},
	[SERIES] = {.name = "merger_scrape_samples",
		.type = METRIC_GAUGE,
		.help = "Samples on the target's last page.",
		.labels = {"merger_url"},
		.max_series = MAX_SERIES},
	[SCRAPES] = {.name = "merger_scrapes_total",
		.type = METRIC_COUNTER,
		.help = "Times that the target was asked for its page.",
		.labels = {"merger_url"},
		.max_series = MAX_SERIES},
	[FAILURES] = {.name = "merger_scrape_failures_total",
		.type = METRIC_COUNTER,
		.help = "Pages of the target that could not be had, by reason.",
		.labels = {"merger_url", "reason"},
		.max_series = MAX_SERIES},
	[CONFLICTS] = {.name = "merger_conflicts_total",
		.type = METRIC_COUNTER,
		.help = "What was settled by a rule: within the target's pages, or with others.",
		.labels = {"merger_url", "conflict"},
		.max_series = MAX_SERIES},
	[TARGETS] = {.name = "merger_targets", .type = METRIC_GAUGE, .help = "Configured targets."},
	[PAGES] = {.name = "merger_pages_total",
		.type = METRIC_COUNTER,
		.help = "Requests for the merged page: ok, busy, failed, or aborted by the reader.",
		.labels = {"outcome"},
		.known = page_outcomes},
	[PAGE_DURATION] = {.name = "merger_page_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.help = "Time from a request to the end of its merged page.",
		.buckets = metrics_latency_buckets},
	[PAGE_BYTES] = {.name = "merger_page_sent_bytes_total",
		.type = METRIC_COUNTER,
		.help = "Bytes of merged pages sent, after compression."},
	[RELOADS] = {.name = "merger_reloads_total",
		.type = METRIC_COUNTER,
		.help = "Times that the list of targets was read again: ok, or bad and the old one kept.",
		.labels = {"result"},
		.known = reload_results},
	{0},
};

const char *const stats_failure_names[STATS_FAILURES] = {
	[STATS_CONNECT] = "connect",
	[STATS_TIMEOUT] = "timeout",
	[STATS_RESET] = "reset",
	[STATS_TOO_LARGE] = "too_large",
	[STATS_PROTOCOL] = "protocol",
	[STATS_STATUS] = "status",
	[STATS_CONTENT_TYPE] = "content_type",
	[STATS_MALFORMED] = "malformed",
	[STATS_RPC] = "rpc",
	[STATS_RESOURCES] = "resources",
};

struct stats {
	struct metrics *metrics; /* the daemon's */
	struct metrics *targets;
};

struct stats *stats_new(struct metrics *metrics)
{
	struct stats *stats = calloc(1, sizeof *stats);
	if (!stats)
		return NULL;
	stats->metrics = metrics;
	stats->targets = metrics_new();
	if (!stats->targets)
		stats_free(&stats);
	return stats;
}

void stats_free(struct stats **stats)
{
	if (!*stats)
		return;
	metrics_free(&(*stats)->targets);
	free(*stats);
	*stats = NULL;
}

/* ---- a reload ---- */

struct keeping {
	struct metrics *fresh;
	const struct targets *targets;
	const struct metric_family *family;
};

static void keep_family(const struct metric_family *family, size_t n_series, void *arg)
{
	(void)n_series;
	((struct keeping *)arg)->family = family;
}

static int compare_name(const void *name, const void *target)
{
	return strcmp(name, ((const struct target *)target)->name);
}

static void keep_series(
	const char *const *values, double value, const uint64_t *counts, size_t n_counts, void *arg)
{
	const struct keeping *k = arg;
	(void)counts;
	(void)n_counts;
	if (!k->targets->count || !bsearch(values[0], k->targets->items, k->targets->count,
					  sizeof *k->targets->items, compare_name))
		return;
	metric_set(metrics_get(k->fresh, k->family, values), value);
}

void stats_keep(struct stats *stats, const struct targets *targets)
{
	static const struct metrics_visitor visitor = {keep_family, keep_series};
	struct keeping keeping = {.fresh = metrics_new(), .targets = targets};
	if (keeping.fresh) {
		metrics_visit(stats->targets, &visitor, &keeping);
		metrics_free(&stats->targets);
		stats->targets = keeping.fresh;
	}
	for (size_t i = 0; i < targets->count; i++) {
		const char *name = targets->items[i].name;
		metric(stats->targets, &stats_families[UP], name);
		metric(stats->targets, &stats_families[SCRAPES], name);
		for (unsigned k = 0; k < PAGE_CONFLICTS; k++)
			metric(stats->targets, &stats_families[CONFLICTS], name,
				page_conflict_names[k]);
	}
	metric_set(metric(stats->metrics, &stats_families[TARGETS]), (double)targets->count);
}

void stats_reload(struct stats *stats, bool ok)
{
	metric_add(metric(stats->metrics, &stats_families[RELOADS], ok ? "ok" : "bad"), 1);
}

/* ---- events ---- */

void stats_target_up(struct stats *stats, const char *target, double seconds, size_t bytes,
	const struct page *page)
{
	metric_set(metric(stats->targets, &stats_families[UP], target), 1);
	metric_add(metric(stats->targets, &stats_families[SCRAPES], target), 1);
	metric_set(metric(stats->targets, &stats_families[DURATION], target), seconds);
	metric_set(metric(stats->targets, &stats_families[BYTES], target), (double)bytes);
	metric_set(
		metric(stats->targets, &stats_families[SERIES], target), (double)page->n_samples);
}

bool stats_target_down(
	struct stats *stats, const char *target, double seconds, enum stats_failure why)
{
	struct metric *up = metric(stats->targets, &stats_families[UP], target);
	struct metric *failures = metric(
		stats->targets, &stats_families[FAILURES], target, stats_failure_names[why]);
	bool is_new = metric_value(up) != 0 || metric_value(failures) == 0;
	metric_set(up, 0);
	metric_set(metric(stats->targets, &stats_families[DURATION], target), seconds);
	metric_add(metric(stats->targets, &stats_families[SCRAPES], target), 1);
	metric_add(failures, 1);
	return is_new;
}

void stats_conflicts(struct stats *stats, const char *target, const uint32_t counts[PAGE_CONFLICTS])
{
	for (unsigned i = 0; i < PAGE_CONFLICTS; i++)
		if (counts[i])
			metric_add(metric(stats->targets, &stats_families[CONFLICTS], target,
					   page_conflict_names[i]),
				counts[i]);
}

void stats_page(struct stats *stats, enum stats_page outcome, double seconds, size_t bytes)
{
	metric_add(metric(stats->metrics, &stats_families[PAGES], page_outcomes[outcome]), 1);
	if (outcome != STATS_PAGE_OK)
		return;
	metric_observe(metric(stats->metrics, &stats_families[PAGE_DURATION]), seconds);
	metric_add(metric(stats->metrics, &stats_families[PAGE_BYTES]), (double)bytes);
}

void stats_write_text(struct stats *stats, struct buf *out)
{
	metrics_write_text(stats->metrics, out);
	metrics_write_text(stats->targets, out);
}
