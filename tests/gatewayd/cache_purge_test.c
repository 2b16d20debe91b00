/*
 * Purges of the memory cache: what they cover, what may enter after them, and what they cost. The
 * costs are told for EG_PURGE_OBJECTS objects (100,000; make bench-purge: 1,000,000) as processor
 * time of this thread.
 */
#include "cache_fixture.h"

#include <pthread.h>
#include <time.h>

/* What a purge of everything may cost; sanitizers are slow. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define LIMIT_US 100000
#else
#define LIMIT_US 10000
#endif

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
	/* Beside other tests, and in sanitizers, everything is slow. */
	assert_in_range(took_us, 0, getenv("EG_PURGE_OBJECTS") ? 1000 : 10000);
	cache_free(&cache);
}

static void *clean(void *cache)
{
	cache_clean_work(cache);
	return NULL;
}

/* What this thread spends on giving memory back, the work of the other one apart. */
static uint64_t clean_all(struct cache *cache, uint64_t *longest_us)
{
	uint64_t sum_us = 0;
	for (bool more = true; more;) {
		uint64_t from_us = cpu_us();
		more = cache_clean_begin(cache);
		uint64_t took_us = cpu_us() - from_us;
		pthread_t thread;
		assert_int_equal(pthread_create(&thread, NULL, clean, cache), 0);
		pthread_join(thread, NULL);
		from_us = cpu_us();
		assert_int_equal(cache_clean_end(cache), more);
		took_us += cpu_us() - from_us;
		sum_us += took_us;
		*longest_us = took_us > *longest_us ? took_us : *longest_us;
	}
	return sum_us;
}

static uint64_t cost_of(const char *what, const struct cache_tag_key *keys, size_t n_keys)
{
	size_t n = n_objects(), slices = 0;
	struct cache *cache = full_cache(n);
	uint64_t full = stats_of(cache).used_bytes, longest_us = 0;
	struct cache_purge one = {.all = n_keys == 0, .keys = keys, .n = n_keys};
	uint64_t start_us = cpu_us();
	cache_purge_begin(cache, &one);
	uint64_t begun_us = cpu_us() - start_us, slices_us = 0;
	for (bool done = false; !done; slices++) {
		assert_int_equal(is_there(cache, n - 1), 0);
		uint64_t slice_us = cpu_us();
		done = cache_purge_step(cache, &one, 256);
		slice_us = cpu_us() - slice_us;
		slices_us += slice_us;
		longest_us = slice_us > longest_us ? slice_us : longest_us;
	}
	uint64_t cleaned_us = clean_all(cache, &longest_us);
	struct cache_stats stats = stats_of(cache);
	printf("# %s of %zu: takes effect in %lu us, freed in %lu us (%zu slices), pages back in "
	       "%lu us, longest turn %lu us; %lu MB before, %lu KB after\n",
		what, n, (unsigned long)begun_us, (unsigned long)slices_us, slices,
		(unsigned long)cleaned_us,
		(unsigned long)(begun_us > longest_us ? begun_us : longest_us),
		(unsigned long)(full >> 20), (unsigned long)(stats.used_bytes >> 10));
	assert_in_range(one.purged, n - 1, n);
	assert_int_equal(stats.live_bytes, 0);
	/* Records of blocks are only dropped when everything goes; until then they are used again.
	 */
	assert_true(stats.used_bytes < full / (n_keys ? 5 : 10));
	assert_in_range(begun_us, 0, LIMIT_US);
	cache_free(&cache);
	return begun_us + slices_us + cleaned_us;
}

static void everything_costs_next_to_nothing(void **state)
{
	(void)state;
	struct cache_tag_key model = name_of("model:m");
	assert_in_range(cost_of("everything", NULL, 0), 0, LIMIT_US);
	cost_of("a model", &model, 1);
}

/* ---- Everything, while things are held ---- */

/* Random use beside purges of everything and cleaning on another thread: what is held stays as it
 * is, what is not is gone, and no account is ever wrong. */
