#ifndef SUPERVISOR_CTL_LOGS_H
#define SUPERVISOR_CTL_LOGS_H

/* What programs printed, on stdout: `podctl tail` and `podctl logs`. */
#include "supervisor/ctl/session.h"

struct logs_options {
	bool follow; /* and what they print from now on, until Ctrl-C */
	bool prefix; /* each line with its program's name */
	bool color;
	const char *stream; /* stdout, stderr or all */
	uint64_t bytes;     /* of each; 0: as many as the supervisor thinks fit */
};

enum ctl_exit logs_show(struct session *session, const struct logs_options *options,
	char *const *names, size_t n_names);

#endif
