#include "common/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/retry.h"
#include "common/rpc_connection.h"
#include "common/rpc_ids.h"

/*
 * A call:  waiting --result--> done                    (on_result, on_done)
 *             |        \--expect_chunks--> streaming --end--> done
 *             \--error, timeout, loss, cancel--> done
 *
 * What must not end inside the caller's own stack frame (not connected, too busy) goes to the
 * list `failed`, which a deferred empties.
 */
enum call_state { CALL_WAITING, CALL_STREAMING, CALL_FAILED, CALL_DEAD };

struct rpc_call {
	struct rpc_id id; /* first: the table's links */
	TAILQ_ENTRY(rpc_call) link;
	struct rpc_client *client;
	const struct rpc_call_events *events;
	void *arg;
	uint64_t deadline_us;    /* 0: none */
	uint64_t send_credit;    /* of the request's body */
	uint64_t receive_credit; /* of the answer's */
	uint32_t round;          /* of resume(), see there */
	int failure;             /* CALL_FAILED */
	enum call_state state;
	bool in_callback;
	bool expect_chunks;
	bool body_ended;
};
TAILQ_HEAD(call_list, rpc_call);

struct rpc_client {
	struct loop *loop;
	struct sockaddr_un address;
	struct rpc_client_options options;
	void (*on_state)(bool connected, void *arg);
	void *arg;

	struct rpc_connection *connection; /* NULL while not connected */
	bool told_connected;               /* what on_state said last */
	struct deferred tell_state;
	struct timer *reconnect;
	struct backoff backoff;
	uint64_t attempt_us, connected_us; /* when the attempts began, when the last succeeded */

	struct call_list calls; /* waiting and streaming */
	struct call_list failed;
	struct rpc_ids ids;
	size_t n_failed;
	uint32_t next_id;
	uint32_t round;
	struct deferred fail_calls;
	struct timer *timeout;
	uint64_t timeout_us; /* when that timer fires; 0: not armed */

	unsigned hold;
	bool dead;
};

const struct rpc_client_options rpc_client_defaults = {200, 10, 1000};

static void try_connect(void *arg);

static void hold(struct rpc_client *client)
{
	client->hold++;
}

static void unhold(struct rpc_client *client)
{
	if (--client->hold == 0 && client->dead)
		free(client);
}

/* ---- one call ---- */

static void call_unlink(struct rpc_call *call)
{
	struct rpc_client *client = call->client;
	if (call->state == CALL_FAILED) {
		TAILQ_REMOVE(&client->failed, call, link);
		client->n_failed--;
	} else if (call->state != CALL_DEAD) {
		TAILQ_REMOVE(&client->calls, call, link);
		rpc_ids_remove(&client->ids, &call->id);
	}
	call->state = CALL_DEAD;
}

/* The call is over and told so: the one place that makes on_done. */
static void call_finish(struct rpc_call *call, int code, struct span message)
{
	struct rpc_error error = {code, message};
	call_unlink(call);
	call->in_callback = true;
	call->events->on_done(code ? &error : NULL, call->arg);
	free(call);
}

static const char *failure_text(int code)
{
	switch (code) {
	case RPC_BAD_PARAMS:
		return "params over the frame limit";
	case RPC_BUSY:
		return "too many calls under way";
	case RPC_TIMEOUT:
		return "no answer in time";
	case RPC_PROTOCOL:
		return "the peer broke the protocol";
	default:
		return "not connected";
	}
}

static void call_fail_later(struct rpc_call *call, int code)
{
	struct rpc_client *client = call->client;
	call->state = CALL_FAILED;
	call->failure = code;
	TAILQ_INSERT_TAIL(&client->failed, call, link);
	client->n_failed++;
	loop_defer(client->loop, &client->fail_calls);
}

