/* podctl: talks to the supervisor of a pod. `podctl --help` is the manual. */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/daemon.h"
#include "common/json.h"
#include "common/log.h"
#include "common/messages.h"
#include "supervisor/config/values.h"
#include "supervisor/ctl/completion.h"
#include "supervisor/ctl/logs.h"
#include "supervisor/ctl/purge.h"
#include "supervisor/ctl/session.h"
#include "supervisor/ctl/table.h"
#include "supervisor/ctl/top.h"

#define ANSWER_MAX_BYTES (4u << 20)
#define DEFAULT_WAIT_MS  60000
#define DEFAULT_RUN_DIR  "var/run"
#define MANY             INT_MAX

struct options {
	const char *socket;
	bool json, wait, no_wait, to_stderr, follow, once, purges;
	uint64_t wait_ms, bytes, interval_ms;
	struct purge_command *purge;
};

struct command {
	const char *name;
	enum ctl_exit (*run)(const struct command *command, const struct options *options,
		struct session *session, char **names, int n_names);
	int min_names, max_names;
	bool alone; /* needs no supervisor */
	const char *usage, *help;
};

static bool use_color(void)
{
	const char *no_color = getenv("NO_COLOR"); /* https://no-color.org */
	const char *term = getenv("TERM");
	return isatty(STDOUT_FILENO) && !(no_color && *no_color) &&
	       !(term && !strcmp(term, "dumb"));
}

static struct msg_strs make_names(char **names, int n)
{
	struct msg_strs list = {calloc((size_t)n + 1, sizeof(struct span)), (size_t)n};
	for (int i = 0; i < n && list.items; i++)
		list.items[i] = span_of(names[i]);
	if (!list.items)
		die(CTL_FAILED, "out of memory");
	return list;
}

static enum ctl_exit judge(const struct msg_program_list *programs, bool is_status)
{
	enum ctl_exit worst = CTL_OK;
	for (size_t i = 0; i < programs->count; i++) {
		const struct msg_program *p = &programs->items[i];
		if (!p->state.len)
			return CTL_UNKNOWN;
		if (p->error.len)
			worst = CTL_FAILED;
		else if (is_status && !p->ready &&
			 !(span_equal_str(p->state, "EXITED") && p->exit_code == 0) && !worst)
			worst = CTL_NOT_RUNNING;
	}
	return worst;
}

/* Print what came back; how well it is. */
static enum ctl_exit show(const struct options *options, const struct buf *answer, bool is_status)
{
	struct msg_programs_result result;
	struct msg_error error;
	struct buf out = BUF_INIT(ANSWER_MAX_BYTES);
	if (msg_programs_result_unpack(
		    (struct span){(char *)answer->data, answer->len}, &result, &error) < 0) {
		fprintf(stderr, "podctl: an answer of another version: %s\n", error.text);
		return CTL_FAILED;
	}
	if (options->json)
		table_write_json(&result.programs, &out);
	else
		table_write(&result.programs, use_color(), &out);
	fwrite(out.data, 1, out.len, stdout);
	enum ctl_exit worst = judge(&result.programs, is_status);
	msg_programs_result_free(&result);
	buf_free(&out);
	return worst;
}

static enum ctl_exit run_status(const struct command *command, const struct options *options,
	struct session *session, char **names, int n_names)
{
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	struct msg_programs_params params = {
		.names = make_names(names, n_names), .wait = options->wait};
	enum ctl_exit result = session_ask(session, command->name, msg_programs_params_schema(),
		&params, options->wait ? options->wait_ms : 0, true, &answer);
	bool late = result == CTL_TIMEOUT;
	if (late) {
		params.wait = false;
		result = session_ask(session, command->name, msg_programs_params_schema(), &params,
			0, false, &answer);
	}
	if (result == CTL_OK)
		result = show(options, &answer, true);
	if (late)
		fprintf(stderr, "podctl: not all were up within %g s\n",
			(double)options->wait_ms / 1000);
	free(params.names.items);
	buf_free(&answer);
	return late ? CTL_TIMEOUT : result;
}

static enum ctl_exit run_programs(const struct command *command, const struct options *options,
	struct session *session, char **names, int n_names)
{
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	struct msg_programs_params params = {
		.names = make_names(names, n_names), .wait = !options->no_wait};
	enum ctl_exit result = session_ask(session, command->name, msg_programs_params_schema(),
		&params, options->wait_ms, false, &answer);
	if (result == CTL_OK)
		result = show(options, &answer, false);
	free(params.names.items);
	buf_free(&answer);
	return result;
}

