#include "supervisor/control.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/messages.h"
#include "supervisor/pod.h"

#define TAIL_DEFAULT_BYTES 1600
#define MAX_NAMES          256
#define N_METHODS          7

enum operation { STATUS, START, STOP, RESTART };

/* One request that is answered when the processes it names have settled. */
struct waiter {
	struct control *control;
	struct rpc_request *request;
	struct waiter *next;
	enum operation operation;
	bool *selected;         /* one a process */
	struct strings unknown; /* names that mean nothing */
};

struct control {
	struct pod *pod;
	struct waiter *waiters;
	void (*shutdown)(void *arg);
	void *arg;
	struct rpc_method methods[N_METHODS + 1];
};

static void waiter_free(struct waiter *waiter)
{
	struct waiter **at = &waiter->control->waiters;
	while (*at && *at != waiter)
		at = &(*at)->next;
	if (*at)
		*at = waiter->next;
	strings_free(&waiter->unknown);
	free(waiter->selected);
	free(waiter);
}

/* ---- answers ---- */

static int64_t exit_code(const struct process *process)
{
	if (!process->ended_ms)
		return -1;
	if (WIFSIGNALED(process->exit_status))
		return 128 + WTERMSIG(process->exit_status);
	return WEXITSTATUS(process->exit_status);
}

static const char *error_of(
	const struct control *control, const struct process *process, enum operation operation)
{
	if (!pod_is_settled(control->pod, process))
		return "";
	if ((operation == START || operation == RESTART) && !pod_is_well(control->pod, process))
		return process->start_pending ? "what it depends on is not up" : process->reason;
	return "";
}

/* texts: one description a process, borrowed by the message. */
static void fill_program(const struct control *control, struct process *process,
	enum operation operation, char *text, size_t text_size, struct msg_program *program)
{
	pod_describe(control->pod, process, text, text_size);
	*program = (struct msg_program){
		.name = span_of(process->config->label),
		.state = span_of(state_name(process->state)),
		.ready = process->state == STATE_RUNNING,
		.pid = (uint64_t)process->pid,
		.uptime_ms = process_is_alive(process) ? process_age_ms(process) : 0,
		.restarts = process->restarts,
		.exit_code = exit_code(process),
		.description = span_of(text),
		.error = span_of(error_of(control, process, operation)),
	};
}

static void answer(struct waiter *waiter)
{
	struct control *control = waiter->control;
	size_t n = pod_count(control->pod), filled = 0;
	typedef char description[256];
	struct msg_program *programs = calloc(n + waiter->unknown.n + 1, sizeof *programs);
	description *texts = calloc(n + 1, sizeof *texts);
	if (!programs || !texts) {
		rpc_request_fail(waiter->request, RPC_FAILED, "out of memory");
		goto done;
	}
	for (size_t i = 0; i < n; i++)
		if (waiter->selected[i])
			fill_program(control, pod_process(control->pod, i), waiter->operation,
				texts[i], sizeof texts[i], &programs[filled++]);
	for (size_t i = 0; i < waiter->unknown.n; i++)
		programs[filled++] = (struct msg_program){.name = span_of(waiter->unknown.items[i]),
			.exit_code = -1,
			.error = SPAN_LITERAL("no such program")};
	struct msg_programs_result result = {.programs = {programs, filled}};
	msg_status_reply(waiter->request, &result);
done:
	free(texts);
	free(programs);
	waiter_free(waiter);
}

static bool is_settled(const struct waiter *waiter)
{
	struct pod *pod = waiter->control->pod;
	for (size_t i = 0; i < pod_count(pod); i++)
		if (waiter->selected[i] && !pod_is_settled(pod, pod_process(pod, i)))
			return false;
	return true;
}

void control_pod_changed(struct control *control)
{
	for (struct waiter *waiter = control->waiters, *next; waiter; waiter = next) {
		next = waiter->next;
		if (is_settled(waiter))
			answer(waiter);
	}
}

/* ---- requests ---- */

