/* Which objects stay: against S3-FIFO written once more, and under scans. */
#include "cache_fixture.h"

/* ---- S3-FIFO ---- */

/*
 * S3-FIFO once more, for objects of one size, as plainly as it can be said: queues are arrays of
 * ids with the oldest first.
 */
struct fifo {
	uint32_t *ids;
	size_t first, end;
};
enum place { NOWHERE, SMALL, MAIN };
struct simulation {
	size_t capacity;
	struct fifo small, main, ghost;
	uint8_t *place, *freq, *in_ghost;
};

static size_t fifo_len(const struct fifo *f)
{
	return f->end - f->first;
}

static void simulation_init(struct simulation *s, size_t capacity, size_t ids, size_t requests)
{
	s->capacity = capacity;
	struct fifo *fifos[] = {&s->small, &s->main, &s->ghost};
	for (int i = 0; i < 3; i++)
		*fifos[i] = (struct fifo){.ids = malloc(requests * 8 * sizeof(uint32_t))};
	s->place = calloc(ids, 1);
	s->freq = calloc(ids, 1);
	s->in_ghost = calloc(ids, 1);
}

static void simulation_free(struct simulation *s)
{
	free(s->small.ids);
	free(s->main.ids);
	free(s->ghost.ids);
	free(s->place);
	free(s->freq);
	free(s->in_ghost);
}

static void simulate_evict_main(struct simulation *s)
{
	while (fifo_len(&s->main)) {
		uint32_t id = s->main.ids[s->main.first++];
		if (s->freq[id] == 0) {
			s->place[id] = NOWHERE;
			return;
		}
		s->freq[id]--;
		s->main.ids[s->main.end++] = id;
	}
}

static void simulate_evict_small(struct simulation *s)
{
	while (fifo_len(&s->small)) {
		uint32_t id = s->small.ids[s->small.first++];
		if (s->freq[id] < 2) {
			s->place[id] = NOWHERE;
			s->ghost.ids[s->ghost.end++] = id;
			s->in_ghost[id]++;
			if (fifo_len(&s->ghost) > s->capacity * 9 / 10)
				s->in_ghost[s->ghost.ids[s->ghost.first++]]--;
			return;
		}
		s->place[id] = MAIN;
		s->freq[id] = 0;
		s->main.ids[s->main.end++] = id;
		if (fifo_len(&s->main) > s->capacity * 9 / 10)
			simulate_evict_main(s);
	}
}

static bool simulate(struct simulation *s, uint32_t id)
{
	if (s->place[id] != NOWHERE) {
		s->freq[id] = s->freq[id] < 3 ? s->freq[id] + 1 : 3;
		return true;
	}
	while (fifo_len(&s->small) + fifo_len(&s->main) >= s->capacity) {
		if (fifo_len(&s->small) >= s->capacity / 10)
			simulate_evict_small(s);
		else
			simulate_evict_main(s);
	}
	s->freq[id] = 0;
	if (s->in_ghost[id]) {
		s->place[id] = MAIN;
		s->main.ids[s->main.end++] = id;
	} else {
		s->place[id] = SMALL;
		s->small.ids[s->small.end++] = id;
	}
	return false;
}

/* Ids by Zipf's law with this exponent: the table says up to which number each id comes. */
static uint32_t *zipf_table(uint32_t ids, double exponent)
{
	uint32_t *table = malloc(ids * sizeof *table);
	double sum = 0, so_far = 0;
	for (uint32_t i = 0; i < ids; i++)
		sum += pow(i + 1, -exponent);
	for (uint32_t i = 0; i < ids; i++) {
		so_far += pow(i + 1, -exponent);
		table[i] = (uint32_t)fmin(so_far / sum * 1e9, 1e9);
	}
	return table;
}