static enum ctl_exit run_signal(const struct command *command, const struct options *options,
	struct session *session, char **names, int n_names)
{
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	struct msg_signal_params params = {
		.names = make_names(names + 1, n_names - 1), .signal = span_of(names[0])};
	enum ctl_exit result = session_ask(
		session, command->name, msg_signal_params_schema(), &params, 0, false, &answer);
	if (result == CTL_OK)
		result = show(options, &answer, false);
	free(params.names.items);
	buf_free(&answer);
	return result;
}

/* The programs of these names; CTL_UNKNOWN after naming those that are none. Free both;
 * *result lies in *answer. */
static enum ctl_exit find_programs(struct session *session, char **names, int n_names,
	struct buf *answer, struct msg_programs_result *result)
{
	struct msg_programs_params params = {.names = make_names(names, n_names)};
	struct msg_error error;
	*result = (struct msg_programs_result){0};
	enum ctl_exit exit = session_ask(
		session, "status", msg_programs_params_schema(), &params, 0, false, answer);
	if (exit == CTL_OK &&
		msg_programs_result_unpack(
			(struct span){(char *)answer->data, answer->len}, result, &error) < 0) {
		fprintf(stderr, "podctl: an answer of another version: %s\n", error.text);
		exit = CTL_FAILED;
	}
	for (size_t i = 0; exit != CTL_FAILED && i < result->programs.count; i++) {
		const struct msg_program *p = &result->programs.items[i];
		if (p->state.len)
			continue;
		fprintf(stderr, "podctl: no such program: %.*s\n", SPAN_ARG(p->name));
		exit = CTL_UNKNOWN;
	}
	free(params.names.items);
	return exit;
}

static enum ctl_exit run_tail(const struct command *command, const struct options *options,
	struct session *session, char **names, int n_names)
{
	struct logs_options wanted = {.follow = options->follow,
		.stream = options->to_stderr ? "stderr" : "stdout",
		.bytes = options->bytes};
	if (n_names > 1) {
		fprintf(stderr, "podctl: tail shows one program; for several: podctl logs\n");
		return CTL_USAGE;
	}
	(void)command;
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	struct msg_programs_result result;
	enum ctl_exit exit = find_programs(session, names, n_names, &answer, &result);
	if (exit == CTL_OK)
		exit = logs_show(session, &wanted, names, 1);
	msg_programs_result_free(&result);
	buf_free(&answer);
	return exit;
}

/* Of all, or of these; every line with the name of its program. */
static enum ctl_exit run_logs(const struct command *command, const struct options *options,
	struct session *session, char **names, int n_names)
{
	(void)command;
	struct logs_options wanted = {.follow = options->follow,
		.prefix = true,
		.color = use_color(),
		.stream = options->to_stderr ? "stderr" : "all",
		.bytes = options->bytes};
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	struct msg_programs_result result;
	enum ctl_exit exit = find_programs(session, names, n_names, &answer, &result);
	char **list = calloc(result.programs.count + 1, sizeof *list);
	if (!list)
		die(CTL_FAILED, "out of memory");
	for (size_t i = 0; i < result.programs.count; i++) {
		const struct msg_program *p = &result.programs.items[i];
		list[i] = strndup(p->name.data, p->name.len);
		if (!list[i])
			die(CTL_FAILED, "out of memory");
	}
	if (exit == CTL_OK)
		exit = logs_show(session, &wanted, list, result.programs.count);
	for (size_t i = 0; list[i]; i++)
		free(list[i]);
	free(list);
	msg_programs_result_free(&result);
	buf_free(&answer);
	return exit;
}

static enum ctl_exit run_top(const struct command *command, const struct options *options,
	struct session *session, char **names, int n_names)
{
	(void)command;
	(void)names;
	(void)n_names;
	struct top_options wanted = {.json = options->json,
		.color = use_color(),
		.once = options->once || options->json || !isatty(STDOUT_FILENO),
		.interval_ms = options->interval_ms ? options->interval_ms : 1000};
	return top_show(session, &wanted);
}

static void print_labels(const char *what, const struct msg_strs *labels)
{
	for (size_t i = 0; i < labels->count; i++)
		printf("%-8s %.*s\n", what, SPAN_ARG(labels->items[i]));
}

