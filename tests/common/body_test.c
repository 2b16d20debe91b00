#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/body.h"
#include "common/loop.h"

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

static void no_late(void *arg)
{
	(void)arg;
	fail_msg("late");
}

static const struct body_events no_events = {.on_read_on = no_read_on, .on_late = no_late};

static struct bodies *make(uint64_t budget_bytes, size_t max_body_bytes)
{
	struct bodies *bodies = bodies_new(
		loop, &(struct bodies_options){.budget_bytes = budget_bytes,
			      .max_body_bytes = max_body_bytes,
			      .timeout_ms = 30000});

	assert_non_null(bodies);
	return bodies;
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
	struct bodies *bodies = make(1 << 20, 1000);

	(void)state;
	for (size_t len = 0; len < 150; len += 7) {
		for (size_t cut = 0; cut <= len; cut++) {
			for (int declared = 0; declared < 2; declared++) {
				struct body *body = body_new(
					bodies, declared ? (int64_t)len : -1, &no_events, NULL);

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
	struct bodies *bodies = make(1 << 20, 1000);
	struct body *body = body_new(bodies, -1, &no_events, NULL);

	(void)state;
	append(body, 500, 600);
	body_unref(&body);
	body = body_new(bodies, -1, &no_events, NULL);
	append(body, 0, 10);
	append(body, 10, 300);
	check(body, 300);
	body_unref(&body);
	bodies_free(&bodies);
}

static void limits(void **state)
{
	struct bodies *bodies = make(1 << 20, 100);
	enum body_flow flow;
	struct body *body = body_new(bodies, -1, &no_events, NULL);

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
	struct bodies *bodies = make(UINT64_C(1) << 40, SIZE_MAX);
	struct body *body = body_new(bodies, 1 << 30, &no_events, NULL);

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
	struct bodies *bodies = make(1 << 20, 50000);
	struct body *body = body_new(bodies, 50000, &no_events, NULL);

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

static const struct body_events client_events = {.on_read_on = on_read_on, .on_late = no_late};

static void begin(struct client *client, struct bodies *bodies)
{
	*client = (struct client){.body = body_new(bodies, -1, &client_events, client)};
	assert_non_null(client->body);
}

static void bring(struct client *client, size_t len)
{
	enum body_flow flow;

	assert_false(client->stopped);
	for (size_t n; len > 0; len -= n) {
		n = len < sizeof(text) ? len : sizeof(text);
		assert_int_equal(body_append(client->body, (struct span){text, n}, &flow), 0);
		client->got += n;
	}
	client->stopped = flow == BODY_STOP_READING;
}

/*
 * Many large uploads against a small budget: whoever is told to stop stops, all of them come to
 * their end, the oldest first, and memory stays within what the header promises.
 */
static void budget(void **state)
{
	enum { N = 20, LEN = 100000, STEP = 10000, BUDGET = 300000 };
	struct bodies *bodies = make(BUDGET, LEN);
	struct client clients[N] = {0};
	struct body *complete[N];
	size_t n_complete = 0, n_done = 0, idle_rounds = 0;
	uint64_t most = 0;

	(void)state;
	for (size_t i = 0; i < N; i++)
		clients[i].body = body_new(bodies, LEN, &client_events, &clients[i]);
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
	assert_in_range(most, BUDGET, BUDGET + LEN + N * (BODY_FREE_BYTES + STEP));
	assert_int_equal(bodies_bytes(bodies), 0);
	assert_int_equal(bodies_paused(bodies), 0);
	bodies_free(&bodies);
}

/* The oldest leaves in the middle: the next one takes its place. */
static void oldest_leaves(void **state)
{
	struct bodies *bodies = make(100000, 1000000);
	struct client a, b, c;

	(void)state;
	begin(&a, bodies);
	begin(&b, bodies);
	begin(&c, bodies);
	bring(&a, 200000);
	assert_false(a.stopped);
	bring(&b, 20000);
	assert_true(b.stopped);
	bring(&c, 130000);
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

/* However full the budget is, small bodies come in, and are no part of it. */
static void small_ones_never_wait(void **state)
{
	enum { N = 1000 };
	struct bodies *bodies = make(100000, 10 << 20);
	struct client large, waiting, *small = calloc(N, sizeof(*small));

	(void)state;
	assert_non_null(small);
	begin(&large, bodies);
	begin(&waiting, bodies);
	bring(&large, 5 << 20);
	bring(&waiting, 20000);
	assert_true(waiting.stopped);
	for (size_t i = 0; i < N; i++) {
		begin(&small[i], bodies);
		bring(&small[i], 10000);
		assert_false(small[i].stopped);
	}
	body_unref(&large.body);
	assert_false(waiting.stopped);
	for (size_t i = 0; i < N; i++) {
		bring(&small[i], BODY_FREE_BYTES - 10000);
		assert_false(small[i].stopped);
		body_unref(&small[i].body);
	}
	body_unref(&waiting.body);
	free(small);
	bodies_free(&bodies);
}

/* The largest leave room for what is not that large. */
static void medium_ones_have_a_share(void **state)
{
	struct bodies *bodies = make(8 << 20, 8 << 20);
	struct client a, b, medium;

	(void)state;
	begin(&a, bodies);
	begin(&b, bodies);
	begin(&medium, bodies);
	bring(&a, 6 << 20);
	bring(&b, (1 << 20) + (1 << 19));
	assert_true(b.stopped);
	bring(&medium, 100000);
	assert_false(medium.stopped);
	body_unref(&a.body);
	assert_false(b.stopped);
	body_unref(&b.body);
	body_unref(&medium.body);
	bodies_free(&bodies);
}

/* ---- The pace ---- */

struct sender {
	struct client client; /* first */
	struct timer *timer;
	size_t bytes_a_time;
	bool late;
};
static size_t n_late, late_wanted;
static struct bodies *young_bodies;
static uint64_t young_since_us;

static void on_late(void *arg)
{
	struct sender *sender = arg;

	sender->late = true;
	timer_disarm(sender->timer);
	body_unref(&sender->client.body);
	if (++n_late == late_wanted)
		loop_stop(loop);
}

static const struct body_events sender_events = {.on_read_on = on_read_on, .on_late = on_late};

static void send_some(void *arg)
{
	struct sender *sender = arg;

	if (!sender->client.stopped)
		bring(&sender->client, sender->bytes_a_time);
	timer_arm(sender->timer, 100);
}

static void start(struct sender *sender, struct bodies *bodies, size_t first, size_t bytes_a_time)
{
	*sender = (struct sender){
		.timer = timer_new(loop, send_some, sender), .bytes_a_time = bytes_a_time};
	sender->client.body = body_new(bodies, -1, &sender_events, sender);
	bring(&sender->client, first);
	if (bytes_a_time)
		timer_arm(sender->timer, 100);
}

static void stop(struct sender *sender)
{
	body_unref(&sender->client.body);
	timer_free(&sender->timer);
}

/* While somebody waits, who keeps the room and brings nothing, or a little, is late; who brings
 * enough, who waits, and who is small is not. */
static void slow_holders_are_late(void **state)
{
	struct bodies *bodies = make(16 << 20, 30 << 20); /* 1 MiB a second */
	struct sender silent, slow, fast, waiting, small;

	(void)state;
	start(&silent, bodies, 6 << 20, 0);
	start(&slow, bodies, 6 << 20, 1000);
	start(&fast, bodies, 1 << 19, 1 << 18); /* 2.5 MiB a second */
	start(&small, bodies, 10, 0);
	start(&waiting, bodies, 8 << 20, 1);
	assert_true(waiting.client.stopped);
	n_late = 0;
	late_wanted = 2;
	loop_run(loop);
	assert_true(silent.late && slow.late);
	assert_false(fast.late);
	assert_false(waiting.late);
	assert_false(small.late);
	assert_false(waiting.client.stopped);
	stop(&silent);
	stop(&slow);
	stop(&fast);
	stop(&waiting);
	stop(&small);
	bodies_free(&bodies);
}

/* While nobody waits, only the least pace counts. */
static void least_pace(void **state)
{
	struct bodies *bodies = bodies_new(loop, &(struct bodies_options){.budget_bytes = 16 << 20,
							 .max_body_bytes = 30 << 20,
							 .timeout_ms = 1000,
							 .least_bytes_s = 8192});
	struct sender slow, fast;

	(void)state;
	start(&fast, bodies, 100000, 3000);
	start(&slow, bodies, 100000, 200);
	n_late = 0;
	late_wanted = 1;
	loop_run(loop);
	assert_true(slow.late);
	assert_false(fast.late);
	stop(&slow);
	stop(&fast);
	bodies_free(&bodies);
}

static void start_young(void *arg)
{
	start(arg, young_bodies, 10, 0);
	young_since_us = loop_now_us(loop);
}

/* Time that passed before a body began is not its own. */
static void young_ones_are_not_late(void **state)
{
	struct bodies *bodies = bodies_new(loop, &(struct bodies_options){.budget_bytes = 16 << 20,
							 .max_body_bytes = 30 << 20,
							 .timeout_ms = 500,
							 .least_bytes_s = 8192});
	struct sender first, young;
	struct timer *later = timer_new(loop, start_young, &young);

	(void)state;
	young_bodies = bodies;
	start(&first, bodies, 100, 3000);
	timer_arm(later, 300);
	n_late = 0;
	late_wanted = 1;
	loop_run(loop);
	assert_true(young.late);
	assert_true(loop_now_us(loop) - young_since_us >= 500000);
	stop(&first);
	stop(&young);
	timer_free(&later);
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
		cmocka_unit_test(small_ones_never_wait),
		cmocka_unit_test(medium_ones_have_a_share),
		cmocka_unit_test(slow_holders_are_late),
		cmocka_unit_test(least_pace),
		cmocka_unit_test(young_ones_are_not_late),
	};

	fill();
	loop = loop_new();
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(&loop);
	return failed;
}
