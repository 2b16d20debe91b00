#include "supervisor/pod_private.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"
#include "common/loop.h"
#include "supervisor/notify_socket.h"
#include "supervisor/orphans.h"

#define ORPHAN_WAIT_MS 1000

extern char **environ;

struct member *pod_member(const struct pod *pod, const struct process *process)
{
	size_t i = process->index;
	return i < pod->n_members && pod->members[i].process == process ? &pod->members[i] : NULL;
}

void pod_evaluate_soon(struct pod *pod)
{
	loop_defer(pod->loop, &pod->evaluation);
}

/* ---- what holds and what does not ---- */

static bool satisfies(const struct process *process)
{
	return process->state == STATE_RUNNING ||
	       (process->state == STATE_EXITED && process_ended_well(process));
}

/* What it waits for; NULL: nothing. */
static const struct process *missing_need(const struct pod *pod, const struct process *process)
{
	const struct process_config *config = &pod->config->processes[process->index];
	for (size_t i = 0; i < config->n_needs; i++) {
		const struct process *need = pod->members[config->needs[i]].process;
		if (!satisfies(need))
			return need;
	}
	return NULL;
}

bool pod_is_settled(const struct pod *pod, const struct process *process)
{
	const struct member *member = pod_member(pod, process);
	if (!member)
		return process_is_down(process);
	if (member->restart_queued || member->restarting || member->start_later)
		return false;
	switch (process->state) {
	case STATE_STARTING:
	case STATE_BACKOFF:
	case STATE_STOPPING:
		return false;
	default:
		break;
	}
	if (!process->start_pending)
		return true;
	/* Waiting in vain is settled too. Needs form no circle. */
	const struct process *need = missing_need(pod, process);
	return need && pod_is_settled(pod, need);
}

bool pod_is_well(const struct pod *pod, const struct process *process)
{
	if (!pod_is_settled(pod, process))
		return false;
	return satisfies(process) || (process->state == STATE_STOPPED && !process->start_pending);
}

bool pod_is_ready(const struct pod *pod)
{
	for (size_t i = 0; i < pod->n_members; i++)
		if (pod->config->processes[i].autostart && !satisfies(pod->members[i].process))
			return false;
	return true;
}

void pod_describe(const struct pod *pod, const struct process *process, char *text, size_t size)
{
	const struct process *need = process->start_pending ? missing_need(pod, process) : NULL;
	if (need)
		snprintf(text, size, "waits for %s (%s)", need->config->label,
			state_name(need->state));
	else if (process->state == STATE_RUNNING && process->restarts && process->reason[0])
		snprintf(text, size, "before: %s", process->reason);
	else if (process->state == STATE_RUNNING)
		snprintf(text, size, "%s", "");
	else if (process->state == STATE_STOPPED && !process->ended_ms)
		snprintf(text, size, "not started");
	else
		snprintf(text, size, "%s", process->reason);
}

/* ---- start and restart ---- */

static void end_restart(struct pod *pod, struct member *member)
{
	struct process *process = member->process;
	member->restarting = false;
	if (process->state == STATE_RUNNING)
		return;
	/* The new one does not work: the siblings that still do are left alone. */
	for (size_t i = 0; i < pod->n_members; i++) {
		struct member *sibling = &pod->members[i];
		if (!sibling->restart_queued ||
			strcmp(sibling->process->config->program, process->config->program) != 0)
			continue;
		sibling->restart_queued = false;
		log_error("%s: not restarted, since %s did not come up",
			sibling->process->config->label, process->config->label);
	}
}

static bool sibling_restarts(const struct pod *pod, const struct process *process)
{
	for (size_t i = 0; i < pod->n_members; i++)
		if (pod->members[i].restarting && strcmp(pod->members[i].process->config->program,
							  process->config->program) == 0)
			return true;
	return false;
}

