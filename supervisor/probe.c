#include "supervisor/probe.h"

#include <errno.h>
#include <netinet/in.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/loop.h"
#include "common/messages.h"
#include "common/rpc.h"

#define FIRST_PAUSE_MS   5
#define LONGEST_PAUSE_MS 200
#define ATTEMPT_MS       2000
#define STATUS_BYTES     12 /* "HTTP/1.1 200" */

struct probe {
	struct loop *loop;
	enum ready_kind kind;
	void (*on_ready)(void *arg);
	void *arg;
	struct timer *timer; /* the pause before the next attempt, or the attempt's end */
	uint32_t pause_ms;
	struct deferred done;

	/* rpc */
	struct rpc_client *client;
	struct rpc_call *call;
	bool answered_ready;

	/* tcp, http */
	struct sockaddr_storage address;
	socklen_t address_len;
	char *request;
	int fd;
	struct event *event;
	char status[STATUS_BYTES + 1];
	size_t status_len;
};

static void attempt(struct probe *probe);

static void tell_ready(void *arg)
{
	struct probe *probe = arg;
	probe->on_ready(probe->arg);
}

static void succeed(struct probe *probe)
{
	timer_disarm(probe->timer);
	loop_defer(probe->loop, &probe->done);
}

static void end_attempt(struct probe *probe)
{
	if (probe->event)
		event_free(probe->event);
	probe->event = NULL;
	if (probe->fd >= 0)
		close(probe->fd);
	probe->fd = -1;
	rpc_call_cancel(&probe->call);
}

static void try_later(struct probe *probe)
{
	end_attempt(probe);
	timer_arm(probe->timer, probe->pause_ms);
	if (probe->pause_ms < LONGEST_PAUSE_MS)
		probe->pause_ms *= 2;
}

static void timer_due(void *arg)
{
	struct probe *probe = arg;
	end_attempt(probe);
	attempt(probe);
}

/* ---- rpc ---- */

static void ping_answered(struct span result, void *arg)
{
	struct probe *probe = arg;
	struct msg_ping_result answer;
	struct msg_error error;
	probe->answered_ready = msg_ping_result_unpack(result, &answer, &error) == 0 &&
				answer.ready;
}

static void ping_done(const struct rpc_error *error, void *arg)
{
	struct probe *probe = arg;
	probe->call = NULL;
	if (!error && probe->answered_ready)
		succeed(probe);
	else
		try_later(probe);
}

static void ask_rpc(struct probe *probe)
{
	static const struct rpc_call_events events = {
		.on_result = ping_answered, .on_done = ping_done};
	static const struct msg_empty nothing;
	if (probe->call || !rpc_client_connected(probe->client))
		return;
	probe->call = msg_ping_call(probe->client, &nothing, 0, &events, probe);
	if (!probe->call)
		try_later(probe);
}

static void client_state(bool connected, void *arg)
{
	if (connected)
		ask_rpc(arg);
}

/* ---- tcp and http ---- */

static void http_status(struct probe *probe)
{
	ssize_t n = recv(
		probe->fd, probe->status + probe->status_len, STATUS_BYTES - probe->status_len, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		probe->status_len += (size_t)n;
	if (n > 0 && probe->status_len < STATUS_BYTES)
		return;
	bool ok = probe->status_len == STATUS_BYTES && memcmp(probe->status, "HTTP/1.", 7) == 0 &&
		  probe->status[9] == '2';
	if (!ok) {
		try_later(probe);
		return;
	}
	end_attempt(probe);
	succeed(probe);
}

static void socket_due(evutil_socket_t fd, short what, void *arg)
{
	struct probe *probe = arg;
	if (what & EV_READ) {
		http_status(probe);
		return;
	}
	int error = 0;
	socklen_t len = sizeof error;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error) {
		try_later(probe);
		return;
	}
	if (probe->kind == READY_TCP) {
		end_attempt(probe);
		succeed(probe);
		return;
	}
	size_t wanted = strlen(probe->request);
	event_free(probe->event);
	probe->event = event_new(
		loop_base(probe->loop), probe->fd, EV_READ | EV_PERSIST, socket_due, probe);
	/* A request of a line or two fits into an empty socket buffer. */
	if (send(fd, probe->request, wanted, MSG_NOSIGNAL) != (ssize_t)wanted || !probe->event ||
		event_add(probe->event, NULL) < 0)
		try_later(probe);
}

