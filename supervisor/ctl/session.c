#include "supervisor/ctl/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/loop.h"

#define RETRY_MS   10
#define CONNECT_MS 2000
#define QUIET_MS   3000 /* after that a person is told why nothing comes */

const struct session_peer session_supervisor = {
	.name = "supervisor",
	.who = "the supervisor",
	.start = "start it with `make run`, or: supervisor --config manifests/local/pod.conf",
};

struct session {
	const struct session_peer *peer;
	struct loop *loop;
	struct rpc_client *client;
	struct timer *timer, *quiet_timer;
	bool timed_out, answered, quiet;

	struct buf *answer;
	enum ctl_exit result;
};

static void timer_due(void *arg)
{
	struct session *session = arg;
	session->timed_out = true;
	loop_stop(session->loop);
}

static void quiet_for_long(void *arg)
{
	const struct session *session = arg;
	if (isatty(STDERR_FILENO) && !session->quiet)
		fprintf(stderr,
			"podctl: waiting for %s; Ctrl-C leaves (what was asked for goes on)\n",
			session->peer->who);
}

/* Looked at once by hand, since the client below only knows that it is not connected. */
static int try_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof address.sun_path)
		return ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	int result = connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ? errno : 0;
	close(fd);
	return result;
}

static void explain(const struct session_peer *peer, const char *path, int error)
{
	if (error == ENOENT || error == ECONNREFUSED)
		fprintf(stderr,
			"podctl: no %s is running (%s: %s)\n"
			"  %s\n"
			"  running elsewhere? name its socket: podctl --socket PATH, or set RUN_DIR\n",
			peer->name, path, strerror(error), peer->start);
	else if (error == EACCES || error == EPERM)
		fprintf(stderr,
			"podctl: %s: %s\n  %s answers its own user and root: try as one of "
			"them\n",
			path, strerror(error), peer->who);
	else
		fprintf(stderr, "podctl: %s: %s\n", path, strerror(error));
}

static void client_state(bool connected, void *arg)
{
	struct session *session = arg;
	if (connected)
		loop_stop(session->loop);
}

static int wait_for_socket(struct session *session, const char *path, uint64_t wait_ms)
{
	uint64_t deadline = loop_now_us(session->loop) + wait_ms * 1000;
	int error;
	while ((error = try_connect(path)) != 0) {
		if (error == ENAMETOOLONG || loop_now_us(session->loop) >= deadline)
			break;
		timer_arm(session->timer, RETRY_MS);
		loop_run(session->loop);
	}
	session->timed_out = false;
	return error;
}

struct session *session_open(const struct session_peer *peer, const char *socket_path,
	uint64_t wait_ms, enum ctl_exit *exit_code)
{
	struct session *session = calloc(1, sizeof *session);
	*exit_code = CTL_FAILED;
	if (!session)
		return NULL;
	session->peer = peer;
	session->loop = loop_new();
	if (session->loop) {
		session->timer = timer_new(session->loop, timer_due, session);
		session->quiet_timer = timer_new(session->loop, quiet_for_long, session);
	}
	if (!session->timer || !session->quiet_timer) {
		fprintf(stderr, "podctl: %s\n", strerror(ENOMEM));
		goto fail;
	}
	*exit_code = CTL_NO_SUPERVISOR;
	int error = wait_for_socket(session, socket_path, wait_ms);
	if (error) {
		explain(peer, socket_path, error);
		goto fail;
	}
	session->client = rpc_client_new(
		session->loop, socket_path, &rpc_client_defaults, client_state, session);
	if (session->client)
		timer_arm(session->timer, CONNECT_MS);
	while (session->client && !rpc_client_connected(session->client) && !session->timed_out)
		loop_run(session->loop);
	timer_disarm(session->timer);
	if (session->client && rpc_client_connected(session->client))
		return session;
	fprintf(stderr, "podctl: %s: %s does not take the connection\n", socket_path, peer->who);
fail:
	session_free(&session);
	return NULL;
}

static void answered(struct span result, void *arg)
{
	struct session *session = arg;
	buf_append(session->answer, result.data, result.len);
}

static enum ctl_exit explain_error(const struct session *session, const struct rpc_error *error)
{
	bool lost = error->code == RPC_LOST;
	if (lost && !session->quiet)
		fprintf(stderr, "podctl: %s has ended\n", session->peer->who);
	else if (!session->quiet)
		fprintf(stderr, "podctl: %.*s\n", SPAN_ARG(error->message));
	return lost ? CTL_NO_SUPERVISOR : CTL_FAILED;
}

static void done(const struct rpc_error *error, void *arg)
{
	struct session *session = arg;
	session->answered = true;
	session->result = error ? explain_error(session, error) : CTL_OK;
	loop_stop(session->loop);
}

