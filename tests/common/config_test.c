#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/config.h"

struct conf {
	char *text, *secret, *other_secret, *path, *address, *url, *flag_only;
	bool yes, no;
	int64_t port, any, atleast, bytes, time, time_ms, no_default;
	double ratio;
	int choice, level;
};

#define AT(field) offsetof(struct conf, field)
static const struct config_row rows[] = {
	{"text", "T_TEXT", CONFIG_STRING, AT(text), .def = "hello", .section = "Words",
		.help = "a word", .reloadable = true},
	{NULL, "T_SECRET", CONFIG_SECRET, AT(secret), .help = "hidden", .reloadable = true,
		.env_alias = "OLD_SECRET"},
	{NULL, "T_OTHER", CONFIG_SECRET, AT(other_secret), .help = "hidden too"},
	{"path", "T_PATH", CONFIG_PATH, AT(path), .help = "a path"},
	{"listen", "T_LISTEN", CONFIG_ADDRESS, AT(address), .def = "127.0.0.1:80",
		.help = "an address"},
	{"url", "T_URL", CONFIG_URL, AT(url), .env_alias = "OLD_URL", .help = "a | pipe"},
	{"flag-only", NULL, CONFIG_STRING, AT(flag_only), .def = "f", .help = "no variable"},
	{"yes", "T_YES", CONFIG_BOOL, AT(yes), .def = "true", .section = "Numbers", .help = "on"},
	{"enable-no", "T_NO", CONFIG_BOOL, AT(no), .help = "off"},
	{"port", "T_PORT", CONFIG_INT, AT(port), .def = "8080", .min = 1, .max = 65535,
		.help = "a port"},
	{0}};
static const struct config_row more_rows[] = {
	{"any", "T_ANY", CONFIG_INT, AT(any), .def = "-1", .help = "any number"},
	{"at-least", "T_ATLEAST", CONFIG_INT, AT(atleast), .def = "5", .min = 5, .max = 0,
		.help = "five or more"},
	{"bytes", "T_BYTES", CONFIG_BYTES, AT(bytes), .def = "512MB", .min = 1024, .max = 1LL << 40,
		.help = "a size"},
	{"time", "T_TIME", CONFIG_MS, AT(time), .def = "10", .max = 3600000, .help = "a time",
		.reloadable = true},
	{"time-ms", "T_TIME_MS", CONFIG_MS, AT(time_ms), .def = "1500", .unit = "ms",
		.help = "in ms"},
	{"no-default", "T_NO_DEFAULT", CONFIG_INT, AT(no_default), .min = 1, .max = 5,
		.help = "none"},
	{"ratio", "T_RATIO", CONFIG_DOUBLE, AT(ratio), .def = "0.5", .min = 0, .max = 1,
		.help = "a part"},
	{"choice", "T_CHOICE", CONFIG_CHOICE, AT(choice), .choices = "one|two|three", .def = "two",
		.help = "pick"},
	{"level", "T_LEVEL", CONFIG_CHOICE, AT(level), .choices = "info|warn=warning=w|error",
		.help = "pick"},
	{0}};
static const struct config_row *const tables[] = {rows, more_rows, NULL};

static struct conf conf;
static struct config_error error;
static char unknown_names[256];

static void saw_unknown(const char *variable, void *arg)
{
	assert_string_equal(arg, "arg");
	strncat(unknown_names, variable, 100);
	strncat(unknown_names, " ", 2);
}

/* args and environ_text: words parted by '\n'. */
static int load_into(struct conf *to, const char *args, const char *environ_text)
{
	static char arg_text[70000], env_text[70000];
	static char prog[] = "prog", none[] = "";
	char *argv[64] = {prog}, *env[64];
	int argc = 1, n_env = 0;
	snprintf(arg_text, sizeof arg_text, "%s", args);
	snprintf(env_text, sizeof env_text, "%s", environ_text);
	for (char *word = strtok(arg_text, "\n"); word; word = strtok(NULL, "\n"))
		argv[argc++] = strcmp(word, "<empty>") == 0 ? none : word;
	argv[argc] = NULL;
	for (char *word = strtok(env_text, "\n"); word; word = strtok(NULL, "\n"))
		env[n_env++] = word;
	env[n_env] = NULL;
	unknown_names[0] = '\0';
	return config_load(tables, to, argc, argv, env, "T_", saw_unknown, (void *)"arg", &error);
}

