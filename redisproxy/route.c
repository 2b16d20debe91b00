#include "redisproxy/route.h"

#include <string.h>

#include "redisproxy/client.h"
#include "redisproxy/cluster.h"
#include "redisproxy/command.h"
#include "redisproxy/fan.h"
#include "redisproxy/place.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/slots.h"
#include "redisproxy/upstream.h"

static uint16_t slot_of(const struct request *r)
{
	struct span key;

	return keys_first(&r->command->keys, r->frame, r->len, &key) ? slots_of_key(key) : SLOTS_N;
}

struct pool *route_pool(struct client *c, const struct request *r)
{
	struct cluster *cluster = c->proxy->cluster;
	uint16_t slot = slot_of(r);
	struct server *server = slot == SLOTS_N ? cluster_any(cluster, c->slot)
						: cluster_master(cluster, slot);

	return server ? pool_of_node(c->pool, server, false) : NULL;
}

/* Must what is under way be answered first? */
static bool must_wait(const struct client *c)
{
	return c->in_flight && (c->astray || c->own_begins || c->epoch != c->proxy->epoch);
}

static enum dispatch_result done(struct client *c, struct request *r)
{
	if (r->command->write) {
		c->wrote_in_flight = true;
		c->wrote_us = c->proxy->now_us;
	}
	return dispatch_done(c, r);
}

static enum dispatch_result send_place(
	struct client *c, struct request *r, const struct place_route *route)
{
	struct place *p = place_add(c, r->command, r->frame, r->len, route, NULL, 0);

	if (!p)
		return dispatch_out_of_memory(c);
	place_start(p);
	return c->dead ? DISPATCH_TOOK : done(c, r);
}

/* ---- ordinary commands ---- */

static bool may_read_replica(const struct client *c, const struct request *r)
{
	const struct redisproxy_conf *conf = c->proxy->conf;
	uint64_t window_us = (uint64_t)conf->read_your_writes_ms * 1000;

	return conf->reader_routing && r->command->read && !c->wrote_in_flight &&
	       (!c->wrote_us || c->proxy->now_us - c->wrote_us >= window_us);
}

enum dispatch_result route_shared(struct client *c, struct request *r)
{
	struct place_route route = {.slot = SLOTS_N, .meaning = ENTRY_PLAIN};
	enum fan_result fanned = FAN_NO;

	/* What is under way on its own connection would be overtaken. */
	if (c->in_flight && c->own && c->current == c->own)
		return dispatch_wait_for_replies(c);
	if (r->command->fans) {
		/* A write would overtake reads that are slow at their replicas. */
		if (c->replica_reads)
			return dispatch_wait_for_replies(c);
		fanned = r->command->kind == COMMAND_SCAN ? fan_scan(c, r) : fan_out(c, r);
	}
	if (fanned != FAN_NO)
		return fanned == FAN_TOOK ? done(c, r) : dispatch_out_of_memory(c);
	route.slot = slot_of(r);
	route.replica = route.slot < SLOTS_N && may_read_replica(c, r);
	if (!route.replica && c->replica_reads)
		return dispatch_wait_for_replies(c);
	return send_place(c, r, &route);
}

/* ---- a connection of the client's own ---- */

enum dispatch_result route_own(struct client *c, struct request *r, enum entry_meaning meaning)
{
	struct place_route route = {.slot = slot_of(r),
		.is_own = true,
		.begins = !c->multi_sent && !(c->watch && c->own),
		.multi = c->multi && !c->multi_sent,
		.meaning = meaning};

	if (c->in_flight && (route.begins || c->current != c->own))
		return dispatch_wait_for_replies(c);
	return send_place(c, r, &route);
}

enum dispatch_result route_large(struct client *c, struct request *r)
{
	static const char multi[] = "*1\r\n$5\r\nMULTI\r\n";
	struct place_route route = {
		.slot = slot_of(r), .is_own = true, .is_streamed = true, .meaning = ENTRY_WAITED};

	if (must_wait(c))
		return dispatch_wait_for_replies(c);
	if (dispatch_get_own(c, r) == DISPATCH_WAITS)
		return DISPATCH_WAITS;
	if (c->dead)
		return DISPATCH_TOOK;
	if (c->multi && !c->multi_sent) {
		if (upstream_send(c->own, multi, sizeof multi - 1, NULL, ENTRY_SWALLOW, 0) < 0)
			return dispatch_out_of_memory(c);
		c->multi_sent = true;
	}
	struct place *p = place_add(c, r->command, NULL, 0, &route, NULL, 0);

