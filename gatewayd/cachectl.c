/* cachectl: fills, checks and moves the cache. `cachectl --help` is the manual. */
#include <ctype.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/daemon.h"
#include "common/log.h"
#include "gatewayd/ctl/ctl.h"

#define DEFAULT_URL      "http://127.0.0.1:8080"
#define DEFAULT_STATS    "http://127.0.0.1:8100"
#define DEFAULT_STORE    "var/cache"
#define DEFAULT_PARALLEL 8
#define DEFAULT_BATCH    64
#define MAX_PARALLEL     256
#define MAX_BATCH        2048
#define TEXT_OF(number)  #number
#define TEXT(number)     TEXT_OF(number)

/* The commands that an option means something to. */
enum { WARM = 1, VERIFY = 2, IMPORT = 4, EXPORT = 8, STATS = 16, ALL = 31 };

static const struct command {
	const char *name;
	unsigned bit;         /* 0: has options of its own */
	const char *argument; /* NULL: none */
	const char *usage, *help;
} commands[] = {
	{"warm", WARM, "FILE.jsonl", "warm FILE.jsonl",
		"send every request of the file (or text, with --model) through the gateway;\n"
		"stopped, the same command goes on"},
	{"verify", VERIFY, NULL, "verify",
		"check names, gzip, content, vectors and metadata of all objects"},
	{"import", IMPORT, "SOURCE", "import SOURCE",
		"copy the Python gateway's directory or bucket, of either layout, into the store"},
	{"export", EXPORT, "TARGET", "export TARGET",
		"copy the store to a directory, a bucket, a FILE.jsonl or - (as lines)"},
	{"stats", STATS, NULL, "stats", "requests, tokens and dollars saved by model"},
	{"purge", 0, NULL, "purge WHAT", "take answers out of every pod's cache"}, {0}};

enum {
	OPT_URL = 256,
	OPT_STORE,
	OPT_MODEL,
	OPT_REQUESTS,
	OPT_PARALLEL,
	OPT_BATCH,
	OPT_OVERWRITE,
	OPT_RESTART,
	OPT_JSON,
	OPT_QUIET,
	OPT_VERSION
};

/* In the order of --help. An option that is another thing to another command has two rows. */
static const struct row {
	int option;
	const char *name;
	int argument; /* as in struct option */
	unsigned commands;
	const char *help_name, *help;
} rows[] = {
	{OPT_URL, "url", required_argument, WARM, "--url=URL",
		"the gateway (GATEWAY_URL, or " DEFAULT_URL ")"},
	{OPT_URL, "url", required_argument, STATS, "--url=URL",
		"gatewayd itself, several with commas between (GATEWAY_URL, or\n" DEFAULT_STATS
		")"},
	{OPT_STORE, "store", required_argument, VERIFY | IMPORT | EXPORT, "--store=PLACE",
		"a directory or s3://BUCKET (STORE_DIR, or " DEFAULT_STORE ");\n"
		"a bucket takes S3_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID,\n"
		"AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN from the environment, as gatewayd "
		"does"},
	{OPT_MODEL, "model", required_argument, WARM, "--model=NAME", "for lines without one"},
	{OPT_MODEL, "model", required_argument, EXPORT, "--model=NAME", "of this model alone"},
	{OPT_REQUESTS, "requests", required_argument, VERIFY, "--requests=FILE",
		"keys, too, of the requests in FILE, one a line"},
	{OPT_REQUESTS, "requests", required_argument, IMPORT, "--requests=FILE",
		"take the answers of the requests in FILE apart into embeddings"},
	{OPT_PARALLEL, "parallel", required_argument, WARM | VERIFY | IMPORT | EXPORT,
		"--parallel=N", "requests or objects at a time (" TEXT(DEFAULT_PARALLEL) ")"},
	{OPT_BATCH, "batch", required_argument, WARM, "--batch=N",
		"texts in one request (" TEXT(DEFAULT_BATCH) ")"},
	{OPT_OVERWRITE, "overwrite", no_argument, IMPORT | EXPORT, "--overwrite",
		"also what is there already"},
	{OPT_RESTART, "restart", no_argument, WARM, "--restart", "from the first line"},
	{OPT_JSON, "json", no_argument, ALL, "--json", "for programs"},
	{OPT_QUIET, "quiet", no_argument, ALL, "--quiet", "no progress"},
};
#define N_ROWS (sizeof rows / sizeof *rows)

static const char exit_codes[] =
	"Exit codes: 0 done and well, 1 done and something is not well, 64 usage, 66 no such file, "
	"or\nno store there, 69 gateway or store not reached, 130 interrupted.\n";

/* ---- Help ---- */

/* In two columns, the lines of the second below each other. */
static void print_row(const char *first, const char *whose, const char *help)
{
	size_t len = strcspn(help, "\n");
	printf("  %-17s %s%s%.*s\n", first, whose, *whose ? ": " : "", (int)len, help);
	if (help[len])
		print_row("", "", help + len + 1);
}

static void print_options(unsigned wanted)
{
	for (const struct row *row = rows; row < rows + N_ROWS; row++) {
		char whose[64] = "";
		size_t len = 0;
		if (!(row->commands & wanted))
			continue;
		for (const struct command *c = commands;
			wanted == ALL && row->commands != ALL && c->name; c++)
			if (row->commands & c->bit)
				len += (size_t)snprintf(whose + len, sizeof whose - len, "%s%s",
					len ? ", " : "", c->name);
		print_row(row->help_name, whose, row->help);
	}
}

