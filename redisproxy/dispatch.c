#include "redisproxy/dispatch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redisproxy/client.h"
#include "redisproxy/command.h"
#include "redisproxy/dispatch_private.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/route.h"
#include "redisproxy/server.h"
#include "redisproxy/upstream.h"

enum dispatch_result dispatch_wait_for_replies(struct client *c)
{
	c->wait = CLIENT_WAITS_FOR_REPLIES;
	return DISPATCH_WAITS;
}

enum dispatch_result dispatch_out_of_memory(struct client *c)
{
	client_close(c);
	return DISPATCH_TOOK;
}

enum dispatch_result dispatch_done(struct client *c, struct request *r)
{
	r->command->calls++;
	c->wait_until_us = c->command_us = 0;
	return DISPATCH_TOOK;
}

enum dispatch_result dispatch_say(struct client *c, struct request *r, const char *text)
{
	client_say(c, text, strlen(text));
	return dispatch_done(c, r);
}

/* ---- shared connections ---- */

enum dispatch_result dispatch_send_to(
	struct client *c, struct request *r, struct upstream *up, enum entry_meaning meaning)
{
	uint64_t sent_us = meaning == ENTRY_WAITED ? 0 : c->proxy->now_us;

	/* Of a deep pipeline, every eighth is enough. */
	if (c->in_flight > 8 && (c->in_flight & 7))
		sent_us = 0;
	if (upstream_full(up)) {
		client_wait_room(c, up);
		return DISPATCH_WAITS;
	}
	if (upstream_send(up, r->frame, r->len, c, meaning, sent_us) < 0)
		return dispatch_out_of_memory(c);
	struct entry *entry = upstream_last_entry(up);

	if (c->command_us)
		entry->waited_us = (uint32_t)(c->proxy->now_us - c->command_us);
	stats_sent(&c->proxy->stats, entry, r->command, r->frame, r->len);
	c->in_flight++;
	c->current = up;
	if (r->command->write) {
		c->wrote_in_flight = true;
		c->wrote_us = c->proxy->now_us;
	}
	return dispatch_done(c, r);
}

static struct pool *reader_pool(struct client *c)
{
	if (!c->reader_pool) {
		struct pool_key key = c->pool->key;

		key.server = c->proxy->reader;
		c->reader_pool = pool_get(c->proxy, &key);
	}
	return c->reader_pool;
}

static bool may_read_elsewhere(const struct client *c)
{
	const struct proxy *proxy = c->proxy;
	uint64_t window_us = (uint64_t)proxy->conf->read_your_writes_ms * 1000;

	return proxy->reader && server_up(proxy->reader) && !c->wrote_in_flight &&
	       (!c->wrote_us || proxy->now_us - c->wrote_us >= window_us);
}

static bool scan_goes_to_reader(struct client *c, const struct request *r)
{
	size_t at = r->command->len == 4 ? 1 : 2; /* SCAN cursor; HSCAN key cursor */

	if (r->argc <= at || span_equal_str(r->argv[at], "0"))
		c->scans_reader = may_read_elsewhere(c);
	return c->scans_reader && c->proxy->reader && server_up(c->proxy->reader);
}

static struct pool *choose_pool(struct client *c, const struct request *r)
{
	bool reader = false;

	if (!c->proxy->reader)
		return c->pool;
	if (r->command->kind == COMMAND_ANYWHERE && c->in_flight && c->current)
		return c->current->pool;
	if (r->command->kind == COMMAND_SCAN)
		reader = scan_goes_to_reader(c, r);
	else
		reader = r->command->read && may_read_elsewhere(c);
	struct pool *pool = reader ? reader_pool(c) : NULL;

	return pool ? pool : c->pool;
}

struct upstream *dispatch_full(const struct client *c)
{
	struct upstream *up = c->current ? c->current : c->own;

	if (!up && !c->proxy->cluster)
		up = c->pool->shared[c->slot % (unsigned)c->proxy->conf->shared_connections];
	return up && up->state == UPSTREAM_READY && upstream_full(up) ? up : NULL;
}

enum dispatch_result dispatch_send_shared(struct client *c, struct request *r)
{
	if (c->proxy->cluster)
		return route_shared(c, r);
	struct pool *pool = choose_pool(c, r);
	struct upstream *up;

