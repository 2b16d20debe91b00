#include <stdlib.h>
#include <string.h>

#include "redisproxy/client.h"
#include "redisproxy/dispatch_private.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/upstream.h"

#define MAX_LOGIN_BYTES (16 << 10)
#define MAX_LOGIN_WORDS 7

static void go_over(struct client *c, struct pool *pool)
{
	pool_unref(&c->pool);
	pool_unref(&c->reader_pool);
	c->pool = pool;
}

enum dispatch_result login_select_db(struct client *c, struct request *r)
{
	int64_t db;

	/* What is no number, or the present one, the server itself may answer. */
	if (r->argc != 2 || !resp_number(r->argv[1], &db) || db < 0 || db > INT32_MAX ||
		(uint32_t)db == c->pool->key.db)
		return dispatch_send_shared(c, r);
	if (c->in_flight)
		return dispatch_wait_for_replies(c);
	if (!c->future.pool) {
		struct pool_key key = c->pool->key;

		key.db = (uint32_t)db;
		c->future.pool = pool_get(c->proxy, &key);
		if (!c->future.pool)
			return dispatch_say(c, r, "-ERR redisproxy: too many pools\r\n");
	}
	if (!pool_has_ready(c->future.pool)) {
		pool_shared(c->future.pool, c->slot);
		client_wait_upstream(c, c->future.pool);
		return DISPATCH_WAITS;
	}
	struct pool *pool = c->future.pool;

	c->future.pool = NULL;
	go_over(c, pool);
	return dispatch_say(c, r, "+OK\r\n");
}

int login_keep(struct buf *to, struct span s)
{
	buf_clear(to);
	return s.len ? buf_append(to, s.data, s.len) : 0;
}

/* Send AUTH or HELLO where only such are sent. */
static enum dispatch_result send_login(struct client *c, struct request *r, bool has_credentials)
{
	struct upstream *up = pool_shared(c->proxy->login[has_credentials], 0);

	if (!up || up->state != UPSTREAM_READY) {
		client_wait_upstream(c, c->proxy->login[has_credentials]);
		return DISPATCH_WAITS;
	}
	enum dispatch_result result = dispatch_send_to(c, r, up, ENTRY_LOGIN);

	if (result == DISPATCH_TOOK && !c->dead)
		c->wait = CLIENT_WAITS_LOGIN;
	return result;
}

static void forget_future(struct client *c)
{
	c->future.has_credentials = c->future.has_name = false;
	c->future.resp = 0;
	/* A password is not kept longer than it must be. */
	if (c->future.password.data)
		explicit_bzero(c->future.password.data, c->future.password.len);
	buf_free(&c->future.user);
	buf_free(&c->future.password);
	buf_free(&c->future.name);
}

/* Redis closes a connection that has not logged in yet for more than this, and that connection is
 * everybody's. */
static bool is_too_large(const struct request *r)
{
	return r->len > MAX_LOGIN_BYTES || r->argc > MAX_LOGIN_WORDS;
}

enum dispatch_result login_auth(struct client *c, struct request *r)
{
	if (c->in_flight)
		return dispatch_wait_for_replies(c);
	if (is_too_large(r))
		return dispatch_say(c, r, "-ERR redisproxy: AUTH is too long\r\n");
	forget_future(c);
	if (r->argc == 2 || r->argc == 3) {
		c->future.has_credentials = true;
		if ((r->argc == 3 && login_keep(&c->future.user, r->argv[1]) < 0) ||
			login_keep(&c->future.password, r->argv[r->argc - 1]) < 0)
			return dispatch_out_of_memory(c);
	}
	return send_login(c, r, true);
}

/* HELLO [version [AUTH user password] [SETNAME name]]: what it will mean if the server agrees. */
static int read_hello(struct client *c, const struct request *r)
{
	int64_t version;

	if (r->argc > 1 && resp_number(r->argv[1], &version) && (version == 2 || version == 3))
		c->future.resp = (uint8_t)version;
	for (uint32_t i = 2; i < r->argc && i < DISPATCH_MAX_ARGV; i++) {
		if (span_equal_nocase(r->argv[i], "auth") && i + 2 < r->argc) {
			c->future.has_credentials = true;
			if (login_keep(&c->future.user, r->argv[i + 1]) < 0 ||
				login_keep(&c->future.password, r->argv[i + 2]) < 0)
				return -1;
			i += 2;
		} else if (span_equal_nocase(r->argv[i], "setname") && i + 1 < r->argc) {
			c->future.has_name = true;
			if (login_keep(&c->future.name, r->argv[i + 1]) < 0)
				return -1;
			i++;
		}
	}
	return 0;
}

enum dispatch_result login_hello(struct client *c, struct request *r)
{
	struct span argv[DISPATCH_MAX_ARGV + 3];
	struct buf frame = BUF_INIT(4 << 20);
	struct pool_key *key = &c->pool->key;
	uint32_t n = 0;

	if (c->in_flight)
		return dispatch_wait_for_replies(c);
	forget_future(c);
	if (is_too_large(r))
		return dispatch_say(c, r, "-ERR Syntax error in HELLO\r\n");
	if (read_hello(c, r) < 0)
		return dispatch_out_of_memory(c);
	/* The connection that answers has the version and the user that the last one left there. */
	argv[n++] = r->argv[0];
	argv[n++] = r->argc > 1      ? r->argv[1]
		    : key->resp == 3 ? SPAN_LITERAL("3")
				     : SPAN_LITERAL("2");
	if (!c->future.has_credentials && key->password.len) {
		argv[n++] = SPAN_LITERAL("AUTH");
		argv[n++] = key->user.len ? key->user : SPAN_LITERAL("default");
		argv[n++] = key->password;
	}
	for (uint32_t i = 2; i < r->argc; i++)
		argv[n++] = r->argv[i];
	resp_append_command(&frame, argv, n);
	if (buf_failed(&frame)) {
		buf_free(&frame);
		return dispatch_out_of_memory(c);
	}
	struct request full = *r;

	full.frame = (const char *)frame.data;
	full.len = frame.len;
	enum dispatch_result result = send_login(
		c, &full, c->future.has_credentials || key->password.len);

	buf_free(&frame);
	return result;
}

void dispatch_login_answered(struct client *c, bool failed)
{
	struct client_next *future = &c->future;

	c->wait = CLIENT_GOES_ON;
	c->again = true;
	if (!failed) {
		struct pool_key key = c->pool->key;

		if (future->resp)
			key.resp = future->resp;
		if (future->has_credentials) {
			key.user = (struct span){(char *)future->user.data, future->user.len};
			key.password = (struct span){
				(char *)future->password.data, future->password.len};
		}
		struct pool *pool = pool_get(c->proxy, &key);

		/* It believes that it is somebody else by now. */
		if (!pool)
			client_close(c);
		else
			go_over(c, pool);
		if (future->has_name &&
			login_keep(&c->name,
				(struct span){(char *)future->name.data, future->name.len}) < 0)
			client_close(c);
	}
	forget_future(c);
}

enum dispatch_result login_reset(struct client *c, struct request *r)
{
	if (c->in_flight)
		return dispatch_wait_for_replies(c);
	if (r->argc > 1)
		return dispatch_say(c, r, "-ERR wrong number of arguments for 'reset' command\r\n");
	go_over(c, pool_ref(c->proxy->default_pool));
	buf_free(&c->name);
	return dispatch_say(c, r, "+RESET\r\n");
}
