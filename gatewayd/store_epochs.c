/* Purges of the store: what an epoch covers is a miss; until the epochs are known look-ups wait. */
#include <errno.h>

#include "gatewayd/purge_epochs.h"
#include "gatewayd/store_backend.h"

void store_use_epochs(struct store *store, const struct purge_epochs *epochs)
{
	const struct store *tier;
	for (unsigned i = 0; (tier = store_tier(store, i)); i++)
		((struct store *)tier)->epochs = epochs;
}

bool store_must_park(const struct store *store)
{
	return store->epochs && !purge_epochs_known(store->epochs);
}

static void end_parked(void *arg)
{
	store_get_end(arg);
}

void store_end_parked(struct store_get *get)
{
	get->abandoned = get->cancelled;
	deferred_init(&get->parked_end, end_parked, get);
	loop_defer(get->store->loop, &get->parked_end);
}

void store_epochs_known(struct store *store)
{
	const struct store *tier;
	struct store_get *next;
	for (unsigned i = 0; (tier = store_tier(store, i)) && tier != store; i++)
		store_epochs_known((struct store *)tier);
	for (struct store_get *get = TAILQ_FIRST(&store->gets); get; get = next) {
		next = TAILQ_NEXT(get, place);
		if (!get->parked)
			continue;
		if (store->backend->get(get) == 0) {
			get->parked = false;
			continue;
		}
		get->result = STORE_ERROR;
		get->error = EAGAIN;
		store_end_parked(get);
	}
}

bool store_covered(
	const struct store *store, const struct digest *key, struct span model, uint64_t stored_ms)
{
	const struct store *tier = store_tier(store, 0);
	return tier->epochs && purge_epochs_cover(tier->epochs, key, model, stored_ms);
}

void store_check_epochs(struct store_get *get)
{
	struct store *store = get->store;
	const struct stored_fields *fields = &get->object.fields;
	bool found = get->result == STORE_FOUND || get->result == STORE_LEGACY;
	if (!found || get->abandoned || !store->epochs ||
		!purge_epochs_cover(store->epochs, &get->key, fields->model, fields->stored_ms))
		return;
	if (store->backend->remove && !store->closed)
		store->backend->remove(get);
	get->result = STORE_MISS;
	get->purged = true;
}
