#include "gatewayd/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/cache_private.h"

#define MAX_USES 3
/* Seen this often while in small: goes to main. */
#define MAIN_USES 2
/* How many further forms are looked at before an object goes instead. */
#define EXTRAS_LOOKED_AT 8
/* How many objects get another round before one goes whatever its uses: bounds one eviction, which
 * pays for many hits otherwise. */
#define MAX_ROUNDS 1024
/* How many that somebody holds are passed over in a search for one that nobody does. */
#define MAX_PASSED_OVER 32
/* The arena may be in pieces: how many evictions are tried for one object. */
#define MAX_EVICTIONS_FOR_ROOM 64

#define GHOST_BYTES            cache_own_bytes(sizeof(struct cache_node))

struct cache *cache_new(const struct cache_options *options)
{
	if (options->budget_bytes < CACHE_MIN_BUDGET_BYTES) {
		errno = EINVAL;
		return NULL;
	}
	struct cache *cache = calloc(1, sizeof *cache);
	if (!cache)
		return NULL;
	cache->budget_bytes = options->budget_bytes;
	cache->max_object_bytes = options->max_object_bytes ? options->max_object_bytes
							    : options->budget_bytes / 10;
	TAILQ_INIT(&cache->small);
	TAILQ_INIT(&cache->main);
	TAILQ_INIT(&cache->ghost);
	TAILQ_INIT(&cache->extras);
	LIST_INIT(&cache->held);
	if (cache_index_init(&cache->index))
		goto fail_cache;
	cache->own = arena_new(cache->budget_bytes);
	if (!cache->own)
		goto fail_index;
	if (cache_tags_init(&cache->tags, cache->own, cache->budget_bytes))
		goto fail_own;
	cache->arena = arena_new(cache->budget_bytes);
	if (!cache->arena)
		goto fail_tags;
	return cache;

	int saved;
fail_tags:
	saved = errno;
	cache_tags_uninit(&cache->tags);
	errno = saved;
fail_own:
	saved = errno;
	arena_free(&cache->own);
	errno = saved;
fail_index:
	saved = errno;
	cache_index_free(&cache->index);
	errno = saved;
fail_cache:
	free(cache);
	return NULL;
}

/* ---- Accounts ---- */

static uint64_t tables_bytes(const struct cache *cache)
{
	return cache_index_bytes(&cache->index) + cache_index_bytes(&cache->tags.index) +
	       cache->remains_bytes;
}

static uint64_t used_bytes(const struct cache *cache)
{
	return arena_total_bytes(cache->arena) + arena_total_bytes(cache->own) +
	       tables_bytes(cache) + cache->header_bytes;
}

static uint64_t *queue_bytes(struct cache *cache, uint8_t queue)
{
	return queue == CACHE_QUEUE_SMALL ? &cache->small_bytes : &cache->main_bytes;
}

static struct cache_object *object_of(struct cache_node *node)
{
	BUG_ON(node->queue == CACHE_QUEUE_GHOST);
	struct cache_object *object = (struct cache_object *)node;
	BUG_ON(object->magic != CACHE_OBJECT_MAGIC);
	return object;
}

void cache_object_charge(struct cache_object *object, int64_t more_bytes)
{
	struct cache *cache = object->cache;
	uint64_t more = (uint64_t)more_bytes; /* subtracts by wrapping */
	object->node.charge_bytes += more;
	cache->held_bytes += more;
	if (object->node.queue != CACHE_QUEUE_NONE) {
		*queue_bytes(cache, object->node.queue) += more;
		cache->stats.object_bytes[object->info.kind] += more;
	}
}

/* ---- Queues ---- */

static void enter(struct cache *cache, struct cache_node *node, enum cache_queue queue)
{
	node->queue = queue;
	*queue_bytes(cache, queue) += node->charge_bytes;
	TAILQ_INSERT_HEAD(queue == CACHE_QUEUE_SMALL ? &cache->small : &cache->main, node, place);
}

static void leave(struct cache *cache, struct cache_node *node)
{
	*queue_bytes(cache, node->queue) -= node->charge_bytes;
	TAILQ_REMOVE(node->queue == CACHE_QUEUE_SMALL ? &cache->small : &cache->main, node, place);
	node->queue = CACHE_QUEUE_NONE;
}

