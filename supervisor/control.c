#include "supervisor/control.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/messages.h"
#include "supervisor/pod.h"
#include "supervisor/tail.h"

#define MAX_NAMES          256
#define N_METHODS          7
#define MISTAKES_MAX_BYTES 8192
#define MISTAKE_MAX_BYTES  1024
#define WARNINGS_MAX       100

enum operation { STATUS, START, STOP, RESTART, RELOAD, SIGNAL };

/* One request that is answered when the processes it names have settled. */
struct waiter {
	struct control *control;
	struct rpc_request *request;
	struct waiter *next;
	enum operation operation;
	struct process **processes; /* that it is about */
	size_t n_processes;
	struct strings unknown;     /* names that mean nothing */
	struct pod_changes changes; /* RELOAD */
	struct strings warnings;    /* RELOAD: of the new configuration */
};

struct control {
	struct pod *pod;
	struct waiter *waiters;
	struct tail *tail;
	const struct control_events *events;
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
	pod_changes_free(&waiter->changes);
	strings_free(&waiter->warnings);
	free(waiter->processes);
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
	if (operation == SIGNAL && !process->pid)
		return "not running: no signal was sent";
	if (!pod_is_settled(control->pod, process))
		return "";
	if (operation != START && operation != RESTART && operation != RELOAD)
		return "";
	if (!pod_is_well(control->pod, process))
		return process->start_pending ? "what it depends on is not up" : process->reason;
	/* A reload may leave it down (autostart=false); who asked for a start may not. */
	return process->state == STATE_STOPPED && operation != RELOAD ? "stopped meanwhile" : "";
}

/* text: its description, borrowed by the message. */
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

typedef char description[256];

struct listing {
	struct msg_program *programs;
	description *texts;
};

static int listing_make(struct listing *listing, size_t n)
{
	listing->programs = calloc(n + 1, sizeof *listing->programs);
	listing->texts = calloc(n + 1, sizeof *listing->texts);
	return listing->programs && listing->texts ? 0 : -1;
}

static void listing_free(struct listing *listing)
{
	free(listing->programs);
	free(listing->texts);
}

static void answer_programs(struct waiter *waiter)
{
	struct listing listing;
	size_t filled = 0;
	if (listing_make(&listing, waiter->n_processes + waiter->unknown.n) < 0) {
		rpc_request_fail(waiter->request, RPC_FAILED, "out of memory");
		listing_free(&listing);
		return;
	}
	for (size_t i = 0; i < waiter->n_processes; i++, filled++)
		fill_program(waiter->control, waiter->processes[i], waiter->operation,
			listing.texts[i], sizeof *listing.texts, &listing.programs[filled]);
	for (size_t i = 0; i < waiter->unknown.n; i++)
		listing.programs[filled++] = (struct msg_program){
			.name = span_of(waiter->unknown.items[i]),
			.exit_code = -1,
			.error = SPAN_LITERAL("no such program")};
	struct msg_programs_result result = {.programs = {listing.programs, filled}};
	msg_status_reply(waiter->request, &result);
	listing_free(&listing);
}

static bool is_named(const struct strings *list, const char *label)
{
	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->items[i], label) == 0)
			return true;
	return false;
}

/* Spans of these strings; the array is malloc()ed, and NULL when out of memory. */
static struct msg_strs spans_of(const struct strings *list)
{
	struct msg_strs spans = {calloc(list->n + 1, sizeof(struct span)), list->n};
	for (size_t i = 0; spans.items && i < list->n; i++)
		spans.items[i] = span_of(list->items[i]);
	return spans;
}

static void answer_reload(struct waiter *waiter)
{
	struct control *control = waiter->control;
	const struct pod_changes *changes = &waiter->changes;
	size_t n = pod_count(control->pod);
	struct listing listing;
	struct msg_reload_result result = {.added = spans_of(&changes->added),
		.changed = spans_of(&changes->changed),
		.removed = spans_of(&changes->removed),
		.adjusted = spans_of(&changes->adjusted),
		.warnings = spans_of(&waiter->warnings)};
	if (listing_make(&listing, n) == 0 && result.added.items && result.changed.items &&
		result.removed.items && result.adjusted.items && result.warnings.items) {
		for (size_t i = 0; i < n; i++) {
			struct process *process = pod_process(control->pod, i);
			const char *label = process->config->label;
			bool is_new = is_named(&changes->added, label) ||
				      is_named(&changes->changed, label);
			fill_program(control, process, is_new ? RELOAD : STATUS, listing.texts[i],
				sizeof *listing.texts, &listing.programs[i]);
		}
		result.programs = (struct msg_program_list){listing.programs, n};
		msg_reload_reply(waiter->request, &result);
	} else {
		rpc_request_fail(waiter->request, RPC_FAILED, "out of memory");
	}
	struct msg_strs *lists[] = {&result.added, &result.changed, &result.removed,
		&result.adjusted, &result.warnings};
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
		free(lists[i]->items);
	listing_free(&listing);
}

static void answer(struct waiter *waiter)
{
	if (waiter->operation == RELOAD)
		answer_reload(waiter);
	else
		answer_programs(waiter);
	waiter_free(waiter);
}

