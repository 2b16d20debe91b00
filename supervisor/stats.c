#include "supervisor/stats.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/pod.h"

enum { UP, STATE, RESTARTS, UPTIME, RSS, CPU, EXIT, LOST, FAMILIES };

const struct metric_family stats_families[] = {[UP] = {.name = "supervisor_program_up",
						       .type = METRIC_GAUGE,
						       .help = "1 while the program is RUNNING.",
						       .labels = {"program"}},
	[STATE] = {.name = "supervisor_program_state",
		.type = METRIC_GAUGE,
		.help = "0 STOPPED, 1 STARTING, 2 RUNNING, 3 BACKOFF, 4 STOPPING, 5 EXITED, 6 FATAL.",
		.labels = {"program"}},
	[RESTARTS] = {.name = "supervisor_program_restarts_total",
		.type = METRIC_COUNTER,
		.help = "Starts after the first one that nobody asked for.",
		.labels = {"program"}},
	[UPTIME] = {.name = "supervisor_program_uptime_seconds",
		.type = METRIC_GAUGE,
		.help = "Time since the last start; 0 while there is no process.",
		.labels = {"program"}},
	[RSS] = {.name = "supervisor_program_resident_memory_bytes",
		.type = METRIC_GAUGE,
		.help = "Resident memory of the process itself.",
		.labels = {"program"}},
	[CPU] = {.name = "supervisor_program_cpu_seconds",
		.type = METRIC_GAUGE,
		.help = "User and system time of the process since its last start.",
		.labels = {"program"}},
	[EXIT] = {.name = "supervisor_program_last_exit_status",
		.type = METRIC_GAUGE,
		.help = "Exit code of the last end, 128 + signal for a signal, -1 before the first.",
		.labels = {"program"}},
	[LOST] = {.name = "supervisor_program_output_lost_bytes_total",
		.type = METRIC_COUNTER,
		.help = "What the program printed and its log file did not take: a full disk.",
		.labels = {"program"}},
	[FAMILIES] = {0}};

struct stats {
	struct metrics *metrics;
	struct pod *pod;
};

static void read_usage(pid_t pid, double *rss_bytes, double *cpu_seconds)
{
	char path[64], text[1024];
	*rss_bytes = *cpu_seconds = 0;
	if (!pid)
		return;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return;
	text[n] = '\0';
	const char *end = strrchr(text, ')');
	unsigned long long user, system;
	long rss;
	/* proc(5): after the name, state is field 3; utime 14, stime 15, rss 24. */
	if (!end || sscanf(end + 1,
			    " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu"
			    " %*d %*d %*d %*d %*d %*d %*u %*u %ld",
			    &user, &system, &rss) != 3)
		return;
	*rss_bytes = (double)rss * (double)sysconf(_SC_PAGESIZE);
	*cpu_seconds = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double exit_status(const struct process *process)
{
	if (!process->ended_ms)
		return -1;
	int status = process->exit_status;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void set(struct stats *stats, int family, const struct process *process, double value)
{
	metric_set(metric(stats->metrics, &stats_families[family], process->config->label), value);
}

static void collect(void *arg)
{
	struct stats *stats = arg;
	/* A program that a reload took out has no metrics any more. */
	for (int family = 0; family < FAMILIES; family++)
		metrics_forget(stats->metrics, &stats_families[family]);
	for (size_t i = 0; i < pod_count(stats->pod); i++) {
		const struct process *process = pod_process(stats->pod, i);
		double rss, cpu;
		read_usage(process->pid, &rss, &cpu);
		set(stats, UP, process, process->state == STATE_RUNNING);
		set(stats, STATE, process, process->state);
		set(stats, RESTARTS, process, (double)process->restarts);
		set(stats, UPTIME, process,
			process->pid ? (double)process_age_ms(process) / 1000 : 0);
		set(stats, RSS, process, rss);
		set(stats, CPU, process, cpu);
		set(stats, EXIT, process, exit_status(process));
		set(stats, LOST, process, (double)process_lost_output_bytes(process));
	}
}

struct stats *stats_new(struct metrics *metrics, struct pod *pod)
{
	struct stats *stats = calloc(1, sizeof *stats);
	if (!stats)
		return NULL;
	*stats = (struct stats){metrics, pod};
	metrics_on_collect(metrics, collect, stats);
	return stats;
}

void stats_free(struct stats **stats)
{
	free(*stats);
	*stats = NULL;
}
