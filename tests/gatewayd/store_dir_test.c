#include "store_fixture.h"

/* ---- Names ---- */

static void names_are_what_is_written_everywhere(void **state)
{
	(void)state;
	static const char hex[] =
		"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
	char name[STORE_NAME_BYTES], expected[200];
	struct digest key = digest_of(SPAN_LITERAL("test")), back;
	snprintf(expected, sizeof expected, "embeddings/%s.json.gz", hex);
	assert_int_equal(store_object_name("", &key, name), strlen(expected));
	assert_string_equal(name, expected);
	snprintf(expected, sizeof expected, "mock/embeddings/%s.json.gz", hex);
	assert_int_equal(store_object_name("mock/", &key, name), strlen(expected));
	assert_string_equal(name, expected);

	snprintf(expected, sizeof expected, "%s.json.gz", hex);
	assert_int_equal(store_object_key(span_of(expected), &back), 0);
	assert_true(digest_equal(&key, &back));
	for (size_t cut = 0; cut < strlen(expected); cut++)
		assert_int_equal(store_object_key((struct span){expected, cut}, &back), -1);
	expected[0] = 'g';
	assert_int_equal(store_object_key(span_of(expected), &back), -1);
	expected[0] = 'A';
	assert_int_equal(store_object_key(span_of(expected), &back), -1);
	snprintf(expected, sizeof expected, "%s.json.xz", hex);
	assert_int_equal(store_object_key(span_of(expected), &back), -1);
}

/* ---- The happy path ---- */

static void what_is_put_is_found_also_after_a_restart(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MAX];
	struct stat st;
	f->store = open_store(f, "", 0);
	assert_string_equal(store_kind(f->store), "dir");
	assert_int_equal(get(f, f->store, 1).result, STORE_MISS);
	for (unsigned id = 1; id <= 3; id++)
		assert_true(put(f->store, id, 1536));
	assert_int_equal(store_puts_pending(f->store), 3);
	assert_true(store_put_bytes_pending(f->store) > 3 * 8192);
	wait_until(f, puts_are_over);
	assert_int_equal(store_put_bytes_pending(f->store), 0);
	for (int round = 0; round < 2; round++) {
		for (unsigned id = 1; id <= 3; id++) {
			struct answer a = get(f, f->store, id);
			assert_int_equal(a.result, STORE_FOUND);
			assert_true(a.whole);
		}
		assert_int_equal(get(f, f->store, 4).result, STORE_MISS);
		const struct store_stats *stats = store_stats(f->store);
		assert_int_equal(stats->hits, 3);
		assert_int_equal(stats->misses, round ? 1 : 2);
		assert_int_equal(stats->puts, round ? 0 : 3);
		assert_true(stats->read_bytes > 0);
		stop_loop(f);
		start_loop(f, 1000);
		f->store = open_store(f, "", 0);
	}
	path_of(f, "", 1, path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 077, 0);
	assert_int_equal(files_in_tmp(f), 0);
}

static void mock_and_real_never_meet(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "mock/", 0);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	assert_int_equal(get(f, f->store, 1).result, STORE_FOUND);
	store_free(&f->store);
	f->store = open_store(f, "", 0);
	assert_int_equal(get(f, f->store, 1).result, STORE_MISS);
}

static void a_later_put_replaces(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "", 0);
	assert_true(put(f->store, 1, 8));
	assert_true(put(f->store, 1, 16));
	wait_until(f, puts_are_over);
	assert_int_equal(store_stats(f->store)->puts, 2);
	assert_true(get(f, f->store, 1).whole);
}

static void synced_puts_are_stored_too(void **state)
{
	struct fixture *f = *state;
	struct store_dir_options options = {.dir = f->dir,
		.prefix = "",
		.fsync = STORE_FSYNC_FULL,
		.janitor_interval_ms = UINT32_MAX};
	f->store = store_dir_new(f->loop, f->workers, &options);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	assert_int_equal(store_stats(f->store)->puts, 1);
	assert_true(get(f, f->store, 1).whole);
}

static void a_hit_renews_the_age_once_a_day(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MAX];
	struct stat st;
	f->store = open_store(f, "", 0);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	path_of(f, "", 1, path);
	set_age(path, DAY_S - 100);
	assert_int_equal(get(f, f->store, 1).result, STORE_FOUND);
	assert_int_equal(stat(path, &st), 0);
	assert_in_range(time(NULL) - st.st_mtime, DAY_S - 100, DAY_S);
	set_age(path, DAY_S + 100);
	assert_int_equal(get(f, f->store, 1).result, STORE_FOUND);
	assert_int_equal(stat(path, &st), 0);
	assert_in_range(time(NULL) - st.st_mtime + 1, 0, TIMEOUT_S + 1);
}

