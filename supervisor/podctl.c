/* podctl: talks to the supervisor of a pod. `podctl --help` is the manual. */
#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/daemon.h"
#include "common/log.h"
#include "supervisor/ctl/completion.h"
#include "supervisor/ctl/log_level.h"
#include "supervisor/ctl/logs.h"
#include "supervisor/ctl/options.h"
#include "supervisor/ctl/programs.h"
#include "supervisor/ctl/purge.h"
#include "supervisor/ctl/session.h"
#include "supervisor/ctl/top.h"

#define DEFAULT_RUN_DIR     "var/run"
#define DEFAULT_INTERVAL_MS 1000
#define MANY                INT_MAX

static const char exit_codes[] =
	"Exit codes: 0 done and well, 1 could not be done, 3 status: something is not running,\n"
	"4 no such program, 64 usage, 69 no supervisor (purge: no broadcasterd), 75 not in time.\n";

static const char *run_dir(void)
{
	const char *dir = getenv("RUN_DIR");
	return dir && *dir ? dir : DEFAULT_RUN_DIR;
}

/* ---- what printing takes ---- */

/* What these printed, every line with its name where that is asked for, or where there are several.
 */
static enum ctl_exit show_output(const struct ctl_options *options, struct session *session,
	char **names, int n_names, const char *stream, bool named)
{
	struct strings labels;
	enum ctl_exit exit = programs_find(session, names, n_names, &labels);
	struct logs_options wanted = {.follow = ctl_options_has(options, CTL_OPTION_FOLLOW),
		.stream = ctl_options_has(options, CTL_OPTION_STDERR) ? "stderr" : stream,
		.prefix = named || labels.n > 1,
		.color = options->color,
		.bytes = options->bytes};
	if (exit == CTL_OK)
		exit = logs_show(session, &wanted, labels.items, labels.n);
	strings_free(&labels);
	return exit;
}

static enum ctl_exit run_tail(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	return show_output(options, session, names, n_names, "stdout", false);
}

static enum ctl_exit run_logs(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	return show_output(options, session, names, n_names, "all", true);
}

static enum ctl_exit run_top(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	(void)names;
	(void)n_names;
	bool json = ctl_options_has(options, CTL_OPTION_JSON);
	struct top_options wanted = {.json = json,
		.color = options->color,
		.once = ctl_options_has(options, CTL_OPTION_ONCE) || json || !isatty(STDOUT_FILENO),
		.interval_ms = options->interval_ms ? options->interval_ms : DEFAULT_INTERVAL_MS};
	return top_show(session, &wanted);
}

/* ---- what needs no supervisor ---- */

static enum ctl_exit run_purge(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	(void)session;
	struct purge_options wanted = {.socket = options->socket,
		.run_dir = run_dir(),
		.timeout_ms = options->timeout_ms,
		.json = ctl_options_has(options, CTL_OPTION_JSON),
		.color = options->color};
	const char *error = purge_command_complete(options->purge, names, n_names);
	if (error) {
		fprintf(stderr, "podctl: %s; see podctl purge --help\n", error);
		return CTL_USAGE;
	}
	return purge_run(options->purge, &wanted);
}

static enum ctl_exit run_completion(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	(void)options;
	(void)session;
	if (n_names > 1 || (n_names == 1 && strcmp(names[0], "bash") != 0)) {
		fprintf(stderr, "podctl: completion is there for bash\n");
		return CTL_USAGE;
	}
	fputs(completion_bash, stdout);
	return CTL_OK;
}

/* ---- the commands ---- */

#define CHANGES (CTL_OPTION_NO_WAIT | CTL_OPTION_TIMEOUT | CTL_OPTION_JSON)
#define PRINTED (CTL_OPTION_FOLLOW | CTL_OPTION_STDERR | CTL_OPTION_BYTES)

static const struct command {
	const char *name;
	enum ctl_exit (*run)(const struct ctl_options *options, struct session *session,
		char **names, int n_names);
	int min_names, max_names;
	bool alone;     /* needs no supervisor */
	unsigned takes; /* enum ctl_option; --socket goes with all */
	const char *usage, *help;
} commands[] = {
	{"status", programs_status, 0, MANY, false,
		CTL_OPTION_WAIT | CTL_OPTION_TIMEOUT | CTL_OPTION_JSON, "[--wait[=TIME]] [NAME…]",
		"state of all programs, or of some; --wait: once all are up"},
	{"start", programs_start, 1, MANY, false, CHANGES, "[--no-wait] NAME…",
		"start programs, and wait until they are up"},
	{"stop", programs_stop, 1, MANY, false, CHANGES, "[--no-wait] NAME…",
		"stop programs, and wait until they are gone"},
	{"restart", programs_restart, 1, MANY, false, CHANGES, "[--no-wait] NAME…",
		"stop and start; those of one program one after the other"},
	{"reload", programs_reload, 0, 0, false, CTL_OPTION_TIMEOUT | CTL_OPTION_JSON, "",
		"read the configuration again; start, restart, stop what changed"},
	{"signal", programs_signal, 2, MANY, false, CTL_OPTION_TIMEOUT | CTL_OPTION_JSON,
		"SIGNAL NAME…", "send a signal, e.g. HUP"},
	{"log-level", log_level_run, 2, MANY, false, CTL_OPTION_TIMEOUT, "LEVEL NAME…",
		"what daemons log until their next start, e.g. debug"},
	{"tail", run_tail, 1, MANY, false, PRINTED, "[-f] [--bytes=N] NAME…",
		"the end of what programs printed; -f: and what follows"},
	{"logs", run_logs, 0, MANY, false, PRINTED, "[-f] [--bytes=N] [NAME…]",
		"the same with both streams, of all or of some, named"},
	{"top", run_top, 0, 0, false, CTL_OPTION_ONCE | CTL_OPTION_INTERVAL | CTL_OPTION_JSON,
		"[--once] [--interval=TIME]",
		"the pod, live: requests, hits, savings; processor, memory"},
	{"purge", run_purge, 0, MANY, true, CTL_OPTION_PURGE | CTL_OPTION_TIMEOUT | CTL_OPTION_JSON,
		"[--store] PATH | WHAT",
		"take answers out of every pod's cache (needs broadcasterd)"},
	{"shutdown", programs_shutdown, 0, 0, false, CTL_OPTION_TIMEOUT, "",
		"stop everything, then the supervisor"},
	{"completion", run_completion, 0, MANY, true, 0, "bash",
		"completion for the shell: source <(podctl completion bash)"},
	{0}};

