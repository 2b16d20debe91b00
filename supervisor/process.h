#ifndef SUPERVISOR_PROCESS_H
#define SUPERVISOR_PROCESS_H

/*
 * One process of the pod over its lives: started, watched, started again, stopped. What follows
 * from what is supervisor/state.h; this file turns the world (an exit status, a timer, an answered
 * probe) into events and carries the actions out. The order between processes is supervisor/pod.h.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/config/pod_config.h"
#include "supervisor/output.h"
#include "supervisor/sockets.h"
#include "supervisor/state.h"

struct loop;
struct probe;
struct timer;
struct process;

/* What all processes of a pod share; borrowed. */
struct process_host {
	struct loop *loop;
	struct outputs *outputs;
	const struct strings *environment; /* that every process gets */
	const char *notify_path;           /* NULL: there is none */
	/* After each change of state (twice after two in a row); must not act on processes itself.
	 */
	void (*on_change)(struct process *process, void *arg);
	void *arg;
};

struct process {
	const struct process_host *host;
	const struct process_config *config;
	size_t index; /* its place in the pod */
	enum process_state state;
	pid_t pid;           /* 0: none */
	uint64_t started_us; /* monotonic; of the last start */
	uint64_t ended_ms;   /* wall clock; 0: has not ended yet */
	int exit_status;     /* as waitpid() gives it; meaningful once ended_ms is set */
	uint64_t restarts;   /* starts after the first one that nobody asked for */
	unsigned failures;   /* tries in a row that ended too soon */
	bool was_up;         /* this life */
	bool late;           /* told to go because it was not ready in time */
	bool was_killed;     /* had to be sent SIGKILL in this life */
	bool start_pending; /* wanted; the pod starts it when it can: keeps its sockets meanwhile */
	char reason[192];   /* why it is not up, or why it ended last; "" */

	struct timer *timer; /* of the state it is in */
	struct probe *probe;
	struct sockets sockets;
	struct output *out, *err;
	uint64_t lost_output_bytes; /* of outputs that are closed */
};

struct process *process_new(const struct process_host *host, const struct process_config *config);

/* Start now, whatever other processes do; earlier failures are forgotten. No effect on a live one.
 */
void process_start(struct process *process);
void process_stop(struct process *process);
/* Be made by another configuration from now on. It has no process; sockets that both name stay
 * open. */
void process_adopt(struct process *process, const struct process_config *config);
/* SIGKILL now to what is still there. */
void process_kill(struct process *process);
/* It said that it is ready, or the probe did. */
void process_ready(struct process *process);
/* Its process ended; the status is waitpid()'s. */
void process_ended(struct process *process, int status);
/* -1 with errno when there is none. */
int process_signal(struct process *process, int number);
/* The same, unless that would end a process which does not expect the signal: one that neither
 * catches nor blocks it (signalfd(2)) is left alone. */
void process_offer_signal(struct process *process, int number);

static inline bool process_is_alive(const struct process *process)
{
	return process->pid > 0;
}
/* Since its last start. */
uint64_t process_age_ms(const struct process *process);
/* What it ever printed that its log files did not take. */
uint64_t process_lost_output_bytes(const struct process *process);
/* Ended by itself in a way its configuration expects. */
bool process_ended_well(const struct process *process);
/* "exited with code 1", "killed by SIGKILL". */
void process_describe_end(int status, char *text, size_t size);

/* Its process must be gone. */
void process_free(struct process **process);

#endif
