#include "gatewayd/rpc_peer.h"

#include <stdlib.h>
#include <sys/queue.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/reclaim.h"

TAILQ_HEAD(body_list, rpc_peer_body);

struct rpc_peers {
	struct loop *loop;
	size_t max_bodies_bytes;
	LIST_HEAD(, rpc_peer) list;
	bool closed; /* the last peer frees it */
};

/* Lives as long as a request or a body of it does. Another peer that comes to have the same address
 * meanwhile shares it. */
struct rpc_peer {
	LIST_ENTRY(rpc_peer) link;
	struct rpc_peers *peers;
	const struct rpc_asker *asker;
	size_t refs;
	size_t params_bytes, bodies_bytes, answer_bytes;
	struct body_list waiting;
	struct deferred room;
};

struct rpc_peer_body {
	TAILQ_ENTRY(rpc_peer_body) link; /* while it waits */
	struct rpc_peer *peer;
	size_t len_bytes;
	bool waits;
	void (*on_room)(void *arg);
	void *arg;
	void *data; /* once it was taken */
	size_t data_bytes;
};

struct rpc_peers *rpc_peers_new(struct loop *loop, size_t max_body_bytes)
{
	struct rpc_peers *peers = calloc(1, sizeof *peers);
	if (!peers)
		return NULL;
	peers->loop = loop;
	peers->max_bodies_bytes = max_body_bytes * RPC_PEER_BODIES;
	return peers;
}

void rpc_peers_free(struct rpc_peers **peers)
{
	struct rpc_peers *p = *peers;
	*peers = NULL;
	if (!p)
		return;
	p->closed = true;
	if (LIST_EMPTY(&p->list))
		free(p);
}

static void unref(struct rpc_peer *peer)
{
	if (--peer->refs > 0)
		return;
	BUG_ON(peer->params_bytes || peer->bodies_bytes || peer->answer_bytes);
	struct rpc_peers *peers = peer->peers;
	loop_defer_cancel(peers->loop, &peer->room);
	LIST_REMOVE(peer, link);
	free(peer);
	if (peers->closed && LIST_EMPTY(&peers->list))
		free(peers);
}

static bool has_room(const struct rpc_peer *peer, size_t len_bytes)
{
	return peer->bodies_bytes + len_bytes <= peer->peers->max_bodies_bytes;
}

/* Those at the head of the queue, as far as the room goes. */
static void give_room(void *arg)
{
	struct rpc_peer *peer = arg;
	struct rpc_peer_body *body;
	peer->refs++;
	while ((body = TAILQ_FIRST(&peer->waiting)) && has_room(peer, body->len_bytes)) {
		TAILQ_REMOVE(&peer->waiting, body, link);
		body->waits = false;
		peer->bodies_bytes += body->len_bytes;
		body->on_room(body->arg);
	}
	unref(peer);
}

static struct rpc_peer *find(struct rpc_peers *peers, const struct rpc_asker *asker)
{
	struct rpc_peer *peer;
	LIST_FOREACH (peer, &peers->list, link)
		if (peer->asker == asker)
			return peer;
	peer = calloc(1, sizeof *peer);
	if (!peer)
		return NULL;
	peer->peers = peers;
	peer->asker = asker;
	TAILQ_INIT(&peer->waiting);
	deferred_init(&peer->room, give_room, peer);
	LIST_INSERT_HEAD(&peers->list, peer, link);
	return peer;
}

struct rpc_peer *rpc_peer_enter(
	struct rpc_peers *peers, const struct rpc_asker *asker, size_t params_bytes)
{
	struct rpc_peer *peer = find(peers, asker);
	if (!peer || peer->params_bytes + params_bytes > RPC_PEER_PARAMS_BYTES)
		return NULL;
	peer->params_bytes += params_bytes;
	peer->refs++;
	return peer;
}

void rpc_peer_leave(struct rpc_peer *peer, size_t params_bytes)
{
	peer->params_bytes -= params_bytes;
	unref(peer);
}

struct rpc_peer_body *rpc_peer_body_new(
	struct rpc_peer *peer, size_t len_bytes, void (*on_room)(void *arg), void *arg)
{
	struct rpc_peer_body *body = calloc(1, sizeof *body);
	if (!body)
		return NULL;
	*body = (struct rpc_peer_body){.peer = peer,
		.len_bytes = len_bytes,
		.waits = true,
		.on_room = on_room,
		.arg = arg};
	peer->refs++;
	if (TAILQ_EMPTY(&peer->waiting) && has_room(peer, len_bytes)) {
		body->waits = false;
		peer->bodies_bytes += len_bytes;
	} else {
		TAILQ_INSERT_TAIL(&peer->waiting, body, link);
	}
	return body;
}

bool rpc_peer_body_has_room(const struct rpc_peer_body *body)
{
	return !body->waits;
}

static void release(void *owner)
{
	struct rpc_peer_body *body = owner;
	reclaim(body->peer->peers->loop, body->data, body->data_bytes);
	rpc_peer_body_free(&body);
}

struct slice rpc_peer_body_take(struct rpc_peer_body **body_, void *data, size_t len_bytes)
{
	struct rpc_peer_body *body = *body_;
	*body_ = NULL;
	BUG_ON(body->waits);
	body->data = data;
	body->data_bytes = len_bytes;
	return (struct slice){
		.data = data, .len_bytes = len_bytes, .release = release, .owner = body};
}

void rpc_peer_body_free(struct rpc_peer_body **body_)
{
	struct rpc_peer_body *body = *body_;
	if (!body)
		return;
	*body_ = NULL;
	struct rpc_peer *peer = body->peer;
	if (body->waits)
		TAILQ_REMOVE(&peer->waiting, body, link);
	else
		peer->bodies_bytes -= body->len_bytes;
	if (!TAILQ_EMPTY(&peer->waiting))
		loop_defer(peer->peers->loop, &peer->room);
	free(body);
	unref(peer);
}

void rpc_peer_answer_more(struct rpc_peer *peer, size_t len_bytes)
{
	peer->answer_bytes += len_bytes;
}

void rpc_peer_answer_less(struct rpc_peer *peer, size_t len_bytes)
{
	peer->answer_bytes -= len_bytes;
}

bool rpc_peer_answers_too_much(const struct rpc_peer *peer)
{
	return peer->answer_bytes > RPC_PEER_ANSWER_BYTES;
}
