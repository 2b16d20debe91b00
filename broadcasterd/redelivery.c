#include "broadcasterd/redelivery.h"

#include <stdlib.h>
#include <sys/queue.h>

#include "broadcasterd/conf.h"
#include "broadcasterd/journal.h"
#include "broadcasterd/stats.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/retry.h"

#define BACKOFF_BASE_MS 50
#define DENIED_MS       5000 /* another token is not there in a moment */
#define SEARCH_MS       1000
#define SEARCHES_ABSENT 2 /* in a row: it has left */
#define PARALLEL        8 /* told at once to a target that answers */
#define MAX_DOUBLINGS   12
#define INSTANCE_SIZE   65

/* One purge for one target. */
struct pending {
	struct redelivery_queue *queue;
	TAILQ_ENTRY(pending) entry;
	struct purge *purge;
	struct delivery *delivery;    /* NULL: not told at the moment */
	char instance[INSTANCE_SIZE]; /* of the target when it last answered; "": it never did */
};
TAILQ_HEAD(pending_list, pending);

/* Of one target; exists while something is pending. */
struct redelivery_queue {
	struct redelivery *redelivery;
	TAILQ_ENTRY(redelivery_queue) entry;
	struct target *target;
	struct pending_list pending;
	size_t count, n_told;
	struct timer *timer; /* the pause before the next attempt */
	struct backoff backoff;
	unsigned doublings; /* of the time to answer */
	bool answers;       /* the last attempt went well */
	unsigned absent;    /* searches in a row that did not find it */
};

struct redelivery {
	struct redelivery_parts parts;
	TAILQ_HEAD(, redelivery_queue) queues;
	size_t count, bytes;
	struct timer *search_timer;
	struct search *search;

	struct keeper *keeper;
};

static void tell_next(struct redelivery_queue *q);

/* ---- the journal ---- */

static size_t gather(const struct redelivery *r, struct journal_entry *entries)
{
	struct redelivery_queue *q;
	struct pending *p;
	size_t n = 0;
	TAILQ_FOREACH (q, &r->queues, entry)
		TAILQ_FOREACH (p, &q->pending, entry)
			entries[n++] = (struct journal_entry){.kind = q->target->kind,
				.target = span_of(q->target->name),
				.instance = span_of(p->instance),
				.purge = p->purge};
	return n;
}

static void write_pending(struct buf *out, void *arg)
{
	const struct redelivery *r = arg;
	struct journal_entry *entries = r->count ? calloc(r->count, sizeof *entries) : NULL;
	if (entries)
		journal_write(entries, gather(r, entries), out);
	out->failed |= r->count && !entries;
	free(entries);
}

void redelivery_keep(struct redelivery *redelivery, struct keeper_waiter *waiter)
{
	keeper_wait(redelivery->keeper, waiter);
}

/* ---- queues ---- */

static void pending_free(struct pending *p)
{
	struct redelivery_queue *q = p->queue;
	struct redelivery *r = q->redelivery;
	if (p->delivery)
		q->n_told--;
	delivery_cancel(&p->delivery);
	TAILQ_REMOVE(&q->pending, p, entry);
	q->count--;
	r->count--;
	r->bytes -= sizeof *p;
	if (--p->purge->n_queues == 0)
		r->bytes -= p->purge->size_bytes;
	purge_unref(&p->purge);
	free(p);
}

static void queue_free(struct redelivery_queue *q)
{
	struct pending *p;
	while ((p = TAILQ_FIRST(&q->pending)))
		pending_free(p);
	TAILQ_REMOVE(&q->redelivery->queues, q, entry);
	timer_free(&q->timer);
	if (q->target)
		q->target->queue = NULL;
	target_unref(&q->target);
	free(q);
}

static void on_pause_over(void *arg)
{
	tell_next(arg);
}

static struct redelivery_queue *queue_of(struct redelivery *r, struct target *target)
{
	struct redelivery_queue *q = target->queue;
	if (q)
		return q;
	q = calloc(1, sizeof *q);
	if (!q)
		return NULL;
	q->redelivery = r;
	TAILQ_INIT(&q->pending);
	TAILQ_INSERT_TAIL(&r->queues, q, entry);
	backoff_init(&q->backoff, BACKOFF_BASE_MS, (uint32_t)r->parts.conf->retry_ms, 2);
	q->timer = timer_new(r->parts.loop, on_pause_over, q);
	if (!q->timer) {
		queue_free(q);
		return NULL;
	}
	q->target = target_ref(target);
	target->queue = q;
	return q;
}

