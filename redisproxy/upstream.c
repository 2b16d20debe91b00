#include "redisproxy/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"
#include "redisproxy/client.h"
#include "redisproxy/place.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/server.h"
#include "redisproxy/tls.h"

#define FIRST_QUEUE   8
#define READS_A_TURN  4
#define MAX_REFUSAL   512
#define FULL_AGAIN_US 1000000
#define LEND_BYTES    1024
#define LENT_AT_ONCE  (32 << 10)

static const char full[] = "-ERR max number"; /* of clients reached */
static const char lost[] = "the connection to the upstream was lost";

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);

struct upstream *upstream_new(struct pool *pool, bool is_shared, struct client *owner)
{
	struct proxy *proxy = pool->proxy;
	struct event_base *base = loop_base(proxy->loop);
	int fd = -1;

	errno = EAGAIN;
	if (!server_silent(pool->server))
		fd = server_connect(pool->server);
	if (fd < 0)
		return NULL;
	struct upstream *up = calloc(1, sizeof *up);

	if (!up)
		goto fail_fd;
	up->read_event = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, up);
	up->write_event = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, up);
	if (!up->read_event || !up->write_event || server_open_tls(pool->server, fd, &up->tls) < 0)
		goto fail_events;
	up->proxy = proxy;
	up->pool = pool;
	up->owner = owner;
	up->fd = fd;
	up->is_shared = is_shared;
	/* It fills and empties all the time while there is much to do; pools_sweep() takes it. */
	if (is_shared)
		up->out.keeps = 4 * UPSTREAM_HIGH_WATER;
	up->state = UPSTREAM_CONNECTING;
	up->opened_us = up->heard_us = up->idle_since_us = loop_now_us(proxy->loop);
	up->expires_us = pool_expiry_us(pool, up->opened_us);
	buf_init(&up->refusal, MAX_REFUSAL);
	up->next = proxy->upstreams;
	up->prev = &proxy->upstreams;
	if (up->next)
		up->next->prev = &up->next;
	proxy->upstreams = up;
	up->wants_write = true;
	event_add(up->write_event, NULL);
	server_count(pool->server)->open++;
	/* The server may have another address by now. */
	stats_pool_init(&proxy->stats, &pool->stats, server_address(pool->server), &pool->key);
	stats_count(&proxy->stats, STATS_CONNECTED, server_address(pool->server));
	return up;

fail_events:
	if (up->read_event)
		event_free(up->read_event);
	if (up->write_event)
		event_free(up->write_event);
	free(up);
fail_fd:
	close(fd);
	errno = ENOMEM;
	return NULL;
}

static void make_dirty(struct upstream *up)
{
	if (up->is_dirty || up->state == UPSTREAM_DEAD)
		return;
	up->is_dirty = true;
	up->next_dirty = NULL;
	*up->proxy->dirty_upstreams_end = up;
	up->proxy->dirty_upstreams_end = &up->next_dirty;
	proxy_schedule(up->proxy);
}

static int grow_queue(struct upstream *up)
{
	uint32_t capacity = up->capacity ? up->capacity * 2 : FIRST_QUEUE;
	struct entry *queue = malloc(capacity * sizeof *queue);

	if (!queue)
		return -1;
	for (uint32_t i = 0; i < up->count; i++)
		queue[i] = up->queue[(up->first + i) & (up->capacity - 1)];
	free(up->queue);
	up->queue = queue;
	up->first = 0;
	up->capacity = capacity;
	return 0;
}

/* Bytes of some length that a client's read has brought stay where they are until upstream_keep().
 */
static int add_bytes(struct upstream *up, const char *data, size_t len)
{
	struct proxy *proxy = up->proxy;

	if (len < LEND_BYTES || up->tls || data < proxy->scratch ||
		data >= proxy->scratch + sizeof proxy->scratch)
		return out_append(&up->out, data, len);
	if (proxy->lent_to != up)
		upstream_keep(proxy);
	proxy->lent_to = up;
	return out_lend(&up->out, data, len);
}

void upstream_keep(struct proxy *proxy)
{
	struct upstream *up = proxy->lent_to;

	proxy->lent_to = NULL;
	if (!up || up->state == UPSTREAM_DEAD)
		return;
	/* What is much goes at once, uncopied, and the server can begin. */
	if (up->out.lent_len >= LENT_AT_ONCE && !up->wants_write)
		upstream_flush(up);
	if (out_keep(&up->out) < 0)
		upstream_close(up, "out of memory");
}

