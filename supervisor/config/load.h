#ifndef SUPERVISOR_CONFIG_LOAD_H
#define SUPERVISOR_CONFIG_LOAD_H

/* A pod's configuration from its file and the files that it includes. */
#include "supervisor/config/pod_config.h"

/*
 * Read path, then what its [include] files= names (patterns, relative to the file's directory; an
 * included file includes nothing more). 0, or -1 when there was an error (all of them are
 * reported); then *pod is empty.
 */
int load_pod_config(struct pod_config *pod, const char *path, pod_config_env *env, void *arg,
	struct report *report);

#endif
