#ifndef COMMON_LOOP_H
#define COMMON_LOOP_H

/*
 * The event loop of a process: libevent's, with what every part of a daemon needs beside it: the
 * time, timers, and work put off to the end of the turn (so that nothing is freed inside a callback
 * chain). Loop thread only, loop_now_us() apart.
 *
 * Files that own a descriptor use loop_base() and libevent; all others see timers and deferred
 * work.
 */
#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct loop;
struct reclaim_queue;

/* NULL only when out of memory or descriptors. */
struct loop *loop_new(void);
/* Work that is still deferred runs first (it may be what frees something). */
void loop_free(struct loop **loop);
struct event_base *loop_base(struct loop *loop);

/* Run until loop_stop(). */
void loop_run(struct loop *loop);
/* End loop_run() after the callbacks of this turn; before loop_run(): after its first turn. */
void loop_stop(struct loop *loop);

/* Monotonic microseconds, now. */
uint64_t loop_now_us(const struct loop *loop);
/* Work of many pieces leaves the rest to a later turn after so long, by loop_now_us(): a number of
 * pieces or bytes takes ten times as long on a busy machine with fresh memory. See loop_queue(). */
#define LOOP_SLICE_US 500
/* Wall-clock milliseconds since 1970, read once a turn. */
uint64_t loop_wall_ms(const struct loop *loop);

/* The most processor time that one turn of loop_run() took so far: all callbacks that were due in
 * it (and some that went before, of 0.25 ms together at most), so no single one took more. */
uint64_t loop_turn_cpu_max_us(const struct loop *loop);
/*
 * How many turns took more than LOOP_LONG_TURN_US of it, and more than LOOP_STUCK_TURN_US. The
 * clock of a thread that loses its processor goes on for as long as it takes the machine to notice,
 * milliseconds on a virtual one: so long turns in which that happened, or in the 10 ms before, are
 * counted apart (preempted), and tell of the machine at least as much as of the turn. A line of the
 * log, level debug, tells of each long turn.
 */
#define LOOP_LONG_TURN_US  5000
#define LOOP_STUCK_TURN_US 20000
uint64_t loop_turns_long(const struct loop *loop, bool preempted);
uint64_t loop_turns_stuck(const struct loop *loop);

/*
 * A one-shot timer, owned by who made it. Arming an armed timer moves it. The callback may arm,
 * disarm or free its own timer. It is never early, and late by some milliseconds at most while the
 * loop turns.
 */
struct timer;
struct timer *timer_new(struct loop *loop, void (*callback)(void *arg), void *arg);
void timer_arm(struct timer *timer, uint64_t delay_ms);
void timer_disarm(struct timer *timer);
bool timer_armed(const struct timer *timer);
void timer_free(struct timer **timer);

/*
 * Work for later in this turn, or the next one if called from deferred work: runs once, after the
 * callback that asked for it has returned. The struct lives inside its owner and must stay valid
 * until the work ran or was cancelled. Scheduling scheduled work changes nothing.
 */
struct deferred {
	void (*callback)(void *arg);
	void *arg;
	struct deferred *next, **prev; /* private; prev is NULL while not scheduled */
};
void deferred_init(struct deferred *d, void (*callback)(void *arg), void *arg);
void loop_defer(struct loop *loop, struct deferred *d);
void loop_defer_cancel(struct loop *loop, struct deferred *d);
static inline bool deferred_scheduled(const struct deferred *d)
{
	return d->prev;
}

/*
 * Work that can wait, in pieces: what is put here runs in the order in which it was put, in this
 * turn and later ones, for LOOP_SLICE_US a turn and all of it together, but one piece at least.
 * Whoever has more to do puts itself again, behind the others. So a turn stays short however many
 * have much to do; and one who has little to do, in the callback of its own event, does not wait
 * for them. A piece is short: a quarter of LOOP_SLICE_US is a good size. What it defers runs in the
 * same turn. Cancelled by loop_defer_cancel(); a struct is either deferred or in the queue.
 */
void loop_queue(struct loop *loop, struct deferred *d);
/* The callbacks of this turn have used LOOP_SLICE_US (in the queue: the queue has): what can wait
 * is to be put into the queue. Counted from the first question in a turn. */
bool loop_slice_is_over(struct loop *loop);
/* Twice that much is used: not even what would save work later. */
bool loop_turn_is_full(struct loop *loop);

/*
 * Sleep for so long (at most LOOP_GATHER_MAX_US) before the loop looks for events next, once, so
 * that more of them come together: each turn, and each time that the process falls asleep and is
 * woken, costs the same for one event and for ten. Everything waits that long, so only for a
 * process that has just seen that it is busy.
 */
#define LOOP_GATHER_MAX_US 50
void loop_gather(struct loop *loop, unsigned us);

/* For common/reclaim alone. */
struct reclaim_queue *loop_reclaim_queue(struct loop *loop);

/*
 * Called once a second with the lag: for how many microseconds a timer that was due waited for the
 * loop. One observer; NULL ends it.
 */
void loop_observe_lag(struct loop *loop, void (*callback)(uint64_t lag_us, void *arg), void *arg);

#endif