static void append_labels(struct buf *out, const char *key, const struct msg_strs *labels)
{
	buf_printf(out, "%s\"%s\":[", out->len > 1 ? "," : "", key);
	for (size_t i = 0; i < labels->count; i++) {
		if (i)
			buf_append_char(out, ',');
		json_append_string(out, labels->items[i]);
	}
	buf_append_char(out, ']');
}

static enum ctl_exit show_reload(const struct options *options, const struct buf *answer)
{
	struct msg_reload_result result;
	struct msg_error error;
	struct buf out = BUF_INIT(ANSWER_MAX_BYTES);
	enum ctl_exit exit = CTL_OK;
	if (msg_reload_result_unpack(
		    (struct span){(char *)answer->data, answer->len}, &result, &error) < 0) {
		fprintf(stderr, "podctl: an answer of another version: %s\n", error.text);
		return CTL_FAILED;
	}
	struct msg_strs *lists[] = {
		&result.added, &result.changed, &result.adjusted, &result.removed};
	static const char *const what[] = {"added", "changed", "adjusted", "removed"};
	size_t n = 0;
	buf_append_char(&out, '{');
	for (size_t i = 0; i < 4; i++) {
		if (options->json)
			append_labels(&out, what[i], lists[i]);
		else
			print_labels(what[i], lists[i]);
		n += lists[i]->count;
	}
	for (size_t i = 0; i < result.programs.count; i++) {
		const struct msg_program *p = &result.programs.items[i];
		if (!p->error.len)
			continue;
		exit = CTL_FAILED;
		fprintf(stderr, "podctl: %.*s is %.*s: %.*s\n", SPAN_ARG(p->name),
			SPAN_ARG(p->state), SPAN_ARG(p->error));
	}
	if (options->json) {
		/* {"added":[…],…} and the programs as `status` prints them. */
		struct buf programs = BUF_INIT(ANSWER_MAX_BYTES);
		table_write_json(&result.programs, &programs);
		if (programs.len)
			printf("%.*s,%.*s", (int)out.len, (const char *)out.data,
				(int)programs.len - 1, (const char *)programs.data + 1);
		buf_free(&programs);
	} else if (!n) {
		printf("nothing has changed\n");
	}
	msg_reload_result_free(&result);
	buf_free(&out);
	return exit;
}

static enum ctl_exit run_reload(const struct command *command, const struct options *options,
	struct session *session, char **names, int n_names)
{
	(void)names;
	(void)n_names;
	static const struct msg_empty nothing;
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	enum ctl_exit result = session_ask(session, command->name, msg_empty_schema(), &nothing,
		options->wait_ms, false, &answer);
	if (result == CTL_OK)
		result = show_reload(options, &answer);
	buf_free(&answer);
	return result;
}

static const char *run_dir(void)
{
	const char *dir = getenv("RUN_DIR");
	return dir && *dir ? dir : DEFAULT_RUN_DIR;
}

static enum ctl_exit run_purge(const struct command *command, const struct options *options,
	struct session *session, char **names, int n_names)
{
	(void)session;
	struct purge_options wanted = {.socket = options->socket,
		.run_dir = run_dir(),
		.timeout_ms = options->wait_ms,
		.json = options->json,
		.color = use_color()};
	const char *error = purge_command_complete(options->purge, names, n_names);
	if (error) {
		fprintf(stderr, "podctl: %s; usage: podctl purge %s\n", error, command->usage);
		return CTL_USAGE;
	}
	return purge_run(options->purge, &wanted);
}

static enum ctl_exit run_completion(const struct command *command, const struct options *options,
	struct session *session, char **names, int n_names)
{
	(void)command;
	(void)options;
	(void)session;
	if (n_names > 1 || (n_names == 1 && strcmp(names[0], "bash") != 0)) {
		fprintf(stderr, "podctl: completion is there for bash\n");
		return CTL_USAGE;
	}
	fputs(completion_bash, stdout);
	return CTL_OK;
}

static enum ctl_exit run_shutdown(const struct command *command, const struct options *options,
	struct session *session, char **names, int n_names)
{
	(void)options;
	(void)names;
	(void)n_names;
	static const struct msg_empty nothing;
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	enum ctl_exit result = session_ask(
		session, command->name, msg_empty_schema(), &nothing, 0, false, &answer);
	buf_free(&answer);
	return result;
}

