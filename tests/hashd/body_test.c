#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/loop.h"
#include "hashd/body.h"

static struct loop *loop;

#define MANY 1000

static char text[100000];

static void fill(void)
{
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 7 + i / 251);
}

static void no_read_on(void *arg)
{
	(void)arg;
	fail_msg("told to read on");
}

static void append(struct body *body, size_t from, size_t to)
{
	enum body_flow flow;

	assert_int_equal(body_append(body, (struct span){text + from, to - from}, &flow), 0);
	assert_int_equal(flow, BODY_READ_ON);
}

static void check(struct body *body, size_t len)
{
	struct digest expected = digest_of((struct span){text, len});

	body_finish(body);
	assert_true(digest_equal(body_digest(body), &expected));
	assert_int_equal(body_bytes(body).len, len);
	if (len)
		assert_memory_equal(body_bytes(body).data, text, len);
}

/* The same sum however it arrives, and whatever a recycled body held before. */
static void hash_at_every_cut(void **state)
{
	struct bodies *bodies = bodies_new(loop, 1 << 20);
	enum body_flow flow;

	(void)state;
	for (size_t len = 0; len < 150; len += 7) {
		for (size_t cut = 0; cut <= len; cut++) {
			for (int declared = 0; declared < 2; declared++) {
				struct body *body = body_new(bodies, declared ? (int64_t)len : -1,
					len, no_read_on, NULL, &flow);

				append(body, 0, cut);
				append(body, cut, len);
				check(body, len);
				body_unref(&body);
				assert_null(body);
			}
		}
	}
	assert_int_equal(bodies_bytes(bodies), 0);
	bodies_free(&bodies);
}

/* One that was begun and dropped leaves nothing in the next one's sum. */
static void dropped_half_way(void **state)
{
	struct bodies *bodies = bodies_new(loop, 1 << 20);
	enum body_flow flow;
	struct body *body = body_new(bodies, -1, 1000, no_read_on, NULL, &flow);

	(void)state;
	append(body, 500, 600);
	body_unref(&body);
	body = body_new(bodies, -1, 1000, no_read_on, NULL, &flow);
	append(body, 0, 10);
	append(body, 10, 300);
	check(body, 300);
	body_unref(&body);
	bodies_free(&bodies);
}

static void limits(void **state)
{
	struct bodies *bodies = bodies_new(loop, 1 << 20);
	enum body_flow flow;
	struct body *body = body_new(bodies, -1, 100, no_read_on, NULL, &flow);

	(void)state;
	append(body, 0, 60);
	assert_int_equal(body_append(body, (struct span){text, 41}, &flow), -1);
	append(body, 60, 100);
	assert_int_equal(body_append(body, (struct span){text, 1}, &flow), -1);
	check(body, 100);
	body_unref(&body);
	body_unref(&body);
	bodies_free(&bodies);
}

/* Memory follows what has come, not what was promised. */
static void declared_length_costs_nothing(void **state)
{
	struct bodies *bodies = bodies_new(loop, UINT64_C(1) << 40);
	enum body_flow flow;
	struct body *body = body_new(bodies, 1 << 30, SIZE_MAX, no_read_on, NULL, &flow);

	(void)state;
	append(body, 0, 5000);
	assert_int_equal(bodies_bytes(bodies), 5000);
	assert_true(malloc_usable_size((void *)(uintptr_t)body_bytes(body).data) < 20000);
	body_unref(&body);
	assert_int_equal(bodies_bytes(bodies), 0);
	bodies_free(&bodies);
}

static void slices_keep_it(void **state)
{
	struct bodies *bodies = bodies_new(loop, 1 << 20);
	enum body_flow flow;
	struct body *body = body_new(bodies, 50000, 50000, no_read_on, NULL, &flow);

	(void)state;
	append(body, 0, 50000);
	check(body, 50000);
	struct slice a = body_slice(body, 0, 20000), b = body_slice(body, 20000, 30000);

	body_unref(&body);
	assert_true(bodies_bytes(bodies) >= 50000);
	assert_memory_equal(a.data, text, 20000);
	slice_release(&a);
	assert_memory_equal(b.data, text + 20000, 30000);
	slice_release(&b);
	assert_int_equal(bodies_bytes(bodies), 0);
	bodies_free(&bodies);
}

