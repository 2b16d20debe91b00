#include "common/rpc_client_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"

const struct rpc_client_options rpc_client_defaults = {
	.connect_timeout_ms = 200, .reconnect_min_ms = 10, .reconnect_max_ms = 1000};

static void try_connect(void *arg);

void rpc_client_hold(struct rpc_client *client)
{
	client->hold++;
}

void rpc_client_unhold(struct rpc_client *client)
{
	if (--client->hold == 0 && client->dead)
		free(client);
}

/* ---- the first exchange ---- */

#define ATTACH_ID 0 /* calls begin with 1 */

static void attach(struct rpc_client *client)
{
	client->attaching = true;
	rpc_connection_expect_descriptor(client->connection);
	rpc_connection_put_request(client->connection, ATTACH_ID,
		span_of(client->options.attach->method), SPAN_LITERAL("\x90"));
}

static void got_attach_answer(struct rpc_client *client, const struct rpc_frame *frame)
{
	int fd = rpc_connection_take_descriptor(client->connection);
	if (frame->id != ATTACH_ID ||
		(frame->type != RPC_FRAME_RESULT && frame->type != RPC_FRAME_ERROR) ||
		(frame->type == RPC_FRAME_RESULT) != (fd >= 0)) {
		if (fd >= 0)
			close(fd);
		rpc_connection_fail(client->connection, "not an answer to the first request");
		return;
	}
	if (frame->type == RPC_FRAME_RESULT) {
		if (client->options.attach->on_attached(frame->payload, fd, client->arg) != 0) {
			rpc_connection_fail(client->connection, "what it passed is of no use");
			return;
		}
		client->attached = true;
		rpc_connection_keep_socket(client->connection);
	}
	client->attaching = false;
	loop_defer(client->loop, &client->tell_state);
}

static void on_socket(int fd, bool eof, void *arg)
{
	struct rpc_client *client = arg;
	(void)eof;
	client->attached = false;
	client->options.attach->on_detached(fd, client->arg);
}

/* ---- frames ---- */

static void got_unknown(struct rpc_client *client, const struct rpc_frame *frame)
{
	bool answer = frame->type == RPC_FRAME_RESULT || frame->type == RPC_FRAME_ERROR;
	/* Calls end on both sides at once, so an answer may cross our cancel on its way. But ids
	 * are given in order: one that was not given yet cannot be late. */
	if (answer && (int32_t)(frame->id - client->next_id) >= 0)
		rpc_connection_fail(client->connection, "response to a call that was not made");
	else if (frame->type == RPC_FRAME_RESULT && client->attached)
		client->options.attach->on_unclaimed(frame->payload, client->arg);
	/* A sender that nobody listens to would wait for credit for ever. */
	if (frame->type == RPC_FRAME_CHUNK && !frame->end)
		rpc_connection_put_cancel(client->connection, frame->id);
}

static void on_frame(const struct rpc_frame *frame, void *arg)
{
	struct rpc_client *client = arg;
	rpc_client_hold(client);
	if (client->attaching) {
		got_attach_answer(client, frame);
		goto out;
	}
	backoff_reset(&client->backoff);
	if (frame->type == RPC_FRAME_REQUEST) {
		rpc_connection_fail(client->connection, "request from the answering end");
		goto out;
	}
	if (frame->type == RPC_FRAME_NOTIFICATION)
		goto out;
	struct rpc_call *call = (struct rpc_call *)rpc_ids_find(&client->ids, frame->id);
	if (!call) {
		got_unknown(client, frame);
		goto out;
	}
	switch (frame->type) {
	case RPC_FRAME_RESULT:
		rpc_call_got_result(call, frame->payload);
		break;
	case RPC_FRAME_ERROR:
		if (call->state != CALL_WAITING)
			rpc_connection_fail(client->connection, "second response to one call");
		else if (frame->error.code <= 0 || frame->error.code >= RPC_LOST)
			rpc_call_finish(call, RPC_FAILED, frame->error.message);
		else
			rpc_call_finish(call, frame->error.code, frame->error.message);
		break;
	case RPC_FRAME_CHUNK:
		rpc_call_got_chunk(call, frame);
		break;
	case RPC_FRAME_CREDIT:
		call->send_credit = rpc_credit_add(call->send_credit, frame->credit_bytes);
		rpc_call_tell_credit(call);
		break;
	case RPC_FRAME_CANCEL:
		rpc_call_finish(call, RPC_CANCELLED, SPAN_LITERAL("the peer gave up"));
		break;
	default:
		break;
	}
out:
	rpc_client_unhold(client);
}

/* The peer reads again: every call with a body to send hears its credit, once. Callbacks may end
 * any call, so each turn takes the first one that this round has not seen and moves it to the end.
 */
static void on_drained(void *arg)
{
	struct rpc_client *client = arg;
	struct rpc_call *call;
	rpc_client_hold(client);
	client->round++;
	while (!client->dead && client->connection &&
		!rpc_connection_congested(client->connection) &&
		(call = TAILQ_FIRST(&client->calls)) && call->round != client->round) {
		call->round = client->round;
		TAILQ_REMOVE(&client->calls, call, link);
		TAILQ_INSERT_TAIL(&client->calls, call, link);
		rpc_call_tell_credit(call);
	}
	rpc_client_unhold(client);
}

/* ---- connecting ---- */

