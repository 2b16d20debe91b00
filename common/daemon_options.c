#include "common/daemon_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/process_metrics.h"
#include "common/terminal.h"

/* mk/docs prints this section once for all. */
#define COMMON_SECTION "All daemons"
#define COMMON(field)  offsetof(struct daemon_conf, field)
static const struct config_row common_rows[DAEMON_COMMON_ROWS + 1] = {
	{"run-dir", "RUN_DIR", CONFIG_PATH, COMMON(run_dir), .def = "var/run",
		.section = COMMON_SECTION,
		.help = "directory of the pod's Unix sockets; made when missing"},
	/* The variable has the daemon's prefix: programs of one pod share an environment. */
	{"rpc-socket", NULL, CONFIG_PATH, COMMON(rpc_socket),
		.help = "Unix socket for MessagePack-RPC; RUN_DIR/<name>.sock when not set"},
	{"log-level", "LOG_LEVEL", CONFIG_CHOICE, COMMON(log_level), .def = "info",
		.choices = "debug|info|warn=warning|error|fatal=critical",
		.help = "what is logged; while it runs, podctl log-level (the RPC method log_level) changes it"},
	{"log-format", "LOG_FORMAT", CONFIG_CHOICE, COMMON(log_format), .def = "auto",
		.choices = "auto|json|text", .help = "auto: text on a terminal, else JSON"},
	{"lameduck", "LAMEDUCK", CONFIG_MS, COMMON(lameduck_ms), .def = "1s", .max = 3600e3,
		.help = "after SIGTERM: how long to go on serving with /readyz at 503"},
	{"termination-grace-period", "TERMINATION_GRACE_PERIOD", CONFIG_MS, COMMON(grace_ms),
		.def = "10s", .max = 3600e3, .help = "after SIGTERM: end at the latest then"},
	{"trusted-gid", "TRUSTED_GID", CONFIG_INT, COMMON(trusted_gid), .def = "-1", .min = -1,
		.max = 4294967294.0,
		.help = "group whose processes may use the RPC socket, beside the own user and root; "
			"-1: none"},
	{"strict", "STRICT", CONFIG_BOOL, COMMON(strict), .def = "false",
		.help = "unknown environment variables with the daemon's prefix are errors"},
	{0}};

#define MAX_UNKNOWN_BYTES 4096

static void note_unknown(const char *variable, void *arg)
{
	struct buf *names = arg;
	buf_append(names, variable, strlen(variable) + 1);
}

__attribute__((noreturn)) static void refuse(
	const struct daemon_spec *spec, int exit_code, const char *why)
{
	fprintf(stderr, "%s: %s\n", spec->name, why);
	exit(exit_code);
}

static void print_help(const struct daemon_options *o)
{
	bool color = terminal_wants_color(STDOUT_FILENO);
	printf("%s: %s\n\nusage: %s [--option value]...\n\n"
	       "Every option is also an environment variable; a flag beats the variable beats the "
	       "default.\n",
		o->spec->name, o->spec->summary, o->spec->name);
	config_print_help(o->tables, stdout, color);
}

static void print_metrics(const struct daemon_spec *spec)
{
	struct metrics *own = metrics_new(), *all = metrics_new();
	struct process_metrics *process = all ? process_metrics_new(all, NULL) : NULL;
	if (!own || !process)
		refuse(spec, EX_OSERR, "out of memory");
	metrics_register(own, spec->families);
	for (size_t i = 0; spec->part_families && spec->part_families[i]; i++)
		metrics_register(own, spec->part_families[i]);
	metrics_register(all, rpc_server_families);
	printf("## %s\n", spec->name);
	metrics_print_markdown(own, stdout);
	printf("\n### " COMMON_SECTION "\n");
	metrics_print_markdown(all, stdout);
	process_metrics_free(&process);
	metrics_free(&own);
	metrics_free(&all);
}

/* Before any setting is looked at: these work whatever the environment holds. */
static void print_reference(const struct daemon_options *o, enum config_action action)
{
	switch (action) {
	case CONFIG_SHOW_HELP:
		print_help(o);
		break;
	case CONFIG_SHOW_VERSION:
		printf("%s %s\n", o->spec->name, daemon_version());
		break;
	case CONFIG_PRINT_OPTIONS:
		printf("## %s\n\n%s\n", o->spec->name, o->spec->summary);
		config_print_markdown(o->tables, stdout);
		break;
	case CONFIG_PRINT_METRICS:
		print_metrics(o->spec);
		break;
	default:
		return;
	}
	exit(fflush(stdout) == 0 ? EX_OK : EX_IOERR);
}

