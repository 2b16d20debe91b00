#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "common/loop.h"

static struct loop *loop;
static char order[64];

static void note(char c)
{
	size_t n = strlen(order);
	if (n + 1 < sizeof order) {
		order[n] = c;
		order[n + 1] = '\0';
	}
}

static int make_loop(void **state)
{
	(void)state;
	order[0] = '\0';
	loop = loop_new();
	return loop ? 0 : -1;
}

static int free_loop(void **state)
{
	(void)state;
	loop_free(&loop);
	return 0;
}

static void stop(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

static void fired(void *arg)
{
	note(*(const char *)arg);
	if (*(const char *)arg == 'c')
		loop_stop(loop);
}

static void timers_fire_in_order_and_never_early(void **state)
{
	(void)state;
	static const uint64_t delays[] = {10, 1, 30};
	struct timer *timers[3];
	uint64_t start = loop_now_us(loop);
	for (int i = 0; i < 3; i++) {
		timers[i] = timer_new(loop, fired, (void *)&"bac"[i]);
		timer_arm(timers[i], delays[i]);
		assert_true(timer_armed(timers[i]));
	}
	loop_run(loop);
	assert_string_equal(order, "abc");
	assert_true(loop_now_us(loop) - start >= 30000);
	for (int i = 0; i < 3; i++) {
		assert_false(timer_armed(timers[i]));
		timer_free(&timers[i]);
	}
}

/* A turn that takes long before it arms: libevent counts from the turn's start. */
static uint64_t armed_us, fired_us;
static void late_fired(void *arg)
{
	(void)arg;
	fired_us = loop_now_us(loop);
	loop_stop(loop);
}
static void block_then_arm(void *arg)
{
	uint64_t until = loop_now_us(loop) + 20000;
	while (loop_now_us(loop) < until)
		;
	armed_us = loop_now_us(loop);
	timer_arm(arg, 25);
}

static void timer_counts_from_when_it_was_armed(void **state)
{
	(void)state;
	struct timer *late = timer_new(loop, late_fired, NULL);
	struct timer *first = timer_new(loop, block_then_arm, late);
	timer_arm(first, 0);
	loop_run(loop);
	assert_true(fired_us - armed_us >= 25000);
	timer_free(&first);
	timer_free(&late);
}

static void free_own_timer(void *arg)
{
	timer_free(arg);
	note('f');
}

static void timer_may_free_or_rearm_itself(void **state)
{
	(void)state;
	struct timer *own = timer_new(loop, free_own_timer, &own);
	struct timer *end = timer_new(loop, stop, NULL);
	struct timer *off = timer_new(loop, fired, (void *)"x");
	timer_arm(own, 1);
	timer_arm(off, 1);
	timer_disarm(off);
	timer_arm(end, 60000);
	timer_arm(end, 10);
	loop_run(loop);
	assert_null(own);
	assert_string_equal(order, "f");
	timer_free(&own);
	timer_free(&off);
	timer_free(&end);
}

static struct deferred work[4];

static void run_work(void *arg)
{
	note(*(const char *)arg);
}

static void defer_some(void *arg)
{
	(void)arg;
	for (int i = 0; i < 4; i++)
		loop_defer(loop, &work[i]);
	loop_defer(loop, &work[1]);
	note('(');
	loop_defer_cancel(loop, &work[3]);
	loop_defer_cancel(loop, &work[3]);
	note(')');
	loop_stop(loop);
}

static void deferred_runs_after_the_callback_in_order(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++)
		deferred_init(&work[i], run_work, (void *)&"abcd"[i]);
	struct timer *kick = timer_new(loop, defer_some, NULL);
	timer_arm(kick, 0);
	loop_run(loop);
	assert_string_equal(order, "()abc");
	timer_free(&kick);
}

/* The first to run cancels itself, its neighbour and the last, then asks for the last again. */
static void cancel_others(void *arg)
{
	(void)arg;
	note('!');
	loop_defer_cancel(loop, &work[0]);
	loop_defer_cancel(loop, &work[1]);
	loop_defer_cancel(loop, &work[3]);
	loop_defer(loop, &work[3]);
	loop_stop(loop);
}

static void deferred_may_be_cancelled_while_the_list_runs(void **state)
{
	(void)state;
	deferred_init(&work[0], cancel_others, NULL);
	for (int i = 1; i < 4; i++)
		deferred_init(&work[i], run_work, (void *)&"abcd"[i]);
	for (int i = 0; i < 4; i++)
		loop_defer(loop, &work[i]);
	loop_run(loop);
	assert_string_equal(order, "!c");
	loop_free(&loop);
	assert_string_equal(order, "!cd"); /* loop_free() runs what is left */
}

