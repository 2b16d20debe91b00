#include "cache_fixture.h"

static void an_object_is_found_as_it_was_put(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	struct cache_object_info spec = {
		.kind = CACHE_RESPONSE,
		.key = key_of(1),
		.stored_ms = 11,
		.fresh_from_ms = 12,
		.ttl_ms = 100,
		.grace_ms = 50,
		.prompt_tokens = 5,
		.total_tokens = 6,
		.model = SPAN_LITERAL("model-a"),
		.served_model = SPAN_LITERAL("model-a-2"),
		.headers = SPAN_LITERAL("x: y\r\n"),
		.n_elements = 3,
		.status = 200,
	};
	struct cache_object *object = cache_object_new(
		cache, &spec, CACHE_IDENTITY, SPAN_LITERAL("the body"), true);
	assert_int_equal(cache_insert(cache, object, 12), 0);
	assert_int_equal(cache_insert(cache, object, 12), 0);
	cache_object_unref(&object);
	assert_null(object);

	enum cache_freshness freshness;
	struct cache_object *found = cache_lookup(cache, &spec.key, 12, &freshness);
	const struct cache_object_info *info = cache_object_info(found);
	struct span body;
	assert_int_equal(freshness, CACHE_FRESH);
	assert_true(span_equal_str(info->model, "model-a"));
	assert_ptr_not_equal(info->model.data, spec.model.data);
	assert_true(span_equal_str(info->served_model, "model-a-2"));
	assert_true(span_equal_str(info->headers, "x: y\r\n"));
	assert_int_equal(info->stored_ms, 11);
	assert_int_equal(info->prompt_tokens, 5);
	assert_int_equal(info->total_tokens, 6);
	assert_int_equal(info->n_elements, 3);
	assert_int_equal(info->status, 200);
	assert_true(cache_object_form(found, CACHE_IDENTITY, &body));
	assert_true(span_equal_str(body, "the body"));
	uint64_t offset = cache_object_form_offset(found, CACHE_IDENTITY);
	assert_ptr_equal(arena_at(cache_arena(cache), offset), body.data);
	assert_false(cache_object_form(found, CACHE_GZIP, &body));
	assert_int_equal(cache_object_form_offset(found, CACHE_GZIP), ARENA_NONE);

	/* One key bit away is another object. */
	struct digest other = spec.key;
	other.bytes[31] ^= 1;
	assert_null(cache_lookup(cache, &other, 12, &freshness));

	struct cache_stats stats = stats_of(cache);
	assert_int_equal(stats.hits[CACHE_RESPONSE], 1);
	assert_int_equal(stats.misses, 1);
	assert_int_equal(stats.objects[CACHE_RESPONSE], 1);
	assert_int_equal(stats.objects[CACHE_ELEMENT], 0);
	assert_int_equal(stats.object_bytes[CACHE_RESPONSE], stats.live_bytes);
	assert_int_equal(stats.inserts, 1);

	assert_true(cache_remove(cache, &spec.key));
	assert_false(cache_remove(cache, &spec.key));
	assert_null(cache_lookup(cache, &spec.key, 12, &freshness));
	stats = stats_of(cache);
	assert_int_equal(stats.live_bytes, 0);
	assert_true(stats.pinned_bytes > 0);
	/* Purged, but in somebody's hands. */
	assert_true(cache_object_form(found, CACHE_IDENTITY, &body));
	assert_true(span_equal_str(body, "the body"));
	cache_object_unref(&found);
	assert_int_equal(stats_of(cache).pinned_bytes, 0);
	cache_free(&cache);
	assert_null(cache);
}

static void an_empty_body_is_a_body(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	assert_true(put(cache, 1, 0));
	struct cache_object *object = get(cache, 1);
	struct span body;
	assert_true(cache_object_form(object, CACHE_BASE64, &body));
	assert_int_equal(body.len, 0);
	assert_non_null(body.data);
	cache_object_unref(&object);
	cache_free(&cache);
}