static struct pending *pending_add(
	struct redelivery *r, struct redelivery_queue *q, struct purge *purge, struct span instance)
{
	struct pending *p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	p->queue = q;
	p->purge = purge_ref(purge);
	if (instance.len < sizeof p->instance)
		memcpy(p->instance, instance.data, instance.len);
	TAILQ_INSERT_TAIL(&q->pending, p, entry);
	q->count++;
	r->count++;
	r->bytes += sizeof *p;
	if (purge->n_queues++ == 0)
		r->bytes += purge->size_bytes;
	if (!timer_armed(r->search_timer) && !r->search)
		timer_arm(r->search_timer, SEARCH_MS);
	return p;
}

/* ---- the bounds ---- */

static bool may_be_coarser(const struct pending *p)
{
	return !p->delivery && (!p->purge->params.store || p->purge->taken);
}

struct coarser {
	size_t n;
	uint64_t oldest_ms;
	const struct trace *trace; /* of one of them, the last that came if it has one */
};

static struct coarser count_coarser(const struct redelivery_queue *q)
{
	const struct pending *p;
	struct coarser these = {.oldest_ms = UINT64_MAX};
	uint64_t newest_ms = 0;
	TAILQ_FOREACH (p, &q->pending, entry) {
		if (!may_be_coarser(p))
			continue;
		these.n++;
		if (p->purge->time_ms < these.oldest_ms)
			these.oldest_ms = p->purge->time_ms;
		if (p->purge->has_trace && p->purge->time_ms >= newest_ms) {
			newest_ms = p->purge->time_ms;
			these.trace = &p->purge->trace;
		}
	}
	return these;
}

/* Make one of the many; false: there are not many, or out of memory. */
static bool make_coarser(struct redelivery_queue *q)
{
	struct redelivery *r = q->redelivery;
	struct pending *p, *next;
	struct coarser these = count_coarser(q);
	struct purge *all = these.n > 1 ? purge_everything(these.oldest_ms) : NULL;
	if (all && these.trace) {
		all->trace = *these.trace;
		all->has_trace = true;
	}
	struct pending *one = all ? pending_add(r, q, all, SPAN_LITERAL("")) : NULL;
	purge_unref(&all);
	if (!one)
		return false;
	for (p = TAILQ_FIRST(&q->pending); p; p = next) {
		next = TAILQ_NEXT(p, entry);
		if (p != one && may_be_coarser(p))
			pending_free(p);
	}
	stats_ended(r->parts.metrics, STATS_MERGED, these.n);
	log_fields(LOG_LEVEL_WARN, TRACE_TEXT(purge_trace(one->purge)),
		"too many pending purges become one of everything in the target's memory",
		LOG_STR("target", q->target->name), LOG_INT("purges", these.n));
	return true;
}

static void keep_bounds(struct redelivery *r, struct redelivery_queue *grown)
{
	if (grown->count > (size_t)r->parts.conf->max_pending)
		make_coarser(grown);
	while (r->bytes > (size_t)r->parts.conf->max_pending_bytes) {
		struct redelivery_queue *q, *longest = NULL;
		size_t most = 1;
		TAILQ_FOREACH (q, &r->queues, entry) {
			size_t n = count_coarser(q).n;
			if (n > most) {
				most = n;
				longest = q;
			}
		}
		if (!longest || !make_coarser(longest))
			return;
	}
}

bool redelivery_is_full(const struct redelivery *redelivery)
{
	return redelivery->bytes > (size_t)redelivery->parts.conf->max_pending_bytes;
}

/* ---- telling ---- */

static void end(struct pending *p, enum stats_end how)
{
	struct redelivery_queue *q = p->queue;
	struct redelivery *r = q->redelivery;
	uint64_t now_ms = loop_wall_ms(r->parts.loop);
	double lag = now_ms > p->purge->time_ms ? (double)(now_ms - p->purge->time_ms) / 1e3 : 0;
	char what[200];
	purge_describe(p->purge, what, sizeof what);
	stats_ended(r->parts.metrics, how, 1);
	if (how == STATS_DELIVERED)
		stats_lag(r->parts.metrics, lag);
	log_fields(how == STATS_DELIVERED ? LOG_LEVEL_INFO : LOG_LEVEL_WARN,
		TRACE_TEXT(purge_trace(p->purge)), "pending purge ended",
		LOG_STR("target", q->target->name), LOG_STR("purge", what),
		LOG_STR("how", stats_end_names[how]), LOG_DOUBLE("lag_seconds", lag));
	pending_free(p);
	keeper_changed(r->keeper);
}

