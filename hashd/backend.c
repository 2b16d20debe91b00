#include "hashd/backend.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/messages.h"
#include "common/metrics.h"
#include "common/rendezvous.h"
#include "common/rpc.h"
#include "hashd/conf.h"
#include "hashd/observe.h"
#include "hashd/window.h"

/* A request that finds nobody up makes us connect at once, but not more often than this. */
#define WAKE_PAUSE_US    20000
#define RECONNECT_MAX_MS 250

enum backend_state {
	BACKEND_AWAY,
	BACKEND_SILENT,
	BACKEND_UP,
	BACKEND_LEAVING,
	BACKEND_SUSPECT,
	BACKEND_DEAD,
};
static const char *const state_names[] = {"away", "silent", "up", "leaving", "suspect", "dead"};

struct backend {
	struct backends *owner;
	char *name;
	uint64_t node; /* in the ranking */
	struct rpc_client *client;
	struct window *window;
	enum backend_state state;
	struct rpc_call *ping;
	uint64_t heard_us, woken_us;
	struct metric *up;
	struct metric *durations[2]; /* of requests: failed, ok */
};

struct backends {
	struct loop *loop;
	const struct hashd_conf *conf;
	struct backends_events events;
	void *arg;
	struct timer *timer;
	struct metric *rerouted;
	size_t count, n_up;
	struct backend backend[HASHD_MAX_BACKENDS];
};

static void send_ping(struct backend *backend, uint32_t timeout_ms);
static void on_state(bool connected, void *arg);

static void set_state(struct backend *backend, enum backend_state state)
{
	enum backend_state old = backend->state;
	struct backends *owner = backend->owner;

	if (state == old)
		return;
	backend->state = state;
	log_fields(state == BACKEND_UP || state == BACKEND_SILENT ? LOG_LEVEL_INFO : LOG_LEVEL_WARN,
		NULL, "gatewayd changed state", LOG_STR("backend", backend->name),
		LOG_STR("from", state_names[old]), LOG_STR("to", state_names[state]));
	owner->n_up += (state == BACKEND_UP) - (old == BACKEND_UP);
	metric_set(backend->up, state == BACKEND_UP);
	if ((state == BACKEND_UP || state == BACKEND_LEAVING) && owner->events.on_up)
		owner->events.on_up(owner->arg);
	if (state == BACKEND_DEAD && owner->events.on_dead)
		owner->events.on_dead(backend, owner->arg);
}

struct window *backend_window(const struct backend *backend)
{
	return backend->window;
}

void backend_heard(struct backend *backend)
{
	backend->heard_us = loop_now_us(backend->owner->loop);
	/* Whether one that leaves has changed its mind is for the next ping to say. */
	if (backend->state != BACKEND_AWAY && backend->state != BACKEND_LEAVING)
		set_state(backend, BACKEND_UP);
}

static void on_pong(struct span result, void *arg)
{
	struct backend *backend = arg;
	struct msg_ping_result pong;
	struct msg_error error;

	backend->heard_us = loop_now_us(backend->owner->loop);
	if (msg_ping_result_unpack(result, &pong, &error) < 0) {
		log_error("%s: bad answer to a ping: %s", backend->name, error.text);
		return;
	}
	set_state(backend, pong.ready ? BACKEND_UP : BACKEND_LEAVING);
}

static uint64_t timeout_us(const struct hashd_conf *conf)
{
	return (uint64_t)conf->ping_timeout_ms * 1000;
}

static void on_ping_done(const struct rpc_error *error, void *arg)
{
	struct backend *backend = arg;
	const struct hashd_conf *conf = backend->owner->conf;

	backend->ping = NULL;
	if (!error || error->code == RPC_LOST || error->code == RPC_PROTOCOL)
		return;
	if (error->code != RPC_TIMEOUT) {
		backend_heard(backend); /* an answer all the same */
		return;
	}
	uint64_t silent_us = loop_now_us(backend->owner->loop) - backend->heard_us;

	if (backend->state == BACKEND_SILENT) {
		/* A process that just starts is to be noticed as soon as it answers. */
		send_ping(backend, (uint32_t)conf->first_byte_ms);
	} else if ((backend->state == BACKEND_UP || backend->state == BACKEND_LEAVING) &&
		   silent_us >= timeout_us(conf)) {
		/* Do not wait for the interval: a suspect is to be told from a dead one soon. */
		set_state(backend, BACKEND_SUSPECT);
		send_ping(backend, (uint32_t)conf->ping_timeout_ms);
	} else if (backend->state == BACKEND_SUSPECT) {
		set_state(backend, BACKEND_DEAD);
	}
}