static int turns;
static void again(void *arg)
{
	(void)arg;
	if (++turns < 1000000)
		loop_defer(loop, &work[0]);
}

static void readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	loop_defer_cancel(loop, &work[0]);
	loop_stop(loop);
}

static void work_that_defers_itself_does_not_starve_io(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	struct event *event = event_new(loop_base(loop), fds[0], EV_READ, readable, NULL);
	deferred_init(&work[0], again, NULL);
	loop_defer(loop, &work[0]);
	event_add(event, NULL);
	loop_run(loop);
	assert_in_range(turns, 1, 10);
	event_free(event);
	close(fds[0]);
	close(fds[1]);
}

/* Pieces that take half a slice each; an event that is always ready counts the turns. */
enum { N_PIECES = 12 };
static struct deferred pieces[N_PIECES];
static int ran[N_PIECES], n_ran, ran_this_turn, ran_most;

static void spin(uint64_t us)
{
	uint64_t until = loop_now_us(loop) + us;
	while (loop_now_us(loop) < until)
		;
}

static void run_piece(void *arg)
{
	struct deferred *piece = arg;
	spin(LOOP_SLICE_US / 2);
	ran[n_ran++] = (int)(piece - pieces);
	if (++ran_this_turn > ran_most)
		ran_most = ran_this_turn;
	if (n_ran == N_PIECES)
		loop_stop(loop);
}

static void next_turn(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	turns++;
	ran_this_turn = 0;
}

static void the_queue_is_served_a_slice_a_turn(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	struct event *event = event_new(
		loop_base(loop), fds[0], EV_READ | EV_PERSIST, next_turn, NULL);
	event_add(event, NULL);
	turns = n_ran = ran_this_turn = ran_most = 0;
	for (int i = 0; i < N_PIECES; i++) {
		deferred_init(&pieces[i], run_piece, &pieces[i]);
		loop_queue(loop, &pieces[i]);
		loop_queue(loop, &pieces[i]);
	}
	loop_run(loop);
	/* Two fill the slice; on a busy machine one does. */
	assert_in_range(ran_most, 1, 2);
	assert_true(turns >= N_PIECES / 2 - 1);
	for (int i = 0; i < N_PIECES; i++)
		assert_int_equal(ran[i], i);
	event_free(event);
	close(fds[0]);
	close(fds[1]);
}

static int served, queued, served_at_once;

static void serve_from_queue(void *arg)
{
	(void)arg;
	spin(LOOP_SLICE_US / 4);
	if (++served == N_PIECES)
		loop_stop(loop);
}

/* As a connection does it: at once while the slice lasts. */
static void serve(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	char byte;
	assert_int_equal(read(fd, &byte, 1), 1);
	if (loop_slice_is_over(loop)) {
		queued++;
		loop_queue(loop, arg);
		return;
	}
	served_at_once++;
	serve_from_queue(arg);
}

static void many_events_share_a_slice(void **state)
{
	(void)state;
	int fds[N_PIECES][2];
	struct event *events[N_PIECES];
	served = queued = served_at_once = 0;
	for (int i = 0; i < N_PIECES; i++) {
		assert_int_equal(pipe(fds[i]), 0);
		assert_int_equal(write(fds[i][1], "x", 1), 1);
		deferred_init(&pieces[i], serve_from_queue, NULL);
		events[i] = event_new(loop_base(loop), fds[i][0], EV_READ, serve, &pieces[i]);
		event_add(events[i], NULL);
	}
	loop_run(loop);
	assert_int_equal(served, N_PIECES);
	assert_in_range(served_at_once, 1, 4);
	assert_int_equal(queued, N_PIECES - served_at_once);
	for (int i = 0; i < N_PIECES; i++) {
		event_free(events[i]);
		close(fds[i][0]);
		close(fds[i][1]);
	}
}

static void queue_and_defer(void *arg)
{
	(void)arg;
	loop_defer(loop, &work[0]);
	loop_queue(loop, &work[1]);
	loop_queue(loop, &work[2]);
	loop_queue(loop, &work[3]);
	loop_defer_cancel(loop, &work[3]);
	loop_stop(loop);
}

static void the_queue_comes_after_what_is_deferred(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++)
		deferred_init(&work[i], run_work, (void *)&"dqrx"[i]);
	struct timer *kick = timer_new(loop, queue_and_defer, NULL);
	timer_arm(kick, 0);
	loop_run(loop);
	timer_free(&kick);
	loop_free(&loop);
	assert_string_equal(order, "dqr");
}

static void stop_before_run_ends_the_first_turn(void **state)
{
	(void)state;
	loop_stop(loop);
	loop_stop(loop);
	loop_run(loop);
	/* And the loop can run again. */
	struct timer *end = timer_new(loop, stop, NULL);
	timer_arm(end, 1);
	loop_run(loop);
	timer_free(&end);
}

