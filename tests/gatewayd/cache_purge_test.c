/*
 * Purges of the memory cache: what they cover, what may enter after them, and what they cost. The
 * costs are told for EG_PURGE_OBJECTS objects (100,000; make bench-purge: 1,000,000) as processor
 * time of this thread.
 */
#include "cache_fixture.h"

#include <time.h>

static uint64_t cpu_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static struct cache_tag_key name_of(const char *name)
{
	return cache_tag_key(CACHE_TAG_NAME, span_of(name));
}

static struct cache_object *new_object(
	struct cache *cache, enum cache_kind kind, uint64_t id, struct span body)
{
	struct cache_object_info spec = {
		.kind = kind, .key = key_of(id), .ttl_ms = CACHE_NO_TTL, .n_elements = 1};
	struct cache_object *object = cache_object_new(cache, &spec, CACHE_BASE64, body, true);
	assert_non_null(object);
	return object;
}

/* 0: kept. */
static int enter(struct cache *cache, enum cache_kind kind, uint64_t id, uint64_t since,
	const struct cache_tag_key *keys, size_t n)
{
	struct cache_object *object = new_object(cache, kind, id, SPAN_LITERAL("body"));
	struct cache_tagging tagging = {.since = since, .keys = keys, .n = n};
	int rc = cache_insert_tagged(cache, object, &tagging, 0);
	cache_object_unref(&object);
	return rc;
}

static bool is_there(struct cache *cache, uint64_t id)
{
	enum cache_freshness freshness;
	struct digest key = key_of(id);
	struct cache_object *object = cache_lookup(cache, &key, 0, &freshness);
	bool found = object != NULL;
	assert_int_equal(cache_contains(cache, &key, 0), found);
	cache_object_unref(&object);
	return found;
}

static size_t purge(struct cache *cache, const struct cache_tag_key *keys, size_t n)
{
	struct cache_purge one = {.all = n == 0, .keys = keys, .n = n};
	cache_purge_begin(cache, &one);
	while (!cache_purge_step(cache, &one, 3))
		;
	return one.purged;
}

static void a_tag_takes_what_carries_it(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	struct cache_tag_key red = name_of("red"), both[] = {name_of("blue"), name_of("red")};
	for (uint64_t id = 0; id < 30; id++)
		assert_int_equal(enter(cache, CACHE_RESPONSE, id, cache_purge_clock(cache),
					 id % 3 == 2 ? both : &red, id % 3),
			0);
	assert_int_equal(stats_of(cache).tags, 2);
	assert_int_equal(purge(cache, &both[0], 1), 10);
	assert_int_equal(purge(cache, &both[0], 1), 0);
	for (uint64_t id = 0; id < 30; id++)
		assert_int_equal(is_there(cache, id), id % 3 != 2);
	assert_int_equal(purge(cache, both, 2), 10);
	assert_int_equal(purge(cache, NULL, 0), 10);
	assert_int_equal(stats_of(cache).live_bytes, 0);
	cache_free(&cache);
}

static void what_was_asked_for_before_does_not_enter(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	struct cache_tag_key red = name_of("red"), blue = name_of("blue");
	uint64_t before = cache_purge_clock(cache);
	purge(cache, &red, 1);
	uint64_t between = cache_purge_clock(cache);
	assert_int_equal(enter(cache, CACHE_RESPONSE, 1, before, &red, 1), -1);
	assert_int_equal(enter(cache, CACHE_RESPONSE, 2, before, &blue, 1), 0);
	assert_int_equal(enter(cache, CACHE_RESPONSE, 3, between, &red, 1), 0);
	assert_int_equal(stats_of(cache).too_late, 1);
	purge(cache, NULL, 0);
	assert_int_equal(enter(cache, CACHE_RESPONSE, 4, between, NULL, 0), -1);
	assert_int_equal(enter(cache, CACHE_RESPONSE, 4, cache_purge_clock(cache), NULL, 0), 0);

	/* Its own key, and the whole answers with it. */
	struct digest key = key_of(5);
	struct cache_tag_key part = cache_tag_key_of_digest(CACHE_TAG_ELEMENT, &key);
	before = cache_purge_clock(cache);
	assert_int_equal(enter(cache, CACHE_ELEMENT, 5, before, NULL, 0), 0);
	assert_int_equal(enter(cache, CACHE_RESPONSE, 6, before, &part, 1), 0);
	struct cache_purge one = {.keys = &part, .n = 1, .element = &key};
	cache_purge_begin(cache, &one);
	assert_false(is_there(cache, 5));
	assert_false(is_there(cache, 6));
	assert_int_equal(enter(cache, CACHE_ELEMENT, 5, before, NULL, 0), -1);
	assert_int_equal(enter(cache, CACHE_ELEMENT, 5, cache_purge_clock(cache), NULL, 0), 0);
	cache_free(&cache);
}

