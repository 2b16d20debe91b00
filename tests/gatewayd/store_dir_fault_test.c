/* The directory store when objects, the directory, or the disk are not as they should be. */
#include "store_fixture.h"

/* ---- What goes wrong with objects ---- */

static void corrupt_objects_are_misses_and_deleted(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MAX];
	uint8_t good[4096], bad[4096];
	f->store = open_store(f, "", 0);
	assert_true(put(f->store, 1, 40));
	wait_until(f, puts_are_over);
	path_of(f, "", 1, path);
	size_t len = read_file(path, good, sizeof good);
	unsigned corrupt = 0;
	for (size_t at = 0; at < len; at++) {
		memcpy(bad, good, len);
		bad[at] ^= 0x10;
		write_file(path, bad, len);
		struct answer a = get(f, f->store, 1);
		if (a.result == STORE_FOUND)
			assert_true(a.whole);
		else if (store_stats(f->store)->corrupt > corrupt)
			assert_int_equal(a.result, STORE_MISS);
		assert_int_equal(exists(f, 1), store_stats(f->store)->corrupt == corrupt);
		corrupt = (unsigned)store_stats(f->store)->corrupt;
	}
	assert_true(corrupt > len - 20);
	for (size_t cut = 0; cut < len; cut += 3) {
		write_file(path, good, cut);
		assert_int_equal(get(f, f->store, 1).result, STORE_MISS);
		assert_false(exists(f, 1));
		assert_int_equal(store_stats(f->store)->corrupt, ++corrupt);
	}
	/* It is bought and stored again. */
	assert_true(put(f->store, 1, 40));
	wait_until(f, puts_are_over);
	assert_true(get(f, f->store, 1).whole);
}

static void another_objects_file_is_corrupt(void **state)
{
	struct fixture *f = *state;
	char from[PATH_MAX], to[PATH_MAX];
	f->store = open_store(f, "", 0);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	path_of(f, "", 1, from);
	path_of(f, "", 2, to);
	assert_int_equal(link(from, to), 0);
	assert_int_equal(get(f, f->store, 2).result, STORE_MISS);
	assert_int_equal(store_stats(f->store)->corrupt, 1);
	assert_false(exists(f, 2));
	assert_int_equal(get(f, f->store, 1).result, STORE_FOUND);
}

static void what_we_do_not_read_is_left_alone(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MAX];
	uint8_t bytes[4096];
	f->store = open_store(f, "", 0);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	path_of(f, "", 1, path);
	size_t len = read_file(path, bytes, sizeof bytes);
	/* A newer version. */
	bytes[16] = 2;
	write_file(path, bytes, len);
	assert_int_equal(get(f, f->store, 1).result, STORE_MISS);
	assert_true(exists(f, 1));
	/* Too large: a sparse file. */
	assert_int_equal(truncate(path, STORED_OBJECT_MAX_BYTES + 1), 0);
	assert_int_equal(get(f, f->store, 1).result, STORE_MISS);
	assert_true(exists(f, 1));
	assert_int_equal(store_stats(f->store)->corrupt, 0);
	/* A legacy object. */
	static const char legacy[] = "{\"object\":\"list\",\"data\":[{},{}]}";
	write_file(path, legacy, strlen(legacy));
	assert_int_equal(get(f, f->store, 1).result, STORE_LEGACY);
	assert_int_equal(store_stats(f->store)->legacy_hits, 1);
	/* Not a file at all. */
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(get(f, f->store, 1).result, STORE_ERROR);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(get(f, f->store, 1).result, STORE_ERROR);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	assert_int_equal(get(f, f->store, 1).result, STORE_ERROR);
	assert_int_equal(store_stats(f->store)->get_errors, 3);
}

static void a_process_killed_in_the_middle_leaves_no_partial_object(void **state)
{
	struct fixture *f = *state;
	int pipe_fds[2];
	assert_int_equal(pipe(pipe_fds), 0);
	/* Threads do not survive a fork: each side gets its own. */
	stop_loop(f);
	pid_t child = fork();
	if (child == 0) {
		struct fixture own = {0};
		memcpy(own.dir, f->dir, sizeof own.dir);
		start_loop(&own, 1000);
		own.store = open_store(&own, "", 0);
		for (unsigned id = 0;; id++) {
			if (!put(own.store, id, 1536))
				_exit(1);
			if (id % 10 == 9)
				wait_until(&own, puts_are_over);
			if (id == 99 && write(pipe_fds[1], "x", 1) != 1)
				_exit(1);
		}
	}
	start_loop(f, 1000);
	char byte;
	assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	f->store = open_store(f, "", 0);
	unsigned found = 0;
	for (unsigned id = 0; id < 300; id++) {
		struct answer a = get(f, f->store, id);
		assert_int_equal(a.result, a.whole ? STORE_FOUND : STORE_MISS);
		found += a.whole;
	}
	assert_true(found >= 100);
	assert_int_equal(store_stats(f->store)->corrupt, 0);
}

/* ---- What goes wrong with the directory ---- */

static void without_permission_it_is_an_error_not_a_miss(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "", 0);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	assert_int_equal(chmod(f->dir, 0), 0);
	/* root may do all: be somebody else. */
	bool root = geteuid() == 0;
	if (root)
		assert_int_equal(seteuid(65534), 0);
	enum store_result result = get(f, f->store, 1).result;
	bool taken = put(f->store, 2, 8);
	store_drain(f->store, on_drained, f);
	loop_run(f->loop);
	if (root)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(chmod(f->dir, 0700), 0);
	assert_int_equal(result, STORE_ERROR);
	assert_true(taken);
	const struct store_stats *stats = store_stats(f->store);
	assert_int_equal(stats->get_errors, 1);
	assert_int_equal(stats->put_errors, 4);
	assert_int_equal(stats->puts_given_up, 1);
	assert_int_equal(stats->puts, 1);
	assert_int_equal(get(f, f->store, 1).result, STORE_FOUND);
}