/* The target has restarted since it last answered to this purge. */
static bool has_restarted(const struct pending *p, struct span instance)
{
	return instance.len && p->instance[0] && !span_equal_str(instance, p->instance);
}

static void note_instance(struct pending *p, struct span instance)
{
	if (!instance.len || instance.len >= sizeof p->instance ||
		span_equal_str(instance, p->instance))
		return;
	memcpy(p->instance, instance.data, instance.len);
	p->instance[instance.len] = '\0';
	keeper_changed(p->queue->redelivery->keeper);
}

/* Not taken. Others of the target come first next time, or one bad purge would hold up all. */
static void keep_pending(struct pending *p, const struct delivery_result *said)
{
	struct redelivery_queue *q = p->queue;
	uint64_t pause_ms = backoff_next_ms(&q->backoff);
	note_instance(p, said->instance);
	TAILQ_REMOVE(&q->pending, p, entry);
	TAILQ_INSERT_TAIL(&q->pending, p, entry);
	if (said->outcome == DELIVERY_CONNECT)
		q->doublings = 0;
	else if (said->outcome == DELIVERY_TIMEOUT && q->doublings < MAX_DOUBLINGS)
		q->doublings++;
	if (said->outcome == DELIVERY_DENIED)
		pause_ms = DENIED_MS;
	if (!timer_armed(q->timer))
		timer_arm(q->timer, pause_ms);
}

static void on_told(const struct delivery_result *said, void *arg)
{
	struct pending *p = arg;
	struct redelivery_queue *q = p->queue;
	p->delivery = NULL;
	q->n_told--;
	q->answers = said->outcome == DELIVERY_OK;
	stats_attempt(q->redelivery->parts.metrics, said->outcome);
	log_fields(LOG_LEVEL_DEBUG, TRACE_TEXT(purge_trace(p->purge)), "pending purge told",
		LOG_STR("target", q->target->name),
		LOG_STR("reason", delivery_outcome_names[said->outcome]),
		LOG_STR("error", said->error));
	if (said->outcome == DELIVERY_OK) {
		p->purge->taken = true;
		backoff_reset(&q->backoff);
		timer_disarm(q->timer);
		end(p, STATS_DELIVERED);
	} else if (said->outcome == DELIVERY_REFUSED) {
		end(p, STATS_REFUSED);
	} else if (!p->purge->params.store && has_restarted(p, said->instance)) {
		end(p, STATS_RESTARTED);
	} else {
		keep_pending(p, said);
	}
	if (q->count)
		tell_next(q);
	else
		queue_free(q);
}

static bool tell(struct pending *p)
{
	struct redelivery_queue *q = p->queue;
	const struct redelivery_parts *parts = &q->redelivery->parts;
	uint64_t timeout_ms = (uint64_t)parts->conf->retry_ms << q->doublings;
	struct delivery_options options = {
		.target = q->target,
		.purge = p->purge,
		.connect_timeout_ms = (uint32_t)parts->conf->retry_ms,
		.timeout_ms = timeout_ms < (uint64_t)parts->conf->timeout_ms
				      ? (uint32_t)timeout_ms
				      : (uint32_t)parts->conf->timeout_ms,
		.fresh = !q->answers,
	};
	p->delivery = delivery_start(parts->deliveries, &options, on_told, p);
	if (p->delivery)
		q->n_told++;
	else
		timer_arm(q->timer, (uint64_t)parts->conf->retry_ms); /* out of memory */
	return p->delivery != NULL;
}

static void tell_next(struct redelivery_queue *q)
{
	struct pending *p;
	TAILQ_FOREACH (p, &q->pending, entry) {
		if (timer_armed(q->timer) || q->n_told >= (q->answers ? PARALLEL : 1))
			return;
		if (!p->delivery && !tell(p))
			return;
	}
}

/* ---- leaving ---- */

static void on_found(const struct discovery_result *found, void *arg)
{
	struct redelivery *r = arg;
	struct redelivery_queue *q, *next;
	r->search = NULL;
	for (q = TAILQ_FIRST(&r->queues); q && found->outcome != DISCOVERY_FAILED; q = next) {
		next = TAILQ_NEXT(q, entry);
		q->absent = target_list_has(found->targets, q->target) ? 0 : q->absent + 1;
		if (q->absent < SEARCHES_ABSENT)
			continue;
		struct pending *p;
		while ((p = TAILQ_FIRST(&q->pending)))
			end(p, STATS_LEFT);
		queue_free(q);
	}
	if (r->count)
		timer_arm(r->search_timer, SEARCH_MS);
}

