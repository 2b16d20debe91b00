#include "common/rpc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/rpc_connection.h"
#include "common/rpc_ids.h"

#define ACCEPT_PAUSE_MS 100 /* after the process ran out of descriptors or memory */

/*
 * A request:  serving --reply, fail--> dead
 *                |  \--reply_start--> streaming --end, abort--> dead
 *                \--accept--> kept, then as above; --cancel, peer gone--> on_cancel, dead
 */
struct rpc_request {
	struct rpc_id id; /* first: the table's links */
	TAILQ_ENTRY(rpc_request) link;
	struct asker *asker;
	const struct rpc_method *method;
	const struct rpc_request_events *events; /* NULL until accepted */
	void *arg;
	uint64_t send_credit;    /* of the answer */
	uint64_t receive_credit; /* of the request's body */
	uint32_t round;          /* of on_drained() */
	unsigned in_callback;
	bool streaming;
	bool body_ended;
	bool dead;
};
TAILQ_HEAD(request_list, rpc_request);

/* One connected peer. */
struct asker {
	LIST_ENTRY(asker) link;
	struct rpc_server *server; /* NULL once the server is freed */
	struct rpc_connection *connection;
	struct rpc_peer peer;
	struct request_list requests;
	struct rpc_ids ids;
	uint32_t round;
};

struct method_entry {
	struct span name;
	const struct rpc_method *method;
};

struct rpc_server {
	struct loop *loop;
	struct rpc_server_options options;
	int fd;
	struct event *accept_event;
	struct timer *accept_pause;
	struct method_entry *methods;
	size_t n_methods;
	LIST_HEAD(, asker) askers;
	size_t n_askers, n_requests;
	bool draining;
	void (*on_drained)(void *arg);
	void *drained_arg;
	struct deferred drained;
};

const struct rpc_server_options rpc_server_defaults = {
	.trusted_gid = (gid_t)-1, .max_connections = 1024};

/* ---- one request ---- */

static void request_unlink(struct rpc_request *request)
{
	struct asker *asker = request->asker;
	request->dead = true;
	rpc_ids_remove(&asker->ids, &request->id);
	TAILQ_REMOVE(&asker->requests, request, link);
	if (asker->server)
		asker->server->n_requests--;
}

/* The one place that ends a request. Whoever is in one of its callbacks frees it. */
static void request_end(struct rpc_request *request)
{
	request_unlink(request);
	if (!request->in_callback)
		free(request);
}

static void leave_callback(struct rpc_request *request)
{
	if (--request->in_callback == 0 && request->dead)
		free(request);
}

static void request_cancelled(struct rpc_request *request)
{
	request->in_callback++;
	request_unlink(request);
	if (request->events && request->events->on_cancel)
		request->events->on_cancel(request->arg);
	leave_callback(request);
}

static void tell_credit(struct rpc_request *request)
{
	uint64_t credit = rpc_request_credit(request);
	if (!credit || !request->streaming || !request->events || !request->events->on_credit)
		return;
	request->in_callback++;
	request->events->on_credit(credit, request->arg);
	leave_callback(request);
}

static void got_chunk(struct rpc_request *request, const struct rpc_frame *frame)
{
	if (request->body_ended) {
		rpc_connection_fail(request->asker->connection, "chunk after the last one");
		return;
	}
	if (frame->payload.len > request->receive_credit) {
		rpc_connection_fail(request->asker->connection, "chunk beyond its credit");
		return;
	}
	request->receive_credit -= frame->payload.len;
	request->body_ended = frame->end;
	if (!request->events || !request->events->on_chunk)
		return;
	request->in_callback++;
	request->events->on_chunk(frame->payload, frame->end, request->arg);
	leave_callback(request);
}

static const struct rpc_method *find_method(const struct rpc_server *server, struct span name)
{
	for (size_t i = 0; i < server->n_methods; i++)
		if (span_equal(server->methods[i].name, name))
			return server->methods[i].method;
	return NULL;
}

static void put_refusal(struct asker *asker, uint32_t id, int code, const char *sentence)
{
	rpc_connection_put_error(asker->connection, id, code, span_of(sentence));
}

