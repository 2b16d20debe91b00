#include "gatewayd/stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/loop.h"
#include "common/workers.h"
#include "gatewayd/cache.h"
#include "gatewayd/flight.h"
#include "gatewayd/gateway.h"
#include "gatewayd/lease.h"
#include "gatewayd/prices.h"
#include "gatewayd/provider.h"
#include "gatewayd/provider_attempt.h"
#include "gatewayd/purge.h"
#include "gatewayd/purge_epochs.h"
#include "gatewayd/refresh.h"
#include "gatewayd/stats_families.h"
#include "gatewayd/store.h"

#define MODEL_LABEL_BYTES 128
#define MODELS_LATELY     8

/* What a hit of a model counts. */
struct model_tokens {
	char model[MODEL_LABEL_BYTES];
	struct metric *processed, *saved, *saved_dollars; /* the latter two NULL until needed */
	double price;                                     /* dollars a token */
};

struct stats {
	struct metrics *metrics;
	const struct gateway *gateway;
	struct metric *ok[STATS_RESULTS]; /* status 200 */
	struct metric *duration[STATS_RESULTS];
	struct metric *elements[STATS_SOURCES];
	char *models[MAX_MODELS]; /* that a provider has answered for with 200 */
	size_t n_models;
	/* Those counted lately: to find the series and the price takes as long as half a hit. */
	struct model_tokens lately[MODELS_LATELY];
	unsigned n_lately;
};

static const char *const result_names[STATS_RESULTS] = {
	"hit", "stale", "partial", "miss", "coalesced", "pass", "error", "gone"};

const char *stats_x_cache(enum stats_result result)
{
	static const char *const names[STATS_RESULTS] = {
		"HIT", "STALE", "PARTIAL", "MISS", "COALESCED", "PASS", "", ""};
	return names[result];
}

static void set(const struct stats *stats, enum family family, double value)
{
	metric_set(metric(stats->metrics, &gatewayd_families[family]), value);
}

static void set_label(
	const struct stats *stats, enum family family, const char *label, double value)
{
	metric_set(metric(stats->metrics, &gatewayd_families[family], label), value);
}

static void collect_cache(const struct stats *stats)
{
	struct cache_stats cache;
	cache_stats(stats->gateway->cache, &cache);
	set(stats, CACHE_BUDGET, (double)cache.budget_bytes);
	set(stats, CACHE_USED, (double)cache.used_bytes);
	set(stats, CACHE_PINNED, (double)cache.pinned_bytes);
	set(stats, CACHE_OUTSIDE, (double)cache.outside_bytes);
	set_label(stats, CACHE_OBJECTS, "element", (double)cache.objects[CACHE_ELEMENT]);
	set_label(stats, CACHE_OBJECTS, "response", (double)cache.objects[CACHE_RESPONSE]);
	set_label(stats, CACHE_HITS, "element", (double)cache.hits[CACHE_ELEMENT]);
	set_label(stats, CACHE_HITS, "response", (double)cache.hits[CACHE_RESPONSE]);
	set(stats, CACHE_MISSES, (double)cache.misses);
	set(stats, CACHE_INSERTS, (double)cache.inserts);
	set(stats, CACHE_EVICTIONS, (double)cache.evictions);
	set(stats, CACHE_REFUSED, (double)cache.refused);
	set(stats, CACHE_PURGED, (double)cache.purged);
	set(stats, CACHE_TOO_LATE, (double)cache.too_late);
	set(stats, CACHE_TAGS, (double)cache.tags);
}

static void collect_purges(const struct stats *stats)
{
	const struct purger_counters *purges = purger_counters(stats->gateway->purger);
	for (int i = 0; i < PURGE_SCOPES; i++)
		set_label(stats, PURGES, purge_scope_name((enum purge_scope)i),
			(double)purges->done[i]);
	if (stats->gateway->epochs)
		set(stats, STORE_EPOCHS, (double)purge_epochs_count(stats->gateway->epochs));
	set(stats, PURGES_OF_POD, (double)purges->of_pod);
	set(stats, PURGES_FAILED, (double)purges->failed);
	set(stats, PURGES_REFUSED, (double)stats->gateway->purges_refused);
}