/* Queue the bytes; the new entry is the caller's to fill in. NULL when out of memory. */
static struct entry *add_entry(struct upstream *up, const char *data, size_t len)
{
	if (up->count == up->capacity && grow_queue(up) < 0)
		return NULL;
	if (add_bytes(up, data, len) < 0)
		return NULL;
	/* Silence counts from the first reply that is owed. */
	if (!up->count)
		up->heard_us = up->proxy->now_us;
	make_dirty(up);
	return &up->queue[(up->first + up->count++) & (up->capacity - 1)];
}

int upstream_send(struct upstream *up, const char *data, size_t len, struct client *client,
	enum entry_meaning meaning, uint64_t sent_us)
{
	struct entry *entry = add_entry(up, data, len);

	if (!entry)
		return -1;
	*entry = (struct entry){.client = client, .sent_us = sent_us, .meaning = meaning};
	return 0;
}

int upstream_send_place(struct upstream *up, const char *data, size_t len, struct place *place)
{
	struct entry *entry = add_entry(up, data, len);

	if (!entry)
		return -1;
	*entry = (struct entry){.place = place, .is_place = true};
	if (place->sent_us) {
		entry->sent_us = up->proxy->now_us;
		entry->waited_us = (uint32_t)(entry->sent_us - place->sent_us);
	}
	stats_sent(&up->proxy->stats, entry, place->command, data, len);
	return 0;
}

int upstream_send_more(struct upstream *up, const char *data, size_t len)
{
	if (add_bytes(up, data, len) < 0)
		return -1;
	make_dirty(up);
	return 0;
}

void upstream_make_raw(struct upstream *up)
{
	up->raw = true;
}

void upstream_make_subscribed(struct upstream *up)
{
	up->raw = up->subscribed = true;
}

void upstream_end(struct upstream *up)
{
	up->ends = true;
	make_dirty(up);
}

void upstream_flush(struct upstream *up)
{
	if (up->state < UPSTREAM_LOGIN || up->state == UPSTREAM_DEAD)
		return;
	if (out_write(&up->out, up->fd, up->tls) < 0) {
		/* What the server said before it closed is worth reading. */
		out_free(&up->out);
		shutdown(up->fd, SHUT_WR);
		return;
	}
	bool wants = out_pending(&up->out) > 0;

	/* A few at a time: all of them would fill it again many times over. */
	if (up->waited && out_pending(&up->out) <= UPSTREAM_HIGH_WATER / 2) {
		up->waited = pool_upstream_has_room(up->pool, up);
		if (up->waited)
			make_dirty(up);
	}
	if (!wants && up->ends)
		shutdown(up->fd, SHUT_WR);
	if (wants == up->wants_write)
		return;
	up->wants_write = wants;
	if (wants)
		event_add(up->write_event, NULL);
	else
		event_del(up->write_event);
}

void upstream_resume(struct upstream *up)
{
	up->slow = NULL;
	if (up->state == UPSTREAM_DEAD)
		return;
	event_add(up->read_event, NULL);
	if (up->tls && tls_pending(up->tls))
		event_active(up->read_event, EV_READ, 0);
}

/* ---- connecting ---- */

static void handshake(struct upstream *up);
static void log_in(struct upstream *up);

static void ready(struct upstream *up)
{
	up->state = UPSTREAM_READY;
	pool_upstream_ready(up->pool, up);
}

static void on_connected(struct upstream *up)
{
	int error = 0;
	socklen_t len = sizeof error;

	getsockopt(up->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error) {
		upstream_close(up, strerror(error));
		return;
	}
	up->state = UPSTREAM_HANDSHAKE;
	event_add(up->read_event, NULL);
	handshake(up);
}

/* Either way round: the descriptor can be read or written to. */
static void handshake(struct upstream *up)
{
	enum tls_step step = up->tls ? tls_handshake(up->tls) : TLS_DONE;

	if (step == TLS_DONE) {
		log_in(up);
	} else if (step == TLS_FAILED) {
		log_warn("%s: %s", server_address(up->pool->server), tls_error(up->tls));
		upstream_close(up, "the TLS handshake with the upstream failed");
	} else if (step == TLS_WANTS_READ && up->wants_write) {
		up->wants_write = false;
		event_del(up->write_event);
	} else if (step == TLS_WANTS_WRITE && !up->wants_write) {
		up->wants_write = true;
		event_add(up->write_event, NULL);
	}
}

