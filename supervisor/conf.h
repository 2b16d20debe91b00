#ifndef SUPERVISOR_CONF_H
#define SUPERVISOR_CONF_H

/* The supervisor's own settings. What it starts is in the file that `config` names. */
#include "common/daemon.h"

struct supervisor_conf {
	struct daemon_conf common;
	char *config;
	int64_t shutdown_timeout_ms; /* 0: none */
};

extern const struct config_row supervisor_rows[];

#endif