static void time_decides_what_is_fresh(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	struct cache_object_info spec = {.kind = CACHE_ELEMENT,
		.key = key_of(1),
		.fresh_from_ms = 1000,
		.ttl_ms = 60,
		.grace_ms = 40};
	static const struct {
		uint64_t now_ms;
		enum cache_freshness freshness;
	} rows[] = {{0, CACHE_FRESH}, {1000, CACHE_FRESH}, {1059, CACHE_FRESH}, {1060, CACHE_STALE},
		{1099, CACHE_STALE}, {1050, CACHE_FRESH}, {1100, CACHE_ABSENT},
		{1050, CACHE_ABSENT}};
	struct cache_object *object = cache_object_new(
		cache, &spec, CACHE_BASE64, SPAN_LITERAL("x"), true);
	assert_int_equal(cache_insert(cache, object, 1000), 0);
	cache_object_unref(&object);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		enum cache_freshness freshness;
		bool there = rows[i].freshness != CACHE_ABSENT;
		assert_int_equal(cache_contains(cache, &spec.key, rows[i].now_ms), there);
		object = cache_lookup(cache, &spec.key, rows[i].now_ms, &freshness);
		assert_int_equal(freshness, rows[i].freshness);
		assert_int_equal(object != NULL, there);
		cache_object_unref(&object);
	}
	struct cache_stats stats = stats_of(cache);
	assert_int_equal(stats.expired, 1);
	assert_int_equal(stats.stale_hits, 2);
	assert_int_equal(stats.live_bytes, 0);

	/* The largest values do not wrap round. */
	spec.ttl_ms = UINT64_MAX - 1;
	spec.grace_ms = UINT64_MAX;
	enum cache_freshness freshness;
	object = cache_object_new(cache, &spec, CACHE_BASE64, SPAN_LITERAL("x"), true);
	assert_int_equal(cache_insert(cache, object, 0), 0);
	cache_object_unref(&object);
	object = cache_lookup(cache, &spec.key, UINT64_MAX, &freshness);
	assert_int_equal(freshness, CACHE_FRESH);
	cache_object_unref(&object);
	cache_free(&cache);
}

static void one_of_those_who_see_it_stale_refreshes(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	struct cache_object *object = make(cache, 1, 10);
	assert_true(cache_object_refresh_begin(object));
	assert_false(cache_object_refresh_begin(object));
	cache_object_refresh_end(object);
	assert_true(cache_object_refresh_begin(object));
	cache_object_unref(&object);
	cache_free(&cache);
}

static void a_newer_copy_takes_the_place(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	assert_true(put(cache, 1, 100));
	struct cache_object *old = get(cache, 1);
	struct cache_object *new = make(cache, 1, 200);
	assert_int_equal(cache_insert(cache, new, 0), 0);
	struct cache_object *found = get(cache, 1);
	assert_ptr_equal(found, new);
	assert_int_equal(stats_of(cache).objects[CACHE_ELEMENT], 1);
	struct span body;
	assert_true(cache_object_form(old, CACHE_BASE64, &body));
	assert_int_equal(body.len, 100);
	assert_true(body_is(body, 1));
	cache_object_unref(&old);
	cache_object_unref(&new);
	cache_object_unref(&found);
	cache_free(&cache);
}

static void objects_without_room_work_outside(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	/* Larger than a tenth of the budget. */
	struct cache_object *large = make(cache, 1, 200000);
	struct cache_object_info info = {.kind = CACHE_ELEMENT, .key = key_of(2)};
	struct cache_object *outside = cache_object_new(
		cache, &info, CACHE_BASE64, SPAN_LITERAL("small"), false);
	assert_int_equal(cache_object_form_offset(large, CACHE_BASE64), ARENA_NONE);
	assert_int_equal(cache_object_form_offset(outside, CACHE_BASE64), ARENA_NONE);
	assert_int_equal(cache_insert(cache, large, 0), -1);
	assert_int_equal(cache_insert(cache, outside, 0), -1);
	struct cache_stats stats = stats_of(cache);
	assert_int_equal(stats.refused, 2);
	assert_int_equal(stats.outside_bytes, 200005);
	assert_int_equal(stats.live_bytes, 0);
	/* Further forms too. */
	struct span body;
	assert_int_equal(cache_object_add_form(outside, CACHE_TEXT, SPAN_LITERAL("text")), 0);
	assert_true(cache_object_form(outside, CACHE_TEXT, &body));
	assert_true(span_equal_str(body, "text"));
	struct slice slice;
	assert_true(cache_object_slice(outside, CACHE_TEXT, &slice));
	cache_object_unref(&outside);
	cache_object_unref(&large);
	assert_memory_equal(slice.data, "text", slice.len_bytes);
	slice_release(&slice);
	assert_int_equal(stats_of(cache).outside_bytes, 0);
	cache_free(&cache);
}