static void log_in(struct upstream *up)
{
	server_connected(up->pool->server);
	up->state = UPSTREAM_LOGIN;
	/* The login goes first, and nothing else has been queued yet. */
	if (out_append(&up->out, up->pool->login.data, up->pool->login.len) < 0) {
		upstream_close(up, "out of memory");
		return;
	}
	up->login_left = up->pool->login_count;
	if (!up->login_left)
		ready(up);
	upstream_flush(up);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct upstream *up = arg;

	(void)fd;
	(void)what;
	up->proxy->now_us = loop_now_us(up->proxy->loop);
	if (up->state == UPSTREAM_CONNECTING)
		on_connected(up);
	else if (up->state == UPSTREAM_HANDSHAKE)
		handshake(up);
	else
		upstream_flush(up);
}

/* ---- reading ---- */

static struct entry *first_entry(const struct upstream *up)
{
	return up->count ? &up->queue[up->first & (up->capacity - 1)] : NULL;
}

bool upstream_waits_for_others(const struct upstream *up)
{
	const struct entry *entry = first_entry(up);

	return entry &&
	       (entry->is_place ? entry->place->route.meaning : entry->meaning) == ENTRY_WAITED;
}

static void login_reply(struct upstream *up, const char *data, size_t used, bool complete)
{
	if (up->scan.type == '-')
		buf_append(&up->refusal, data, used);
	if (!complete)
		return;
	if (up->scan.type == '-') {
		if (buf_failed(&up->refusal) || up->refusal.len < 3)
			upstream_close(up, "the login was refused");
		else
			pool_login_refused(up->pool, up);
		return;
	}
	if (--up->login_left == 0)
		ready(up);
}

static void remember_head(struct upstream *up, const char *data, size_t used)
{
	size_t room = UPSTREAM_HEAD_BYTES - up->head_len;
	size_t part = used < room ? used : room;

	memcpy(up->head + up->head_len, data, part);
	up->head_len += part;
}

/* The server has no room for one more connection, and closes this one. */
static void note_full(struct upstream *up)
{
	static uint64_t last_us;

	if (up->proxy->now_us - last_us < FULL_AGAIN_US)
		return;
	last_us = up->proxy->now_us;
	log_warn("%s says that its maxclients is reached", server_address(up->pool->server));
}

static void reply_complete(struct upstream *up)
{
	struct entry entry = *first_entry(up);
	struct span head = {up->head, up->head_len};
	bool failed = up->scan.type == '-';

	up->first = (up->first + 1) & (up->capacity - 1);
	up->count--;
	up->partial = false;
	if (!up->count)
		up->idle_since_us = up->proxy->now_us;
	if (failed && head.len >= 9 && memcmp(head.data, "-READONLY", 9) == 0)
		pool_demoted(up->pool);
	if (failed && head.len >= sizeof full - 1 && memcmp(head.data, full, sizeof full - 1) == 0)
		note_full(up);
	stats_replied(&up->proxy->stats, &entry, up, failed);
	up->head_len = 0;
	if (entry.is_place)
		place_complete(entry.place, up);
	else if (entry.client)
		client_replied(entry.client, &entry, failed, head);
}

static bool is_redirection(const char *data, size_t len)
{
	static const char moved[] = "-MOVED ", ask[] = "-ASK ";

	return (len > sizeof moved - 1 && memcmp(data, moved, sizeof moved - 1) == 0) ||
	       (len > sizeof ask - 1 && memcmp(data, ask, sizeof ask - 1) == 0);
}

/* For a client that has subscribed and knows no cluster. Only what came in one piece is looked at:
 * redirections are short. */
static void give_subscribed(struct upstream *up, const char *data, size_t used, bool complete)
{
	static const char elsewhere[] =
		"-ERR redisproxy: a connection that has subscribed stays on one node, and this key "
		"is on another\r\n";

	if (!up->owner)
		return;
	if (complete && !up->partial && is_redirection(data, used))
		client_give(up->owner, up, elsewhere, sizeof elsewhere - 1);
	else
		client_give(up->owner, up, data, used);
	up->partial = !complete;
}