static const struct rpc_call_events ping_events = {.on_result = on_pong, .on_done = on_ping_done};

/* ---- Its arena ---- */

static int on_attached(struct span result, int fd, void *arg)
{
	struct backend *backend = arg;
	struct msg_attach_result attached;
	struct msg_error error;

	if (msg_attach_result_unpack(result, &attached, &error) < 0) {
		log_error("%s: bad answer to attach: %s", backend->name, error.text);
		close(fd);
		return -1;
	}
	backend->window = window_open(
		backend->owner->loop, backend->client, attached.arena_bytes, fd);
	return backend->window ? 0 : -1;
}

static void on_detached(int socket, void *arg)
{
	struct backend *backend = arg;

	window_detach(&backend->window, socket);
}

/* The answer to a request that was cancelled meanwhile. */
static void on_unclaimed(struct span result, void *arg)
{
	struct backend *backend = arg;
	static struct msg_request_result answer;
	struct msg_error error;

	if (msg_request_result_unpack(result, &answer, &error) == 0 && answer.lease &&
		backend->window)
		window_return(backend->window, answer.lease);
}

static struct rpc_client *connect_to(struct backend *backend, const char *path)
{
	static const struct rpc_client_attach attach = {.method = "attach",
		.on_attached = on_attached,
		.on_detached = on_detached,
		.on_unclaimed = on_unclaimed};
	static const struct rpc_client_options options = {
		.attach = &attach,
		.connect_timeout_ms = 200,
		.reconnect_min_ms = 10,
		.reconnect_max_ms = RECONNECT_MAX_MS,
	};

	return rpc_client_new(backend->owner->loop, path, &options, on_state, backend);
}

static void send_ping(struct backend *backend, uint32_t timeout_ms)
{
	backend->ping = rpc_call_start(
		backend->client, "ping", SPAN_LITERAL("\x90"), timeout_ms, &ping_events, backend);
}

static void on_state(bool connected, void *arg)
{
	struct backend *backend = arg;
	const struct hashd_conf *conf = backend->owner->conf;

	if (!connected) {
		set_state(backend, BACKEND_AWAY);
		return;
	}
	backend->heard_us = loop_now_us(backend->owner->loop);
	set_state(backend, BACKEND_SILENT);
	rpc_call_cancel(&backend->ping);
	send_ping(backend, (uint32_t)conf->first_byte_ms);
}

/* It waits for its peers to go before it stops. What comes after it is found by connecting again.
 */
static void hang_up_if_idle(struct backend *backend)
{
	if (backend->ping || rpc_client_calls(backend->client) > 0)
		return;
	struct rpc_client *fresh = connect_to(backend, rpc_client_path(backend->client));

	if (!fresh)
		return;
	rpc_client_free(&backend->client);
	backend->client = fresh;
	set_state(backend, BACKEND_AWAY);
}

static void on_tick(void *arg)
{
	struct backends *backends = arg;

	for (size_t i = 0; i < backends->count; i++) {
		struct backend *backend = &backends->backend[i];

		if (backend->state == BACKEND_LEAVING)
			hang_up_if_idle(backend);
		if (backend->state != BACKEND_AWAY && !backend->ping)
			send_ping(backend, (uint32_t)backends->conf->ping_timeout_ms);
	}
	timer_arm(backends->timer, (uint64_t)backends->conf->ping_interval_ms);
}

void backend_answered(struct backend *backend, bool ok, uint64_t duration_us)
{
	metric_observe(backend->durations[ok], (double)duration_us / 1e6);
}

/* ---- The set ---- */

/* name and path are taken over. -1 when out of memory. */
static int add(struct backends *backends, struct metrics *metrics, char *name, char *path)
{
	struct backend *backend = &backends->backend[backends->count];

	if (!name || !path)
		goto fail;
	*backend = (struct backend){.owner = backends, .name = name};
	backend->node = rendezvous_node(span_of(name));
	backend->up = metric(metrics, observe_family(OBSERVE_BACKEND_UP), name);
	for (int ok = 0; ok < 2; ok++)
		backend->durations[ok] = metric(metrics, observe_family(OBSERVE_BACKEND_DURATION),
			name, ok ? "ok" : "failed");
	backend->client = connect_to(backend, path);
	if (!backend->client)
		goto fail;
	free(path);
	backends->count++;
	return 0;
fail:
	free(name);
	free(path);
	return -1;
}

