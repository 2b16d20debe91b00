#include "supervisor/config/depends.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum color { UNSEEN, ON_PATH, DONE };

/* How many processes answer to the name, itself included; *others: without itself. */
static size_t resolve_name(struct pod_config *pod, struct process_config *process, const char *name,
	bool *wanted, size_t *others)
{
	size_t found = 0;
	*others = 0;
	for (size_t i = 0; i < pod->n_processes; i++) {
		struct process_config *other = &pod->processes[i];
		if (strcmp(name, "all") == 0 || !process_config_matches(other, name))
			continue;
		found++;
		/* A program may wait for its own first process, never a process for itself. */
		if (other != process) {
			wanted[i] = true;
			++*others;
		}
	}
	return found;
}

static int resolve_process(
	struct pod_config *pod, struct process_config *process, bool *wanted, struct report *report)
{
	memset(wanted, 0, pod->n_processes);
	for (size_t i = 0; i < process->depends_on.n; i++) {
		const char *name = process->depends_on.items[i];
		size_t others, found = resolve_name(pod, process, name, wanted, &others);
		if (found && !others)
			report_error(report, process->file, process->line,
				"[program:%s] depends_on: %s would wait for itself",
				process->program, process->label);
		else if (!found)
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

/* A walk along what waits for what. */
struct walk {
	const struct pod_config *pod;
	struct report *report;
	unsigned char *colors;
	size_t *path, depth; /* from where it began to where it is */
};

/* "a, b, c, a" */
static void report_circle(struct walk *w, size_t i)
{
	char circle[512];
	size_t from = w->depth, len = 0;
	while (from && w->path[from - 1] != i)
		from--;
	for (size_t at = from ? from - 1 : 0; at < w->depth && len < sizeof circle; at++)
		len += (size_t)snprintf(circle + len, sizeof circle - len, "%s, ",
			w->pod->processes[w->path[at]].label);
	const struct process_config *process = &w->pod->processes[i];
	report_error(w->report, process->file, process->line, "depends_on goes in a circle: %s%s",
		circle, process->label);
}

/* Depth first. The path is bounded by POD_MAX_PROCESSES, so is the stack. */
static int visit(struct walk *w, size_t i)
{
	const struct process_config *process = &w->pod->processes[i];
	if (w->colors[i] == DONE)
		return 0;
	if (w->colors[i] == ON_PATH) {
		report_circle(w, i);
		return -1;
	}
	w->colors[i] = ON_PATH;
	w->path[w->depth++] = i;
	for (size_t j = 0; j < process->n_needs; j++)
		if (visit(w, process->needs[j]) < 0)
			return -1;
	w->depth--;
	w->colors[i] = DONE;
	return 0;
}

void depends_resolve(struct pod_config *pod, struct report *report)
{
	bool *wanted = calloc(pod->n_processes + 1, sizeof *wanted);
	struct walk walk = {.pod = pod,
		.report = report,
		.colors = calloc(pod->n_processes + 1, 1),
		.path = calloc(pod->n_processes + 1, sizeof *walk.path)};
	int failed = !wanted || !walk.colors || !walk.path;
	for (size_t i = 0; i < pod->n_processes && !failed; i++)
		failed = resolve_process(pod, &pod->processes[i], wanted, report) < 0;
	if (failed)
		report_error(report, NULL, 0, "out of memory");
	for (size_t i = 0; i < pod->n_processes && !failed; i++)
		failed = visit(&walk, i) < 0;
	free(wanted);
	free(walk.colors);
	free(walk.path);
}