/* ---- Many at a time, and the end ---- */

static void many_gets_and_puts_of_two_stores_at_a_time(void **state)
{
	enum { OBJECTS = 300 };
	struct fixture *f = *state;
	struct store *other = open_store(f, "", 0);
	f->store = open_store(f, "", 0);
	static struct answer answers[2][OBJECTS];
	memset(answers, 0, sizeof answers);
	unsigned waiting = 0;
	for (unsigned id = 0; id < OBJECTS; id++) {
		assert_true(put(id % 2 ? f->store : other, id, 256));
		/* The same one by both, too. */
		assert_true(put(id % 2 ? other : f->store, id / 3, 256));
		for (int i = 0; i < 2; i++) {
			struct digest key = key_of(id);
			answers[i][id] = (struct answer){.f = f, .id = id, .waiting = &waiting};
			waiting++;
			assert_non_null(store_get_start(
				i ? f->store : other, &key, on_get, &answers[i][id]));
		}
	}
	loop_run(f->loop);
	/* Found or not, as it came: but never broken. */
	for (unsigned id = 0; id < OBJECTS; id++) {
		for (int i = 0; i < 2; i++)
			assert_int_equal(answers[i][id].result,
				answers[i][id].whole ? STORE_FOUND : STORE_MISS);
	}
	wait_until(f, puts_are_over);
	struct store *mine = f->store;
	f->store = other;
	wait_until(f, puts_are_over);
	f->store = mine;
	for (unsigned id = 0; id < OBJECTS; id++)
		assert_true(get(f, f->store, id).whole);
	assert_int_equal(store_stats(f->store)->corrupt + store_stats(other)->corrupt, 0);
	store_free(&other);
	assert_int_equal(files_in_tmp(f), 0);
}

static void draining_waits_for_all_puts(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "", 0);
	for (unsigned id = 0; id < 100; id++)
		assert_true(put(f->store, id, 100));
	store_drain(f->store, on_drained, f);
	assert_int_equal(store_puts_pending(f->store), 100);
	assert_false(put(f->store, 100, 100));
	loop_run(f->loop);
	assert_int_equal(store_stats(f->store)->puts, 100);
	assert_int_equal(store_stats(f->store)->puts_dropped, 1);
	assert_true(get(f, f->store, 99).whole);
}

static void draining_what_is_empty_ends_too(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "", 0);
	store_drain(f->store, on_drained, f);
	loop_run(f->loop);
}

static void the_queue_is_bounded(void **state)
{
	struct fixture *f = *state;
	struct store_dir_options options = {.dir = f->dir,
		.prefix = "",
		.max_queued_puts = 5,
		.max_queued_bytes = 2000,
		.janitor_interval_ms = UINT32_MAX};
	f->store = store_dir_new(f->loop, f->workers, &options);
	for (unsigned id = 0; id < 7; id++)
		assert_int_equal(put(f->store, id, 8), id < 5);
	assert_int_equal(store_stats(f->store)->puts_dropped, 2);
	wait_until(f, puts_are_over);
	assert_true(put(f->store, 10, 200));
	assert_true(put(f->store, 11, 100));
	assert_false(put(f->store, 12, 100));
	assert_true(put(f->store, 13, 8));
	wait_until(f, puts_are_over);
	assert_int_equal(store_stats(f->store)->puts, 8);
}

static void busy_threads_refuse_gets_and_delay_puts(void **state)
{
	struct fixture *f = *state;
	stop_loop(f);
	start_loop(f, 1);
	f->store = open_store(f, "", 0);
	static struct answer answers[200];
	memset(answers, 0, sizeof answers);
	unsigned waiting = 0, refused = 0;
	for (unsigned id = 0; id < 200; id++) {
		struct digest key = key_of(id);
		answers[id] = (struct answer){.f = f, .id = id, .waiting = &waiting};
		if (store_get_start(f->store, &key, on_get, &answers[id]))
			waiting++;
		else
			refused++;
		put(f->store, id, 8);
	}
	assert_true(refused > 0);
	assert_int_equal(store_gets_pending(f->store), waiting);
	assert_int_equal(store_stats(f->store)->get_errors, refused);
	loop_run(f->loop);
	wait_until(f, puts_are_over);
	assert_int_equal(store_stats(f->store)->puts, 200);
	assert_int_equal(store_stats(f->store)->put_errors, 0);
}

static void not_to_be_called(enum store_result result, struct stored_object *object, void *arg)
{
	(void)result;
	(void)object;
	(void)arg;
	fail_msg("cancelled, and yet called");
}

static bool threads_are_idle(struct fixture *f)
{
	return workers_pending(f->workers) == 0;
}

