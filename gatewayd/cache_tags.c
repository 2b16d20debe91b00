#include "gatewayd/cache_tags.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/cache_private.h"

#define REMEMBERED_SHARE 64

struct cache_tag {
	struct index_node node; /* first */
	struct cache_tag_key key;
	struct cache_links links;          /* those that a purge has to free come first */
	uint64_t purged;                   /* the clock at its last purge; 0: never */
	TAILQ_ENTRY(cache_tag) remembered; /* by when they were purged */
	bool is_remembered;
};

/* ---- Keys ---- */

struct cache_tag_key cache_tag_key_of_digest(enum cache_tag_kind kind, const struct digest *value)
{
	struct cache_tag_key key;
	memcpy(key.words, value->bytes, sizeof key.words);
	/* Kinds apart: nobody finds a value whose sum differs from another's in just this. */
	key.words[1] ^= (uint64_t)kind * 0x9e3779b97f4a7c15u;
	return key;
}

struct cache_tag_key cache_tag_key(enum cache_tag_kind kind, struct span value)
{
	struct digest digest = digest_of(value);
	return cache_tag_key_of_digest(kind, &digest);
}

/* ---- The table ---- */

int cache_tags_init(struct cache_tags *tags, struct arena *own, uint64_t budget_bytes)
{
	uint64_t share = budget_bytes / REMEMBERED_SHARE /
			 cache_own_bytes(sizeof(struct cache_tag));
	*tags = (struct cache_tags){
		.own = own,
		.clock = 1,
		.max_remembered = share < CACHE_MAX_REMEMBERED ? share : CACHE_MAX_REMEMBERED,
	};
	TAILQ_INIT(&tags->remembered);
	return cache_index_init(&tags->index);
}

static uint64_t hash_of(const struct cache_tags *tags, const struct cache_tag_key *key)
{
	return cache_index_hash_word(&tags->index, key->words[0] ^ key->words[1]);
}

static struct cache_tag *find(const struct cache_tags *tags, const struct cache_tag_key *key)
{
	struct index_node *chains[2];
	uint64_t hash = hash_of(tags, key);
	cache_index_chains(&tags->index, hash, chains);
	for (int i = 0; i < 2; i++) {
		for (struct index_node *node = chains[i]; node; node = node->next) {
			struct cache_tag *tag = (struct cache_tag *)node;
			if (node->hash == hash && tag->key.words[0] == key->words[0] &&
				tag->key.words[1] == key->words[1])
				return tag;
		}
	}
	return NULL;
}

/* NULL when out of memory. */
static struct cache_tag *find_or_make(struct cache_tags *tags, const struct cache_tag_key *key)
{
	struct cache_tag *tag = find(tags, key);
	if (tag)
		return tag;
	tag = cache_own_alloc(tags->own, sizeof *tag);
	if (!tag)
		return NULL;
	*tag = (struct cache_tag){.node.hash = hash_of(tags, key), .key = *key};
	TAILQ_INIT(&tag->links);
	cache_index_add(&tags->index, &tag->node);
	return tag;
}

static void drop_if_idle(struct cache_tags *tags, struct cache_tag *tag)
{
	if (!TAILQ_EMPTY(&tag->links) || tag->is_remembered)
		return;
	cache_index_remove(&tags->index, &tag->node);
	cache_own_free(tags->own, tag);
}

static void forget(struct cache_tags *tags, struct cache_tag *tag)
{
	TAILQ_REMOVE(&tags->remembered, tag, remembered);
	tags->n_remembered--;
	tag->is_remembered = false;
}

static void remember(struct cache_tags *tags, struct cache_tag *tag)
{
	if (tag->is_remembered)
		forget(tags, tag);
	TAILQ_INSERT_TAIL(&tags->remembered, tag, remembered);
	tags->n_remembered++;
	tag->is_remembered = true;
	while (tags->n_remembered > tags->max_remembered) {
		struct cache_tag *oldest = TAILQ_FIRST(&tags->remembered);
		tags->floor = oldest->purged;
		forget(tags, oldest);
		drop_if_idle(tags, oldest);
	}
}

void cache_tags_forget_all(
	struct cache_tags *tags, struct index_node **empty, struct index_node **old[2])
{
	cache_index_exchange(&tags->index, empty, old);
	TAILQ_INIT(&tags->remembered);
	tags->n_remembered = 0;
}

void cache_tags_uninit(struct cache_tags *tags)
{
	cache_index_free(&tags->index);
}

/* ---- Objects ---- */

size_t cache_tags_most(size_t n)
{
	if (n == 0)
		return 0;
	return cache_own_bytes(n * sizeof(struct cache_link)) +
	       n * cache_own_bytes(sizeof(struct cache_tag));
}

