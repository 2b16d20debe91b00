#include "gatewayd/peers.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/messages.h"
#include "common/rendezvous.h"

#define MAX_PEERS       64
#define LINGER_MS       1000
#define PING_EVERY_MS   1000
#define PING_TIMEOUT_MS 1000
/* No byte within this time of connecting: dead, whoever holds its socket. */
#define FIRST_PING_TIMEOUT_MS 200
/* One that was lost counts again when it has answered a ping; it is asked so often, if there is
 * need. */
#define PROBE_EVERY_US 250000

struct peer {
	struct peers *peers;
	char *path;
	struct rpc_client *client;
	bool lost; /* since then no ping was answered */
	uint64_t next_probe_us;
	struct peer_user *users;
	struct timer *timer; /* pings while there are users, then closes */
	struct rpc_call *ping;
};

struct peers {
	struct loop *loop;
	unsigned self, n;
	bool draining;
	uint64_t nodes[MAX_PEERS];
	struct peer peer[MAX_PEERS];
};

static void close_client(struct peer *peer)
{
	timer_disarm(peer->timer);
	rpc_call_cancel(&peer->ping);
	rpc_client_free(&peer->client);
}

static void remove_user(struct peer_user *user)
{
	*user->prev = user->next;
	if (user->next)
		user->next->prev = user->prev;
	user->prev = NULL;
	user->next = NULL;
}

static void give_up(struct peer *peer, const char *why)
{
	if (!peer->lost)
		log_warn("peer %s: %s", peer->path, why);
	peer->lost = true;
	peer->next_probe_us = loop_now_us(peer->peers->loop) + PROBE_EVERY_US;
	/* The users cancel their calls, which needs the client. */
	struct peer_user *user;
	while ((user = peer->users)) {
		remove_user(user);
		user->on_lost(user->arg);
	}
	close_client(peer);
}

static void on_pinged(const struct rpc_error *error, void *arg)
{
	struct peer *peer = arg;
	peer->ping = NULL;
	if (error) {
		give_up(peer, rpc_code_name(error->code));
		return;
	}
	if (peer->lost)
		log_info("peer %s: is back", peer->path);
	peer->lost = false;
}

static const struct rpc_call_events ping_events = {.on_done = on_pinged};

static void ping(struct peer *peer, uint32_t timeout_ms)
{
	static const struct msg_empty nothing;
	if (!peer->ping)
		peer->ping = msg_ping_call(peer->client, &nothing, timeout_ms, &ping_events, peer);
}

/* The client would connect again by itself: to a socket that perhaps nobody reads. */
static void on_state(bool connected, void *arg)
{
	if (!connected)
		give_up(arg, "the connection broke");
}

static void on_timer(void *arg)
{
	struct peer *peer = arg;
	if (!peer->users && !peer->ping) {
		close_client(peer);
		return;
	}
	ping(peer, PING_TIMEOUT_MS);
	timer_arm(peer->timer, PING_EVERY_MS);
}

struct peers *peers_new(struct loop *loop, const char *run_dir, unsigned self, unsigned n)
{
	BUG_ON(n > MAX_PEERS);
	struct peers *peers = calloc(1, sizeof *peers);
	if (!peers)
		return NULL;
	peers->loop = loop;
	peers->self = self;
	peers->n = n;
	for (unsigned i = 0; i < n; i++) {
		char name[32];
		snprintf(name, sizeof name, "gatewayd.%u", i);
		peers->nodes[i] = rendezvous_node(span_of(name));
		struct peer *peer = &peers->peer[i];
		peer->peers = peers;
		peer->timer = timer_new(loop, on_timer, peer);
		if (asprintf(&peer->path, "%s/%s.sock", run_dir, name) < 0)
			peer->path = NULL;
		if (!peer->timer || !peer->path) {
			peers->n = i + 1;
			peers_free(&peers);
			return NULL;
		}
	}
	return peers;
}

/* Connect and ask for a sign of life. A peer that was never lost is trusted before it comes. */
static bool is_up(struct peer *peer)
{
	struct loop *loop = peer->peers->loop;
	if (peer->client)
		return !peer->lost;
	if (peer->lost && loop_now_us(loop) < peer->next_probe_us)
		return false;
	peer->client = rpc_client_new(loop, peer->path, &rpc_client_defaults, on_state, peer);
	if (!peer->client)
		return false;
	if (!rpc_client_connected(peer->client)) {
		give_up(peer, "cannot be reached");
		return false;
	}
	ping(peer, FIRST_PING_TIMEOUT_MS);
	timer_arm(peer->timer, LINGER_MS);
	return !peer->lost;
}

int peers_owner(struct peers *peers, const struct digest *key)
{
	if (peers->draining || peers->n < 2)
		return PEERS_SELF;
	size_t order[MAX_PEERS];
	rendezvous_rank(peers->nodes, peers->n,
		rendezvous_key((struct span){(const char *)key->bytes, DIGEST_BYTES}), order);
	for (unsigned i = 0; i < peers->n; i++) {
		if (order[i] == peers->self)
			return PEERS_SELF;
		if (is_up(&peers->peer[order[i]]))
			return (int)order[i];
	}
	return PEERS_SELF;
}

struct rpc_client *peers_join(struct peers *peers, int index, struct peer_user *user)
{
	struct peer *peer = &peers->peer[index];
	if (!is_up(peer))
		return NULL;
	user->next = peer->users;
	user->prev = &peer->users;
	if (user->next)
		user->next->prev = &user->next;
	peer->users = user;
	if (!timer_armed(peer->timer))
		timer_arm(peer->timer, PING_EVERY_MS);
	return peer->client;
}

void peers_leave(struct peers *peers, int index, struct peer_user *user)
{
	if (!user->prev)
		return;
	remove_user(user);
	struct peer *peer = &peers->peer[index];
	if (!peer->users && peer->client)
		timer_arm(peer->timer, peers->draining ? 0 : LINGER_MS);
}

void peers_drain(struct peers *peers)
{
	peers->draining = true;
	for (unsigned i = 0; i < peers->n; i++)
		if (!peers->peer[i].users)
			close_client(&peers->peer[i]);
}

void peers_free(struct peers **pointer)
{
	struct peers *peers = *pointer;
	if (!peers)
		return;
	*pointer = NULL;
	for (unsigned i = 0; i < peers->n; i++) {
		struct peer *peer = &peers->peer[i];
		BUG_ON(peer->users);
		if (peer->timer)
			close_client(peer);
		timer_free(&peer->timer);
		free(peer->path);
	}
	free(peers);
}
