#ifndef SUPERVISOR_CTL_OPTIONS_H
#define SUPERVISOR_CTL_OPTIONS_H

/* podctl's command line: every option in one table, and which of them a command takes. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/purge_command.h"

enum ctl_option {
	CTL_OPTION_SOCKET = 1 << 0,
	CTL_OPTION_JSON = 1 << 1,
	CTL_OPTION_TIMEOUT = 1 << 2,
	CTL_OPTION_WAIT = 1 << 3,
	CTL_OPTION_NO_WAIT = 1 << 4,
	CTL_OPTION_FOLLOW = 1 << 5,
	CTL_OPTION_STDERR = 1 << 6,
	CTL_OPTION_BYTES = 1 << 7,
	CTL_OPTION_ONCE = 1 << 8,
	CTL_OPTION_INTERVAL = 1 << 9,
	CTL_OPTION_PURGE = 1 << 10, /* those of purge_command_help */
};

struct ctl_options {
	unsigned given;              /* enum ctl_option, together */
	bool help, version;          /* asked for instead of a command, or with one */
	const char *socket;          /* NULL: where it always is */
	uint64_t timeout_ms;         /* of --timeout or --wait=; 0: the command's own */
	uint64_t bytes;              /* 0: not said */
	uint64_t interval_ms;        /* 0: not said */
	bool color;                  /* stdout is a terminal that may have colours */
	struct purge_command *purge; /* what its options said; owned */
};

/*
 * Take the options from the command line, wherever they stand; the index of the first word that is
 * none is left in optind (getopt(3)). What cannot be understood ends the program with CTL_USAGE and
 * a line on stderr. ctl_options_free() afterwards.
 */
void ctl_options_parse(struct ctl_options *options, int argc, char **argv);
void ctl_options_free(struct ctl_options *options);

static inline bool ctl_options_has(const struct ctl_options *options, enum ctl_option option)
{
	return (options->given & (unsigned)option) != 0;
}

/* The first option given that is not among these, as it is typed; NULL: there is none. */
const char *ctl_options_find_other(const struct ctl_options *options, unsigned accepted);
/* Lines of --help for these. */
void ctl_options_print(FILE *out, unsigned which);

#endif
