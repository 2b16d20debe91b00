#include "supervisor/process.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "supervisor/environment.h"
#include "supervisor/probe.h"
#include "supervisor/spawn.h"

#define MAX_GROUPS 256

static void happen(struct process *process, enum process_event event);

static const char *label(const struct process *process)
{
	return process->config->label;
}

uint64_t process_age_ms(const struct process *process)
{
	return (loop_now_us(process->host->loop) - process->started_us) / 1000;
}

/* ---- starting ---- */

static int find_groups(const struct process_config *config, struct spawn_user *user, gid_t *groups)
{
	int n = MAX_GROUPS;
	if (getgrouplist(config->user, config->gid, groups, &n) < 0)
		return -1;
	*user = (struct spawn_user){config->uid, config->gid, groups, (size_t)n};
	return 0;
}

static int spawn(struct process *process)
{
	const struct process_config *config = process->config;
	gid_t groups[MAX_GROUPS];
	struct spawn_user user;
	bool other_user = config->has_user && config->uid != getuid();
	if (other_user && find_groups(config, &user, groups) < 0) {
		snprintf(process->reason, sizeof process->reason, "user %s is in too many groups",
			config->user);
		return -1;
	}
	struct strings environment = {0};
	if (environment_make(&environment, config, process->host->environment,
		    process->host->notify_path, process->reason, sizeof process->reason) < 0) {
		environment_free(&environment);
		return -1;
	}
	struct spawn how = {.argv = config->command.items,
		.directory = config->directory,
		.environment = environment.items,
		.limits = config->limits,
		.n_limits = config->n_limits,
		.sockets = process->sockets.fds,
		.n_sockets = process->sockets.n,
		.socket_names = process->sockets.names,
		.out_fd = output_fd(process->out),
		.err_fd = output_fd(config->redirect_stderr ? process->out : process->err),
		.umask = config->umask,
		.user = other_user ? &user : NULL};
	pid_t pid = spawn_process(&how, process->reason, sizeof process->reason);
	environment_free(&environment);
	if (pid < 0)
		return -1;
	process->pid = pid;
	return 0;
}

static int open_outputs(struct process *process)
{
	const struct process_config *config = process->config;
	struct log_config none = {.kind = LOG_KIND_NONE};
	if (!process->out)
		process->out = output_new(process->host->outputs, &config->out, label(process),
			false, process->reason, sizeof process->reason);
	if (process->out && !process->err)
		process->err = output_new(process->host->outputs,
			config->redirect_stderr ? &none : &config->err, label(process), true,
			process->reason, sizeof process->reason);
	return process->out && process->err ? 0 : -1;
}

static void probe_answered(void *arg)
{
	process_ready(arg);
}

/* How the process becomes RUNNING. */
static void await_up(struct process *process)
{
	const struct process_config *config = process->config;
	if (config->ready == READY_NONE) {
		if (config->start_ms)
			timer_arm(process->timer, config->start_ms);
		else
			happen(process, EVENT_UP);
		return;
	}
	timer_arm(process->timer, config->ready_timeout_ms);
	if (config->ready == READY_NOTIFY)
		return;
	char error[192];
	process->probe = probe_new(process->host->loop, config->ready, config->ready_target,
		probe_answered, process, error, sizeof error);
	if (!process->probe)
		log_error("%s: %s", label(process), error);
}

static void fail_start(struct process *process)
{
	process->failures++;
	log_error("%s: %s", label(process), process->reason);
	happen(process, process->failures > process->config->start_retries ? EVENT_FAILED_LAST
									   : EVENT_FAILED);
}

static void do_spawn(struct process *process)
{
	const struct process_config *config = process->config;
	process->was_up = process->late = process->was_killed = false;
	process->started_us = loop_now_us(process->host->loop);
	/* An address that is taken may be free in a second: a predecessor that takes its time. */
	if (sockets_open(&process->sockets, config->sockets, config->n_sockets, process->reason,
		    sizeof process->reason) < 0 ||
		open_outputs(process) < 0 || spawn(process) < 0) {
		fail_start(process);
		return;
	}
	log_fields(LOG_LEVEL_INFO, NULL, "process started", LOG_STR("program", label(process)),
		LOG_INT("pid", process->pid));
	await_up(process);
}

/* ---- signals ---- */

