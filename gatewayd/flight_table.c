#include "gatewayd/flight_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/store.h"

#define TABLE_MIN 256

static struct flight **slot_of(const struct flights *flights, const struct digest *key)
{
	size_t hash;
	memcpy(&hash, key->bytes, sizeof hash);
	struct flight **slot = &flights->table[hash & (flights->table_size - 1)];
	while (*slot && !digest_equal(&(*slot)->key, key))
		slot = &(*slot)->chain;
	return slot;
}

static void table_grow(struct flights *flights)
{
	size_t old_size = flights->table_size;
	struct flight **old = flights->table;
	struct flight **table = calloc(old_size * 2, sizeof *table);
	if (!table)
		return; /* longer chains, no harm */
	flights->table = table;
	flights->table_size = old_size * 2;
	for (size_t i = 0; i < old_size; i++) {
		for (struct flight *flight = old[i], *next; flight; flight = next) {
			next = flight->chain;
			struct flight **slot = slot_of(flights, &flight->key);
			flight->chain = NULL;
			*slot = flight;
		}
	}
	free(old);
}

int flight_table_init(struct flights *flights)
{
	flights->table_size = TABLE_MIN;
	flights->table = calloc(TABLE_MIN, sizeof(*flights->table));
	return flights->table ? 0 : -1;
}

struct flight *flight_find(const struct flights *flights, const struct digest *key)
{
	return *slot_of(flights, key);
}

struct flight *flight_new(struct flights *flights, const struct digest *key)
{
	if (flights->n >= flights->table_size)
		table_grow(flights);
	struct flight *flight = calloc(1, sizeof *flight);
	if (!flight)
		return NULL;
	flight->flights = flights;
	flight->key = *key;
	flight->since = cache_purge_clock(flights->parts.cache);
	TAILQ_INIT(&flight->tickets);
	*slot_of(flights, key) = flight;
	flights->n++;
	return flight;
}

static void leave_table(struct flight *flight)
{
	struct flight **slot = slot_of(flight->flights, &flight->key);
	BUG_ON(*slot != flight);
	*slot = flight->chain;
}

void flight_detach(struct flight *flight)
{
	leave_table(flight);
	flight->detached = true;
	flight->chain = flight->flights->detached;
	flight->flights->detached = flight;
}

void flight_free(struct flight *flight)
{
	struct flights *flights = flight->flights;
	BUG_ON(!TAILQ_EMPTY(&flight->tickets));
	store_get_cancel(&flight->get);
	if (flight->detached) {
		struct flight **at = &flights->detached;
		while (*at != flight)
			at = &(*at)->chain;
		*at = flight->chain;
	} else {
		leave_table(flight);
	}
	flights->n--;
	free(flight);
	if (flights->n == 0 && flights->on_idle)
		loop_defer(flights->loop, &flights->idle_later);
}
