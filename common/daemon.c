#include "common/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/daemon_private.h"
#include "common/digest.h"
#include "common/listen.h"
#include "common/loop.h"
#include "common/notify.h"
#include "common/process_metrics.h"
#include "common/reclaim.h"
#include "common/startup_pages.h"

#define MAX_LISTENERS 16

/*
 * STARTING -> SERVING            daemon_run()
 * STARTING, SERVING -> LAMEDUCK  a signal, daemon_quit(); skipped when LAMEDUCK is 0
 * LAMEDUCK -> DRAINING           LAMEDUCK is over, or the same signal again
 * DRAINING -> STOPPED            daemon_drained()
 * any -> STOPPED                 the grace period is over
 */
enum daemon_state { STARTING, SERVING, LAMEDUCK, DRAINING, STOPPED };
static const char *const state_names[] = {"starting", "serving", "lameduck", "draining", "stopped"};

struct daemon {
	struct daemon_conf *conf;
	struct daemon_options options;
	char name[LISTEN_NAME_BYTES];
	char instance_id[33];
	uint64_t started_us;

	struct loop *loop;
	struct metrics *metrics;
	struct process_metrics *process;
	struct event *signals[3];
	struct timer *lameduck, *grace;

	enum daemon_state state;
	bool ready;      /* as the daemon says */
	bool told_ready; /* READY=1 was sent */
	int stop_signal; /* 0: none, or daemon_quit() */
	int exit_code;
	const struct daemon_events *events;
	void *events_arg;

	struct listen_inherited *inherited;
	struct listen_file files[MAX_LISTENERS];
	unsigned n_files;
	struct rpc_server *rpc;
	struct rpc_method *methods;
};

static const struct daemon_events no_events;

static void set_state(struct daemon *d, enum daemon_state state)
{
	if (d->state == state)
		return;
	log_fields(
		LOG_LEVEL_INFO, NULL, state_names[state], LOG_STR("from", state_names[d->state]));
	d->state = state;
}

/* ---- stopping ---- */

static void stop_now(struct daemon *d)
{
	timer_disarm(d->lameduck);
	timer_disarm(d->grace);
	set_state(d, STOPPED);
	loop_stop(d->loop);
}

static void begin_drain(void *arg)
{
	struct daemon *d = arg;
	timer_disarm(d->lameduck);
	set_state(d, DRAINING);
	if (d->events->on_drain)
		d->events->on_drain(d->events_arg);
	else
		daemon_drained(d);
}

static void grace_over(void *arg)
{
	struct daemon *d = arg;
	char open[256] = "";
	if (d->events->describe_open)
		d->events->describe_open(open, sizeof open, d->events_arg);
	log_fields(LOG_LEVEL_WARN, NULL, "the grace period is over: stopping with work left",
		LOG_STR("open", open), LOG_STR("state", state_names[d->state]),
		LOG_INT("rpc_connections", d->rpc ? rpc_server_connections(d->rpc) : 0),
		LOG_INT("rpc_requests", d->rpc ? rpc_server_requests(d->rpc) : 0));
	stop_now(d);
}

static void begin_stop(struct daemon *d)
{
	if (d->state >= LAMEDUCK)
		return;
	notify_send("STOPPING=1");
	if (!d->options.spec->own_stop_times)
		timer_arm(d->grace, (uint64_t)d->conf->grace_ms);
	if (d->conf->lameduck_ms == 0) {
		begin_drain(d);
		return;
	}
	set_state(d, LAMEDUCK);
	timer_arm(d->lameduck, (uint64_t)d->conf->lameduck_ms);
	if (d->events->on_lameduck)
		d->events->on_lameduck(d->events_arg);
}

static void stop_signal(evutil_socket_t signal, short what, void *arg)
{
	(void)what;
	struct daemon *d = arg;
	if (d->state < LAMEDUCK) {
		d->stop_signal = (int)signal;
		log_info("stopping: %s", strsignal((int)signal));
		begin_stop(d);
	} else if (d->state == LAMEDUCK && (int)signal == d->stop_signal) {
		begin_drain(d);
	}
}

void daemon_drained(struct daemon *d)
{
	if (d->state == DRAINING)
		stop_now(d);
}

