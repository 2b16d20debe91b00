#include "common/http_server_private.h"

#include <sys/epoll.h>
#include <unistd.h>

/* An epoll of our own: libevent tells of a broken connection only as "readable", and who does not
 * read would be told so in every turn. */

#define MAX_EVENTS 64

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	(void)arg;
	struct epoll_event events[MAX_EVENTS];
	int n = epoll_wait(fd, events, MAX_EVENTS, 0);
	/* Connections that end meanwhile are freed in a later turn. */
	for (int i = 0; i < n; i++)
		http_connection_hung_up(
			events[i].data.ptr, (events[i].events & (EPOLLERR | EPOLLHUP)) != 0);
}

int http_hangup_open(struct http_server *server)
{
	server->hangup_fd = epoll_create1(EPOLL_CLOEXEC);
	if (server->hangup_fd < 0)
		return -1;
	event_assign(&server->hangup, loop_base(server->loop), server->hangup_fd,
		EV_READ | EV_PERSIST, on_event, server);
	return event_add(&server->hangup, NULL);
}

void http_hangup_close(struct http_server *server)
{
	if (server->hangup_fd < 0)
		return;
	event_del(&server->hangup);
	close(server->hangup_fd);
	server->hangup_fd = -1;
}

int http_hangup_watch(struct http_connection *c, enum http_hangup kind)
{
	if (kind == c->hangup)
		return 0;
	int op = kind == HTTP_HANGUP_NONE        ? EPOLL_CTL_DEL
		 : c->hangup == HTTP_HANGUP_NONE ? EPOLL_CTL_ADD
						 : EPOLL_CTL_MOD;
	/* Errors and the end of both sides are told of unasked. */
	struct epoll_event event = {
		.events = kind == HTTP_HANGUP_ANY ? EPOLLRDHUP : 0, .data.ptr = c};
	c->hangup = kind;
	return epoll_ctl(c->server->hangup_fd, op, c->fd, &event);
}
