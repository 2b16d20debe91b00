#include "common/process_metrics.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/daemon.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics.h"

enum {
	CPU,
	RESIDENT,
	ANONYMOUS,
	VIRTUAL,
	OPEN_FDS,
	MAX_FDS,
	START_TIME,
	LOG_DROPPED,
	LOOP_LAG,
	LOOP_TURN_CPU,
	LOOP_TURNS_STUCK,
	BUILD,
	LOOP_TURNS_LONG,
	LOG_LINES,
	N_FAMILIES
};
static const struct metric_family families[] = {
	[CPU] = {.name = "process_cpu_seconds_total",
		.type = METRIC_COUNTER,
		.help = "User and system CPU time spent, in seconds."},
	[RESIDENT] = {.name = "process_resident_memory_bytes",
		.type = METRIC_GAUGE,
		.help = "Resident memory, shared pages included: libraries, and the caches' arenas in "
			"gatewayd and in hashd."},
	[ANONYMOUS] = {.name = "process_anonymous_memory_bytes",
		.type = METRIC_GAUGE,
		.help = "Resident memory of the process alone, neither of files nor shared: may be "
			"summed up over processes."},
	[VIRTUAL] = {.name = "process_virtual_memory_bytes",
		.type = METRIC_GAUGE,
		.help = "Size of the address space."},
	[OPEN_FDS] = {.name = "process_open_fds",
		.type = METRIC_GAUGE,
		.help = "Open file descriptors."},
	[MAX_FDS] = {.name = "process_max_fds",
		.type = METRIC_GAUGE,
		.help = "File descriptors that may be open."},
	[START_TIME] = {.name = "process_start_time_seconds",
		.type = METRIC_GAUGE,
		.help = "Start of the process, in seconds since 1970."},
	[LOG_DROPPED] = {.name = "log_dropped_lines_total",
		.type = METRIC_COUNTER,
		.help = "Log lines lost because stderr was not read fast enough, or broken."},
	[LOOP_LAG] = {.name = "loop_lag_seconds",
		.type = METRIC_HISTOGRAM,
		.help = "How long a timer that was due waited for the event loop, probed once a second.",
		.buckets = metrics_latency_buckets},
	[LOOP_TURN_CPU] = {.name = "loop_turn_cpu_max_seconds",
		.type = METRIC_GAUGE,
		.help = "The most processor time of one turn of the event loop since the start; no "
			"callback took more."},
	[LOOP_TURNS_STUCK] = {.name = "loop_stuck_turns_total",
		.type = METRIC_COUNTER,
		.help = "Turns of the event loop that took more than 20 ms of processor time."},
	[BUILD] = {.name = "build_info",
		.type = METRIC_GAUGE,
		.help = "Always 1; the label says which version runs.",
		.labels = {"version"}},
	[LOOP_TURNS_LONG] = {.name = "loop_long_turns_total",
		.type = METRIC_COUNTER,
		.help = "Turns of the event loop that took more than 5 ms of processor time; preempted "
			"ones lost their processor meanwhile, so the machine has a part in it.",
		.labels = {"preempted"}},
	[LOG_LINES] = {.name = "log_lines_total",
		.type = METRIC_COUNTER,
		.help = "Log lines made, by level.",
		.labels = {"level"}},
	[N_FAMILIES] = {.name = NULL},
};

struct process_metrics {
	struct loop *loop;
	struct metric *plain[BUILD];  /* the families without labels */
	struct metric *turns_long[2]; /* [preempted] */
	struct metric *log_lines[LOG_LEVEL_FATAL + 1];
};

static void set_memory(struct process_metrics *p)
{
	char text[128];
	unsigned long total, resident, shared;
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	if (sscanf(text, "%lu %lu %lu", &total, &resident, &shared) != 3)
		return;
	double page_bytes = (double)sysconf(_SC_PAGESIZE);
	metric_set(p->plain[VIRTUAL], (double)total * page_bytes);
	metric_set(p->plain[RESIDENT], (double)resident * page_bytes);
	metric_set(p->plain[ANONYMOUS],
		resident > shared ? (double)(resident - shared) * page_bytes : 0);
}

static unsigned open_descriptors(void)
{
	/* Since Linux 6.2 the size of the directory is their number; to list ten thousand takes
	 * milliseconds. */
	struct stat st;
	if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
		return (unsigned)st.st_size;
	unsigned n = 0;
	DIR *dir = opendir("/proc/self/fd");
	if (!dir)
		return 0;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n > 3 ? n - 3 : 0; /* ".", ".." and the directory itself */
}

static double seconds(const struct timeval *t)
{
	return (double)t->tv_sec + (double)t->tv_usec / 1e6;
}

static void collect(void *arg)
{
	struct process_metrics *p = arg;
	struct rusage usage;
	struct rlimit limit;
	if (getrusage(RUSAGE_SELF, &usage) == 0)
		metric_set(p->plain[CPU], seconds(&usage.ru_utime) + seconds(&usage.ru_stime));
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		metric_set(p->plain[MAX_FDS], (double)limit.rlim_cur);
	set_memory(p);
	metric_set(p->plain[OPEN_FDS], open_descriptors());
	if (p->loop) {
		metric_set(p->plain[LOOP_TURN_CPU], (double)loop_turn_cpu_max_us(p->loop) / 1e6);
		for (int preempted = 0; preempted < 2; preempted++)
			metric_set(p->turns_long[preempted],
				(double)loop_turns_long(p->loop, preempted));
		metric_set(p->plain[LOOP_TURNS_STUCK], (double)loop_turns_stuck(p->loop));
	}
	metric_set(p->plain[LOG_DROPPED], (double)log_dropped());
	for (int level = 0; level <= LOG_LEVEL_FATAL; level++)
		metric_set(p->log_lines[level], (double)log_lines((enum log_level)level));
}

static void saw_lag(uint64_t lag_us, void *arg)
{
	struct process_metrics *p = arg;
	metric_observe(p->plain[LOOP_LAG], (double)lag_us / 1e6);
}

struct process_metrics *process_metrics_new(struct metrics *metrics, struct loop *loop)
{
	struct process_metrics *p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	metrics_register(metrics, families);
	for (int i = 0; i < BUILD; i++)
		p->plain[i] = metric(metrics, &families[i]);
	for (int preempted = 0; preempted < 2; preempted++)
		p->turns_long[preempted] = metric(
			metrics, &families[LOOP_TURNS_LONG], preempted ? "true" : "false");
	for (int level = 0; level <= LOG_LEVEL_FATAL; level++)
		p->log_lines[level] = metric(
			metrics, &families[LOG_LINES], log_level_name((enum log_level)level));
	metric_set(metric(metrics, &families[BUILD], daemon_version()), 1);
	metric_set(p->plain[START_TIME], (double)time(NULL));
	metrics_on_collect(metrics, collect, p);
	p->loop = loop;
	if (loop)
		loop_observe_lag(loop, saw_lag, p);
	return p;
}

void process_metrics_free(struct process_metrics **process)
{
	struct process_metrics *p = *process;
	if (!p)
		return;
	*process = NULL;
	if (p->loop)
		loop_observe_lag(p->loop, NULL, NULL);
	free(p);
}
