#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/arena.h"

#define KIB 1024u
#define MIB (1024u * KIB)

/* The same numbers in every run. */
static uint64_t random_state;
static uint32_t random_below(uint32_t n)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)((random_state >> 32) * n >> 32);
}

/* --- a model: what should be live, each filled with a byte of its own --- */

#define MODEL_MAX 4096

struct model {
	struct arena *arena;
	size_t n;
	uint64_t live_bytes, used_bytes;
	struct {
		uint64_t offset, len;
		uint8_t fill;
	} live[MODEL_MAX];
};

static void model_open(struct model *m, uint64_t size_bytes)
{
	memset(m, 0, sizeof *m);
	m->arena = arena_new(size_bytes);
	assert_non_null(m->arena);
}

static bool model_alloc(struct model *m, uint64_t len)
{
	if (m->n == MODEL_MAX)
		return false;
	uint64_t offset = arena_alloc(m->arena, len);
	if (offset == ARENA_NONE)
		return false;
	assert_int_equal(offset % 64, 0);
	assert_true(offset + len <= arena_stats(m->arena).size_bytes);
	uint8_t fill = (uint8_t)random_below(256);
	memset(arena_at(m->arena, offset), fill, len);
	m->live[m->n].offset = offset;
	m->live[m->n].len = len;
	m->live[m->n++].fill = fill;
	m->live_bytes += len;
	m->used_bytes += arena_rounded(len);
	return true;
}

/* An overlap would have changed somebody's bytes. */
static void model_check(const struct model *m, size_t i)
{
	const uint8_t *data = arena_at(m->arena, m->live[i].offset);
	for (uint64_t at = 0; at < m->live[i].len; at++) {
		if (data[at] != m->live[i].fill)
			fail_msg("byte %lu of %lu at %lu changed", at, m->live[i].len,
				m->live[i].offset);
	}
}

static void model_release(struct model *m, size_t i)
{
	model_check(m, i);
	m->live_bytes -= m->live[i].len;
	m->used_bytes -= arena_rounded(m->live[i].len);
	arena_release(m->arena, m->live[i].offset);
	m->live[i] = m->live[--m->n];
}

static void model_check_stats(const struct model *m)
{
	struct arena_stats s = arena_stats(m->arena);
	assert_int_equal(s.allocations, m->n);
	assert_int_equal(s.live_bytes, m->live_bytes);
	assert_int_equal(s.used_bytes, m->used_bytes);
	assert_true(s.largest_free_bytes <= s.size_bytes - s.used_bytes);
}

static void model_close(struct model *m)
{
	while (m->n)
		model_release(m, m->n - 1);
	model_check_stats(m);
	/* All coalesced: the whole is one block again. */
	struct arena_stats s = arena_stats(m->arena);
	assert_int_equal(s.largest_free_bytes, s.size_bytes);
	uint64_t all = arena_alloc(m->arena, s.size_bytes);
	assert_int_equal(all, 0);
	assert_int_equal(arena_alloc(m->arena, 1), ARENA_NONE);
	arena_release(m->arena, all);
	arena_free(&m->arena);
	assert_null(m->arena);
}