static void advance_restart(struct pod *pod, struct member *member)
{
	struct process *process = member->process;
	if (member->restarting && !process->start_pending) {
		switch (process->state) {
		case STATE_RUNNING:
		case STATE_FATAL:
		case STATE_EXITED:
		case STATE_STOPPED:
			end_restart(pod, member);
			break;
		default:
			break;
		}
	}
	if (member->restart_queued && !sibling_restarts(pod, process)) {
		member->restart_queued = false;
		member->restarting = true;
		process->start_pending = true;
		process_stop(process);
	}
}

static void advance_start(struct pod *pod, struct member *member)
{
	struct process *process = member->process;
	if (!process->start_pending)
		return;
	if (process->state == STATE_STOPPING || missing_need(pod, process))
		return;
	/* What waited in BACKOFF is down the moment it is told to stop. */
	pod_adopt_next(member);
	process->start_pending = false;
	process_start(process);
}

/* ---- stop ---- */

/* Does `process` have to be gone before `other` is told to stop? */
static bool goes_before(
	const struct pod *pod, const struct process *process, const struct process *other)
{
	const struct process_config *a = &pod->config->processes[process->index];
	const struct process_config *b = &pod->config->processes[other->index];
	for (size_t i = 0; i < a->n_needs; i++)
		if (pod->members[a->needs[i]].process == other)
			return true;
	/* depends_on is the stronger word: it may run against the priorities. */
	for (size_t i = 0; i < b->n_needs; i++)
		if (pod->members[b->needs[i]].process == process)
			return false;
	if (a->group_priority != b->group_priority)
		return a->group_priority > b->group_priority;
	return a->priority > b->priority;
}

static bool may_stop(const struct pod *pod, const struct process *process)
{
	for (size_t i = 0; i < pod->n_members; i++) {
		const struct process *other = pod->members[i].process;
		if (other != process && !process_is_down(other) && goes_before(pod, other, process))
			return false;
	}
	return true;
}

static void finish_stop(struct pod *pod)
{
	pod->stopped = true;
	timer_disarm(pod->orphan_timer);
	pod->events->on_stopped(pod->fatal    ? POD_EXIT_FATAL
				: pod->killed ? POD_EXIT_KILLED
					      : POD_EXIT_CLEAN,
		pod->arg);
}

/* Programs are down; what they left behind is told to leave, then made to. */
static void advance_orphans(struct pod *pod)
{
	pid_t pid;
	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		;
	if (pid < 0) {
		finish_stop(pod);
		return;
	}
	if (timer_armed(pod->orphan_timer))
		return;
	unsigned n = orphans_signal(pod->orphan_turn++ ? SIGKILL : SIGTERM);
	log_info("%u processes that programs left behind were told to leave", n);
	timer_arm(pod->orphan_timer, ORPHAN_WAIT_MS);
}

static void orphan_timer_due(void *arg)
{
	struct pod *pod = arg;
	pod->killed = true;
	pod_evaluate_soon(pod);
}

static void advance_stop(struct pod *pod)
{
	bool all_down = pod->n_leaving == 0;
	for (size_t i = pod->n_members; i-- > 0;) {
		struct member *member = &pod->members[i];
		if (process_is_down(member->process))
			continue;
		if (!member->told_to_stop && may_stop(pod, member->process)) {
			member->told_to_stop = true;
			process_stop(member->process);
		}
		all_down = all_down && process_is_down(member->process);
	}
	if (all_down)
		advance_orphans(pod);
}

/* ---- the turn ---- */

static void evaluate(void *arg)
{
	struct pod *pod = arg;
	if (pod->stopped)
		return;
	pod_advance_reload(pod);
	for (size_t i = 0; i < pod->n_members && !pod->stopping; i++) {
		advance_restart(pod, &pod->members[i]);
		advance_start(pod, &pod->members[i]);
	}
	if (pod->stopping)
		advance_stop(pod);
	if (!pod->stopped)
		pod->events->on_change(pod->arg);
}

static void process_changed(struct process *process, void *arg)
{
	struct pod *pod = arg;
	if (process->state == STATE_FATAL && pod->config->exit_on_fatal && !pod->stopping) {
		log_error("%s is FATAL: the pod stops (exit_on_fatal)", process->config->label);
		pod->fatal = true;
		pod->stopping = true;
	}
	pod_evaluate_soon(pod);
}

