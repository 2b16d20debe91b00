#include "common/loop.h"

#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"
#include "common/reclaim.h"

#define LAG_PROBE_S 1
/* Turns together shorter than this are told as part of the next one. */
#define UNSEEN_MOST_US 250
/* The kernel's counts of the thread are asked for when they are so old, and for a long turn. */
#define USAGE_MOST_US 10000
#define TIMER_MAX_MS  (UINT64_C(1000) * 60 * 60 * 24 * 365)

struct deferred_list {
	struct deferred *first, **tail;
};

struct loop {
	struct event_base *base;
	bool stopping;
	uint64_t turn_cpu_max_us, turns_long[2], turns_stuck; /* long: [preempted] */
	uint64_t cpu_us, now_us; /* at the last look, and at the end of the last turn */
	struct rusage usage;     /* of this thread, at usage_us */
	uint64_t usage_us;
	uint64_t unseen_us; /* turns since the last look took at most this, waiting included */
	struct event *stop_event;

	/* Of what is put off: made active for later in this turn, timed for the next. */
	struct event *end_event;
	bool end_is_due, in_end;
	struct deferred_list queue, deferred;
	uint64_t slice_until_us;          /* 0: nobody asked yet in this turn */
	bool slice_is_over, turn_is_full; /* for the rest of it: the clock is not asked again */

	unsigned gather_us; /* 0: no */
	bool sleeps_exactly;

	struct reclaim_queue reclaim;

	int lag_fd; /* a periodic timerfd: as exact as the kernel, whatever clock libevent uses */
	struct event *lag_event;
	uint64_t lag_due_us;
	void (*lag_callback)(uint64_t lag_us, void *arg);
	void *lag_arg;
};

struct timer {
	struct event *event;
	uint64_t due_us;
	void (*callback)(void *arg);
	void *arg;
};