static void what_is_held_is_passed_over_and_outlives_a_purge(void **state)
{
	(void)state;
	enum { HELD = 30 };
	struct cache *cache = new_cache(MIB);
	struct slice slices[HELD];
	for (unsigned i = 0; i < HELD; i++) {
		assert_true(put(cache, i, 8192));
		struct cache_object *object = get(cache, i);
		assert_true(cache_object_slice(object, CACHE_BASE64, &slices[i]));
		cache_object_unref(&object);
	}
	for (unsigned i = 1000; i < 2000; i++)
		assert_true(put(cache, i, 8192));
	struct cache_stats stats = stats_of(cache);
	assert_true(stats.evictions >= 900);
	assert_int_equal(stats.pinned_bytes, 0);
	assert_true(stats.used_bytes <= stats.budget_bytes);
	for (unsigned i = 0; i < HELD; i++)
		assert_true(use(cache, i, 8192));

	purge_everything(cache);
	assert_true(stats_of(cache).pinned_bytes >= HELD * 8192);
	for (unsigned i = 0; i < HELD; i++) {
		assert_true(body_is((struct span){slices[i].data, slices[i].len_bytes}, i));
		slice_release(&slices[i]);
	}
	assert_int_equal(stats_of(cache).pinned_bytes, 0);
	cache_free(&cache);
}

/* One request that holds ten times what the cache can hold. */
static void who_holds_too_much_does_not_push_out_the_others(void **state)
{
	(void)state;
	enum { HOT = 40, MANY = 1200 };
	struct cache *cache = new_cache(MIB);
	for (int round = 0; round < 4; round++)
		for (unsigned i = 0; i < HOT; i++)
			if (!use(cache, i, 8192))
				assert_true(put(cache, i, 8192));
	struct cache_object **held = calloc(MANY, sizeof(*held));
	for (unsigned i = 0; i < MANY; i++) {
		held[i] = make(cache, 1000 + i, 8192);
		cache_insert(cache, held[i], 0);
	}
	unsigned hot = 0;
	for (unsigned i = 0; i < HOT; i++)
		hot += use(cache, i, 8192);
	for (unsigned i = 0; i < MANY; i++)
		cache_object_unref(&held[i]);
	free(held);
	print_message("# %u of %d hot objects are left\n", hot, HOT);
	assert_true(hot >= HOT * 3 / 4);
	cache_free(&cache);
}

static void pinned_to_the_brim_it_still_makes_objects(void **state)
{
	(void)state;
	enum { MANY = 300 };
	struct cache *cache = new_cache(MIB);
	struct cache_object *held[MANY];
	unsigned kept = 0;
	for (unsigned i = 0; i < MANY; i++) {
		held[i] = make(cache, i, 8192);
		kept += cache_insert(cache, held[i], 0) == 0;
	}
	assert_in_range(kept, 90, 130);
	assert_true(stats_of(cache).refused == MANY - kept);
	for (unsigned i = 0; i < MANY; i++) {
		struct span body;
		assert_true(cache_object_form(held[i], CACHE_BASE64, &body));
		assert_true(body_is(body, i));
		cache_object_unref(&held[i]);
	}
	/* And it works again. */
	assert_true(put(cache, MANY, 8192));
	assert_true(use(cache, MANY, 8192));
	cache_free(&cache);
}

/* ---- Further forms ---- */

static void add_text(struct cache *cache, uint64_t id)
{
	struct cache_object *object = get(cache, id);
	char *text = body_of(id + 1, 20000);
	assert_int_equal(cache_object_add_form(object, CACHE_TEXT, (struct span){text, 20000}), 0);
	assert_int_equal(cache_object_add_form(object, CACHE_TEXT, (struct span){text, 20000}), 0);
	cache_object_unref(&object);
	free(text);
}

static bool has_text(struct cache *cache, uint64_t id)
{
	struct cache_object *object = get(cache, id);
	bool has = object && cache_object_form_offset(object, CACHE_TEXT) != ARENA_NONE;
	cache_object_unref(&object);
	return has;
}