static int load(const char *args, const char *environ_text)
{
	config_free(tables, &conf);
	memset(&conf, 0xa5, sizeof conf); /* the call zeroes what it describes */
	int rc = load_into(&conf, args, environ_text);
	if (rc < 0)
		memset(&conf, 0, sizeof conf);
	return rc;
}

static int unload(void **state)
{
	(void)state;
	config_free(tables, &conf);
	memset(&conf, 0, sizeof conf);
	return 0;
}

static void defaults(void **state)
{
	(void)state;
	assert_int_equal(load("", ""), 0);
	assert_string_equal(conf.text, "hello");
	assert_string_equal(conf.secret, "");
	assert_string_equal(conf.path, "");
	assert_string_equal(conf.url, "");
	assert_string_equal(conf.address, "127.0.0.1:80");
	assert_true(conf.yes);
	assert_false(conf.no);
	assert_int_equal(conf.port, 8080);
	assert_int_equal(conf.any, -1);
	assert_int_equal(conf.bytes, 512 << 20);
	assert_int_equal(conf.time, 10000);
	assert_int_equal(conf.time_ms, 1500);
	assert_int_equal(conf.no_default, 0);
	assert_true(conf.ratio == 0.5);
	assert_int_equal(conf.choice, 1);
	assert_int_equal(conf.level, 0);
}

static void flag_beats_environment_beats_default(void **state)
{
	(void)state;
	assert_int_equal(load("--port\n1\n--port=2\n--text=\n--no-yes\n--enable-no",
				 "T_PORT=bad\nT_TEXT=env\nT_TIME=7m\nT_YES=on\nT_RATIO="),
		0);
	assert_int_equal(conf.port, 2); /* the last flag; the bad variable is not looked at */
	assert_string_equal(conf.text, "");
	assert_int_equal(conf.time, 420000);
	assert_false(conf.yes);
	assert_true(conf.no);
	assert_true(conf.ratio == 0.5); /* an empty variable is not set */
}

static void aliases(void **state)
{
	(void)state;
	assert_int_equal(load("", "OLD_URL=http://old/\nOLD_SECRET=s3"), 0);
	assert_string_equal(conf.url, "http://old");
	assert_string_equal(conf.secret, "s3");
	assert_int_equal(load("", "OLD_URL=http://old\nT_URL=http://new"), 0);
	assert_string_equal(conf.url, "http://new");
}

struct value_case {
	const char *flag, *value;
	double expected;
	bool good;
};

static double numeric_field(const char *flag)
{
	return strcmp(flag, "port") == 0       ? (double)conf.port
	       : strcmp(flag, "any") == 0      ? (double)conf.any
	       : strcmp(flag, "at-least") == 0 ? (double)conf.atleast
	       : strcmp(flag, "bytes") == 0    ? (double)conf.bytes
	       : strcmp(flag, "time") == 0     ? (double)conf.time
	       : strcmp(flag, "time-ms") == 0  ? (double)conf.time_ms
	       : strcmp(flag, "ratio") == 0    ? conf.ratio
	       : strcmp(flag, "choice") == 0   ? conf.choice
	       : strcmp(flag, "level") == 0    ? conf.level
	       : strcmp(flag, "yes") == 0      ? conf.yes
					       : -12345;
}

