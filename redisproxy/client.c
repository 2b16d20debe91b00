#include "redisproxy/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"
#include "redisproxy/budget.h"
#include "redisproxy/dispatch.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/upstream.h"
#include "redisproxy/waiting.h"

#define UNREAD_MAX (1 << 20)
#define OWN_OUTPUT (1 << 20) /* the same, for reading a connection of its own */

static void on_writable(evutil_socket_t fd, short what, void *arg);

void client_mark(struct client *c)
{
	if (c->is_dirty || c->dead)
		return;
	c->is_dirty = true;
	c->next_dirty = NULL;
	*c->proxy->dirty_clients_end = c;
	c->proxy->dirty_clients_end = &c->next_dirty;
	proxy_schedule(c->proxy);
}

static void look_again(struct client *c)
{
	c->again = true;
	client_mark(c);
}

struct client *client_new(struct proxy *proxy, int fd)
{
	struct event_base *base = loop_base(proxy->loop);
	struct client *c = calloc(1, sizeof *c);

	if (!c)
		goto fail_fd;
	c->read_event = event_new(
		base, fd, EV_READ | EV_CLOSED | EV_ET | EV_PERSIST, client_on_readable, c);
	c->write_event = event_new(base, fd, EV_WRITE | EV_ET | EV_PERSIST, on_writable, c);
	if (!c->read_event || !c->write_event)
		goto fail_events;
	c->proxy = proxy;
	c->fd = fd;
	c->pool = pool_ref(proxy->default_pool);
	c->places_end = &c->places;
	c->slot = proxy->next_slot++;
	buf_init(&c->in, UNREAD_MAX);
	buf_init(&c->name, UNREAD_MAX);
	buf_init(&c->future.user, UNREAD_MAX);
	buf_init(&c->future.password, UNREAD_MAX);
	buf_init(&c->future.name, UNREAD_MAX);
	c->next = proxy->clients;
	c->prev = &proxy->clients;
	if (c->next)
		c->next->prev = &c->next;
	proxy->clients = c;
	proxy->n_clients++;
	event_add(c->read_event, NULL);
	return c;

fail_events:
	if (c->read_event)
		event_free(c->read_event);
	if (c->write_event)
		event_free(c->write_event);
	free(c);
fail_fd:
	close(fd);
	return NULL;
}

static void stop_waiting(struct client *c)
{
	waiting_remove(c);
	c->wait = CLIENT_GOES_ON;
	c->waits_for_pool = NULL;
	c->waits_for_room = NULL;
}

static void bury(struct client *c)
{
	if (c->buried)
		return;
	c->buried = true;
	c->next_dirty = c->proxy->dead_clients;
	c->proxy->dead_clients = c;
	proxy_schedule(c->proxy);
}

void client_drop_own(struct client *c)
{
	struct upstream *own = c->own;

	if (!own)
		return;
	c->own = NULL;
	own->owner = NULL;
	c->multi = c->watch = c->multi_sent = false;
	upstream_close(own, NULL);
}

/* May the connection be read, as far as this client takes what comes? */
static bool is_taken(const struct client *c, const struct upstream *up)
{
	size_t limit = (size_t)c->proxy->conf->client_output_bytes;
	size_t held = out_pending(&c->out) + c->held_bytes;

	if (up->is_shared)
		return held <= limit || !budget_is_scarce(c->proxy);
	return held <= (limit < OWN_OUTPUT ? limit : OWN_OUTPUT);
}

static void resume_upstreams(struct client *c)
{
	for (struct upstream **at = &c->pauses, *up; (up = *at);) {
		if (!c->dead && !is_taken(c, up)) {
			at = &up->next_paused;
			continue;
		}
		*at = up->next_paused;
		upstream_resume(up);
	}
}

void client_close(struct client *c)
{
	if (c->dead)
		return;
	stop_waiting(c);
	c->dead = true;
	event_del(c->read_event);
	event_del(c->write_event);
	close(c->fd);
	c->fd = -1;
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	buf_free(&c->in);
	out_free(&c->out);
	budget_forget(c);
	client_drop_own(c);
	resume_upstreams(c);
	c->proxy->n_clients--;
	/* Replies that are under way on a shared connection still point here. */
	if (!c->in_flight && !c->is_dirty)
		bury(c);
	proxy_client_closed(c->proxy);
}

void client_destroy(struct client *c)
{
	event_free(c->read_event);
	event_free(c->write_event);
	pool_unref(&c->pool);
	pool_unref(&c->reader_pool);
	pool_unref(&c->future.pool);
	buf_free(&c->name);
	buf_free(&c->future.user);
	buf_free(&c->future.password);
	buf_free(&c->future.name);
	free(c->error);
	free(c);
}

void client_finish(struct client *c)
{
	c->closing = true;
	client_mark(c);
}

/* ---- output ---- */

int client_say(struct client *c, const char *data, size_t len)
{
	if (out_append(&c->out, data, len) < 0) {
		client_close(c);
		return -1;
	}
	client_mark(c);
	return 0;
}

void client_say_error(struct client *c, const char *text)
{
	if (client_say(c, "-", 1) == 0 && client_say(c, text, strlen(text)) == 0)
		client_say(c, "\r\n", 2);
}

void client_check_output(struct client *c, struct upstream *up)
{
	size_t limit = (size_t)c->proxy->conf->client_output_bytes;
	size_t held = out_pending(&c->out) + c->held_bytes;

	if (held <= CLIENT_OUTPUT_HIGH)
		return;
	budget_count(c);
	if (up->is_shared && out_pending(&c->out) > limit)
		budget_watch(c);
	if (up->slow || is_taken(c, up))
		return;
	up->slow = c;
	up->next_paused = c->pauses;
	c->pauses = up;
	event_del(up->read_event);
	/* Others do not wait behind this one. */
	if (up->is_shared)
		pool_set_apart(up);
}

