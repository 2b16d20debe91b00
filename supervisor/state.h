#ifndef SUPERVISOR_STATE_H
#define SUPERVISOR_STATE_H

/*
 * What a process can be in, what can happen to it, and what follows: one table. The states are
 * supervisord's. Pure; supervisor/process.c translates the world into events and carries actions
 * out.
 *
 *             START                  UP                     STOP
 *   STOPPED ─────────▶ STARTING ──────────▶ RUNNING ─────────────────────▶ STOPPING ──▶ STOPPED
 *                       ▲   │                  │ │ ENDED                       (GONE)
 *                 RETRY │   │ FAILED           │ └──────▶ EXITED ── START ──▶ STARTING
 *                       │   ▼                  │ FAILED
 *                     BACKOFF ◀────────────────┘        FAILED_LAST ──▶ FATAL ── START ──▶ STARTING
 */
enum process_state {
	STATE_STOPPED,  /* not started yet, or stopped on request */
	STATE_STARTING, /* has a process that is not up yet */
	STATE_RUNNING,  /* ready, or alive for startsecs where readiness is not asked for */
	STATE_BACKOFF,  /* ended too soon; waits before the next try */
	STATE_STOPPING, /* told to stop, not gone yet */
	STATE_EXITED,   /* ended by itself */
	STATE_FATAL,    /* could not be started; nobody tries any more */
	STATE_COUNT
};

enum process_event {
	EVENT_START,        /* to be started now */
	EVENT_STOP,         /* to be stopped now */
	EVENT_UP,           /* is ready */
	EVENT_LATE,         /* was not ready in time */
	EVENT_ENDED,        /* the process ended after it had been up for long enough */
	EVENT_FAILED,       /* it ended too soon or could not be made; there are tries left */
	EVENT_FAILED_LAST,  /* the same, and it was the last try */
	EVENT_RETRY,        /* the delay before the next try is over */
	EVENT_STOP_TIMEOUT, /* told to stop, and still there after stopwaitsecs */
	EVENT_COUNT
};

enum process_action {
	ACTION_NONE,
	ACTION_SPAWN,    /* make the process; leads to UP, FAILED or FAILED_LAST */
	ACTION_SIGNAL,   /* send stopsignal; leads to ENDED/FAILED or STOP_TIMEOUT */
	ACTION_KILL,     /* send SIGKILL */
	ACTION_WAIT,     /* wait for the restart delay; leads to RETRY */
	ACTION_CONSIDER, /* ask autorestart whether to START again */
	ACTION_RELEASE,  /* it is down for good: close its sockets */
};

struct state_move {
	enum process_state next;
	enum process_action action;
};

/* Defined for every pair: what does not apply changes nothing. */
struct state_move state_after(enum process_state state, enum process_event event);
/* "RUNNING". */
const char *state_name(enum process_state state);
const char *event_name(enum process_event event);
/* Has a process. */
static inline int state_is_alive(enum process_state state)
{
	return state == STATE_STARTING || state == STATE_RUNNING || state == STATE_STOPPING;
}

#endif