static void link_object(struct cache *cache, struct cache_object *object, enum cache_queue queue)
{
	enter(cache, &object->node, queue);
	cache_index_add(&cache->index, &object->node.index);
	cache->stats.objects[object->info.kind]++;
	cache->stats.object_bytes[object->info.kind] += object->node.charge_bytes;
	if (cache_object_has_extra(object)) {
		TAILQ_INSERT_HEAD(&cache->extras, object, extras);
		object->in_extras = true;
	}
	cache_object_entered(object);
}

/* Takes it out and gives the cache's reference back. */
static void unlink_object(struct cache *cache, struct cache_object *object)
{
	if (object->info.kind == CACHE_ELEMENT)
		cache_tags_element_goes(object);
	cache->stats.objects[object->info.kind]--;
	cache->stats.object_bytes[object->info.kind] -= object->node.charge_bytes;
	leave(cache, &object->node);
	cache_index_remove(&cache->index, &object->node.index);
	cache_tags_detach(object);
	if (object->in_extras) {
		TAILQ_REMOVE(&cache->extras, object, extras);
		object->in_extras = false;
	}
	cache_object_left(object);
}

static void ghost_drop(struct cache *cache, struct cache_node *ghost)
{
	TAILQ_REMOVE(&cache->ghost, ghost, place);
	cache_index_remove(&cache->index, &ghost->index);
	cache->ghost_bytes -= ghost->charge_bytes;
	cache->ghosts--;
	cache_own_free(cache->own, ghost);
}

static void ghost_add(struct cache *cache, const struct cache_node *node)
{
	struct cache_node *ghost = cache_own_alloc(cache->own, sizeof *ghost);
	if (!ghost)
		return; /* it is only advice */
	*ghost = (struct cache_node){
		.index.hash = node->index.hash,
		.charge_bytes = node->charge_bytes,
		.queue = CACHE_QUEUE_GHOST,
	};
	TAILQ_INSERT_HEAD(&cache->ghost, ghost, place);
	cache_index_add(&cache->index, &ghost->index);
	cache->ghost_bytes += ghost->charge_bytes;
	cache->ghosts++;
	while (cache->ghost_bytes > cache->budget_bytes / 10 * 9 ||
		cache->ghosts * GHOST_BYTES > cache->budget_bytes / 20)
		ghost_drop(cache, TAILQ_LAST(&cache->ghost, cache_fifo));
}

/* ---- Eviction ---- */

static bool expired(const struct cache_object *object, uint64_t now_ms)
{
	const struct cache_object_info *info = &object->info;
	if (info->ttl_ms == CACHE_NO_TTL || now_ms < info->fresh_from_ms)
		return false;
	uint64_t age_ms = now_ms - info->fresh_from_ms;
	return age_ms >= info->ttl_ms && age_ms - info->ttl_ms >= info->grace_ms;
}

static bool drop_extra(struct cache *cache)
{
	for (int i = 0; i < EXTRAS_LOOKED_AT; i++) {
		struct cache_object *object = TAILQ_LAST(&cache->extras, cache_extras);
		if (!object)
			return false;
		if (object->references == 1 && !object->extra_used) {
			cache_object_drop_extra(object);
			return true;
		}
		object->extra_used = false;
		TAILQ_REMOVE(&cache->extras, object, extras);
		TAILQ_INSERT_HEAD(&cache->extras, object, extras);
	}
	return false;
}

static void evict(struct cache *cache, struct cache_object *object)
{
	cache->stats.evictions++;
	cache->stats.evicted_bytes += object->node.charge_bytes;
	if (object->node.queue == CACHE_QUEUE_SMALL)
		ghost_add(cache, &object->node);
	unlink_object(cache, object);
}

/* Takes one further form, or one object out; false when there is nothing left. */
static bool evict_one(struct cache *cache)
{
	if (drop_extra(cache))
		return true;
	for (int rounds = 0, passed_over = 0;; rounds++) {
		bool from_small = cache->small_bytes >= cache->budget_bytes / 10;
		if (TAILQ_EMPTY(from_small ? &cache->small : &cache->main))
			from_small = !from_small;
		struct cache_node *node = TAILQ_LAST(
			from_small ? &cache->small : &cache->main, cache_fifo);
		if (!node)
			return false;
		struct cache_object *object = object_of(node);
		bool dead = cache_tags_dead(object);
		bool stays = node->uses >= (from_small ? MAIN_USES : 1) && rounds < MAX_ROUNDS &&
			     !dead && !expired(object, cache->now_ms);
		if (!stays && !dead && object->references > 1) {
			/* Somebody holds it: its bytes would not come free. It goes round once
			 * more, and one request that holds more than the cache can hold does not
			 * push out all others. */
			if (++passed_over > MAX_PASSED_OVER)
				return false;
			enum cache_queue queue = node->queue;
			leave(cache, node);
			enter(cache, node, queue);
			continue;
		}
		if (!stays) {
			evict(cache, object);
			return true;
		}
		leave(cache, node);
		enter(cache, node, CACHE_QUEUE_MAIN);
		node->uses = from_small ? 0 : node->uses - 1;
	}
}