void client_give(struct client *c, struct upstream *up, const char *data, size_t len)
{
	if (!c->dead && client_say(c, data, len) == 0)
		client_check_output(c, up);
}

void client_upstream_gone(struct client *c, struct upstream *up)
{
	for (struct upstream **at = &c->pauses; *at; at = &(*at)->next_paused)
		if (*at == up) {
			*at = up->next_paused;
			break;
		}
	up->slow = NULL;
}

void client_too_slow(struct client *c, const char *why)
{
	log_warn("a client %s (%zu bytes wait): closed", why, out_pending(&c->out) + c->held_bytes);
	metric_add(c->proxy->stats.slow_clients, 1);
	client_close(c);
}

void client_flush(struct client *c)
{
	size_t before = out_pending(&c->out);

	if (c->dead)
		return;
	if (out_write(&c->out, c->fd, NULL) < 0) {
		client_close(c);
		return;
	}
	size_t pending = out_pending(&c->out);

	c->written += before - pending;
	if (pending || c->counted)
		budget_count(c);
	if (c->pauses)
		resume_upstreams(c);
	if (c->closing && !pending) {
		client_close(c);
		return;
	}
	if (c->throttled && pending < CLIENT_OUTPUT_HIGH / 2 &&
		c->in_flight <= (uint32_t)c->proxy->conf->max_in_flight / 2) {
		c->throttled = false;
		look_again(c);
	}
	bool wants = pending > 0;

	if (wants != c->wants_write) {
		c->wants_write = wants;
		if (wants)
			event_add(c->write_event, NULL);
		else
			event_del(c->write_event);
	}
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct client *c = arg;

	(void)fd;
	(void)what;
	c->proxy->now_us = loop_now_us(c->proxy->loop);
	client_flush(c);
}

/* ---- waiting ---- */

void client_wait_upstream(struct client *c, struct pool *pool)
{
	c->waits_for_pool = pool;
	if (c->gave_up) {
		stats_count(&c->proxy->stats, STATS_LOST, "no_connection");
		client_wake(c, CLIENT_NO_CONNECTION);
		return;
	}
	if (!c->wait_until_us)
		c->wait_until_us = c->proxy->now_us + (uint64_t)c->proxy->conf->wait_ms * 1000;
	c->wait = CLIENT_WAITS_UPSTREAM;
	waiting_add(c);
}

void client_wait_room(struct client *c, struct upstream *up)
{
	c->waits_for_room = up;
	up->waited = true;
	c->wait = CLIENT_WAITS_UPSTREAM;
	waiting_add(c);
}

void client_wake(struct client *c, const char *error)
{
	stop_waiting(c);
	if (error && !c->error) {
		c->error = strdup(error);
		if (!c->error) {
			client_close(c);
			return;
		}
	}
	look_again(c);
}

/* ---- replies ---- */

static void one_less(struct client *c)
{
	c->in_flight--;
	if (c->dead) {
		if (!c->in_flight && !c->is_dirty)
			bury(c);
		return;
	}
	client_mark(c);
	/* Of half a command that is the last there is no reply to come. */
	if (c->eof && c->in_flight == c->streaming)
		look_again(c);
	if (c->in_flight)
		return;
	c->current = NULL;
	if (c->wrote_in_flight) {
		c->wrote_in_flight = false;
		c->wrote_us = c->proxy->now_us;
	}
	dispatch_settle(c);
	if (c->wait == CLIENT_WAITS_FOR_REPLIES) {
		stop_waiting(c);
		look_again(c);
	}
}

void client_replied(struct client *c, const struct entry *entry, bool failed, struct span head)
{
	static const char aborted[] = "-EXECABORT";

	switch (entry->meaning) {
	case ENTRY_MULTI:
		c->multi = c->multi || !failed;
		break;
	case ENTRY_EXEC:
		if (!failed || (head.len >= sizeof aborted - 1 &&
				       memcmp(head.data, aborted, sizeof aborted - 1) == 0))
			c->multi = c->watch = false;
		break;
	case ENTRY_WATCH:
		c->watch = c->watch || !failed;
		break;
	case ENTRY_UNWATCH:
		/* Within MULTI it is only queued, and EXEC will say. */
		c->watch = c->watch && (failed || c->multi);
		break;
	case ENTRY_LOGIN:
		if (!c->dead)
			dispatch_login_answered(c, failed);
		break;
	default:
		break;
	}
	one_less(c);
}

void client_failed(struct client *c, const struct entry *entry, const char *reason, bool partial)
{
	char text[256];

	if (c->dead) {
		one_less(c);
		return;
	}
	stats_count(&c->proxy->stats, STATS_LOST, "lost");
	if (partial) {
		/* The rest of that reply cannot be made up. */
		client_close(c);
	} else {
		snprintf(text, sizeof text, "ERR redisproxy: %s", reason);
		client_say_error(c, text);
	}
	if (!c->dead && entry->meaning == ENTRY_LOGIN)
		dispatch_login_answered(c, true);
	one_less(c);
}

void client_own_upstream_lost(struct client *c, bool never_ready)
{
	c->own = NULL;
	if (never_ready)
		return;
	c->multi = c->watch = c->streaming = c->multi_sent = false;
	/* What was kept there is lost: the client must begin anew, as with Redis itself. */
	client_finish(c);
}
