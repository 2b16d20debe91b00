#ifndef SUPERVISOR_CONFIG_POD_CONFIG_H
#define SUPERVISOR_CONFIG_POD_CONFIG_H

/*
 * What a pod consists of: the processes of all [program:x] sections, with every expansion done and
 * every value checked, in the order in which they start when nothing makes them wait (group
 * priority, priority, place in the file).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/config/ini.h"
#include "supervisor/config/report.h"
#include "supervisor/config/values.h"

#define POD_MAX_PROCESSES 1024
#define POD_MAX_SOCKETS   16 /* of one process */
#define POD_MAX_LIMITS    16

enum autorestart { AUTORESTART_NEVER, AUTORESTART_UNEXPECTED, AUTORESTART_ALWAYS };
enum ready_kind { READY_NONE, READY_RPC, READY_TCP, READY_HTTP, READY_NOTIFY };
enum output_prefix { OUTPUT_PREFIX_AUTO, OUTPUT_PREFIX_ALWAYS, OUTPUT_PREFIX_NEVER };

/* Where a stream of a process goes. */
enum log_kind {
	LOG_KIND_CONSOLE, /* the supervisor's stderr, prefixed with the process's name */
	LOG_KIND_NONE,    /* /dev/null */
	LOG_KIND_FILE,    /* path; also /dev/stdout and /dev/stderr, as they come */
	LOG_KIND_AUTO,    /* a file below childlogdir */
};

struct log_config {
	enum log_kind kind;
	char *path; /* FILE, AUTO */
	uint64_t max_bytes;
	int64_t backups;
};

struct socket_config {
	char *name;
	char *address; /* host:port, [v6]:port, or a path with a slash */
};

/* One of setrlimit(2). */
struct limit_config {
	int resource;
	uint64_t soft, hard; /* UINT64_MAX: unlimited */
};

struct process_config {
	char *program; /* x of [program:x] */
	char *group;   /* the [group:x] it belongs to, else the program */
	char *name;    /* process_name */
	char *label; /* how people call it: name, or group:name when name does not begin with group
		      */
	char *file;  /* where it is written, for messages */
	unsigned line;
	int64_t group_priority, priority;
	size_t order; /* place in the file */

	struct strings command;
	struct strings environment; /* "KEY=value" */
	struct strings environment_files;
	struct strings secrets; /* "KEY=path of the file that holds the value" */
	struct limit_config limits[POD_MAX_LIMITS];
	size_t n_limits;
	char *directory; /* NULL: the supervisor's */
	bool has_user;
	uid_t uid;
	gid_t gid;
	char *user;    /* name, for its supplementary groups */
	int64_t umask; /* -1: the supervisor's */

	bool autostart;
	enum autorestart autorestart;
	uint8_t exit_codes[32]; /* expected ones, one bit each */
	uint64_t start_ms;      /* startsecs */
	int64_t start_retries;
	uint64_t restart_delay_ms, restart_delay_max_ms;
	int stop_signal;
	uint64_t stop_wait_ms;
	bool stop_as_group, kill_as_group;

	bool redirect_stderr;
	struct log_config out, err;

	struct socket_config *sockets;
	size_t n_sockets;
	enum ready_kind ready;
	char *ready_target;
	uint64_t ready_timeout_ms;
	struct strings depends_on; /* as written */
	size_t *needs;             /* what that means: indices of processes, ascending */
	size_t n_needs;
};

struct pod_config {
	struct process_config *processes;
	size_t n_processes;

	/* [supervisord] */
	struct strings environment;
	char *child_log_dir;
	int64_t umask; /* -1: unchanged */
	bool exit_on_fatal;
	int output_prefix; /* enum output_prefix */
};

/* The environment behind %(ENV_X)s. */
typedef const char *pod_config_env(const char *variable, void *arg);

/*
 * From a parsed document; here is the directory of its file. 0, or -1 when there was an error (all
 * of them are reported); then *pod is empty. Everything in *pod is a copy.
 */
int pod_config_build(struct pod_config *pod, const struct ini *doc, const char *here,
	pod_config_env *env, void *arg, struct report *report);
void pod_config_free(struct pod_config *pod);

/* What two versions of one process have in common. */
enum config_difference {
	CONFIG_SAME,
	CONFIG_ADJUSTED, /* only in what guides the supervisor: the process need not be restarted */
	CONFIG_CHANGED,
};
enum config_difference process_config_compare(
	const struct process_config *a, const struct process_config *b);
bool process_config_same_sockets(const struct process_config *a, const struct process_config *b);

/*
 * Does this process answer to the name: its label, its process name, group:name, its program, its
 * group, group:*, all?
 */
bool process_config_matches(const struct process_config *process, const char *name);

#endif