static int add_instances(struct backends *backends, struct metrics *metrics)
{
	const struct hashd_conf *conf = backends->conf;

	for (int64_t i = 0; i < conf->instances; i++) {
		char *name = NULL, *path = NULL;

		if (asprintf(&name, "gatewayd.%lld", (long long)i) < 0)
			name = NULL;
		if (asprintf(&path, "%s/gatewayd.%lld.sock", conf->common.run_dir, (long long)i) <
			0)
			path = NULL;
		if (add(backends, metrics, name, path) < 0)
			return -1;
	}
	return 0;
}

/* Named by their paths: every hashd with the same list ranks alike. */
static int add_named(struct backends *backends, struct metrics *metrics)
{
	char *list = strdup(backends->conf->backends), *rest = list;
	int result = list ? 0 : -1;

	for (char *path; result == 0 && (path = strtok_r(rest, ", ", &rest));) {
		if (backends->count == HASHD_MAX_BACKENDS)
			die(78, "HASHD_BACKENDS names more than %d sockets", HASHD_MAX_BACKENDS);
		result = add(backends, metrics, strdup(path), strdup(path));
	}
	if (result == 0 && backends->count == 0)
		die(78, "HASHD_BACKENDS names no socket");
	free(list);
	return result;
}

struct backends *backends_new(struct loop *loop, const struct hashd_conf *conf,
	struct metrics *metrics, const struct backends_events *events, void *arg)
{
	struct backends *backends = calloc(1, sizeof(*backends));

	if (!backends)
		return NULL;
	backends->loop = loop;
	backends->conf = conf;
	backends->events = *events;
	backends->arg = arg;
	backends->rerouted = metric(metrics, observe_family(OBSERVE_REROUTED));
	backends->timer = timer_new(loop, on_tick, backends);
	if (!backends->timer)
		goto fail;
	if ((conf->backends[0] ? add_named(backends, metrics) : add_instances(backends, metrics)) <
		0)
		goto fail;
	timer_arm(backends->timer, (uint64_t)conf->ping_interval_ms);
	return backends;
fail:
	backends_free(&backends);
	return NULL;
}

void backends_free(struct backends **backends_)
{
	struct backends *backends = *backends_;

	if (!backends)
		return;
	for (size_t i = 0; i < backends->count; i++) {
		rpc_client_free(&backends->backend[i].client);
		free(backends->backend[i].name);
	}
	timer_free(&backends->timer);
	free(backends);
	*backends_ = NULL;
}

static void wake_all(struct backends *backends)
{
	uint64_t now = loop_now_us(backends->loop);

	for (size_t i = 0; i < backends->count; i++) {
		struct backend *backend = &backends->backend[i];

		if (backend->state != BACKEND_AWAY || now - backend->woken_us < WAKE_PAUSE_US)
			continue;
		backend->woken_us = now;
		rpc_client_wake(backend->client);
	}
}

struct backend *backends_choose(
	struct backends *backends, const struct digest *key, const struct backend *avoid)
{
	uint64_t hash = rendezvous_key((struct span){(const char *)key->bytes, DIGEST_BYTES});
	struct backend *best = NULL, *first = NULL;
	uint64_t first_weight = 0, best_weight = 0;
	unsigned best_rank = 0; /* 3: up, 2: leaving, 1: to be avoided */

	for (size_t i = 0; i < backends->count; i++) {
		struct backend *backend = &backends->backend[i];
		uint64_t weight = rendezvous_weight(backend->node, hash);
		unsigned rank = backend->state == BACKEND_UP        ? 3
				: backend->state == BACKEND_LEAVING ? 2
								    : 0;

		if (!first || weight > first_weight) {
			first = backend;
			first_weight = weight;
		}
		if (rank && backend == avoid)
			rank = 1;
		if (rank > best_rank || (rank && rank == best_rank && weight > best_weight)) {
			best = backend;
			best_weight = weight;
			best_rank = rank;
		}
	}
	if (!best)
		wake_all(backends);
	else if (best != first)
		metric_add(backends->rerouted, 1);
	return best;
}

size_t backends_up(const struct backends *backends)
{
	return backends->n_up;
}

size_t backends_count(const struct backends *backends)
{
	return backends->count;
}

const char *backend_name(const struct backend *backend)
{
	return backend->name;
}

struct rpc_client *backend_client(const struct backend *backend)
{
	return backend->client;
}