static void every_type_takes_its_values_only(void **state)
{
	(void)state;
	static const struct value_case cases[] = {{"port", "1", 1, 1}, {"port", "65535", 65535, 1},
		{"port", "+7", 7, 1}, {"port", "0", 0, 0}, {"port", "65536", 0, 0},
		{"port", "-1", 0, 0}, {"port", "8080x", 0, 0}, {"port", " 80", 0, 0},
		{"port", "80 ", 0, 0}, {"port", "0x50", 0, 0}, {"port", "8.5", 0, 0},
		{"port", "1e3", 0, 0}, {"port", "<empty>", 0, 0},
		{"any", "-9223372036854775808", -9223372036854775808.0, 1},
		{"any", "9223372036854775808", 0, 0}, {"any", "--", 0, 0}, {"any", "+", 0, 0},
		{"at-least", "5", 5, 1}, {"at-least", "1000000", 1000000, 1},
		{"at-least", "4", 0, 0}, {"bytes", "1024", 1024, 1}, {"bytes", "1KB", 1024, 1},
		{"bytes", "2k", 2048, 1}, {"bytes", "1.5MB", 1572864, 1},
		{"bytes", "1 GiB", 1073741824, 1}, {"bytes", "1tb", 0x1p40, 1},
		{"bytes", "4096B", 4096, 1}, {"bytes", "1023", 0, 0}, {"bytes", "2TB", 0, 0},
		{"bytes", "-1KB", 0, 0}, {"bytes", "1XB", 0, 0}, {"bytes", "KB", 0, 0},
		{"bytes", "1e5", 0, 0}, {"bytes", "1.2.3K", 0, 0}, {"bytes", ".", 0, 0},
		{"bytes", "99999999999999999999", 0, 0}, {"time", "0", 0, 1},
		{"time", "5", 5000, 1}, {"time", "250ms", 250, 1}, {"time", "0.25", 250, 1},
		{"time", "1.5s", 1500, 1}, {"time", "2m", 120000, 1}, {"time", "1h", 3600000, 1},
		{"time", "61m", 0, 0}, {"time", "1d", 0, 0}, {"time", "-1", 0, 0},
		{"time", "5 parsecs", 0, 0}, {"time", "inf", 0, 0}, {"time-ms", "30", 30, 1},
		{"time-ms", "30s", 30000, 1}, {"ratio", "0", 0, 1}, {"ratio", "1e-3", 0.001, 1},
		{"ratio", "1.0001", 0, 0}, {"ratio", "nan", 0, 0}, {"ratio", "inf", 0, 0},
		{"ratio", "0x1p-1", 0, 0}, {"ratio", "", 0, 0}, {"ratio", ".5", 0.5, 1},
		{"ratio", "0.5.", 0, 0}, {"choice", "one", 0, 1}, {"choice", "THREE", 2, 1},
		{"choice", "thre", 0, 0}, {"choice", "threee", 0, 0}, {"choice", "one|two", 0, 0},
		{"level", "WARNING", 1, 1}, {"level", "w", 1, 1}, {"level", "error", 2, 1},
		{"level", "warn=warning", 0, 0}, {"yes", "OFF", 0, 1}, {"yes", "1", 1, 1},
		{"yes", "True", 1, 1}, {"yes", "2", 0, 0}, {"yes", "y", 0, 0}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct value_case *c = &cases[i];
		char arg[100];
		snprintf(arg, sizeof arg, "--%s=%s", c->flag, c->value);
		int rc = load(arg, "");
		if (rc != (c->good ? 0 : -1))
			fail_msg("%s: %d %s", arg, rc, error.text);
		if (c->good && numeric_field(c->flag) != c->expected)
			fail_msg("%s: %f", arg, numeric_field(c->flag));
		if (!c->good) {
			assert_int_equal(error.exit_code, EX_USAGE);
			assert_non_null(strstr(error.text, c->flag));
		}
	}
}

static void addresses_and_urls(void **state)
{
	(void)state;
	static const struct {
		const char *flag, *value;
		bool good;
	} cases[] = {{"listen", "127.0.0.1:0", 1}, {"listen", "[::1]:65535", 1},
		{"listen", ":8080", 1}, {"listen", "redis-0.redis.svc:6379", 1},
		{"listen", "var/run/x.sock", 1}, {"listen", "./x", 1}, {"listen", "", 1},
		{"listen", "8080", 0}, {"listen", "host", 0}, {"listen", "host:", 0},
		{"listen", "host:65536", 0}, {"listen", "host:123456", 0}, {"listen", "a b:80", 0},
		{"listen", "::1:80", 0}, {"listen", "[::1]", 0}, {"listen", "[::1]80", 0},
		{"listen", "[]:80", 0}, {"listen", "[::1]:", 0}, {"listen", "[x]:80", 0},
		{"listen", "host:-1", 0},
		{"listen",
			"/23456789012345678901234567890123456789012345678901234567890123456789012345678"
			"9012345678901234567890123456",
			1},
		{"listen",
			"/23456789012345678901234567890123456789012345678901234567890123456789012345678"
			"90123456789012345678901234567",
			1},
		{"listen",
			"/23456789012345678901234567890123456789012345678901234567890123456789012345678"
			"901234567890123456789012345678",
			0},
		{"url", "http://h", 1}, {"url", "HTTPS://h:1/v1", 1}, {"url", "http://u:p@h/", 1},
		{"url", "ftp://h", 0}, {"url", "http:/h", 0}, {"url", "http://", 0},
		{"url", "http:///x", 0}, {"url", "http://a b", 0}, {"url", "http://h/#x", 0},
		{"url", "h", 0}, {"url", "", 1}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char arg[300];
		snprintf(arg, sizeof arg, "--%s=%s", cases[i].flag, cases[i].value);
		if (load(arg, "") != (cases[i].good ? 0 : -1))
			fail_msg("%s", arg);
	}
	assert_int_equal(load("--url=http://h/v1///", ""), 0);
	assert_string_equal(conf.url, "http://h/v1");
}