static bool name_matches(const struct process *process, struct span name)
{
	char text[300];
	if (name.len >= sizeof text)
		return false;
	snprintf(text, sizeof text, "%.*s", SPAN_ARG(name));
	return process_config_matches(process->config, text);
}

static struct waiter *waiter_new(struct control *control, struct rpc_request *request,
	enum operation operation, const struct msg_strs *names)
{
	struct waiter *waiter = calloc(1, sizeof *waiter);
	size_t n = pod_count(control->pod);
	bool *selected = calloc(n + 1, sizeof *selected);
	if (!waiter || !selected) {
		rpc_request_fail(request, RPC_FAILED, "out of memory");
		free(waiter);
		free(selected);
		return NULL;
	}
	*waiter = (struct waiter){.control = control,
		.request = request,
		.operation = operation,
		.selected = selected};
	for (size_t i = 0; i < n && !names->count; i++)
		selected[i] = true;
	for (size_t j = 0; j < names->count; j++) {
		bool found = false;
		for (size_t i = 0; i < n; i++)
			if (name_matches(pod_process(control->pod, i), names->items[j]))
				selected[i] = found = true;
		if (!found)
			strings_add(&waiter->unknown, names->items[j]);
	}
	return waiter;
}

static void request_cancelled(void *arg)
{
	waiter_free(arg);
}

static void wait_or_answer(struct waiter *waiter, bool wait)
{
	static const struct rpc_request_events events = {.on_cancel = request_cancelled};
	if (!wait || is_settled(waiter)) {
		answer(waiter);
		return;
	}
	rpc_request_accept(waiter->request, &events, waiter);
	waiter->next = waiter->control->waiters;
	waiter->control->waiters = waiter;
}

static void act(struct waiter *waiter)
{
	struct pod *pod = waiter->control->pod;
	/* Restarts queue by the order of these calls, stops of several go out together. */
	for (size_t i = 0; i < pod_count(pod); i++) {
		struct process *process = pod_process(pod, i);
		if (!waiter->selected[i])
			continue;
		if (waiter->operation == START)
			pod_start_process(pod, process);
		else if (waiter->operation == STOP)
			pod_stop_process(pod, process);
		else if (waiter->operation == RESTART)
			pod_restart_process(pod, process);
	}
}

static void serve(struct rpc_request *request, struct span bytes, struct control *control,
	enum operation operation)
{
	struct msg_programs_params params;
	if (msg_status_serve_params(request, bytes, &params) < 0)
		return;
	struct waiter *waiter = NULL;
	if (params.names.count > MAX_NAMES)
		rpc_request_fail(request, RPC_BAD_PARAMS, "names: more than %d", MAX_NAMES);
	else if (operation != STATUS && operation != STOP && pod_is_stopping(control->pod))
		rpc_request_fail(request, RPC_FAILED, "the supervisor is shutting down");
	else
		waiter = waiter_new(control, request, operation, &params.names);
	if (waiter) {
		if (operation != STATUS)
			log_info("%s asked for by pid %d", rpc_request_method(request),
				(int)rpc_request_peer(request)->pid);
		act(waiter);
		wait_or_answer(waiter, params.wait);
	}
	msg_programs_params_free(&params);
}

static void serve_status(struct rpc_request *request, struct span params, void *arg)
{
	serve(request, params, arg, STATUS);
}

static void serve_start(struct rpc_request *request, struct span params, void *arg)
{
	serve(request, params, arg, START);
}

static void serve_stop(struct rpc_request *request, struct span params, void *arg)
{
	serve(request, params, arg, STOP);
}

static void serve_restart(struct rpc_request *request, struct span params, void *arg)
{
	serve(request, params, arg, RESTART);
}

static void serve_signal(struct rpc_request *request, struct span bytes, void *arg)
{
	struct control *control = arg;
	struct msg_signal_params params;
	if (msg_signal_serve_params(request, bytes, &params) < 0)
		return;
	char name[32] = "";
	int number = 0;
	if (params.signal.len < sizeof name)
		snprintf(name, sizeof name, "%.*s", SPAN_ARG(params.signal));
	struct waiter *waiter = NULL;
	if (value_signal(name, &number) < 0)
		rpc_request_fail(request, RPC_BAD_PARAMS, "signal: no such signal");
	else
		waiter = waiter_new(control, request, STATUS, &params.names);
	for (size_t i = 0; waiter && i < pod_count(control->pod); i++)
		if (waiter->selected[i])
			process_signal(pod_process(control->pod, i), number);
	if (waiter)
		answer(waiter);
	msg_signal_params_free(&params);
}