void daemon_quit(struct daemon *d, int exit_code)
{
	if (d->state < LAMEDUCK)
		d->exit_code = exit_code;
	begin_stop(d);
}

/* ---- reloading ---- */

static void settings_changed(void *arg)
{
	struct daemon *d = arg;
	if (d->events->on_reload)
		d->events->on_reload(d->events_arg);
}

static void reload_signal(evutil_socket_t signal, short what, void *arg)
{
	(void)signal;
	(void)what;
	struct daemon *d = arg;
	log_reopen();
	if (d->state < LAMEDUCK)
		daemon_options_reload(&d->options, d->conf, settings_changed, d);
}

/* ---- starting ---- */

static const int signal_numbers[] = {SIGTERM, SIGINT, SIGHUP};
#define N_SIGNALS (sizeof signal_numbers / sizeof *signal_numbers)

/* how: SIG_BLOCK or SIG_UNBLOCK. */
static int mask_signals(int how)
{
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < N_SIGNALS; i++)
		sigaddset(&set, signal_numbers[i]);
	return sigprocmask(how, &set, NULL);
}

static int watch_signals(struct daemon *d)
{
	for (size_t i = 0; i < N_SIGNALS; i++) {
		d->signals[i] = evsignal_new(loop_base(d->loop), signal_numbers[i],
			signal_numbers[i] == SIGHUP ? reload_signal : stop_signal, d);
		if (!d->signals[i] || event_add(d->signals[i], NULL) < 0)
			return -1;
	}
	signal(SIGPIPE, SIG_IGN);
	/* The parent may have left them blocked. */
	return mask_signals(SIG_UNBLOCK);
}

/* Until the process ends: one more wish to stop would end it as if it had been killed. */
static void unwatch_signals(struct daemon *d)
{
	mask_signals(SIG_BLOCK);
	for (size_t i = 0; i < N_SIGNALS; i++)
		event_free(d->signals[i]);
}

/* As many connections as the system lets us have. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

struct daemon *daemon_start(const struct daemon_spec *spec, void *conf, int argc, char **argv)
{
	struct daemon *d = calloc(1, sizeof *d);
	if (!d)
		die(EX_OSERR, "out of memory");
	d->conf = conf;
	d->ready = true;
	d->events = &no_events;
	daemon_options_load(&d->options, spec, conf, argc, argv, d->name, sizeof d->name);
	raise_descriptor_limit();
	reclaim_setup();
	uint8_t id[16];
	digest_random(id, sizeof id);
	for (size_t i = 0; i < sizeof id; i++)
		snprintf(d->instance_id + 2 * i, 3, "%02x", id[i]);

	d->loop = loop_new();
	d->metrics = metrics_new();
	if (!d->loop || !d->metrics)
		die(EX_OSERR, "no event loop: %s", strerror(errno));
	log_attach(d->loop);
	d->started_us = loop_now_us(d->loop);
	d->process = process_metrics_new(d->metrics, d->loop);
	d->lameduck = timer_new(d->loop, begin_drain, d);
	d->grace = timer_new(d->loop, grace_over, d);
	if (!d->process || !d->lameduck || !d->grace || watch_signals(d) < 0)
		die(EX_OSERR, "no event loop: %s", strerror(errno));
	metrics_register(d->metrics, rpc_server_families);
	metrics_register(d->metrics, spec->families);
	for (size_t i = 0; spec->part_families && spec->part_families[i]; i++)
		metrics_register(d->metrics, spec->part_families[i]);
	d->inherited = listen_inherited_take();
	log_fields(LOG_LEVEL_INFO, NULL, "starting", LOG_STR("version", daemon_version()),
		LOG_INT("pid", getpid()), LOG_STR("instance_id", d->instance_id));
	return d;
}

void daemon_set_events(struct daemon *d, const struct daemon_events *events, void *arg)
{
	d->events = events ? events : &no_events;
	d->events_arg = arg;
}

/* ---- sockets ---- */