struct client {
	struct body *body;
	bool stopped;
	size_t got;
};

static void on_read_on(void *arg)
{
	struct client *client = arg;

	assert_true(client->stopped);
	client->stopped = false;
}

/*
 * Many large uploads against a small budget: whoever is told to stop stops, all of them come to
 * their end, the oldest first, and memory stays within what the header promises.
 */
static void budget(void **state)
{
	enum { N = 20, LEN = 100000, STEP = 10000, BUDGET = 300000 };
	struct bodies *bodies = bodies_new(loop, BUDGET);
	struct client clients[N] = {0};
	struct body *complete[N];
	size_t n_complete = 0, n_done = 0, idle_rounds = 0;
	uint64_t most = 0;

	(void)state;
	for (size_t i = 0; i < N; i++) {
		enum body_flow flow;

		clients[i].body = body_new(bodies, LEN, LEN, on_read_on, &clients[i], &flow);
		clients[i].stopped = flow == BODY_STOP_READING;
	}
	while (n_done < N) {
		bool moved = false;

		for (size_t i = 0; i < N; i++) {
			struct client *c = &clients[i];
			enum body_flow flow;

			if (!c->body || c->stopped)
				continue;
			moved = true;
			assert_int_equal(
				body_append(c->body, (struct span){text + c->got, STEP}, &flow), 0);
			c->got += STEP;
			c->stopped = flow == BODY_STOP_READING;
			if (c->got == LEN) {
				check(c->body, LEN);
				complete[n_complete++] = c->body;
				c->body = NULL;
			}
			if (bodies_bytes(bodies) > most)
				most = bodies_bytes(bodies);
		}
		if (moved)
			continue;
		/* Nobody may read: an answer has to come. */
		assert_true(n_complete > 0);
		assert_true(idle_rounds++ < MANY);
		body_unref(&complete[--n_complete]);
		n_done++;
		while (n_complete) {
			body_unref(&complete[--n_complete]);
			n_done++;
		}
		if (n_done == N)
			break;
	}
	assert_true(idle_rounds > 1); /* the budget was felt */
	assert_in_range(most, BUDGET, BUDGET + LEN + N * STEP);
	assert_int_equal(bodies_bytes(bodies), 0);
	assert_int_equal(bodies_paused(bodies), 0);
	bodies_free(&bodies);
}

/* The oldest leaves in the middle: the next one takes its place. */
static void oldest_leaves(void **state)
{
	struct bodies *bodies = bodies_new(loop, 10000);
	struct client a = {0}, b = {0}, c = {0};
	enum body_flow flow;

	(void)state;
	a.body = body_new(bodies, -1, 100000, on_read_on, &a, &flow);
	b.body = body_new(bodies, -1, 100000, on_read_on, &b, &flow);
	assert_int_equal(body_append(b.body, (struct span){text, 20000}, &flow), 0);
	b.stopped = flow == BODY_STOP_READING;
	assert_true(b.stopped);
	c.body = body_new(bodies, -1, 100000, on_read_on, &c, &flow);
	c.stopped = flow == BODY_STOP_READING;
	assert_true(c.stopped);
	assert_int_equal(bodies_paused(bodies), 2);
	body_unref(&a.body);
	assert_false(b.stopped);
	assert_true(c.stopped);
	body_unref(&b.body);
	assert_false(c.stopped);
	body_unref(&c.body);
	bodies_free(&bodies);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hash_at_every_cut),
		cmocka_unit_test(dropped_half_way),
		cmocka_unit_test(limits),
		cmocka_unit_test(declared_length_costs_nothing),
		cmocka_unit_test(slices_keep_it),
		cmocka_unit_test(budget),
		cmocka_unit_test(oldest_leaves),
	};

	fill();
	loop = loop_new();
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(&loop);
	return failed;
}
