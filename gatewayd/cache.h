#ifndef GATEWAYD_CACHE_H
#define GATEWAYD_CACHE_H

/*
 * The memory cache: objects (cache_object.h) by key, within a budget of bytes, S3-FIFO (Yang,
 * Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023).
 *
 *   new --> small (10 %) --seen again while there--> main (the rest) --> out
 *              |                                      ^  |  ^ not seen since: out
 *              +--> out, remembered in ghost --again--+  +--+ seen: once more round
 *
 * Queues are sized in bytes. A hit only raises a counter (at most 3). A scan passes through small
 * and leaves main alone. ghost holds fingerprints, as many as would fill main, within 5 % of the
 * budget.
 *
 * The budget covers all: bodies as the arena rounds them, the arenas' own indexes, object headers,
 * hash table, ghosts, and objects that were evicted but are still referenced (pinned). Hash chains
 * are keyed with a random seed; the table grows a few chains at a time. What purges go by is in
 * cache_tags.h.
 *
 * Two arenas: one for bodies, which peers map, and one for all the rest, so that everything can be
 * dropped at once without looking at each: only what somebody besides the cache holds a reference
 * to is kept, and the cache keeps a list of that.
 *
 * Bodies that nobody holds may move within the arena, when what is free lies in pieces too small:
 * a form's bytes are where they were only while a reference is held.
 *
 * Time is an argument: wall-clock milliseconds. Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "gatewayd/cache_object.h"
#include "gatewayd/cache_tags.h"

struct arena;

#define CACHE_MIN_BUDGET_BYTES (1u << 20)

struct cache_options {
	uint64_t budget_bytes;
	/* A larger object is never kept. 0: a tenth of the budget. */
	uint64_t max_object_bytes;
};

/* NULL with errno: budget too small (EINVAL), no memory. */
struct cache *cache_new(const struct cache_options *options);
/* Every reference must have been given back. Clears the pointer. */
void cache_free(struct cache **cache);

enum cache_freshness {
	CACHE_ABSENT,
	CACHE_FRESH,
	CACHE_STALE, /* past its TTL, within its grace */
};
/* A reference for the caller, or NULL and CACHE_ABSENT; an object past its grace is taken out and
 * absent. Counts as a use. */
struct cache_object *cache_lookup(struct cache *cache, const struct digest *key, uint64_t now_ms,
	enum cache_freshness *freshness);
/* As it would be found, without a use, a reference or a trace in the counters. */
bool cache_contains(const struct cache *cache, const struct digest *key, uint64_t now_ms);

/*
 * Keep the object under its key, in place of one with the same key (which then lives on for who
 * holds it). The cache takes a reference of its own; the caller's stays. -1: not kept (body outside
 * the arena, too large, no room, purged since it was asked for), counted; the object itself is as
 * good as before.
 */
int cache_insert_tagged(struct cache *cache, struct cache_object *object,
	const struct cache_tagging *tagging, uint64_t now_ms);
/* As cache_insert_tagged(), with the tags of an object that is in the cache; one that is not (it
 * was purged, or evicted) is not renewed: -1. */
int cache_renew(struct cache *cache, const struct cache_object *old, struct cache_object *object,
	uint64_t since, uint64_t now_ms);
/* Without tags, asked for just now. */
int cache_insert(struct cache *cache, struct cache_object *object, uint64_t now_ms);
/* Take one out. true when it was there. */
bool cache_remove(struct cache *cache, const struct digest *key);

/*
 * After a purge: give memory that nothing lies in back to the kernel. That takes long, so it is
 * done in three steps: _begin sets some of it aside (false: there is none), _work may run on
 * another thread while the cache is used, _end takes note (false: the kernel refused, or there was
 * no _work). As long as there is something: again. One at a time.
 */
bool cache_clean_begin(struct cache *cache);
void cache_clean_work(struct cache *cache);
bool cache_clean_end(struct cache *cache);

struct cache_stats {
	uint64_t budget_bytes;
	uint64_t used_bytes;    /* everything that the budget covers */
	uint64_t live_bytes;    /* bodies and headers of objects in the cache, rounded */
	uint64_t pinned_bytes;  /* objects taken out and still referenced */
	uint64_t outside_bytes; /* bodies that found no room in the arena; not in the budget */
	uint64_t index_bytes;   /* hash tables, ghosts, the index of the arena of bodies */
	uint64_t objects[CACHE_KINDS], object_bytes[CACHE_KINDS];
	uint64_t small_bytes, main_bytes, ghosts, tags;
	/* Never decrease: */
	uint64_t hits[CACHE_KINDS], stale_hits, misses;
	uint64_t inserts, ghost_hits, refused;
	uint64_t evictions, evicted_bytes, expired, purged;
	uint64_t too_late; /* not kept: purged since it was asked for */
	uint64_t forms_added, forms_dropped;
	uint64_t moved; /* bodies, to put free memory together */
};
void cache_stats(const struct cache *cache, struct cache_stats *stats);
/* Where the bodies lie, for peers that map it. Lives as long as the cache. */
struct arena *cache_arena(struct cache *cache);

#endif