static void fail_calls(void *arg)
{
	struct rpc_client *client = arg;
	hold(client);
	/* What fails anew in here waits for its own turn. */
	size_t n = client->n_failed;
	struct rpc_call *call;
	while (n-- && (call = TAILQ_FIRST(&client->failed)))
		call_finish(call, call->failure, span_of(failure_text(call->failure)));
	if (!client->dead && !TAILQ_EMPTY(&client->failed))
		loop_defer(client->loop, &client->fail_calls);
	unhold(client);
}

/* ---- timeouts: one timer, armed for the earliest deadline that was known when it was armed ----
 */

static void arm_timeout(struct rpc_client *client, uint64_t deadline_us, uint64_t now_us)
{
	if (client->timeout_us && client->timeout_us <= deadline_us)
		return;
	client->timeout_us = deadline_us;
	timer_arm(client->timeout, deadline_us > now_us ? (deadline_us - now_us + 999) / 1000 : 0);
}

static void on_timeout(void *arg)
{
	struct rpc_client *client = arg;
	uint64_t now_us = loop_now_us(client->loop), earliest_us = 0;
	client->timeout_us = 0;
	struct rpc_call *call, *next;
	for (call = TAILQ_FIRST(&client->calls); call; call = next) {
		next = TAILQ_NEXT(call, link);
		if (!call->deadline_us)
			continue;
		if (call->deadline_us <= now_us) {
			rpc_connection_put_cancel(client->connection, call->id.id);
			call_unlink(call);
			call_fail_later(call, RPC_TIMEOUT);
		} else if (!earliest_us || call->deadline_us < earliest_us) {
			earliest_us = call->deadline_us;
		}
	}
	if (earliest_us)
		arm_timeout(client, earliest_us, now_us);
}

/* ---- frames ---- */

static void got_result(struct rpc_call *call, struct span result)
{
	struct rpc_client *client = call->client;
	if (call->state != CALL_WAITING) {
		rpc_connection_fail(client->connection, "second response to one call");
		return;
	}
	call->state = CALL_STREAMING;
	call->deadline_us = 0;
	if (call->events->on_result) {
		call->in_callback = true;
		call->events->on_result(result, call->arg);
		call->in_callback = false;
		if (call->state == CALL_DEAD) {
			free(call);
			return;
		}
	}
	if (!call->expect_chunks)
		call_finish(call, 0, (struct span){0});
}

static void got_chunk(struct rpc_call *call, const struct rpc_frame *frame)
{
	struct rpc_client *client = call->client;
	if (call->state != CALL_STREAMING) {
		rpc_connection_fail(client->connection, "chunk before its response");
		return;
	}
	if (frame->payload.len > call->receive_credit) {
		rpc_connection_fail(client->connection, "chunk beyond its credit");
		return;
	}
	call->receive_credit -= frame->payload.len;
	if (call->events->on_chunk) {
		call->in_callback = true;
		call->events->on_chunk(frame->payload, frame->end, call->arg);
		call->in_callback = false;
		if (call->state == CALL_DEAD) {
			free(call);
			return;
		}
	}
	if (frame->end)
		call_finish(call, 0, (struct span){0});
}

static void tell_credit(struct rpc_call *call)
{
	uint64_t credit = rpc_call_credit(call);
	if (!credit || call->body_ended || !call->events->on_credit)
		return;
	call->in_callback = true;
	call->events->on_credit(credit, call->arg);
	call->in_callback = false;
	if (call->state == CALL_DEAD)
		free(call);
}

static void got_unknown(struct rpc_client *client, const struct rpc_frame *frame)
{
	bool answer = frame->type == RPC_FRAME_RESULT || frame->type == RPC_FRAME_ERROR;
	/* Calls end on both sides at once, so an answer may cross our cancel on its way. But ids
	 * are given in order: one that was not given yet cannot be late. */
	if (answer && (int32_t)(frame->id - client->next_id) >= 0)
		rpc_connection_fail(client->connection, "response to a call that was not made");
	/* A sender that nobody listens to would wait for credit for ever. */
	if (frame->type == RPC_FRAME_CHUNK && !frame->end)
		rpc_connection_put_cancel(client->connection, frame->id);
}