static void print_manual(void)
{
	printf("Usage: cachectl [OPTION…] COMMAND [ARGUMENT]\n\n"
	       "Fills, checks and moves the embedding cache.\n\n"
	       "Commands; cachectl COMMAND --help tells of one:\n");
	for (const struct command *c = commands; c->name; c++)
		print_row(c->usage, "", c->help);
	printf("\nOptions:\n");
	print_options(ALL);
	printf("  --version, --help\n\nThe key for warm comes from OPENAI_API_KEY.\n%s",
		exit_codes);
}

static void print_command(const struct command *c)
{
	printf("Usage: cachectl [OPTION…] %s\n\n%c%s.\n\nOptions:\n", c->usage,
		toupper((unsigned char)*c->help), c->help + 1);
	print_options(c->bit);
	printf("\n%s%s", c->bit == WARM ? "The key comes from OPENAI_API_KEY.\n" : "", exit_codes);
}

/* ---- The command line ---- */

static void usage_error(const char *what, const char *value)
{
	fprintf(stderr, "cachectl: %s%s%s; see cachectl --help\n", what, value ? ": " : "",
		value ? value : "");
	exit(CTL_USAGE);
}

static unsigned number(const char *text, unsigned max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);
	if (*end || end == text || *text == '-' || value < 1 || value > max)
		usage_error("not a number that can be used here", text);
	return (unsigned)value;
}

static void take(struct ctl_options *options, int option, const char *value)
{
	switch (option) {
	case OPT_URL:
		options->url = value;
		break;
	case OPT_STORE:
		options->store = value;
		break;
	case OPT_MODEL:
		options->model = value;
		break;
	case OPT_REQUESTS:
		options->requests = value;
		break;
	case OPT_PARALLEL:
		options->parallel = number(value, MAX_PARALLEL);
		break;
	case OPT_BATCH:
		options->batch = number(value, MAX_BATCH);
		break;
	case OPT_OVERWRITE:
		options->overwrite = true;
		break;
	case OPT_RESTART:
		options->restart = true;
		break;
	case OPT_JSON:
		options->json = true;
		break;
	case OPT_QUIET:
		options->quiet = true;
		break;
	}
}

/* given: a bit for each option, from OPT_URL on. True: --help was among them. */
static bool parse_options(int argc, char **argv, struct ctl_options *options, unsigned *given)
{
	struct option names[N_ROWS + 3] = {
		{"version", no_argument, NULL, OPT_VERSION}, {"help", no_argument, NULL, 'h'}};
	bool help = false;
	int c;
	for (size_t i = 0; i < N_ROWS; i++)
		names[i + 2] = (struct option){
			rows[i].name, rows[i].argument, NULL, rows[i].option};
	while ((c = getopt_long(argc, argv, "h", names, NULL)) != -1) {
		if (c == OPT_VERSION) {
			printf("cachectl %s\n", daemon_version());
			exit(CTL_OK);
		} else if (c == 'h') {
			help = true;
		} else if (c == '?') {
			exit(CTL_USAGE); /* getopt_long() said why */
		} else {
			*given |= 1u << (c - OPT_URL);
			take(options, c, optarg);
		}
	}
	return help;
}

static const struct command *find_command(const char *name)
{
	const struct command *command = commands;
	while (command->name && strcmp(command->name, name) != 0)
		command++;
	if (!command->name)
		usage_error("no such command", name);
	if (!command->bit)
		usage_error("purge has options of its own, and stands first", NULL);
	return command;
}

/* An option that would do nothing is a mistake. */
static void check_options(const struct command *command, unsigned given)
{
	unsigned taken = 0;
	for (const struct row *row = rows; row < rows + N_ROWS; row++)
		if (row->commands & command->bit)
			taken |= 1u << (row->option - OPT_URL);
	for (const struct row *row = rows; row < rows + N_ROWS; row++) {
		if (!(given & ~taken & 1u << (row->option - OPT_URL)))
			continue;
		fprintf(stderr, "cachectl: --%s means nothing to %s; see cachectl %s --help\n",
			row->name, command->name, command->name);
		exit(CTL_USAGE);
	}
}

static const char *setting(const char *name, const char *fallback)
{
	const char *value = getenv(name);
	return value && *value ? value : fallback;
}

static enum ctl_exit run(unsigned command, const char *argument, struct ctl_options *options)
{
	if (!options->url)
		options->url = setting(
			"GATEWAY_URL", command == STATS ? DEFAULT_STATS : DEFAULT_URL);
	if (!options->store)
		options->store = setting("STORE_DIR", DEFAULT_STORE);
	options->key = setting("OPENAI_API_KEY", NULL);
	switch (command) {
	case WARM:
		return ctl_warm(options, argument);
	case VERIFY:
		return ctl_verify(options);
	case IMPORT:
		return ctl_import(options, argument);
	case EXPORT:
		return ctl_export(options, argument);
	default:
		return ctl_stats(options);
	}
}

int main(int argc, char **argv)
{
	struct ctl_options options = {.parallel = DEFAULT_PARALLEL, .batch = DEFAULT_BATCH};
	enum ctl_exit result = CTL_OK;
	unsigned given = 0;
	log_open("cachectl", LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
	if (argc > 1 && strcmp(argv[1], "purge") == 0) {
		result = ctl_purge(argc - 1, argv + 1);
	} else if (parse_options(argc, argv, &options, &given)) {
		optind < argc ? print_command(find_command(argv[optind])) : print_manual();
	} else {
		if (optind == argc)
			usage_error("a command is missing", NULL);
		const struct command *command = find_command(argv[optind]);
		check_options(command, given);
		if (argc - optind - 1 != (command->argument != NULL))
			usage_error("to be used as", command->usage);
		result = run(command->bit, argv[optind + 1], &options);
	}
	return fflush(stdout) != 0 && result == CTL_OK ? CTL_PROBLEMS : (int)result;
}
