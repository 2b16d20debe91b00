#include <string.h>

#include "supervisor/config/pod_config.h"

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_strings(const struct strings *a, const struct strings *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->items[i], b->items[i]) != 0)
			return false;
	return true;
}

static bool same_log(const struct log_config *a, const struct log_config *b)
{
	return a->kind == b->kind && same_text(a->path, b->path) && a->max_bytes == b->max_bytes &&
	       a->backups == b->backups;
}

static bool same_limits(const struct process_config *a, const struct process_config *b)
{
	if (a->n_limits != b->n_limits)
		return false;
	for (size_t i = 0; i < a->n_limits; i++)
		if (a->limits[i].resource != b->limits[i].resource ||
			a->limits[i].soft != b->limits[i].soft ||
			a->limits[i].hard != b->limits[i].hard)
			return false;
	return true;
}

bool process_config_same_sockets(const struct process_config *a, const struct process_config *b)
{
	if (a->n_sockets != b->n_sockets)
		return false;
	for (size_t i = 0; i < a->n_sockets; i++)
		if (strcmp(a->sockets[i].name, b->sockets[i].name) != 0 ||
			strcmp(a->sockets[i].address, b->sockets[i].address) != 0)
			return false;
	return true;
}

/* What the process itself is made of, and whether it is to run at all. */
static bool same_process(const struct process_config *a, const struct process_config *b)
{
	return same_strings(&a->command, &b->command) &&
	       same_strings(&a->environment, &b->environment) &&
	       same_strings(&a->environment_files, &b->environment_files) &&
	       same_strings(&a->secrets, &b->secrets) && same_limits(a, b) &&
	       same_text(a->directory, b->directory) && a->has_user == b->has_user &&
	       a->uid == b->uid && a->gid == b->gid && a->umask == b->umask &&
	       a->autostart == b->autostart && a->redirect_stderr == b->redirect_stderr &&
	       same_log(&a->out, &b->out) && same_log(&a->err, &b->err) &&
	       process_config_same_sockets(a, b) && a->ready == b->ready &&
	       same_text(a->ready_target, b->ready_target);
}

/* What is looked at when something happens to it, and so can change while it runs. */
static bool same_guidance(const struct process_config *a, const struct process_config *b)
{
	return a->group_priority == b->group_priority && a->priority == b->priority &&
	       a->autorestart == b->autorestart &&
	       memcmp(a->exit_codes, b->exit_codes, sizeof a->exit_codes) == 0 &&
	       a->start_ms == b->start_ms && a->start_retries == b->start_retries &&
	       a->restart_delay_ms == b->restart_delay_ms &&
	       a->restart_delay_max_ms == b->restart_delay_max_ms &&
	       a->stop_signal == b->stop_signal && a->stop_wait_ms == b->stop_wait_ms &&
	       a->stop_as_group == b->stop_as_group && a->kill_as_group == b->kill_as_group &&
	       a->ready_timeout_ms == b->ready_timeout_ms &&
	       same_strings(&a->depends_on, &b->depends_on);
}

enum config_difference process_config_compare(
	const struct process_config *a, const struct process_config *b)
{
	if (!same_process(a, b))
		return CONFIG_CHANGED;
	return same_guidance(a, b) ? CONFIG_SAME : CONFIG_ADJUSTED;
}