bool cache_make_room(struct cache *cache, uint64_t need_bytes)
{
	while (used_bytes(cache) + need_bytes > cache->budget_bytes) {
		if (!evict_one(cache))
			return false;
	}
	return true;
}

uint64_t cache_alloc(struct cache *cache, uint64_t len_bytes)
{
	if (!cache_make_room(cache, arena_rounded(len_bytes)))
		return ARENA_NONE;
	uint64_t offset = arena_alloc(cache->arena, len_bytes);
	/* What is free is enough, but may be in pieces. */
	for (int i = 0; offset == ARENA_NONE && i < MAX_EVICTIONS_FOR_ROOM; i++) {
		if (!arena_gather(cache->arena, len_bytes, &cache_object_mover) &&
			!evict_one(cache))
			break;
		offset = arena_alloc(cache->arena, len_bytes);
	}
	return offset;
}

/* ---- The doors ---- */

/* An object under the key, or a ghost under its fingerprint, or NULL. */
static struct cache_node *find(
	const struct cache *cache, const struct digest *key, uint64_t hash, bool ghost)
{
	struct index_node *chains[2];
	cache_index_chains(&cache->index, hash, chains);
	for (int i = 0; i < 2; i++) {
		for (struct index_node *at = chains[i]; at; at = at->next) {
			struct cache_node *node = (struct cache_node *)at;
			if (at->hash != hash || ghost != (node->queue == CACHE_QUEUE_GHOST))
				continue;
			if (ghost || digest_equal(&object_of(node)->info.key, key))
				return node;
		}
	}
	return NULL;
}

static struct cache_object *find_object(const struct cache *cache, const struct digest *key)
{
	struct cache_node *node = find(cache, key, cache_index_hash(&cache->index, key), false);
	return node ? object_of(node) : NULL;
}

struct cache_object *cache_lookup(struct cache *cache, const struct digest *key, uint64_t now_ms,
	enum cache_freshness *freshness)
{
	cache->now_ms = now_ms;
	*freshness = CACHE_ABSENT;
	struct cache_object *object = find_object(cache, key);
	if (!object) {
		cache->stats.misses++;
		return NULL;
	}
	bool dead = cache_tags_dead(object);
	if (dead || expired(object, now_ms)) {
		*(dead ? &cache->stats.purged : &cache->stats.expired) += 1;
		cache->stats.misses++;
		unlink_object(cache, object);
		return NULL;
	}
	const struct cache_object_info *info = &object->info;
	bool fresh = info->ttl_ms == CACHE_NO_TTL || now_ms < info->fresh_from_ms ||
		     now_ms - info->fresh_from_ms < info->ttl_ms;
	*freshness = fresh ? CACHE_FRESH : CACHE_STALE;
	cache->stats.hits[info->kind]++;
	cache->stats.stale_hits += !fresh;
	if (object->node.uses < MAX_USES)
		object->node.uses++;
	return cache_object_ref(object);
}

bool cache_contains(const struct cache *cache, const struct digest *key, uint64_t now_ms)
{
	struct cache_object *object = find_object(cache, key);
	return object && !cache_tags_dead(object) && !expired(object, now_ms);
}

/* A single embedding needs no link to be found by its own key, but may not enter too late. */
static bool own_key_purged(const struct cache_object *object)
{
	if (object->info.kind != CACHE_ELEMENT || object->since >= object->cache->tags.clock)
		return false;
	struct cache_tag_key key = cache_tag_key_of_digest(CACHE_TAG_ELEMENT, &object->info.key);
	struct cache_tagging own = {.since = object->since, .keys = &key, .n = 1};
	return cache_purged_since(object->cache, &own);
}

