#include "gatewayd/stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
#include "gatewayd/store.h"

/* A model is a label only after a provider's 200, and at most so many are. */
#define MAX_MODELS 200

enum family {
	REQUESTS,
	DURATION,
	ELEMENTS,
	PROCESSED_TOKENS,
	SAVED_TOKENS,
	SAVED_DOLLARS,
	PAID_TOKENS,
	OPENAI_REQUESTS,
	OLLAMA_REQUESTS,
	OLLAMA_TOKENS,
	PROVIDER_DURATION,
	FETCH_DURATION,
	LOOK_UP_DURATION,
	PUT_DURATION,
	LOOK_UPS_PENDING,
	JOBS_QUEUED,
	JOBS_PENDING,
	PURCHASES,
	PURCHASE_FAILURES,
	INPUTS_BOUGHT,
	ELECTIONS,
	FETCHES,
	FETCHES_LOST,
	FLIGHTS,
	CACHE_BUDGET,
	CACHE_USED,
	CACHE_PINNED,
	CACHE_OUTSIDE,
	CACHE_OBJECTS,
	CACHE_HITS,
	CACHE_MISSES,
	CACHE_INSERTS,
	CACHE_EVICTIONS,
	CACHE_REFUSED,
	CACHE_PURGED,
	CACHE_TOO_LATE,
	CACHE_TAGS,
	PURGES,
	PURGES_REFUSED,
	PURGES_FAILED,
	STORE_LOOK_UPS,
	STORE_PURGED,
	STORE_EPOCHS,
	STORE_DEADLINES,
	REFRESHES,
	STORE_PUTS,
	STORE_DENIED,
	STORE_PENDING,
	STORE_READ_BYTES,
	STORE_WRITTEN_BYTES,
	PROVIDER_ATTEMPTS,
	PROVIDER_RETRIES,
	PROVIDER_NOT_TRIED,
	PROVIDER_BISECTIONS,
	BREAKER_STATE,
	LEASES,
	LEASE_PEERS,
	LENT_BYTES,
	LEASES_GRANTED,
	LEASES_REFUSED,
	LEASE_CUT_OFFS,
	SLOW_RESETS,
};

