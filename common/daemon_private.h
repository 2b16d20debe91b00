#ifndef COMMON_DAEMON_PRIVATE_H
#define COMMON_DAEMON_PRIVATE_H

/* What the files of the daemon module share: daemon.c (life), daemon_options.c (settings),
 * daemon_rpc.c (standard methods). */
#include "common/config.h"
#include "common/daemon.h"

/* ---- settings ---- */

#define DAEMON_COMMON_ROWS 8

struct daemon_options {
	const struct daemon_spec *spec;
	int argc;
	char **argv; /* without the actions; owned, for a reload */
	struct config_row common[DAEMON_COMMON_ROWS + 1];
	char rpc_socket_env[64];
	const struct config_row *tables[3];
};

/* Fill conf, or print what was asked for, or complain: then it exits. Opens the log. */
void daemon_options_load(struct daemon_options *options, const struct daemon_spec *spec,
	struct daemon_conf *conf, int argc, char **argv, char *name, size_t name_size);
/* Read again what may change. on_changed is called while the old strings are still valid. */
void daemon_options_reload(struct daemon_options *options, struct daemon_conf *conf,
	void (*on_changed)(void *arg), void *arg);
void daemon_options_free(struct daemon_options *options, struct daemon_conf *conf);

/* ---- standard methods ---- */

/* Ends with a NULL name; arg is the daemon. Freed with free(). NULL when out of memory. */
struct rpc_method *daemon_rpc_methods(struct daemon *daemon);

#endif
