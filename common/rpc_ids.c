#include "common/rpc_ids.h"

#include <stdlib.h>
#include <sys/random.h>

#define FIRST_BUCKETS 64

static uint32_t seed;

/* MurmurHash3's finalizer: every bit of the id moves every bit of the bucket. */
static uint32_t bucket_of(const struct rpc_ids *ids, uint32_t id)
{
	uint32_t h = id ^ seed;
	h = (h ^ h >> 16) * 0x85ebca6bu;
	h = (h ^ h >> 13) * 0xc2b2ae35u;
	return (h ^ h >> 16) & ids->mask;
}

static int resize(struct rpc_ids *ids, uint32_t n_buckets)
{
	struct rpc_id **buckets = calloc(n_buckets, sizeof *buckets);
	if (!buckets)
		return -1;
	struct rpc_ids grown = {.buckets = buckets, .mask = n_buckets - 1, .count = ids->count};
	for (uint32_t i = 0; ids->buckets && i <= ids->mask; i++) {
		struct rpc_id *entry = ids->buckets[i];
		while (entry) {
			struct rpc_id *next = entry->next;
			uint32_t to = bucket_of(&grown, entry->id);
			entry->next = buckets[to];
			buckets[to] = entry;
			entry = next;
		}
	}
	free(ids->buckets);
	*ids = grown;
	return 0;
}

int rpc_ids_add(struct rpc_ids *ids, struct rpc_id *entry)
{
	if (!ids->buckets) {
		/* Without entropy the table still works, only guessably. */
		if (!seed && getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
			seed = (uint32_t)(uintptr_t)&seed;
		if (resize(ids, FIRST_BUCKETS) != 0)
			return -1;
	} else if (ids->count > ids->mask) {
		/* Longer chains are no reason to refuse. */
		(void)resize(ids, (ids->mask + 1) * 2);
	}
	uint32_t bucket = bucket_of(ids, entry->id);
	entry->next = ids->buckets[bucket];
	ids->buckets[bucket] = entry;
	ids->count++;
	return 0;
}

struct rpc_id *rpc_ids_find(const struct rpc_ids *ids, uint32_t id)
{
	if (ids->count == 0)
		return NULL;
	struct rpc_id *entry = ids->buckets[bucket_of(ids, id)];
	while (entry && entry->id != id)
		entry = entry->next;
	return entry;
}

void rpc_ids_remove(struct rpc_ids *ids, struct rpc_id *entry)
{
	struct rpc_id **link = &ids->buckets[bucket_of(ids, entry->id)];
	while (*link != entry)
		link = &(*link)->next;
	*link = entry->next;
	entry->next = NULL;
	ids->count--;
}

void rpc_ids_free(struct rpc_ids *ids)
{
	free(ids->buckets);
	*ids = (struct rpc_ids){0};
}
