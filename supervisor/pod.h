#ifndef SUPERVISOR_POD_H
#define SUPERVISOR_POD_H

/*
 * All processes of a pod: who starts when, who stops when, whose child a pid is.
 *
 * Start: a process that is wanted starts as soon as everything it depends on is up (RUNNING, or
 * EXITED as expected, which is how a task that runs once is waited for); among those that may, by
 * priority. Stop of the pod: the reverse; a process is told to stop when all that depend on it, and
 * all of a higher priority number, are gone.
 */
#include <stdbool.h>
#include <stddef.h>

#include "supervisor/config/pod_config.h"
#include "supervisor/process.h"

struct loop;
struct pod;

/* What the end of a pod says; the exit code of the supervisor. */
enum pod_exit {
	POD_EXIT_CLEAN = 0,  /* stopped on request, everything left in time */
	POD_EXIT_KILLED = 1, /* stopped on request, something had to be killed */
	POD_EXIT_FATAL = 2,  /* stopped because a process went FATAL (exit_on_fatal) */
};

struct pod_events {
	/* The pod has stopped (after pod_stop()); nothing of it is left. */
	void (*on_stopped)(enum pod_exit exit, void *arg);
	/* Some process changed its state, or is not waited for any more; once a turn at most. */
	void (*on_change)(void *arg);
};

/*
 * Makes the processes, starts none. The content of config is taken over. run_dir holds the socket
 * for sd_notify. NULL with a sentence in error.
 */
struct pod *pod_new(struct loop *loop, struct pod_config *config, const char *run_dir,
	const struct pod_events *events, void *arg, char *error, size_t error_size);
/* Start what has autostart. */
void pod_start(struct pod *pod);
/* Stop everything in order; leads to on_stopped. Again: kill what is still there. */
void pod_stop(struct pod *pod);
bool pod_is_stopping(const struct pod *pod);

size_t pod_count(const struct pod *pod);
struct process *pod_process(struct pod *pod, size_t i); /* in start order */

/*
 * Go over to another configuration, whose content is taken over (on success). What is new starts,
 * what is not there any more stops, what runs by other settings than before is restarted: numbered
 * ones one after the other, and with open sockets as long as these are the same; the first one that
 * does not come up ends that, and its siblings run on by the old settings. New ones start when all
 * that leave are gone, so that they may take their addresses. What differs only in guidance
 * (priority, stopwaitsecs …) takes that over and runs on. [supervisord] keys other than
 * exit_on_fatal and childlogdir stay as they were at the start. 0, or -1 when out of memory, with
 * nothing changed.
 */
struct pod_changes {
	struct strings added, changed, adjusted, removed; /* labels */
};
int pod_reload(struct pod *pod, struct pod_config *config, struct pod_changes *changes);
void pod_changes_free(struct pod_changes *changes);
/* Nothing of an earlier configuration is still on its way down. */
bool pod_is_reloaded(const struct pod *pod);

/* Is it (still) configured? */
bool pod_has(const struct pod *pod, const struct process *process);
/* See outputs_watch(). */
void pod_watch_output(struct pod *pod, output_watch *watch, void *arg);

/* Ask for one process. What they lead to shows by on_change. */
void pod_start_process(struct pod *pod, struct process *process);
void pod_stop_process(struct pod *pod, struct process *process);
/* Processes of one program go one after the other, the next when the one before is up. */
void pod_restart_process(struct pod *pod, struct process *process);
/* Nothing that was asked for is still on its way here. */
bool pod_is_settled(const struct pod *pod, const struct process *process);
/* Settled and as it should be: up, ended as expected, or stopped and not wanted. */
bool pod_is_well(const struct pod *pod, const struct process *process);
/* Every autostart process is up. */
bool pod_is_ready(const struct pod *pod);
/* What people want to know beside the state; "" for nothing. */
void pod_describe(const struct pod *pod, const struct process *process, char *text, size_t size);

/* To every process that expects it. */
void pod_forward_signal(struct pod *pod, int number);
void pod_reopen_logs(struct pod *pod);
/* Kills whatever is left. */
void pod_free(struct pod **pod);

#endif