const struct metric_family gatewayd_families[] = {
	[REQUESTS] = {.name = "gatewayd_requests_total",
		.type = METRIC_COUNTER,
		.labels = {"result", "status"},
		.help = "Requests by result: hit, stale, partial, miss, coalesced, pass, error, gone; they are the sum."},
	[DURATION] = {.name = "gatewayd_request_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.labels = {"result"},
		.buckets = metrics_latency_buckets,
		.help = "Time from the complete request to the answer handed over."},
	[ELEMENTS] = {.name = "gatewayd_elements_total",
		.type = METRIC_COUNTER,
		.labels = {"source"},
		.help = "Embeddings in answers, by where they came from."},
	[PROCESSED_TOKENS] = {.name = "processed_tokens_total",
		.type = METRIC_COUNTER,
		.labels = {"model"},
		.max_series = MAX_MODELS,
		.help = "Tokens of all answers, bought or not."},
	[SAVED_TOKENS] = {.name = "saved_tokens_total",
		.type = METRIC_COUNTER,
		.labels = {"model"},
		.max_series = MAX_MODELS,
		.help = "Tokens of answers that did not have to be paid for."},
	[SAVED_DOLLARS] = {.name = "saved_dollars_total",
		.type = METRIC_COUNTER,
		.labels = {"model"},
		.max_series = MAX_MODELS,
		.help = "What those tokens would have cost, by TOKEN_PRICES."},
	[PAID_TOKENS] = {.name = "openai_tokens_used_total",
		.type = METRIC_COUNTER,
		.labels = {"model", "type"},
		.max_series = MAX_MODELS,
		.help = "Tokens that the provider says it charged for."},
	[OPENAI_REQUESTS] = {.name = "openai_requests_total",
		.type = METRIC_COUNTER,
		.labels = {"model", "status"},
		.help = "HTTP calls for embeddings to an OpenAI-compatible provider, by status: of HTTP, or connect, timeout, reset, busy, broken."},
	[OLLAMA_REQUESTS] = {.name = "ollama_requests_total",
		.type = METRIC_COUNTER,
		.labels = {"model", "status"},
		.help = "The same, to Ollama."},
	[OLLAMA_TOKENS] = {.name = "ollama_tokens_used_total",
		.type = METRIC_COUNTER,
		.labels = {"model", "type"},
		.max_series = MAX_MODELS,
		.help = "Tokens that Ollama says it has read."},
	[PROVIDER_DURATION] = {.name = "gatewayd_provider_request_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.labels = {"service", "status"},
		.buckets = metrics_latency_buckets,
		.help = "Time of one HTTP call to a provider, in seconds."},
	[FETCH_DURATION] = {.name = "gatewayd_fetch_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.labels = {"outcome"},
		.buckets = metrics_latency_buckets,
		.help = "Time of one call to another instance, in seconds, by outcome: done, refused, lost."},
	[LOOK_UP_DURATION] = {.name = "gatewayd_store_look_up_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.labels = {"store", "result"},
		.buckets = metrics_latency_buckets,
		.help = "Time of one look-up in a store, in seconds, of those that were not abandoned."},
	[PUT_DURATION] = {.name = "gatewayd_store_put_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.labels = {"store", "result"},
		.buckets = metrics_latency_buckets,
		.help = "Time of one attempt to store an object, in seconds."},
	[LOOK_UPS_PENDING] = {.name = "gatewayd_store_look_ups_pending",
		.type = METRIC_GAUGE,
		.labels = {"store"},
		.help = "Look-ups that the store has not answered."},
	[JOBS_QUEUED] = {.name = "gatewayd_worker_jobs_queued",
		.type = METRIC_GAUGE,
		.help = "Jobs that wait for a worker thread."},
	[JOBS_PENDING] = {.name = "gatewayd_worker_jobs_pending",
		.type = METRIC_GAUGE,
		.help = "Jobs that wait for a worker thread or run on one."},
	[PURCHASES] = {.name = "gatewayd_purchases_total",
		.type = METRIC_COUNTER,
		.help = "Purchases from the provider (each with its retries)."},
	[PURCHASE_FAILURES] = {.name = "gatewayd_purchase_failures_total",
		.type = METRIC_COUNTER,
		.help = "Purchases that brought no embedding."},
	[INPUTS_BOUGHT] = {.name = "gatewayd_inputs_bought_total",
		.type = METRIC_COUNTER,
		.help = "Elements asked of the provider."},
	[ELECTIONS] = {.name = "gatewayd_payer_elections_total",
		.type = METRIC_COUNTER,
		.help = "Elements that another waiting request took over from their first payer."},
	[FETCHES] = {.name = "gatewayd_fetches_total",
		.type = METRIC_COUNTER,
		.help = "Calls to other instances for elements that they own."},
	[FETCHES_LOST] = {.name = "gatewayd_fetches_lost_total",
		.type = METRIC_COUNTER,
		.help = "Those of them whose owner was lost, so that this instance did it itself."},
	[FLIGHTS] = {.name = "gatewayd_flights",
		.type = METRIC_GAUGE,
		.help = "Elements being looked up or bought now."},
	[CACHE_BUDGET] = {.name = "gatewayd_cache_budget_bytes",
		.type = METRIC_GAUGE,
		.help = "Memory that the cache may use."},
	[CACHE_USED] = {.name = "gatewayd_cache_used_bytes",
		.type = METRIC_GAUGE,
		.help = "Memory that the cache uses, index included."},
	[CACHE_PINNED] = {.name = "gatewayd_cache_pinned_bytes",
		.type = METRIC_GAUGE,
		.help = "Part of it that is out of the cache and still being sent."},
	[CACHE_OUTSIDE] = {.name = "gatewayd_cache_outside_bytes",
		.type = METRIC_GAUGE,
		.help = "Embeddings of requests under way that found no room in the cache."},
	[CACHE_OBJECTS] = {.name = "gatewayd_cache_objects",
		.type = METRIC_GAUGE,
		.labels = {"kind"},
		.help = "Objects in memory: element (one embedding), response (a whole answer)."},
	[CACHE_HITS] = {.name = "gatewayd_cache_hits_total",
		.type = METRIC_COUNTER,
		.labels = {"kind"},
		.help = "Look-ups in memory that found something."},
	[CACHE_MISSES] = {.name = "gatewayd_cache_misses_total",
		.type = METRIC_COUNTER,
		.help = "Look-ups in memory that found nothing."},
	[CACHE_INSERTS] = {.name = "gatewayd_cache_inserts_total",
		.type = METRIC_COUNTER,
		.help = "Objects put in memory."},
	[CACHE_EVICTIONS] = {.name = "gatewayd_cache_evictions_total",
		.type = METRIC_COUNTER,
		.help = "Objects pushed out of memory by others."},
	[CACHE_REFUSED] = {.name = "gatewayd_cache_refused_total",
		.type = METRIC_COUNTER,
		.help = "Objects not put in memory: too large, or no room."},
	[CACHE_PURGED] = {.name = "gatewayd_cache_purged_total",
		.type = METRIC_COUNTER,
		.help = "Objects taken out of memory by purges."},
	[CACHE_TOO_LATE] = {.name = "gatewayd_cache_too_late_total",
		.type = METRIC_COUNTER,
		.help = "Objects not put in memory because a purge came after they were asked for."},
	[CACHE_TAGS] = {.name = "gatewayd_cache_tags",
		.type = METRIC_GAUGE,
		.help = "Tags by which objects in memory can be purged: paths, body hashes, keys, names."},
	[PURGES] = {.name = "gatewayd_purges_total",
		.type = METRIC_COUNTER,
		.labels = {"scope"},
		.help = "Purges of this instance, those asked by other instances included: path, all, tag, body_hash, key."},
	[PURGES_REFUSED] = {.name = "gatewayd_purges_refused_total",
		.type = METRIC_COUNTER,
		.help = "Purges refused for want of the purge token."},
	[PURGES_FAILED] = {.name = "gatewayd_purges_failed_total",
		.type = METRIC_COUNTER,
		.help = "Purges of the pod that an instance or the store did not do."},
	[STORE_LOOK_UPS] = {.name = "gatewayd_store_look_ups_total",
		.type = METRIC_COUNTER,
		.labels = {"store", "result"},
		.help = "Look-ups in each store (dir, s3): hit, miss, legacy, legacy_miss, corrupt, error, abandoned."},
	[STORE_PURGED] = {.name = "gatewayd_store_purged_total",
		.type = METRIC_COUNTER,
		.labels = {"store"},
		.help = "Look-ups that found an object which was purged: misses."},
	[STORE_EPOCHS] = {.name = "gatewayd_store_epochs",
		.type = METRIC_GAUGE,
		.help = "Purges of the store that hold: of everything, models and keys."},
	[STORE_DEADLINES] = {.name = "gatewayd_store_deadline_total",
		.type = METRIC_COUNTER,
		.help = "Look-ups in the store that took too long and were bought instead."},
	[REFRESHES] = {.name = "gatewayd_refreshes_total",
		.type = METRIC_COUNTER,
		.labels = {"result"},
		.help = "Stale embeddings looked up in the store in the background, by result: found, failed."},
	[STORE_PUTS] = {.name = "gatewayd_store_puts_total",
		.type = METRIC_COUNTER,
		.labels = {"store", "result"},
		.help = "Objects stored, given up or dropped because the queue was full; attempts that failed."},
	[STORE_DENIED] = {.name = "gatewayd_store_denied_total",
		.type = METRIC_COUNTER,
		.labels = {"store"},
		.help = "Attempts that the store refused for the credentials: check keys, clock and policy."},
	[STORE_PENDING] = {.name = "gatewayd_store_puts_pending",
		.type = METRIC_GAUGE,
		.labels = {"store"},
		.help = "Objects waiting to be stored."},
	[STORE_READ_BYTES] = {.name = "gatewayd_store_read_bytes_total",
		.type = METRIC_COUNTER,
		.labels = {"store"},
		.help = "Compressed bytes read from the store."},
	[STORE_WRITTEN_BYTES] = {.name = "gatewayd_store_written_bytes_total",
		.type = METRIC_COUNTER,
		.labels = {"store"},
		.help = "Compressed bytes written to the store."},
	[PROVIDER_ATTEMPTS] = {.name = "gatewayd_provider_attempts_total",
		.type = METRIC_COUNTER,
		.help = "HTTP calls to the provider."},
	[PROVIDER_RETRIES] = {.name = "gatewayd_provider_retries_total",
		.type = METRIC_COUNTER,
		.help = "Those of them that repeated a failed one, there or at another base URL."},
	[PROVIDER_NOT_TRIED] = {.name = "gatewayd_provider_refused_total",
		.type = METRIC_COUNTER,
		.labels = {"reason"},
		.help = "Purchases not tried: breaker (open), paused (the credential has to wait)."},
	[PROVIDER_BISECTIONS] = {.name = "gatewayd_provider_bisections_total",
		.type = METRIC_COUNTER,
		.help = "Calls that the provider refused for their size, and that were made again in halves."},
	[BREAKER_STATE] = {.name = "circuit_breaker_state",
		.type = METRIC_GAUGE,
		.labels = {"service"},
		.help = "0 closed, 1 open, 2 half-open."},
	[LEASES] = {.name = "gatewayd_leases",
		.type = METRIC_GAUGE,
		.help = "Answers by reference that peers have not given back."},
	[LEASE_PEERS] = {.name = "gatewayd_lease_peers",
		.type = METRIC_GAUGE,
		.help = "Connections that share the arena, those cut off included."},
	[LENT_BYTES] = {.name = "gatewayd_lent_bytes",
		.type = METRIC_GAUGE,
		.help = "Memory of the cache that answers under way keep, each object once."},
	[LEASES_GRANTED] = {.name = "gatewayd_leases_granted_total",
		.type = METRIC_COUNTER,
		.help = "Answers that went by reference."},
	[LEASES_REFUSED] = {.name = "gatewayd_leases_refused_total",
		.type = METRIC_COUNTER,
		.help = "Answers that went in chunks because too much was lent."},
	[LEASE_CUT_OFFS] = {.name = "gatewayd_lease_cut_offs_total",
		.type = METRIC_COUNTER,
		.help = "Peers cut off for wrong leases or a wrong attach."},
	[SLOW_RESETS] = {.name = "gatewayd_slow_answers_reset_total",
		.type = METRIC_COUNTER,
		.help = "Answers in chunks given up because their reader was slow and memory short."},
	{0},
};