static void got_request(struct asker *asker, const struct rpc_frame *frame)
{
	if (rpc_ids_find(&asker->ids, frame->id)) {
		rpc_connection_fail(asker->connection, "request with an id that is under way");
		return;
	}
	const struct rpc_method *method = find_method(asker->server, frame->method);
	if (!method) {
		char text[RPC_METHOD_MAX_BYTES + 32];
		int len = (int)(frame->method.len > RPC_METHOD_MAX_BYTES ? RPC_METHOD_MAX_BYTES
									 : frame->method.len);
		snprintf(text, sizeof text, "no method \"%.*s\"", len, frame->method.data);
		put_refusal(asker, frame->id, RPC_NO_METHOD, text);
		return;
	}
	if (asker->ids.count >= RPC_MAX_CALLS) {
		put_refusal(asker, frame->id, RPC_BUSY, "too many requests under way");
		return;
	}
	struct rpc_request *request = malloc(sizeof *request);
	if (!request) {
		put_refusal(asker, frame->id, RPC_BUSY, "out of memory");
		return;
	}
	*request = (struct rpc_request){.id.id = frame->id,
		.asker = asker,
		.method = method,
		.send_credit = RPC_ANSWER_CREDIT_BYTES,
		.round = asker->round,
		.in_callback = 1};
	if (rpc_ids_add(&asker->ids, &request->id) != 0) {
		free(request);
		put_refusal(asker, frame->id, RPC_BUSY, "out of memory");
		return;
	}
	TAILQ_INSERT_TAIL(&asker->requests, request, link);
	asker->server->n_requests++;
	method->serve(request, frame->payload, method->arg);
	/* serve() must answer, or keep the request with rpc_request_accept(). */
	BUG_ON(!request->dead && !request->events);
	leave_callback(request);
}

/* ---- one peer ---- */

static void on_frame(const struct rpc_frame *frame, void *arg)
{
	struct asker *asker = arg;
	if (frame->type == RPC_FRAME_REQUEST) {
		got_request(asker, frame);
		return;
	}
	if (frame->type == RPC_FRAME_RESULT || frame->type == RPC_FRAME_ERROR) {
		rpc_connection_fail(asker->connection, "response from the asking end");
		return;
	}
	if (frame->type == RPC_FRAME_NOTIFICATION)
		return;
	/* Answered or cancelled while this was on its way: legal, and of no more interest. */
	struct rpc_request *request = (struct rpc_request *)rpc_ids_find(&asker->ids, frame->id);
	if (!request)
		return;
	if (frame->type == RPC_FRAME_CHUNK) {
		got_chunk(request, frame);
	} else if (frame->type == RPC_FRAME_CREDIT) {
		request->send_credit = rpc_credit_add(request->send_credit, frame->credit_bytes);
		tell_credit(request);
	} else if (frame->type == RPC_FRAME_CANCEL) {
		request_cancelled(request);
	}
}

/* See rpc_client.c: each request once, whatever the callbacks end. */
static void on_drained(void *arg)
{
	struct asker *asker = arg;
	struct rpc_request *request;
	asker->round++;
	while (asker->connection && !rpc_connection_congested(asker->connection) &&
		(request = TAILQ_FIRST(&asker->requests)) && request->round != asker->round) {
		request->round = asker->round;
		TAILQ_REMOVE(&asker->requests, request, link);
		TAILQ_INSERT_TAIL(&asker->requests, request, link);
		tell_credit(request);
	}
}

static void check_drained(struct rpc_server *server)
{
	if (server->draining && server->n_askers == 0 && server->on_drained)
		loop_defer(server->loop, &server->drained);
}

static void watch_listener(struct rpc_server *server)
{
	if (server->draining)
		return;
	if (server->n_askers < server->options.max_connections)
		event_add(server->accept_event, NULL);
	else
		event_del(server->accept_event); /* further peers wait in the kernel's queue */
}

/* Works from any state; on_free comes when the stack has left the connection. */
static void asker_close(struct asker *asker)
{
	/* on_cancel may answer other requests of this peer (to nobody), or free the server, which
	 * closes this very asker: so it stays on the list until its requests are gone. */
	struct rpc_request *request;
	while ((request = TAILQ_FIRST(&asker->requests)))
		request_cancelled(request);
	struct rpc_server *server = asker->server;
	asker->server = NULL;
	if (server) {
		LIST_REMOVE(asker, link);
		server->n_askers--;
		watch_listener(server);
		check_drained(server);
	}
	rpc_connection_free(&asker->connection);
}

