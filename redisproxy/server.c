#include "redisproxy/server.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/util.h>

#include "common/log.h"
#include "common/resolve.h"
#include "common/retry.h"
#include "redisproxy/control.h"
#include "redisproxy/proxy.h"
#include "redisproxy/tls.h"
#include "redisproxy/zone.h"

#define MAX_ADDRESSES   8
#define BACKOFF_MIN_MS  20
#define BACKOFF_MAX_MS  1000
#define LOOKUP_AGAIN_US 1000000
#define LOOKUP_MS       5000

struct address {
	union {
		struct sockaddr any;
		struct sockaddr_un un;
		struct sockaddr_storage storage;
	} u;
	socklen_t len;
};

struct server {
	struct proxy *proxy;
	enum server_role role;
	unsigned id;
	struct server *next, **prev; /* all */
	char *text, *host, *port;
	bool is_fixed; /* a number or a path: nothing to look up */
	struct resolve_lookup *lookup;
	uint64_t looked_up_us;
	struct address addresses[MAX_ADDRESSES];
	unsigned n, next_address;
	struct backoff backoff;
	uint64_t not_before_us;
	struct control *control;
	struct server_count count;
};

static void add_address(struct server *server, const struct sockaddr *address, socklen_t len)
{
	if (server->n == MAX_ADDRESSES || len > sizeof(struct sockaddr_storage))
		return;
	struct address *to = &server->addresses[server->n++];

	memcpy(&to->u, address, len);
	to->len = len;
}

/* The numeric host with the server's port; NULL when it is none. For evutil_freeaddrinfo(). */
static struct evutil_addrinfo *numeric(const struct server *server, const char *host)
{
	struct evutil_addrinfo *found = NULL, hints = {.ai_family = AF_UNSPEC,
						      .ai_socktype = SOCK_STREAM,
						      .ai_flags = EVUTIL_AI_NUMERICHOST};

	return evutil_getaddrinfo(host, server->port, &hints, &found) == 0 ? found : NULL;
}

static void on_looked_up(const struct resolve_result *result, void *arg)
{
	struct server *server = arg;

	server->lookup = NULL;
	/* What was known stays. */
	if (result->outcome != RESOLVE_OK) {
		log_warn("%s cannot be looked up: %s", server->text, result->detail);
		return;
	}
	server->n = server->next_address = 0;
	for (int near = 1; near >= 0; near--)
		for (size_t i = 0; i < result->count; i++) {
			struct evutil_addrinfo *a = numeric(server, result->addresses[i]);

			if (a && zone_has(&server->proxy->zone, a->ai_addr) == near)
				add_address(server, a->ai_addr, (socklen_t)a->ai_addrlen);
			if (a)
				evutil_freeaddrinfo(a);
		}
}

static void look_up(struct server *server)
{
	uint64_t now = loop_now_us(server->proxy->loop);

	if (server->is_fixed || server->lookup ||
		(server->looked_up_us && now - server->looked_up_us < LOOKUP_AGAIN_US))
		return;
	server->looked_up_us = now;
	server->lookup = resolve_start(
		server->proxy->resolver, server->host, LOOKUP_MS, on_looked_up, server);
}

static int split(struct server *server)
{
	if (!*server->text) {
		server->is_fixed = true;
		return 0;
	}
	if (strchr(server->text, '/')) {
		struct sockaddr_un un = {.sun_family = AF_UNIX};

		snprintf(un.sun_path, sizeof un.sun_path, "%s", server->text);
		add_address(server, (struct sockaddr *)&un, sizeof un);
		server->is_fixed = true;
		return 0;
	}
	const char *colon = strrchr(server->text, ':');
	const char *from = server->text;
	size_t len = colon ? (size_t)(colon - from) : strlen(from);

	if (len >= 2 && from[0] == '[' && from[len - 1] == ']') {
		from++;
		len -= 2;
	}
	server->host = len ? strndup(from, len) : strdup("127.0.0.1");
	server->port = strdup(colon ? colon + 1 : "6379");
	if (!server->host || !server->port)
		return -1;
	struct evutil_addrinfo *found = numeric(server, server->host);

	if (found) {
		add_address(server, found->ai_addr, (socklen_t)found->ai_addrlen);
		evutil_freeaddrinfo(found);
		server->is_fixed = true;
	}
	return 0;
}

struct server *server_new(struct proxy *proxy, const char *address, enum server_role role)
{
	struct server *server = calloc(1, sizeof *server);