/* The process with this pid; NULL: an orphan, or nobody. */
static struct process *find_pid(const struct pod *pod, pid_t pid)
{
	for (size_t i = 0; i < pod->n_members; i++)
		if (pod->members[i].process->pid == pid)
			return pod->members[i].process;
	for (size_t i = 0; i < pod->n_leaving; i++)
		if (pod->leaving[i]->pid == pid)
			return pod->leaving[i];
	return NULL;
}

static void child_due(evutil_socket_t number, short what, void *arg)
{
	(void)number;
	(void)what;
	struct pod *pod = arg;
	int status;
	pid_t pid;
	/* One SIGCHLD may stand for many; orphans have no process here and are only reaped. */
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct process *process = find_pid(pod, pid);
		if (!process)
			continue;
		pod->killed |= pod->stopping && process->was_killed;
		process_ended(process, status);
	}
	if (pod->orphan_turn)
		pod_evaluate_soon(pod);
}

static void notify_ready(pid_t sender, void *arg)
{
	struct pod *pod = arg;
	struct process *process = find_pid(pod, sender);
	if (!process)
		process = find_pid(pod, getpgid(sender)); /* a helper in its process group */
	if (process && process->config->ready == READY_NOTIFY && process->state == STATE_STARTING)
		process_ready(process);
}

/* ---- making and unmaking ---- */

/* Of the supervisor's environment, what is not meant for itself alone. */
static int make_environment(struct pod *pod)
{
	static const char *const own[] = {
		"LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=", "NOTIFY_SOCKET="};
	for (size_t i = 0; i < pod->config->environment.n; i++)
		if (strings_add(&pod->environment, span_of(pod->config->environment.items[i])) < 0)
			return -1;
	for (char **e = environ; *e; e++) {
		bool skip = false;
		for (size_t i = 0; i < sizeof own / sizeof *own; i++)
			skip |= strncmp(*e, own[i], strlen(own[i])) == 0;
		for (size_t i = 0; i < pod->config->environment.n; i++) {
			const char *pair = pod->config->environment.items[i];
			skip |= strncmp(*e, pair, strcspn(pair, "=") + 1) == 0;
		}
		if (!skip && strings_add(&pod->environment, span_of(*e)) < 0)
			return -1;
	}
	return 0;
}

static int open_notify(struct pod *pod, const char *run_dir, char *error, size_t error_size)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/supervisor.notify", run_dir);
	pod->notify = notify_socket_new(pod->loop, path, notify_ready, pod);
	if (!pod->notify) {
		snprintf(error, error_size, "cannot bind %s: %s", path, strerror(errno));
		return -1;
	}
	pod->host.notify_path = notify_socket_path(pod->notify);
	return 0;
}

static int make_members(struct pod *pod)
{
	pod->members = calloc(pod->config->n_processes + 1, sizeof *pod->members);
	if (!pod->members)
		return -1;
	for (size_t i = 0; i < pod->config->n_processes; i++) {
		pod->members[i].process = process_new(&pod->host, &pod->config->processes[i]);
		if (!pod->members[i].process)
			return -1;
		pod->members[i].process->index = i;
		pod->n_members++;
	}
	return 0;
}

struct pod *pod_new(struct loop *loop, struct pod_config *config, const char *run_dir,
	const struct pod_events *events, void *arg, char *error, size_t error_size)
{
	struct pod *pod = calloc(1, sizeof *pod);
	struct generation *generation = calloc(1, sizeof *generation);
	snprintf(error, error_size, "out of memory");
	if (!pod || !generation) {
		free(generation);
		free(pod);
		return NULL;
	}
	generation->config = *config;
	*config = (struct pod_config){0};
	pod->loop = loop;
	pod->generation = generation;
	pod->config = &generation->config;
	pod->events = events;
	pod->arg = arg;
	deferred_init(&pod->evaluation, evaluate, pod);
	pod->host = (struct process_host){.loop = loop,
		.outputs = outputs_new(loop, (enum output_prefix)pod->config->output_prefix),
		.environment = &pod->environment,
		.on_change = process_changed,
		.arg = pod};
	pod->orphan_timer = timer_new(loop, orphan_timer_due, pod);
	pod->child_event = event_new(
		loop_base(loop), SIGCHLD, EV_SIGNAL | EV_PERSIST, child_due, pod);
	if (!pod->host.outputs || !pod->orphan_timer || !pod->child_event ||
		event_add(pod->child_event, NULL) < 0 || make_environment(pod) < 0 ||
		make_members(pod) < 0 || open_notify(pod, run_dir, error, error_size) < 0) {
		pod_free(&pod);
		return NULL;
	}
	if (pod->config->umask >= 0)
		umask((mode_t)pod->config->umask);
	orphans_adopt();
	return pod;
}

