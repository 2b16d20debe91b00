#ifndef GATEWAYD_STATS_H
#define GATEWAYD_STATS_H

/*
 * What gatewayd counts. The families are declared in stats.c; what the parts count themselves
 * (cache, store, flights, provider) is read when somebody looks.
 *
 *   requests = hit + stale + partial + miss + coalesced + pass + error + gone
 */
#include <stdint.h>

#include "common/metrics.h"
#include "common/span.h"

struct gateway;
struct stats;

enum stats_result {
	STATS_HIT,       /* everything came from memory or the store */
	STATS_STALE,     /* so it did, and some of it was past its TTL */
	STATS_PARTIAL,   /* some of it */
	STATS_MISS,      /* all was bought for this request */
	STATS_COALESCED, /* nothing was bought: another request had it on the way */
	STATS_PASS,      /* asked of the provider, whatever is known */
	STATS_ERROR,
	STATS_GONE, /* the client left before the answer */
};
#define STATS_RESULTS 8
/* As in X-Cache: "HIT"; "" for the last two. */
const char *stats_x_cache(enum stats_result result);

enum stats_source { STATS_MEMORY, STATS_STORE, STATS_BOUGHT, STATS_JOINED };
#define STATS_SOURCES 4

extern const struct metric_family gatewayd_families[];

/* gateway is borrowed; NULL when out of memory. */
struct stats *stats_new(struct metrics *metrics, const struct gateway *gateway);
void stats_free(struct stats **stats);

/* A request has ended, with its duration since then. */
void stats_count_request(
	struct stats *stats, enum stats_result result, int status, uint64_t started_us);
void stats_count_elements(struct stats *stats, enum stats_source source, uint64_t n);
/* Tokens of an answer: all of them, and those that cost nothing. */
void stats_count_tokens(struct stats *stats, struct span model, uint64_t tokens, uint64_t saved);
/* What the mock says that it was paid. */
void stats_count_bought(struct stats *stats, struct span model, uint64_t tokens);
/* A call to a provider, and what it said was paid for. */
struct provider_attempt;
void stats_count_attempt(struct stats *stats, const struct provider_attempt *attempt);
/* A call to another instance has ended. outcome is a constant. */
void stats_observe_fetch(struct stats *stats, const char *outcome, uint64_t duration_us);

#endif
