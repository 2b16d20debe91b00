#ifndef SUPERVISOR_CONTROL_H
#define SUPERVISOR_CONTROL_H

/*
 * What podctl asks for: status, start, stop, restart, reload, signal, tail and shutdown, over the
 * supervisor's RPC socket (docs/INTERFACES.md).
 */
#include "supervisor/config/pod_config.h"

struct control;
struct pod;
struct rpc_server;

struct control_events {
	/* Read the configuration again: 0, or -1 with every mistake reported. */
	int (*load)(struct pod_config *config, struct report *report, void *arg);
	/* Asked for, and answered. */
	void (*shutdown)(void *arg);
};

/* Serve on server. NULL when out of memory. The server must be freed first. */
struct control *control_new(
	struct rpc_server *server, struct pod *pod, const struct control_events *events, void *arg);
/* A process has changed: answer who waited for that. */
void control_pod_changed(struct control *control);
void control_free(struct control **control);

#endif
