#ifndef TESTS_COMMON_HTTP_FIXTURE_H
#define TESTS_COMMON_HTTP_FIXTURE_H

/*
 * What the HTTP server's tests share: a server on a loop with a few paths, and clients that are raw
 * sockets on the same loop, so that a test waits for something to be true while the loop turns.
 *
 *   /hello    200 "hello" at once, body or not
 *   /refuse   403 at once
 *   /empty    204
 *   /echo     200 with the body of the request
 *   /wait     accepted; the test answers, with world.waiting
 *   /stream   chunked "one", "two", "three"
 *   /big      BIG_BYTES through http_exchange_send(), declared; /big-chunked the same without
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "common/buf.h"
#include "common/http_server.h"
#include "common/log.h"
#include "common/loop.h"

#define PATIENCE_MS 20000
#define BIG_BYTES   (10 * 1024 * 1024)
#define MAX_WAITING 8

struct world {
	struct loop *loop;
	struct http_server *server;
	struct timer *patience;
	bool late, drained;
	struct sockaddr_in address;
	char *big;
	/* What happened. */
	unsigned requests, aborted, finished, body_ends, drains, released;
	uint64_t body_bytes, bytes_in, bytes_out;
	int last_status;
	char last_method[16], last_target[64], last_peer[64], last_host[64];
	struct http_exchange *waiting[MAX_WAITING];
	unsigned n_waiting;
	size_t max_queued;
	uint64_t abort_takes_us;
};

/* One accepted exchange. */
struct handling {
	struct world *world;
	struct http_exchange *exchange;
	struct buf body;
	size_t sent;
	bool echo;
};

struct client {
	struct world *world;
	int fd;
	struct event *readable, *writable;
	struct buf in, out;
	size_t out_done; /* of out */
	bool closed;     /* EOF or an error */
	int error;
};

static struct world world;

static inline void world_late(void *arg)
{
	(void)arg;
	world.late = true;
}

/* Turn the loop until the condition holds. */
#define WAIT_UNTIL(condition)                                                \
	do {                                                                 \
		world.late = false;                                          \
		timer_arm(world.patience, PATIENCE_MS);                      \
		while (!(condition) && !world.late)                          \
			event_base_loop(loop_base(world.loop), EVLOOP_ONCE); \
		timer_disarm(world.patience);                                \
		if (world.late)                                              \
			fail_msg("waited in vain for %s", #condition);       \
	} while (0)

/* Let everything that is under way and ready happen. */
static inline void turn_some(void)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(loop_base(world.loop), EVLOOP_NONBLOCK);
}

/* The handler */

static inline void handling_free(struct handling *h)
{
	buf_free(&h->body);
	free(h);
}

static inline void on_body(struct span data, void *arg)
{
	struct handling *h = arg;
	h->world->body_bytes += data.len;
	if (h->echo)
		assert_int_equal(buf_append(&h->body, data.data, data.len), 0);
}

static inline void on_body_end(void *arg)
{
	struct handling *h = arg;
	h->world->body_ends++;
	if (!h->echo)
		return;
	size_t len;
	void *data = buf_take(&h->body, &len);
	struct slice body = slice_malloced(data, len);
	http_exchange_respond(h->exchange, 200, SPAN_LITERAL(""), &body, 1);
	handling_free(h);
}

static inline void count_release(void *owner)
{
	struct world *w = owner;
	w->released++;
}

static inline void send_big(struct handling *h)
{
	while (h->sent < BIG_BYTES) {
		size_t n = BIG_BYTES - h->sent < 10000 ? BIG_BYTES - h->sent : 10000;
		struct slice slice = {.data = h->world->big + h->sent,
			.len_bytes = n,
			.release = count_release,
			.owner = h->world};
		h->sent += n;
		if (!http_exchange_send(h->exchange, slice))
			return;
	}
	http_exchange_end(h->exchange);
	handling_free(h);
}

static inline void on_drain(void *arg)
{
	struct handling *h = arg;
	h->world->drains++;
	send_big(h);
}

