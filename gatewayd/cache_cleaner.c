#include "gatewayd/cache_cleaner.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/workers.h"
#include "gatewayd/cache.h"

/* All threads have more to do than they may be given, or the kernel refused. */
#define AGAIN_MS 1000

struct cache_cleaner {
	struct job job; /* first */
	struct cache *cache;
	struct workers *workers;
	struct timer *again;
	bool working;
};

static void clean_some(void *arg)
{
	struct cache_cleaner *cleaner = arg;
	if (cleaner->working || !cache_clean_begin(cleaner->cache))
		return;
	cleaner->working = true;
	if (workers_submit(cleaner->workers, &cleaner->job) == 0)
		return;
	cleaner->working = false;
	cache_clean_end(cleaner->cache);
	timer_arm(cleaner->again, AGAIN_MS);
}

static void work(struct job *job)
{
	struct cache_cleaner *cleaner = (struct cache_cleaner *)job;
	cache_clean_work(cleaner->cache);
}

static void done(struct job *job)
{
	struct cache_cleaner *cleaner = (struct cache_cleaner *)job;
	cleaner->working = false;
	if (cache_clean_end(cleaner->cache))
		clean_some(cleaner);
	else
		timer_arm(cleaner->again, AGAIN_MS);
}

struct cache_cleaner *cache_cleaner_new(
	struct loop *loop, struct cache *cache, struct workers *workers)
{
	struct cache_cleaner *cleaner = calloc(1, sizeof *cleaner);
	if (!cleaner)
		return NULL;
	*cleaner = (struct cache_cleaner){
		.job = {.work = work, .done = done}, .cache = cache, .workers = workers};
	cleaner->again = timer_new(loop, clean_some, cleaner);
	if (!cleaner->again) {
		free(cleaner);
		return NULL;
	}
	return cleaner;
}

void cache_cleaner_start(struct cache_cleaner *cleaner)
{
	clean_some(cleaner);
}

void cache_cleaner_free(struct cache_cleaner **pointer)
{
	struct cache_cleaner *cleaner = *pointer;
	*pointer = NULL;
	if (!cleaner)
		return;
	BUG_ON(cleaner->working);
	timer_free(&cleaner->again);
	free(cleaner);
}
