/*
 * supervisor: starts the programs of a pod, keeps them running, stops them.
 *
 * Exit codes: 0 stopped on request and everything left in time; 1 stopped on request, but something
 * had to be killed; 2 a program went FATAL and exit_on_fatal is set; 64, 78 bad options or a bad
 * configuration.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include <event2/event.h>

#include "common/daemon.h"
#include "common/listen.h"
#include "common/log.h"
#include "common/loop.h"
#include "supervisor/conf.h"
#include "supervisor/config/load.h"
#include "supervisor/control.h"
#include "supervisor/pod.h"
#include "supervisor/spawn.h"
#include "supervisor/stats.h"

/* One Ctrl-C may come on several ways, from the terminal and from a parent: that is one wish. */
#define ONE_WISH_US 500000

struct supervisor {
	struct daemon *daemon;
	struct pod *pod;
	struct control *control;
	const char *config_path;
	uint64_t stop_signal_us; /* the first one; 0: none */
	struct timer *shutdown_timer;
	int64_t shutdown_timeout_ms;
	enum pod_exit exit;
	bool stopped;
};

/* ---- configuration ---- */

static const char *env_of(const char *variable, void *arg)
{
	(void)arg;
	return getenv(variable);
}

static void print_report(
	void *arg, bool is_error, const char *file, unsigned line, const char *text)
{
	const char *path = arg;
	const char *kind = is_error ? "error" : "warning";
	if (line)
		fprintf(stderr, "%s:%u: %s: %s\n", file, line, kind, text);
	else
		fprintf(stderr, "%s: %s: %s\n", file ? file : path, kind, text);
}

static void ignore_report(
	void *arg, bool is_error, const char *file, unsigned line, const char *text)
{
	(void)arg;
	(void)is_error;
	(void)file;
	(void)line;
	(void)text;
}

/* What %(ENV_RUN_DIR)s and the programs see; absolute, since a program may have its own directory.
 */
static void publish_run_dir(const struct supervisor_conf *conf)
{
	char *absolute = realpath(conf->common.run_dir, NULL);
	setenv("RUN_DIR", absolute ? absolute : conf->common.run_dir, 1);
	free(absolute);
}

/* The whole configuration is checked with the options, so that --check-config covers it. */
static const char *check(const void *arg)
{
	const struct supervisor_conf *conf = arg;
	struct report report = {.line = print_report, .arg = conf->config};
	struct pod_config pod;
	publish_run_dir(conf);
	if (load_pod_config(&pod, conf->config, env_of, NULL, &report) < 0)
		return "the configuration has errors";
	pod_config_free(&pod);
	return NULL;
}

/* ---- signals ---- */

static void stop_signal(evutil_socket_t number, short what, void *arg)
{
	(void)number;
	(void)what;
	struct supervisor *s = arg;
	uint64_t now_us = loop_now_us(daemon_loop(s->daemon));
	/* The first one is the daemon's, and comes back as on_drain. */
	if (!s->stop_signal_us)
		s->stop_signal_us = now_us;
	if (now_us - s->stop_signal_us < ONE_WISH_US || s->stopped)
		return;
	log_warn("asked to stop again: what is still there is killed");
	pod_stop(s->pod);
}

static void forward_signal(evutil_socket_t number, short what, void *arg)
{
	(void)what;
	struct supervisor *s = arg;
	pod_forward_signal(s->pod, number);
}

/* As in supervisord, where it is for the supervisor and not for its programs. */
static void reopen_signal(evutil_socket_t number, short what, void *arg)
{
	(void)number;
	(void)what;
	struct supervisor *s = arg;
	log_reopen();
	pod_reopen_logs(s->pod);
}

static const struct {
	int number;
	event_callback_fn callback;
} signals[] = {{SIGTERM, stop_signal}, {SIGINT, stop_signal}, {SIGUSR1, forward_signal},
	{SIGUSR2, reopen_signal}, {SIGWINCH, forward_signal}};
#define N_SIGNALS (sizeof signals / sizeof *signals)

static void watch_signals(struct supervisor *s, struct event *events[N_SIGNALS])
{
	struct event_base *base = loop_base(daemon_loop(s->daemon));
	for (size_t i = 0; i < N_SIGNALS; i++) {
		events[i] = event_new(
			base, signals[i].number, EV_SIGNAL | EV_PERSIST, signals[i].callback, s);
		if (!events[i] || event_add(events[i], NULL) < 0)
			die(EX_OSERR, "cannot watch signal %d", signals[i].number);
	}
}

