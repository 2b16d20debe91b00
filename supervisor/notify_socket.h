#ifndef SUPERVISOR_NOTIFY_SOCKET_H
#define SUPERVISOR_NOTIFY_SOCKET_H

/*
 * The socket of sd_notify(3): processes send READY=1 to NOTIFY_SOCKET. The kernel says who sent it,
 * so nobody can speak for another process.
 */
#include <sys/types.h>

struct loop;
struct notify_socket;

/*
 * Bind a datagram socket at path (a stale one is replaced). on_ready names the sender, which may be
 * any process of the machine. NULL with errno.
 */
struct notify_socket *notify_socket_new(
	struct loop *loop, const char *path, void (*on_ready)(pid_t sender, void *arg), void *arg);
const char *notify_socket_path(const struct notify_socket *notify);
/* Unlinks the path. */
void notify_socket_free(struct notify_socket **notify);

#endif