	if (!server)
		return NULL;
	server->proxy = proxy;
	server->role = role;
	/* The first number that is free, so that they stay small. */
	for (struct server **at = &proxy->servers;; at = &(*at)->next) {
		if (*at && (*at)->id == server->id) {
			server->id++;
			continue;
		}
		server->next = *at;
		server->prev = at;
		if (server->next)
			server->next->prev = &server->next;
		*at = server;
		break;
	}
	server->text = strdup(address);
	backoff_init(&server->backoff, BACKOFF_MIN_MS, BACKOFF_MAX_MS, 2);
	if (!server->text || split(server) < 0)
		goto fail;
	look_up(server);
	server->control = control_new(proxy, server);
	if (!server->control)
		goto fail;
	return server;
fail:
	server_free(&server);
	return NULL;
}

void server_free(struct server **server_)
{
	struct server *server = *server_;

	if (!server)
		return;
	*server_ = NULL;
	control_free(&server->control);
	resolve_cancel(&server->lookup);
	*server->prev = server->next;
	if (server->next)
		server->next->prev = server->prev;
	free(server->text);
	free(server->host);
	free(server->port);
	free(server);
}

unsigned server_id(const struct server *server)
{
	return server->id;
}

struct server *server_next(const struct server *server)
{
	return server->next;
}

int server_set_address(struct server *server, const char *address)
{
	struct server fresh = {.proxy = server->proxy, .text = strdup(address)};

	if (!fresh.text || split(&fresh) < 0) {
		free(fresh.text);
		free(fresh.host);
		free(fresh.port);
		return -1;
	}
	resolve_cancel(&server->lookup);
	free(server->text);
	free(server->host);
	free(server->port);
	server->text = fresh.text;
	server->host = fresh.host;
	server->port = fresh.port;
	server->is_fixed = fresh.is_fixed;
	memcpy(server->addresses, fresh.addresses, sizeof server->addresses);
	server->n = fresh.n;
	server->next_address = 0;
	server_connected(server);
	server_refresh(server);
	return 0;
}

bool server_is_near(const struct server *server)
{
	return server->n && zone_has(&server->proxy->zone, &server->addresses[0].u.any);
}

bool server_would_be_near(struct proxy *proxy, const char *address)
{
	struct sockaddr_storage numeric;
	int len = sizeof numeric;

	return evutil_parse_sockaddr_port(address, (struct sockaddr *)&numeric, &len) == 0 &&
	       zone_has(&proxy->zone, (struct sockaddr *)&numeric);
}

enum server_role server_role(const struct server *server)
{
	return server->role;
}

struct proxy *server_proxy(const struct server *server)
{
	return server->proxy;
}

int server_open_tls(struct server *server, int fd, struct tls_session **session)
{
	*session = NULL;
	/* A Unix socket has no host. */
	if (!server->proxy->tls || !server->host)
		return 0;
	*session = tls_open(server->proxy->tls, fd, server->host);
	return *session ? 0 : -1;
}

bool server_ask_slots(struct server *server)
{
	return control_ask_slots(server->control);
}

const char *server_address(const struct server *server)
{
	return server->text;
}

bool server_up(const struct server *server)
{
	return *server->text && control_up(server->control);
}

bool server_silent(const struct server *server)
{
	return control_silent(server->control);
}

struct server_count *server_count(struct server *server)
{
	return &server->count;
}

int server_connect(struct server *server)
{
	if (!server->n)
		look_up(server);
	if (!server->n || loop_now_us(server->proxy->loop) < server->not_before_us) {
		errno = EAGAIN;
		return -1;
	}
	struct address *address = &server->addresses[server->next_address % server->n];
	int one = 1;
	int fd = socket(address->u.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (address->u.any.sa_family != AF_UNIX) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	}
	if (connect(fd, &address->u.any, address->len) == 0 || errno == EINPROGRESS)
		return fd;
	int error = errno;

	close(fd);
	server_failed(server);
	errno = error;
	return -1;
}

void server_failed(struct server *server)
{
	server->next_address++;
	server->not_before_us = loop_now_us(server->proxy->loop) +
				1000ull * (1 + backoff_next_ms(&server->backoff));
	look_up(server);
}

void server_connected(struct server *server)
{
	backoff_reset(&server->backoff);
	server->not_before_us = 0;
}

void server_refresh(struct server *server)
{
	/* One that is under way may bring what was true before. */
	resolve_cancel(&server->lookup);
	server->looked_up_us = 0;
	look_up(server);
	control_reconnect(server->control);
}
