#include "gatewayd/cache_object.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/cache_private.h"

static struct span copy_string(char **to, struct span from)
{
	struct span copy = {*to, from.len};
	if (from.len)
		memcpy(*to, from.data, from.len);
	*to += from.len;
	return copy;
}

static bool may_move(void *owner, uint64_t offset)
{
	(void)offset;
	const struct cache_object *object = owner;
	return object->references == 1 && object->node.queue != CACHE_QUEUE_NONE;
}

static void moved(void *owner, uint64_t from_offset, uint64_t to_offset)
{
	struct cache_object *object = owner;
	int form = 0;
	while (form < CACHE_FORMS &&
		(!object->forms[form].data || object->forms[form].offset != from_offset))
		form++;
	BUG_ON(form == CACHE_FORMS);
	object->forms[form].offset = to_offset;
	object->forms[form].data = arena_at(object->cache->arena, to_offset);
	object->cache->stats.moved++;
}

const struct arena_mover cache_object_mover = {.may_move = may_move, .moved = moved};

/* Memory for a form, from where the object's bodies lie. -1: no room. */
static int put_form(struct cache_object *object, enum cache_form form, struct span body)
{
	size_t len = body.len ? body.len : 1; /* so that an empty body has an address too */
	uint64_t offset = ARENA_NONE;
	char *data;
	if (object->outside) {
		data = malloc(len);
		if (!data)
			return -1;
		object->cache->outside_bytes += len;
	} else {
		offset = cache_alloc(object->cache, len);
		if (offset == ARENA_NONE)
			return -1;
		data = arena_at(object->cache->arena, offset);
		arena_set_owner(object->cache->arena, offset, object);
		cache_object_charge(object, (int64_t)arena_rounded(len));
	}
	if (body.len)
		memcpy(data, body.data, body.len);
	object->forms[form].data = data;
	object->forms[form].len = body.len;
	object->forms[form].offset = offset;
	return 0;
}

static void free_form(struct cache_object *object, int form)
{
	size_t len = object->forms[form].len ? object->forms[form].len : 1;
	if (!object->forms[form].data)
		return;
	if (object->outside) {
		free(object->forms[form].data);
		object->cache->outside_bytes -= len;
	} else {
		arena_release(object->cache->arena, object->forms[form].offset);
		cache_object_charge(object, -(int64_t)arena_rounded(len));
	}
	object->forms[form].data = NULL;
}

static void free_header(struct cache_object *object)
{
	struct cache *cache = object->cache;
	cache->alive--;
	object->magic = 0;
	if (object->header_offset != ARENA_NONE) {
		arena_release(cache->own, object->header_offset);
		return;
	}
	cache->header_bytes -= object->header_bytes;
	free(object);
}

/* Somebody besides the cache has a reference, from now on, or not any more. */
static void hold(struct cache_object *object)
{
	LIST_INSERT_HEAD(&object->cache->held, object, holding);
	object->cache->n_held++;
}

static void let_go(struct cache_object *object)
{
	LIST_REMOVE(object, holding);
	object->cache->n_held--;
}

struct cache_object *cache_object_new(struct cache *cache, const struct cache_object_info *spec,
	enum cache_form form, struct span body, bool want_arena)
{
	BUG_ON(form >= CACHE_FORMS || spec->kind >= CACHE_KINDS);
	size_t strings = spec->model.len + spec->served_model.len + spec->headers.len;
	size_t len = sizeof(struct cache_object) + strings;
	uint64_t header_offset = want_arena ? arena_alloc(cache->own, len) : ARENA_NONE;
	bool malloced = header_offset == ARENA_NONE;
	struct cache_object *object = malloced ? malloc(len) : arena_at(cache->own, header_offset);
	if (!object)
		return NULL;
	*object = (struct cache_object){
		.magic = CACHE_OBJECT_MAGIC,
		.references = 1,
		.cache = cache,
		.info = *spec,
		.header_bytes = malloced ? cache_malloc_bytes(len) : cache_own_bytes(len),
		.header_offset = header_offset,
		.own_form = (uint8_t)form,
		.since = cache_purge_clock(cache),
	};
	char *to = object->strings;
	object->info.model = copy_string(&to, spec->model);
	object->info.served_model = copy_string(&to, spec->served_model);
	object->info.headers = copy_string(&to, spec->headers);
	if (malloced)
		cache->header_bytes += object->header_bytes;
	cache->alive++;
	cache_object_charge(object, (int64_t)object->header_bytes);

	object->outside = malloced || object->header_bytes + body.len > cache->max_object_bytes;
	bool placed = !object->outside && put_form(object, form, body) == 0;
	if (!placed) {
		cache_object_charge(object, -(int64_t)object->header_bytes);
		object->outside = true;
		if (put_form(object, form, body) != 0) {
			free_header(object);
			return NULL;
		}
	}
	hold(object);
	return object;
}