static void on_frame(const struct rpc_frame *frame, void *arg)
{
	struct rpc_client *client = arg;
	hold(client);
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
		got_result(call, frame->payload);
		break;
	case RPC_FRAME_ERROR:
		if (call->state != CALL_WAITING)
			rpc_connection_fail(client->connection, "second response to one call");
		else if (frame->error.code <= 0 || frame->error.code >= RPC_LOST)
			call_finish(call, RPC_FAILED, frame->error.message);
		else
			call_finish(call, frame->error.code, frame->error.message);
		break;
	case RPC_FRAME_CHUNK:
		got_chunk(call, frame);
		break;
	case RPC_FRAME_CREDIT:
		call->send_credit = rpc_credit_add(call->send_credit, frame->credit_bytes);
		tell_credit(call);
		break;
	case RPC_FRAME_CANCEL:
		call_finish(call, RPC_CANCELLED, SPAN_LITERAL("the peer gave up"));
		break;
	default:
		break;
	}
out:
	unhold(client);
}

/* The peer reads again: every call with a body to send hears its credit, once. Callbacks may end
 * any call, so each turn takes the first one that this round has not seen and moves it to the end.
 */
static void on_drained(void *arg)
{
	struct rpc_client *client = arg;
	struct rpc_call *call;
	hold(client);
	client->round++;
	while (!client->dead && client->connection &&
		!rpc_connection_congested(client->connection) &&
		(call = TAILQ_FIRST(&client->calls)) && call->round != client->round) {
		call->round = client->round;
		TAILQ_REMOVE(&client->calls, call, link);
		TAILQ_INSERT_TAIL(&client->calls, call, link);
		tell_credit(call);
	}
	unhold(client);
}

/* ---- connecting ---- */

static void tell_state(void *arg)
{
	struct rpc_client *client = arg;
	bool connected = client->connection != NULL;
	if (connected == client->told_connected)
		return;
	client->told_connected = connected;
	if (client->on_state)
		client->on_state(connected, client->arg);
}

static void on_lost(int code, const char *reason, void *arg)
{
	struct rpc_client *client = arg;
	hold(client);
	if (code == RPC_PROTOCOL)
		log_fields(LOG_LEVEL_ERROR, NULL,
			"rpc: connection closed, its peer broke the protocol",
			LOG_STR("socket", client->address.sun_path), LOG_STR("reason", reason));
	else
		log_debug("rpc: %s: %s", client->address.sun_path, reason);
	rpc_connection_free(&client->connection);
	struct rpc_call *call;
	while ((call = TAILQ_FIRST(&client->calls))) {
		call_unlink(call);
		call_fail_later(call, code);
	}
	uint64_t now_us = loop_now_us(client->loop);
	if (now_us - client->connected_us > (uint64_t)client->options.reconnect_max_ms * 1000)
		backoff_reset(&client->backoff);
	client->attempt_us = now_us;
	timer_arm(client->reconnect, backoff_next_ms(&client->backoff));
	tell_state(client);
	unhold(client);
}

static const struct rpc_connection_events connection_events = {
	.on_frame = on_frame, .on_lost = on_lost, .on_drained = on_drained};

static void try_connect(void *arg)
{
	struct rpc_client *client = arg;
	uint64_t now_us = loop_now_us(client->loop);
	bool queue_full = false;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&client->address,
			       sizeof client->address) == 0) {
		client->connection = rpc_connection_new(
			client->loop, fd, false, &connection_events, client);
		if (client->connection) {
			client->connected_us = now_us;
			loop_defer(client->loop, &client->tell_state);
			return;
		}
	} else if (fd >= 0) {
		/* A Unix socket connects at once, or its listener is too busy to accept. */
		queue_full = errno == EAGAIN;
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
	deferred_init(&client->fail_calls, fail_calls, client);
	backoff_init(&client->backoff, client->options.reconnect_min_ms,
		client->options.reconnect_max_ms, 2.0);
	client->reconnect = timer_new(loop, try_connect, client);
	if (!client->reconnect)
		goto fail_client;
	client->timeout = timer_new(loop, on_timeout, client);
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
	return client->connection != NULL;
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
	hold(c);
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
	unhold(c);
}