enum ctl_exit session_ask(struct session *session, const char *method,
	const struct msg_schema *schema, const void *params, uint64_t timeout_ms,
	bool quiet_timeout, struct buf *answer)
{
	static const struct rpc_call_events events = {.on_result = answered, .on_done = done};
	buf_clear(answer);
	session->answer = answer;
	session->timed_out = session->answered = false;
	struct rpc_call *call = msg_call(
		session->client, method, schema, params, 0, &events, session);
	if (!call) {
		fprintf(stderr, "podctl: the request is too long\n");
		return CTL_FAILED;
	}
	if (timeout_ms)
		timer_arm(session->timer, timeout_ms);
	timer_arm(session->quiet_timer, QUIET_MS);
	/* The news of the connection may stop the loop once as well. */
	while (!session->answered && !session->timed_out)
		loop_run(session->loop);
	timer_disarm(session->timer);
	timer_disarm(session->quiet_timer);
	if (session->answered)
		return session->result;
	rpc_call_cancel(&call);
	if (!quiet_timeout)
		fprintf(stderr, "podctl: no answer after %llu ms\n",
			(unsigned long long)timeout_ms);
	return CTL_TIMEOUT;
}

/* ---- streams ---- */

struct follow {
	struct session *session;
	size_t running;
	enum ctl_exit result;
	bool enough;
	bool (*on_data)(size_t i, struct span data, void *arg);
	void *arg;
};

struct stream {
	struct follow *follow;
	struct rpc_call *call;
	size_t i;
};

static void stream_begins(struct span result, void *arg)
{
	struct stream *stream = arg;
	struct msg_tail_result tail;
	struct msg_error error;
	if (msg_tail_result_unpack(result, &tail, &error) == 0 && tail.chunked)
		rpc_call_expect_chunks(stream->call);
}

static void stream_data(struct span data, bool end, void *arg)
{
	struct stream *stream = arg;
	struct follow *follow = stream->follow;
	if (data.len && !follow->on_data(stream->i, data, follow->arg)) {
		follow->enough = true;
		loop_stop(follow->session->loop);
	} else if (!end) {
		rpc_call_give_credit(stream->call, data.len);
	}
}

static void stream_done(const struct rpc_error *error, void *arg)
{
	struct stream *stream = arg;
	struct follow *follow = stream->follow;
	stream->call = NULL;
	follow->running--;
	if (error && error->code != RPC_CANCELLED && !follow->result)
		follow->result = explain_error(follow->session, error);
	loop_stop(follow->session->loop);
}

enum ctl_exit session_follow(struct session *session, const struct msg_tail_params *params,
	size_t n, bool (*on_data)(size_t i, struct span data, void *arg), void *arg)
{
	static const struct rpc_call_events events = {
		.on_result = stream_begins, .on_chunk = stream_data, .on_done = stream_done};
	struct follow follow = {.session = session, .on_data = on_data, .arg = arg};
	struct stream *streams = calloc(n + 1, sizeof *streams);
	if (!streams)
		return CTL_FAILED;
	for (size_t i = 0; i < n; i++) {
		streams[i] = (struct stream){.follow = &follow, .i = i};
		streams[i].call = msg_tail_call(
			session->client, &params[i], 0, &events, &streams[i]);
		follow.running += streams[i].call != NULL;
	}
	while (follow.running && !follow.enough)
		loop_run(session->loop);
	for (size_t i = 0; i < n; i++)
		rpc_call_cancel(&streams[i].call);
	free(streams);
	return follow.result;
}

struct loop *session_loop(const struct session *session)
{
	return session->loop;
}

const char *session_socket(const struct session *session)
{
	return rpc_client_path(session->client);
}

void session_set_quiet(struct session *session)
{
	session->quiet = true;
}

bool session_await(struct session *session, uint64_t ms)
{
	session->timed_out = false;
	timer_arm(session->timer, ms);
	rpc_client_wake(session->client);
	while (!session->timed_out && !rpc_client_connected(session->client))
		loop_run(session->loop);
	timer_disarm(session->timer);
	return rpc_client_connected(session->client);
}

bool session_sleep(struct session *session, uint64_t ms)
{
	session->timed_out = false;
	timer_arm(session->timer, ms);
	while (!session->timed_out && rpc_client_connected(session->client))
		loop_run(session->loop);
	timer_disarm(session->timer);
	return session->timed_out;
}

void session_free(struct session **session)
{
	struct session *s = *session;
	if (!s)
		return;
	*session = NULL;
	rpc_client_free(&s->client);
	timer_free(&s->timer);
	timer_free(&s->quiet_timer);
	loop_free(&s->loop);
	free(s);
}