/* A piece of the present reply. -1: the connection was closed. */
static int take_piece(struct upstream *up, const char *data, size_t used, bool complete)
{
	if (up->state == UPSTREAM_LOGIN) {
		login_reply(up, data, used, complete);
		return up->state == UPSTREAM_DEAD ? -1 : 0;
	}
	struct entry *entry = first_entry(up);

	if (up->scan.type == '>') {
		if (up->owner)
			client_give(up->owner, up, data, used);
		return 0;
	}
	if (!entry && up->subscribed) {
		give_subscribed(up, data, used, complete);
		return 0;
	}
	if (!entry) {
		if (used >= sizeof full - 1 && memcmp(data, full, sizeof full - 1) == 0)
			note_full(up);
		upstream_close(up, "the upstream spoke unasked");
		return -1;
	}
	if (up->scan.type == '-' && up->head_len < UPSTREAM_HEAD_BYTES)
		remember_head(up, data, used);
	if (entry->is_place)
		place_take(entry->place, up, up->scan.type, data, used);
	else if (entry->client && entry->meaning != ENTRY_SWALLOW)
		client_give(entry->client, up, data, used);
	up->partial = up->partial || used > 0;
	if (complete)
		reply_complete(up);
	return 0;
}

static void take(struct upstream *up, const char *data, size_t len)
{
	while (len && up->state != UPSTREAM_DEAD) {
		size_t used;

		if (up->raw && !up->subscribed && !up->count && !up->scan.left && !up->scan.skip &&
			!up->scan.in_line) {
			if (up->owner)
				client_give(up->owner, up, data, len);
			return;
		}
		enum resp_result result = resp_reply_scan(&up->scan, data, len, &used);

		if (result == RESP_BAD) {
			upstream_close(up, "the upstream's answer is no RESP");
			return;
		}
		if (take_piece(up, data, used, result == RESP_COMPLETE) < 0)
			return;
		data += used;
		len -= used;
		if (result == RESP_COMPLETE)
			continue;
		if (len > sizeof up->tail)
			upstream_close(up, "the upstream's answer is no RESP");
		else
			memcpy(up->tail, data, up->tail_len = len);
		return;
	}
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct upstream *up = arg;
	struct proxy *proxy = up->proxy;

	(void)what;
	proxy->now_us = loop_now_us(proxy->loop);
	if (up->state == UPSTREAM_HANDSHAKE) {
		handshake(up);
		return;
	}
	for (int i = 0; i < READS_A_TURN && up->state != UPSTREAM_DEAD && !up->slow; i++) {
		size_t before = up->tail_len;
		size_t room = sizeof proxy->scratch - before;
		ssize_t n = up->tls ? tls_read(up->tls, proxy->scratch + before, room)
				    : read(fd, proxy->scratch + before, room);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			upstream_close(up, lost);
			return;
		}
		memcpy(proxy->scratch, up->tail, before);
		up->tail_len = 0;
		up->heard_us = proxy->now_us;
		proxy->reply_bytes += (size_t)n;
		take(up, proxy->scratch, before + (size_t)n);
		/* TLS gives a record at a time. */
		if ((size_t)n < room && !up->tls)
			return;
	}
	if (up->tls && up->state != UPSTREAM_DEAD && !up->slow && tls_pending(up->tls))
		event_active(up->read_event, EV_READ, 0);
}

/* ---- closing ---- */

void upstream_close(struct upstream *up, const char *reason)
{
	struct proxy *proxy = up->proxy;
	bool never_connected = up->state <= UPSTREAM_HANDSHAKE;
	bool never_ready = up->state < UPSTREAM_READY;

	if (up->state == UPSTREAM_DEAD)
		return;
	up->state = UPSTREAM_DEAD;
	event_del(up->read_event);
	event_del(up->write_event);
	tls_close(&up->tls);
	close(up->fd);
	up->fd = -1;
	server_count(up->pool->server)->open--;
	if (never_connected && reason)
		server_failed(up->pool->server);
	*up->prev = up->next;
	if (up->next)
		up->next->prev = up->prev;
	pool_upstream_closed(up->pool, up, never_ready ? reason : NULL);
	for (bool first = true; up->count; first = false) {
		struct entry entry = *first_entry(up);

		up->first = (up->first + 1) & (up->capacity - 1);
		up->count--;
		if (reason)
			stats_lost(&entry, up);
		if (entry.is_place)
			place_lost(entry.place, reason ? reason : lost, first && up->partial);
		else if (entry.client)
			client_failed(
				entry.client, &entry, reason ? reason : lost, first && up->partial);
	}
	struct client *owner = up->owner;

	up->owner = NULL;
	if (owner && reason)
		client_own_upstream_lost(owner, never_ready);
	if (!up->is_dirty) {
		up->next_dirty = proxy->dead_upstreams;
		proxy->dead_upstreams = up;
		proxy_schedule(proxy);
	}
}

void upstream_destroy(struct upstream *up)
{
	event_free(up->read_event);
	event_free(up->write_event);
	out_free(&up->out);
	buf_free(&up->refusal);
	free((char *)up->name);
	free(up->queue);
	free(up);
}