static const struct command commands[] = {
	{"status", run_status, 0, MANY, false, "[--wait[=SECONDS]] [NAME…]",
		"state of all programs, or of some; --wait: once all are up"},
	{"start", run_programs, 1, MANY, false, "[--no-wait] NAME…",
		"start programs, and wait until they are up"},
	{"stop", run_programs, 1, MANY, false, "[--no-wait] NAME…",
		"stop programs, and wait until they are gone"},
	{"restart", run_programs, 1, MANY, false, "[--no-wait] NAME…",
		"stop and start; those of one program one after the other"},
	{"reload", run_reload, 0, 0, false, "",
		"read the configuration again; start, restart, stop what changed"},
	{"signal", run_signal, 2, MANY, false, "SIGNAL NAME…", "send a signal, e.g. HUP"},
	{"tail", run_tail, 1, MANY, false, "[-f] [--stderr] [--bytes=N] NAME",
		"the end of what a program printed; -f: and what follows"},
	{"logs", run_logs, 0, MANY, false, "[-f] [--bytes=N] [NAME…]",
		"the same of several programs, every line with its program"},
	{"top", run_top, 0, 0, false, "[--once] [--interval=TIME]",
		"the pod, live: requests, hits, savings; processor, memory"},
	{"purge", run_purge, 0, MANY, true, "[--store] PATH | WHAT",
		"take answers out of every pod's cache (needs broadcasterd)"},
	{"shutdown", run_shutdown, 0, 0, false, "", "stop everything, then the supervisor"},
	{"completion", run_completion, 0, MANY, true, "bash",
		"completion for the shell: source <(podctl completion bash)"},
	{0}};

static void print_help(FILE *out)
{
	fprintf(out, "Usage: podctl [OPTION…] COMMAND [NAME…]\n\n"
		     "Talks to the supervisor of a pod. NAME is a process, a program, a group, or "
		     "\"all\".\n\nCommands:\n");
	for (const struct command *c = commands; c->name; c++)
		fprintf(out, "  %-10s %-33s %s\n", c->name, c->usage, c->help);
	fprintf(out,
		"\nOptions:\n"
		"  --socket=PATH    the supervisor's socket (RUN_DIR/supervisor.sock; RUN_DIR is " DEFAULT_RUN_DIR
		" unless set)\n"
		"  --json           for programs\n"
		"  --timeout=TIME   give up waiting after that long (status --wait: 60 s; others: never)\n"
		"  --version, --help\n\n"
		"What to purge, of all gatewayd of all pods (of memory, unless --store):\n%s\n"
		"Exit codes: 0 done and well, 1 could not be done, 3 status: something is not running,\n"
		"4 no such program, 64 usage, 69 no supervisor (purge: no broadcasterd), 75 not in "
		"time.\n",
		purge_command_help);
}

enum {
	OPT_SOCKET = 256,
	OPT_JSON,
	OPT_WAIT,
	OPT_NO_WAIT,
	OPT_TIMEOUT,
	OPT_STDERR,
	OPT_BYTES,
	OPT_FOLLOW,
	OPT_ONCE,
	OPT_INTERVAL,
	OPT_VERSION,
	OPT_HELP,
	OPT_PURGE /* and what enum purge_option has, from here on */
};

static const struct option long_options[] = {{"socket", required_argument, NULL, OPT_SOCKET},
	{"json", no_argument, NULL, OPT_JSON}, {"wait", optional_argument, NULL, OPT_WAIT},
	{"no-wait", no_argument, NULL, OPT_NO_WAIT},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"follow", no_argument, NULL, OPT_FOLLOW}, {"once", no_argument, NULL, OPT_ONCE},
	{"interval", required_argument, NULL, OPT_INTERVAL},
	{"stderr", no_argument, NULL, OPT_STDERR}, {"bytes", required_argument, NULL, OPT_BYTES},
	{"all", no_argument, NULL, OPT_PURGE + PURGE_OPTION_ALL},
	{"tag", required_argument, NULL, OPT_PURGE + PURGE_OPTION_TAG},
	{"model", required_argument, NULL, OPT_PURGE + PURGE_OPTION_MODEL},
	{"body-hash", required_argument, NULL, OPT_PURGE + PURGE_OPTION_BODY_HASH},
	{"key", required_argument, NULL, OPT_PURGE + PURGE_OPTION_KEY},
	{"store", no_argument, NULL, OPT_PURGE + PURGE_OPTION_STORE},
	{"token-file", required_argument, NULL, OPT_PURGE + PURGE_OPTION_TOKEN_FILE},
	{"version", no_argument, NULL, OPT_VERSION}, {"help", no_argument, NULL, OPT_HELP}, {0}};

