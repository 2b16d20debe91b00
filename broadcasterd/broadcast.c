#include "broadcasterd/broadcast.h"

#include <stdlib.h>
#include <sys/queue.h>

#include "broadcasterd/conf.h"
#include "broadcasterd/redelivery.h"
#include "broadcasterd/stats.h"
#include "common/log.h"
#include "common/loop.h"

/* What one target was told, and said. */
struct telling {
	struct broadcast *broadcast;
	struct target *target;
	struct delivery *delivery; /* NULL once over */
	char *error;
};

struct broadcast {
	struct broadcasts *all;
	TAILQ_ENTRY(broadcast) entry;
	struct purge *purge;
	uint64_t started_us;
	struct search *search;

	size_t n_tellings, n_left, n_failed;
	struct telling *tellings;
	struct msg_purge_target *results; /* of the same places */
	uint64_t purged;
	enum broadcast_outcome outcome;
	struct keeper_waiter keeping;
	struct deferred end;

	void (*on_done)(const struct broadcast_result *result, void *arg); /* NULL: nobody waits */
	void *arg;
};

struct broadcasts {
	struct broadcast_parts parts;
	size_t count;
	TAILQ_HEAD(, broadcast) list;
	void (*on_drained)(void *arg);
	void *drained_arg;
	struct deferred drained;
};

/* ---- the end ---- */

static void broadcast_free(struct broadcast *b)
{
	struct broadcasts *all = b->all;
	discovery_cancel(&b->search);
	keeper_forget(&b->keeping);
	loop_defer_cancel(all->parts.loop, &b->end);
	for (size_t i = 0; i < b->n_tellings; i++) {
		delivery_cancel(&b->tellings[i].delivery);
		target_unref(&b->tellings[i].target);
		free(b->tellings[i].error);
	}
	free(b->tellings);
	free(b->results);
	purge_unref(&b->purge);
	TAILQ_REMOVE(&all->list, b, entry);
	all->count--;
	free(b);
	if (!all->count && all->on_drained)
		loop_defer(all->parts.loop, &all->drained);
}

static void log_end(const struct broadcast *b, double seconds)
{
	static const char *const sentences[BROADCAST_OUTCOMES] = {
		[BROADCAST_DONE] = "purge",
		[BROADCAST_NOBODY] = "purge failed: no pods found for service",
		[BROADCAST_UNKNOWN] = "purge failed: service discovery failed",
	};
	char what[200];
	purge_describe(b->purge, what, sizeof what);
	log_fields(b->n_failed || b->outcome != BROADCAST_DONE ? LOG_LEVEL_WARN : LOG_LEVEL_INFO,
		TRACE_TEXT(purge_trace(b->purge)), sentences[b->outcome], LOG_STR("purge", what),
		LOG_BOOL("store", b->purge->params.store), LOG_INT("targets", b->n_tellings),
		LOG_INT("failed", b->n_failed), LOG_INT("purged", b->purged),
		LOG_DOUBLE("seconds", seconds));
}

static void on_end(void *arg)
{
	static const char *const errors[BROADCAST_OUTCOMES] = {
		[BROADCAST_DONE] = "",
		[BROADCAST_NOBODY] = "no pods found for service",
		[BROADCAST_UNKNOWN] = "service discovery failed",
	};
	struct broadcast *b = arg;
	const struct broadcast_parts *parts = &b->all->parts;
	double seconds = (double)(loop_now_us(parts->loop) - b->started_us) / 1e6;
	bool ok = b->outcome == BROADCAST_DONE && !b->n_failed;
	struct broadcast_result result = {
		.outcome = b->outcome,
		.n_failed = b->n_failed,
		.message = {.status = ok ? 200 : 502,
			.error = span_of(
				b->n_failed ? "not every target has purged" : errors[b->outcome]),
			.purged = b->purged,
			.results = {b->results, b->n_tellings}},
	};
	log_end(b, seconds);
	stats_purge(parts->metrics, b->outcome, b->n_tellings, b->n_failed, seconds);
	if (b->on_done)
		b->on_done(&result, b->arg);
	broadcast_free(b);
}

static void end(struct broadcast *b, enum broadcast_outcome outcome)
{
	b->outcome = outcome;
	loop_defer(b->all->parts.loop, &b->end);
}

/* ---- telling ---- */

static void on_kept(void *arg)
{
	end(arg, BROADCAST_DONE);
}

static void on_all_told(struct broadcast *b)
{
	b->keeping = (struct keeper_waiter){.on_kept = on_kept, .arg = b};
	if (b->n_failed)
		redelivery_keep(b->all->parts.redelivery, &b->keeping);
	else
		end(b, BROADCAST_DONE);
}

/* It will be told again. */
static void on_failed(
	struct broadcast *b, struct target *target, const struct delivery_result *said)
{
	b->n_failed++;
	log_fields(LOG_LEVEL_WARN, TRACE_TEXT(purge_trace(b->purge)), "target not purged",
		LOG_STR("target", target->name), LOG_INT("status", said->status),
		LOG_STR("reason", delivery_outcome_names[said->outcome]),
		LOG_STR("error", said->error));
	if (redelivery_add(b->all->parts.redelivery, target, b->purge, said) < 0)
		log_fields(LOG_LEVEL_ERROR, TRACE_TEXT(purge_trace(b->purge)),
			"target will not be told again", LOG_STR("target", target->name),
			LOG_STR("reason", "out of memory"));
}

