#include "redisproxy/place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redisproxy/client.h"
#include "redisproxy/cluster.h"
#include "redisproxy/dispatch_private.h"
#include "redisproxy/fan.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/server.h"
#include "redisproxy/slots.h"

#define MAX_TRIES       16
#define LATER_US        20000
#define TICK_MS         20
#define REPLICA_WAIT_US 100000 /* for its connection; then the master is read */
#define MAX_ERROR       1024   /* bytes of an error that may be a redirection */
#define HEAD_BYTES      16

/* ---- the queue of a client ---- */

static void give_held(struct client *c, struct place *p)
{
	size_t n = out_pending(&p->held);

	if (!n)
		return;
	c->held_bytes -= n;
	if (!c->dead)
		client_say(c, p->held.data + p->held.at, n);
	out_free(&p->held);
}

static void forget_held(struct place *p)
{
	p->client->held_bytes -= out_pending(&p->held);
	out_free(&p->held);
}

static void pop(struct client *c, struct place *p)
{
	char head[HEAD_BYTES];
	size_t len = out_pending(&p->held) < sizeof head ? out_pending(&p->held) : sizeof head;
	struct entry entry = {.client = c, .sent_us = p->sent_us, .meaning = p->route.meaning};

	if (len)
		memcpy(head, p->held.data + p->held.at, len);
	give_held(c, p);
	c->places = p->next;
	if (!c->places)
		c->places_end = &c->places;
	if (p->was_replica)
		c->replica_reads--;
	if (p->route.begins || p->route.multi)
		c->own_begins = false;
	/* The server has forgotten it, whatever the reason (CROSSSLOT). */
	if (entry.meaning == ENTRY_EXEC && p->failed && len >= 4 && memcmp(head, "-ERR", 4) != 0)
		c->multi = c->watch = false;
	client_replied(c, &entry, p->failed, (struct span){head, len});
	if (!c->multi)
		c->multi_sent = false;
	free(p);
}

/* Give what is first in the queue. */
static void advance(struct client *c)
{
	while (c->places) {
		struct place *p = c->places;

		if (!p->is_done) {
			if (!p->keeps)
				give_held(c, p);
			return;
		}
		pop(c, p);
	}
}

void place_finish(struct place *p)
{
	p->is_done = true;
	if (p->fan)
		fan_part_done(p->fan, p);
	else
		advance(p->client);
}

void place_answer_error(struct place *p, const char *text)
{
	char line[MAX_ERROR];
	int n = snprintf(line, sizeof line, "-%.*s\r\n", (int)sizeof line - 4, text);

	forget_held(p);
	p->failed = true;
	if (out_append(&p->held, line, (size_t)n) == 0)
		p->client->held_bytes += (size_t)n;
	else
		client_close(p->client);
	place_finish(p);
}

static void hold(struct place *p, struct upstream *up, const char *data, size_t len)
{
	struct client *c = p->client;

	if (c->dead || (p->fan && !fan_takes(p->fan, len)))
		return;
	if (out_append(&p->held, data, len) < 0) {
		client_close(c);
		return;
	}
	c->held_bytes += len;
	client_mark(c); /* it is counted there */
	if (!p->fan)
		client_check_output(c, up);
}

/* ---- sending ---- */

static struct server *choose_server(struct place *p)
{
	const struct cluster *cluster = p->client->proxy->cluster;
	struct server *server = NULL;

	if (p->route.target)
		return p->route.target;
	if (p->route.slot == SLOTS_N)
		return cluster_any(cluster, p->client->slot);
	if (p->route.replica)
		server = cluster_replica(cluster, p->route.slot, p->client->slot);
	if (server)
		return server;
	p->route.replica = false;
	return cluster_master(cluster, p->route.slot);
}

static struct upstream *choose_upstream(struct place *p, struct pool *pool)
{
	struct client *c = p->client;