static void cancelled_gets_stay_silent(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "", 0);
	assert_true(put(f->store, 1, 1536));
	wait_until(f, puts_are_over);
	for (unsigned i = 0; i < 50; i++) {
		struct digest key = key_of(i % 2);
		struct store_get *one = store_get_start(f->store, &key, not_to_be_called, NULL);
		assert_non_null(one);
		store_get_cancel(&one);
		assert_null(one);
		store_get_cancel(&one);
	}
	assert_int_equal(store_gets_pending(f->store), 0);
	wait_until(f, threads_are_idle);
	assert_int_equal(store_stats(f->store)->hits, 25);
}

static void a_store_freed_at_work_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "", 1 << 20);
	for (unsigned id = 0; id < 100; id++) {
		struct digest key = key_of(id);
		assert_true(put(f->store, id, 1536));
		assert_non_null(store_get_start(f->store, &key, not_to_be_called, NULL));
	}
	store_dir_clean(f->store, NULL, NULL);
	store_drain(f->store, on_drained, f);
	store_free(&f->store);
	assert_null(f->store);
	wait_until(f, threads_are_idle);
	/* And once more, with threads that end before the loop turns. */
	f->store = open_store(f, "", 1 << 20);
	for (unsigned id = 0; id < 100; id++)
		assert_true(put(f->store, id, 8));
	store_dir_clean(f->store, NULL, NULL);
}

static void free_the_store(enum store_result result, struct stored_object *object, void *arg)
{
	struct fixture *f = arg;
	(void)result;
	(void)object;
	/* Whichever comes first: the other one does not come any more. */
	assert_non_null(f->store);
	store_free(&f->store);
	loop_stop(f->loop);
}

static void a_store_may_be_freed_by_its_callback(void **state)
{
	struct fixture *f = *state;
	struct digest key = key_of(1);
	f->store = open_store(f, "", 0);
	assert_non_null(store_get_start(f->store, &key, free_the_store, f));
	assert_non_null(store_get_start(f->store, &key, free_the_store, f));
	loop_run(f->loop);
	assert_null(f->store);
	wait_until(f, threads_are_idle);
}

static void on_result(enum store_result result, struct stored_object *object, void *arg)
{
	struct answer *a = arg;
	(void)object;
	a->result = result;
	loop_stop(a->f->loop);
}

static enum store_result get_and_ask(struct fixture *f, unsigned id, unsigned legacy_id)
{
	struct answer a = {.f = f};
	struct digest key = key_of(id), legacy_key = key_of(legacy_id);
	struct store_look look = {.legacy_key = &legacy_key, .layout = STORE_LAYOUT_HASHED};
	assert_non_null(store_get_start_with(f->store, &key, &look, on_result, &a));
	loop_run(f->loop);
	return a.result;
}

static void a_miss_tells_of_the_legacy_object_too(void **state)
{
	struct fixture *f = *state;
	char name[STORE_NAME_BYTES], path[PATH_MAX];
	struct digest legacy_key = key_of(2);
	f->store = open_store(f, "", 0);
	assert_int_equal(get_and_ask(f, 1, 2), STORE_MISS_BOTH);
	assert_int_equal(store_stats(f->store)->misses, 1);
	assert_int_equal(store_stats(f->store)->legacy_misses, 1);
	store_legacy_name(STORE_LAYOUT_HASHED, &legacy_key, name);
	snprintf(path, sizeof path, "%s/%.4s", f->dir, name);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(get_and_ask(f, 1, 2), STORE_MISS_BOTH);
	snprintf(path, sizeof path, "%s/%s", f->dir, name);
	write_file(path, "{}", 2);
	assert_int_equal(get_and_ask(f, 1, 2), STORE_MISS);
	assert_int_equal(store_stats(f->store)->legacy_misses, 2);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	assert_int_equal(get_and_ask(f, 1, 3), STORE_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_what_is_written_everywhere),
		TEST(what_is_put_is_found_also_after_a_restart),
		TEST(a_miss_tells_of_the_legacy_object_too),
		TEST(mock_and_real_never_meet),
		TEST(a_later_put_replaces),
		TEST(synced_puts_are_stored_too),
		TEST(a_hit_renews_the_age_once_a_day),
		TEST(many_gets_and_puts_of_two_stores_at_a_time),
		TEST(draining_waits_for_all_puts),
		TEST(draining_what_is_empty_ends_too),
		TEST(the_queue_is_bounded),
		TEST(busy_threads_refuse_gets_and_delay_puts),
		TEST(cancelled_gets_stay_silent),
		TEST(a_store_freed_at_work_leaves_nothing),
		TEST(a_store_may_be_freed_by_its_callback),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
