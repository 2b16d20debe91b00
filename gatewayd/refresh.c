#include "gatewayd/refresh.h"

#include <stdlib.h>
#include <sys/queue.h>

#include "common/loop.h"
#include "gatewayd/cache.h"
#include "gatewayd/store.h"

/* Requests come first: a storm of stale hits asks the store for so many at once. */
#define MAX_UNDER_WAY 64

struct refresh {
	struct refresher *refresher;
	struct cache_object *object;
	struct store_get *get;
	uint64_t since; /* the purge clock when it was asked for */
	LIST_ENTRY(refresh) entry;
};

struct refresher {
	struct loop *loop;
	struct cache *cache;
	struct store *store;
	uint64_t ttl_ms, grace_ms;
	LIST_HEAD(, refresh) under_way;
	size_t n;
	uint64_t succeeded, failed;
};

static void end(struct refresh *refresh)
{
	LIST_REMOVE(refresh, entry);
	refresh->refresher->n--;
	store_get_cancel(&refresh->get);
	cache_object_refresh_end(refresh->object);
	cache_object_unref(&refresh->object);
	free(refresh);
}

static void renew(struct refresh *refresh, const struct stored_fields *fields)
{
	struct refresher *refresher = refresh->refresher;
	uint64_t now_ms = loop_wall_ms(refresher->loop);
	struct cache_object_info info = {
		.kind = CACHE_ELEMENT,
		.key = fields->key,
		.stored_ms = fields->stored_ms,
		.fresh_from_ms = now_ms,
		.ttl_ms = refresher->ttl_ms,
		.grace_ms = refresher->grace_ms,
		.prompt_tokens = fields->prompt_tokens,
		.total_tokens = fields->total_tokens,
		.model = fields->model,
		.served_model = fields->served_model,
		.dims = fields->dims,
		.n_elements = 1,
	};
	struct cache_object *object = cache_object_new(refresher->cache, &info,
		fields->source == VECTOR_BASE64 ? CACHE_BASE64 : CACHE_TEXT, fields->vector, true);
	if (object)
		cache_renew(refresher->cache, refresh->object, object, refresh->since, now_ms);
	cache_object_unref(&object);
}

static void on_looked_up(enum store_result result, struct stored_object *stored, void *arg)
{
	struct refresh *refresh = arg;
	struct refresher *refresher = refresh->refresher;
	refresh->get = NULL;
	if (result == STORE_FOUND) {
		refresher->succeeded++;
		renew(refresh, &stored->fields);
	} else {
		refresher->failed++;
	}
	end(refresh);
}

struct refresher *refresher_new(struct loop *loop, struct cache *cache, struct store *store,
	uint64_t ttl_ms, uint64_t grace_ms)
{
	struct refresher *refresher = calloc(1, sizeof *refresher);
	if (!refresher)
		return NULL;
	refresher->loop = loop;
	refresher->cache = cache;
	refresher->store = store;
	refresher->ttl_ms = ttl_ms;
	refresher->grace_ms = grace_ms;
	LIST_INIT(&refresher->under_way);
	return refresher;
}

void refresher_start(
	struct refresher *refresher, struct cache_object *object, const struct trace *trace)
{
	if (!refresher->store || refresher->n >= MAX_UNDER_WAY ||
		!cache_object_refresh_begin(object))
		return;
	struct refresh *refresh = calloc(1, sizeof *refresh);
	if (!refresh) {
		cache_object_refresh_end(object);
		return;
	}
	refresh->refresher = refresher;
	refresh->object = cache_object_ref(object);
	refresh->since = cache_purge_clock(refresher->cache);
	LIST_INSERT_HEAD(&refresher->under_way, refresh, entry);
	refresher->n++;
	refresh->get = store_get_start_with(refresher->store, &cache_object_info(object)->key,
		&(struct store_look){.trace = trace}, on_looked_up, refresh);
	if (!refresh->get)
		end(refresh);
}

uint64_t refresher_succeeded(const struct refresher *refresher)
{
	return refresher->succeeded;
}

uint64_t refresher_failed(const struct refresher *refresher)
{
	return refresher->failed;
}

void refresher_free(struct refresher **pointer)
{
	struct refresher *refresher = *pointer;
	if (!refresher)
		return;
	*pointer = NULL;
	while (!LIST_EMPTY(&refresher->under_way))
		end(LIST_FIRST(&refresher->under_way));
	free(refresher);
}