static void print_manual(void)
{
	printf("Usage: podctl [OPTION…] COMMAND [NAME…]\n\n"
	       "Talks to the supervisor of a pod. NAME is a process, a program, a group, or "
	       "\"all\".\n\nCommands; podctl COMMAND --help tells of one:\n");
	for (const struct command *c = commands; c->name; c++) {
		/* … is three bytes, and one column. */
		int wide = strstr(c->usage, "…") ? 29 : 27;
		printf("  %-10s %-*s %s\n", c->name, wide, c->usage, c->help);
	}
	printf("\nOptions:\n");
	ctl_options_print(stdout, CTL_OPTION_SOCKET | CTL_OPTION_JSON | CTL_OPTION_TIMEOUT);
	printf("  --version, --help\n\n"
	       "What to purge, of all gatewayd of all pods (of memory, unless --store):\n");
	ctl_options_print(stdout, CTL_OPTION_PURGE);
	printf("\n%s", exit_codes);
}

static void print_command(const struct command *c)
{
	printf("Usage: podctl %s%s%s\n\n%c%s.\n\nOptions:\n", c->name, *c->usage ? " " : "",
		c->usage, toupper((unsigned char)*c->help), c->help + 1);
	ctl_options_print(stdout, c->takes | CTL_OPTION_SOCKET);
	printf("\n%s", exit_codes);
}

static const struct command *find_command(const char *name)
{
	for (const struct command *c = commands; c->name; c++)
		if (strcmp(c->name, name) == 0)
			return c;
	fprintf(stderr, "podctl: no such command: %s; see podctl --help\n", name);
	return NULL;
}

static bool is_usable(const struct command *c, const struct ctl_options *options, int n_names)
{
	const char *other = ctl_options_find_other(options, c->takes | CTL_OPTION_SOCKET);
	if (other)
		fprintf(stderr, "podctl: %s means nothing to %s; see podctl %s --help\n", other,
			c->name, c->name);
	else if (n_names < c->min_names)
		fprintf(stderr, "podctl: a name is missing; usage: podctl %s %s\n", c->name,
			c->usage);
	else if (n_names > c->max_names)
		fprintf(stderr, "podctl: %s takes no names; see podctl %s --help\n", c->name,
			c->name);
	else
		return true;
	return false;
}

static enum ctl_exit run(
	const struct command *command, const struct ctl_options *options, char **names, int n_names)
{
	if (command->alone)
		return command->run(options, NULL, names, n_names);
	char path[4096];
	snprintf(path, sizeof path, "%s/supervisor.sock", run_dir());
	/* Who waits for the pod waits for its supervisor too. */
	uint64_t wait_ms = 0;
	if (ctl_options_has(options, CTL_OPTION_WAIT))
		wait_ms = options->timeout_ms ? options->timeout_ms : PROGRAMS_WAIT_MS;
	enum ctl_exit result;
	struct session *session = session_open(
		&session_supervisor, options->socket ? options->socket : path, wait_ms, &result);
	if (session)
		result = command->run(options, session, names, n_names);
	session_free(&session);
	return result;
}

int main(int argc, char **argv)
{
	struct ctl_options options;
	enum ctl_exit result = CTL_USAGE;
	log_open("podctl", LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
	ctl_options_parse(&options, argc, argv);
	const struct command *command = optind < argc ? find_command(argv[optind]) : NULL;
	int n_names = argc - optind - 1;
	if (options.version) {
		result = CTL_OK;
		printf("podctl %s\n", daemon_version());
	} else if (options.help && (command || optind == argc)) {
		result = CTL_OK;
		command ? print_command(command) : print_manual();
	} else if (optind == argc) {
		fprintf(stderr, "podctl: a command is missing; see podctl --help\n");
	} else if (command && is_usable(command, &options, n_names)) {
		result = run(command, &options, argv + optind + 1, n_names);
	}
	ctl_options_free(&options);
	return fflush(stdout) != 0 && result == CTL_OK ? CTL_FAILED : (int)result;
}
