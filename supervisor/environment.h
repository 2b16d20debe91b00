#ifndef SUPERVISOR_ENVIRONMENT_H
#define SUPERVISOR_ENVIRONMENT_H

/*
 * The environment of a process at one start. What comes first wins: what the supervisor says about
 * the process, environment=, secrets=, environment_file= (the last file first), the supervisor's
 * own environment. Files are read at each start, by the supervisor's user, so that a rotated secret
 * counts from the next restart and the program's own user need not be able to read it.
 */
#include <stddef.h>

#include "supervisor/config/pod_config.h"

#define ENVIRONMENT_FILE_MAX_BYTES (256u << 10)
#define SECRET_MAX_BYTES           (32u << 10)

/* base: what all processes get; notify_path: NULL when there is none. *all begins empty. 0, or -1
 * with a sentence in error; it never contains a value. */
int environment_make(struct strings *all, const struct process_config *config,
	const struct strings *base, const char *notify_path, char *error, size_t error_size);
/* Overwrites the values before it frees them. */
void environment_free(struct strings *all);

#endif