static inline void on_abort(void *arg)
{
	struct handling *h = arg;
	struct world *w = h->world;
	w->aborted++;
	uint64_t end_us = loop_now_us(w->loop) + w->abort_takes_us;
	while (loop_now_us(w->loop) < end_us)
		;
	for (unsigned i = 0; i < w->n_waiting; i++)
		if (w->waiting[i] == h->exchange)
			w->waiting[i] = w->waiting[--w->n_waiting];
	handling_free(h);
}

static const struct http_exchange_events handling_events = {
	on_body, on_body_end, on_drain, on_abort};

static inline void respond_text(struct http_exchange *x, int status, const char *text)
{
	struct slice body = slice_static(text);
	http_exchange_respond(x, status, SPAN_LITERAL("Content-Type: text/plain\r\n"), &body, 1);
}

/* Answers the oldest waiting exchange. */
static inline void answer_waiting(int status, const char *text)
{
	assert_true(world.n_waiting > 0);
	struct http_exchange *x = world.waiting[0];
	struct handling *h = http_exchange_context(x);
	memmove(world.waiting, world.waiting + 1, --world.n_waiting * sizeof world.waiting[0]);
	respond_text(x, status, text);
	handling_free(h);
}

static inline struct handling *handling_new(struct world *w, struct http_exchange *x)
{
	struct handling *h = calloc(1, sizeof *h);
	assert_non_null(h);
	h->world = w;
	h->exchange = x;
	buf_init(&h->body, 64 * 1024 * 1024);
	http_exchange_set_context(x, h);
	return h;
}

static inline void copy_span(char *to, size_t size, struct span text)
{
	snprintf(to, size, "%.*s", SPAN_ARG(text));
}

static inline void on_request(struct http_exchange *x, void *arg)
{
	struct world *w = arg;
	struct span path = http_exchange_path(x);
	w->requests++;
	copy_span(w->last_host, sizeof w->last_host, http_exchange_host(x));
	if (span_equal_str(path, "/hello")) {
		respond_text(x, 200, "hello");
	} else if (span_equal_str(path, "/refuse")) {
		respond_text(x, 403, "no");
	} else if (span_equal_str(path, "/empty")) {
		http_exchange_respond(x, 204, SPAN_LITERAL(""), NULL, 0);
	} else if (span_equal_str(path, "/echo")) {
		struct handling *h = handling_new(w, x);
		h->echo = true;
		http_exchange_accept(x, &handling_events, h);
	} else if (span_equal_str(path, "/wait")) {
		struct handling *h = handling_new(w, x);
		assert_true(w->n_waiting < MAX_WAITING);
		w->waiting[w->n_waiting++] = x;
		http_exchange_accept(x, &handling_events, h);
	} else if (span_equal_str(path, "/stream")) {
		http_exchange_respond_start(x, 200, SPAN_LITERAL("X-Kind: stream\r\n"), -1);
		assert_true(http_exchange_send(x, slice_static("one")));
		assert_true(http_exchange_send(x, slice_static("two")));
		assert_true(http_exchange_send(x, slice_static("")));
		assert_true(http_exchange_send(x, slice_static("three")));
		http_exchange_end(x);
	} else if (span_equal_str(path, "/big") || span_equal_str(path, "/big-chunked")) {
		struct handling *h = handling_new(w, x);
		http_exchange_accept(x, &handling_events, h);
		http_exchange_respond_start(
			x, 200, SPAN_LITERAL(""), path.len == 4 ? BIG_BYTES : -1);
		send_big(h);
	} else {
		respond_text(x, 404, "nothing here");
	}
}

static inline void on_finished(struct http_exchange *x, int status, uint64_t bytes_in,
	uint64_t bytes_out, uint64_t duration_us, void *arg)
{
	struct world *w = arg;
	w->finished++;
	w->last_status = status;
	w->bytes_in = bytes_in;
	w->bytes_out = bytes_out;
	assert_true(duration_us < PATIENCE_MS * 1000);
	copy_span(w->last_method, sizeof w->last_method, http_exchange_method(x));
	copy_span(w->last_target, sizeof w->last_target, http_exchange_target(x));
	snprintf(w->last_peer, sizeof w->last_peer, "%s", http_exchange_peer(x));
}

static const struct http_server_events server_events = {on_request, on_finished};

