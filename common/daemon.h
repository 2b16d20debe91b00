#ifndef COMMON_DAEMON_H
#define COMMON_DAEMON_H

/*
 * The life of a daemon: options, log, loop, signals, inherited sockets, RPC socket, lameduck and
 * drain.
 *
 *   starting -> serving -> lameduck -> draining -> stopped
 *
 * SIGTERM and SIGINT: lameduck (/readyz answers 503, everything is still served) for LAMEDUCK, then
 * on_drain; the daemon calls daemon_drained() when its work is done, or TERMINATION_GRACE_PERIOD
 * (counted from the signal) ends it, with a line that names what was still open. The same signal
 * again skips the lameduck. SIGHUP: files of secrets are read again, on_reload, the log is
 * reopened. SIGPIPE is ignored.
 *
 *   int main(int argc, char **argv)
 *   {
 *           struct hashd_conf conf;
 *           struct daemon *daemon = daemon_start(&spec, &conf, argc, argv);
 *           ... make parts ...
 *           int code = daemon_run(daemon);
 *           ... free parts in reverse ...
 *           daemon_stop(&daemon);
 *           return code;
 *   }
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/rpc.h"

struct loop;
struct daemon;

/* Every daemon's own conf struct begins with this one. */
struct daemon_conf {
	char *run_dir;       /* RUN_DIR: Unix sockets of the pod */
	char *rpc_socket;    /* "" : <run_dir>/<name>.sock */
	int log_level;       /* LOG_LEVEL */
	int log_format;      /* LOG_FORMAT auto|json|text */
	int64_t lameduck_ms; /* LAMEDUCK, 1 s */
	int64_t grace_ms;    /* TERMINATION_GRACE_PERIOD, 10 s */
	int64_t trusted_gid; /* TRUSTED_GID, -1 */
	bool strict;         /* unknown <DAEMON>_* variables are errors */
};

struct daemon_spec {
	const char *name;              /* "gatewayd" */
	const char *summary;           /* one sentence for --help */
	const char *env_prefix;        /* "GATEWAYD_" */
	const struct config_row *rows; /* the daemon's own; the common ones are added */
	size_t conf_size;
	/* Optional: checks that need several settings; NULL, or the error sentence (a static
	 * string). */
	const char *(*check)(const void *conf);
	/* Optional: the name of this instance, e.g. "gatewayd.1" (socket, log). NULL: spec->name.
	 * Written to text. */
	void (*instance_name)(const void *conf, char *text, size_t size);
	const struct metric_family *families;
	/* Of parts from common/, ends with NULL; NULL: none. */
	const struct metric_family *const *part_families;
	/* It has times of its own: no LAMEDUCK, no TERMINATION_GRACE_PERIOD among its settings;
	 * on_drain comes at once, and stopping takes as long as it takes. */
	bool own_stop_times;
};

/* Optional callbacks; all on the loop. */
struct daemon_events {
	void (*on_reload)(void *arg); /* conf has its new values */
	void (*on_lameduck)(void *arg);
	void (*on_drain)(void *arg); /* must lead to daemon_drained(); NULL: drained at once */
	/* What is still open, for the log when the grace period is over: "3 connections, 1 fetch".
	 */
	void (*describe_open)(char *text, size_t size, void *arg);
};

/*
 * Parse, open the log, make the loop, take over inherited sockets, register the metrics that every
 * daemon has (common/process_metrics.h) and spec's. Exits by itself: 0 after --help, --version,
 * --print-config, --check-config, --print-options, --print-metrics; 64 or 78 with one line for a
 * bad option. Registers SIGTERM, SIGINT, SIGHUP. conf is filled and freed by this module; its
 * strings may be replaced by a reload, and the old ones are valid until on_reload returns.
 */
struct daemon *daemon_start(const struct daemon_spec *spec, void *conf, int argc, char **argv);
void daemon_set_events(struct daemon *daemon, const struct daemon_events *events, void *arg);

struct loop *daemon_loop(struct daemon *daemon);
struct metrics *daemon_metrics(struct daemon *daemon);
const char *daemon_name(const struct daemon *daemon);        /* with instance number */
const char *daemon_instance_id(const struct daemon *daemon); /* random per start, 32 hex */
const char *daemon_version(void);
uint64_t daemon_uptime_ms(const struct daemon *daemon);
/* True in daemon_run(), until lameduck, while daemon_set_ready(true) (the default): what /readyz
 * and ping say. */
bool daemon_ready(const struct daemon *daemon);
void daemon_set_ready(struct daemon *daemon, bool ready);
bool daemon_stopping(const struct daemon *daemon);

/* "serving", "lameduck"; for people. */
const char *daemon_state_name(const struct daemon *daemon);

/*
 * A listening, non-blocking, close-on-exec socket: the one inherited under this name
 * (sd_listen_fds(3): LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID), or a new one bound to address
 * ("host:port", "[v6]:port", or a path with a slash: a Unix socket, mode 0660, whose stale
 * predecessor is replaced only if nobody listens on it; common/listen.h). The caller's; Unix
 * sockets that this process bound are unlinked by daemon_stop(). Dies with a clear line when it
 * cannot. Not after daemon_run() began.
 */
int daemon_listen(struct daemon *daemon, const char *name, const char *address);

/*
 * Open the RPC socket (inherited name "rpc"; the run directory is made) and serve methods there
 * beside `ping`, `metrics` and `log_level`, which every daemon has. methods may be NULL and must
 * outlive the daemon, to which the server belongs: draining it is the daemon's on_drain's business.
 */
struct rpc_server *daemon_serve_rpc(struct daemon *daemon, const struct rpc_method *methods);

/*
 * Cut off all RPC peers and stop serving: after daemon_run(), before freeing what the methods use.
 * The requests under way get their on_cancel. daemon_stop() does it otherwise.
 */
void daemon_close_rpc(struct daemon *daemon);

/* Run until stopped; the exit code. Sends READY=1 to NOTIFY_SOCKET, when that is set, as soon as
 * the daemon is ready, and STOPPING=1. Closes inherited sockets that nobody asked for. */
int daemon_run(struct daemon *daemon);
/* The drain is complete. */
void daemon_drained(struct daemon *daemon);
/* Begin to stop, as if SIGTERM had come; exit_code is what daemon_run() returns. */
void daemon_quit(struct daemon *daemon, int exit_code);
void daemon_stop(struct daemon **daemon);

#endif
