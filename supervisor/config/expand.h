#ifndef SUPERVISOR_CONFIG_EXPAND_H
#define SUPERVISOR_CONFIG_EXPAND_H

/*
 * The expansions of supervisord, which are Python's `%` formats over names: %(program_name)s,
 * %(process_num)02d, %(ENV_HOME)s, %%. One thing more: %(ENV_PORT:-8080)s is 8080 when PORT is
 * unset or empty, as in a shell. A name that is not known is an error. Pure.
 */
#include <stddef.h>

#include "common/buf.h"

struct expand_name {
	const char *name;
	const char *text; /* NULL: a number */
	long number;
};

struct expand_names {
	const struct expand_name *names; /* ends with a NULL name */
	/* The environment behind ENV_*; NULL when unset. */
	const char *(*env)(const char *variable, void *arg);
	void *arg;
};

/*
 * Append text, expanded, to *out. -1 with a sentence in error (and *out as far as it got) for a
 * format or a name that is not known, or when *out is full.
 */
int expand(const char *text, const struct expand_names *names, struct buf *out, char *error,
	size_t error_size);

#endif
