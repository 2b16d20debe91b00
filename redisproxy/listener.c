#include "redisproxy/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"
#include "redisproxy/client.h"
#include "redisproxy/proxy.h"

#define ACCEPTS_A_TURN 64
#define PAUSE_MS       100 /* when descriptors are out */

struct listener {
	struct proxy *proxy;
	int fd;
	struct event *event;
	struct timer *timer;
	bool is_paused;
};

static void pause_accepting(struct listener *listener)
{
	listener->is_paused = true;
	event_del(listener->event);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	struct listener *listener = arg;
	struct proxy *proxy = listener->proxy;

	(void)what;
	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		if (proxy->n_clients >= (unsigned)proxy->conf->max_clients) {
			pause_accepting(listener);
			return;
		}
		int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (client < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
				errno == ENOMEM) {
				log_warn("no descriptor for one more client (%u are open)",
					proxy->n_clients);
				pause_accepting(listener);
				timer_arm(listener->timer, PAUSE_MS);
			}
			return;
		}
		int one = 1;

		/* Fails for a Unix socket, which has no such delay. */
		setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		client_new(proxy, client);
	}
}

static void on_timer(void *arg)
{
	listener_resume(arg);
}

struct listener *listener_new(struct proxy *proxy, int fd)
{
	struct listener *listener = calloc(1, sizeof *listener);

	if (!listener) {
		close(fd);
		return NULL;
	}
	listener->proxy = proxy;
	listener->fd = fd;
	listener->timer = timer_new(proxy->loop, on_timer, listener);
	listener->event = event_new(
		loop_base(proxy->loop), fd, EV_READ | EV_PERSIST, on_accept, listener);
	if (!listener->timer || !listener->event || event_add(listener->event, NULL) < 0)
		listener_free(&listener);
	return listener;
}

void listener_free(struct listener **listener)
{
	if (!*listener)
		return;
	timer_free(&(*listener)->timer);
	if ((*listener)->event)
		event_free((*listener)->event);
	close((*listener)->fd);
	free(*listener);
	*listener = NULL;
}

void listener_resume(struct listener *listener)
{
	struct proxy *proxy = listener->proxy;

	if (!listener->is_paused || timer_armed(listener->timer) ||
		proxy->n_clients >= (unsigned)proxy->conf->max_clients)
		return;
	listener->is_paused = false;
	event_add(listener->event, NULL);
}