int cache_tags_attach(struct cache_object *object, const struct cache_tag_key *keys, size_t n)
{
	struct cache_tags *tags = &object->cache->tags;
	if (n == 0)
		return 0;
	if (n > CACHE_MAX_TAGS)
		return -1;
	object->links = cache_own_alloc(tags->own, n * sizeof *object->links);
	if (!object->links)
		return -1;
	for (size_t i = 0; i < n; i++) {
		struct cache_link *link = &object->links[i];
		*link = (struct cache_link){.object = object, .tag = find_or_make(tags, &keys[i])};
		if (!link->tag) {
			object->n_links = (uint32_t)i;
			cache_tags_detach(object);
			return -1;
		}
		TAILQ_INSERT_TAIL(&link->tag->links, link, of_tag);
	}
	object->n_links = (uint32_t)n;
	return 0;
}

void cache_tags_detach(struct cache_object *object)
{
	struct cache_tags *tags = &object->cache->tags;
	for (size_t i = 0; i < object->n_links; i++) {
		struct cache_link *link = &object->links[i];
		TAILQ_REMOVE(&link->tag->links, link, of_tag);
		drop_if_idle(tags, link->tag);
	}
	if (object->links)
		cache_own_free(tags->own, object->links);
	object->links = NULL;
	object->n_links = 0;
}

size_t cache_object_tags(const struct cache_object *object, struct cache_tag_key *keys)
{
	for (size_t i = 0; i < object->n_links; i++)
		keys[i] = object->links[i].tag->key;
	return object->n_links;
}

bool cache_tags_dead(struct cache_object *object)
{
	const struct cache_tags *tags = &object->cache->tags;
	if (object->checked == tags->clock)
		return false;
	if (object->since < tags->all_purged)
		return true;
	for (size_t i = 0; i < object->n_links; i++)
		if (object->since < object->links[i].tag->purged)
			return true;
	object->checked = tags->clock;
	return false;
}

void cache_tags_element_goes(struct cache_object *object)
{
	struct cache_tags *tags = &object->cache->tags;
	if (!cache_tags_dead(object) || object->since < tags->all_purged)
		return;
	struct cache_tag_key key = cache_tag_key_of_digest(CACHE_TAG_ELEMENT, &object->info.key);
	struct cache_tag *answers = find(tags, &key);
	if (answers)
		answers->purged = tags->clock;
}

/* ---- Purging ---- */

uint64_t cache_purge_clock(const struct cache *cache)
{
	return cache->tags.clock;
}

bool cache_purged_since(const struct cache *cache, const struct cache_tagging *tagging)
{
	const struct cache_tags *tags = &cache->tags;
	if (tagging->since >= tags->clock)
		return false;
	if (tagging->since < tags->all_purged || tagging->since < tags->floor)
		return true;
	for (size_t i = 0; i < tagging->n; i++) {
		const struct cache_tag *tag = find(tags, &tagging->keys[i]);
		if (tag && tagging->since < tag->purged)
			return true;
	}
	return false;
}

void cache_purge_begin(struct cache *cache, struct cache_purge *purge)
{
	struct cache_tags *tags = &cache->tags;
	tags->clock++;
	if (purge->all)
		tags->all_purged = tags->clock;
	for (size_t i = 0; i < purge->n; i++) {
		struct cache_tag *tag = find_or_make(tags, &purge->keys[i]);
		if (!tag) {
			/* What cannot be remembered is refused with everything else of its time. */
			tags->all_purged = tags->clock;
			continue;
		}
		tag->purged = tags->clock;
		remember(tags, tag);
	}
	if (purge->all && cache->n_held <= CACHE_MAX_HELD_AT_ONCE)
		purge->done = cache_clear(cache, &purge->purged) == 0;
	if (purge->element)
		purge->purged += cache_remove(cache, purge->element);
}

static struct cache_object *first_dead_with(struct cache *cache, const struct cache_tag_key *key)
{
	struct cache_tag *tag = find(&cache->tags, key);
	struct cache_link *link = tag ? TAILQ_FIRST(&tag->links) : NULL;
	return link && link->object->since < tag->purged ? link->object : NULL;
}

static struct cache_object *first_dead(struct cache *cache, struct cache_purge *purge)
{
	struct cache_object *object = NULL;
	if (purge->has_followers)
		object = first_dead_with(cache, &purge->followers);
	if (object)
		return object;
	purge->has_followers = false;
	for (; !object && purge->at < purge->n; purge->at += !object)
		object = first_dead_with(cache, &purge->keys[purge->at]);
	if (object && object->info.kind == CACHE_ELEMENT) {
		purge->has_followers = true;
		purge->followers = cache_tag_key_of_digest(CACHE_TAG_ELEMENT, &object->info.key);
	}
	return object;
}

bool cache_purge_step(struct cache *cache, struct cache_purge *purge, size_t most)
{
	if (purge->done)
		return true;
	for (; most > 0; most--) {
		struct cache_object *object = first_dead(cache, purge);
		if (!object && purge->all)
			object = cache_last_if_dead(cache);
		if (!object)
			break;
		cache_take_out(cache, object);
		purge->purged++;
	}
	if (most == 0)
		return false;
	if (purge->all && !cache_drop_ghosts(cache, most))
		return false;
	cache_index_shrink(&cache->tags.index);
	return true;
}