static void forgotten_purges_keep_out_everything_older(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB); /* remembers about a hundred and fifty */
	struct cache_tag_key tag = name_of("purged once"), other = name_of("never");
	uint64_t before = cache_purge_clock(cache);
	assert_int_equal(enter(cache, CACHE_RESPONSE, 1, before, &other, 1), 0);
	purge(cache, &tag, 1);
	uint64_t after = cache_purge_clock(cache);
	for (int i = 0; i < 1000; i++) {
		char name[24];
		snprintf(name, sizeof name, "tag %d", i);
		struct cache_tag_key key = name_of(name);
		purge(cache, &key, 1);
	}
	assert_in_range(stats_of(cache).tags, 50, 400);
	assert_true(is_there(cache, 1)); /* what was there stays */
	assert_int_equal(enter(cache, CACHE_RESPONSE, 2, before, &tag, 1), -1);
	assert_int_equal(enter(cache, CACHE_RESPONSE, 2, before, &other, 1), -1);
	assert_int_equal(
		enter(cache, CACHE_RESPONSE, 2, after, &tag, 1), -1); /* not known any more */
	assert_int_equal(enter(cache, CACHE_RESPONSE, 2, cache_purge_clock(cache), &tag, 1), 0);
	cache_free(&cache);
}

static void an_embedding_takes_its_answers_along(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	struct cache_tag_key red = name_of("red");
	struct digest key = key_of(1);
	struct cache_tag_key part = cache_tag_key_of_digest(CACHE_TAG_ELEMENT, &key);
	uint64_t now = cache_purge_clock(cache);
	assert_int_equal(enter(cache, CACHE_ELEMENT, 1, now, &red, 1), 0);
	assert_int_equal(enter(cache, CACHE_RESPONSE, 2, now, &part, 1), 0);
	assert_int_equal(enter(cache, CACHE_RESPONSE, 3, now, &part, 1), 0);
	assert_int_equal(purge(cache, &red, 1), 3);
	/* Found dead before it is freed. */
	now = cache_purge_clock(cache);
	assert_int_equal(enter(cache, CACHE_ELEMENT, 1, now, &red, 1), 0);
	assert_int_equal(enter(cache, CACHE_RESPONSE, 2, now, &part, 1), 0);
	struct cache_purge one = {.keys = &red, .n = 1};
	cache_purge_begin(cache, &one);
	assert_false(is_there(cache, 1));
	assert_false(is_there(cache, 2));
	while (!cache_purge_step(cache, &one, 1))
		;
	cache_free(&cache);
}

/* Bytes that somebody is sending outlive the purge, unchanged, and are counted until given back. */
static void who_sends_goes_on_sending(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	struct cache_object *object = new_object(
		cache, CACHE_RESPONSE, 1, SPAN_LITERAL("lent out"));
	assert_int_equal(cache_insert(cache, object, 0), 0);
	struct slice slice;
	assert_true(cache_object_lend_slice(object, CACHE_IDENTITY, &slice));
	assert_true(cache_object_is_current(object));
	assert_int_equal(purge(cache, NULL, 0), 1);
	assert_false(cache_object_is_current(object));
	cache_object_unref(&object);
	assert_true(stats_of(cache).pinned_bytes > 0);
	for (uint64_t id = 10; id < 2000; id++)
		enter(cache, CACHE_RESPONSE, id, cache_purge_clock(cache), NULL, 0);
	assert_memory_equal(slice.data, "lent out", 8);
	slice_release(&slice);
	assert_int_equal(stats_of(cache).pinned_bytes, 0);
	cache_free(&cache);
}

