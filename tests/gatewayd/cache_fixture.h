#ifndef TESTS_GATEWAYD_CACHE_FIXTURE_H
#define TESTS_GATEWAYD_CACHE_FIXTURE_H

/* What the tests of the memory cache share: objects by number, whose bodies say which they are. */
#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/arena.h"
#include "gatewayd/cache.h"

#define MIB (1u << 20)

static uint64_t random_state = 7;

static inline uint32_t random_below(uint32_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((random_state >> 32) % n);
}

static inline struct digest key_of(uint64_t id)
{
	return digest_of((struct span){(const char *)&id, sizeof id});
}

static inline struct cache *new_cache(uint64_t budget_bytes)
{
	struct cache_options options = {.budget_bytes = budget_bytes};
	struct cache *cache = cache_new(&options);
	assert_non_null(cache);
	return cache;
}

static inline struct cache_stats stats_of(const struct cache *cache)
{
	struct cache_stats stats;
	cache_stats(cache, &stats);
	return stats;
}

/* The body of an object says which one it is, all along. */
static inline char *body_of(uint64_t id, size_t len)
{
	char *body = malloc(len + 1);
	for (size_t i = 0; i < len; i++)
		body[i] = (char)('!' + (id * 31 + i) % 90);
	return body;
}

static inline bool body_is(struct span body, uint64_t id)
{
	char *expected = body_of(id, body.len);
	bool same = memcmp(expected, body.data, body.len) == 0;
	free(expected);
	return same;
}

static inline struct cache_object *make(struct cache *cache, uint64_t id, size_t len)
{
	struct cache_object_info info = {
		.kind = CACHE_ELEMENT, .key = key_of(id), .ttl_ms = CACHE_NO_TTL};
	char *body = body_of(id, len);
	struct cache_object *object = cache_object_new(
		cache, &info, CACHE_BASE64, (struct span){body, len}, true);
	free(body);
	assert_non_null(object);
	return object;
}

static inline bool put(struct cache *cache, uint64_t id, size_t len)
{
	struct cache_object *object = make(cache, id, len);
	bool kept = cache_insert(cache, object, 0) == 0;
	cache_object_unref(&object);
	return kept;
}

/* How many objects went. */
static inline size_t purge_everything(struct cache *cache)
{
	struct cache_purge purge = {.all = true};
	cache_purge_begin(cache, &purge);
	while (!cache_purge_step(cache, &purge, 3))
		;
	return purge.purged;
}

static inline struct cache_object *get(struct cache *cache, uint64_t id)
{
	enum cache_freshness freshness;
	struct digest key = key_of(id);
	struct cache_object *object = cache_lookup(cache, &key, 0, &freshness);
	assert_int_equal(freshness, object ? CACHE_FRESH : CACHE_ABSENT);
	return object;
}

/* As a client: look up, check, and put it there when it is missing. true: a hit. */
static inline bool use(struct cache *cache, uint64_t id, size_t len)
{
	struct cache_object *object = get(cache, id);
	struct span body;
	if (!object) {
		assert_true(put(cache, id, len));
		return false;
	}
	assert_true(cache_object_form(object, CACHE_BASE64, &body));
	assert_int_equal(body.len, len);
	assert_memory_equal(body.data, (char[]){(char)('!' + id * 31 % 90)}, 1);
	cache_object_unref(&object);
	return true;
}

#endif
