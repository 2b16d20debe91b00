#ifndef GATEWAYD_CACHE_PRIVATE_H
#define GATEWAYD_CACHE_PRIVATE_H

/* What cache.c (which objects stay), cache_object.c (what an object is), cache_tags.c (what purges
 * go by) and cache_clear.c (everything at once) know of each other. */
#include <sys/queue.h>

#include "common/arena.h"
#include "gatewayd/cache.h"
#include "gatewayd/cache_index.h"

#define CACHE_OBJECT_MAGIC 0x0b1ec7edu

TAILQ_HEAD(cache_fifo, cache_node); /* in at the head, out at the tail */
TAILQ_HEAD(cache_extras, cache_object);
LIST_HEAD(cache_holding, cache_object);
TAILQ_HEAD(cache_links, cache_link);
TAILQ_HEAD(cache_remembered, cache_tag);

/* This object carries this tag. */
struct cache_link {
	TAILQ_ENTRY(cache_link) of_tag;
	struct cache_tag *tag;
	struct cache_object *object;
};

struct cache_tags {
	struct arena *own; /* the cache's */
	struct cache_index index;
	uint64_t clock;      /* one more than purges were */
	uint64_t all_purged; /* the clock at the last purge of everything */
	uint64_t floor;      /* nothing older enters */
	struct cache_remembered remembered;
	size_t n_remembered, max_remembered;
};

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
	uint64_t header_offset;           /* in the cache's own arena; ARENA_NONE: malloc()ed */
	LIST_ENTRY(cache_object) holding; /* somebody besides the cache has a reference */
	uint32_t loans;                   /* references that are lent */
	uint64_t lent_bytes;              /* what was counted for them */
	uint8_t own_form;
	bool outside;    /* bodies are malloc()ed */
	bool extra_used; /* the further form was asked for since last considered */
	bool in_extras;
	bool refreshing;
	TAILQ_ENTRY(cache_object) extras;
	uint64_t since;   /* the purge clock when its content was asked for */
	uint64_t checked; /* it was not dead when the clock stood here */
	struct cache_link *links;
	uint32_t n_links;
	char strings[];
};

/* What a purge of everything left behind. */
struct cache_remains {
	struct cache_remains *next;
	struct arena_tables bodies, own;
	struct index_node **objects[2], **tags[2];
	uint64_t bytes;
};

struct cache {
	struct arena *arena; /* bodies */
	struct arena *own;   /* headers, ghosts, tags and links: what readers do not see */
	uint64_t budget_bytes, max_object_bytes;
	struct cache_index index;
	struct cache_fifo small, main, ghost;
	uint64_t small_bytes, main_bytes;
	uint64_t ghost_bytes; /* what its entries took while they lived */
	uint64_t ghosts;
	struct cache_tags tags;
	struct cache_extras extras; /* objects in the cache with a further form */
	uint64_t now_ms;            /* the latest that was said */
	uint64_t header_bytes;      /* of objects whose header is malloc()ed */
	uint64_t held_bytes;        /* charges of all objects that lie in the arena */
	uint64_t outside_bytes;
	uint64_t lent_bytes;
	uint64_t alive; /* objects that exist */
	struct cache_holding held;
	size_t n_held;
	/* To be freed by any thread, and being freed by one. */
	struct cache_remains *remains, *cleaning;
	uint64_t remains_bytes;
	bool cleaned;             /* that thread was there */
	struct cache_stats stats; /* the counters; gauges are worked out when asked for */
};

/* What malloc() takes for it: a header word, in steps of 16. */
static inline size_t cache_malloc_bytes(size_t len)
{
	return (len + 8 + 15) & ~(size_t)15;
}

/* From the cache's own arena, len > 0; NULL: no room. */
static inline void *cache_own_alloc(struct arena *own, size_t len)
{
	uint64_t offset = arena_alloc(own, len);
	return offset == ARENA_NONE ? NULL : arena_at(own, offset);
}

static inline void cache_own_free(struct arena *own, void *data)
{
	arena_release(own, (uint64_t)((char *)data - (char *)arena_at(own, 0)));
}

/* What it takes there: with the arena's record. */
static inline size_t cache_own_bytes(size_t len)
{
	return (size_t)arena_rounded(len) + ARENA_RECORD_BYTES;
}

/* In cache.c: */

/* Evict until need_bytes more fit into the budget. */
bool cache_make_room(struct cache *cache, uint64_t need_bytes);
/* len_bytes (> 0) of the arena, evicting as needed; ARENA_NONE when it cannot be had. */
uint64_t cache_alloc(struct cache *cache, uint64_t len_bytes);
/* The object takes so much more, or less, from now on; keeps the queue's sum right. */
void cache_object_charge(struct cache_object *object, int64_t more_bytes);

/* Take it out, purged. */
void cache_take_out(struct cache *cache, struct cache_object *object);
/* The object that a purge of everything frees next; NULL: there is none. */
struct cache_object *cache_last_if_dead(struct cache *cache);
/* At most so many; true: none is left, and the tables are small again if nothing else is there. */
bool cache_drop_ghosts(struct cache *cache, size_t most);

/* In cache_clear.c: */

/* Take everything out, at once; what for is counted in *purged. It costs what is held by others
 * than the cache. -1: no memory, nothing changed. */
int cache_clear(struct cache *cache, size_t *purged);
void cache_remains_free(struct cache_remains **remains);

/* In cache_tags.c: */

int cache_tags_init(struct cache_tags *tags, struct arena *own, uint64_t budget_bytes);
void cache_tags_uninit(struct cache_tags *tags);
/* After a purge of everything; tags and links are left alone. As cache_index_exchange(). */
void cache_tags_forget_all(
	struct cache_tags *tags, struct index_node **empty, struct index_node **old[2]);
/* The most that this many tags of one object take. */
size_t cache_tags_most(size_t n);
/* The object enters the lists of its tags; -1 without memory: it is in none. */
int cache_tags_attach(struct cache_object *object, const struct cache_tag_key *keys, size_t n);
void cache_tags_detach(struct cache_object *object);
/* A single embedding is taken out: if it is dead, so are the whole answers that it is part of. */
void cache_tags_element_goes(struct cache_object *object);
bool cache_tags_dead(struct cache_object *object);

/* In cache_object.c: */

/* Lets the arena move bodies of objects that nobody but the cache holds. */
extern const struct arena_mover cache_object_mover;

/* The cache's own reference comes and goes; the object's queue is set before. */
void cache_object_entered(struct cache_object *object);
void cache_object_left(struct cache_object *object);
/* Give the further form's memory back. Nobody but the cache may hold the object. */
void cache_object_drop_extra(struct cache_object *object);
bool cache_object_has_extra(const struct cache_object *object);

#endif