static uint32_t zipf_id(const uint32_t *table, uint32_t ids)
{
	uint32_t wanted = random_below(1000000000), low = 0, high = ids - 1;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (table[middle] > wanted)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* How many objects of this size fit. */
static size_t objects_that_fit(uint64_t budget_bytes, size_t len)
{
	struct cache *cache = new_cache(budget_bytes);
	for (uint64_t i = 0; stats_of(cache).evictions < 3000; i++)
		assert_true(put(cache, i, len));
	size_t n = stats_of(cache).objects[CACHE_ELEMENT];
	cache_free(&cache);
	return n;
}

static void hits_as_often_as_s3_fifo(void **state)
{
	(void)state;
	enum { IDS = 40000, REQUESTS = 300000, LEN = 1000, BUDGET = 4 * MIB };
	size_t capacity = objects_that_fit(BUDGET, LEN);
	assert_in_range(capacity, 2000, 4000);
	static const double exponents[] = {0.7, 1.0, 1.2};
	for (int e = 0; e < 3; e++) {
		struct cache *cache = new_cache(BUDGET);
		struct simulation simulation;
		simulation_init(&simulation, capacity, IDS, REQUESTS);
		uint32_t *table = zipf_table(IDS, exponents[e]);
		unsigned hits = 0, expected = 0;
		for (unsigned i = 0; i < REQUESTS; i++) {
			uint32_t id = zipf_id(table, IDS);
			hits += use(cache, id, LEN);
			expected += simulate(&simulation, id);
		}
		double ratio = 100.0 * hits / REQUESTS, wanted = 100.0 * expected / REQUESTS;
		print_message("# Zipf %.1f: %.2f %% hits, S3-FIFO %.2f %%\n", exponents[e], ratio,
			wanted);
		assert_true(fabs(ratio - wanted) < 2);
		assert_true(stats_of(cache).ghost_hits > 0);
		assert_true(stats_of(cache).ghosts <= capacity);
		free(table);
		simulation_free(&simulation);
		cache_free(&cache);
	}
}

static double hot_hits(struct cache *cache, const uint32_t *table, unsigned requests, size_t len,
	uint64_t *scan, unsigned scanned_each)
{
	unsigned hits = 0;
	for (unsigned i = 0; i < requests; i++) {
		hits += use(cache, zipf_id(table, 4000), len);
		for (unsigned k = 0; k < scanned_each; k++)
			use(cache, 1000000 + (*scan)++, len);
	}
	return 100.0 * hits / requests;
}

static void a_scan_leaves_the_hot_set_alone(void **state)
{
	(void)state;
	enum { LEN = 1000, BUDGET = 4 * MIB };
	struct cache *cache = new_cache(BUDGET);
	uint32_t *table = zipf_table(4000, 1.0);
	uint64_t scan = 0;
	size_t ten_budgets = 10 * BUDGET / LEN;
	hot_hits(cache, table, 100000, LEN, &scan, 0);
	double before = hot_hits(cache, table, 50000, LEN, &scan, 0);
	/* A re-index at the side of the usual traffic, then one all alone. */
	double beside = hot_hits(cache, table, (unsigned)ten_budgets, LEN, &scan, 1);
	assert_int_equal(scan, ten_budgets);
	hot_hits(cache, table, 50000, LEN, &scan, 0);
	while (scan < 2 * ten_budgets)
		use(cache, 1000000 + scan++, LEN);
	double after = hot_hits(cache, table, 5000, LEN, &scan, 0);
	print_message("# hot hits: %.2f %% before, %.2f %% during a scan, %.2f %% after one\n",
		before, beside, after);
	assert_true(before > 80);
	assert_true(before - beside < 5);
	assert_true(before - after < 5);
	free(table);
	cache_free(&cache);
}

static void what_comes_back_soon_goes_to_main(void **state)
{
	(void)state;
	struct cache *cache = new_cache(MIB);
	assert_true(put(cache, 1, 8192));
	unsigned next = 1000;
	while (stats_of(cache).evictions < 2)
		assert_true(put(cache, next++, 8192));
	struct digest key = key_of(1);
	assert_false(cache_contains(cache, &key, 0));
	assert_int_equal(stats_of(cache).main_bytes, 0);
	assert_true(put(cache, 1, 8192));
	assert_int_equal(stats_of(cache).ghost_hits, 1);
	assert_true(stats_of(cache).main_bytes >= 8192);
	/* A newer copy stays there. */
	assert_true(put(cache, 1, 8000));
	assert_true(stats_of(cache).main_bytes >= 8000);
	assert_int_equal(stats_of(cache).ghost_hits, 1);
	cache_free(&cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hits_as_often_as_s3_fifo),
		cmocka_unit_test(a_scan_leaves_the_hot_set_alone),
		cmocka_unit_test(what_comes_back_soon_goes_to_main),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
