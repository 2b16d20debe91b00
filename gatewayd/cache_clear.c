/* Everything at once, and what it leaves behind: see cache.h. */
#include <stdlib.h>

#include "common/log.h"
#include "gatewayd/cache_private.h"

/* How much of an arena is on its way back to the kernel at a time. */
#define CLEAN_SHARE 16

/* ---- Everything goes ---- */

/* The object leaves the cache for those who hold it; queue, tags and table are left behind. */
static void leave_to_holders(struct cache *cache, struct cache_object *object)
{
	uint64_t charge_bytes = object->node.charge_bytes;
	*(object->node.queue == CACHE_QUEUE_SMALL ? &cache->small_bytes
						  : &cache->main_bytes) -= charge_bytes;
	cache->stats.objects[object->info.kind]--;
	object->node.queue = CACHE_QUEUE_NONE;
	object->in_extras = false;
	object->links = NULL;
	object->n_links = 0;
	cache_object_left(object);
}

/* What stays: headers and bodies of objects that somebody holds. */
struct kept {
	uint64_t *bodies, *headers;
	size_t n_bodies, n_headers;
};

static void keep_held(struct cache *cache, struct kept *kept)
{
	struct cache_object *object;
	LIST_FOREACH (object, &cache->held, holding) {
		if (object->node.queue != CACHE_QUEUE_NONE)
			leave_to_holders(cache, object);
		if (object->header_offset != ARENA_NONE)
			kept->headers[kept->n_headers++] = object->header_offset;
		for (int form = 0; form < CACHE_FORMS; form++)
			if (cache_object_form_offset(object, form) != ARENA_NONE)
				kept->bodies[kept->n_bodies++] = object->forms[form].offset;
	}
}

/* What is still in the cache is gone: no list of it remains. */
static void forget_objects(struct cache *cache)
{
	cache->held_bytes -= cache->small_bytes + cache->main_bytes;
	for (int kind = 0; kind < CACHE_KINDS; kind++) {
		cache->alive -= cache->stats.objects[kind];
		cache->stats.objects[kind] = cache->stats.object_bytes[kind] = 0;
	}
	cache->small_bytes = cache->main_bytes = cache->ghost_bytes = cache->ghosts = 0;
	TAILQ_INIT(&cache->small);
	TAILQ_INIT(&cache->main);
	TAILQ_INIT(&cache->ghost);
	TAILQ_INIT(&cache->extras);
}

int cache_clear(struct cache *cache, size_t *purged)
{
	struct cache_remains *left = calloc(1, sizeof *left);
	struct kept kept = {
		.bodies = malloc(
			(cache->n_held * CACHE_FORMS + ARENA_KEEP_ROOM) * sizeof(uint64_t)),
		.headers = malloc((cache->n_held + ARENA_KEEP_ROOM) * sizeof(uint64_t)),
	};
	struct index_node **objects = cache_index_empty_table(), **tags = cache_index_empty_table();
	int rc = -1;
	if (!left || !kept.bodies || !kept.headers || !objects || !tags ||
		arena_tables_new(cache->arena, &left->bodies) != 0 ||
		arena_tables_new(cache->own, &left->own) != 0)
		goto end;
	uint64_t n = cache->stats.objects[CACHE_ELEMENT] + cache->stats.objects[CACHE_RESPONSE];
	*purged += n;
	cache->stats.purged += n;
	left->bytes = cache_index_bytes(&cache->index) + cache_index_bytes(&cache->tags.index);
	keep_held(cache, &kept);
	forget_objects(cache);
	cache_index_exchange(&cache->index, objects, left->objects);
	cache_tags_forget_all(&cache->tags, tags, left->tags);
	arena_keep_only(cache->arena, kept.bodies, kept.n_bodies, &left->bodies);
	arena_keep_only(cache->own, kept.headers, kept.n_headers, &left->own);
	left->bytes += left->bodies.used_bytes + left->own.used_bytes;
	left->next = cache->remains;
	cache->remains = left;
	cache->remains_bytes += left->bytes;
	left = NULL;
	objects = tags = NULL;
	rc = 0;
end:
	cache_remains_free(&left);
	free(objects);
	free(tags);
	free(kept.bodies);
	free(kept.headers);
	return rc;
}

/* ---- What is left behind ---- */

static void free_content(struct cache_remains *remains)
{
	arena_tables_free(&remains->bodies);
	arena_tables_free(&remains->own);
	for (int i = 0; i < 2; i++) {
		free(remains->objects[i]);
		free(remains->tags[i]);
		remains->objects[i] = remains->tags[i] = NULL;
	}
}

void cache_remains_free(struct cache_remains **remains)
{
	while (*remains) {
		struct cache_remains *one = *remains;
		*remains = one->next;
		free_content(one);
		free(one);
	}
}

bool cache_clean_begin(struct cache *cache)
{
	BUG_ON(cache->cleaning);
	uint64_t most_bytes = cache->budget_bytes / CLEAN_SHARE;
	bool holes = arena_holes_take(cache->arena, most_bytes);
	holes = arena_holes_take(cache->own, most_bytes) || holes;
	cache->cleaning = cache->remains;
	cache->remains = NULL;
	cache->cleaned = false;
	return cache->cleaning || holes;
}

void cache_clean_work(struct cache *cache)
{
	for (struct cache_remains *at = cache->cleaning; at; at = at->next)
		free_content(at);
	arena_holes_punch(cache->arena);
	arena_holes_punch(cache->own);
	cache->cleaned = true;
}

bool cache_clean_end(struct cache *cache)
{
	uint64_t bytes = arena_holes_give_back(cache->arena) + arena_holes_give_back(cache->own);
	struct cache_remains **end = &cache->remains, *done = cache->cleaning;
	cache->cleaning = NULL;
	if (!cache->cleaned) {
		while (*end)
			end = &(*end)->next;
		*end = done;
		return false;
	}
	for (struct cache_remains *at = done; at; at = at->next)
		cache->remains_bytes -= at->bytes;
	bool some = bytes > 0 || done;
	cache_remains_free(&done);
	return some;
}
