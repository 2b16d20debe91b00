#include "gatewayd/lease.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/arena.h"
#include "common/log.h"
#include "common/messages.h"
#include "gatewayd/cache.h"

/* An id is a place in the peer's table, and how often it was used. */
#define SLOT_BITS  20
#define MAX_SLOTS  (1u << 16)
#define NO_SLOT    UINT32_MAX
#define LENT_SHARE 4 /* of the arena: a quarter */

struct leases {
	struct cache *cache;
	uint64_t arena_bytes;
	struct leases_counters counters;
};

struct slot {
	struct cache_object *object; /* NULL: free */
	uint32_t uses;
	uint32_t next_free;
};

/* One attached connection. */
struct lease_peer {
	struct leases *leases;
	struct rpc_asker *asker; /* while it may speak */
	struct slot *slots;
	uint32_t n_slots, capacity, free_slot;
};

struct leases *leases_new(struct cache *cache)
{
	struct leases *leases = calloc(1, sizeof *leases);
	if (!leases)
		return NULL;
	leases->cache = cache;
	leases->arena_bytes = arena_stats(cache_arena(cache)).size_bytes;
	return leases;
}

void leases_free(struct leases **leases)
{
	if (*leases)
		BUG_ON((*leases)->counters.peers);
	free(*leases);
	*leases = NULL;
}

const struct leases_counters *leases_counters(const struct leases *leases)
{
	return &leases->counters;
}

void leases_count_reset(struct leases *leases)
{
	leases->counters.reset++;
}

bool leases_overdrawn(const struct leases *leases)
{
	return cache_lent_bytes(leases->cache) > leases->arena_bytes / LENT_SHARE * 2;
}

/* ---- One peer ---- */

static int take_slot(struct lease_peer *peer, uint32_t *slot)
{
	if (peer->free_slot != NO_SLOT) {
		*slot = peer->free_slot;
		peer->free_slot = peer->slots[*slot].next_free;
		return 0;
	}
	if (peer->n_slots == peer->capacity) {
		uint32_t capacity = peer->capacity ? peer->capacity * 2 : 64;
		if (capacity > MAX_SLOTS)
			return -1;
		struct slot *slots = reallocarray(peer->slots, capacity, sizeof *slots);
		if (!slots)
			return -1;
		peer->slots = slots;
		peer->capacity = capacity;
	}
	*slot = peer->n_slots++;
	peer->slots[*slot].uses = 0;
	return 0;
}

bool lease_grant(const struct rpc_request *request, struct cache_object *object,
	enum cache_form form, struct lease *lease)
{
	struct lease_peer *peer = rpc_asker_context(rpc_request_asker(request));
	struct span body;
	uint32_t at;
	if (!peer || !cache_object_form(object, form, &body) ||
		cache_object_form_offset(object, form) == ARENA_NONE)
		return false;
	struct leases *leases = peer->leases;
	if (cache_lent_bytes(leases->cache) > leases->arena_bytes / LENT_SHARE ||
		take_slot(peer, &at) != 0) {
		leases->counters.refused++;
		return false;
	}
	struct slot *slot = &peer->slots[at];
	if (++slot->uses == 0)
		slot->uses = 1;
	slot->object = cache_object_lend(object);
	*lease = (struct lease){(uint64_t)slot->uses << SLOT_BITS | at,
		cache_object_form_offset(object, form), body.len};
	leases->counters.granted++;
	leases->counters.held++;
	return true;
}

static void give_back(struct lease_peer *peer, uint32_t at)
{
	struct slot *slot = &peer->slots[at];
	cache_object_give_back(&slot->object);
	slot->next_free = peer->free_slot;
	peer->free_slot = at;
	peer->leases->counters.held--;
}

static bool holds(const struct lease_peer *peer, uint64_t id)
{
	uint64_t at = id & ((1u << SLOT_BITS) - 1);
	return at < peer->n_slots && peer->slots[at].object &&
	       id >> SLOT_BITS == peer->slots[at].uses;
}

static void cut_off(struct leases *leases, struct rpc_asker *asker, const char *why)
{
	leases->counters.cut_off++;
	rpc_asker_cut_off(asker, why);
}

static void on_notification(struct span method, struct span params, void *arg)
{
	struct lease_peer *peer = arg;
	struct msg_release release;
	struct msg_error error;
	if (!span_equal_str(method, "release"))
		return;
	if (msg_release_unpack(params, &release, &error) < 0) {
		log_error("rpc: release: %s", error.text);
		cut_off(peer->leases, peer->asker, "release is not a list of leases");
		return;
	}
	const char *wrong = NULL;
	for (size_t i = 0; i < release.leases.count && !wrong; i++) {
		uint64_t id = release.leases.items[i];
		if (holds(peer, id))
			give_back(peer, (uint32_t)(id & ((1u << SLOT_BITS) - 1)));
		else
			wrong = "release of a lease that it does not hold";
	}
	msg_release_free(&release);
	if (wrong)
		cut_off(peer->leases, peer->asker, wrong);
}

static void on_gone(void *arg)
{
	struct lease_peer *peer = arg;
	for (uint32_t i = 0; i < peer->n_slots; i++)
		if (peer->slots[i].object)
			give_back(peer, i);
	peer->leases->counters.peers--;
	free(peer->slots);
	free(peer);
}

static const struct rpc_asker_events asker_events = {
	.on_notification = on_notification, .on_gone = on_gone};

void leases_serve_attach(struct rpc_request *request, struct span params, void *arg)
{
	struct leases *leases = arg;
	struct rpc_asker *asker = rpc_request_asker(request);
	struct msg_empty nothing;
	if (!rpc_request_is_first(request)) {
		cut_off(leases, asker, "attach is not its first message");
		return;
	}
	if (msg_attach_serve_params(request, params, &nothing) < 0)
		return;
	struct buf packed = BUF_INIT(64);
	struct msg_attach_result result = {.arena_bytes = leases->arena_bytes};
	struct lease_peer *peer = calloc(1, sizeof *peer);
	int fd = arena_open_reader(cache_arena(leases->cache));
	if (!peer || fd < 0 || msg_attach_result_pack(&result, &packed) != 0 ||
		rpc_asker_keep(asker, &asker_events, peer) != 0) {
		log_error("rpc: attach: %s", fd < 0 ? strerror(errno) : "out of memory");
		free(peer);
		rpc_request_fail(request, RPC_FAILED, "the arena cannot be shared");
	} else {
		*peer = (struct lease_peer){.leases = leases, .asker = asker, .free_slot = NO_SLOT};
		leases->counters.peers++;
		rpc_request_reply_descriptor(
			request, (struct span){(const char *)packed.data, packed.len}, fd);
	}
	if (fd >= 0)
		close(fd);
	buf_free(&packed);
}
