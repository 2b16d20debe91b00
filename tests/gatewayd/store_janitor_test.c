#include "store_fixture.h"

/* ---- The janitor ---- */

struct cleaning {
	struct fixture *f;
	bool ran;
};

static void on_clean(bool ran, void *arg)
{
	struct cleaning *c = arg;
	c->ran = ran;
	loop_stop(c->f->loop);
}

static bool clean(struct fixture *f)
{
	struct cleaning c = {.f = f};
	store_dir_clean(f->store, on_clean, &c);
	loop_run(f->loop);
	return c.ran;
}

static void the_longest_unused_go_first(void **state)
{
	enum { OBJECTS = 100, CAP = 512 << 10 };
	struct fixture *f = *state;
	char path[PATH_MAX];
	uint64_t total = 0;
	struct stat st;
	f->store = open_store(f, "", 0);
	for (unsigned id = 0; id < OBJECTS; id++)
		assert_true(put(f->store, id, 1536));
	wait_until(f, puts_are_over);
	store_free(&f->store);
	/* The higher the id, the longer ago, by a fifth each. Incompressible, so 8 KiB on disk. */
	uint8_t bytes[6000];
	digest_random(bytes, sizeof bytes);
	double age = 10;
	for (unsigned id = 0; id < OBJECTS; id++, age *= 1.15) {
		path_of(f, "", id, path);
		write_file(path, bytes, sizeof bytes);
		set_age(path, (int64_t)age);
		assert_int_equal(stat(path, &st), 0);
		uint64_t blocks = (uint64_t)st.st_blocks * 512;
		total += blocks > sizeof bytes ? blocks : sizeof bytes;
	}
	/* What is not ours. */
	snprintf(path, sizeof path, "%s/embeddings/README", f->dir);
	write_file(path, bytes, sizeof bytes);
	set_age(path, 1000 * DAY_S);

	f->store = open_store(f, "", CAP);
	assert_true(total > CAP);
	assert_true(clean(f));
	const struct store_janitor_stats *stats = store_dir_janitor_stats(f->store);
	assert_int_equal(stats->runs, 1);
	assert_in_range(stats->bytes, CAP / 10 * 9 - 2 * 8192, CAP / 10 * 9);
	assert_int_equal(stats->bytes + stats->evicted_bytes, total);
	assert_int_equal(stats->objects + stats->evicted_objects, OBJECTS);
	for (unsigned id = 0; id < OBJECTS; id++)
		assert_int_equal(exists(f, id), id < stats->objects);
	assert_int_equal(access(path, F_OK), 0);
	/* Within the cap nothing goes. */
	assert_true(clean(f));
	assert_int_equal(stats->runs, 2);
	assert_true(stats->evicted_objects < OBJECTS);
	assert_int_equal(stats->objects + stats->evicted_objects, OBJECTS);
}

static void mock_objects_count_too(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "mock/", 0);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	store_free(&f->store);
	f->store = open_store(f, "", 0);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	assert_true(clean(f));
	assert_int_equal(store_dir_janitor_stats(f->store)->objects, 2);
}

static bool something_was_evicted(struct fixture *f)
{
	return store_dir_janitor_stats(f->store)->evicted_objects > 0;
}

static void storing_much_calls_the_janitor(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "", 64 << 10);
	for (unsigned id = 0; id < 60; id++)
		assert_true(put(f->store, id, 1536));
	wait_until(f, something_was_evicted);
	wait_until(f, puts_are_over);
	assert_true(clean(f));
	assert_true(store_dir_janitor_stats(f->store)->bytes <= 64 << 10);
}

static void more_objects_than_one_slice(void **state)
{
	enum { OBJECTS = 3000 };
	struct fixture *f = *state;
	char path[PATH_MAX];
	f->store = open_store(f, "", 64 << 10);
	for (unsigned id = 0; id < OBJECTS; id++) {
		path_of(f, "", id, path);
		write_file(path, "short", 5);
		set_age(path, id + 1);
	}
	assert_true(clean(f));
	const struct store_janitor_stats *stats = store_dir_janitor_stats(f->store);
	assert_int_equal(stats->objects + stats->evicted_objects, OBJECTS);
	assert_true(stats->bytes <= (64 << 10));
	if (stats->evicted_objects) {
		assert_true(exists(f, 0));
		assert_false(exists(f, OBJECTS - 1));
	}
}

static void leftovers_in_tmp_go_when_old(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MAX];
	f->store = open_store(f, "", 0);
	snprintf(path, sizeof path, "%s/tmp/0123456789abcdef.7", f->dir);
	write_file(path, "half an obj", 11);
	assert_true(clean(f));
	assert_int_equal(access(path, F_OK), 0);
	set_age(path, 3500);
	assert_true(clean(f));
	assert_int_equal(access(path, F_OK), 0);
	set_age(path, 3700);
	assert_true(clean(f));
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(store_dir_janitor_stats(f->store)->tmp_removed, 1);
	/* What somebody else put there is not ours, however old. */
	static const char *const others[] = {"a", "0123456789abcdef", "0123456789abcdef.",
		"0123456789abcdef.7x", "0123456789abcdeg.7", "0123456789abcde.7",
		"0123456789abcdef0.7"};
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
		snprintf(path, sizeof path, "%s/tmp/%s", f->dir, others[i]);
		write_file(path, "theirs", 6);
		set_age(path, 100 * DAY_S);
		assert_true(clean(f));
		assert_int_equal(access(path, F_OK), 0);
	}
}