static void further_forms_stay_and_go_first(void **state)
{
	(void)state;
	enum { FORMS = 20 };
	struct cache *cache = new_cache(MIB);
	for (unsigned i = 0; i < FORMS; i++) {
		assert_true(put(cache, i, 8192));
		add_text(cache, i);
	}
	for (unsigned i = 0; i < FORMS; i++)
		assert_true(has_text(cache, i));
	assert_int_equal(stats_of(cache).forms_added, FORMS);
	assert_int_equal(stats_of(cache).evictions, 0);

	/* One is being sent, one was asked for since. */
	struct cache_object *sent = get(cache, 0), *used = get(cache, 1);
	struct span text;
	assert_true(cache_object_form(sent, CACHE_TEXT, &text));
	struct span body;
	assert_true(cache_object_form(used, CACHE_TEXT, &body));
	cache_object_unref(&used);

	unsigned next = 1000;
	while (stats_of(cache).forms_dropped < FORMS / 2)
		assert_true(put(cache, next++, 8192));
	assert_int_equal(stats_of(cache).evictions, 0);
	assert_true(body_is(text, 1));
	assert_true(has_text(cache, 0));
	assert_true(has_text(cache, 1));
	assert_false(has_text(cache, 2));

	while (stats_of(cache).evictions == 0)
		assert_true(put(cache, next++, 8192));
	/* All are gone but the one in use. */
	assert_int_equal(stats_of(cache).forms_dropped, FORMS - 1);
	assert_true(body_is(text, 1));
	cache_object_unref(&sent);
	assert_true(put(cache, next++, 8192));
	assert_int_equal(stats_of(cache).forms_dropped, FORMS);
	purge_everything(cache);
	assert_int_equal(stats_of(cache).live_bytes, 0);
	assert_int_equal(stats_of(cache).pinned_bytes, 0);
	cache_free(&cache);
}

static void a_form_too_large_is_not_kept(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	assert_true(put(cache, 1, 1000));
	struct cache_object *object = get(cache, 1);
	char *text = body_of(1, 110000);
	struct span body;
	assert_int_equal(
		cache_object_add_form(object, CACHE_TEXT, (struct span){text, 110000}), -1);
	assert_false(cache_object_form(object, CACHE_TEXT, &body));
	free(text);
	cache_object_unref(&object);
	cache_free(&cache);
}

static void a_form_may_push_its_own_object_out(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	/* Held by us: evicting them gives no room, so all go, this one too. */
	struct cache_object *held[200];
	unsigned n = 0;
	while (n < 200) {
		held[n] = make(cache, n, 8192);
		if (cache_insert(cache, held[n], 0))
			break;
		n++;
	}
	cache_object_unref(&held[n]);
	char *text = body_of(1, 60000);
	struct span body;
	for (unsigned i = 0; i < n; i++) {
		int added = cache_object_add_form(held[i], CACHE_TEXT, (struct span){text, 60000});
		assert_int_equal(added == 0, cache_object_form(held[i], CACHE_TEXT, &body));
		assert_true(cache_object_form(held[i], CACHE_BASE64, &body));
		assert_true(body_is(body, i));
	}
	for (unsigned i = 0; i < n; i++)
		cache_object_unref(&held[i]);
	free(text);
	cache_free(&cache);
}

/* ---- Accounts ---- */