static uint64_t clock_us(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int64_t timeval_us(const struct timeval *t)
{
	return (int64_t)t->tv_sec * 1000000 + t->tv_usec;
}

static void list_init(struct deferred_list *list)
{
	*list = (struct deferred_list){.tail = &list->first};
}

static void list_add(struct deferred_list *list, struct deferred *d)
{
	d->next = NULL;
	d->prev = list->tail;
	*list->tail = d;
	list->tail = &d->next;
}

static void list_remove(struct loop *loop, struct deferred *d)
{
	*d->prev = d->next;
	if (d->next)
		d->next->prev = d->prev;
	else if (loop->queue.tail == &d->next)
		loop->queue.tail = d->prev;
	else if (loop->deferred.tail == &d->next)
		loop->deferred.tail = d->prev;
	d->next = NULL;
	d->prev = NULL;
}

static void run_one(struct loop *loop, struct deferred *d)
{
	list_remove(loop, d);
	d->callback(d->arg);
}

static void begin_slice(struct loop *loop, uint64_t until_us)
{
	loop->slice_until_us = until_us;
	loop->slice_is_over = loop->turn_is_full = false;
}

bool loop_slice_is_over(struct loop *loop)
{
	if (loop->slice_is_over)
		return true;
	uint64_t now_us = clock_us(CLOCK_MONOTONIC);
	if (loop->slice_until_us == 0)
		loop->slice_until_us = now_us + LOOP_SLICE_US;
	return loop->slice_is_over = now_us >= loop->slice_until_us;
}

bool loop_turn_is_full(struct loop *loop)
{
	if (!loop->slice_is_over || loop->turn_is_full)
		return loop->turn_is_full;
	uint64_t full_us = loop->slice_until_us + LOOP_SLICE_US;
	return loop->turn_is_full = clock_us(CLOCK_MONOTONIC) >= full_us;
}

static void run_queue(struct loop *loop)
{
	/* A slice of its own, or a flood of events would be all that is served. */
	begin_slice(loop, clock_us(CLOCK_MONOTONIC) + LOOP_SLICE_US);
	while (loop->queue.first) {
		run_one(loop, loop->queue.first);
		if (loop_slice_is_over(loop))
			return;
	}
}

static void run_deferred(struct loop *loop)
{
	/* What is deferred while this list runs goes on a new list. */
	struct deferred *list = loop->deferred.first;
	if (!list)
		return;
	list->prev = &list;
	list_init(&loop->deferred);
	while (list)
		run_one(loop, list);
}

static void end_due(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct loop *loop = arg;
	loop->in_end = true;
	/* What the events of this turn have made is on its way before those who wait are served. */
	run_deferred(loop);
	if (loop->queue.first) {
		run_queue(loop);
		run_deferred(loop);
	}
	loop->in_end = false;
	begin_slice(loop, 0);
	/* Made active from here it would run again in this turn, before any I/O. */
	loop->end_is_due = loop->queue.first || loop->deferred.first;
	if (loop->end_is_due)
		evtimer_add(loop->end_event, &(struct timeval){0});
}

static void arm_end(struct loop *loop)
{
	if (loop->end_is_due || loop->in_end)
		return;
	loop->end_is_due = true;
	event_active(loop->end_event, EV_TIMEOUT, 0);
}

static void stop_due(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct loop *loop = arg;
	event_base_loopbreak(loop->base);
}

struct loop *loop_new(void)
{
	struct loop *loop = calloc(1, sizeof *loop);
	if (!loop)
		return NULL;
	loop->lag_fd = -1;
	list_init(&loop->queue);
	list_init(&loop->deferred);
	reclaim_queue_init(&loop->reclaim, loop);
	/* No EVENT_BASE_FLAG_PRECISE_TIMER: with it libevent sets a timerfd in every turn, one
	 * system call more for each. Timers see to it themselves that they are never early. */
	loop->base = event_base_new();
	if (!loop->base)
		goto fail_loop;
	loop->end_event = event_new(loop->base, -1, 0, end_due, loop);
	if (!loop->end_event)
		goto fail_base;
	loop->stop_event = event_new(loop->base, -1, 0, stop_due, loop);
	if (!loop->stop_event)
		goto fail_end;
	return loop;

fail_end:
	event_free(loop->end_event);
fail_base:
	event_base_free(loop->base);
fail_loop:
	free(loop);
	return NULL;
}

void loop_free(struct loop **loop)
{
	struct loop *l = *loop;
	if (!l)
		return;
	*loop = NULL;
	loop_observe_lag(l, NULL, NULL);
	while (l->queue.first || l->deferred.first) {
		run_queue(l);
		run_deferred(l);
	}
	event_free(l->stop_event);
	event_free(l->end_event);
	event_base_free(l->base);
	free(l);
}

struct event_base *loop_base(struct loop *loop)
{
	return loop->base;
}

static void count_long_turn(struct loop *loop, uint64_t spent_us, const struct rusage *usage)
{
	long preemptions = usage->ru_nivcsw - loop->usage.ru_nivcsw;
	loop->turns_long[preemptions > 0]++;
	loop->turns_stuck += spent_us > LOOP_STUCK_TURN_US;
	log_fields(LOG_LEVEL_DEBUG, NULL, "loop: a long turn", LOG_INT("cpu_us", spent_us),
		LOG_INT("system_us",
			timeval_us(&usage->ru_stime) - timeval_us(&loop->usage.ru_stime)),
		LOG_INT("page_faults", usage->ru_minflt - loop->usage.ru_minflt),
		LOG_INT("preemptions", preemptions));
}

static void look_at_usage(struct loop *loop, uint64_t spent_us)
{
	struct rusage usage = {0};
	getrusage(RUSAGE_THREAD, &usage);
	if (spent_us > LOOP_LONG_TURN_US)
		count_long_turn(loop, spent_us, &usage);
	loop->usage = usage;
	loop->usage_us = loop->now_us;
}

/*
 * How much processor time the turn took; waiting takes none. To ask for it is a system call, unlike
 * the time of day: turns that cannot have taken much, since no more time has passed, are counted
 * with the next one.
 */
static void look_at_turn(struct loop *loop)
{
	uint64_t now_us = clock_us(CLOCK_MONOTONIC);
	begin_slice(loop, 0);
	loop->unseen_us += now_us - loop->now_us;
	loop->now_us = now_us;
	if (loop->unseen_us < UNSEEN_MOST_US)
		return;
	uint64_t cpu_us = clock_us(CLOCK_THREAD_CPUTIME_ID);
	uint64_t spent_us = cpu_us - loop->cpu_us;
	if (spent_us > loop->turn_cpu_max_us)
		loop->turn_cpu_max_us = spent_us;
	if (spent_us > LOOP_LONG_TURN_US || now_us - loop->usage_us > USAGE_MOST_US)
		look_at_usage(loop, spent_us);
	loop->cpu_us = cpu_us;
	loop->unseen_us = 0;
}

void loop_gather(struct loop *loop, unsigned us)
{
	loop->gather_us = us < LOOP_GATHER_MAX_US ? us : LOOP_GATHER_MAX_US;
}

static void gather(struct loop *loop)
{
	struct timespec t = {.tv_nsec = loop->gather_us * 1000L};

	/* Unless told, the kernel adds up to 50 us, so that timers come together. */
	if (!loop->sleeps_exactly)
		prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
	loop->sleeps_exactly = true;
	loop->gather_us = 0;
	nanosleep(&t, NULL);
}

void loop_run(struct loop *loop)
{
	/* libevent ends by itself only on an error of epoll_wait(): go on, there is nobody else. */
	loop->cpu_us = clock_us(CLOCK_THREAD_CPUTIME_ID);
	loop->now_us = clock_us(CLOCK_MONOTONIC);
	look_at_usage(loop, 0);
	while (!loop->stopping) {
		event_base_loop(loop->base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY);
		look_at_turn(loop);
		if (loop->gather_us)
			gather(loop);
	}
	loop->stopping = false;
}

void loop_stop(struct loop *loop)
{
	/* Active events run in order, so this one comes after what the turn has to do. */
	if (!loop->stopping)
		event_active(loop->stop_event, EV_TIMEOUT, 0);
	loop->stopping = true;
}

uint64_t loop_turn_cpu_max_us(const struct loop *loop)
{
	return loop->turn_cpu_max_us;
}

uint64_t loop_turns_long(const struct loop *loop, bool preempted)
{
	return loop->turns_long[preempted];
}

uint64_t loop_turns_stuck(const struct loop *loop)
{
	return loop->turns_stuck;
}

uint64_t loop_now_us(const struct loop *loop)
{
	(void)loop;
	return clock_us(CLOCK_MONOTONIC);
}

uint64_t loop_wall_ms(const struct loop *loop)
{
	struct timeval t;
	event_base_gettimeofday_cached(loop->base, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_usec / 1000;
}

static void timer_add(struct timer *timer, uint64_t delay_us)
{
	/* Rounded up: epoll_wait() counts milliseconds. */
	uint64_t delay_ms = (delay_us + 999) / 1000;
	struct timeval t = {.tv_sec = (time_t)(delay_ms / 1000),
		.tv_usec = (suseconds_t)(delay_ms % 1000 * 1000)};
	evtimer_add(timer->event, &t);
}

static void timer_fired(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct timer *timer = arg;
	/* libevent counts from the start of the turn and by a clock of some milliseconds a tick. */
	uint64_t now = clock_us(CLOCK_MONOTONIC);
	if (now < timer->due_us) {
		timer_add(timer, timer->due_us - now);
		return;
	}
	timer->callback(timer->arg);
}

struct timer *timer_new(struct loop *loop, void (*callback)(void *arg), void *arg)
{
	struct timer *timer = calloc(1, sizeof *timer);
	if (!timer)
		return NULL;
	timer->callback = callback;
	timer->arg = arg;
	timer->event = evtimer_new(loop->base, timer_fired, timer);
	if (!timer->event) {
		free(timer);
		return NULL;
	}
	return timer;
}

void timer_arm(struct timer *timer, uint64_t delay_ms)
{
	if (delay_ms > TIMER_MAX_MS)
		delay_ms = TIMER_MAX_MS;
	timer->due_us = clock_us(CLOCK_MONOTONIC) + delay_ms * 1000;
	timer_add(timer, delay_ms * 1000);
}

void timer_disarm(struct timer *timer)
{
	evtimer_del(timer->event);
}

bool timer_armed(const struct timer *timer)
{
	return evtimer_pending(timer->event, NULL) != 0;
}

void timer_free(struct timer **timer)
{
	struct timer *t = *timer;
	if (!t)
		return;
	*timer = NULL;
	event_free(t->event);
	free(t);
}

void deferred_init(struct deferred *d, void (*callback)(void *arg), void *arg)
{
	*d = (struct deferred){.callback = callback, .arg = arg};
}

void loop_defer(struct loop *loop, struct deferred *d)
{
	if (d->prev)
		return;
	list_add(&loop->deferred, d);
	arm_end(loop);
}

void loop_queue(struct loop *loop, struct deferred *d)
{
	if (d->prev)
		return;
	list_add(&loop->queue, d);
	arm_end(loop);
}

void loop_defer_cancel(struct loop *loop, struct deferred *d)
{
	if (d->prev)
		list_remove(loop, d);
}

struct reclaim_queue *loop_reclaim_queue(struct loop *loop)
{
	return &loop->reclaim;
}

static void probe_lag(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	struct loop *loop = arg;
	uint64_t expirations;
	if (read(fd, &expirations, sizeof expirations) != sizeof expirations)
		return;
	uint64_t now = clock_us(CLOCK_MONOTONIC);
	uint64_t lag = now > loop->lag_due_us ? now - loop->lag_due_us : 0;
	loop->lag_due_us += expirations * LAG_PROBE_S * 1000000;
	loop->lag_callback(lag, loop->lag_arg);
}

void loop_observe_lag(struct loop *loop, void (*callback)(uint64_t lag_us, void *arg), void *arg)
{
	if (loop->lag_event)
		event_free(loop->lag_event);
	loop->lag_event = NULL;
	if (loop->lag_fd >= 0)
		close(loop->lag_fd);
	loop->lag_fd = -1;
	loop->lag_callback = callback;
	loop->lag_arg = arg;
	if (!callback)
		return;
	/* Without a descriptor there is no lag to be seen: a daemon that short of them has other
	 * worries. */
	loop->lag_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (loop->lag_fd < 0)
		return;
	struct itimerspec period = {
		.it_interval.tv_sec = LAG_PROBE_S, .it_value.tv_sec = LAG_PROBE_S};
	loop->lag_due_us = clock_us(CLOCK_MONOTONIC) + LAG_PROBE_S * 1000000;
	timerfd_settime(loop->lag_fd, 0, &period, NULL);
	loop->lag_event = event_new(
		loop->base, loop->lag_fd, EV_READ | EV_PERSIST, probe_lag, loop);
	if (loop->lag_event)
		event_add(loop->lag_event, NULL);
}