static void what_is_held_outlives_everything(void **state)
{
	(void)state;
	enum { IDS = 3000, HELD = 64, ROUNDS = 60 };
	struct cache *cache = new_cache(2 * MIB);
	struct {
		struct cache_object *object;
		uint64_t id;
	} held[HELD] = {0};
	uint64_t pinned = 0;
	for (unsigned round = 0; round < ROUNDS; round++) {
		pthread_t thread;
		bool cleaning = round > 0 && cache_clean_begin(cache);
		if (cleaning)
			pthread_create(&thread, NULL, clean, cache);
		for (unsigned i = 0; i < 3000; i++) {
			uint64_t id = random_below(IDS);
			unsigned slot = random_below(HELD);
			if (random_below(3)) {
				put(cache, id, random_below(3000));
				continue;
			}
			struct span body;
			if (held[slot].object &&
				cache_object_form(held[slot].object, CACHE_BASE64, &body))
				assert_true(body_is(body, held[slot].id));
			if (held[slot].object && random_below(2)) {
				char *text = body_of(held[slot].id + 1, 900);
				cache_object_add_form(
					held[slot].object, CACHE_TEXT, (struct span){text, 900});
				free(text);
			}
			if (random_below(round % 5 + 1))
				continue;
			cache_object_unref(&held[slot].object);
			held[slot].object = random_below(4) ? get(cache, id) : make(cache, id, 700);
			held[slot].id = id;
		}
		uint64_t there = stats_of(cache).objects[CACHE_ELEMENT];
		assert_true(there > 100);
		assert_int_equal(purge_everything(cache), there);
		struct cache_stats stats = stats_of(cache);
		assert_int_equal(stats.live_bytes, 0);
		assert_int_equal(stats.objects[CACHE_ELEMENT], 0);
		assert_int_equal(stats.ghosts, 0);
		pinned = stats.pinned_bytes > pinned ? stats.pinned_bytes : pinned;
		for (unsigned i = 0; i < HELD; i++) {
			struct span body;
			if (!held[i].object)
				continue;
			assert_false(is_there(cache, held[i].id));
			assert_false(cache_object_is_current(held[i].object));
			assert_true(cache_object_form(held[i].object, CACHE_BASE64, &body));
			assert_true(body_is(body, held[i].id));
			if (cache_object_form(held[i].object, CACHE_TEXT, &body))
				assert_true(body_is(body, held[i].id + 1));
		}
		if (cleaning) {
			pthread_join(thread, NULL);
			assert_true(cache_clean_end(cache));
		}
	}
	assert_true(pinned > 10000);
	for (unsigned i = 0; i < HELD; i++)
		cache_object_unref(&held[i].object);
	uint64_t longest_us = 0;
	clean_all(cache, &longest_us);
	struct cache_stats stats = stats_of(cache);
	assert_int_equal(stats.pinned_bytes, 0);
	assert_int_equal(stats.outside_bytes, 0);
	assert_int_equal(arena_stats(cache_arena(cache)).live_bytes, 0);
	assert_true(stats.used_bytes < 64 << 10);
	cache_free(&cache);
}

/* As many as are kept in one go, and one more: then it goes in slices. */
static void many_that_are_held_stay(void **state)
{
	(void)state;
	enum { MOST = CACHE_MAX_HELD_AT_ONCE + 1 };
	static struct cache_object *held[MOST];
	for (size_t n = MOST - 1; n <= MOST; n++) {
		struct cache *cache = new_cache(16 * MIB);
		struct cache_tag_key red = name_of("red");
		for (uint64_t id = 0; id < 2 * n; id++)
			assert_int_equal(
				enter(cache, CACHE_ELEMENT, id, cache_purge_clock(cache), &red, 1),
				0);
		for (uint64_t id = 0; id < n; id++)
			held[id] = get(cache, 2 * id);
		struct cache_purge one = {.all = true};
		uint64_t start_us = cpu_us();
		cache_purge_begin(cache, &one);
		uint64_t begun_us = cpu_us() - start_us;
		assert_int_equal(one.purged, n < MOST ? 2 * n : 0);
		printf("# everything, %zu of it held: %lu us\n", n, (unsigned long)begun_us);
		for (uint64_t id = 0; id < 2 * n; id++)
			assert_false(is_there(cache, id));
		while (!cache_purge_step(cache, &one, 100))
			;
		assert_int_equal(stats_of(cache).purged, 2 * n);
		for (uint64_t id = 0; id < n; id++)
			cache_object_unref(&held[id]);
		assert_int_equal(stats_of(cache).pinned_bytes, 0);
		assert_int_equal(stats_of(cache).tags, 0);
		cache_free(&cache);
	}
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
		cmocka_unit_test(everything_costs_next_to_nothing),
		cmocka_unit_test(what_is_held_outlives_everything),
		cmocka_unit_test(many_that_are_held_stay),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