static void collect_leases(const struct stats *stats)
{
	const struct leases_counters *leases = leases_counters(stats->gateway->leases);
	set(stats, LEASES, (double)leases->held);
	set(stats, LEASE_PEERS, (double)leases->peers);
	set(stats, LENT_BYTES, (double)cache_lent_bytes(stats->gateway->cache));
	set(stats, LEASES_GRANTED, (double)leases->granted);
	set(stats, LEASES_REFUSED, (double)leases->refused);
	set(stats, LEASE_CUT_OFFS, (double)leases->cut_off);
	set(stats, SLOW_RESETS, (double)leases->reset);
}

static void set_labels(const struct stats *stats, enum family family, const char *first,
	const char *second, uint64_t value)
{
	metric_set(
		metric(stats->metrics, &gatewayd_families[family], first, second), (double)value);
}

static void collect_store(const struct stats *stats, const struct store *store)
{
	const char *kind = store_kind(store);
	const struct store_stats *of = store_stats(store);
	set_labels(stats, STORE_LOOK_UPS, kind, "hit", of->hits);
	set_labels(stats, STORE_LOOK_UPS, kind, "legacy", of->legacy_hits);
	set_labels(stats, STORE_LOOK_UPS, kind, "legacy_miss", of->legacy_misses);
	set_labels(stats, STORE_LOOK_UPS, kind, "miss", of->misses - of->corrupt);
	set_labels(stats, STORE_LOOK_UPS, kind, "corrupt", of->corrupt);
	set_labels(stats, STORE_LOOK_UPS, kind, "error", of->get_errors);
	set_labels(stats, STORE_LOOK_UPS, kind, "abandoned", of->abandoned);
	set_label(stats, STORE_PURGED, kind, (double)of->purged);
	set_labels(stats, STORE_PUTS, kind, "stored", of->puts);
	set_labels(stats, STORE_PUTS, kind, "failed", of->put_errors);
	set_labels(stats, STORE_PUTS, kind, "given_up", of->puts_given_up);
	set_labels(stats, STORE_PUTS, kind, "dropped", of->puts_dropped);
	set_label(stats, STORE_DENIED, kind, (double)of->denied);
	set_label(stats, LOOK_UPS_PENDING, kind, (double)store_gets_pending(store));
	set_label(stats, STORE_PENDING, kind, (double)store_puts_pending(store));
	set_label(stats, STORE_READ_BYTES, kind, (double)of->read_bytes);
	set_label(stats, STORE_WRITTEN_BYTES, kind, (double)of->written_bytes);
}

static void collect_usage(const struct stats *stats, const struct store *store)
{
	const char *kind = store_kind(store);
	struct store_usage usage;
	if (!store_usage(store, &usage))
		return;
	set_label(stats, STORE_MAX_BYTES, kind, (double)usage.max_bytes);
	set_label(stats, STORE_EVICTIONS, kind, (double)usage.evicted_objects);
	set_label(stats, STORE_JANITOR_ERRORS, kind, (double)usage.errors);
	if (!usage.measured)
		return;
	set_label(stats, STORE_BYTES, kind, (double)usage.bytes);
	set_label(stats, STORE_OBJECTS, kind, (double)usage.objects);
}

static void on_service(const char *service, int breaker_state, void *arg)
{
	set_label(arg, BREAKER_STATE, service, breaker_state);
}

static void collect_provider(struct stats *stats)
{
	const struct provider *provider = stats->gateway->provider;
	struct provider_counts counts = {0};
	if (!provider->ops->report)
		return;
	provider->ops->report(provider, &counts, on_service, stats);
	set(stats, PROVIDER_ATTEMPTS, (double)counts.attempts);
	set(stats, PROVIDER_RETRIES, (double)counts.retries);
	set(stats, PROVIDER_BISECTIONS, (double)counts.bisections);
	set_label(stats, PROVIDER_NOT_TRIED, "breaker", (double)counts.refused_by_breaker);
	set_label(stats, PROVIDER_NOT_TRIED, "paused", (double)counts.refused_by_pause);
	set_label(stats, OLLAMA_PULLS, "ok", (double)counts.pulls);
	set_label(stats, OLLAMA_PULLS, "failed", (double)counts.pulls_failed);
}