static void build_tables(struct daemon_options *o)
{
	snprintf(o->rpc_socket_env, sizeof o->rpc_socket_env, "%sRPC_SOCKET", o->spec->env_prefix);
	unsigned n = 0;
	for (const struct config_row *row = common_rows; row->flag; row++) {
		bool stop_time = row->offset == COMMON(lameduck_ms) ||
				 row->offset == COMMON(grace_ms);
		if (stop_time && o->spec->own_stop_times)
			continue;
		o->common[n] = *row;
		if (row->offset == COMMON(rpc_socket))
			o->common[n].env = o->rpc_socket_env;
		n++;
	}
	n = 0;
	if (o->spec->rows)
		o->tables[n++] = o->spec->rows;
	o->tables[n] = o->common;
}

/* One line a name; with --strict the first one is the end. */
static void report_unknown(
	const struct daemon_spec *spec, const struct buf *names, const struct daemon_conf *conf)
{
	char text[512];
	for (const char *name = (const char *)names->data, *end = name + names->len; name < end;
		name += strlen(name) + 1) {
		snprintf(text, sizeof text, "unknown environment variable %s", name);
		if (conf->strict)
			refuse(spec, EX_CONFIG, text);
		log_warn("%s", text);
	}
}

void daemon_options_load(struct daemon_options *o, const struct daemon_spec *spec,
	struct daemon_conf *conf, int argc, char **argv, char *name, size_t name_size)
{
	struct config_error error;
	struct buf unknown = BUF_INIT(MAX_UNKNOWN_BYTES);
	*o = (struct daemon_options){.spec = spec, .argc = argc};
	build_tables(o);
	o->argv = calloc((size_t)argc + 1, sizeof(char *));
	if (!o->argv)
		refuse(spec, EX_OSERR, "out of memory");
	memcpy(o->argv, argv, (size_t)argc * sizeof(char *));
	enum config_action action = config_take_action(&o->argc, o->argv);
	print_reference(o, action);

	memset(conf, 0, spec->conf_size);
	if (config_load(o->tables, conf, o->argc, o->argv, environ, spec->env_prefix, note_unknown,
		    &unknown, &error) < 0)
		refuse(spec, error.exit_code, error.text);
	const char *problem = spec->check ? spec->check(conf) : NULL;
	if (problem)
		refuse(spec, EX_CONFIG, problem);
	if (spec->instance_name)
		spec->instance_name(conf, name, name_size);
	else
		snprintf(name, name_size, "%s", spec->name);
	log_open(name, (enum log_level)conf->log_level, (enum log_format)conf->log_format);
	report_unknown(spec, &unknown, conf);
	buf_free(&unknown);
	if (action == CONFIG_RUN)
		return;
	if (action == CONFIG_PRINT_VALUES)
		config_print_values(o->tables, conf, stdout);
	else
		printf("%s: the settings are good\n", spec->name);
	daemon_options_free(o, conf);
	log_close();
	exit(fflush(stdout) == 0 ? EX_OK : EX_IOERR);
}

void daemon_options_reload(struct daemon_options *o, struct daemon_conf *conf,
	void (*on_changed)(void *arg), void *arg)
{
	struct config_error error;
	struct daemon_conf *fresh = calloc(1, o->spec->conf_size);
	if (!fresh) {
		log_error("settings were not read again: out of memory");
		return;
	}
	if (config_load(o->tables, fresh, o->argc, o->argv, environ, NULL, NULL, NULL, &error) <
		0) {
		log_error("settings were not read again: %s", error.text);
		free(fresh);
		return;
	}
	const char *problem = o->spec->check ? o->spec->check(fresh) : NULL;
	if (problem) {
		log_error("settings were not read again: %s", problem);
	} else {
		const char *others = config_apply_reloadable(o->tables, conf, fresh);
		if (others)
			log_warn("changed, but only read at the start: %s", others);
		log_info("settings were read again");
		on_changed(arg);
	}
	config_free(o->tables, fresh);
	free(fresh);
}

void daemon_options_free(struct daemon_options *o, struct daemon_conf *conf)
{
	config_free(o->tables, conf);
	free(o->argv);
	o->argv = NULL;
}
