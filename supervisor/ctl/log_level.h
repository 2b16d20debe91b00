#ifndef SUPERVISOR_CTL_LOG_LEVEL_H
#define SUPERVISOR_CTL_LOG_LEVEL_H

/* `podctl log-level`: asks daemons of the pod, each over its own socket beside the supervisor's. */
#include "supervisor/ctl/options.h"
#include "supervisor/ctl/session.h"

/* names[0] is the level, the others are labels or programs. Prints what each had. */
enum ctl_exit log_level_run(
	const struct ctl_options *options, struct session *session, char **names, int n_names);

#endif
