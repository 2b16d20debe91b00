/* Large blocks go a piece a turn, and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "common/loop.h"
#include "common/reclaim.h"

#define LARGE_BYTES (32u << 20)

/* What may be left of a block: a sanitizer keeps what was freed, and notes about it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KEPT_KB (64 << 10)
#else
#define KEPT_KB 2048
#endif

/* Pages of this process's own. */
static long resident_kb(void)
{
	long kb = 0;
	char line[256];
	FILE *f = fopen("/proc/self/smaps_rollup", "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		long n;
		if (sscanf(line, "Private_Dirty: %ld kB", &n) == 1)
			kb += n;
	}
	fclose(f);
	return kb;
}

static void *filled(size_t len_bytes)
{
	void *block = malloc(len_bytes);
	assert_non_null(block);
	memset(block, 1, len_bytes);
	return block;
}

static unsigned turns_until_given_back(struct loop *loop, long below_kb)
{
	unsigned turns = 0;
	while (resident_kb() > below_kb) {
		assert_true(turns++ < 10000);
		event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
	}
	return turns;
}

static void blocks_go_in_pieces(void **arg)
{
	(void)arg;
	struct loop *loop = loop_new();
	long before_kb = resident_kb();
	void *blocks[3];
	for (size_t i = 0; i < 3; i++)
		blocks[i] = filled(LARGE_BYTES);
	long most_kb = resident_kb();
	assert_true(most_kb - before_kb >= 3 * (LARGE_BYTES >> 10));
	for (size_t i = 0; i < 3; i++)
		reclaim(loop, blocks[i], LARGE_BYTES);
	/* Nothing yet, but for what the kernel takes by itself: not the work of the callback that
	 * gave them. */
	assert_true(resident_kb() >= most_kb - (LARGE_BYTES >> 11));
	turns_until_given_back(loop, before_kb + KEPT_KB);
	loop_free(&loop);
}

static void slices_and_buffers_too(void **arg)
{
	(void)arg;
	struct loop *loop = loop_new();
	long before_kb = resident_kb();
	struct slice slice = slice_reclaimed(loop, filled(LARGE_BYTES), LARGE_BYTES);
	struct buf buf = BUF_INIT(LARGE_BYTES);
	memset(buf_reserve(&buf, LARGE_BYTES), 1, LARGE_BYTES);
	slice_release(&slice);
	reclaim_buf(loop, &buf);
	assert_null(buf.data);
	turns_until_given_back(loop, before_kb + KEPT_KB);
	/* Small ones, and nothing at all. */
	slice = slice_reclaimed(loop, filled(100), 100);
	slice_release(&slice);
	reclaim_buf(loop, &buf);
	reclaim(loop, NULL, 0);
	loop_free(&loop);
}

/* What waits when the loop ends is given back: a leak otherwise. */
static void the_end_of_the_loop(void **arg)
{
	(void)arg;
	struct loop *loop = loop_new();
	long before_kb = resident_kb();
	reclaim(loop, filled(LARGE_BYTES), LARGE_BYTES);
	loop_free(&loop);
	assert_true(resident_kb() < before_kb + KEPT_KB);
}

int main(void)
{
	reclaim_setup();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_go_in_pieces),
		cmocka_unit_test(slices_and_buffers_too),
		cmocka_unit_test(the_end_of_the_loop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