static int compare_offsets(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* After a full trim no whole page of a gap of 64 KiB or more is held. */
static void model_check_trimmed(struct model *m)
{
	static uint64_t ends[MODEL_MAX + 1][2];
	for (size_t i = 0; i < m->n; i++) {
		ends[i][0] = m->live[i].offset;
		ends[i][1] = m->live[i].offset + arena_rounded(m->live[i].len);
	}
	uint64_t size = arena_stats(m->arena).size_bytes;
	ends[m->n][0] = ends[m->n][1] = size;
	qsort(ends, m->n + 1, sizeof ends[0], compare_offsets);
	int fd = arena_open_reader(m->arena);
	assert_true(fd >= 0);
	uint64_t from = 0;
	for (size_t i = 0; i <= m->n; i++) {
		uint64_t to = ends[i][0];
		assert_true(to >= from);
		if (to - from >= 64 * KIB) {
			off_t first = (off_t)((from + 4095) / 4096 * 4096);
			off_t data = lseek(fd, first, SEEK_DATA);
			assert_true(data < 0 || data >= (off_t)(to / 4096 * 4096));
		}
		from = ends[i][1];
	}
	close(fd);
}

static void random_walk(uint64_t size_bytes, uint32_t most_len, unsigned steps, bool trim)
{
	struct model *m = malloc(sizeof *m);
	model_open(m, size_bytes);
	unsigned refused = 0;
	for (unsigned step = 0; step < steps; step++) {
		/* The balance swings, so that the arena fills and empties again. */
		bool grow = random_below(100) < (step / 500 % 2 ? 30u : 70u);
		if (grow) {
			uint32_t len = 1 + random_below(random_below(8) ? most_len / 16 : most_len);
			refused += !model_alloc(m, len);
		} else if (m->n) {
			model_release(m, random_below((uint32_t)m->n));
		}
		model_check_stats(m);
		if (trim && step % 97 == 0)
			arena_trim(
				m->arena, random_below(4) ? random_below(256 * KIB) : UINT64_MAX);
		if (trim && step % 388 == 0) {
			arena_trim(m->arena, UINT64_MAX);
			model_check_trimmed(m);
			assert_int_equal(arena_trim(m->arena, UINT64_MAX), 0);
		}
	}
	for (size_t i = 0; i < m->n; i++)
		model_check(m, i);
	assert_true(refused > 0);
	model_close(m);
	free(m);
}

static void test_random_against_the_model(void **state)
{
	(void)state;
	random_state = 1;
	random_walk(4 * KIB, 600, 4000, false);
	random_walk(64 * KIB, 20 * KIB, 6000, false);
	random_walk(2 * MIB, 512 * KIB, 6000, false);
}

static void test_random_with_trims(void **state)
{
	(void)state;
	random_state = 2;
	random_walk(4 * MIB, 1 * MIB, 6000, true);
}

/* --- everything but some --- */

static void model_keep_some(struct model *m, uint32_t percent)
{
	static uint64_t offsets[MODEL_MAX + ARENA_KEEP_ROOM];
	for (size_t i = m->n; i-- > 0;) {
		model_check(m, i);
		if (random_below(100) < percent)
			continue;
		m->live_bytes -= m->live[i].len;
		m->used_bytes -= arena_rounded(m->live[i].len);
		m->live[i] = m->live[--m->n];
	}
	for (size_t i = 0; i < m->n; i++)
		offsets[i] = m->live[i].offset;
	struct arena_tables tables;
	assert_int_equal(arena_tables_new(m->arena, &tables), 0);
	arena_keep_only(m->arena, offsets, m->n, &tables);
	assert_true(tables.used_bytes > 0);
	arena_tables_free(&tables);
	arena_tables_free(&tables);
	model_check_stats(m);
}

static void *punch(void *arg)
{
	arena_holes_punch(arg);
	return NULL;
}

/* Some is kept while pages are on their way back, on another thread, and the arena is used on. */
static void test_random_with_all_but_some_going(void **state)
{
	(void)state;
	random_state = 4;
	struct model *m = malloc(sizeof *m);
	model_open(m, 8 * MIB);
	uint64_t holes = 0, before;
	for (unsigned round = 0; round < 100; round++) {
		static const uint32_t percents[] = {0, 1, 20, 100};
		pthread_t thread;
		while (model_alloc(m, 1 + random_below(random_below(8) ? 2000 : 200 * KIB)))
			;
		model_keep_some(m, percents[random_below(4)]);
		for (unsigned i = 0; i < 5; i++)
			model_alloc(m, 1 + random_below(2000));
		bool out = arena_holes_take(m->arena, round % 3 ? 1 * MIB : UINT64_MAX);
		if (out)
			pthread_create(&thread, NULL, punch, m->arena);
		for (unsigned i = 0; i < 300; i++)
			model_alloc(m, 1 + random_below(i % 50 ? 2000 : 100 * KIB));
		if (round % 2)
			model_keep_some(m, percents[random_below(4)]);
		while (m->n > 200)
			model_release(m, random_below((uint32_t)m->n));
		if (!out)
			continue;
		pthread_join(thread, NULL);
		before = arena_stats(m->arena).punched_bytes;
		holes += arena_holes_give_back(m->arena);
		assert_true(arena_stats(m->arena).punched_bytes > before);
		if (round % 5 == 0) {
			arena_trim(m->arena, UINT64_MAX);
			model_check_trimmed(m);
		}
	}
	assert_true(holes > 50 * MIB);
	model_close(m);
	free(m);
}

/* One-granule objects need a record each, and the index grows for them. */
static void test_smallest_objects_fill_it_all(void **state)
{
	(void)state;
	struct arena *a = arena_new(1 * MIB);
	uint64_t index_before = arena_stats(a).index_bytes;
	enum { COUNT = 1 * MIB / 64 };
	uint64_t *offsets = malloc(COUNT * sizeof *offsets);
	for (size_t i = 0; i < COUNT; i++) {
		offsets[i] = arena_alloc(a, 1 + i % 64);
		assert_int_equal(offsets[i], i * 64);
	}
	assert_int_equal(arena_alloc(a, 1), ARENA_NONE);
	struct arena_stats s = arena_stats(a);
	assert_int_equal(s.used_bytes, 1 * MIB);
	assert_int_equal(s.largest_free_bytes, 0);
	assert_true(s.index_bytes > index_before);
	/* Every second, then the rest: nothing to merge with at first, then on both sides. */
	for (size_t i = 0; i < COUNT; i += 2)
		arena_release(a, offsets[i]);
	assert_int_equal(arena_stats(a).largest_free_bytes, 64);
	assert_int_equal(arena_alloc(a, 65), ARENA_NONE);
	for (size_t i = 1; i < COUNT; i += 2)
		arena_release(a, offsets[i]);
	assert_int_equal(arena_alloc(a, 1 * MIB), 0);
	free(offsets);
	arena_free(&a);
}

static void test_sizes_at_the_edges(void **state)
{
	(void)state;
	assert_null(arena_new(0));
	assert_int_equal(errno, EINVAL);
	assert_null(arena_new(UINT64_C(128) << 30));
	assert_int_equal(errno, EINVAL);
	struct arena *a = arena_new(1);
	assert_int_equal(arena_stats(a).size_bytes, 4096);
	assert_int_equal(arena_alloc(a, 4097), ARENA_NONE);
	assert_int_equal(arena_alloc(a, UINT64_MAX), ARENA_NONE);
	assert_int_equal(arena_alloc(a, UINT64_MAX - 62), ARENA_NONE);
	assert_int_equal(arena_alloc(a, 4096), 0);
	arena_free(&a);
	arena_free(&a);
	assert_int_equal(arena_rounded(1), 64);
	assert_int_equal(arena_rounded(64), 64);
	assert_int_equal(arena_rounded(65), 128);
	/* A size with a lone block that just fits, in every class: the class it is sought in first
	 * is a larger one. */
	for (uint64_t len = 64; len <= 256 * KIB; len += 64 + len / 8 / 64 * 64) {
		a = arena_new(256 * KIB);
		if (len < 256 * KIB)
			assert_int_not_equal(arena_alloc(a, 256 * KIB - len), ARENA_NONE);
		assert_int_not_equal(arena_alloc(a, len), ARENA_NONE);
		assert_int_equal(arena_stats(a).largest_free_bytes, 0);
		arena_free(&a);
	}
	/* Virtual only: nothing is touched until it is allocated and written. */
	a = arena_new(UINT64_C(20) << 30);
	assert_non_null(a);
	uint64_t first = arena_alloc(a, UINT64_C(12) << 30),
		 second = arena_alloc(a, UINT64_C(8) << 30);
	assert_int_equal(first, 0);
	assert_int_equal(second, UINT64_C(12) << 30);
	memset((char *)arena_at(a, second) + (UINT64_C(8) << 30) - 10, 1, 10);
	arena_release(a, first);
	arena_release(a, second);
	assert_int_equal(arena_stats(a).largest_free_bytes, UINT64_C(20) << 30);
	arena_free(&a);
}

static void test_trim_gives_pages_back_in_portions(void **state)
{
	(void)state;
	struct arena *a = arena_new(16 * MIB);
	uint64_t kept = arena_alloc(a, 100);
	uint64_t large = arena_alloc(a, 8 * MIB);
	memset(arena_at(a, kept), 'k', 100);
	memset(arena_at(a, large), 'x', 8 * MIB);
	assert_int_equal(arena_trim(a, UINT64_MAX), 0);
	int fd = arena_open_reader(a);
	struct stat st;
	fstat(fd, &st);
	assert_true(st.st_blocks * 512 >= 8 * MIB);
	arena_release(a, large);
	fstat(fd, &st);
	assert_true(st.st_blocks * 512 >= 8 * MIB);

	unsigned portions = 0;
	uint64_t got, sum = 0;
	while ((got = arena_trim(a, 1 * MIB)) > 0) {
		assert_true(got <= 1 * MIB + 4096);
		sum += got;
		portions++;
	}
	assert_in_range(portions, 8, 9);
	assert_in_range(sum, 8 * MIB - 4096, 8 * MIB);
	assert_int_equal(arena_stats(a).punched_bytes, sum);
	fstat(fd, &st);
	assert_true(st.st_blocks * 512 <= 8192);
	for (int i = 0; i < 100; i++)
		assert_int_equal(((char *)arena_at(a, kept))[i], 'k');

	/* Half trimmed, then used again from the front: the rest is still known to be held. */
	large = arena_alloc(a, 8 * MIB);
	memset(arena_at(a, large), 'y', 8 * MIB);
	arena_release(a, large);
	assert_true(arena_trim(a, 2 * MIB) >= 2 * MIB);
	uint64_t front = arena_alloc(a, 1 * MIB);
	assert_int_equal(front, large);
	memset(arena_at(a, front), 'z', 1 * MIB);
	arena_trim(a, UINT64_MAX);
	fstat(fd, &st);
	assert_true(st.st_blocks * 512 <= 1 * MIB + 8192);
	for (size_t i = 0; i < 1 * MIB; i++)
		assert_int_equal(((char *)arena_at(a, front))[i], 'z');
	close(fd);
	arena_free(&a);
}

static void test_reader_cannot_write_and_size_is_sealed(void **state)
{
	(void)state;
	struct arena *a = arena_new(64 * KIB);
	uint64_t offset = arena_alloc(a, 5);
	memcpy(arena_at(a, offset), "hello", 5);
	int fd = arena_open_reader(a);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	assert_int_equal(fcntl(fd, F_GET_SEALS), seals);
	struct stat st;
	fstat(fd, &st);
	assert_int_equal(st.st_mode & 07777, 0400);
	assert_int_equal(st.st_size, 64 * KIB);

	assert_ptr_equal(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	const char *view = mmap(NULL, 64 * KIB, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(view, MAP_FAILED);
	assert_int_equal(mprotect((void *)(uintptr_t)view, 4096, PROT_READ | PROT_WRITE), -1);
	close(fd);
	assert_memory_equal(view + offset, "hello", 5);
	/* Written later, seen at once; and the view outlives the arena. */
	memcpy(arena_at(a, offset), "later", 5);
	assert_memory_equal(view + offset, "later", 5);
	arena_free(&a);
	assert_memory_equal(view + offset, "later", 5);
	munmap((void *)(uintptr_t)view, 64 * KIB);
}

/* --- our own bugs end the process --- */

static int signal_of_release(struct arena *a, uint64_t offset)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL); /* not the test framework's or a sanitizer's */
		int null = open("/dev/null", O_WRONLY);
		dup2(null, 2);
		arena_release(a, offset);
		_exit(0);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void test_wrong_release_is_a_bug(void **state)
{
	(void)state;
	struct arena *a = arena_new(64 * KIB);
	uint64_t first = arena_alloc(a, 200), second = arena_alloc(a, 9000);
	uint64_t third = arena_alloc(a, 10);
	arena_release(a, second);
	uint64_t wrong[] = {second, first + 64, first + 1, third + 64, 64 * KIB, 64 * KIB + 64,
		ARENA_NONE, ARENA_NONE - 63, second + 4096};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_int_equal(signal_of_release(a, wrong[i]), SIGABRT);
	assert_int_equal(signal_of_release(a, third), 0);
	arena_free(&a);
}

/* --- how much of it can be used: the promise to a cache that has a budget --- */

struct usage {
	double worst_fill, worst_rounding;
};

/* A cache that is always full: insert, and evict until it fits. The mean length moves from 8 to 16
 * KB on the way. */
static struct usage churn(bool random_eviction)
{
	enum { SIZE = 32 * MIB, INSERTS = 30000 };
	struct arena *a = arena_new(SIZE);
	uint64_t *queue = malloc(INSERTS * sizeof *queue);
	size_t head = 0, tail = 0;
	struct usage usage = {1, 1};
	random_state = 3;
	for (uint32_t i = 0; i < INSERTS; i++) {
		uint32_t mean = random_below(INSERTS) < i ? 16500 : 8300;
		uint32_t len = mean * 9 / 10 + random_below(mean / 5);
		uint64_t offset;
		while ((offset = arena_alloc(a, len)) == ARENA_NONE) {
			struct arena_stats s = arena_stats(a);
			double fill = (double)s.live_bytes / SIZE;
			double rounding = (double)s.live_bytes / (double)s.used_bytes;
			usage.worst_fill = fill < usage.worst_fill ? fill : usage.worst_fill;
			usage.worst_rounding = rounding < usage.worst_rounding
						       ? rounding
						       : usage.worst_rounding;
			if (random_eviction) {
				size_t victim = head + random_below((uint32_t)(tail - head));
				uint64_t swap = queue[head];
				queue[head] = queue[victim];
				queue[victim] = swap;
			}
			arena_release(a, queue[head++]);
		}
		queue[tail++] = offset;
	}
	struct arena_stats s = arena_stats(a);
	printf("# %s eviction: at refusals at least %.1f %% live; of what is used %.1f %% is live; "
	       "index %.2f %% of the arena\n",
		random_eviction ? "random" : "oldest first", usage.worst_fill * 100,
		usage.worst_rounding * 100, 100.0 * (double)s.index_bytes / SIZE);
	assert_true(s.index_bytes < SIZE / 100);
	assert_true(head > 10000);
	free(queue);
	arena_free(&a);
	return usage;
}

static void test_little_is_wasted(void **state)
{
	(void)state;
	struct usage oldest = churn(false), any = churn(true);
	assert_true(oldest.worst_fill >= 0.97);
	assert_true(any.worst_fill >= 0.85);
	assert_true(oldest.worst_rounding >= 0.99);
	assert_true(any.worst_rounding >= 0.99);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_against_the_model),
		cmocka_unit_test(test_random_with_trims),
		cmocka_unit_test(test_random_with_all_but_some_going),
		cmocka_unit_test(test_smallest_objects_fill_it_all),
		cmocka_unit_test(test_sizes_at_the_edges),
		cmocka_unit_test(test_trim_gives_pages_back_in_portions),
		cmocka_unit_test(test_reader_cannot_write_and_size_is_sealed),
		cmocka_unit_test(test_wrong_release_is_a_bug),
		cmocka_unit_test(test_little_is_wasted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