static void serve_shutdown(struct rpc_request *request, struct span bytes, void *arg)
{
	struct control *control = arg;
	struct msg_empty nothing;
	if (msg_shutdown_serve_params(request, bytes, &nothing) < 0)
		return;
	log_info("shutdown asked for by pid %d", (int)rpc_request_peer(request)->pid);
	msg_shutdown_reply(request, &nothing);
	control->shutdown(control->arg);
}

/* ---- tail ---- */

static struct process *find_process(struct control *control, struct span name)
{
	for (size_t i = 0; i < pod_count(control->pod); i++) {
		struct process *process = pod_process(control->pod, i);
		if (name_matches(process, name))
			return process;
	}
	return NULL;
}

/* The end of a file; -1 with errno. */
static ssize_t read_end(const char *path, char *data, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -1;
	off_t end = lseek(fd, 0, SEEK_END);
	off_t from = end > (off_t)size ? end - (off_t)size : 0;
	ssize_t n = end < 0 ? -1 : pread(fd, data, size, from);
	int saved = errno;
	close(fd);
	errno = saved;
	return n;
}

static void serve_tail(struct rpc_request *request, struct span bytes, void *arg)
{
	struct msg_tail_params params;
	if (msg_tail_serve_params(request, bytes, &params) < 0)
		return;
	char data[RPC_INLINE_BODY_BYTES];
	bool is_stderr = span_equal_str(params.stream, "stderr");
	struct process *process = find_process(arg, params.name);
	size_t size = params.max_bytes ? params.max_bytes : TAIL_DEFAULT_BYTES;
	if (!process) {
		rpc_request_fail(request, RPC_FAILED, "no such program");
		return;
	}
	if (params.stream.len && !is_stderr && !span_equal_str(params.stream, "stdout")) {
		rpc_request_fail(request, RPC_BAD_PARAMS, "stream: stdout or stderr");
		return;
	}
	const struct log_config *log = is_stderr && !process->config->redirect_stderr
					       ? &process->config->err
					       : &process->config->out;
	if (!log->path || strncmp(log->path, "/dev/", 5) == 0) {
		rpc_request_fail(request, RPC_FAILED,
			"its output goes to no file (set stdout_logfile and stderr_logfile)");
		return;
	}
	if (params.follow) {
		rpc_request_fail(request, RPC_FAILED, "follow it with: tail -F %s", log->path);
		return;
	}
	ssize_t n = read_end(log->path, data, size < sizeof data ? size : sizeof data);
	if (n < 0) {
		rpc_request_fail(request, RPC_FAILED, "%s: %s", log->path, strerror(errno));
		return;
	}
	struct msg_tail_result result = {.data = {data, (size_t)n}};
	msg_tail_reply(request, &result);
}

struct control *control_new(
	struct rpc_server *server, struct pod *pod, void (*shutdown)(void *arg), void *arg)
{
	struct control *control = calloc(1, sizeof *control);
	if (!control)
		return NULL;
	*control = (struct control){.pod = pod,
		.shutdown = shutdown,
		.arg = arg,
		.methods = {{"status", serve_status, control}, {"start", serve_start, control},
			{"stop", serve_stop, control}, {"restart", serve_restart, control},
			{"signal", serve_signal, control}, {"tail", serve_tail, control},
			{"shutdown", serve_shutdown, control}, {0}}};
	if (rpc_server_add(server, control->methods) < 0)
		control_free(&control);
	return control;
}

void control_free(struct control **control)
{
	struct control *c = *control;
	if (!c)
		return;
	*control = NULL;
	while (c->waiters)
		waiter_free(c->waiters);
	free(c);
}