int daemon_listen(struct daemon *d, const char *name, const char *address)
{
	char error[512], where[256];
	int fd = listen_inherited_claim(d->inherited, name);
	bool inherited = fd >= 0;
	if (!inherited) {
		BUG_ON(d->n_files == MAX_LISTENERS);
		fd = listen_open(address, &d->files[d->n_files], error, sizeof error);
		if (fd < 0) {
			/* Nothing of what was made so far may stay behind. */
			while (d->n_files > 0)
				listen_file_remove(&d->files[--d->n_files]);
			die(EX_UNAVAILABLE, "%s", error);
		}
		d->n_files++;
	}
	if (!inherited && strchr(address, '/'))
		snprintf(where, sizeof where, "%s", address);
	else
		listen_describe(fd, where, sizeof where);
	log_fields(LOG_LEVEL_INFO, NULL, "listening", LOG_STR("socket", name),
		LOG_STR("address", where), LOG_BOOL("inherited", inherited));
	return fd;
}

struct rpc_server *daemon_serve_rpc(struct daemon *d, const struct rpc_method *methods)
{
	char path[512];
	struct rpc_server_options options = rpc_server_defaults;
	BUG_ON(d->rpc);
	if (d->conf->rpc_socket[0])
		snprintf(path, sizeof path, "%s%s", strchr(d->conf->rpc_socket, '/') ? "" : "./",
			d->conf->rpc_socket);
	else
		snprintf(path, sizeof path, "%s/%s.sock", d->conf->run_dir, d->name);
	if (listen_make_dir(d->conf->run_dir) < 0)
		die(EX_CANTCREAT, "run directory %s: %s", d->conf->run_dir, strerror(errno));
	options.trusted_gid = (gid_t)d->conf->trusted_gid;
	d->methods = daemon_rpc_methods(d);
	d->rpc = d->methods ? rpc_server_new(d->loop, daemon_listen(d, "rpc", path), &options)
			    : NULL;
	if (!d->rpc || rpc_server_add(d->rpc, d->methods) < 0 ||
		(methods && rpc_server_add(d->rpc, methods) < 0))
		die(EX_OSERR, "the RPC socket cannot be served: %s", strerror(errno));
	rpc_server_measure(d->rpc, d->metrics);
	return d->rpc;
}

/* ---- running ---- */

static void tell_ready(struct daemon *d)
{
	if (d->told_ready || !daemon_ready(d))
		return;
	d->told_ready = true;
	notify_send("READY=1");
}

int daemon_run(struct daemon *d)
{
	listen_inherited_free(&d->inherited);
	/* daemon_quit() may have been called already. */
	if (d->state == STARTING) {
		set_state(d, SERVING);
		tell_ready(d);
	}
	startup_pages_drop();
	loop_run(d->loop);
	return d->exit_code;
}

void daemon_close_rpc(struct daemon *d)
{
	rpc_server_free(&d->rpc);
}

void daemon_stop(struct daemon **daemon)
{
	struct daemon *d = *daemon;
	if (!d)
		return;
	*daemon = NULL;
	rpc_server_free(&d->rpc);
	free(d->methods);
	listen_inherited_free(&d->inherited);
	while (d->n_files > 0)
		listen_file_remove(&d->files[--d->n_files]);
	unwatch_signals(d);
	timer_free(&d->lameduck);
	timer_free(&d->grace);
	process_metrics_free(&d->process);
	metrics_free(&d->metrics);
	log_close();
	loop_free(&d->loop);
	daemon_options_free(&d->options, d->conf);
	free(d);
}

/* ---- asking ---- */

struct loop *daemon_loop(struct daemon *d)
{
	return d->loop;
}

struct metrics *daemon_metrics(struct daemon *d)
{
	return d->metrics;
}

const char *daemon_name(const struct daemon *d)
{
	return d->name;
}

const char *daemon_instance_id(const struct daemon *d)
{
	return d->instance_id;
}

uint64_t daemon_uptime_ms(const struct daemon *d)
{
	return (loop_now_us(d->loop) - d->started_us) / 1000;
}

bool daemon_ready(const struct daemon *d)
{
	return d->state == SERVING && d->ready;
}

void daemon_set_ready(struct daemon *d, bool ready)
{
	d->ready = ready;
	tell_ready(d);
}

bool daemon_stopping(const struct daemon *d)
{
	return d->state >= LAMEDUCK;
}

const char *daemon_state_name(const struct daemon *d)
{
	return state_names[d->state];
}