static void tell_state(void *arg)
{
	struct rpc_client *client = arg;
	bool connected = rpc_client_connected(client);
	if (connected == client->told_connected)
		return;
	client->told_connected = connected;
	if (client->on_state)
		client->on_state(connected, client->arg);
}

static void on_lost(int code, const char *reason, void *arg)
{
	struct rpc_client *client = arg;
	rpc_client_hold(client);
	if (code == RPC_PROTOCOL)
		log_fields(LOG_LEVEL_ERROR, NULL,
			"rpc: connection closed, its peer broke the protocol",
			LOG_STR("socket", client->address.sun_path), LOG_STR("reason", reason));
	else
		log_debug("rpc: %s: %s", client->address.sun_path, reason);
	rpc_connection_free(&client->connection);
	rpc_calls_fail_later(client, code);
	uint64_t now_us = loop_now_us(client->loop);
	if (now_us - client->connected_us > (uint64_t)client->options.reconnect_max_ms * 1000)
		backoff_reset(&client->backoff);
	client->attempt_us = now_us;
	timer_arm(client->reconnect, backoff_next_ms(&client->backoff));
	tell_state(client);
	rpc_client_unhold(client);
}

static const struct rpc_connection_events connection_events = {
	.on_frame = on_frame, .on_lost = on_lost, .on_drained = on_drained, .on_socket = on_socket};

static void try_connect(void *arg)
{
	struct rpc_client *client = arg;
	uint64_t now_us = loop_now_us(client->loop);
	bool queue_full = false;
	client->absent = false;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&client->address,
			       sizeof client->address) == 0) {
		client->connection = rpc_connection_new(
			client->loop, fd, false, &connection_events, client);
		if (client->connection) {
			client->connected_us = now_us;
			client->attaching = false;
			if (client->options.attach) {
				attach(client);
				return;
			}
			loop_defer(client->loop, &client->tell_state);
			return;
		}
	} else if (fd >= 0) {
		/* A Unix socket connects at once, or its listener is too busy to accept. */
		queue_full = errno == EAGAIN;
		client->absent = errno == ECONNREFUSED || errno == ENOENT;
		close(fd);
	}
	bool patient = queue_full && now_us - client->attempt_us <
					     (uint64_t)client->options.connect_timeout_ms * 1000;
	timer_arm(client->reconnect,
		patient ? client->options.reconnect_min_ms : backoff_next_ms(&client->backoff));
}

struct rpc_client *rpc_client_new(struct loop *loop, const char *socket_path,
	const struct rpc_client_options *options, void (*on_state)(bool connected, void *arg),
	void *arg)
{
	struct rpc_client *client = calloc(1, sizeof *client);
	if (!client)
		return NULL;
	size_t len = strlen(socket_path);
	if (len == 0 || len >= sizeof client->address.sun_path)
		goto fail_client;
	client->loop = loop;
	client->address.sun_family = AF_UNIX;
	memcpy(client->address.sun_path, socket_path, len + 1);
	client->options = options ? *options : rpc_client_defaults;
	client->on_state = on_state;
	client->arg = arg;
	client->next_id = 1;
	TAILQ_INIT(&client->calls);
	TAILQ_INIT(&client->failed);
	deferred_init(&client->tell_state, tell_state, client);
	deferred_init(&client->fail_calls, rpc_calls_tell_failed, client);
	backoff_init(&client->backoff, client->options.reconnect_min_ms,
		client->options.reconnect_max_ms, 2.0);
	client->reconnect = timer_new(loop, try_connect, client);
	if (!client->reconnect)
		goto fail_client;
	client->timeout = timer_new(loop, rpc_calls_timeout, client);
	if (!client->timeout)
		goto fail_reconnect;
	client->attempt_us = loop_now_us(loop);
	try_connect(client);
	return client;

fail_reconnect:
	timer_free(&client->reconnect);
fail_client:
	free(client);
	return NULL;
}

bool rpc_client_connected(const struct rpc_client *client)
{
	return client->connection && !client->attaching;
}

bool rpc_client_absent(const struct rpc_client *client)
{
	return client->absent;
}

size_t rpc_client_calls(const struct rpc_client *client)
{
	return client->ids.count + client->n_failed;
}

const char *rpc_client_path(const struct rpc_client *client)
{
	return client->address.sun_path;
}

void rpc_client_wake(struct rpc_client *client)
{
	if (client->connection)
		return;
	timer_disarm(client->reconnect);
	try_connect(client);
}

void rpc_client_free(struct rpc_client **client)
{
	struct rpc_client *c = *client;
	if (!c)
		return;
	*client = NULL;
	rpc_client_hold(c);
	c->dead = true;
	rpc_connection_free(&c->connection);
	struct rpc_call *call;
	while ((call = TAILQ_FIRST(&c->calls)) || (call = TAILQ_FIRST(&c->failed)))
		rpc_call_cancel(&call);
	rpc_ids_free(&c->ids);
	loop_defer_cancel(c->loop, &c->tell_state);
	loop_defer_cancel(c->loop, &c->fail_calls);
	timer_free(&c->reconnect);
	timer_free(&c->timeout);
	rpc_client_unhold(c);
}

/* ---- notifications ---- */

void rpc_client_notify(struct rpc_client *client, const char *method, struct span params)
{
	if (rpc_client_connected(client))
		rpc_connection_put_notification(client->connection, span_of(method), params);
}