	if (!p)
		return dispatch_out_of_memory(c);
	c->current = c->own;
	if (upstream_send_place(c->own, r->frame, r->len, p) < 0) {
		client_close(c);
		place_answer_error(p, "ERR out of memory");
		return DISPATCH_TOOK;
	}
	return done(c, r);
}

/* ---- transactions ---- */

/* Something that is said here, in its order. */
static enum dispatch_result say(struct client *c, struct request *r, const char *text)
{
	return c->in_flight ? dispatch_wait_for_replies(c) : dispatch_say(c, r, text);
}

static enum dispatch_result end_multi(struct client *c, struct request *r)
{
	if (c->own)
		return route_own(c, r, ENTRY_EXEC);
	/* It never began anywhere. */
	enum dispatch_result result = say(
		c, r, span_equal_nocase(r->argv[0], "exec") ? "*0\r\n" : "+OK\r\n");

	if (result == DISPATCH_TOOK)
		c->multi = false;
	return result;
}

static enum dispatch_result in_multi(struct client *c, struct request *r)
{
	switch (r->command->kind) {
	case COMMAND_MULTI:
		return say(c, r, "-ERR MULTI calls can not be nested\r\n");
	case COMMAND_WATCH:
		return say(c, r, "-ERR WATCH inside MULTI is not allowed\r\n");
	case COMMAND_EXEC:
		return end_multi(c, r);
	case COMMAND_QUIT:
	case COMMAND_RESET:
		break;
	default:
		if (r->command->kind < COMMAND_OWN || r->command->kind == COMMAND_SCRIPT)
			return route_own(c, r, ENTRY_PLAIN);
		return say(c, r, "-ERR Command not allowed inside a transaction\r\n");
	}
	/* The transaction ends with its connection. */
	if (c->in_flight)
		return dispatch_wait_for_replies(c);
	client_drop_own(c);
	return r->command->kind == COMMAND_RESET ? login_reset(c, r) : dispatch_quit(c, r);
}

/* After WATCH: what belongs to that server goes there, so that it is of the transaction's time. */
static enum dispatch_result watching(struct client *c, struct request *r)
{
	uint16_t slot = slot_of(r);

	if (r->command->kind == COMMAND_UNWATCH || r->command->kind == COMMAND_EXEC)
		return route_own(
			c, r, r->command->kind == COMMAND_EXEC ? ENTRY_EXEC : ENTRY_UNWATCH);
	if (r->command->kind == COMMAND_WATCH)
		return route_own(c, r, ENTRY_WATCH);
	if (r->command->kind >= COMMAND_OWN && r->command->kind != COMMAND_SCRIPT)
		return dispatch_kind(c, r);
	if (slot != c->own_slot)
		return route_shared(c, r);
	return route_own(c, r, ENTRY_PLAIN);
}

static bool is_tracking(const struct request *r)
{
	return r->argc > 1 && span_equal_nocase(r->argv[1], "tracking");
}

enum dispatch_result route_command(struct client *c, struct request *r)
{
	static const char *const quiet[] = {"asking", "readonly", "readwrite"};

	if (must_wait(c))
		return dispatch_wait_for_replies(c);
	if (c->multi)
		return in_multi(c, r);
	if (c->watch && c->own && r->command->kind != COMMAND_MULTI)
		return watching(c, r);
	switch (r->command->kind) {
	case COMMAND_MULTI: {
		enum dispatch_result result = say(c, r,
			r->argc == 1 ? "+OK\r\n"
				     : "-ERR wrong number of arguments for 'multi' "
				       "command\r\n");

		c->multi = c->multi || (result == DISPATCH_TOOK && r->argc == 1);
		return result;
	}
	case COMMAND_OWN:
		for (size_t i = 0; i < sizeof quiet / sizeof *quiet; i++)
			if (span_equal_nocase(r->argv[0], quiet[i]))
				return say(c, r, "+OK\r\n");
		break;
	case COMMAND_CLIENT:
		if (is_tracking(r))
			return say(c, r,
				"-ERR redisproxy: CLIENT TRACKING is not possible in a cluster\r\n");
		break;
	default:
		break;
	}
	return dispatch_kind(c, r);
}
