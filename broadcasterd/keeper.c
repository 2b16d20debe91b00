#include "broadcasterd/keeper.h"

#include <stdlib.h>

#include "broadcasterd/journal.h"
#include "broadcasterd/stats.h"
#include "common/log.h"
#include "common/loop.h"

#define DELAY_MS 100  /* of a change that nobody waits for */
#define AGAIN_MS 1000 /* after a failure */

struct keeper {
	struct keeper_options options;
	struct journal *journal; /* NULL: none */
	uint64_t revision;       /* of what is there */
	uint64_t saving, saved;  /* revisions; saving 0: no save under way */
	uint64_t began_us;       /* of the save */
	struct timer *timer;
	struct deferred now;
	struct keeper_waiter *waiters;
};

static void release_waiters(struct keeper *k, uint64_t revision)
{
	struct keeper_waiter *w = k->waiters;
	while (w) {
		if (w->revision > revision) {
			w = w->next;
			continue;
		}
		keeper_forget(w);
		w->on_kept(w->arg);
		w = k->waiters; /* whatever that did to the list */
	}
}

static void on_saved(bool ok, void *arg)
{
	struct keeper *k = arg;
	uint64_t revision = k->saving;
	k->saving = 0;
	stats_journal(
		k->options.metrics, ok, (double)(loop_now_us(k->options.loop) - k->began_us) / 1e6);
	if (ok)
		k->saved = revision;
	else
		timer_arm(k->timer, AGAIN_MS);
	release_waiters(k, revision);
	if (k->waiters)
		loop_defer(k->options.loop, &k->now);
	else if (ok && k->revision != k->saved)
		timer_arm(k->timer, DELAY_MS);
}

static void save(void *arg)
{
	struct keeper *k = arg;
	struct buf content = BUF_INIT(JOURNAL_MAX_BYTES);
	if (k->saving || k->saved == k->revision)
		return;
	timer_disarm(k->timer);
	k->options.write(&content, k->options.arg);
	k->saving = k->revision;
	k->began_us = loop_now_us(k->options.loop);
	if (!buf_failed(&content)) {
		journal_save(k->journal, &content, on_saved, k);
		return;
	}
	log_error("pending purges are not saved: out of memory");
	buf_free(&content);
	on_saved(false, k);
}

static void on_now(void *arg)
{
	struct keeper *k = arg;
	release_waiters(k, k->journal ? k->saved : k->revision);
	if (k->waiters)
		save(k);
}

void keeper_changed(struct keeper *keeper)
{
	keeper->revision++;
	if (keeper->journal && !keeper->saving && !timer_armed(keeper->timer))
		timer_arm(keeper->timer, DELAY_MS);
}

void keeper_wait(struct keeper *keeper, struct keeper_waiter *waiter)
{
	waiter->revision = keeper->revision;
	waiter->next = keeper->waiters;
	waiter->prev = &keeper->waiters;
	if (waiter->next)
		waiter->next->prev = &waiter->next;
	keeper->waiters = waiter;
	loop_defer(keeper->options.loop, &keeper->now);
}

void keeper_forget(struct keeper_waiter *waiter)
{
	if (!waiter->prev)
		return;
	*waiter->prev = waiter->next;
	if (waiter->next)
		waiter->next->prev = waiter->prev;
	waiter->prev = NULL;
}

void keeper_load(struct keeper *keeper, struct buf *out)
{
	if (keeper->journal && journal_load(keeper->journal, out) < 0)
		buf_clear(out);
}

struct keeper *keeper_new(const struct keeper_options *options)
{
	struct keeper *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	k->options = *options;
	k->revision = k->saved = 1;
	deferred_init(&k->now, on_now, k);
	k->timer = timer_new(options->loop, save, k);
	k->journal = options->path ? journal_new(options->loop, options->path) : NULL;
	if (!k->timer || (options->path && !k->journal))
		keeper_free(&k);
	return k;
}

static void save_the_last(struct keeper *k)
{
	struct buf content = BUF_INIT(JOURNAL_MAX_BYTES);
	journal_finish(k->journal);
	if (k->saved != k->revision)
		k->options.write(&content, k->options.arg);
	if (k->saved != k->revision && !buf_failed(&content))
		journal_save_now(k->journal, &content);
	buf_free(&content);
}

void keeper_free(struct keeper **keeper)
{
	struct keeper *k = *keeper;
	if (!k)
		return;
	*keeper = NULL;
	if (k->journal)
		save_the_last(k);
	while (k->waiters)
		keeper_forget(k->waiters);
	loop_defer_cancel(k->options.loop, &k->now);
	journal_free(&k->journal);
	timer_free(&k->timer);
	free(k);
}