	if (c->in_flight) {
		up = c->current;
		/* A busy client would keep a retiring connection for ever. */
		if (!up || up->pool != pool || up->retiring)
			return dispatch_wait_for_replies(c);
		return dispatch_send_to(c, r, up, ENTRY_PLAIN);
	}
	up = pool_shared(pool, c->slot);
	if (!up && pool == c->reader_pool)
		up = pool_shared(pool = c->pool, c->slot);
	if (!up || up->state != UPSTREAM_READY) {
		client_wait_upstream(c, pool);
		return DISPATCH_WAITS;
	}
	return dispatch_send_to(c, r, up, ENTRY_PLAIN);
}

/* ---- a connection of its own ---- */

static bool has_word(const struct request *r, const char *word, const char *until)
{
	struct resp_arguments a = resp_arguments_of(r->frame);
	struct span argument;

	while (resp_arguments_next(&a, &argument)) {
		if (span_equal_nocase(argument, until))
			return false;
		if (span_equal_nocase(argument, word))
			return true;
	}
	return false;
}

static enum entry_meaning meaning_of(const struct request *r)
{
	switch (r->command->kind) {
	case COMMAND_MULTI:
		return ENTRY_MULTI;
	case COMMAND_EXEC:
		return ENTRY_EXEC;
	case COMMAND_WATCH:
		return ENTRY_WATCH;
	case COMMAND_UNWATCH:
		return ENTRY_UNWATCH;
	case COMMAND_BLOCKING:
	case COMMAND_XREAD:
		return ENTRY_WAITED;
	default:
		return ENTRY_PLAIN;
	}
}

static bool is_named_as(const struct upstream *up, const struct client *c)
{
	return span_equal(span_of(up->name ? up->name : ""),
		(struct span){(const char *)c->name.data, c->name.len});
}

int dispatch_name_upstream(struct client *c)
{
	struct upstream *up = c->own;
	struct span name = {c->name.len ? (const char *)c->name.data : "", c->name.len};
	struct buf command = BUF_INIT(2 << 20);

	if (is_named_as(up, c))
		return 0;
	resp_append_command(&command,
		(struct span[]){SPAN_LITERAL("CLIENT"), SPAN_LITERAL("SETNAME"), name}, 3);
	char *copy = strndup(name.data, name.len);
	int rc = !copy || buf_failed(&command) ? -1
					       : upstream_send(up, (const char *)command.data,
							 command.len, NULL, ENTRY_SWALLOW, 0);

	buf_free(&command);
	if (rc < 0) {
		free(copy);
		return -1;
	}
	free((char *)up->name);
	up->name = copy;
	return 0;
}

enum dispatch_result dispatch_get_own(struct client *c, const struct request *r)
{
	struct pool *pool = NULL;

	if (c->own && c->own->state == UPSTREAM_READY &&
		(c->in_flight || c->multi || c->watch || c->streaming))
		return DISPATCH_TOOK;
	if (c->in_flight)
		return dispatch_wait_for_replies(c);
	if (!c->own)
		pool = c->proxy->cluster ? route_pool(c, r) : c->pool;
	if (!c->own && pool)
		c->own = pool_take_own(pool, c);
	if (!c->own || c->own->state != UPSTREAM_READY) {
		client_wait_upstream(c, NULL);
		return DISPATCH_WAITS;
	}
	if (dispatch_name_upstream(c) < 0)
		client_close(c);
	return DISPATCH_TOOK;
}

static enum dispatch_result send_own(struct client *c, struct request *r)
{
	if (c->proxy->cluster)
		return route_own(c, r, meaning_of(r));
	if (dispatch_get_own(c, r) == DISPATCH_WAITS)
		return DISPATCH_WAITS;
	return c->dead ? DISPATCH_TOOK : dispatch_send_to(c, r, c->own, meaning_of(r));
}

static bool is_subscribe(struct span name)
{
	return span_equal_nocase(name, "subscribe") || span_equal_nocase(name, "psubscribe") ||
	       span_equal_nocase(name, "ssubscribe");
}

static enum dispatch_result go_raw(struct client *c, struct request *r)
{
	if (c->in_flight)
		return dispatch_wait_for_replies(c);
	if (dispatch_get_own(c, r) == DISPATCH_WAITS)
		return DISPATCH_WAITS;
	if (c->dead)
		return DISPATCH_TOOK;
	if (c->proxy->cluster && is_subscribe(r->argv[0]))
		upstream_make_subscribed(c->own);
	else
		upstream_make_raw(c->own);
	if (upstream_send_more(c->own, r->frame, r->len) < 0)
		return dispatch_out_of_memory(c);
	return dispatch_done(c, r);
}

void dispatch_settle(struct client *c)
{
	struct upstream *own = c->own;

	if (!own || own->raw || own->state != UPSTREAM_READY || c->multi || c->watch ||
		c->streaming || own->count)
		return;
	c->own = NULL;
	pool_give_back(own->pool, own);
}