static void send_signal(struct process *process, int number, bool to_group)
{
	if (!process->pid)
		return;
	if (kill(to_group ? -process->pid : process->pid, number) < 0 && errno != ESRCH)
		log_warn("%s: cannot send SIG%s: %m", label(process), value_signal_name(number));
}

static void do_signal(struct process *process)
{
	const struct process_config *config = process->config;
	send_signal(process, config->stop_signal, config->stop_as_group);
	timer_arm(process->timer, config->stop_wait_ms);
}

static void do_kill(struct process *process)
{
	const struct process_config *config = process->config;
	log_warn("%s: did not leave after SIG%s: killed", label(process),
		value_signal_name(config->stop_signal));
	process->was_killed = true;
	send_signal(process, SIGKILL, config->kill_as_group || config->stop_as_group);
}

/* ---- after the end ---- */

bool process_ended_well(const struct process *process)
{
	int status = process->exit_status;
	if (!process->ended_ms || !WIFEXITED(status))
		return false;
	int code = WEXITSTATUS(status);
	return process->config->exit_codes[code / 8] >> code % 8 & 1;
}

void process_describe_end(int status, char *text, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(text, size, "killed by SIG%s%s", value_signal_name(WTERMSIG(status)),
			WCOREDUMP(status) ? " (core dumped)" : "");
	else
		snprintf(text, size, "exited with code %d", WEXITSTATUS(status));
}

/* The first failure in a row is tried again at once: backoff is for those that repeat. */
static void do_wait(struct process *process)
{
	const struct process_config *config = process->config;
	uint64_t delay = process->failures > 1 ? config->restart_delay_ms : 0;
	for (unsigned i = 2; i < process->failures && delay < config->restart_delay_max_ms; i++)
		delay *= 2;
	if (delay > config->restart_delay_max_ms)
		delay = config->restart_delay_max_ms;
	process->restarts++;
	if (delay)
		timer_arm(process->timer, delay);
	else
		happen(process, EVENT_RETRY);
}

static void close_outputs(struct process *process)
{
	process->lost_output_bytes = process_lost_output_bytes(process);
	output_free(&process->out);
	output_free(&process->err);
}

uint64_t process_lost_output_bytes(const struct process *process)
{
	return process->lost_output_bytes + (process->out ? output_lost_bytes(process->out) : 0) +
	       (process->err ? output_lost_bytes(process->err) : 0);
}

static void do_release(struct process *process)
{
	/* What is about to be started again keeps its sockets, and so the clients in their queues.
	 */
	if (process->start_pending)
		return;
	sockets_close(&process->sockets);
	close_outputs(process);
}

static void do_consider(struct process *process)
{
	enum autorestart policy = process->config->autorestart;
	if (!process->start_pending &&
		(policy == AUTORESTART_ALWAYS ||
			(policy == AUTORESTART_UNEXPECTED && !process_ended_well(process)))) {
		process->restarts++;
		happen(process, EVENT_START);
		return;
	}
	do_release(process);
}

/* ---- the machine ---- */

static void do_nothing(struct process *process)
{
	(void)process;
}

static void (*const actions[])(struct process *process) = {
	[ACTION_NONE] = do_nothing,
	[ACTION_SPAWN] = do_spawn,
	[ACTION_SIGNAL] = do_signal,
	[ACTION_KILL] = do_kill,
	[ACTION_WAIT] = do_wait,
	[ACTION_CONSIDER] = do_consider,
	[ACTION_RELEASE] = do_release,
};

static void log_change(
	const struct process *process, enum process_state before, enum process_event event)
{
	bool unexpected = process->state == STATE_BACKOFF ||
			  (process->state == STATE_EXITED && !process_ended_well(process));
	enum log_level level = process->state == STATE_FATAL ? LOG_LEVEL_ERROR
			       : unexpected                  ? LOG_LEVEL_WARN
							     : LOG_LEVEL_INFO;
	log_fields(level, NULL, state_name(process->state), LOG_STR("program", label(process)),
		LOG_STR("before", state_name(before)), LOG_STR("event", event_name(event)),
		LOG_STR("reason", process->reason));
}