static void on_told(const struct delivery_result *said, void *arg)
{
	struct telling *t = arg;
	struct broadcast *b = t->broadcast;
	struct msg_purge_target *result = &b->results[t - b->tellings];
	t->delivery = NULL;
	t->error = strdup(said->error);
	result->status = (uint64_t)said->status;
	result->success = said->outcome == DELIVERY_OK;
	result->error = span_of(t->error ? t->error : "");
	stats_delivery(b->all->parts.metrics, said);
	b->purged += said->purged;
	if (said->outcome == DELIVERY_OK)
		b->purge->taken = true;
	else
		on_failed(b, t->target, said);
	if (--b->n_left == 0)
		on_all_told(b);
}

static int tell(struct broadcast *b, const struct target_list *targets)
{
	const struct broadcast_parts *parts = &b->all->parts;
	b->tellings = calloc(targets->count, sizeof *b->tellings);
	b->results = calloc(targets->count, sizeof *b->results);
	if (!b->tellings || !b->results)
		return -1;
	b->n_tellings = b->n_left = targets->count;
	for (size_t i = 0; i < targets->count; i++) {
		struct telling *t = &b->tellings[i];
		*t = (struct telling){.broadcast = b, .target = target_ref(targets->items[i])};
		b->results[i].pod = span_of(t->target->name);
		struct delivery_options options = {
			.target = t->target,
			.purge = b->purge,
			.connect_timeout_ms = (uint32_t)parts->conf->connect_timeout_ms,
			.timeout_ms = (uint32_t)parts->conf->timeout_ms,
			.traced = true,
		};
		t->delivery = delivery_start(parts->deliveries, &options, on_told, t);
		if (!t->delivery)
			on_told(&(struct delivery_result){.outcome = DELIVERY_CONNECT,
					.error = "out of memory"},
				t);
	}
	return 0;
}

static void on_found(const struct discovery_result *found, void *arg)
{
	struct broadcast *b = arg;
	b->search = NULL;
	if (found->outcome == DISCOVERY_NONE)
		end(b, BROADCAST_NOBODY);
	else if (found->outcome != DISCOVERY_OK || tell(b, found->targets) < 0)
		end(b, BROADCAST_UNKNOWN);
}

struct broadcast *broadcast_start(struct broadcasts *broadcasts, struct purge *purge,
	void (*on_done)(const struct broadcast_result *result, void *arg), void *arg)
{
	const struct broadcast_parts *parts = &broadcasts->parts;
	struct broadcast *b = NULL;
	if (broadcasts->count < (size_t)parts->conf->max_purges &&
		!(purge->params.store && redelivery_is_full(parts->redelivery)))
		b = calloc(1, sizeof *b);
	if (!b)
		return NULL;
	*b = (struct broadcast){.all = broadcasts,
		.purge = purge_ref(purge),
		.started_us = loop_now_us(parts->loop),
		.on_done = on_done,
		.arg = arg};
	deferred_init(&b->end, on_end, b);
	TAILQ_INSERT_TAIL(&broadcasts->list, b, entry);
	broadcasts->count++;
	b->search = discovery_start(parts->discovery, purge_trace(purge), on_found, b);
	if (!b->search) {
		broadcast_free(b);
		return NULL;
	}
	return b;
}

void broadcast_leave(struct broadcast **broadcast)
{
	if (*broadcast)
		(*broadcast)->on_done = NULL;
	*broadcast = NULL;
}

/* ---- life ---- */

static void on_drained(void *arg)
{
	struct broadcasts *all = arg;
	all->on_drained(all->drained_arg);
}

struct broadcasts *broadcasts_new(const struct broadcast_parts *parts)
{
	struct broadcasts *all = calloc(1, sizeof *all);
	if (!all)
		return NULL;
	all->parts = *parts;
	TAILQ_INIT(&all->list);
	deferred_init(&all->drained, on_drained, all);
	return all;
}

size_t broadcasts_count(const struct broadcasts *broadcasts)
{
	return broadcasts->count;
}

void broadcasts_drain(struct broadcasts *broadcasts, void (*drained)(void *arg), void *arg)
{
	broadcasts->on_drained = drained;
	broadcasts->drained_arg = arg;
	if (!broadcasts->count)
		loop_defer(broadcasts->parts.loop, &broadcasts->drained);
}

void broadcasts_free(struct broadcasts **broadcasts)
{
	struct broadcasts *all = *broadcasts;
	struct broadcast *b;
	if (!all)
		return;
	*broadcasts = NULL;
	all->on_drained = NULL;
	while ((b = TAILQ_FIRST(&all->list)))
		broadcast_free(b);
	loop_defer_cancel(all->parts.loop, &all->drained);
	free(all);
}