/* ---- CLIENT ---- */

static bool is_good_name(struct span name)
{
	for (size_t i = 0; i < name.len; i++)
		if (name.data[i] < '!' || name.data[i] > '~')
			return false;
	return true;
}

static enum dispatch_result get_name(struct client *c, struct request *r)
{
	char text[32];

	if (!c->name.len)
		return dispatch_say(c, r, c->pool->key.resp == 3 ? "_\r\n" : "$-1\r\n");
	snprintf(text, sizeof text, "$%zu\r\n", c->name.len);
	client_say(c, text, strlen(text));
	if (!c->dead)
		client_say(c, (const char *)c->name.data, c->name.len);
	return c->dead ? DISPATCH_TOOK : dispatch_say(c, r, "\r\n");
}

/* CLIENT PAUSE and UNPAUSE, whoever says it: paused commands hold up their connections. The server
 * checks the words. */
static void note_pause(struct client *c, const struct request *r)
{
	struct proxy *proxy = c->proxy;
	int64_t ms;

	if (r->command->kind != COMMAND_CLIENT || r->argc < 2)
		return;
	if (span_equal_nocase(r->argv[1], "unpause")) {
		proxy->paused_until_us = 0;
	} else if (span_equal_nocase(r->argv[1], "pause") && r->argc > 2 &&
		   resp_number(r->argv[2], &ms) && ms > 0 && ms < INT64_MAX / 2000) {
		uint64_t until_us = proxy->now_us + (uint64_t)ms * 1000;

		if (until_us > proxy->paused_until_us)
			proxy->paused_until_us = until_us;
	}
}

static enum dispatch_result client_command(struct client *c, struct request *r)
{
	static const char *const harmless[] = {"pause", "unpause", "unblock", "help"};
	struct span sub = r->argc > 1 ? r->argv[1] : SPAN_LITERAL("");

	for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
		/* Not behind what they end: a paused write holds up its connection. */
		if (span_equal_nocase(sub, harmless[i]))
			return send_own(c, r);
	bool sets = span_equal_nocase(sub, "setname") && r->argc == 3;
	bool gets = span_equal_nocase(sub, "getname") && r->argc == 2;
	bool tells = span_equal_nocase(sub, "setinfo") && r->argc == 4;

	/* npm's redis asks for notices of maintenance with every RESP3 connection: they would be
	 * about a connection that is not the client's, and cost it one of its own. */
	if (span_equal_nocase(sub, "maint_notifications"))
		return c->in_flight ? dispatch_wait_for_replies(c)
				    : dispatch_say(c, r,
					      "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try "
					      "CLIENT HELP.\r\n");
	if (!sets && !gets && !tells)
		return go_raw(c, r);
	if (c->in_flight)
		return dispatch_wait_for_replies(c);
	if (gets)
		return get_name(c, r);
	if (!is_good_name(r->argv[r->argc - 1]))
		return dispatch_say(c, r,
			sets ? "-ERR Client names cannot contain spaces, newlines or special "
			       "characters.\r\n"
			     : "-ERR lib-name and lib-ver cannot contain spaces, newlines or "
			       "special characters.\r\n");
	if (sets && login_keep(&c->name, r->argv[2]) < 0)
		return dispatch_out_of_memory(c);
	return dispatch_say(c, r, "+OK\r\n");
}

/* ---- all ---- */

enum dispatch_result dispatch_quit(struct client *c, struct request *r)
{
	if (c->in_flight)
		return dispatch_wait_for_replies(c);
	dispatch_say(c, r, "+OK\r\n");
	if (!c->dead)
		client_finish(c);
	return DISPATCH_TOOK;
}

/* A web page that was led to talk to Redis (cross-protocol scripting): the server would close a
 * connection that is not this client's alone. */
static enum dispatch_result hang_up(struct client *c, struct request *r)
{
	if (c->in_flight)
		return dispatch_wait_for_replies(c);
	stats_count(&c->proxy->stats, STATS_REJECTED, "http");
	client_finish(c);
	return dispatch_done(c, r);
}

/* Does it change the connection beyond what replies tell? Then it cannot be given back. */
static bool changes_connection(enum command_kind kind)
{
	return kind >= COMMAND_OWN;
}

static enum dispatch_result dispatch_own(struct client *c, struct request *r)
{
	if (c->own->state != UPSTREAM_READY)
		return dispatch_get_own(c, r);
	if (!changes_connection(r->command->kind))
		return dispatch_send_to(c, r, c->own, meaning_of(r));
	return go_raw(c, r);
}

