#include "supervisor/config/depends.h"

#include <stdlib.h>
#include <string.h>

enum color { UNSEEN, ON_PATH, DONE };

static int resolve_name(
	struct pod_config *pod, struct process_config *process, const char *name, bool *wanted)
{
	int found = 0;
	for (size_t i = 0; i < pod->n_processes; i++) {
		struct process_config *other = &pod->processes[i];
		if (strcmp(name, "all") == 0 || !process_config_matches(other, name))
			continue;
		found++;
		/* A program may wait for its own first process, never a process for itself. */
		if (other != process)
			wanted[i] = true;
	}
	return found ? 0 : -1;
}

static int resolve_process(
	struct pod_config *pod, struct process_config *process, bool *wanted, struct report *report)
{
	memset(wanted, 0, pod->n_processes);
	for (size_t i = 0; i < process->depends_on.n; i++) {
		const char *name = process->depends_on.items[i];
		if (resolve_name(pod, process, name, wanted) < 0)
			report_error(report, process->file, process->line,
				"[program:%s] depends_on: there is no program, group or process \"%s\"",
				process->program, name);
	}
	size_t n = 0;
	for (size_t i = 0; i < pod->n_processes; i++)
		n += wanted[i];
	if (!n)
		return 0;
	process->needs = malloc(n * sizeof *process->needs);
	if (!process->needs)
		return -1;
	for (size_t i = 0; i < pod->n_processes; i++)
		if (wanted[i])
			process->needs[process->n_needs++] = i;
	return 0;
}

/* Depth first. The path is bounded by POD_MAX_PROCESSES, so is the stack. */
static int visit(
	const struct pod_config *pod, size_t i, unsigned char *colors, struct report *report)
{
	const struct process_config *process = &pod->processes[i];
	if (colors[i] == DONE)
		return 0;
	if (colors[i] == ON_PATH) {
		report_error(report, process->file, process->line,
			"depends_on goes in a circle through %s", process->label);
		return -1;
	}
	colors[i] = ON_PATH;
	for (size_t j = 0; j < process->n_needs; j++)
		if (visit(pod, process->needs[j], colors, report) < 0)
			return -1;
	colors[i] = DONE;
	return 0;
}

void depends_resolve(struct pod_config *pod, struct report *report)
{
	bool *wanted = calloc(pod->n_processes + 1, sizeof *wanted);
	unsigned char *colors = calloc(pod->n_processes + 1, sizeof *colors);
	int failed = !wanted || !colors;
	for (size_t i = 0; i < pod->n_processes && !failed; i++)
		failed = resolve_process(pod, &pod->processes[i], wanted, report) < 0;
	if (failed)
		report_error(report, NULL, 0, "out of memory");
	for (size_t i = 0; i < pod->n_processes && !failed; i++)
		failed = visit(pod, i, colors, report) < 0;
	free(wanted);
	free(colors);
}