/* The world */

static inline int listen_tcp(struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	*address = (struct sockaddr_in){
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof *address;
	assert_int_equal(bind(fd, (struct sockaddr *)address, len), 0);
	assert_int_equal(listen(fd, 1024), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)address, &len), 0);
	return fd;
}

static inline void world_make_with(
	const struct http_server_options *options, const struct http_server_events *events)
{
	world = (struct world){0};
	world.loop = loop_new();
	assert_non_null(world.loop);
	world.patience = timer_new(world.loop, world_late, NULL);
	assert_non_null(world.patience);
	world.server = http_server_new(world.loop, options, events, &world);
	assert_non_null(world.server);
	assert_int_equal(http_server_listen(world.server, listen_tcp(&world.address)), 0);
	world.big = malloc(BIG_BYTES);
	assert_non_null(world.big);
	for (size_t i = 0; i < BIG_BYTES; i++)
		world.big[i] = (char)('a' + i % 23);
}

static inline void world_make(const struct http_server_options *options)
{
	world_make_with(options, &server_events);
}

static inline void world_free(void)
{
	http_server_free(&world.server);
	timer_free(&world.patience);
	loop_free(&world.loop);
	free(world.big);
}

/* Clients */

static inline void client_flush(struct client *c)
{
	while (c->out_done < c->out.len) {
		ssize_t n = send(
			c->fd, c->out.data + c->out_done, c->out.len - c->out_done, MSG_NOSIGNAL);
		if (n < 0) {
			if (errno == EAGAIN)
				event_add(c->writable, NULL);
			else
				c->out_done = c->out.len;
			return;
		}
		c->out_done += (size_t)n;
	}
	buf_clear(&c->out);
	c->out_done = 0;
}

static inline void client_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	client_flush(arg);
}

static inline void client_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	struct client *c = arg;
	char data[16384];
	ssize_t n = recv(fd, data, sizeof data, 0);
	if (n > 0) {
		assert_int_equal(buf_append(&c->in, data, (size_t)n), 0);
		return;
	}
	if (n < 0 && errno == EAGAIN)
		return;
	c->closed = true;
	c->error = n < 0 ? errno : 0;
	event_del(c->readable);
}

static inline void client_start(struct client *c, int fd)
{
	*c = (struct client){.world = &world, .fd = fd};
	buf_init(&c->in, 64 * 1024 * 1024);
	buf_init(&c->out, 64 * 1024 * 1024);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	struct event_base *base = loop_base(world.loop);
	c->readable = event_new(base, fd, EV_READ | EV_PERSIST, client_readable, c);
	c->writable = event_new(base, fd, EV_WRITE, client_writable, c);
	assert_true(c->readable && c->writable);
	event_add(c->readable, NULL);
}

static inline void client_connect(struct client *c)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&world.address, sizeof world.address), 0);
	client_start(c, fd);
}

static inline void client_send_bytes(struct client *c, const void *data, size_t len)
{
	assert_int_equal(buf_append(&c->out, data, len), 0);
	client_flush(c);
}

static inline void client_send(struct client *c, const char *text)
{
	client_send_bytes(c, text, strlen(text));
}

static inline void client_close(struct client *c)
{
	event_free(c->readable);
	event_free(c->writable);
	if (c->fd >= 0)
		close(c->fd);
	buf_free(&c->in);
	buf_free(&c->out);
}

static inline size_t count_of(const struct buf *in, const char *text)
{
	size_t n = 0, len = strlen(text);
	const char *at = (char *)in->data, *end = at + in->len;
	while (at && (at = memmem(at, (size_t)(end - at), text, len))) {
		at += len;
		n++;
	}
	return n;
}

static inline bool client_has(const struct client *c, const char *text)
{
	return c->in.len > 0 && memmem(c->in.data, c->in.len, text, strlen(text)) != NULL;
}

static inline bool client_ends_with(const struct client *c, const char *text)
{
	size_t len = strlen(text);
	return c->in.len >= len && memcmp(c->in.data + c->in.len - len, text, len) == 0;
}

#define WAIT_FOR_TEXT(c, text) WAIT_UNTIL(client_has((c), (text)))

#endif
