#include "common/loop.h"

#include <stdlib.h>
#include <time.h>

#include <event2/event.h>

/* How often lag is looked at: a timer that should fire now, asked again. */
#define LAG_PROBE_MS      100
#define LAG_REPORT_PROBES 10

struct loop {
	struct event_base *base;
	struct event *deferred_event;
	struct deferred *deferred, **deferred_tail;

	struct timer *lag_timer;
	uint64_t lag_due_us, lag_worst_us;
	unsigned lag_probes;
	void (*lag_callback)(uint64_t lag_us, void *arg);
	void *lag_arg;
};

struct timer {
	struct event *event;
	void (*callback)(void *arg);
	void *arg;
};

static uint64_t clock_us(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void run_deferred(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct loop *loop = arg;
	/* What is deferred while this list runs goes on a new list, so that it cannot starve I/O.
	 */
	struct deferred *list = loop->deferred;
	if (!list)
		return;
	list->prev = &list;
	loop->deferred = NULL;
	loop->deferred_tail = &loop->deferred;
	/* The last element's `next` slot may be the saved tail: elements leave through their own
	 * links. */
	while (list) {
		struct deferred *d = list;
		list = d->next;
		if (list)
			list->prev = &list;
		d->next = NULL;
		d->prev = NULL;
		d->callback(d->arg);
	}
}

struct loop *loop_new(void)
{
	struct loop *loop = calloc(1, sizeof *loop);
	if (!loop)
		return NULL;
	loop->deferred_tail = &loop->deferred;
	struct event_config *config = event_config_new();
	if (!config)
		goto fail_loop;
	event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
	loop->base = event_base_new_with_config(config);
	event_config_free(config);
	if (!loop->base)
		goto fail_loop;
	loop->deferred_event = event_new(loop->base, -1, 0, run_deferred, loop);
	if (!loop->deferred_event)
		goto fail_base;
	return loop;

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
	timer_free(&l->lag_timer);
	event_free(l->deferred_event);
	event_base_free(l->base);
	free(l);
}

struct event_base *loop_base(struct loop *loop)
{
	return loop->base;
}

void loop_run(struct loop *loop)
{
	event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
}

void loop_stop(struct loop *loop)
{
	event_base_loopbreak(loop->base);
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

static void timer_fired(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct timer *timer = arg;
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
	struct timeval t = {.tv_sec = (time_t)(delay_ms / 1000),
		.tv_usec = (suseconds_t)(delay_ms % 1000 * 1000)};
	evtimer_add(timer->event, &t);
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
	if (!loop->deferred)
		event_active(loop->deferred_event, EV_TIMEOUT, 0);
	d->next = NULL;
	d->prev = loop->deferred_tail;
	*loop->deferred_tail = d;
	loop->deferred_tail = &d->next;
}

void loop_defer_cancel(struct loop *loop, struct deferred *d)
{
	if (!d->prev)
		return;
	*d->prev = d->next;
	if (d->next)
		d->next->prev = d->prev;
	else if (loop->deferred_tail == &d->next)
		loop->deferred_tail = d->prev;
	d->next = NULL;
	d->prev = NULL;
}

static void probe_lag(void *arg)
{
	struct loop *loop = arg;
	uint64_t now = clock_us(CLOCK_MONOTONIC);
	if (now > loop->lag_due_us && now - loop->lag_due_us > loop->lag_worst_us)
		loop->lag_worst_us = now - loop->lag_due_us;
	if (++loop->lag_probes == LAG_REPORT_PROBES) {
		loop->lag_callback(loop->lag_worst_us, loop->lag_arg);
		loop->lag_worst_us = 0;
		loop->lag_probes = 0;
	}
	loop->lag_due_us = now + LAG_PROBE_MS * 1000;
	timer_arm(loop->lag_timer, LAG_PROBE_MS);
}

void loop_observe_lag(struct loop *loop, void (*callback)(uint64_t lag_us, void *arg), void *arg)
{
	timer_free(&loop->lag_timer);
	loop->lag_callback = callback;
	loop->lag_arg = arg;
	if (!callback)
		return;
	loop->lag_timer = timer_new(loop, probe_lag, loop);
	if (!loop->lag_timer)
		return;
	loop->lag_due_us = clock_us(CLOCK_MONOTONIC) + LAG_PROBE_MS * 1000;
	timer_arm(loop->lag_timer, LAG_PROBE_MS);
}
