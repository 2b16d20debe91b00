#include "common/http_server_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"

/* Others have work too. */
#define MAX_ACCEPTS_A_TURN 32
/* When others have used up the slice of the turn. */
#define MIN_ACCEPTS_A_TURN 4
/* After accept() failed for want of descriptors or memory. */
#define ACCEPT_RETRY_MS 100
/* How long a client that is being answered with an error may go on sending. */
#define LINGER_MS 5000

const struct http_server_options http_server_defaults = {
	.max_head_bytes = 32 * 1024,
	.max_headers = 100,
	.max_target_bytes = 8 * 1024,
	.max_body_bytes = 32 * 1024 * 1024,
	.max_connections = 16384,
	.idle_timeout_ms = 75 * 1000,
	.header_timeout_ms = 10 * 1000,
	.body_timeout_ms = 30 * 1000,
	.half_close_ms = 2 * 1000,
	.write_timeout_ms = 30 * 1000,
	.min_write_bytes_s = 8 * 1024,
	.send_high_water_bytes = 256 * 1024,
};

struct http_listener {
	struct http_server *server;
	int fd;
	struct event event;
	SLIST_ENTRY(http_listener) link;
};

/* Deadlines */

static void arm_watch_timer(struct http_server *server, uint64_t now_us, uint64_t due_us)
{
	server->watch_due_us = due_us;
	timer_arm(server->watch_timer, due_us > now_us ? (due_us - now_us) / 1000 + 1 : 0);
}

static void unwatch(struct http_connection *c)
{
	if (c->deadline_us != 0)
		TAILQ_REMOVE(&c->server->watched[c->watch], c, watch_link);
	c->deadline_us = 0;
}

void http_server_watch(struct http_connection *c, enum http_watch kind)
{
	struct http_server *server = c->server;
	unwatch(c);
	c->watch = kind;
	if (kind == HTTP_WATCH_NONE || server->watch_us[kind] == 0)
		return;
	uint64_t now = loop_now_us(server->loop);
	c->deadline_us = now + server->watch_us[kind];
	TAILQ_INSERT_TAIL(&server->watched[kind], c, watch_link);
	/* A later deadline needs nothing: the timer looks at the lists when it fires. */
	if (c->deadline_us < server->watch_due_us)
		arm_watch_timer(server, now, c->deadline_us);
}

/* Thousands that came together are late together: the slice's worth of them now, but one at least,
 * the rest in the next turn. To reset a client that takes nothing costs the kernel up to a
 * millisecond: all that it holds for it is freed then. */
static void look_at_deadlines(void *arg)
{
	struct http_server *server = arg;
	uint64_t now = loop_now_us(server->loop), next = UINT64_MAX;
	server->watch_due_us = UINT64_MAX;
	bool some = false;
	for (int kind = 0; kind < HTTP_WATCH_KINDS; kind++) {
		struct http_connection *c;
		while ((c = TAILQ_FIRST(&server->watched[kind])) && c->deadline_us <= now) {
			if (loop_slice_is_over(server->loop) && some) {
				arm_watch_timer(server, now, now);
				return;
			}
			some = true;
			http_connection_timed_out(c);
		}
	}
	for (int kind = 0; kind < HTTP_WATCH_KINDS; kind++) {
		struct http_connection *c = TAILQ_FIRST(&server->watched[kind]);
		if (c && c->deadline_us < next)
			next = c->deadline_us;
	}
	if (next < server->watch_due_us)
		arm_watch_timer(server, now, next);
}

/* Accepting */

static void set_accepting(struct http_server *server, bool accepting)
{
	if (server->accepting == accepting)
		return;
	server->accepting = accepting;
	struct http_listener *l;
	SLIST_FOREACH (l, &server->listeners, link) {
		if (!accepting)
			event_del(&l->event);
		else if (event_add(&l->event, NULL))
			log_error("http: cannot listen on descriptor %d again", l->fd);
	}
}

