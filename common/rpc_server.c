#include "common/rpc_server_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"

/* Others have work too: so many, and so few even when the slice of the turn is used up. */
#define MAX_ACCEPTS_A_TURN 32
#define MIN_ACCEPTS_A_TURN 4
#define MAX_COMPLAINTS     10  /* in the log, a second */
#define ACCEPT_PAUSE_MS    100 /* after the process ran out of descriptors or memory */

const struct rpc_server_options rpc_server_defaults = {
	.trusted_gid = (gid_t)-1, .max_connections = 1024};

struct method_entry *rpc_server_find(const struct rpc_server *server, struct span name)
{
	for (size_t i = 0; i < server->n_methods; i++)
		if (span_equal(server->methods[i].name, name))
			return &server->methods[i];
	return NULL;
}

/* ---- one peer ---- */

static void on_frame(const struct rpc_frame *frame, void *arg)
{
	struct rpc_asker *asker = arg;
	if (frame->type == RPC_FRAME_REQUEST) {
		rpc_request_serve(asker, frame);
		return;
	}
	asker->spoke = true;
	if (frame->type == RPC_FRAME_RESULT || frame->type == RPC_FRAME_ERROR) {
		rpc_connection_fail(asker->connection, "response from the asking end");
		return;
	}
	if (frame->type == RPC_FRAME_NOTIFICATION) {
		if (asker->events && asker->events->on_notification)
			asker->events->on_notification(frame->method, frame->payload, asker->arg);
		return;
	}
	/* Answered or cancelled while this was on its way: legal, and of no more interest. */
	struct rpc_request *request = (struct rpc_request *)rpc_ids_find(&asker->ids, frame->id);
	if (!request)
		return;
	if (frame->type == RPC_FRAME_CHUNK) {
		rpc_request_got_chunk(request, frame);
	} else if (frame->type == RPC_FRAME_CREDIT) {
		request->send_credit = rpc_credit_add(request->send_credit, frame->credit_bytes);
		rpc_request_tell_credit(request);
	} else if (frame->type == RPC_FRAME_CANCEL) {
		rpc_request_cancelled(request);
	}
}

/* See rpc_client.c: each request once, whatever the callbacks end. */
static void on_drained(void *arg)
{
	struct rpc_asker *asker = arg;
	struct rpc_request *request;
	asker->round++;
	while (asker->connection && !rpc_connection_congested(asker->connection) &&
		(request = TAILQ_FIRST(&asker->requests)) && request->round != asker->round) {
		request->round = asker->round;
		TAILQ_REMOVE(&asker->requests, request, link);
		TAILQ_INSERT_TAIL(&asker->requests, request, link);
		rpc_request_tell_credit(request);
	}
}

static bool is_drained(const struct rpc_server *server)
{
	return server->draining && server->n_askers == 0 && server->n_lingering == 0 &&
	       server->on_drained;
}

void rpc_server_check_drained(struct rpc_server *server)
{
	if (is_drained(server))
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
static void asker_close(struct rpc_asker *asker)
{
	/* on_cancel may answer other requests of this peer (to nobody), or free the server, which
	 * closes this very asker: so it stays on the list until its requests are gone. */
	struct rpc_request *request;
	while ((request = TAILQ_FIRST(&asker->requests)))
		rpc_request_cancelled(request);
	struct rpc_server *server = asker->server;
	asker->server = NULL;
	if (server) {
		LIST_REMOVE(asker, link);
		server->n_askers--;
		watch_listener(server);
		rpc_server_check_drained(server);
	}
	if (asker->linger)
		asker->linger->server = server && !server->freeing ? server : NULL;
	rpc_connection_free(&asker->connection);
}

static void on_socket(int fd, bool eof, void *arg)
{
	struct rpc_asker *asker = arg;
	asker->socket = fd;
	asker->eof = eof;
}

/* Those who break the rules come back at once, some of them: some lines a second will do. */
static bool may_complain(struct rpc_server *server, unsigned *left_out)
{
	uint64_t now_us = loop_now_us(server->loop);
	*left_out = 0;
	if (now_us - server->complained_us >= 1000000) {
		if (server->n_complaints > MAX_COMPLAINTS)
			*left_out = server->n_complaints - MAX_COMPLAINTS;
		server->complained_us = now_us;
		server->n_complaints = 0;
	}
	return server->n_complaints++ < MAX_COMPLAINTS;
}

static void on_lost(int code, const char *reason, void *arg)
{
	struct rpc_asker *asker = arg;
	unsigned left_out = 0;
	bool broke_rules = code == RPC_PROTOCOL && asker->server;
	if (broke_rules ? may_complain(asker->server, &left_out) : asker->ids.count > 0)
		log_fields(broke_rules ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, NULL,
			"rpc: connection closed", LOG_STR("reason", reason),
			LOG_INT("peer_pid", asker->peer.pid), LOG_INT("peer_uid", asker->peer.uid),
			LOG_INT("requests", asker->ids.count), LOG_INT("left_out", left_out));
	asker_close(asker);
}

static void on_free(void *arg)
{
	struct rpc_asker *asker = arg;
	if (asker->linger)
		rpc_linger_begin(asker->linger, asker->socket, asker->eof);
	rpc_ids_free(&asker->ids);
	free(asker);
}

static const struct rpc_connection_events connection_events = {.on_frame = on_frame,
	.on_lost = on_lost,
	.on_drained = on_drained,
	.on_socket = on_socket,
	.on_free = on_free};

int rpc_asker_keep(struct rpc_asker *asker, const struct rpc_asker_events *events, void *arg)
{
	BUG_ON(asker->events || !asker->server);
	asker->linger = rpc_linger_new(asker->server, events, arg);
	if (!asker->linger)
		return -1;
	rpc_connection_keep_socket(asker->connection);
	asker->events = events;
	asker->arg = arg;
	return 0;
}

void *rpc_asker_context(const struct rpc_asker *asker)
{
	return asker->events ? asker->arg : NULL;
}

void rpc_asker_cut_off(struct rpc_asker *asker, const char *reason)
{
	rpc_connection_fail(asker->connection, reason);
}

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
	struct rpc_asker *asker = calloc(1, sizeof *asker);
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
	for (unsigned i = 0; server->n_askers < server->options.max_connections; i++) {
		if (i >= MAX_ACCEPTS_A_TURN ||
			(i >= MIN_ACCEPTS_A_TURN && loop_slice_is_over(server->loop)))
			return;
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
	if (is_drained(server)) /* one that was closed may linger since */
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
	LIST_INIT(&server->lingering);
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
		if (rpc_server_find(server, span_of(methods[n].name)))
			return -1;
	struct method_entry *grown = realloc(
		server->methods, (server->n_methods + n + 1) * sizeof *grown);
	if (!grown)
		return -1;
	server->methods = grown;
	for (size_t i = 0; i < n; i++)
		grown[server->n_methods++] = (struct method_entry){
			.name = span_of(methods[i].name), .method = &methods[i]};
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
	rpc_server_check_drained(server);
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
	s->draining = s->freeing = true;
	s->on_drained = NULL;
	stop_listening(s);
	struct rpc_asker *asker;
	while ((asker = LIST_FIRST(&s->askers)))
		asker_close(asker);
	struct rpc_linger *linger;
	while ((linger = LIST_FIRST(&s->lingering)))
		rpc_linger_end(linger);
	loop_defer_cancel(s->loop, &s->drained);
	free(s->methods);
	free(s);
}