static void usage_error(const char *what, const char *value)
{
	fprintf(stderr, "podctl: %s%s%s; see podctl --help\n", what, value ? ": " : "",
		value ? value : "");
	exit(CTL_USAGE);
}

static void parse_time(struct options *options, const char *text)
{
	if (value_ms(text, &options->wait_ms) < 0)
		usage_error("not a time such as 10 or 500ms", text);
}

static void parse_purge(struct options *options, enum purge_option option)
{
	const char *error = purge_command_option(options->purge, option, optarg);
	if (error)
		usage_error(error, NULL);
	options->purges = true;
}

static void parse_options(int argc, char **argv, struct options *options)
{
	int c;
	while ((c = getopt_long(argc, argv, "hf", long_options, NULL)) != -1) {
		switch (c) {
		case OPT_SOCKET:
			options->socket = optarg;
			break;
		case OPT_JSON:
			options->json = true;
			break;
		case OPT_WAIT:
			options->wait = true;
			if (optarg)
				parse_time(options, optarg);
			break;
		case OPT_NO_WAIT:
			options->no_wait = true;
			break;
		case OPT_TIMEOUT:
			parse_time(options, optarg);
			break;
		case OPT_STDERR:
			options->to_stderr = true;
			break;
		case OPT_BYTES:
			if (value_bytes(optarg, &options->bytes) < 0)
				usage_error("not a number of bytes", optarg);
			break;
		case OPT_FOLLOW:
		case 'f':
			options->follow = true;
			break;
		case OPT_ONCE:
			options->once = true;
			break;
		case OPT_INTERVAL:
			if (value_ms(optarg, &options->interval_ms) < 0 || !options->interval_ms)
				usage_error("not a time such as 2 or 500ms", optarg);
			break;
		case OPT_VERSION:
			printf("podctl %s\n", daemon_version());
			exit(CTL_OK);
		case OPT_HELP:
		case 'h':
			print_help(stdout);
			exit(CTL_OK);
		default:
			if (c < OPT_PURGE)
				exit(CTL_USAGE); /* getopt_long() said why */
			parse_purge(options, (enum purge_option)(c - OPT_PURGE));
		}
	}
}

static const struct command *find_command(const char *name)
{
	for (const struct command *c = commands; c->name; c++)
		if (strcmp(c->name, name) == 0)
			return c;
	usage_error("no such command", name);
	return NULL;
}

static void check_names(const struct command *command, char **names, int n_names)
{
	int number;
	if (n_names < command->min_names) {
		fprintf(stderr, "podctl: a name is missing; usage: podctl %s %s\n", command->name,
			command->usage);
		exit(CTL_USAGE);
	}
	if (n_names > command->max_names) {
		fprintf(stderr, "podctl: %s takes no names; see podctl --help\n", command->name);
		exit(CTL_USAGE);
	}
	if (command->run == run_signal && value_signal(names[0], &number) < 0)
		usage_error("no such signal", names[0]);
}

int main(int argc, char **argv)
{
	struct purge_command purge = {0};
	struct options options = {.purge = &purge};
	char path[4096];
	log_open("podctl", LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
	parse_options(argc, argv, &options);
	if (optind == argc)
		usage_error("a command is missing", NULL);
	const struct command *command = find_command(argv[optind]);
	char **names = argv + optind + 1;
	int n_names = argc - optind - 1;
	check_names(command, names, n_names);
	if (options.purges && command->run != run_purge)
		usage_error("an option of purge with", command->name);
	if (command->alone) {
		int code = (int)command->run(command, &options, NULL, names, n_names);
		purge_command_free(&purge);
		return fflush(stdout) != 0 && !code ? CTL_FAILED : code;
	}
	if (options.wait && !options.wait_ms)
		options.wait_ms = DEFAULT_WAIT_MS;
	snprintf(path, sizeof path, "%s/supervisor.sock", run_dir());
	enum ctl_exit result;
	struct session *session = session_open(&session_supervisor,
		options.socket ? options.socket : path, options.wait ? options.wait_ms : 0,
		&result);
	if (!session)
		return (int)result;
	result = command->run(command, &options, session, names, n_names);
	session_free(&session);
	if (fflush(stdout) != 0 && !result)
		result = CTL_FAILED;
	return (int)result;
}
