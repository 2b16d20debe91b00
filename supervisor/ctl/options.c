#include "supervisor/ctl/options.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/daemon.h"
#include "common/terminal.h"
#include "supervisor/config/values.h"
#include "supervisor/ctl/session.h"

enum { HELP = 256, VERSION, ROWS, PURGES = ROWS + 32 };

/* In the order of --help; those of purge are in purge_command_help. */
static const struct row {
	enum ctl_option option;
	const char *name;
	int argument; /* as in struct option */
	char letter;  /* 0: none */
	const char *help_name, *help;
} rows[] = {
	{CTL_OPTION_SOCKET, "socket", required_argument, 0, "--socket=PATH",
		"the supervisor's socket (RUN_DIR/supervisor.sock; RUN_DIR is var/run unless set)"},
	{CTL_OPTION_JSON, "json", no_argument, 0, "--json", "for programs"},
	{CTL_OPTION_TIMEOUT, "timeout", required_argument, 0, "--timeout=TIME",
		"give up waiting after that long (status --wait: 60 s; others: never)"},
	{CTL_OPTION_WAIT, "wait", optional_argument, 0, "--wait[=TIME]",
		"wait until all are up, 60 s at most unless said"},
	{CTL_OPTION_NO_WAIT, "no-wait", no_argument, 0, "--no-wait",
		"do not wait until it is done"},
	{CTL_OPTION_FOLLOW, "follow", no_argument, 'f', "-f, --follow",
		"and what is printed from now on, until Ctrl-C"},
	{CTL_OPTION_STDERR, "stderr", no_argument, 0, "--stderr", "what went to standard error"},
	{CTL_OPTION_BYTES, "bytes", required_argument, 0, "--bytes=N",
		"from the end, of each (1600; with KB and MB)"},
	{CTL_OPTION_ONCE, "once", no_argument, 0, "--once", "show it once and end"},
	{CTL_OPTION_INTERVAL, "interval", required_argument, 0, "--interval=TIME",
		"between two looks (1s)"},
	{CTL_OPTION_PURGE, NULL, 0, 0, NULL, NULL},
};
#define N_ROWS (sizeof rows / sizeof *rows)

static const struct option purge_options[] = {
	{"all", no_argument, NULL, PURGES + PURGE_OPTION_ALL},
	{"tag", required_argument, NULL, PURGES + PURGE_OPTION_TAG},
	{"model", required_argument, NULL, PURGES + PURGE_OPTION_MODEL},
	{"body-hash", required_argument, NULL, PURGES + PURGE_OPTION_BODY_HASH},
	{"key", required_argument, NULL, PURGES + PURGE_OPTION_KEY},
	{"store", no_argument, NULL, PURGES + PURGE_OPTION_STORE},
	{"token-file", required_argument, NULL, PURGES + PURGE_OPTION_TOKEN_FILE},
	{"version", no_argument, NULL, VERSION},
	{"help", no_argument, NULL, HELP},
	{0},
};
#define N_PURGE_OPTIONS (sizeof purge_options / sizeof *purge_options)

static void fail(const char *what, const char *value)
{
	fprintf(stderr, "podctl: %s%s%s; see podctl --help\n", what, value ? ": " : "",
		value ? value : "");
	exit(CTL_USAGE);
}

static void take_time(uint64_t *ms, const char *text, bool zero_is_fine)
{
	if (value_ms(text, ms) < 0 || (!*ms && !zero_is_fine))
		fail("not a time such as 10 or 500ms", text);
}

static void take(struct ctl_options *options, enum ctl_option option, const char *value)
{
	options->given |= (unsigned)option;
	if (option == CTL_OPTION_SOCKET)
		options->socket = value;
	else if (option == CTL_OPTION_TIMEOUT || (option == CTL_OPTION_WAIT && value))
		take_time(&options->timeout_ms, value, true);
	else if (option == CTL_OPTION_INTERVAL)
		take_time(&options->interval_ms, value, false);
	else if (option == CTL_OPTION_BYTES && value_bytes(value, &options->bytes) < 0)
		fail("not a number of bytes", value);
}

static void take_purge(struct ctl_options *options, enum purge_option option, const char *value)
{
	const char *error = purge_command_option(options->purge, option, value);
	if (error)
		fail(error, NULL);
	options->given |= CTL_OPTION_PURGE;
}

void ctl_options_parse(struct ctl_options *options, int argc, char **argv)
{
	struct option names[N_ROWS - 1 + N_PURGE_OPTIONS];
	for (size_t i = 0; i < N_ROWS - 1; i++)
		names[i] = (struct option){rows[i].name, rows[i].argument, NULL, ROWS + (int)i};
	memcpy(names + N_ROWS - 1, purge_options, sizeof purge_options);
	*options = (struct ctl_options){.color = terminal_wants_color(STDOUT_FILENO),
		.purge = calloc(1, sizeof *options->purge)};
	if (!options->purge)
		die(CTL_FAILED, "out of memory");
	int c;
	while ((c = getopt_long(argc, argv, ":hf", names, NULL)) != -1) {
		if (c == 'f')
			take(options, CTL_OPTION_FOLLOW, NULL);
		else if (c == 'h' || c == HELP)
			options->help = true;
		else if (c == VERSION)
			options->version = true;
		else if (c >= PURGES)
			take_purge(options, (enum purge_option)(c - PURGES), optarg);
		else if (c >= ROWS)
			take(options, rows[c - ROWS].option, optarg);
		else
			fail(c == ':' ? "a value is missing" : "no such option", argv[optind - 1]);
	}
}

void ctl_options_free(struct ctl_options *options)
{
	purge_command_free(options->purge);
	free(options->purge);
	options->purge = NULL;
}

const char *ctl_options_find_other(const struct ctl_options *options, unsigned accepted)
{
	for (size_t i = 0; i < N_ROWS; i++)
		if (options->given & (unsigned)rows[i].option & ~accepted)
			return rows[i].help_name ? rows[i].help_name : "an option of purge";
	return NULL;
}

void ctl_options_print(FILE *out, unsigned which)
{
	for (size_t i = 0; i < N_ROWS; i++)
		if (rows[i].help && (which & (unsigned)rows[i].option))
			fprintf(out, "  %-16s %s\n", rows[i].help_name, rows[i].help);
	if (which & CTL_OPTION_PURGE)
		fputs(purge_command_help, out);
}
