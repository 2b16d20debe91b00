/* How much of the arena is of use in the cache as it runs: what S3-FIFO takes out lies anywhere,
 * and some of what lies there cannot move. */
#include "cache_fixture.h"

#define BUDGET       (64u * MIB)
#define IDS          60000
#define INSERTS      60000
#define PINNED_SHARE 20 /* one of so many objects: 5 % */

struct shift {
	uint32_t before_bytes, after_bytes; /* means; a fifth up and down */
	bool pinned;
};

static uint32_t length_near(uint32_t mean)
{
	return mean * 9 / 10 + random_below(mean / 5);
}

/* Popular ids are small: the third power of a random number. */
static uint64_t some_id(void)
{
	double x = random_below(1u << 30) / (double)(1u << 30);
	return (uint64_t)(x * x * x * IDS);
}

/*
 * Requests for popular and for less popular objects; what is missing is put in. The mean size
 * shifts in the middle third. The least share of the arena that was live when an insert had to
 * evict.
 */
static double least_live(const struct shift *shift)
{
	struct cache *cache = new_cache(BUDGET);
	struct cache_object **held = calloc(INSERTS, sizeof *held);
	const char **where = calloc(INSERTS, sizeof *where); /* is the body of what is held */
	size_t n_held = 0, first_held = 0;
	uint64_t held_bytes = 0;
	double least = 1;
	size_t evictions_seen = 0;
	random_state = 11;
	for (uint32_t i = 0; i < INSERTS;) {
		enum cache_freshness freshness;
		uint64_t id = some_id();
		struct digest key = key_of(id);
		struct cache_object *found = cache_lookup(cache, &key, 0, &freshness);
		if (found) {
			struct span body;
			assert_true(cache_object_form(found, CACHE_BASE64, &body));
			assert_true(random_below(16) || body_is(body, id)); /* wherever it is now */
			cache_object_unref(&found);
			continue;
		}
		bool after = random_below(INSERTS / 3) + INSERTS / 3 < i;
		struct arena_stats before = arena_stats(cache_arena(cache));
		uint64_t evictions = stats_of(cache).evictions;
		struct cache_object *object = make(
			cache, id, length_near(after ? shift->after_bytes : shift->before_bytes));
		cache_insert(cache, object, 0); /* rarely refused: all it looks at is held */
		if (stats_of(cache).evictions > evictions) {
			double live = (double)before.live_bytes / (double)before.size_bytes;
			least = live < least ? live : least;
			evictions_seen++;
		}
		if (shift->pinned && i % PINNED_SHARE == 0) {
			struct span body;
			assert_true(cache_object_form(object, CACHE_BASE64, &body));
			where[n_held] = body.data;
			held[n_held++] = cache_object_ref(object);
			held_bytes += arena_rounded(
				after ? shift->after_bytes : shift->before_bytes);
		}
		while (held_bytes > BUDGET / PINNED_SHARE) {
			/* As clients come and go: some go soon, some late. */
			size_t at = first_held + random_below((uint32_t)(n_held - first_held));
			struct cache_object *gone = held[at];
			struct span body;
			assert_true(cache_object_form(gone, CACHE_BASE64, &body));
			assert_ptr_equal(body.data, where[at]);
			held[at] = held[first_held];
			where[at] = where[first_held];
			held[first_held++] = gone;
			held_bytes -= arena_rounded(body.len) < held_bytes ? arena_rounded(body.len)
									   : held_bytes;
			cache_object_unref(&gone);
		}
		cache_object_unref(&object);
		i++;
	}
	while (first_held < n_held)
		cache_object_unref(&held[first_held++]);
	assert_true(evictions_seen > INSERTS / 2);
	struct cache_stats s = stats_of(cache);
	printf("# %u to %u bytes%s: %.1f %% live at least, %zu inserts had to evict, %.2f "
	       "evictions each, %lu refused\n",
		shift->before_bytes, shift->after_bytes, shift->pinned ? ", 5 % pinned" : "",
		least * 100, evictions_seen, (double)s.evictions / (double)evictions_seen,
		(unsigned long)s.refused);
	assert_true(s.refused < INSERTS / 100);
	free(held);
	free(where);
	cache_free(&cache);
	return least;
}

static void most_of_the_arena_is_live(void **state)
{
	(void)state;
	const struct shift shifts[] = {
		{8300, 8300, false},
		{8300, 16500, false},
		{8300, 16500, true},
		{16500, 8300, true},
		{8300, 33000, true},
	};
	for (size_t i = 0; i < sizeof shifts / sizeof shifts[0]; i++)
		assert_true(least_live(&shifts[i]) >= 0.85);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(most_of_the_arena_is_live),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
