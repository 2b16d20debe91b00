/* Any bytes are a configuration or a list of mistakes; a good one holds together. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/config/pod_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_line(void *arg, bool is_error, const char *file, unsigned line, const char *text)
{
	(void)arg;
	(void)is_error;
	(void)line;
	if (file && strcmp(file, "pod.conf") != 0)
		abort();
	for (; *text; text++)
		if ((unsigned char)*text < ' ')
			abort();
}

static const char *env_of(const char *variable, void *arg)
{
	(void)arg;
	return strcmp(variable, "A") == 0 ? "a" : NULL;
}

static void check_process(const struct pod_config *pod, const struct process_config *p)
{
	if (!p->command.n || !p->label || !process_config_matches(p, p->label))
		abort();
	for (size_t i = 0; i < p->n_needs; i++)
		if (p->needs[i] >= pod->n_processes || &pod->processes[p->needs[i]] == p)
			abort();
	for (size_t i = 0; i < p->n_sockets; i++)
		if (!*p->sockets[i].name || !*p->sockets[i].address)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct report report = {.line = check_line};
	struct ini doc = {0};
	struct pod_config pod = {0};
	ini_parse(&doc, "pod.conf", (const char *)data, len, &report);
	unsigned errors = report.errors;
	int result = pod_config_build(&pod, &doc, "/etc", env_of, NULL, &report);
	ini_free(&doc);
	if ((result < 0) != (report.errors > errors))
		abort();
	if (result < 0 && pod.n_processes)
		abort();
	for (size_t i = 0; i < pod.n_processes; i++)
		check_process(&pod, &pod.processes[i]);
	pod_config_free(&pod);
	return 0;
}
