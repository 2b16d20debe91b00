#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

/*
 * Settings: one row an option. The row drives the flag, the environment variable, the error text,
 * --help, --print-config, --check-config and docs/OPTIONS.md. A flag beats the environment beats
 * the default; the last of several equal flags counts, and an empty variable counts as not set.
 * Secrets have no flag: they come from the environment or, as NAME_FILE, from a regular file of at
 * most 64 KiB without its last newline, and print as "(set)".
 *
 * Flags are --name value or --name=value; --name and --no-name for booleans. Other arguments are
 * errors.
 *
 *   static const struct config_row rows[] = {
 *           { "listen", "GATEWAYD_LISTEN", CONFIG_ADDRESS, offsetof(struct gatewayd_conf, listen),
 *             .def = "127.0.0.1:8100", .help = "HTTP listen address" },
 *           { 0 } };
 *
 * The conf struct holds what the type says; strings are owned by it until config_free(). Loop
 * thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum config_type {
	CONFIG_STRING,  /* char *; "" unless set */
	CONFIG_SECRET,  /* char *; environment or *_FILE only */
	CONFIG_PATH,    /* char * */
	CONFIG_ADDRESS, /* char *: host:port, :port, [v6]:port or a socket path with a slash;
			   checked; "" for none */
	CONFIG_URL,     /* char *: http:// or https://, no trailing slash kept; "" for none */
	CONFIG_BOOL,    /* bool: true/false, yes/no, on/off, 1/0; the bare flag means true */
	CONFIG_INT,     /* int64_t, between min and max */
	CONFIG_DOUBLE,  /* double */
	CONFIG_BYTES,   /* int64_t; 512MB, 1GiB (both 1024-based), plain number of bytes */
	CONFIG_MS, /* int64_t milliseconds; 250ms, 5s, 2m, 1h; a plain number is in the row's unit,
		      seconds by default */
	CONFIG_CHOICE, /* int: index into choices ("a|b|c") */
};

struct config_row {
	const char *flag; /* without the dashes; NULL: environment only */
	const char *env;  /* NULL: flag only */
	enum config_type type;
	size_t offset;
	const char *def; /* as a user would write it; NULL: empty */
	double min, max; /* of what the struct holds; both 0: the type's own; max < min: no upper
			    bound */
	const char *choices; /* "info|warn=warning|error": synonyms after =, any case */
	const char *unit; /* for CONFIG_MS: what a plain number means, "s" (default) or "ms"; else
			     shown in the docs */
	const char *env_alias;
	const char *section; /* starts a heading in --help and the docs */
	const char *help;    /* one line */
	bool reloadable;     /* read again on SIGHUP */
};

struct config_error {
	char text[512]; /* one line that names the flag or variable, the value and what is allowed
			 */
	int exit_code;  /* EX_USAGE 64 for flags, EX_CONFIG 78 for the environment and files */
};

/*
 * Fill *conf (what rows describe of it is zeroed first) from argv, environment (env, as in
 * environ(7)) and defaults. Several tables may share one struct: tables ends with NULL. env_prefix
 * ("GATEWAYD_"): unknown variables that begin with it are reported through unknown (may be NULL).
 * 0, or -1 with *error and nothing to free.
 */
int config_load(const struct config_row *const *tables, void *conf, int argc, char *const *argv,
	char *const *env, const char *env_prefix, void (*unknown)(const char *variable, void *arg),
	void *arg, struct config_error *error);
void config_free(const struct config_row *const *tables, void *conf);
/* After a reload: move the reloadable values from *fresh (which stays to be freed) to *conf, return
 * the names of others that changed (for one warning; valid until the next call), or NULL. */
const char *config_apply_reloadable(
	const struct config_row *const *tables, void *conf, void *fresh);

/* What every program understands beside its rows. */
enum config_action {
	CONFIG_RUN,
	CONFIG_SHOW_HELP,     /* --help, -h */
	CONFIG_SHOW_VERSION,  /* --version */
	CONFIG_PRINT_VALUES,  /* --print-config */
	CONFIG_CHECK,         /* --check-config */
	CONFIG_PRINT_OPTIONS, /* --print-options */
	CONFIG_PRINT_METRICS, /* --print-metrics */
};
/* Take these flags out of argv, wherever they stand; the first one of the list above wins. */
enum config_action config_take_action(int *argc, char **argv);

void config_print_help(const struct config_row *const *tables, FILE *out, bool color);
/* Lines of NAME=value, usable as an environment file, each under a comment that says where the
 * value came from. Secrets and flags without a variable are comments. conf is one that
 * config_load() filled. */
void config_print_values(const struct config_row *const *tables, const void *conf, FILE *out);
/* A Markdown table for each section, for docs/OPTIONS.md. */
void config_print_markdown(const struct config_row *const *tables, FILE *out);

#endif