/* ---- Costs ---- */

static size_t n_objects(void)
{
	const char *text = getenv("EG_PURGE_OBJECTS");
	return text ? strtoul(text, NULL, 10) : 100000;
}

static struct cache *full_cache(size_t n)
{
	struct cache *cache = new_cache(n * 1024 + 64 * MIB);
	struct cache_tag_key keys[] = {cache_tag_key(CACHE_TAG_ELEMENTS, (struct span){0}),
		name_of("model:m"), name_of("hundred")};
	for (size_t id = 0; id < n; id++)
		assert_int_equal(enter(cache, CACHE_ELEMENT, id, cache_purge_clock(cache), keys,
					 id % (n / 100) == 7 ? 3 : 2),
			0);
	assert_int_equal(stats_of(cache).objects[CACHE_ELEMENT], n);
	return cache;
}

static void a_tag_of_a_hundred_costs_a_hundred(void **state)
{
	(void)state;
	size_t n = n_objects();
	struct cache *cache = full_cache(n);
	struct cache_tag_key hundred = name_of("hundred");
	struct cache_purge one = {.keys = &hundred, .n = 1};
	uint64_t start_us = cpu_us();
	cache_purge_begin(cache, &one);
	bool done = cache_purge_step(cache, &one, 1000);
	uint64_t took_us = cpu_us() - start_us;
	assert_true(done);
	assert_int_equal(one.purged, 100);
	printf("# a tag of 100 among %zu: %lu us\n", n, (unsigned long)took_us);
	assert_in_range(took_us, 0, 1000 * 10); /* ten times the aim: sanitizers are slow */
	cache_free(&cache);
}

static void cost_of(const char *what, const struct cache_tag_key *keys, size_t n_keys)
{
	size_t n = n_objects(), slices = 0;
	struct cache *cache = full_cache(n);
	uint64_t full = stats_of(cache).used_bytes, longest_us = 0;
	struct cache_purge one = {.all = n_keys == 0, .keys = keys, .n = n_keys};
	uint64_t start_us = cpu_us();
	cache_purge_begin(cache, &one);
	uint64_t begun_us = cpu_us() - start_us;
	for (bool done = false; !done; slices++) {
		uint64_t slice_us = cpu_us();
		assert_int_equal(is_there(cache, n - 1), 0);
		done = cache_purge_step(cache, &one, 256);
		slice_us = cpu_us() - slice_us;
		longest_us = slice_us > longest_us ? slice_us : longest_us;
	}
	uint64_t freed_us = cpu_us() - start_us;
	while (arena_trim(cache_arena(cache), 4u << 20) > 0)
		;
	struct cache_stats stats = stats_of(cache);
	printf("# %s of %zu: takes effect in %lu us; freed in %zu slices of at most %lu us, "
	       "%lu ms in all; pages back after %lu ms; %lu MB before, %lu KB after\n",
		what, n, (unsigned long)begun_us, slices, (unsigned long)longest_us,
		(unsigned long)(freed_us / 1000), (unsigned long)((cpu_us() - start_us) / 1000),
		(unsigned long)(full >> 20), (unsigned long)(stats.used_bytes >> 10));
	assert_in_range(one.purged, n - 1, n);
	assert_int_equal(stats.live_bytes, 0);
	assert_true(stats.used_bytes < full / 10);
	assert_in_range(begun_us, 0, 10000);
	cache_free(&cache);
}

static void everything_goes_in_slices(void **state)
{
	(void)state;
	struct cache_tag_key model = name_of("model:m");
	cost_of("everything", NULL, 0);
	cost_of("a model", &model, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tag_takes_what_carries_it),
		cmocka_unit_test(what_was_asked_for_before_does_not_enter),
		cmocka_unit_test(forgotten_purges_keep_out_everything_older),
		cmocka_unit_test(an_embedding_takes_its_answers_along),
		cmocka_unit_test(who_sends_goes_on_sending),
		cmocka_unit_test(a_tag_of_a_hundred_costs_a_hundred),
		cmocka_unit_test(everything_goes_in_slices),
	};
	mallopt(M_MXFAST, 0); /* as gatewayd does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