static void collect(void *arg)
{
	struct stats *stats = arg;
	const struct gateway *gateway = stats->gateway;
	const struct flights_counters *flights = flights_counters(gateway->flights);
	set(stats, PURCHASES, (double)flights->purchases);
	set_label(stats, PURCHASE_FAILURES, "caller",
		(double)flights->purchase_failures[FLIGHT_OF_CALLER]);
	set_label(stats, PURCHASE_FAILURES, "provider",
		(double)flights->purchase_failures[FLIGHT_OF_PROVIDER]);
	set(stats, INPUTS_BOUGHT, (double)flights->inputs_bought);
	set(stats, ELECTIONS, (double)flights->elections);
	set(stats, FETCHES, (double)flights->fetches);
	set(stats, FETCHES_LOST, (double)flights->fetches_lost);
	set(stats, STORE_DEADLINES, (double)flights->store_deadlines);
	set(stats, JOBS_QUEUED, (double)workers_queued(gateway->workers));
	set(stats, JOBS_PENDING, (double)workers_pending(gateway->workers));
	set(stats, FLIGHTS, (double)flights_under_way(gateway->flights));
	set_label(stats, REFRESHES, "found", (double)refresher_succeeded(gateway->refresher));
	set_label(stats, REFRESHES, "failed", (double)refresher_failed(gateway->refresher));
	collect_cache(stats);
	collect_purges(stats);
	collect_leases(stats);
	const struct store *store;
	for (unsigned i = 0; gateway->store && (store = store_tier(gateway->store, i)); i++) {
		collect_store(stats, store);
		collect_usage(stats, store);
	}
	collect_provider(stats);
}

static void on_store_ended(
	const char *kind, bool put, const char *result, uint64_t duration_us, void *arg)
{
	const struct stats *stats = arg;
	metric_observe(
		metric(stats->metrics, &gatewayd_families[put ? PUT_DURATION : LOOK_UP_DURATION],
			kind, result),
		(double)duration_us / 1e6);
}

static void on_epoch_ended(
	const char *kind, const char *operation, bool ok, uint64_t duration_us, void *arg)
{
	const struct stats *stats = arg;
	metric_observe(metric(stats->metrics, &gatewayd_families[STORE_EPOCH_DURATION], kind,
			       operation, ok ? "ok" : "failed"),
		(double)duration_us / 1e6);
}

struct stats *stats_new(struct metrics *metrics, const struct gateway *gateway)
{
	static const char *const sources[STATS_SOURCES] = {"memory", "store", "bought", "joined"};
	struct stats *stats = calloc(1, sizeof *stats);
	if (!stats)
		return NULL;
	stats->metrics = metrics;
	stats->gateway = gateway;
	for (int i = 0; i < STATS_RESULTS; i++) {
		stats->duration[i] = metric(metrics, &gatewayd_families[DURATION], result_names[i]);
		if (i < STATS_ERROR)
			stats->ok[i] = metric(
				metrics, &gatewayd_families[REQUESTS], result_names[i], "200");
	}
	for (int i = 0; i < STATS_SOURCES; i++)
		stats->elements[i] = metric(metrics, &gatewayd_families[ELEMENTS], sources[i]);
	metrics_on_collect(metrics, collect, stats);
	if (gateway->store)
		store_watch(gateway->store, on_store_ended, stats);
	if (gateway->epochs)
		purge_epochs_watch(gateway->epochs, on_epoch_ended, stats);
	return stats;
}

void stats_free(struct stats **stats)
{
	for (size_t i = 0; *stats && i < (*stats)->n_models; i++)
		free((*stats)->models[i]);
	free(*stats);
	*stats = NULL;
}