static bool tmp_was_cleaned(struct fixture *f)
{
	return store_dir_janitor_stats(f->store)->tmp_removed == f->wanted;
}

static bool janitor_ran(struct fixture *f)
{
	return store_dir_janitor_stats(f->store)->runs == 1;
}

static void at_the_start_it_runs_in_full_when_it_is_time(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MAX], lock[PATH_MAX];
	struct store_dir_options options = {
		.dir = f->dir, .prefix = "", .janitor_interval_ms = 3600 * 1000};
	snprintf(path, sizeof path, "%s/tmp/0123456789abcdef.7", f->dir);
	snprintf(lock, sizeof lock, "%s/janitor.lock", f->dir);
	f->store = open_store(f, "", 0);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	store_free(&f->store);
	for (int round = 0; round < 3; round++) {
		f->store = store_dir_new(f->loop, f->workers, &options);
		assert_non_null(f->store);
		write_file(path, "old", 3);
		set_age(path, 3700);
		f->wanted = 1;
		wait_until(f, tmp_was_cleaned);
		if (round != 1)
			wait_until(f, janitor_ran);
		/* Another process, or the one before, has just been through. */
		const struct store_janitor_stats *stats = store_dir_janitor_stats(f->store);
		assert_int_equal(stats->runs, round != 1);
		/* What it found is known all the same. */
		assert_true(stats->measured);
		assert_int_equal(stats->objects, 1);
		assert_true(stats->bytes > 0);
		store_free(&f->store);
		if (round == 1)
			set_age(lock, 3601);
	}
}

static void a_lock_file_that_says_nothing_is_no_measurement(void **state)
{
	struct fixture *f = *state;
	char lock[PATH_MAX];
	static const char *const texts[] = {
		"\n", "1 2", "1 2 3\n", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"};
	struct store_dir_options options = {
		.dir = f->dir, .prefix = "", .janitor_interval_ms = 3600 * 1000};
	snprintf(lock, sizeof lock, "%s/janitor.lock", f->dir);
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		write_file(lock, texts[i], strlen(texts[i]));
		f->store = store_dir_new(f->loop, f->workers, &options);
		assert_non_null(f->store);
		wait_until(f, janitor_ran);
		assert_int_equal(store_dir_janitor_stats(f->store)->objects, 0);
		store_free(&f->store);
	}
}

static void one_process_at_a_time(void **state)
{
	struct fixture *f = *state;
	char lock[PATH_MAX], byte = 0;
	int to_child[2], from_child[2];
	f->store = open_store(f, "", 0);
	snprintf(lock, sizeof lock, "%s/janitor.lock", f->dir);
	assert_int_equal(pipe(to_child), 0);
	assert_int_equal(pipe(from_child), 0);
	pid_t child = fork();
	if (child == 0) {
		int fd = open(lock, O_RDWR | O_CREAT, 0600);
		close(to_child[1]);
		if (flock(fd, LOCK_EX | LOCK_NB) || write(from_child[1], "x", 1) != 1)
			_exit(1);
		/* Until the parent closes its end. */
		_exit(read(to_child[0], &byte, 1) == 0 ? 0 : 1);
	}
	close(to_child[0]);
	assert_int_equal(read(from_child[0], &byte, 1), 1);
	assert_false(clean(f));
	assert_false(clean(f));
	assert_int_equal(store_dir_janitor_stats(f->store)->skipped, 2);
	assert_int_equal(store_dir_janitor_stats(f->store)->errors, 0);
	close(to_child[1]);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_true(clean(f));
	assert_int_equal(store_dir_janitor_stats(f->store)->runs, 1);
	close(from_child[0]);
	close(from_child[1]);
}

static void a_request_during_a_run_gets_a_run_of_its_own(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "", 0);
	store_dir_clean(f->store, NULL, NULL);
	store_dir_clean(f->store, NULL, NULL);
	assert_true(clean(f));
	assert_int_equal(store_dir_janitor_stats(f->store)->runs, 2);
}

static void a_janitor_without_its_directory_says_so(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "", 0);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	assert_false(clean(f));
	assert_int_equal(store_dir_janitor_stats(f->store)->errors, 1);
	assert_int_equal(store_dir_janitor_stats(f->store)->skipped, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_longest_unused_go_first),
		TEST(mock_objects_count_too),
		TEST(storing_much_calls_the_janitor),
		TEST(more_objects_than_one_slice),
		TEST(leftovers_in_tmp_go_when_old),
		TEST(at_the_start_it_runs_in_full_when_it_is_time),
		TEST(a_lock_file_that_says_nothing_is_no_measurement),
		TEST(one_process_at_a_time),
		TEST(a_request_during_a_run_gets_a_run_of_its_own),
		TEST(a_janitor_without_its_directory_says_so),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
