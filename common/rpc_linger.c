#include "common/rpc_server_private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

struct rpc_linger *rpc_linger_new(
	struct rpc_server *server, const struct rpc_asker_events *events, void *arg)
{
	struct rpc_linger *linger = malloc(sizeof *linger);
	if (!linger)
		return NULL;
	*linger = (struct rpc_linger){.server = server, .fd = -1, .events = events, .arg = arg};
	/* Made for real when there is a descriptor; the memory is had now. */
	linger->event = event_new(loop_base(server->loop), -1, 0, NULL, NULL);
	if (!linger->event) {
		free(linger);
		return NULL;
	}
	return linger;
}

void rpc_linger_end(struct rpc_linger *linger)
{
	const struct rpc_asker_events *events = linger->events;
	void *arg = linger->arg;
	event_free(linger->event);
	if (linger->fd >= 0) {
		close(linger->fd);
		LIST_REMOVE(linger, link);
		linger->server->n_lingering--;
		rpc_server_check_drained(linger->server);
	}
	free(linger);
	if (events->on_gone)
		events->on_gone(arg);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	static char unread[64 << 10];
	ssize_t n = recv(fd, unread, sizeof unread, 0);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
		rpc_linger_end(arg);
}

void rpc_linger_begin(struct rpc_linger *linger, int fd, bool gone)
{
	struct rpc_server *server = linger->server;
	if (gone || !server) {
		close(fd);
		rpc_linger_end(linger);
		return;
	}
	shutdown(fd, SHUT_WR);
	linger->fd = fd;
	LIST_INSERT_HEAD(&server->lingering, linger, link);
	server->n_lingering++;
	event_assign(linger->event, loop_base(server->loop), fd, EV_READ | EV_PERSIST, on_readable,
		linger);
	event_add(linger->event, NULL);
}