static void errors_name_what_was_wrong(void **state)
{
	(void)state;
	static const struct {
		const char *args, *environ_text;
		int exit_code;
		const char *text;
	} cases[] = {
		{"--port=99999", "", EX_USAGE,
			"--port: \"99999\" is not a whole number from 1 to 65535"},
		{"", "T_PORT=x", EX_CONFIG,
			"environment variable T_PORT: \"x\" is not a whole number from 1 to 65535"},
		{"--at-least\n4", "", EX_USAGE,
			"--at-least: \"4\" is not a whole number of at least 5"},
		{"", "T_CHOICE=four", EX_CONFIG,
			"environment variable T_CHOICE: \"four\" is not one of one, two, three"},
		{"", "T_LEVEL=x", EX_CONFIG,
			"environment variable T_LEVEL: \"x\" is not one of info, warn, error"},
		{"--bytes=1", "", EX_USAGE,
			"--bytes: \"1\" is not a size from 1KB to 1TB, such as 512MB or 1GiB"},
		{"--time=2h", "", EX_USAGE,
			"--time: \"2h\" is not a time from 0 to 1h, such as 250ms, 5s or 2m"},
		{"--ratio=2", "", EX_USAGE, "--ratio: \"2\" is not a number from 0 to 1"},
		{"--prot=1", "", EX_USAGE, "unknown option --prot; did you mean --port?"},
		{"--enabl-no", "", EX_USAGE,
			"unknown option --enabl-no; did you mean --enable-no?"},
		{"--hlep", "", EX_USAGE, "unknown option --hlep; did you mean --help?"},
		{"-port", "", EX_USAGE, "unknown option -port; did you mean --port?"},
		{"---port=1", "", EX_USAGE, "unknown option ---port; did you mean --port?"},
		{"--something-else=1", "", EX_USAGE,
			"unknown option --something-else; --help lists all"},
		{"--t-secret=x", "", EX_USAGE, "unknown option --t-secret; --help lists all"},
		{"--", "", EX_USAGE, "unknown option --; --help lists all"},
		{"-", "", EX_USAGE, "unknown option -; --help lists all"},
		{"stray", "", EX_USAGE, "unexpected argument \"stray\"; options begin with --"},
		{"--yes\nfalse", "", EX_USAGE,
			"--yes takes no value of its own: --yes=false, or the bare flag for "
			"true"},
		{"<empty>", "", EX_USAGE, "unexpected argument \"\"; options begin with --"},
		{"--port", "", EX_USAGE, "--port needs a value: --port N"},
		{"--port\n--yes", "", EX_USAGE, "--port needs a value: --port N"},
		{"--choice", "", EX_USAGE, "--choice needs a value: --choice one|two|three"},
		{"--no-yes=1", "", EX_USAGE, "--no-yes takes no value, but \"1\" was given"},
		{"--no-port", "", EX_USAGE,
			"--no-port: only options that are on or off can be negated"},
		{"", "T_SECRET=a\nT_SECRET_FILE=/b", EX_CONFIG,
			"T_SECRET and T_SECRET_FILE are both set: leave one"},
		{"", "T_SECRET_FILE=/nowhere/at/all", EX_CONFIG,
			"environment variable T_SECRET_FILE: cannot read \"/nowhere/at/all\": No such file or "
			"directory"},
		{"", "T_SECRET_FILE=/tmp", EX_CONFIG,
			"environment variable T_SECRET_FILE: \"/tmp\" is not a regular file"},
		{"--port=\033[31m", "", EX_USAGE,
			"--port: \"?[31m\" is not a whole number from 1 to 65535"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(load(cases[i].args, cases[i].environ_text), -1);
		assert_string_equal(error.text, cases[i].text);
		assert_int_equal(error.exit_code, cases[i].exit_code);
	}
}

static char secret_path[64];

static int load_secret_file(const char *text, size_t len)
{
	char env[100];
	snprintf(secret_path, sizeof secret_path, "/tmp/config-test-XXXXXX");
	int fd = mkstemp(secret_path);
	assert_int_equal(write(fd, text, len), len);
	close(fd);
	snprintf(env, sizeof env, "T_OTHER_FILE=%s", secret_path);
	int rc = load("", env);
	unlink(secret_path);
	return rc;
}

static void secrets_from_files(void **state)
{
	(void)state;
	assert_int_equal(load_secret_file("s3cret\n", 7), 0);
	assert_string_equal(conf.other_secret, "s3cret");
	assert_int_equal(load_secret_file("s3cret\r\n", 8), 0);
	assert_string_equal(conf.other_secret, "s3cret");
	assert_int_equal(load_secret_file("two\nlines\n\n", 11), 0);
	assert_string_equal(conf.other_secret, "two\nlines\n");
	assert_int_equal(load_secret_file("", 0), -1);
	assert_non_null(strstr(error.text, "is empty"));
	assert_int_equal(load_secret_file("\n", 1), -1);
	assert_int_equal(load_secret_file("a\0b", 3), -1);
	assert_non_null(strstr(error.text, "NUL"));
	static char big[(64 << 10) + 1];
	memset(big, 'b', sizeof big);
	assert_int_equal(load_secret_file(big, 64 << 10), 0);
	assert_int_equal(strlen(conf.other_secret), 64 << 10);
	assert_int_equal(load_secret_file(big, sizeof big), -1);
	assert_non_null(strstr(error.text, "longer than 64 KiB"));
	assert_int_equal(error.exit_code, EX_CONFIG);
}

static void unknown_variables_are_reported(void **state)
{
	(void)state;
	assert_int_equal(
		load("", "T_PORT=1\nT_PORTS=2\nT_SECRET_FILE=\nT_PORT_FILE=x\nOTHER=1\nT_=\n"
			 "T_OTHER=x\nMY_T_X=1"),
		0);
	assert_string_equal(unknown_names, "T_PORTS T_PORT_FILE T_ ");
}

static void actions_are_taken_out(void **state)
{
	(void)state;
	char words[] = "prog\0--port=1\0--print-config\0--help\0x\0--version";
	char *argv[7] = {words};
	int argc = 6;
	for (int i = 1; i < argc; i++)
		argv[i] = argv[i - 1] + strlen(argv[i - 1]) + 1;
	assert_int_equal(config_take_action(&argc, argv), CONFIG_SHOW_HELP);
	assert_int_equal(argc, 3);
	assert_string_equal(argv[1], "--port=1");
	assert_string_equal(argv[2], "x");
	assert_null(argv[3]);
	assert_int_equal(config_take_action(&argc, argv), CONFIG_RUN);
	char *nothing[] = {NULL};
	argc = 0;
	assert_int_equal(config_take_action(&argc, nothing), CONFIG_RUN);
}

static void reload_moves_only_what_may_change(void **state)
{
	(void)state;
	struct conf fresh;
	assert_int_equal(load("", "T_SECRET=one\nT_TEXT=a\nT_PORT=1"), 0);
	assert_int_equal(
		load_into(&fresh, "--time=3", "T_SECRET=two\nT_TEXT=a\nT_PORT=2\nT_URL=http://h"),
		0);
	assert_string_equal(config_apply_reloadable(tables, &conf, &fresh), "T_URL, T_PORT");
	config_free(tables, &fresh);
	assert_string_equal(conf.secret, "two");
	assert_int_equal(conf.time, 3000);
	assert_int_equal(conf.port, 1);
	assert_string_equal(conf.url, "");
	assert_int_equal(load_into(&fresh, "--time=3", "T_SECRET=two\nT_TEXT=a\nT_PORT=1"), 0);
	assert_null(config_apply_reloadable(tables, &conf, &fresh));
	config_free(tables, &fresh);
}

static char *printed;
static size_t printed_len;
static FILE *print_open(void)
{
	free(printed);
	printed = NULL;
	return open_memstream(&printed, &printed_len);
}

static void values_print_as_an_environment_file(void **state)
{
	(void)state;
	assert_int_equal(
		load("--text=it's a $word\n--port=9\n--flag-only=q",
			"T_SECRET=s3cret\nT_URL=http://user:pw@host/x\nT_TIME=90\nT_BYTES=1536\n"
			"T_RATIO=0.1\nT_LEVEL=w\nT_PATH=/a@b"),
		0);
	FILE *out = print_open();
	config_print_values(tables, &conf, out);
	fclose(out);
	assert_null(strstr(printed, "s3cret"));
	assert_null(strstr(printed, "pw"));
	static const char *const expected[] = {"# flag\nT_TEXT='it'\\''s a $word'\n",
		"# environment\n# T_SECRET=(set)\n", "# default\n# T_OTHER=(not set)\n",
		"# environment\nT_PATH=/a@b\n", "T_URL=http://host/x\n",
		"# flag\n# --flag-only q\n", "# default\nT_YES=true\n", "# flag\nT_PORT=9\n",
		"# default\nT_ANY=-1\n", "# environment\nT_BYTES=1536\n",
		"# environment\nT_TIME=90s\n", "T_TIME_MS=1500ms\n", "T_RATIO=0.1\n",
		"T_CHOICE=two\n", "T_LEVEL=warn\n"};
	for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
		if (!strstr(printed, expected[i]))
			fail_msg("no %s in %s", expected[i], printed);
	/* What was printed means the same when it is read. The shell quoting is not ours to undo.
	 */
	char *env = strdup(printed), *quoted = strstr(env, "T_TEXT=");
	quoted[0] = 'X';
	*strstr(env, "T_NO_DEFAULT") = 'X'; /* 0 stands for "none", which cannot be said */
	struct conf before = conf, again;
	assert_int_equal(load_into(&again, "", env), 0);
	assert_int_equal(again.port, before.port);
	assert_int_equal(again.bytes, before.bytes);
	assert_int_equal(again.time, before.time);
	assert_int_equal(again.time_ms, before.time_ms);
	assert_int_equal(again.level, before.level);
	assert_true(again.ratio == before.ratio);
	config_free(tables, &again);
	free(env);
}

static void help_and_markdown(void **state)
{
	(void)state;
	FILE *out = print_open();
	config_print_help(tables, out, false);
	fclose(out);
	static const char *const help[] = {"\nWords\n", "\nNumbers\n",
		"  --port N                        a port\n"
		"                                  T_PORT, default 8080\n",
		"  T_SECRET                        hidden\n"
		"                                  or T_SECRET_FILE, also OLD_SECRET, read again on SIGHUP\n",
		"  --enable-no                     off\n",
		"  --choice one|two|three          pick\n", "plain numbers are milliseconds",
		"  --check-config ", "  --version "};
	for (size_t i = 0; i < sizeof help / sizeof help[0]; i++)
		if (!strstr(printed, help[i]))
			fail_msg("no %s in %s", help[i], printed);
	for (char *line = strtok(printed, "\n"); line; line = strtok(NULL, "\n"))
		assert_true(strlen(line) <= 100);
	out = print_open();
	config_print_help(tables, out, true);
	fclose(out);
	assert_non_null(strstr(printed, "\033[1m--port N\033[0m"));
	out = print_open();
	config_print_markdown(tables, out);
	fclose(out);
	static const char *const markdown[] = {"### Words\n\n| flag |",
		"| `--url URL` | `T_URL`, `OLD_URL` |  | a \\| pipe |\n",
		"|  | `T_OTHER`, `T_OTHER_FILE` |  | hidden too |\n",
		"| `--choice one\\|two\\|three` | `T_CHOICE` | `two` | pick |\n",
		"| `--time TIME` | `T_TIME` | `10` | a time; read again on SIGHUP |\n",
		"| `--flag-only TEXT` |  | `f` | no variable |\n"};
	for (size_t i = 0; i < sizeof markdown / sizeof markdown[0]; i++)
		if (!strstr(printed, markdown[i]))
			fail_msg("no %s in %s", markdown[i], printed);
	free(printed);
	printed = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(flag_beats_environment_beats_default),
		cmocka_unit_test(aliases),
		cmocka_unit_test(every_type_takes_its_values_only),
		cmocka_unit_test(addresses_and_urls),
		cmocka_unit_test(errors_name_what_was_wrong),
		cmocka_unit_test(secrets_from_files),
		cmocka_unit_test(unknown_variables_are_reported),
		cmocka_unit_test(actions_are_taken_out),
		cmocka_unit_test(reload_moves_only_what_may_change),
		cmocka_unit_test(values_print_as_an_environment_file),
		cmocka_unit_test(help_and_markdown),
	};
	/* load() frees what the one before it left. */
	memset(&conf, 0, sizeof conf);
	return cmocka_run_group_tests(tests, NULL, unload);
}