static void on_lost(int code, const char *reason, void *arg)
{
	struct asker *asker = arg;
	if (code == RPC_PROTOCOL || asker->ids.count)
		log_fields(code == RPC_PROTOCOL ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, NULL,
			"rpc: connection closed", LOG_STR("reason", reason),
			LOG_INT("peer_pid", asker->peer.pid), LOG_INT("peer_uid", asker->peer.uid),
			LOG_INT("requests", asker->ids.count));
	asker_close(asker);
}

static void on_free(void *arg)
{
	struct asker *asker = arg;
	rpc_ids_free(&asker->ids);
	free(asker);
}

static const struct rpc_connection_events connection_events = {
	.on_frame = on_frame, .on_lost = on_lost, .on_drained = on_drained, .on_free = on_free};

static bool peer_allowed(const struct rpc_server *server, const struct rpc_peer *peer)
{
	return peer->uid == 0 || peer->uid == geteuid() ||
	       (server->options.trusted_gid != (gid_t)-1 &&
		       peer->gid == server->options.trusted_gid);
}

static void welcome(struct rpc_server *server, int fd)
{
	struct ucred credentials;
	socklen_t len = sizeof credentials;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &len) != 0) {
		close(fd);
		return;
	}
	struct rpc_peer peer = {credentials.uid, credentials.gid, credentials.pid};
	if (!peer_allowed(server, &peer)) {
		log_fields(LOG_LEVEL_WARN, NULL, "rpc: peer refused", LOG_INT("peer_pid", peer.pid),
			LOG_INT("peer_uid", peer.uid), LOG_INT("peer_gid", peer.gid));
		close(fd);
		return;
	}
	struct asker *asker = calloc(1, sizeof *asker);
	if (!asker) {
		close(fd);
		return;
	}
	asker->server = server;
	asker->peer = peer;
	TAILQ_INIT(&asker->requests);
	asker->connection = rpc_connection_new(server->loop, fd, true, &connection_events, asker);
	if (!asker->connection) {
		free(asker);
		return;
	}
	LIST_INSERT_HEAD(&server->askers, asker, link);
	server->n_askers++;
}

/* ---- the server ---- */

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	struct rpc_server *server = arg;
	while (server->n_askers < server->options.max_connections) {
		int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (peer >= 0) {
			welcome(server, peer);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno != EAGAIN && errno != EWOULDBLOCK) {
			log_error("rpc: cannot accept: %s", strerror(errno));
			event_del(server->accept_event);
			timer_arm(server->accept_pause, ACCEPT_PAUSE_MS);
		}
		return;
	}
	watch_listener(server);
}

static void accept_again(void *arg)
{
	watch_listener(arg);
}

static void tell_drained(void *arg)
{
	struct rpc_server *server = arg;
	server->on_drained(server->drained_arg);
}

struct rpc_server *rpc_server_new(
	struct loop *loop, int listen_fd, const struct rpc_server_options *options)
{
	struct rpc_server *server = calloc(1, sizeof *server);
	if (!server)
		goto fail_fd;
	server->loop = loop;
	server->fd = listen_fd;
	server->options = options ? *options : rpc_server_defaults;
	LIST_INIT(&server->askers);
	deferred_init(&server->drained, tell_drained, server);
	server->accept_pause = timer_new(loop, accept_again, server);
	if (!server->accept_pause)
		goto fail_server;
	server->accept_event = event_new(
		loop_base(loop), listen_fd, EV_READ | EV_PERSIST, on_acceptable, server);
	if (!server->accept_event)
		goto fail_timer;
	watch_listener(server);
	return server;

fail_timer:
	timer_free(&server->accept_pause);
fail_server:
	free(server);
fail_fd:
	close(listen_fd);
	return NULL;
}

int rpc_server_add(struct rpc_server *server, const struct rpc_method *methods)
{
	size_t n = 0;
	for (; methods[n].name; n++)
		if (find_method(server, span_of(methods[n].name)))
			return -1;
	struct method_entry *grown = realloc(
		server->methods, (server->n_methods + n + 1) * sizeof *grown);
	if (!grown)
		return -1;
	server->methods = grown;
	for (size_t i = 0; i < n; i++)
		grown[server->n_methods++] = (struct method_entry){
			span_of(methods[i].name), &methods[i]};
	return 0;
}