static bool is_settled(const struct waiter *waiter)
{
	const struct pod *pod = waiter->control->pod;
	for (size_t i = 0; i < waiter->n_processes; i++)
		if (!pod_is_settled(pod, waiter->processes[i]))
			return false;
	return waiter->operation != RELOAD || pod_is_reloaded(pod);
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
	size_t n = pod_count(control->pod), selected = 0;
	struct process **processes = calloc(n + 1, sizeof *processes);
	if (!waiter || !processes) {
		rpc_request_fail(request, RPC_FAILED, "out of memory");
		free(waiter);
		free(processes);
		return NULL;
	}
	bool found[MAX_NAMES + 1] = {0};
	for (size_t i = 0; i < n; i++) {
		struct process *process = pod_process(control->pod, i);
		bool wanted = !names->count;
		for (size_t j = 0; j < names->count; j++)
			if (name_matches(process, names->items[j]))
				wanted = found[j] = true;
		if (wanted)
			processes[selected++] = process;
	}
	*waiter = (struct waiter){.control = control,
		.request = request,
		.operation = operation,
		.processes = processes,
		.n_processes = selected};
	for (size_t j = 0; j < names->count; j++)
		if (!found[j])
			strings_add(&waiter->unknown, names->items[j]);
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
	for (size_t i = 0; i < waiter->n_processes; i++) {
		struct process *process = waiter->processes[i];
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
	if (params.names.count > MAX_NAMES)
		rpc_request_fail(request, RPC_BAD_PARAMS, "names: more than %d", MAX_NAMES);
	else if (value_signal(name, &number) < 0)
		rpc_request_fail(request, RPC_BAD_PARAMS, "signal: no such signal: %s", name);
	else
		waiter = waiter_new(control, request, SIGNAL, &params.names);
	for (size_t i = 0; waiter && i < waiter->n_processes; i++)
		process_signal(waiter->processes[i], number);
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
	control->events->shutdown(control->arg);
}

/* ---- reload ---- */

/* What is wrong with a configuration. */
struct mistakes {
	struct buf errors; /* a line each; one that does not fit any more is one of many */
	struct strings warnings;
};

static void collect_mistake(
	void *arg, bool is_error, const char *file, unsigned line, const char *text)
{
	struct mistakes *mistakes = arg;
	char place[24] = "", mistake[MISTAKE_MAX_BYTES];
	if (line)
		snprintf(place, sizeof place, ":%u", line);
	snprintf(mistake, sizeof mistake, "%s%s: %s: %s", file ? file : "configuration", place,
		is_error ? "error" : "warning", text);
	if (is_error) {
		buf_printf(&mistakes->errors, "%s%s", mistakes->errors.len ? "\n" : "", mistake);
		return;
	}
	log_warn("%s", mistake);
	if (mistakes->warnings.n < WARNINGS_MAX)
		strings_add(&mistakes->warnings, span_of(mistake));
}

/* Who is not there any more cannot be waited for. */
static void forget_removed(struct control *control)
{
	for (struct waiter *waiter = control->waiters; waiter; waiter = waiter->next) {
		size_t kept = 0;
		for (size_t i = 0; i < waiter->n_processes; i++) {
			struct process *process = waiter->processes[i];
			if (pod_has(control->pod, process))
				waiter->processes[kept++] = process;
			else
				strings_add(&waiter->unknown, span_of(process->config->label));
		}
		waiter->n_processes = kept;
	}
}

static void reload(struct control *control, struct rpc_request *request, struct pod_config *config,
	struct strings *warnings)
{
	static const struct msg_strs all;
	struct pod_changes changes;
	if (pod_reload(control->pod, config, &changes) < 0) {
		rpc_request_fail(request, RPC_FAILED, "out of memory");
		return;
	}
	forget_removed(control);
	tail_forget_removed(control->tail);
	struct waiter *waiter = waiter_new(control, request, RELOAD, &all);
	if (!waiter) {
		pod_changes_free(&changes);
		return;
	}
	waiter->changes = changes;
	waiter->warnings = *warnings;
	*warnings = (struct strings){0};
	size_t kept = 0;
	for (size_t i = 0; i < waiter->n_processes; i++) {
		const char *label = waiter->processes[i]->config->label;
		if (is_named(&changes.added, label) || is_named(&changes.changed, label))
			waiter->processes[kept++] = waiter->processes[i];
	}
	waiter->n_processes = kept;
	wait_or_answer(waiter, true);
}

static void serve_reload(struct rpc_request *request, struct span bytes, void *arg)
{
	struct control *control = arg;
	struct msg_empty nothing;
	struct mistakes mistakes = {.errors = BUF_INIT(MISTAKES_MAX_BYTES)};
	struct report report = {.line = collect_mistake, .arg = &mistakes};
	struct pod_config config;
	if (msg_reload_serve_params(request, bytes, &nothing) < 0)
		return;
	log_info("reload asked for by pid %d", (int)rpc_request_peer(request)->pid);
	if (pod_is_stopping(control->pod)) {
		rpc_request_fail(request, RPC_FAILED, "the supervisor is shutting down");
	} else if (control->events->load(&config, &report, control->arg) < 0) {
		log_error("configuration not taken over: it has %u errors", report.errors);
		rpc_request_fail(request, RPC_FAILED,
			"nothing was changed, since the configuration has errors:\n%.*s",
			(int)mistakes.errors.len, (const char *)mistakes.errors.data);
	} else {
		reload(control, request, &config, &mistakes.warnings);
		pod_config_free(&config);
	}
	buf_free(&mistakes.errors);
	strings_free(&mistakes.warnings);
}

struct control *control_new(
	struct rpc_server *server, struct pod *pod, const struct control_events *events, void *arg)
{
	struct control *control = calloc(1, sizeof *control);
	if (!control)
		return NULL;
	*control = (struct control){.pod = pod,
		.events = events,
		.arg = arg,
		.methods = {{"status", serve_status, control}, {"start", serve_start, control},
			{"stop", serve_stop, control}, {"restart", serve_restart, control},
			{"reload", serve_reload, control}, {"signal", serve_signal, control},
			{"shutdown", serve_shutdown, control}, {0}}};
	control->tail = tail_new(server, pod);
	if (!control->tail || rpc_server_add(server, control->methods) < 0)
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
	tail_free(&c->tail);
	free(c);
}
