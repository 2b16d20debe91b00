#ifndef SUPERVISOR_POD_PRIVATE_H
#define SUPERVISOR_POD_PRIVATE_H

/* What pod.c and reload.c share; nobody else includes it. */
#include "common/loop.h"
#include "supervisor/pod.h"

struct event;

/* What the pod knows about a process beside the process itself. */
struct member {
	struct process *process;
	bool restart_queued; /* waits for its turn */
	bool restarting;     /* its turn: on the way down or up again */
	bool told_to_stop;   /* by the end of the pod */
	/* After a reload. */
	const struct process_config
		*next;    /* what it is made by once it is down; NULL: nothing new */
	bool start_later; /* when all that go, and all that give a socket up, are gone */
};

/* A configuration; an old one stays while a process is still made by it. */
struct generation {
	struct pod_config config;
	struct generation *older;
};

struct pod {
	struct loop *loop;
	struct generation *generation; /* the newest first */
	const struct pod_config *config;
	const struct pod_events *events;
	void *arg;
	struct process_host host;
	struct strings environment;
	struct notify_socket *notify;
	struct event *child_event;
	struct deferred evaluation;

	struct member *members; /* in start order: member i is config->processes[i] */
	size_t n_members;
	struct process **leaving; /* no longer configured; on their way down */
	size_t n_leaving;

	bool stopping, stopped;
	bool fatal;           /* why it is stopping */
	bool killed;          /* something did not leave in time */
	unsigned orphan_turn; /* 0: not there yet */
	struct timer *orphan_timer;
};

void pod_evaluate_soon(struct pod *pod);
/* Part of every turn: forget who is gone, take new configurations over, start what had to wait. */
void pod_advance_reload(struct pod *pod);
/* Give it the settings that wait for it to be down, if it is. */
void pod_adopt_next(struct member *member);
/* NULL for a process that is leaving. */
struct member *pod_member(const struct pod *pod, const struct process *process);
static inline bool process_is_down(const struct process *process)
{
	return !state_is_alive(process->state) && process->state != STATE_BACKOFF;
}

#endif
