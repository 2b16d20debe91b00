#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

/*
 * Settings: one row an option. The row drives the flag, the environment variable, the error text,
 * --help,
 * --print-config, --check-config and docs/OPTIONS.md. A flag beats the environment beats the
 * default. Secrets have no flag: they come from the environment or, as NAME_FILE, from a file, and
 * print as "(set)".
 *
 *   static const struct config_row rows[] = {
 *           { "listen", "GATEWAYD_LISTEN", CONFIG_ADDRESS, offsetof(struct gatewayd_conf, listen),
 *             .def = "127.0.0.1:8100", .help = "HTTP listen address" },
 *           { 0 } };
 *
 * The conf struct holds what the type says; strings are owned by it until config_free().
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum config_type {
	CONFIG_STRING,  /* char *; "" unless set */
	CONFIG_SECRET,  /* char *; environment or *_FILE only */
	CONFIG_PATH,    /* char * */
	CONFIG_ADDRESS, /* char *: host:port, [v6]:port or a socket path with a slash; checked */
	CONFIG_URL,     /* char *: http:// or https://, no trailing slash kept */
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
	double min, max; /* both 0: the type's own */
	const char *choices;
	const char *unit; /* for CONFIG_MS: what a plain number means, "s" (default) or "ms"; else
			     shown in the docs */
	const char *env_alias;
	const char *section; /* starts a heading in --help and the docs */
	const char *help;    /* one line */
	bool reloadable;     /* read again on SIGHUP */
};

/* Where a value came from, for --print-config. */
enum config_source { CONFIG_FROM_DEFAULT, CONFIG_FROM_ENV, CONFIG_FROM_FILE, CONFIG_FROM_FLAG };

struct config_error {
	char text[512]; /* one line that names the flag or variable, the value and what is allowed
			 */
	int exit_code;  /* EX_USAGE 64 for flags, EX_CONFIG 78 for the environment and files */
};

/*
 * Fill *conf (zeroed by this call) from argv, environ and defaults. Several tables may share one
 * struct: tables ends with NULL. env_prefix ("GATEWAYD_"): unknown variables that begin with it are
 * reported through unknown (may be NULL). 0, or -1 with *error.
 */
int config_load(const struct config_row *const *tables, void *conf, int argc, char *const *argv,
	char *const *environ, const char *env_prefix,
	void (*unknown)(const char *variable, void *arg), void *arg, struct config_error *error);
void config_free(const struct config_row *const *tables, void *conf);
/* After a reload: copy the reloadable values from *fresh, return the names of others that changed
 * (for one warning), or NULL. */
const char *config_apply_reloadable(
	const struct config_row *const *tables, void *conf, void *fresh);

void config_print_help(const struct config_row *const *tables, FILE *out, bool color);
void config_print_values(const struct config_row *const *tables, const void *conf, FILE *out);
/* A Markdown table for docs/OPTIONS.md. */
void config_print_markdown(const struct config_row *const *tables, FILE *out);

#endif
