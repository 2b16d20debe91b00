#include "redisproxy/hotkeys.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"
#include "common/json.h"

#define HALVE_US (60 * 1000000ull)

struct counter {
	uint64_t hash, count, error;
	uint16_t at; /* its place in the heap */
	uint8_t len; /* of what is kept of the key */
};

struct hotkeys {
	bool shows_keys;
	uint32_t random, skip;
	uint64_t total, halved_us;
	unsigned n, used;
	unsigned mask;   /* slots - 1 */
	uint16_t *slots; /* by hash: counter + 1; 0: free */
	uint16_t *heap;  /* the smallest count first */
	struct counter *counters;
	char (*keys)[HOTKEYS_KEY_SHOW]; /* with shows_keys */
};

struct hotkeys *hotkeys_new(unsigned n, bool shows_keys)
{
	struct hotkeys *h = calloc(1, sizeof *h);
	unsigned slots = 4;

	if (!h)
		return NULL;
	while (slots < 4 * n)
		slots *= 2;
	h->n = n;
	h->mask = slots - 1;
	h->shows_keys = shows_keys;
	h->skip = 1;
	digest_random(&h->random, sizeof h->random);
	h->random |= 1;
	h->slots = calloc(slots, sizeof *h->slots);
	h->heap = calloc(n, sizeof *h->heap);
	h->counters = calloc(n, sizeof *h->counters);
	h->keys = shows_keys ? calloc(n, sizeof *h->keys) : NULL;
	if (!h->slots || !h->heap || !h->counters || (shows_keys && !h->keys))
		hotkeys_free(&h);
	return h;
}

void hotkeys_free(struct hotkeys **hotkeys)
{
	struct hotkeys *h = *hotkeys;

	if (!h)
		return;
	*hotkeys = NULL;
	free(h->slots);
	free(h->heap);
	free(h->counters);
	free(h->keys);
	free(h);
}

bool hotkeys_due(struct hotkeys *h)
{
	if (--h->skip)
		return false;
	/* xorshift32 (Marsaglia, 2003): a fixed distance could beat in time with the commands. */
	h->random ^= h->random << 13;
	h->random ^= h->random >> 17;
	h->random ^= h->random << 5;
	h->skip = 1 + h->random % (2 * HOTKEYS_SAMPLE - 1);
	return true;
}

/* ---- slots: open addressing, no gaps between a hash and its counter ---- */

static unsigned find_slot(const struct hotkeys *h, uint64_t hash)
{
	unsigned at = (unsigned)(hash >> 20) & h->mask;

	while (h->slots[at] && h->counters[h->slots[at] - 1].hash != hash)
		at = (at + 1) & h->mask;
	return at;
}

static void clear_slot(struct hotkeys *h, unsigned at)
{
	h->slots[at] = 0;
	/* What stood behind it may have been meant for it. */
	for (unsigned next = (at + 1) & h->mask; h->slots[next]; next = (next + 1) & h->mask) {
		uint16_t moved = h->slots[next];

		h->slots[next] = 0;
		h->slots[find_slot(h, h->counters[moved - 1].hash)] = moved;
	}
}

/* ---- heap ---- */

static uint64_t count_at(const struct hotkeys *h, unsigned at)
{
	return h->counters[h->heap[at]].count;
}

static void put(struct hotkeys *h, unsigned at, uint16_t counter)
{
	h->heap[at] = counter;
	h->counters[counter].at = (uint16_t)at;
}

/* A count has grown. */
static void sink(struct hotkeys *h, unsigned at)
{
	uint16_t counter = h->heap[at];
	uint64_t count = h->counters[counter].count;

	for (;;) {
		unsigned child = 2 * at + 1;

		if (child >= h->used)
			break;
		if (child + 1 < h->used && count_at(h, child + 1) < count_at(h, child))
			child++;
		if (count_at(h, child) >= count)
			break;
		put(h, at, h->heap[child]);
		at = child;
	}
	put(h, at, counter);
}

/* A new one has the smallest count there can be. */
static void rise(struct hotkeys *h, unsigned at)
{
	uint16_t counter = h->heap[at];

	while (at && count_at(h, (at - 1) / 2) > h->counters[counter].count) {
		put(h, at, h->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	put(h, at, counter);
}

void hotkeys_count(struct hotkeys *h, struct span key, uint64_t hash)
{
	unsigned slot = find_slot(h, hash);
	uint16_t counter;

	h->total++;
	if (h->slots[slot]) {
		counter = h->slots[slot] - 1;
		h->counters[counter].count++;
		sink(h, h->counters[counter].at);
		return;
	}
	if (h->used < h->n) {
		counter = (uint16_t)h->used++;
		h->counters[counter] = (struct counter){.hash = hash, .count = 1};
		put(h, counter, counter);
		rise(h, counter);
	} else {
		/* The rarest gives way; how often the new one came before is anybody's guess up to
		 * that count. */
		counter = h->heap[0];
		struct counter *c = &h->counters[counter];

		clear_slot(h, find_slot(h, c->hash));
		c->hash = hash;
		c->error = c->count++;
		sink(h, 0);
		slot = find_slot(h, hash);
	}
	h->slots[slot] = counter + 1;
	if (h->shows_keys) {
		size_t len = key.len < HOTKEYS_KEY_SHOW ? key.len : HOTKEYS_KEY_SHOW;

		memcpy(h->keys[counter], key.data, len);
		h->counters[counter].len = (uint8_t)len;
	}
}

void hotkeys_age(struct hotkeys *h, uint64_t now_us)
{
	if (!h->halved_us)
		h->halved_us = now_us;
	if (now_us - h->halved_us < HALVE_US)
		return;
	h->halved_us = now_us;
	h->total /= 2;
	/* Halving keeps the order, so that the heap remains one. */
	for (unsigned i = 0; i < h->used; i++) {
		h->counters[i].count /= 2;
		h->counters[i].error /= 2;
	}
}

static int hotter(const void *a_, const void *b_)
{
	const struct counter *const *a = a_, *const *b = b_;

	return (*a)->count < (*b)->count ? 1 : (*a)->count > (*b)->count ? -1 : 0;
}

void hotkeys_write_json(const struct hotkeys *h, struct buf *out)
{
	const struct counter **sorted = malloc((h->used + 1) * sizeof(const struct counter *));
	unsigned n = sorted ? h->used : 0;

	for (unsigned i = 0; i < n; i++)
		sorted[i] = &h->counters[i];
	if (n)
		qsort(sorted, n, sizeof *sorted, hotter);
	buf_printf(out, "{\"sampled_one_in\": %d, \"commands\": %" PRIu64 ", \"keys\": [",
		HOTKEYS_SAMPLE, h->total * HOTKEYS_SAMPLE);
	for (unsigned i = 0; i < n && sorted[i]->count; i++) {
		const struct counter *c = sorted[i];

		buf_append_str(out, i ? ",\n {" : "\n {");
		if (h->shows_keys) {
			buf_append_str(out, "\"key\": ");
			json_append_string(out, (struct span){h->keys[c - h->counters], c->len});
			buf_append_str(out, ", ");
		}
		buf_printf(out,
			"\"key_hash\": \"%016" PRIx64 "\", \"count\": %" PRIu64
			", \"error\": %" PRIu64 ", \"share\": %.4f}",
			c->hash, c->count * HOTKEYS_SAMPLE, c->error * HOTKEYS_SAMPLE,
			h->total ? (double)c->count / (double)h->total : 0.0);
	}
	buf_append_str(out, "]}\n");
	free(sorted);
}