int cache_insert_tagged(struct cache *cache, struct cache_object *object,
	const struct cache_tagging *tagging, uint64_t now_ms)
{
	BUG_ON(object->cache != cache);
	if (object->node.queue != CACHE_QUEUE_NONE)
		return 0;
	cache->now_ms = now_ms;
	object->since = tagging->since;
	if (cache_purged_since(cache, tagging) || own_key_purged(object)) {
		cache->stats.too_late++;
		return -1;
	}
	if (object->outside || object->node.charge_bytes > cache->max_object_bytes ||
		!cache_make_room(cache, cache_tags_most(tagging->n)) ||
		cache_tags_attach(object, tagging->keys, tagging->n)) {
		cache->stats.refused++;
		return -1;
	}
	object->checked = cache->tags.clock;
	uint64_t hash = cache_index_hash(&cache->index, &object->info.key);
	object->node.index.hash = hash;
	object->node.uses = 0;
	enum cache_queue queue = CACHE_QUEUE_SMALL;
	struct cache_node *before = find(cache, &object->info.key, hash, false);
	struct cache_node *ghost = find(cache, &object->info.key, hash, true);
	if (before) {
		/* A newer copy of the same thing inherits what is known of it. */
		queue = before->queue;
		object->node.uses = before->uses;
		unlink_object(cache, object_of(before));
	}
	if (ghost) {
		if (!before)
			queue = CACHE_QUEUE_MAIN;
		cache->stats.ghost_hits++;
		ghost_drop(cache, ghost);
	}
	link_object(cache, object, queue);
	cache->stats.inserts++;
	return 0;
}

int cache_renew(struct cache *cache, const struct cache_object *old, struct cache_object *object,
	uint64_t since, uint64_t now_ms)
{
	if (old->node.queue == CACHE_QUEUE_NONE)
		return -1;
	struct cache_tag_key keys[CACHE_MAX_TAGS];
	struct cache_tagging tagging = {.since = since, .keys = keys};
	tagging.n = cache_object_tags(old, keys);
	return cache_insert_tagged(cache, object, &tagging, now_ms);
}

int cache_insert(struct cache *cache, struct cache_object *object, uint64_t now_ms)
{
	struct cache_tagging none = {.since = cache->tags.clock};
	return cache_insert_tagged(cache, object, &none, now_ms);
}

bool cache_object_is_current(struct cache_object *object)
{
	if (object->node.queue == CACHE_QUEUE_NONE)
		return object->since >= object->cache->tags.clock;
	return !cache_tags_dead(object);
}

void cache_take_out(struct cache *cache, struct cache_object *object)
{
	cache->stats.purged++;
	unlink_object(cache, object);
}

struct cache_object *cache_last_if_dead(struct cache *cache)
{
	struct cache_fifo *queues[] = {&cache->small, &cache->main};
	for (int i = 0; i < 2; i++) {
		struct cache_node *node = TAILQ_LAST(queues[i], cache_fifo);
		if (node && object_of(node)->since < cache->tags.all_purged)
			return object_of(node);
	}
	return NULL;
}

bool cache_drop_ghosts(struct cache *cache, size_t most)
{
	for (; most > 0 && !TAILQ_EMPTY(&cache->ghost); most--)
		ghost_drop(cache, TAILQ_FIRST(&cache->ghost));
	cache_index_shrink(&cache->index);
	return TAILQ_EMPTY(&cache->ghost);
}

bool cache_remove(struct cache *cache, const struct digest *key)
{
	struct cache_object *object = find_object(cache, key);
	if (!object)
		return false;
	cache_take_out(cache, object);
	return true;
}

void cache_stats(const struct cache *cache, struct cache_stats *stats)
{
	*stats = cache->stats;
	stats->budget_bytes = cache->budget_bytes;
	stats->used_bytes = used_bytes(cache);
	stats->live_bytes = cache->small_bytes + cache->main_bytes;
	stats->pinned_bytes = cache->held_bytes - stats->live_bytes;
	stats->outside_bytes = cache->outside_bytes;
	stats->index_bytes = tables_bytes(cache) + cache->ghosts * GHOST_BYTES +
			     arena_stats(cache->arena).index_bytes;
	stats->small_bytes = cache->small_bytes;
	stats->main_bytes = cache->main_bytes;
	stats->ghosts = cache->ghosts;
	stats->tags = cache->tags.index.count;
}

struct arena *cache_arena(struct cache *cache)
{
	return cache->arena;
}

void cache_free(struct cache **cache_)
{
	struct cache *cache = *cache_;
	*cache_ = NULL;
	if (!cache)
		return;
	BUG_ON(cache->n_held != 0 || cache->cleaning);
	cache_remains_free(&cache->remains);
	arena_free(&cache->arena);
	cache_tags_uninit(&cache->tags);
	arena_free(&cache->own);
	cache_index_free(&cache->index);
	free(cache);
}