static void accept_again(void *arg)
{
	struct http_server *server = arg;
	if (!server->draining && server->n_open < server->options.max_connections)
		set_accepting(server, true);
}

static void peer_text(const struct sockaddr_storage *address, char *text, socklen_t size)
{
	text[0] = '\0';
	if (address->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)address;
		inet_ntop(AF_INET, &in->sin_addr, text, size);
	} else if (address->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)address;
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
			inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], text, size);
		else
			inet_ntop(AF_INET6, &in6->sin6_addr, text, size);
	} else {
		snprintf(text, size, "unix");
	}
}

/* true: look for another one. */
static bool accept_one(struct http_listener *l)
{
	struct http_server *server = l->server;
	struct sockaddr_storage address = {0};
	socklen_t len = sizeof address;
	int fd = accept4(l->fd, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		switch (errno) {
		case EMFILE:
		case ENFILE:
		case ENOBUFS:
		case ENOMEM:
			log_warn("http: cannot accept a connection: %s", strerror(errno));
			set_accepting(server, false);
			timer_arm(server->accept_timer, ACCEPT_RETRY_MS);
			return false;
		case EAGAIN:
			return false;
		default:
			/* Errors of the connection itself: accept(2) says to go on. */
			return true;
		}
	}
	char peer[INET6_ADDRSTRLEN];
	peer_text(&address, peer, sizeof peer);
	if (address.ss_family == AF_INET || address.ss_family == AF_INET6) {
		int on = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	}
	if (http_connection_open(server, fd, peer))
		log_error("http: no memory for a connection from %s", peer);
	return true;
}

/* false: there may be more. */
static bool accept_some(struct http_listener *l)
{
	struct http_server *server = l->server;
	for (unsigned i = 0; i < MAX_ACCEPTS_A_TURN; i++) {
		if (i >= MIN_ACCEPTS_A_TURN && loop_slice_is_over(server->loop))
			return false;
		if (server->n_open >= server->options.max_connections) {
			set_accepting(server, false);
			return true;
		}
		if (!accept_one(l))
			return true;
	}
	return false;
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct http_listener *l = arg;
	if (l->server->accepting)
		(void)accept_some(l);
}

int http_server_listen(struct http_server *server, int fd)
{
	struct http_listener *l = calloc(1, sizeof *l);
	if (!l)
		return -1;
	l->server = server;
	l->fd = fd;
	event_assign(
		&l->event, loop_base(server->loop), fd, EV_READ | EV_PERSIST, on_acceptable, l);
	if (server->accepting && event_add(&l->event, NULL)) {
		free(l);
		errno = ENOMEM;
		return -1;
	}
	SLIST_INSERT_HEAD(&server->listeners, l, link);
	return 0;
}

static void close_listeners(struct http_server *server)
{
	struct http_listener *l;
	while ((l = SLIST_FIRST(&server->listeners))) {
		SLIST_REMOVE_HEAD(&server->listeners, link);
		event_del(&l->event);
		close(l->fd);
		free(l);
	}
}

/* Life */

static void say_drained(struct http_server *server)
{
	void (*on_drained)(void *arg) = server->on_drained;
	server->on_drained = NULL;
	if (on_drained)
		on_drained(server->drained_arg);
}

/* Ten thousand connections are no less work to close than to make: it takes several turns. */
static void drain_some(void *arg)
{
	struct http_server *server = arg;
	/* Whoever is in the queue was told that we listen. */
	struct http_listener *l;
	SLIST_FOREACH (l, &server->listeners, link)
		if (!accept_some(l)) {
			loop_queue(server->loop, &server->drain);
			return;
		}
	close_listeners(server);
	struct http_connection *c;
	while ((c = TAILQ_FIRST(&server->connections)) && !c->drain_told) {
		c->drain_told = true;
		TAILQ_REMOVE(&server->connections, c, link);
		TAILQ_INSERT_TAIL(&server->connections, c, link);
		http_connection_drain(c);
		if (loop_slice_is_over(server->loop)) {
			loop_queue(server->loop, &server->drain);
			return;
		}
	}
	if (server->n_open == 0)
		say_drained(server);
}

