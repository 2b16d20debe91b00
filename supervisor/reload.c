/* From one configuration of a running pod to the next. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "supervisor/pod_private.h"

/* ---- the comparison ---- */

static struct member *find_label(const struct pod *pod, const char *label)
{
	for (size_t i = 0; i < pod->n_members; i++)
		if (strcmp(pod->members[i].process->config->label, label) == 0)
			return &pod->members[i];
	return NULL;
}

static bool has_label(const struct pod_config *config, const char *label)
{
	for (size_t i = 0; i < config->n_processes; i++)
		if (strcmp(config->processes[i].label, label) == 0)
			return true;
	return false;
}

void pod_changes_free(struct pod_changes *changes)
{
	strings_free(&changes->added);
	strings_free(&changes->changed);
	strings_free(&changes->adjusted);
	strings_free(&changes->removed);
}

/* ---- the change ---- */

static void change(struct member *member, const struct process_config *config)
{
	struct process *process = member->process;
	member->next = config;
	/* One after the other, with their sockets open, so that clients see nothing of it. */
	if (config->autostart && !process_is_down(process) &&
		process_config_same_sockets(process->config, config)) {
		member->restart_queued = true;
		return;
	}
	member->restart_queued = member->restarting = false;
	member->start_later = config->autostart;
	process->start_pending = false;
	process_stop(process);
}

static int name(struct strings *list, const char *label)
{
	return strings_add(list, span_of(label));
}

/* What will happen to whom, and the processes that are new; changes nothing that exists. */
static int prepare(struct pod *pod, const struct pod_config *config, struct member *members,
	struct pod_changes *changes)
{
	int result = 0;
	for (size_t i = 0; i < config->n_processes && result == 0; i++) {
		const struct process_config *wanted = &config->processes[i];
		struct member *old = find_label(pod, wanted->label);
		if (old) {
			members[i] = *old;
			enum config_difference difference = process_config_compare(
				old->process->config, wanted);
			if (difference != CONFIG_SAME)
				result = name(difference == CONFIG_CHANGED ? &changes->changed
									   : &changes->adjusted,
					wanted->label);
			continue;
		}
		members[i].process = process_new(&pod->host, wanted);
		members[i].start_later = wanted->autostart;
		result = members[i].process ? name(&changes->added, wanted->label) : -1;
	}
	for (size_t i = 0; i < pod->n_members && result == 0; i++) {
		const char *label = pod->members[i].process->config->label;
		if (!has_label(config, label))
			result = name(&changes->removed, label);
	}
	return result;
}

static void discard(struct pod *pod, const struct pod_config *config, struct member *members)
{
	for (size_t i = 0; i < config->n_processes; i++)
		if (members[i].process && !pod_member(pod, members[i].process))
			process_free(&members[i].process);
	free(members);
}

/* Nothing fails from here on. */
static void commit(struct pod *pod, struct generation *generation, struct member *members)
{
	const struct pod_config *config = &generation->config;
	struct member *old = pod->members;
	size_t n_old = pod->n_members;
	pod->members = members;
	pod->n_members = config->n_processes;
	pod->config = config;
	generation->older = pod->generation;
	pod->generation = generation;
	for (size_t i = 0; i < n_old; i++) {
		struct process *process = old[i].process;
		if (has_label(config, process->config->label))
			continue;
		process->index = SIZE_MAX;
		process->start_pending = false;
		pod->leaving[pod->n_leaving++] = process;
	}
	free(old);
	for (size_t i = 0; i < pod->n_members; i++) {
		struct member *member = &members[i];
		const struct process_config *wanted = &config->processes[i];
		member->process->index = i;
		member->next = NULL;
		if (process_config_compare(member->process->config, wanted) == CONFIG_CHANGED)
			change(member, wanted);
		else
			member->process->config = wanted;
	}
	for (size_t i = 0; i < pod->n_leaving; i++)
		process_stop(pod->leaving[i]);
}

int pod_reload(struct pod *pod, struct pod_config *config, struct pod_changes *changes)
{
	struct generation *generation = calloc(1, sizeof *generation);
	struct member *members = calloc(config->n_processes + 1, sizeof *members);
	struct process **leaving = realloc(
		pod->leaving, (pod->n_leaving + pod->n_members + 1) * sizeof *leaving);
	if (leaving)
		pod->leaving = leaving;
	*changes = (struct pod_changes){0};
	if (!generation || !members || !leaving || prepare(pod, config, members, changes) < 0) {
		if (members)
			discard(pod, config, members);
		free(generation);
		pod_changes_free(changes);
		return -1;
	}
	generation->config = *config;
	/* The processes stay where they are: only the struct around them moves. */
	*config = (struct pod_config){0};
	commit(pod, generation, members);
	log_info("configuration read again: %zu added, %zu changed, %zu adjusted, %zu removed",
		changes->added.n, changes->changed.n, changes->adjusted.n, changes->removed.n);
	pod_evaluate_soon(pod);
	return 0;
}

bool pod_is_reloaded(const struct pod *pod)
{
	return pod->n_leaving == 0;
}

/* ---- every turn ---- */

static void forget_the_gone(struct pod *pod)
{
	for (size_t i = 0; i < pod->n_leaving;) {
		if (process_is_down(pod->leaving[i])) {
			process_free(&pod->leaving[i]);
			pod->leaving[i] = pod->leaving[--pod->n_leaving];
		} else {
			i++;
		}
	}
}

static bool is_used(const struct pod *pod, const struct pod_config *config)
{
	const struct process_config *end = config->processes + config->n_processes;
	for (size_t i = 0; i < pod->n_members; i++)
		if (pod->members[i].process->config >= config->processes &&
			pod->members[i].process->config < end)
			return true;
	for (size_t i = 0; i < pod->n_leaving; i++)
		if (pod->leaving[i]->config >= config->processes && pod->leaving[i]->config < end)
			return true;
	return false;
}

static void forget_old_configurations(struct pod *pod)
{
	for (struct generation **at = &pod->generation->older; *at;) {
		struct generation *old = *at;
		if (is_used(pod, &old->config)) {
			at = &old->older;
			continue;
		}
		*at = old->older;
		pod_config_free(&old->config);
		free(old);
	}
}

static void start_the_late(struct pod *pod)
{
	/* An address may go from one to another: first all who give one up. */
	bool wait = pod->n_leaving > 0;
	for (size_t i = 0; i < pod->n_members; i++)
		wait |= pod->members[i].start_later && !process_is_down(pod->members[i].process);
	for (size_t i = 0; i < pod->n_members && !wait; i++) {
		if (!pod->members[i].start_later)
			continue;
		pod->members[i].start_later = false;
		pod->members[i].process->start_pending = true;
	}
}

void pod_adopt_next(struct member *member)
{
	if (!member->next || !process_is_down(member->process))
		return;
	process_adopt(member->process, member->next);
	member->next = NULL;
}

void pod_advance_reload(struct pod *pod)
{
	forget_the_gone(pod);
	for (size_t i = 0; i < pod->n_members; i++)
		pod_adopt_next(&pod->members[i]);
	if (!pod->stopping)
		start_the_late(pod);
	forget_old_configurations(pod);
}