	if (!p->route.is_own)
		return pool_shared(pool, c->slot);
	/* What is not its first command there has no choice. */
	if (c->own && p->route.begins && c->own->pool != pool) {
		struct upstream *other = c->own;

		c->own = NULL;
		other->owner = NULL;
		upstream_close(other, NULL);
	}
	if (!c->own)
		c->own = pool_take_own(pool, c);
	return c->own;
}

static int send_on(struct place *p, struct upstream *up)
{
	static const char asking[] = "*1\r\n$6\r\nASKING\r\n", multi[] = "*1\r\n$5\r\nMULTI\r\n";
	struct client *c = p->client;

	if (p->route.is_own && dispatch_name_upstream(c) < 0)
		return -1;
	if (p->asking && upstream_send(up, asking, sizeof asking - 1, NULL, ENTRY_SWALLOW, 0) < 0)
		return -1;
	if (p->route.multi) {
		if (upstream_send(up, multi, sizeof multi - 1, NULL, ENTRY_SWALLOW, 0) < 0)
			return -1;
		c->multi_sent = true;
	}
	if (upstream_send_place(up, p->frame, p->len, p) < 0)
		return -1;
	if (p->route.is_own)
		c->current = up;
	return 0;
}

/* False: not yet. What cannot be sent at all is answered. */
static bool try_send(struct place *p)
{
	struct client *c = p->client;
	struct server *server = choose_server(p);

	p->waits_for = NULL;
	/* A replica that hangs must not cost its readers all their time. */
	if (p->route.replica && p->deadline_us) {
		uint64_t wait_us = (uint64_t)c->proxy->conf->wait_ms * 1000;

		if (c->proxy->now_us + wait_us > p->deadline_us + REPLICA_WAIT_US) {
			p->route.replica = false;
			server = choose_server(p);
		}
	}
	if (!server)
		return false;
	struct pool *pool = pool_of_node(c->pool, server, p->route.replica);

	if (!pool) {
		place_answer_error(p, "ERR redisproxy: too many pools");
		return true;
	}
	struct upstream *up = choose_upstream(p, pool);

	p->waits_for = pool;
	if (!up || up->state != UPSTREAM_READY)
		return false;
	if (upstream_full(up)) {
		up->waited = true;
		return false;
	}
	if (send_on(p, up) < 0) {
		client_close(c);
		place_answer_error(p, "ERR out of memory");
	}
	return true;
}

static void go_astray(struct place *p)
{
	struct proxy *proxy = p->client->proxy;

	if (!p->deadline_us)
		p->deadline_us = proxy->now_us + (uint64_t)proxy->conf->wait_ms * 1000;
	if (!p->is_astray)
		p->client->astray++;
	p->is_astray = true;
	p->next_astray = NULL;
	*proxy->astray_end = p;
	proxy->astray_end = &p->next_astray;
	if (!timer_armed(proxy->astray_timer))
		timer_arm(proxy->astray_timer, TICK_MS);
}

static void found(struct place *p)
{
	p->is_astray = false;
	p->client->astray--;
}

static void answer_late(struct place *p)
{
	struct proxy *proxy = p->client->proxy;
	bool nobody = p->route.slot < SLOTS_N && cluster_known(proxy->cluster) && !choose_server(p);

	if (!p->client->dead)
		stats_count(&proxy->stats, STATS_LOST, "no_connection");
	p->client->gave_up = true;
	place_answer_error(p, nobody ? "CLUSTERDOWN Hash slot not served" : CLIENT_NO_CONNECTION);
}

static void run_astray(struct proxy *proxy)
{
	static uint64_t pass;
	struct place *p = proxy->astray;

	pass++;
	proxy->astray = NULL;
	proxy->astray_end = &proxy->astray;
	for (struct place *next; p; p = next) {
		struct client *c = p->client;

		next = p->next_astray;
		found(p);
		bool is_late = proxy->now_us >= p->deadline_us && !p->not_before_us;

		if (c->dead || (is_late && c->astray_pass != pass)) {
			answer_late(p);
			continue;
		}
		if (c->astray_pass != pass && proxy->now_us >= p->not_before_us) {
			p->not_before_us = 0;
			if (try_send(p))
				continue;
		}
		c->astray_pass = pass;
		go_astray(p);
	}
}