/* ---- the pod's life and the daemon's ---- */

static void on_reload(void *arg)
{
	struct supervisor *s = arg;
	pod_forward_signal(s->pod, SIGHUP);
}

static void shutdown_late(void *arg)
{
	struct supervisor *s = arg;
	log_warn("not all have stopped within %lld ms: what is still there is killed",
		(long long)s->shutdown_timeout_ms);
	pod_stop(s->pod);
}

static void on_drain(void *arg)
{
	struct supervisor *s = arg;
	if (s->stopped) {
		daemon_drained(s->daemon);
		return;
	}
	if (!pod_is_stopping(s->pod))
		pod_stop(s->pod);
	if (s->shutdown_timeout_ms)
		timer_arm(s->shutdown_timer, (uint64_t)s->shutdown_timeout_ms);
}

static void pod_stopped(enum pod_exit exit, void *arg)
{
	struct supervisor *s = arg;
	s->stopped = true;
	s->exit = exit;
	if (daemon_stopping(s->daemon))
		daemon_drained(s->daemon);
	else
		daemon_quit(s->daemon, (int)exit);
}

static void pod_changed(void *arg)
{
	struct supervisor *s = arg;
	daemon_set_ready(s->daemon, pod_is_ready(s->pod));
	control_pod_changed(s->control);
}

static void shutdown_asked(void *arg)
{
	struct supervisor *s = arg;
	daemon_quit(s->daemon, 0);
}

static int load_again(struct pod_config *config, struct report *report, void *arg)
{
	struct supervisor *s = arg;
	return load_pod_config(config, s->config_path, env_of, NULL, report);
}

int main(int argc, char **argv)
{
	static const struct daemon_spec spec = {.name = "supervisor",
		.summary = "Starts the programs of a pod, keeps them running, and stops them.",
		.env_prefix = "SUPERVISOR_",
		.rows = supervisor_rows,
		.conf_size = sizeof(struct supervisor_conf),
		.check = check,
		.families = stats_families,
		/* It serves nobody from outside, and its programs have their own times. */
		.own_stop_times = true};
	static const struct daemon_events daemon_events = {
		.on_reload = on_reload, .on_drain = on_drain};
	static const struct pod_events pod_events = {
		.on_stopped = pod_stopped, .on_change = pod_changed};
	static const struct control_events control_events = {
		.load = load_again, .shutdown = shutdown_asked};
	struct supervisor_conf conf;
	struct supervisor s = {0};
	struct report report = {.line = ignore_report};
	struct pod_config config;
	struct event *events[N_SIGNALS];
	char error[256];

	spawn_remember_limits();
	s.daemon = daemon_start(&spec, &conf, argc, argv);
	if (listen_make_dir(conf.common.run_dir) < 0)
		die(EX_CANTCREAT, "cannot make %s: %s", conf.common.run_dir, strerror(errno));
	publish_run_dir(&conf);
	if (load_pod_config(&config, conf.config, env_of, NULL, &report) < 0)
		die(EX_CONFIG, "%s: the configuration has errors", conf.config);
	daemon_set_ready(s.daemon, false);
	daemon_set_events(s.daemon, &daemon_events, &s);
	struct rpc_server *server = daemon_serve_rpc(s.daemon, NULL);
	s.pod = pod_new(daemon_loop(s.daemon), &config, getenv("RUN_DIR"), &pod_events, &s, error,
		sizeof error);
	if (!s.pod)
		die(EX_OSERR, "%s", error);
	s.config_path = conf.config;
	s.shutdown_timeout_ms = conf.shutdown_timeout_ms;
	s.shutdown_timer = timer_new(daemon_loop(s.daemon), shutdown_late, &s);
	s.control = control_new(server, s.pod, &control_events, &s);
	struct stats *stats = stats_new(daemon_metrics(s.daemon), s.pod);
	if (!s.control || !stats || !s.shutdown_timer)
		die(EX_OSERR, "out of memory");
	watch_signals(&s, events);
	pod_start(s.pod);

	int code = daemon_run(s.daemon);

	for (size_t i = 0; i < N_SIGNALS; i++)
		event_free(events[i]);
	timer_free(&s.shutdown_timer);
	pod_free(&s.pod);
	daemon_stop(&s.daemon);
	control_free(&s.control);
	stats_free(&stats);
	return s.exit ? (int)s.exit : code;
}