static bool a_put_failed(struct fixture *f)
{
	return store_stats(f->store)->put_errors > 0;
}

static void a_failed_put_is_tried_again(void **state)
{
	struct fixture *f = *state;
	char tmp[PATH_MAX];
	f->store = open_store(f, "", 0);
	snprintf(tmp, sizeof tmp, "%s/tmp", f->dir);
	assert_int_equal(rmdir(tmp), 0);
	write_file(tmp, "in the way", 10);
	assert_true(put(f->store, 1, 8));
	wait_until(f, a_put_failed);
	assert_int_equal(store_puts_pending(f->store), 1);
	assert_int_equal(unlink(tmp), 0);
	wait_until(f, puts_are_over);
	assert_int_equal(store_stats(f->store)->puts, 1);
	assert_int_equal(store_stats(f->store)->puts_given_up, 0);
	assert_true(get(f, f->store, 1).whole);
}

static void removed_directories_are_made_again(void **state)
{
	struct fixture *f = *state;
	f->store = open_store(f, "", 0);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	assert_int_equal(get(f, f->store, 1).result, STORE_MISS);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	assert_int_equal(store_stats(f->store)->put_errors, 0);
	assert_true(get(f, f->store, 1).whole);
	char path[PATH_MAX];
	path_of(f, "", 1, path);
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof path, "%s/embeddings", f->dir);
	assert_int_equal(rmdir(path), 0);
	assert_true(put(f->store, 2, 8));
	wait_until(f, puts_are_over);
	assert_true(get(f, f->store, 2).whole);
}

static void a_write_that_stops_halfway_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct rlimit old, small;
	f->store = open_store(f, "", 0);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){.rlim_cur = 1000, .rlim_max = old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	bool taken = put(f->store, 1, 4096);
	store_drain(f->store, on_drained, f);
	loop_run(f->loop);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_true(taken);
	assert_int_equal(store_stats(f->store)->puts, 0);
	assert_int_equal(store_stats(f->store)->puts_given_up, 1);
	assert_false(exists(f, 1));
	assert_int_equal(files_in_tmp(f), 0);
}

/* In a child, since mounting needs a namespace: exit code, or 77 where that is not allowed. */
static int fill_a_small_disk(struct fixture *f)
{
	struct fixture own = {0};
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		mount("none", f->dir, "tmpfs", 0, "size=64k"))
		return 77;
	memcpy(own.dir, f->dir, sizeof own.dir);
	start_loop(&own, 1000);
	own.store = open_store(&own, "", 0);
	for (unsigned id = 0; id < 60; id++)
		put(own.store, id, 1536);
	store_drain(own.store, on_drained, &own);
	loop_run(own.loop);
	const struct store_stats *stats = store_stats(own.store);
	bool good = stats->no_space > 0 && stats->puts > 0 && stats->puts_given_up > 0 &&
		    stats->puts + stats->puts_given_up == 60 && files_in_tmp(&own) == 0;
	for (unsigned id = 0; id < 60; id++) {
		struct answer a = get(&own, own.store, id);
		good = good && a.result == (a.whole ? STORE_FOUND : STORE_MISS);
	}
	good = good && stats->hits == stats->puts && stats->corrupt == 0;
	return good ? 0 : 1;
}

static void a_full_disk_is_counted(void **state)
{
	struct fixture *f = *state;
	int status;
	stop_loop(f);
	pid_t child = fork();
	if (child == 0)
		_exit(fill_a_small_disk(f));
	start_loop(f, 1000);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		print_message("# no namespace to mount a small disk in: not seen here\n");
	else
		assert_int_equal(WEXITSTATUS(status), 0);
}

static void bad_settings_are_refused(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/file", f->dir);
	write_file(path, "", 0);
	struct store_dir_options options = {.dir = path, .prefix = ""};
	assert_null(store_dir_new(f->loop, f->workers, &options));
	assert_int_equal(errno, ENOTDIR);
	options.dir = "";
	assert_null(store_dir_new(f->loop, f->workers, &options));
	options.dir = f->dir;
	options.max_bytes = 1000;
	assert_null(store_dir_new(f->loop, f->workers, &options));
	assert_int_equal(errno, EINVAL);
	/* Deep below what is there, with slashes behind. */
	snprintf(path, sizeof path, "%s/a/b/c//", f->dir);
	options = (struct store_dir_options){
		.dir = path, .prefix = "", .janitor_interval_ms = UINT32_MAX};
	f->store = store_dir_new(f->loop, f->workers, &options);
	assert_non_null(f->store);
	assert_true(put(f->store, 1, 8));
	wait_until(f, puts_are_over);
	assert_true(get(f, f->store, 1).whole);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(corrupt_objects_are_misses_and_deleted),
		TEST(another_objects_file_is_corrupt),
		TEST(what_we_do_not_read_is_left_alone),
		TEST(a_process_killed_in_the_middle_leaves_no_partial_object),
		TEST(without_permission_it_is_an_error_not_a_miss),
		TEST(a_failed_put_is_tried_again),
		TEST(removed_directories_are_made_again),
		TEST(a_write_that_stops_halfway_leaves_nothing),
		TEST(a_full_disk_is_counted),
		TEST(bad_settings_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
