#ifndef GATEWAYD_CACHE_PRIVATE_H
#define GATEWAYD_CACHE_PRIVATE_H

/* What cache.c (which objects stay) and cache_object.c (what an object is) know of each other. */
#include <sys/queue.h>

#include "common/arena.h"
#include "gatewayd/cache.h"
#include "gatewayd/cache_index.h"

#define CACHE_OBJECT_MAGIC 0x0b1ec7edu

TAILQ_HEAD(cache_fifo, cache_node); /* in at the head, out at the tail */
TAILQ_HEAD(cache_extras, cache_object);

struct cache_object {
	struct cache_node node; /* first: the cache finds the object by it. queue says whether it is
				   in the cache */
	uint32_t magic;
	uint32_t references; /* the cache's own is one of them */
	struct cache *cache;
	struct cache_object_info info; /* its spans point into strings[] */
	struct {
		char *data; /* NULL: not there */
		size_t len;
		uint64_t offset; /* ARENA_NONE: malloc()ed */
	} forms[CACHE_FORMS];
	size_t header_bytes;
	uint32_t loans;      /* references that are lent */
	uint64_t lent_bytes; /* what was counted for them */
	uint8_t own_form;
	bool outside;    /* bodies are malloc()ed */
	bool extra_used; /* the further form was asked for since last considered */
	bool in_extras;
	bool refreshing;
	TAILQ_ENTRY(cache_object) extras;
	char strings[];
};

struct cache {
	struct arena *arena;
	uint64_t budget_bytes, max_object_bytes;
	struct cache_index index;
	struct cache_fifo small, main, ghost;
	uint64_t small_bytes, main_bytes;
	uint64_t ghost_bytes; /* what its entries took while they lived */
	uint64_t ghosts;
	struct cache_extras extras; /* objects in the cache with a further form */
	uint64_t now_ms;            /* the latest that was said */
	uint64_t header_bytes;      /* of all objects, in the cache or not */
	uint64_t held_bytes;        /* charges of all objects that lie in the arena */
	uint64_t outside_bytes;
	uint64_t lent_bytes;
	uint64_t alive;           /* objects that exist */
	struct cache_stats stats; /* the counters; gauges are worked out when asked for */
};

/* What malloc() takes for it: a header word, in steps of 16. */
static inline size_t cache_malloc_bytes(size_t len)
{
	return (len + 8 + 15) & ~(size_t)15;
}

/* In cache.c: */

/* Evict until need_bytes more fit into the budget. */
bool cache_make_room(struct cache *cache, uint64_t need_bytes);
/* len_bytes (> 0) of the arena, evicting as needed; ARENA_NONE when it cannot be had. */
uint64_t cache_alloc(struct cache *cache, uint64_t len_bytes);
/* The object takes so much more, or less, from now on; keeps the queue's sum right. */
void cache_object_charge(struct cache_object *object, int64_t more_bytes);

/* In cache_object.c: */

/* Give the further form's memory back. Nobody but the cache may hold the object. */
void cache_object_drop_extra(struct cache_object *object);
bool cache_object_has_extra(const struct cache_object *object);

#endif