static void happen(struct process *process, enum process_event event)
{
	enum process_state before = process->state;
	struct state_move move = state_after(before, event);
	if (move.next != before) {
		process->state = move.next;
		timer_disarm(process->timer);
		if (move.next != STATE_STARTING)
			probe_free(&process->probe);
		if (move.next == STATE_RUNNING)
			process->was_up = true;
		log_change(process, before, event);
	}
	actions[move.action](process);
	if (move.next != before)
		process->host->on_change(process, process->host->arg);
}

static void timer_due(void *arg)
{
	struct process *process = arg;
	switch (process->state) {
	case STATE_STARTING:
		if (process->late) {
			happen(process, EVENT_STOP_TIMEOUT);
		} else if (process->config->ready == READY_NONE) {
			happen(process, EVENT_UP);
		} else {
			process->late = true;
			log_error("%s: not ready after %llu ms", label(process),
				(unsigned long long)process->config->ready_timeout_ms);
			happen(process, EVENT_LATE);
		}
		break;
	case STATE_BACKOFF:
		happen(process, EVENT_RETRY);
		break;
	case STATE_STOPPING:
		happen(process, EVENT_STOP_TIMEOUT);
		break;
	default:
		break;
	}
}

struct process *process_new(const struct process_host *host, const struct process_config *config)
{
	struct process *process = calloc(1, sizeof *process);
	if (!process)
		return NULL;
	process->host = host;
	process->config = config;
	process->timer = timer_new(host->loop, timer_due, process);
	if (!process->timer) {
		free(process);
		return NULL;
	}
	return process;
}

void process_adopt(struct process *process, const struct process_config *config)
{
	BUG_ON(process->pid);
	if (!process_config_same_sockets(process->config, config))
		sockets_close(&process->sockets);
	close_outputs(process);
	process->config = config;
}

void process_start(struct process *process)
{
	if (state_is_alive(process->state))
		return;
	process->failures = 0;
	process->reason[0] = '\0';
	happen(process, EVENT_START);
}

void process_stop(struct process *process)
{
	happen(process, EVENT_STOP);
	/* It may be down with its sockets kept for a start that is now called off. */
	if (!process->pid)
		do_release(process);
}

void process_kill(struct process *process)
{
	happen(process, EVENT_STOP);
	timer_disarm(process->timer);
	happen(process, EVENT_STOP_TIMEOUT);
}

void process_ready(struct process *process)
{
	probe_free(&process->probe);
	if (!process->late)
		happen(process, EVENT_UP);
}

void process_ended(struct process *process, int status)
{
	bool too_soon = !process->was_up || process_age_ms(process) < process->config->start_ms;
	process->pid = 0;
	process->exit_status = status;
	process->ended_ms = loop_wall_ms(process->host->loop);
	process_describe_end(status, process->reason, sizeof process->reason);
	if (process->late)
		snprintf(process->reason, sizeof process->reason, "was not ready within %llu ms",
			(unsigned long long)process->config->ready_timeout_ms);
	if (process->out)
		output_drain(process->out);
	if (process->err)
		output_drain(process->err);
	if (!too_soon)
		process->failures = 0;
	else if (process->state != STATE_STOPPING)
		process->failures++;
	happen(process, !too_soon                                            ? EVENT_ENDED
			: process->failures > process->config->start_retries ? EVENT_FAILED_LAST
									     : EVENT_FAILED);
}

int process_signal(struct process *process, int number)
{
	if (!process->pid) {
		errno = ESRCH;
		return -1;
	}
	return kill(process->pid, number);
}

/* proc(5): masks in hexadecimal, the bit of signal n is 1 << (n - 1). */
static bool expects_signal(pid_t pid, int number)
{
	char path[64], line[128];
	unsigned long long mask, expected = 0;
	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	FILE *status = fopen(path, "re");
	if (!status)
		return false;
	while (fgets(line, sizeof line, status))
		if (sscanf(line, "SigBlk: %llx", &mask) == 1 ||
			sscanf(line, "SigCgt: %llx", &mask) == 1)
			expected |= mask;
	fclose(status);
	return expected >> (number - 1) & 1;
}

void process_offer_signal(struct process *process, int number)
{
	if (process->pid && expects_signal(process->pid, number))
		kill(process->pid, number);
}

void process_free(struct process **process)
{
	struct process *p = *process;
	if (!p)
		return;
	*process = NULL;
	p->start_pending = false;
	do_release(p);
	probe_free(&p->probe);
	timer_free(&p->timer);
	free(p);
}