static uint64_t resident_bytes(void)
{
	unsigned long pages;
	FILE *file = fopen("/proc/self/statm", "r");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*u %lu", &pages), 1);
	fclose(file);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void the_accounts_are_true(void **state)
{
	(void)state;
	enum { BUDGET = 32 * MIB };
	static const size_t lengths[][2] = {{8192, 8193}, {100, 400}, {500, 40000}};
	for (int row = 0; row < 3; row++) {
		size_t malloced_before = mallinfo2().uordblks;
		uint64_t resident_before = resident_bytes();
		struct cache *cache = new_cache(BUDGET);
		for (uint64_t i = 0; stats_of(cache).evictions < 20000; i++) {
			size_t least = lengths[row][0], most = lengths[row][1];
			assert_true(put(cache, i, least + random_below((uint32_t)(most - least))));
			struct cache_object *object = get(cache, random_below((uint32_t)i + 1));
			cache_object_unref(&object);
		}
		struct cache_stats stats = stats_of(cache);
		uint64_t real = resident_bytes() - resident_before;
		size_t malloced = mallinfo2().uordblks - malloced_before;
		print_message("# %zu to %zu bytes: used %llu KiB of %u told, %llu real\n",
			lengths[row][0], lengths[row][1],
			(unsigned long long)stats.used_bytes >> 10, BUDGET >> 10,
			(unsigned long long)real >> 10);
		assert_true(stats.used_bytes <= BUDGET);
		assert_true(stats.used_bytes > BUDGET / 10 * 9);
		assert_int_equal(stats.pinned_bytes, 0);
		/* A sanitizer's or valgrind's malloc tells nothing. */
		if (malloced) {
			uint64_t told = stats.used_bytes;
			assert_in_range(real, told / 10 * 9, told / 10 * 11);
		}
		cache_free(&cache);
	}
}

static void small_budgets_are_refused(void **state)
{
	(void)state;
	struct cache_options options = {.budget_bytes = CACHE_MIN_BUDGET_BYTES - 1};
	assert_null(cache_new(&options));
}

/* Everything at random, against a list of what should be there. */
static void random_use_keeps_its_promises(void **state)
{
	(void)state;
	enum { IDS = 2000, HELD = 50, STEPS = 200000 };
	struct cache *cache = new_cache(MIB);
	struct {
		struct cache_object *object;
		uint64_t id;
	} held[HELD] = {0};
	for (unsigned step = 0; step < STEPS; step++) {
		uint64_t id = random_below(IDS);
		unsigned slot = random_below(HELD);
		struct digest key = key_of(id);
		struct span body;
		switch (random_below(8)) {
		case 0:
		case 1:
			put(cache, id, random_below(3000));
			break;
		case 2:
			cache_remove(cache, &key);
			assert_false(cache_contains(cache, &key, 0));
			break;
		case 3:
			if (held[slot].object) {
				char *text = body_of(held[slot].id + 1, 3000);
				cache_object_add_form(
					held[slot].object, CACHE_TEXT, (struct span){text, 3000});
				free(text);
			}
			break;
		default:
			if (held[slot].object) {
				struct cache_object *object = held[slot].object;
				assert_true(cache_object_form(object, CACHE_BASE64, &body));
				assert_true(body_is(body, held[slot].id));
				if (cache_object_form(object, CACHE_TEXT, &body))
					assert_true(body_is(body, held[slot].id + 1));
				cache_object_unref(&held[slot].object);
			}
			held[slot].object = get(cache, id);
			held[slot].id = id;
			break;
		}
		if (step % 1000 == 0) {
			struct cache_stats stats = stats_of(cache);
			assert_true(stats.used_bytes <= stats.budget_bytes);
			assert_int_equal(stats.live_bytes, stats.object_bytes[CACHE_ELEMENT]);
		}
	}
	assert_true(stats_of(cache).evictions > 1000);
	assert_true(stats_of(cache).forms_dropped > 100);
	for (unsigned i = 0; i < HELD; i++)
		cache_object_unref(&held[i].object);
	struct cache_stats stats = stats_of(cache);
	assert_int_equal(stats.pinned_bytes, 0);
	assert_int_equal(purge_everything(cache), stats.objects[CACHE_ELEMENT]);
	stats = stats_of(cache);
	assert_int_equal(stats.live_bytes, 0);
	assert_int_equal(arena_stats(cache_arena(cache)).live_bytes, 0);
	cache_free(&cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_object_is_found_as_it_was_put),
		cmocka_unit_test(an_empty_body_is_a_body),
		cmocka_unit_test(time_decides_what_is_fresh),
		cmocka_unit_test(one_of_those_who_see_it_stale_refreshes),
		cmocka_unit_test(a_newer_copy_takes_the_place),
		cmocka_unit_test(objects_without_room_work_outside),
		cmocka_unit_test(what_is_held_is_passed_over_and_outlives_a_purge),
		cmocka_unit_test(who_holds_too_much_does_not_push_out_the_others),
		cmocka_unit_test(pinned_to_the_brim_it_still_makes_objects),
		cmocka_unit_test(further_forms_stay_and_go_first),
		cmocka_unit_test(a_form_too_large_is_not_kept),
		cmocka_unit_test(a_form_may_push_its_own_object_out),
		cmocka_unit_test(the_accounts_are_true),
		cmocka_unit_test(small_budgets_are_refused),
		cmocka_unit_test(random_use_keeps_its_promises),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
