#ifndef SUPERVISOR_CONF_H
#define SUPERVISOR_CONF_H

/* The supervisor's own settings. What it starts is in the file that `config` names. */
#include "common/daemon.h"

struct supervisor_conf {
	struct daemon_conf common;
	char *config;
};

extern const struct config_row supervisor_rows[];

#endif