static void on_astray(void *arg)
{
	struct proxy *proxy = arg;

	proxy->now_us = loop_now_us(proxy->loop);
	run_astray(proxy);
}

void places_schedule(struct proxy *proxy)
{
	if (proxy->astray)
		loop_defer(proxy->loop, &proxy->astray_run);
}

void places_refused(struct proxy *proxy, struct pool *pool, const char *text)
{
	struct place *p = proxy->astray;

	proxy->astray = NULL;
	proxy->astray_end = &proxy->astray;
	for (struct place *next; p; p = next) {
		next = p->next_astray;
		found(p);
		if (p->waits_for == pool)
			place_answer_error(p, text);
		else
			go_astray(p);
	}
}

void place_start(struct place *p)
{
	if (!p->client->astray && try_send(p))
		return;
	if (p->client->gave_up)
		answer_late(p);
	else
		go_astray(p);
}

struct place *place_add(struct client *c, struct command *command, const char *frame, size_t len,
	const struct place_route *route, struct fan *fan, uint32_t part)
{
	struct place *p = malloc(sizeof *p + len);

	if (!p)
		return NULL;
	*p = (struct place){.client = c,
		.command = command,
		.route = *route,
		.fan = fan,
		.part = part,
		.keeps = fan || route->kind != PLACE_PLAIN,
		.was_replica = route->replica && !fan,
		.len = len};
	if (len)
		memcpy(p->frame, frame, len);
	if (route->meaning != ENTRY_WAITED && (c->in_flight <= 8 || !(c->in_flight & 7)))
		p->sent_us = c->proxy->now_us;
	if (fan)
		return p;
	if (!c->in_flight++)
		c->epoch = c->proxy->epoch;
	*c->places_end = p;
	c->places_end = &p->next;
	if (p->was_replica)
		c->replica_reads++;
	if (route->begins || route->multi)
		c->own_begins = true;
	return p;
}

/* ---- replies ---- */

void place_take(struct place *p, struct upstream *up, char type, const char *data, size_t len)
{
	struct client *c = p->client;

	if (type == '-' && !p->failed) {
		p->failed = true;
		p->keeps = true;
	}
	if (!p->keeps && c->places == p) {
		client_give(c, up, data, len);
		return;
	}
	/* Longer errors are no redirections, and nobody reads them to the end. */
	if (p->failed && out_pending(&p->held) > MAX_ERROR)
		return;
	hold(p, up, data, len);
	if (p->route.kind == PLACE_SCAN && !p->failed && p->keeps && fan_rewrite_cursor(p)) {
		p->keeps = false;
		if (c->places == p)
			give_held(c, p);
	}
}

/* Is a later command of the same slot under way? Then this one cannot be repeated; but two reads
 * may change places. */
static bool is_overtaken(const struct place *p)
{
	if (p->fan)
		return p->client->in_flight > 1;
	for (const struct place *later = p->next; later; later = later->next)
		if ((later->route.slot == p->route.slot || later->route.slot == SLOTS_N) &&
			!(p->command->read && later->command->read))
			return true;
	return false;
}

/* The client's own connection is given up for another one. */
static void leave_own(struct client *c)
{
	struct upstream *own = c->own;

	if (!own)
		return;
	c->own = NULL;
	own->owner = NULL;
	if (c->multi_sent)
		upstream_close(own, NULL);
	else
		pool_give_back(own->pool, own);
	c->multi_sent = false;
}

static void send_again(struct place *p, uint64_t delay_us)
{
	struct client *c = p->client;

	p->tries++;
	p->failed = false;
	p->keeps = p->fan || p->route.kind != PLACE_PLAIN;
	forget_held(p);
	if (p->route.is_own)
		leave_own(c);
	p->not_before_us = delay_us ? c->proxy->now_us + delay_us : 0;
	if (delay_us || c->astray || !try_send(p))
		go_astray(p);
}