/* SCRIPT KILL and FUNCTION KILL must not wait behind what they end. */
static bool is_kill(const struct request *r)
{
	return r->argc > 1 && span_equal_nocase(r->argv[1], "kill");
}

enum dispatch_result dispatch_kind(struct client *c, struct request *r)
{
	switch (r->command->kind) {
	case COMMAND_XREAD:
		if (r->is_whole && !has_word(r, "block", "streams"))
			return dispatch_send_shared(c, r);
		return send_own(c, r);
	case COMMAND_BLOCKING:
	case COMMAND_MULTI:
	case COMMAND_WATCH:
		return send_own(c, r);
	case COMMAND_SCRIPTED:
		return c->proxy->conf->scripts_apart ? send_own(c, r) : dispatch_send_shared(c, r);
	case COMMAND_FUNCTION:
		return is_kill(r) ? send_own(c, r) : dispatch_send_shared(c, r);
	case COMMAND_SCRIPT:
		if (is_kill(r))
			return send_own(c, r);
		if (r->argc < 2 || !span_equal_nocase(r->argv[1], "debug"))
			return dispatch_send_shared(c, r);
		return go_raw(c, r);
	case COMMAND_OWN:
		return go_raw(c, r);
	case COMMAND_PLAIN:
		/* While the server is paused it holds up what it keeps for later. */
		if (proxy_is_paused(c->proxy) && (r->command->write || r->command->replicates))
			return send_own(c, r);
		return dispatch_send_shared(c, r);
	case COMMAND_CLIENT:
		return client_command(c, r);
	case COMMAND_AUTH:
		return login_auth(c, r);
	case COMMAND_HELLO:
		return login_hello(c, r);
	case COMMAND_SELECT:
		return login_select_db(c, r);
	case COMMAND_RESET:
		return login_reset(c, r);
	case COMMAND_QUIT:
		return dispatch_quit(c, r);
	default:
		return dispatch_send_shared(c, r);
	}
}

/* The command that waited is answered with this. */
static void answer_error(struct client *c)
{
	if (c->in_flight)
		return;
	client_say_error(c, c->error);
	free(c->error);
	c->error = NULL;
	/* A connection that came too late serves somebody else. */
	if (c->own && !c->own->raw && !c->multi && !c->watch) {
		struct upstream *own = c->own;

		c->own = NULL;
		own->owner = NULL;
		upstream_close(own, NULL);
	}
	c->wait_until_us = c->command_us = 0;
	pool_unref(&c->future.pool);
}

enum dispatch_result dispatch_command(struct client *c, const char *frame, size_t len)
{
	struct request r = {.frame = frame, .len = len, .is_whole = true};
	struct resp_arguments a = resp_arguments_of(frame);

	if (c->error) {
		answer_error(c);
		return DISPATCH_TOOK;
	}
	r.argc = a.left;
	resp_arguments_next(&a, &r.argv[0]);
	r.command = commands_find(c->proxy->commands, r.argv[0]);
	/* Most need no more than their name. */
	if (r.command->kind != COMMAND_PLAIN)
		for (uint32_t i = 1; i < DISPATCH_MAX_ARGV && resp_arguments_next(&a, &r.argv[i]);
			i++)
			;
	if (r.command->kind == COMMAND_HTTP)
		return hang_up(c, &r);
	note_pause(c, &r);
	enum dispatch_result result;

	if (c->proxy->cluster)
		result = route_command(c, &r);
	else if (c->own &&
		 (c->own->state != UPSTREAM_READY || c->in_flight || c->multi || c->watch))
		result = dispatch_own(c, &r);
	else
		result = dispatch_kind(c, &r);
	if (result == DISPATCH_WAITS && !c->command_us)
		c->command_us = c->proxy->now_us;
	return result;
}

enum dispatch_result dispatch_large(
	struct client *c, const char *data, size_t len, const char *name, size_t name_len)
{
	struct request r = {.frame = data, .len = len, .argc = 1};

	if (c->error) {
		answer_error(c);
		client_finish(c);
		return DISPATCH_TOOK;
	}
	r.argv[0] = (struct span){name, name_len};
	r.command = commands_find(c->proxy->commands, r.argv[0]);
	if (changes_connection(r.command->kind) && r.command->kind != COMMAND_SCRIPT) {
		if (c->in_flight)
			return dispatch_wait_for_replies(c);
		client_say_error(c, "ERR Protocol error: invalid bulk length");
		client_finish(c);
		return DISPATCH_TOOK;
	}
	return c->proxy->cluster ? route_large(c, &r) : send_own(c, &r);
}