static struct cache_object *checked(struct cache_object *object)
{
	BUG_ON(object->magic != CACHE_OBJECT_MAGIC || object->references == 0);
	return object;
}

struct cache_object *cache_object_ref(struct cache_object *object)
{
	if (checked(object)->references++ == 1 && object->node.queue != CACHE_QUEUE_NONE)
		hold(object);
	return object;
}

static void destroy(struct cache_object *object)
{
	BUG_ON(object->node.queue != CACHE_QUEUE_NONE);
	for (int i = 0; i < CACHE_FORMS; i++)
		free_form(object, i);
	if (!object->outside)
		cache_object_charge(object, -(int64_t)object->header_bytes);
	BUG_ON(object->node.charge_bytes != 0);
	free_header(object);
}

void cache_object_unref(struct cache_object **object_)
{
	struct cache_object *object = *object_;
	*object_ = NULL;
	if (!object)
		return;
	bool in_cache = checked(object)->node.queue != CACHE_QUEUE_NONE;
	if (--object->references > in_cache)
		return;
	let_go(object);
	if (object->references == 0)
		destroy(object);
}

void cache_object_entered(struct cache_object *object)
{
	checked(object)->references++;
}

void cache_object_left(struct cache_object *object)
{
	/* If somebody holds it, it is among the held already. */
	if (--checked(object)->references == 0)
		destroy(object);
}

const struct cache_object_info *cache_object_info(const struct cache_object *object)
{
	return &object->info;
}

enum cache_form cache_object_own_form(const struct cache_object *object)
{
	return object->own_form;
}

bool cache_object_form(struct cache_object *object, enum cache_form form, struct span *body)
{
	if (!checked(object)->forms[form].data)
		return false;
	if (form != object->own_form)
		object->extra_used = true;
	*body = (struct span){object->forms[form].data, object->forms[form].len};
	return true;
}

uint64_t cache_object_form_offset(const struct cache_object *object, enum cache_form form)
{
	return object->forms[form].data ? object->forms[form].offset : ARENA_NONE;
}

bool cache_object_has_extra(const struct cache_object *object)
{
	return object->forms[1 - object->own_form].data != NULL;
}

int cache_object_add_form(struct cache_object *object, enum cache_form form, struct span body)
{
	struct cache *cache = checked(object)->cache;
	if (object->forms[form].data)
		return 0;
	if (!object->outside && object->node.charge_bytes + body.len > cache->max_object_bytes)
		return -1;
	/* Making room may take this very object out of the cache; the caller's reference keeps it.
	 */
	if (put_form(object, form, body))
		return -1;
	if (object->node.queue != CACHE_QUEUE_NONE) {
		TAILQ_INSERT_HEAD(&cache->extras, object, extras);
		object->in_extras = true;
	}
	object->extra_used = false;
	cache->stats.forms_added++;
	return 0;
}

void cache_object_drop_extra(struct cache_object *object)
{
	BUG_ON(!object->in_extras || object->references != 1);
	TAILQ_REMOVE(&object->cache->extras, object, extras);
	object->in_extras = false;
	free_form(object, 1 - object->own_form);
	object->cache->stats.forms_dropped++;
}

static void slice_unref(void *owner)
{
	struct cache_object *object = owner;
	cache_object_unref(&object);
}

bool cache_object_slice(struct cache_object *object, enum cache_form form, struct slice *slice)
{
	struct span body;
	if (!cache_object_form(object, form, &body))
		return false;
	*slice = (struct slice){body.data, body.len, slice_unref, cache_object_ref(object)};
	return true;
}

struct cache_object *cache_object_lend(struct cache_object *object)
{
	if (object->loans++ == 0) {
		object->lent_bytes = object->node.charge_bytes;
		object->cache->lent_bytes += object->lent_bytes;
	}
	return cache_object_ref(object);
}

void cache_object_give_back(struct cache_object **object)
{
	if (*object && --checked(*object)->loans == 0)
		(*object)->cache->lent_bytes -= (*object)->lent_bytes;
	cache_object_unref(object);
}

uint64_t cache_lent_bytes(const struct cache *cache)
{
	return cache->lent_bytes;
}

static void slice_give_back(void *owner)
{
	struct cache_object *object = owner;
	cache_object_give_back(&object);
}

bool cache_object_lend_slice(struct cache_object *object, enum cache_form form, struct slice *slice)
{
	struct span body;
	if (!cache_object_form(object, form, &body))
		return false;
	*slice = (struct slice){body.data, body.len, slice_give_back, cache_object_lend(object)};
	return true;
}

bool cache_object_refresh_begin(struct cache_object *object)
{
	if (object->refreshing)
		return false;
	return object->refreshing = true;
}

void cache_object_refresh_end(struct cache_object *object)
{
	object->refreshing = false;
}