struct stats {
	struct metrics *metrics;
	const struct gateway *gateway;
	struct metric *ok[STATS_RESULTS]; /* status 200 */
	struct metric *duration[STATS_RESULTS];
	struct metric *elements[STATS_SOURCES];
	char *models[MAX_MODELS]; /* that a provider has answered for with 200 */
	size_t n_models;
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
}

static void collect(void *arg)
{
	struct stats *stats = arg;
	const struct gateway *gateway = stats->gateway;
	const struct flights_counters *flights = flights_counters(gateway->flights);
	set(stats, PURCHASES, (double)flights->purchases);
	set(stats, PURCHASE_FAILURES, (double)flights->purchase_failures);
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
	for (unsigned i = 0; gateway->store && (store = store_tier(gateway->store, i)); i++)
		collect_store(stats, store);
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
	return stats;
}

void stats_free(struct stats **stats)
{
	for (size_t i = 0; *stats && i < (*stats)->n_models; i++)
		free((*stats)->models[i]);
	free(*stats);
	*stats = NULL;
}

void stats_count_request(struct stats *stats, enum stats_result result, int status)
{
	if (status == 200 && stats->ok[result]) {
		metric_add(stats->ok[result], 1);
		return;
	}
	char text[16];
	snprintf(text, sizeof text, "%d", status);
	metric_add(metric(stats->metrics, &gatewayd_families[REQUESTS], result_names[result], text),
		1);
}

void stats_observe_duration(struct stats *stats, enum stats_result result, uint64_t duration_us)
{
	metric_observe(stats->duration[result], (double)duration_us / 1e6);
}

void stats_count_elements(struct stats *stats, enum stats_source source, uint64_t n)
{
	if (n)
		metric_add(stats->elements[source], (double)n);
}

static struct metric *of_model(
	struct stats *stats, enum family family, struct span model, const char *type)
{
	char name[128];
	snprintf(name, sizeof name, "%.*s", SPAN_ARG(model));
	return type ? metric(stats->metrics, &gatewayd_families[family], name, type)
		    : metric(stats->metrics, &gatewayd_families[family], name);
}

void stats_count_tokens(struct stats *stats, struct span model, uint64_t tokens, uint64_t saved)
{
	metric_add(of_model(stats, PROCESSED_TOKENS, model, NULL), (double)tokens);
	if (!saved)
		return;
	metric_add(of_model(stats, SAVED_TOKENS, model, NULL), (double)saved);
	double price = prices_of(stats->gateway->conf->prices, model);
	if (price > 0)
		metric_add(of_model(stats, SAVED_DOLLARS, model, NULL), (double)saved * price);
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