/* ---- calls ---- */

struct rpc_call *rpc_call_start(struct rpc_client *client, const char *method, struct span params,
	uint32_t timeout_ms, const struct rpc_call_events *events, void *arg)
{
	struct span name = span_of(method);
	BUG_ON(name.len > RPC_METHOD_MAX_BYTES || !events->on_done);
	struct rpc_call *call = malloc(sizeof *call);
	if (!call)
		return NULL;
	*call = (struct rpc_call){.client = client,
		.events = events,
		.arg = arg,
		.receive_credit = RPC_ANSWER_CREDIT_BYTES,
		.round = client->round};
	if (!client->connection) {
		call_fail_later(call, RPC_LOST);
		return call;
	}
	if (client->ids.count >= RPC_MAX_CALLS || params.len > RPC_MAX_PAYLOAD_BYTES ||
		rpc_connection_queued_bytes(client->connection) >
			RPC_SEND_MAX_BYTES - 2 * RPC_MAX_FRAME_BYTES) {
		call_fail_later(
			call, params.len > RPC_MAX_PAYLOAD_BYTES ? RPC_BAD_PARAMS : RPC_BUSY);
		return call;
	}
	do {
		call->id.id = client->next_id++;
	} while (rpc_ids_find(&client->ids, call->id.id));
	if (rpc_ids_add(&client->ids, &call->id) != 0) {
		free(call);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&client->calls, call, link);
	rpc_connection_put_request(client->connection, call->id.id, name, params);
	if (timeout_ms) {
		uint64_t now_us = loop_now_us(client->loop);
		call->deadline_us = now_us + (uint64_t)timeout_ms * 1000;
		arm_timeout(client, call->deadline_us, now_us);
	}
	return call;
}

void rpc_call_expect_chunks(struct rpc_call *call)
{
	call->expect_chunks = true;
}

uint64_t rpc_call_credit(const struct rpc_call *call)
{
	if ((call->state != CALL_WAITING && call->state != CALL_STREAMING) ||
		rpc_connection_congested(call->client->connection))
		return 0;
	return call->send_credit;
}

void rpc_call_send_chunk(struct rpc_call *call, struct slice data, bool end)
{
	if (call->state != CALL_WAITING && call->state != CALL_STREAMING) {
		slice_release(&data);
		return;
	}
	BUG_ON(call->body_ended || data.len_bytes > call->send_credit);
	if (data.len_bytes == 0 && !end) {
		slice_release(&data);
		return;
	}
	call->send_credit -= data.len_bytes;
	call->body_ended = end;
	rpc_connection_put_chunks(call->client->connection, call->id.id, data, end);
}

void rpc_call_give_credit(struct rpc_call *call, uint64_t bytes)
{
	if (!bytes || (call->state != CALL_WAITING && call->state != CALL_STREAMING))
		return;
	call->receive_credit = rpc_credit_add(call->receive_credit, bytes);
	rpc_connection_put_credit(call->client->connection, call->id.id, bytes);
}

void rpc_call_cancel(struct rpc_call **call)
{
	struct rpc_call *c = *call;
	if (!c)
		return;
	*call = NULL;
	if (c->state == CALL_DEAD)
		return;
	if ((c->state == CALL_WAITING || c->state == CALL_STREAMING) && c->client->connection)
		rpc_connection_put_cancel(c->client->connection, c->id.id);
	call_unlink(c);
	if (!c->in_callback)
		free(c);
}