void stats_count_request(
	struct stats *stats, enum stats_result result, int status, uint64_t started_us)
{
	uint64_t duration_us = loop_now_us(stats->gateway->loop) - started_us;
	metric_observe(stats->duration[result], (double)duration_us / 1e6);
	if (status == 200 && stats->ok[result]) {
		metric_add(stats->ok[result], 1);
		return;
	}
	char text[16];
	snprintf(text, sizeof text, "%d", status);
	metric_add(metric(stats->metrics, &gatewayd_families[REQUESTS], result_names[result], text),
		1);
}

void stats_count_elements(struct stats *stats, enum stats_source source, uint64_t n)
{
	if (n)
		metric_add(stats->elements[source], (double)n);
}

static struct metric *of_model(
	struct stats *stats, enum family family, struct span model, const char *type)
{
	char name[MODEL_LABEL_BYTES];
	snprintf(name, sizeof name, "%.*s", SPAN_ARG(model));
	return type ? metric(stats->metrics, &gatewayd_families[family], name, type)
		    : metric(stats->metrics, &gatewayd_families[family], name);
}

static struct model_tokens *model_tokens(struct stats *stats, struct span model)
{
	unsigned n = stats->n_lately < MODELS_LATELY ? stats->n_lately : MODELS_LATELY;
	for (unsigned i = 0; i < n; i++)
		if (span_equal_str(model, stats->lately[i].model))
			return &stats->lately[i];
	struct model_tokens *m = &stats->lately[stats->n_lately++ % MODELS_LATELY];
	*m = (struct model_tokens){.processed = of_model(stats, PROCESSED_TOKENS, model, NULL),
		.price = prices_of(stats->gateway->conf->prices, model)};
	snprintf(m->model, sizeof m->model, "%.*s", SPAN_ARG(model));
	return m;
}

void stats_count_tokens(struct stats *stats, struct span model, uint64_t tokens, uint64_t saved)
{
	struct model_tokens *m = model_tokens(stats, model);
	metric_add(m->processed, (double)tokens);
	if (!saved)
		return;
	if (!m->saved)
		m->saved = of_model(stats, SAVED_TOKENS, model, NULL);
	metric_add(m->saved, (double)saved);
	if (m->price <= 0)
		return;
	if (!m->saved_dollars)
		m->saved_dollars = of_model(stats, SAVED_DOLLARS, model, NULL);
	metric_add(m->saved_dollars, (double)saved * m->price);
}

void stats_count_bought(struct stats *stats, struct span model, uint64_t tokens)
{
	metric_add(of_model(stats, PAID_TOKENS, model, "prompt"), (double)tokens);
}

/* The model as a label: whoever asks for one that no provider knows makes no series. */
static const char *known_model(struct stats *stats, struct span model, bool answered)
{
	for (size_t i = 0; i < stats->n_models; i++)
		if (span_equal_str(model, stats->models[i]))
			return stats->models[i];
	char *name = answered && stats->n_models < MAX_MODELS ? strndup(model.data, model.len)
							      : NULL;
	if (!name)
		return "other";
	stats->models[stats->n_models++] = name;
	return name;
}

void stats_count_attempt(struct stats *stats, const struct provider_attempt *attempt)
{
	bool ollama = strcmp(attempt->provider, "ollama") == 0;
	metric_observe(metric(stats->metrics, &gatewayd_families[PROVIDER_DURATION],
			       attempt->service, attempt->status),
		(double)attempt->duration_us / 1e6);
	if (attempt->model.len == 0)
		return;
	const char *model = known_model(stats, attempt->model, strcmp(attempt->status, "200") == 0);
	metric_add(metric(stats->metrics,
			   &gatewayd_families[ollama ? OLLAMA_REQUESTS : OPENAI_REQUESTS], model,
			   attempt->status),
		1);
	if (attempt->tokens)
		metric_add(of_model(stats, ollama ? OLLAMA_TOKENS : PAID_TOKENS, attempt->model,
				   "prompt"),
			(double)attempt->tokens);
}

void stats_observe_fetch(struct stats *stats, const char *outcome, uint64_t duration_us)
{
	metric_observe(metric(stats->metrics, &gatewayd_families[FETCH_DURATION], outcome),
		(double)duration_us / 1e6);
}