static void on_search_due(void *arg)
{
	struct redelivery *r = arg;
	if (!r->count)
		return;
	r->search = discovery_start(r->parts.discovery, NULL, on_found, r);
	if (!r->search)
		timer_arm(r->search_timer, SEARCH_MS);
}

/* ---- from outside ---- */

int redelivery_add(struct redelivery *redelivery, struct target *target, struct purge *purge,
	const struct delivery_result *result)
{
	struct redelivery_queue *q;
	struct pending *p;
	if (result->outcome == DELIVERY_REFUSED)
		return 0; /* asking again would not change it */
	q = queue_of(redelivery, target);
	if (!q)
		return -1;
	/* One that is told later than now does for both, and of a later time covers more. */
	TAILQ_FOREACH (p, &q->pending, entry) {
		if (p->delivery || !purge_equal(p->purge, purge))
			continue;
		if (!purge->params.store)
			return 0;
		pending_free(p);
		break;
	}
	if (!pending_add(redelivery, q, purge, result->instance)) {
		if (!q->count)
			queue_free(q);
		return -1;
	}
	keeper_changed(redelivery->keeper);
	keep_bounds(redelivery, q);
	if (!q->n_told && !timer_armed(q->timer))
		timer_arm(q->timer, result->outcome == DELIVERY_DENIED
					    ? DENIED_MS
					    : backoff_next_ms(&q->backoff));
	return 0;
}

size_t redelivery_pending(const struct redelivery *redelivery)
{
	return redelivery->count;
}

/* ---- life ---- */

static void on_entry(const struct journal_entry *entry, void *arg)
{
	struct redelivery *r = arg;
	struct target *target = targets_get(r->parts.targets, entry->kind, entry->target);
	struct redelivery_queue *q = target ? queue_of(r, target) : NULL;
	if (q)
		pending_add(r, q, entry->purge, entry->instance);
	if (q && !q->count)
		queue_free(q);
	target_unref(&target);
}

static void load(struct redelivery *r)
{
	struct buf content = BUF_INIT(JOURNAL_MAX_BYTES);
	struct redelivery_queue *q;
	keeper_load(r->keeper, &content);
	if (content.len && journal_read((struct span){(const char *)content.data, content.len},
				   on_entry, r) < 0)
		log_error(
			"the journal of pending purges ends in the middle: what was read is kept");
	buf_free(&content);
	if (!r->count)
		return;
	log_info("%zu pending purges from the journal", r->count);
	TAILQ_FOREACH (q, &r->queues, entry)
		timer_arm(q->timer, 0);
}

static void collect(void *arg)
{
	struct redelivery *r = arg;
	struct redelivery_queue *q;
	struct pending *p;
	uint64_t now_ms = loop_wall_ms(r->parts.loop), oldest_ms = now_ms;
	size_t n_targets = 0;
	TAILQ_FOREACH (q, &r->queues, entry) {
		n_targets++;
		TAILQ_FOREACH (p, &q->pending, entry)
			if (p->purge->time_ms < oldest_ms)
				oldest_ms = p->purge->time_ms;
	}
	stats_pending(r->parts.metrics, r->count, n_targets, r->bytes,
		(double)(now_ms - oldest_ms) / 1e3);
}

struct redelivery *redelivery_new(const struct redelivery_parts *parts)
{
	struct redelivery *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	r->parts = *parts;
	TAILQ_INIT(&r->queues);
	r->search_timer = timer_new(parts->loop, on_search_due, r);
	r->keeper = keeper_new(&(struct keeper_options){
		.loop = parts->loop,
		.metrics = parts->metrics,
		.path = parts->journal,
		.write = write_pending,
		.arg = r,
	});
	if (!r->search_timer || !r->keeper) {
		redelivery_free(&r);
		return NULL;
	}
	metrics_on_collect(parts->metrics, collect, r);
	load(r);
	return r;
}

void redelivery_free(struct redelivery **redelivery)
{
	struct redelivery *r = *redelivery;
	if (!r)
		return;
	*redelivery = NULL;
	keeper_free(&r->keeper);
	discovery_cancel(&r->search);
	while (!TAILQ_EMPTY(&r->queues))
		queue_free(TAILQ_FIRST(&r->queues));
	timer_free(&r->search_timer);
	free(r);
}
