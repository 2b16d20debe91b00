/* cachectl: fills, checks and moves the cache. `cachectl --help` is the manual. */
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

struct command {
	const char *name;
	const char *argument; /* NULL: none */
	const char *usage, *help;
};

static const struct command commands[] = {
	{"warm", "FILE.jsonl", "warm FILE.jsonl",
		"send every request of the file (or text, with --model) through the gateway; "
		"stopped, the same command goes on"},
	{"verify", NULL, "verify",
		"check names, gzip, content, vectors and metadata of all objects"},
	{"import", "SOURCE", "import SOURCE",
		"copy the Python gateway's directory or bucket, of either layout, into the store"},
	{"export", "TARGET", "export TARGET",
		"copy the store to a directory, a bucket, a FILE.jsonl or - (as lines)"},
	{"stats", NULL, "stats", "requests, tokens and dollars saved by model"},
	{"purge", NULL, "purge WHAT",
		"take answers out of every pod's cache; see cachectl purge --help"},
	{0}};

static void print_help(FILE *out)
{
	fprintf(out, "Usage: cachectl [OPTION…] COMMAND [ARGUMENT]\n\n"
		     "Fills, checks and moves the embedding cache.\n\nCommands:\n");
	for (const struct command *c = commands; c->name; c++)
		fprintf(out, "  %-17s %s\n", c->usage, c->help);
	fprintf(out,
		"\nOptions:\n"
		"  --url=URL         the gateway (GATEWAY_URL, or " DEFAULT_URL
		"); stats: gatewayd "
		"itself,\n"
		"                    several with commas between (" DEFAULT_STATS ")\n"
		"  --store=PLACE     a directory or s3://BUCKET (STORE_DIR, or " DEFAULT_STORE
		"); a bucket takes\n"
		"                    S3_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, "
		"AWS_SECRET_ACCESS_KEY and\n"
		"                    AWS_SESSION_TOKEN from the environment, as gatewayd does\n"
		"  --model=NAME      warm: for lines without one; export: of this model alone\n"
		"  --requests=FILE   verify: keys, too, of the requests in FILE, one a line\n"
		"                    import: take their answers apart into embeddings\n"
		"  --parallel=N      requests or objects at a time (%d)\n"
		"  --batch=N         warm: texts in one request (%d)\n"
		"  --overwrite       import, export: also what is there already\n"
		"  --restart         warm: from the first line\n"
		"  --json            for programs\n"
		"  --quiet           no progress\n"
		"  --version, --help\n\n"
		"The key for warm comes from OPENAI_API_KEY.\n"
		"Exit codes: 0 done and well, 1 done and something is not well, 64 usage, 66 no such "
		"file,\n69 gateway or store not reached, 130 interrupted.\n",
		DEFAULT_PARALLEL, DEFAULT_BATCH);
}

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

static const struct option long_options[] = {{"url", required_argument, NULL, OPT_URL},
	{"store", required_argument, NULL, OPT_STORE},
	{"model", required_argument, NULL, OPT_MODEL},
	{"requests", required_argument, NULL, OPT_REQUESTS},
	{"parallel", required_argument, NULL, OPT_PARALLEL},
	{"batch", required_argument, NULL, OPT_BATCH},
	{"overwrite", no_argument, NULL, OPT_OVERWRITE},
	{"restart", no_argument, NULL, OPT_RESTART}, {"json", no_argument, NULL, OPT_JSON},
	{"quiet", no_argument, NULL, OPT_QUIET}, {"version", no_argument, NULL, OPT_VERSION},
	{"help", no_argument, NULL, 'h'}, {0}};

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

static void parse_options(int argc, char **argv, struct ctl_options *options)
{
	int c;
	while ((c = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		switch (c) {
		case OPT_URL:
			options->url = optarg;
			break;
		case OPT_STORE:
			options->store = optarg;
			break;
		case OPT_MODEL:
			options->model = optarg;
			break;
		case OPT_REQUESTS:
			options->requests = optarg;
			break;
		case OPT_PARALLEL:
			options->parallel = number(optarg, MAX_PARALLEL);
			break;
		case OPT_BATCH:
			options->batch = number(optarg, MAX_BATCH);
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
		case OPT_VERSION:
			printf("cachectl %s\n", daemon_version());
			exit(CTL_OK);
		case 'h':
			print_help(stdout);
			exit(CTL_OK);
		default:
			exit(CTL_USAGE); /* getopt_long() said why */
		}
	}
}

static const char *setting(const char *name, const char *fallback)
{
	const char *value = getenv(name);
	return value && *value ? value : fallback;
}

static enum ctl_exit run(const char *command, const char *argument, struct ctl_options *options)
{
	bool stats = strcmp(command, "stats") == 0;
	if (!options->url)
		options->url = setting("GATEWAY_URL", stats ? DEFAULT_STATS : DEFAULT_URL);
	if (!options->store)
		options->store = setting("STORE_DIR", DEFAULT_STORE);
	options->key = setting("OPENAI_API_KEY", NULL);
	if (stats)
		return ctl_stats(options);
	if (strcmp(command, "warm") == 0)
		return ctl_warm(options, argument);
	if (strcmp(command, "verify") == 0)
		return ctl_verify(options);
	if (strcmp(command, "import") == 0)
		return ctl_import(options, argument);
	return ctl_export(options, argument);
}

int main(int argc, char **argv)
{
	struct ctl_options options = {.parallel = DEFAULT_PARALLEL, .batch = DEFAULT_BATCH};
	log_open("cachectl", LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
	if (argc > 1 && strcmp(argv[1], "purge") == 0) {
		enum ctl_exit purged = ctl_purge(argc - 1, argv + 1);
		return fflush(stdout) != 0 && purged == CTL_OK ? CTL_PROBLEMS : (int)purged;
	}
	parse_options(argc, argv, &options);
	if (optind == argc)
		usage_error("a command is missing", NULL);
	if (strcmp(argv[optind], "purge") == 0)
		usage_error("purge has options of its own, and stands first", NULL);
	const struct command *command = commands;
	while (command->name && strcmp(command->name, argv[optind]) != 0)
		command++;
	if (!command->name)
		usage_error("no such command", argv[optind]);
	int n_arguments = argc - optind - 1;
	if (n_arguments != (command->argument != NULL))
		usage_error("to be used as", command->usage);
	enum ctl_exit result = run(command->name, argv[optind + 1], &options);
	if (fflush(stdout) != 0 && result == CTL_OK)
		result = CTL_PROBLEMS;
	return (int)result;
}