static void stop_listening(struct rpc_server *server)
{
	if (server->fd < 0)
		return;
	event_free(server->accept_event);
	server->accept_event = NULL;
	timer_free(&server->accept_pause);
	close(server->fd);
	server->fd = -1;
}

void rpc_server_drain(struct rpc_server *server, void (*on_drained_)(void *arg), void *arg)
{
	server->draining = true;
	server->on_drained = on_drained_;
	server->drained_arg = arg;
	stop_listening(server);
	check_drained(server);
}

size_t rpc_server_connections(const struct rpc_server *server)
{
	return server->n_askers;
}

size_t rpc_server_requests(const struct rpc_server *server)
{
	return server->n_requests;
}

void rpc_server_free(struct rpc_server **server)
{
	struct rpc_server *s = *server;
	if (!s)
		return;
	*server = NULL;
	s->draining = true;
	s->on_drained = NULL;
	stop_listening(s);
	struct asker *asker;
	while ((asker = LIST_FIRST(&s->askers)))
		asker_close(asker);
	loop_defer_cancel(s->loop, &s->drained);
	free(s->methods);
	free(s);
}

/* ---- what a method does with its request ---- */

void rpc_request_accept(
	struct rpc_request *request, const struct rpc_request_events *events, void *arg)
{
	static const struct rpc_request_events none;
	request->events = events ? events : &none;
	request->arg = arg;
}

const struct rpc_peer *rpc_request_peer(const struct rpc_request *request)
{
	return &request->asker->peer;
}

const char *rpc_request_method(const struct rpc_request *request)
{
	return request->method->name;
}

void rpc_request_give_credit(struct rpc_request *request, uint64_t bytes)
{
	if (!bytes || request->body_ended)
		return;
	request->receive_credit = rpc_credit_add(request->receive_credit, bytes);
	rpc_connection_put_credit(request->asker->connection, request->id.id, bytes);
}

/* The result goes out, if a frame can hold it; else the asker hears why. */
static int put_result(struct rpc_request *request, struct span result)
{
	if (result.len <= RPC_MAX_PAYLOAD_BYTES) {
		rpc_connection_put_result(request->asker->connection, request->id.id, result);
		return 0;
	}
	log_error("rpc: answer to %s is %zu bytes, over the limit", request->method->name,
		result.len);
	put_refusal(request->asker, request->id.id, RPC_FAILED, "answer over the frame limit");
	return -1;
}

void rpc_request_reply(struct rpc_request *request, struct span result)
{
	BUG_ON(request->dead || request->streaming);
	(void)put_result(request, result);
	request_end(request);
}

void rpc_request_fail(struct rpc_request *request, int code, const char *fmt, ...)
{
	BUG_ON(request->dead || request->streaming || code <= 0 || code >= RPC_LOST);
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	put_refusal(request->asker, request->id.id, code, text);
	request_end(request);
}

int rpc_request_reply_start(struct rpc_request *request, struct span result)
{
	BUG_ON(request->dead || request->streaming);
	if (put_result(request, result) != 0) {
		request_end(request);
		return -1;
	}
	request->streaming = true;
	return 0;
}

uint64_t rpc_request_credit(const struct rpc_request *request)
{
	return rpc_connection_congested(request->asker->connection) ? 0 : request->send_credit;
}

void rpc_request_send_chunk(struct rpc_request *request, struct slice data, bool end)
{
	BUG_ON(request->dead || !request->streaming || data.len_bytes > request->send_credit);
	if (data.len_bytes == 0 && !end) {
		slice_release(&data);
		return;
	}
	request->send_credit -= data.len_bytes;
	struct rpc_connection *connection = request->asker->connection;
	uint32_t id = request->id.id;
	if (end)
		request_end(request);
	rpc_connection_put_chunks(connection, id, data, end);
}

void rpc_request_abort(struct rpc_request *request)
{
	BUG_ON(request->dead);
	if (request->streaming)
		rpc_connection_put_cancel(request->asker->connection, request->id.id);
	else
		put_refusal(request->asker, request->id.id, RPC_CANCELLED, "given up");
	request_end(request);
}