static uint64_t turns_us[2];
static void two_turns(void *arg)
{
	if (!turns_us[0]) {
		turns_us[0] = loop_now_us(loop);
		loop_gather(loop, 60 * 1000000);
		loop_defer(loop, arg);
	} else {
		turns_us[1] = loop_now_us(loop);
		loop_stop(loop);
	}
}

static void gathering_puts_the_next_turn_off_but_not_for_long(void **state)
{
	(void)state;
	struct deferred d;

	deferred_init(&d, two_turns, &d);
	loop_defer(loop, &d);
	loop_run(loop);
	assert_in_range(turns_us[1] - turns_us[0], LOOP_GATHER_MAX_US, 30 * 1000000);
}

static uint64_t seen_lag_us;
static int lag_reports;
static void saw_lag(uint64_t lag_us, void *arg)
{
	(void)arg;
	seen_lag_us = lag_us;
	lag_reports++;
	loop_stop(loop);
}
static void hog(void *arg)
{
	(void)arg;
	uint64_t until = loop_now_us(loop) + 400000;
	while (loop_now_us(loop) < until)
		;
}

static void lag_is_seen(void **state)
{
	(void)state;
	struct timer *busy = timer_new(loop, hog, NULL);
	loop_observe_lag(loop, saw_lag, NULL);
	timer_arm(busy, 700); /* busy from 0.7 s to 1.1 s: the probe at 1 s waits 0.1 s */
	loop_run(loop);
	assert_int_equal(lag_reports, 1);
	assert_in_range(seen_lag_us, 50000, 5000000);
	loop_observe_lag(loop, NULL, NULL);
	timer_free(&busy);
}

/* Keeps the processor busy that the loop's thread is bound to. */
static atomic_bool rival_stops;

static void *be_a_rival(void *arg)
{
	(void)arg;
	while (!atomic_load(&rival_stops))
		;
	return NULL;
}

static void work_long(void *arg)
{
	struct timespec t;
	do
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	while (t.tv_sec * 1000000 + t.tv_nsec / 1000 < *(long *)arg);
	loop_stop(loop);
}

/* Some tens of milliseconds are more than any scheduler gives one of two. */
static void a_long_turn_without_the_processor_is_counted_apart(void **state)
{
	(void)state;
	cpu_set_t all, one;
	pthread_t rival;
	if (sched_getaffinity(0, sizeof all, &all) != 0)
		skip();
	CPU_ZERO(&one);
	CPU_SET((size_t)sched_getcpu(), &one);
	if (sched_setaffinity(0, sizeof one, &one) != 0)
		skip();
	atomic_store(&rival_stops, false);
	assert_int_equal(pthread_create(&rival, NULL, be_a_rival, NULL), 0);
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	long until_us = now.tv_sec * 1000000 + now.tv_nsec / 1000 + 60000;
	struct timer *timer = timer_new(loop, work_long, &until_us);
	timer_arm(timer, 0);
	loop_run(loop);
	atomic_store(&rival_stops, true);
	pthread_join(rival, NULL);
	timer_free(&timer);
	sched_setaffinity(0, sizeof all, &all);
	assert_int_equal(loop_turns_long(loop, true), 1);
	assert_int_equal(loop_turns_long(loop, false), 0);
	assert_int_equal(loop_turns_stuck(loop), 1);
	assert_in_range(loop_turn_cpu_max_us(loop), 50000, 10000000);
}

static void wall_clock_is_the_systems(void **state)
{
	(void)state;
	uint64_t before = (uint64_t)time(NULL) * 1000;
	uint64_t now = loop_wall_ms(loop);
	assert_in_range(now, before, before + 60000);
}

int main(void)
{
#define on_a_loop(test) cmocka_unit_test_setup_teardown(test, make_loop, free_loop)
	const struct CMUnitTest tests[] = {
		on_a_loop(timers_fire_in_order_and_never_early),
		on_a_loop(timer_counts_from_when_it_was_armed),
		on_a_loop(timer_may_free_or_rearm_itself),
		on_a_loop(deferred_runs_after_the_callback_in_order),
		on_a_loop(deferred_may_be_cancelled_while_the_list_runs),
		on_a_loop(work_that_defers_itself_does_not_starve_io),
		on_a_loop(the_queue_is_served_a_slice_a_turn),
		on_a_loop(many_events_share_a_slice),
		on_a_loop(the_queue_comes_after_what_is_deferred),
		on_a_loop(stop_before_run_ends_the_first_turn),
		on_a_loop(gathering_puts_the_next_turn_off_but_not_for_long),
		on_a_loop(lag_is_seen),
		on_a_loop(a_long_turn_without_the_processor_is_counted_apart),
		on_a_loop(wall_clock_is_the_systems),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
