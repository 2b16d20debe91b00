#ifndef SUPERVISOR_CTL_PURGE_H
#define SUPERVISOR_CTL_PURGE_H

/* `podctl purge`: asks broadcasterd over its socket, shows what each target said. */
#include "common/purge_command.h"
#include "supervisor/ctl/session.h"

struct purge_options {
	const char *socket; /* NULL: run_dir's */
	const char *run_dir;
	uint64_t timeout_ms; /* 0: none */
	bool json, color;
};

/* command was completed; its token is read here. Every target purged: CTL_OK. */
enum ctl_exit purge_run(struct purge_command *command, const struct purge_options *options);

#endif