static void ask_socket(struct probe *probe)
{
	probe->status_len = 0;
	probe->fd = socket(probe->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe->fd < 0 ||
		(connect(probe->fd, (struct sockaddr *)&probe->address, probe->address_len) < 0 &&
			errno != EINPROGRESS)) {
		try_later(probe);
		return;
	}
	probe->event = event_new(loop_base(probe->loop), probe->fd, EV_WRITE, socket_due, probe);
	if (!probe->event || event_add(probe->event, NULL) < 0) {
		try_later(probe);
		return;
	}
	timer_arm(probe->timer, ATTEMPT_MS);
}

static void attempt(struct probe *probe)
{
	if (probe->kind == READY_RPC)
		ask_rpc(probe);
	else
		ask_socket(probe);
}

/* ---- targets ---- */

/* PORT, HOST:PORT or [V6]:PORT; numbers and localhost only, since looking names up blocks. */
static int parse_address(struct probe *probe, struct span text)
{
	char host[128] = "127.0.0.1", port[16];
	const char *colon = memrchr(text.data, ':', text.len);
	struct span number = text;
	if (colon) {
		struct span name = {text.data, (size_t)(colon - text.data)};
		number = (struct span){colon + 1, text.len - name.len - 1};
		if (name.len > 1 && name.data[0] == '[' && name.data[name.len - 1] == ']')
			name = (struct span){name.data + 1, name.len - 2};
		if (name.len >= sizeof host)
			return -1;
		if (!span_equal_str(name, "localhost"))
			snprintf(host, sizeof host, "%.*s", SPAN_ARG(name));
	}
	if (!number.len || number.len >= sizeof port)
		return -1;
	snprintf(port, sizeof port, "%.*s", SPAN_ARG(number));
	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
	struct addrinfo *info;
	if (getaddrinfo(host, port, &hints, &info))
		return -1;
	memcpy(&probe->address, info->ai_addr, info->ai_addrlen);
	probe->address_len = info->ai_addrlen;
	freeaddrinfo(info);
	return 0;
}

/* [http://]HOST:PORT[/PATH] */
static int parse_url(struct probe *probe, const char *url)
{
	if (strncmp(url, "http://", 7) == 0)
		url += 7;
	size_t authority = strcspn(url, "/");
	const char *path = url[authority] ? url + authority : "/";
	if (strpbrk(path, " \r\n") || parse_address(probe, (struct span){url, authority}) < 0)
		return -1;
	return asprintf(&probe->request,
		       "GET %s HTTP/1.1\r\nHost: %.*s\r\nConnection: close\r\n\r\n", path,
		       (int)authority, url) < 0
		       ? -1
		       : 0;
}

static int prepare(struct probe *probe, const char *target)
{
	static const struct rpc_client_options options = {
		.connect_timeout_ms = 1000, .reconnect_min_ms = 2, .reconnect_max_ms = 50};
	switch (probe->kind) {
	case READY_RPC:
		probe->client = rpc_client_new(probe->loop, target, &options, client_state, probe);
		return probe->client ? 0 : -1;
	case READY_TCP:
		return parse_address(probe, span_of(target));
	case READY_HTTP:
		return parse_url(probe, target);
	default:
		return -1;
	}
}

struct probe *probe_new(struct loop *loop, enum ready_kind kind, const char *target,
	void (*on_ready)(void *arg), void *arg, char *error, size_t error_size)
{
	struct probe *probe = calloc(1, sizeof *probe);
	if (!probe)
		goto fail;
	*probe = (struct probe){.loop = loop,
		.kind = kind,
		.on_ready = on_ready,
		.arg = arg,
		.pause_ms = FIRST_PAUSE_MS,
		.fd = -1};
	deferred_init(&probe->done, tell_ready, probe);
	probe->timer = timer_new(loop, timer_due, probe);
	if (!probe->timer || prepare(probe, target) < 0)
		goto fail;
	timer_arm(probe->timer, 0);
	return probe;

fail:
	snprintf(error, error_size, "cannot ask \"%s\" whether it is ready", target);
	probe_free(&probe);
	return NULL;
}

void probe_free(struct probe **probe)
{
	struct probe *p = *probe;
	if (!p)
		return;
	*probe = NULL;
	loop_defer_cancel(p->loop, &p->done);
	end_attempt(p);
	rpc_client_free(&p->client);
	timer_free(&p->timer);
	free(p->request);
	free(p);
}