/* The error in p->held: the command is on its way again. */
static bool is_redirected(struct place *p, const struct redirection *r)
{
	struct proxy *proxy = p->client->proxy;

	if (p->client->dead || p->route.is_streamed || p->tries >= MAX_TRIES ||
		(p->route.is_own && !p->route.begins))
		return false;
	p->asking = false;
	switch (r->kind) {
	case REDIRECTION_MOVED:
		p->route.target = NULL;
		p->route.replica = false;
		break;
	case REDIRECTION_ASK:
		p->route.target = cluster_at(proxy->cluster, r->address);
		p->route.replica = false;
		p->asking = true;
		break;
	case REDIRECTION_LATER:
		if (is_overtaken(p) || (p->deadline_us && proxy->now_us > p->deadline_us))
			return false;
		p->route.target = NULL;
		/* The tries are for those that could go round in a circle. */
		p->tries--;
		send_again(p, LATER_US);
		return true;
	default:
		if (!p->route.replica)
			return false;
		p->route.replica = false;
	}
	send_again(p, 0);
	return true;
}

/* A redirection that cannot be followed, in words for a client that knows no cluster. */
static const char *said_otherwise(struct place *p, const struct redirection *r)
{
	bool is_pinned = p->client->multi_sent || p->client->watch;

	if (p->route.meaning == ENTRY_EXEC)
		return "EXECABORT redisproxy: the slot is moving, the transaction was not executed";
	if (r->kind == REDIRECTION_LATER || r->kind == REDIRECTION_REPLICA)
		return NULL;
	if (is_pinned && p->route.slot != p->client->own_slot)
		return "CROSSSLOT Keys in request don't hash to the same slot";
	return "TRYAGAIN redisproxy: the slot is moving, send the command again";
}

void place_complete(struct place *p, struct upstream *up)
{
	struct client *c = p->client;

	if (p->failed) {
		struct span line = {p->held.data + p->held.at, out_pending(&p->held)};
		struct redirection r = {.kind = REDIRECTION_NONE};

		if (line.len && line.len <= MAX_ERROR)
			r = slots_redirection(line, server_address(up->pool->server));
		if (r.kind != REDIRECTION_NONE)
			stats_count(&c->proxy->stats, STATS_REDIRECTIONS,
				r.kind == REDIRECTION_MOVED ? "moved"
				: r.kind == REDIRECTION_ASK ? "ask"
							    : "later");
		if (r.kind == REDIRECTION_MOVED)
			cluster_moved(c->proxy->cluster, r.slot, r.address);
		if (r.kind != REDIRECTION_NONE && is_redirected(p, &r))
			return;
		const char *text = r.kind == REDIRECTION_NONE ? NULL : said_otherwise(p, &r);

		if (text) {
			place_answer_error(p, text);
			return;
		}
	} else if (p->route.is_own && p->route.begins) {
		c->own_slot = p->route.slot;
	}
	place_finish(p);
}

void place_lost(struct place *p, const char *reason, bool partial)
{
	struct client *c = p->client;
	char text[256];

	if (partial && !p->keeps && c->places == p && !c->dead) {
		/* The rest of that reply cannot be made up. */
		client_close(c);
	} else if (!c->dead && p->command->read && !p->route.is_own && p->tries < MAX_TRIES &&
		   !is_overtaken(p)) {
		p->route.replica = false;
		send_again(p, LATER_US);
		return;
	}
	if (!c->dead)
		stats_count(&c->proxy->stats, STATS_LOST, "lost");
	snprintf(text, sizeof text, "ERR redisproxy: %s", reason);
	place_answer_error(p, text);
}

int places_init(struct proxy *proxy)
{
	proxy->astray_end = &proxy->astray;
	deferred_init(&proxy->astray_run, on_astray, proxy);
	proxy->astray_timer = timer_new(proxy->loop, on_astray, proxy);
	return proxy->astray_timer ? 0 : -1;
}

void places_free(struct proxy *proxy)
{
	/* Their clients are dead by now. */
	if (proxy->astray)
		run_astray(proxy);
	loop_defer_cancel(proxy->loop, &proxy->astray_run);
	timer_free(&proxy->astray_timer);
}