void pod_start(struct pod *pod)
{
	for (size_t i = 0; i < pod->n_members; i++)
		pod->members[i].process->start_pending = pod->config->processes[i].autostart;
	pod_evaluate_soon(pod);
}

void pod_stop(struct pod *pod)
{
	for (size_t i = 0; i < pod->n_members; i++) {
		struct member *member = &pod->members[i];
		member->process->start_pending = false;
		member->restart_queued = member->restarting = member->start_later = false;
		if (pod->stopping)
			process_kill(member->process);
	}
	for (size_t i = 0; i < pod->n_leaving && pod->stopping; i++)
		process_kill(pod->leaving[i]);
	if (pod->stopping && pod->orphan_turn)
		orphans_signal(SIGKILL);
	pod->stopping = true;
	pod_evaluate_soon(pod);
}

bool pod_is_stopping(const struct pod *pod)
{
	return pod->stopping;
}

size_t pod_count(const struct pod *pod)
{
	return pod->n_members;
}

struct process *pod_process(struct pod *pod, size_t i)
{
	return pod->members[i].process;
}

void pod_start_process(struct pod *pod, struct process *process)
{
	if (!pod->stopping && process->state != STATE_RUNNING && process->state != STATE_STARTING)
		process->start_pending = true;
	pod_evaluate_soon(pod);
}

void pod_stop_process(struct pod *pod, struct process *process)
{
	struct member *member = pod_member(pod, process);
	member->restart_queued = member->restarting = member->start_later = false;
	process->start_pending = false;
	process_stop(process);
	pod_evaluate_soon(pod);
}

void pod_restart_process(struct pod *pod, struct process *process)
{
	if (!pod->stopping)
		pod_member(pod, process)->restart_queued = true;
	pod_evaluate_soon(pod);
}

void pod_forward_signal(struct pod *pod, int number)
{
	for (size_t i = 0; i < pod->n_members; i++)
		process_offer_signal(pod->members[i].process, number);
}

bool pod_has(const struct pod *pod, const struct process *process)
{
	return pod_member(pod, process) != NULL;
}

void pod_watch_output(struct pod *pod, output_watch *watch, void *arg)
{
	outputs_watch(pod->host.outputs, watch, arg);
}

void pod_reopen_logs(struct pod *pod)
{
	outputs_reopen(pod->host.outputs);
}

void pod_free(struct pod **pod)
{
	struct pod *p = *pod;
	if (!p)
		return;
	*pod = NULL;
	for (size_t i = 0; i < p->n_members; i++) {
		if (process_is_alive(p->members[i].process))
			process_signal(p->members[i].process, SIGKILL);
		process_free(&p->members[i].process);
	}
	free(p->members);
	for (size_t i = 0; i < p->n_leaving; i++) {
		if (process_is_alive(p->leaving[i]))
			process_signal(p->leaving[i], SIGKILL);
		process_free(&p->leaving[i]);
	}
	free(p->leaving);
	loop_defer_cancel(p->loop, &p->evaluation);
	if (p->child_event)
		event_free(p->child_event);
	timer_free(&p->orphan_timer);
	notify_socket_free(&p->notify);
	outputs_free(&p->host.outputs);
	strings_free(&p->environment);
	for (struct generation *g = p->generation, *older; g; g = older) {
		older = g->older;
		pod_config_free(&g->config);
		free(g);
	}
	free(p);
}