void http_server_retire(struct http_server *server)
{
	server->retiring = true;
}

void http_server_drain(struct http_server *server, void (*on_drained)(void *arg), void *arg)
{
	server->draining = server->retiring = true;
	server->on_drained = on_drained;
	server->drained_arg = arg;
	loop_defer(server->loop, &server->drain);
}

void http_server_forget(struct http_connection *c)
{
	struct http_server *server = c->server;
	unwatch(c);
	server->n_open--;
	if (server->draining) {
		if (server->n_open == 0)
			loop_defer(server->loop, &server->drain);
	} else if (!server->accepting && !timer_armed(server->accept_timer)) {
		set_accepting(server, true);
	}
}

struct http_server *http_server_new(struct loop *loop, const struct http_server_options *options,
	const struct http_server_events *events, void *arg)
{
	struct http_server *server = malloc(sizeof *server);
	if (!server)
		return NULL;
	/* Not the scratch buffer: its pages come with the first bytes. */
	memset(server, 0, offsetof(struct http_server, scratch));
	server->loop = loop;
	server->options = *options;
	server->limits = (struct http_limits){
		.max_head_bytes = (uint32_t)options->max_head_bytes,
		.max_target_bytes = (uint32_t)options->max_target_bytes,
		.max_body_bytes = options->max_body_bytes,
	};
	server->events = *events;
	server->arg = arg;
	SLIST_INIT(&server->listeners);
	SLIST_INIT(&server->free_exchanges);
	TAILQ_INIT(&server->connections);
	for (int kind = 0; kind < HTTP_WATCH_KINDS; kind++)
		TAILQ_INIT(&server->watched[kind]);
	server->watch_us[HTTP_WATCH_IDLE] = options->idle_timeout_ms * UINT64_C(1000);
	server->watch_us[HTTP_WATCH_HEAD] = options->header_timeout_ms * UINT64_C(1000);
	server->watch_us[HTTP_WATCH_BODY] = options->body_timeout_ms * UINT64_C(1000);
	server->watch_us[HTTP_WATCH_GONE] = options->half_close_ms * UINT64_C(1000);
	server->watch_us[HTTP_WATCH_WRITE] = options->write_timeout_ms * UINT64_C(1000);
	server->watch_us[HTTP_WATCH_LINGER] = LINGER_MS * UINT64_C(1000);
	server->watch_due_us = UINT64_MAX;
	server->accepting = true;
	deferred_init(&server->drain, drain_some, server);
	server->accept_timer = timer_new(loop, accept_again, server);
	server->watch_timer = timer_new(loop, look_at_deadlines, server);
	if (http_hangup_open(server) || !server->accept_timer || !server->watch_timer) {
		http_server_free(&server);
		return NULL;
	}
	return server;
}

void http_server_free(struct http_server **server)
{
	struct http_server *s = *server;
	if (!s)
		return;
	*server = NULL;
	s->draining = true;
	close_listeners(s);
	struct http_connection *c;
	TAILQ_FOREACH (c, &s->connections, link)
		http_connection_close(c);
	while ((c = TAILQ_FIRST(&s->connections)))
		http_connection_free(c);
	loop_defer_cancel(s->loop, &s->drain);
	struct http_exchange *x;
	while ((x = SLIST_FIRST(&s->free_exchanges))) {
		SLIST_REMOVE_HEAD(&s->free_exchanges, free_link);
		free(x);
	}
	http_hangup_close(s);
	timer_free(&s->accept_timer);
	timer_free(&s->watch_timer);
	free(s);
}

size_t http_server_connections(const struct http_server *server)
{
	return server->n_open;
}
