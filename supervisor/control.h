#ifndef SUPERVISOR_CONTROL_H
#define SUPERVISOR_CONTROL_H

/*
 * What podctl asks for: status, start, stop, restart, signal, tail and shutdown, over the
 * supervisor's RPC socket (docs/INTERFACES.md).
 */
struct control;
struct pod;
struct rpc_server;

/*
 * Serve on server. shutdown is called after its request was answered. NULL when out of memory. The
 * server must be freed first.
 */
struct control *control_new(
	struct rpc_server *server, struct pod *pod, void (*shutdown)(void *arg), void *arg);
/* A process has changed: answer who waited for that. */
void control_pod_changed(struct control *control);
void control_free(struct control **control);

#endif
