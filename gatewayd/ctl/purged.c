#include "gatewayd/ctl/purged.h"

#include <stdlib.h>

#include "common/loop.h"
#include "common/workers.h"
#include "gatewayd/purge_epochs.h"

/* The only reading is the first. */
#define REREAD_MS (1000u * 86400)

/* Objects of the mock are purged by themselves. */
static const char *const prefixes[] = {"", "mock/"};
#define N_PREFIXES (sizeof prefixes / sizeof *prefixes)

struct purged {
	struct loop *loop;
	struct workers *workers; /* they list a directory */
	struct purge_epochs *epochs[N_PREFIXES];
	size_t unknown;
};

/* The place that is read is never watched. */
static void on_news(const struct epoch *epoch, void *arg)
{
	(void)epoch;
	(void)arg;
}

static void on_known(void *arg)
{
	struct purged *purged = arg;
	purged->unknown--;
	loop_stop(purged->loop);
}

static int start(struct purged *purged, struct place *place, size_t i)
{
	struct purge_epochs_events events = {
		.on_news = on_news, .on_known = on_known, .arg = purged};
	struct epoch_place *at = place_epochs(place, purged->workers, prefixes[i]);
	purged->epochs[i] = purge_epochs_new(purged->loop, REREAD_MS);
	if (!at || !purged->epochs[i]) {
		if (at)
			epoch_place_free(&at);
		return -1;
	}
	purge_epochs_add_place(purged->epochs[i], at);
	purge_epochs_keep_covered(purged->epochs[i]);
	purged->unknown++;
	purge_epochs_start(purged->epochs[i], &events);
	return 0;
}

struct purged *purged_read(struct loop *loop, struct place *place)
{
	struct purged *purged = calloc(1, sizeof *purged);
	if (!purged)
		return NULL;
	purged->loop = loop;
	purged->workers = workers_new(loop, 1, N_PREFIXES);
	bool ok = purged->workers != NULL;
	for (size_t i = 0; ok && i < N_PREFIXES; i++)
		ok = start(purged, place, i) == 0;
	while (ok && purged->unknown)
		loop_run(loop);
	for (size_t i = 0; ok && i < N_PREFIXES; i++)
		ok = !purge_epochs_failed(purged->epochs[i]);
	if (!ok)
		purged_free(&purged);
	return purged;
}

bool purged_covers(const struct purged *purged, enum place_kind kind, const struct digest *key,
	struct span model, uint64_t time_ms)
{
	return purge_epochs_cover(purged->epochs[kind == PLACE_MOCK], key, model, time_ms);
}

void purged_free(struct purged **pointer)
{
	struct purged *purged = *pointer;
	if (!purged)
		return;
	*pointer = NULL;
	for (size_t i = 0; i < N_PREFIXES; i++)
		purge_epochs_free(&purged->epochs[i]);
	workers_free(&purged->workers);
	free(purged);
}
