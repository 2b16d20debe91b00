#include "redisproxy/waiting.h"

#include "redisproxy/client.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/server.h"
#include "redisproxy/upstream.h"

#define TICK_MS 20

void waiting_add(struct client *c)
{
	struct proxy *proxy = c->proxy;

	if (!c->prev_waiting) {
		c->next_waiting = NULL;
		c->prev_waiting = proxy->waiting_end;
		*proxy->waiting_end = c;
		proxy->waiting_end = &c->next_waiting;
	}
	if (!timer_armed(proxy->wait_timer))
		timer_arm(proxy->wait_timer, TICK_MS);
}

void waiting_remove(struct client *c)
{
	if (!c->prev_waiting)
		return;
	*c->prev_waiting = c->next_waiting;
	if (c->next_waiting)
		c->next_waiting->prev_waiting = c->prev_waiting;
	else
		c->proxy->waiting_end = c->prev_waiting;
	c->prev_waiting = NULL;
}

/* Waking takes clients off the list: so everywhere the next one is remembered before. */

void waiting_wake(struct upstream *up, const char *error)
{
	for (struct client *c = up->proxy->waiting, *next; c; c = next) {
		next = c->next_waiting;
		if (up->is_shared ? c->waits_for_pool == up->pool : c == up->owner)
			client_wake(c, error);
	}
}

bool waiting_wake_for_room(struct upstream *up, unsigned at_most)
{
	for (struct client *c = up->proxy->waiting, *next; c; c = next) {
		next = c->next_waiting;
		if (c->waits_for_room != up)
			continue;
		if (at_most-- == 0)
			return true;
		client_wake(c, NULL);
	}
	return false;
}

void waiting_wake_all(struct proxy *proxy)
{
	for (struct client *c = proxy->waiting, *next; c; c = next) {
		next = c->next_waiting;
		client_wake(c, NULL);
	}
}

static void try_again(struct client *c, uint64_t now)
{
	if (now >= c->wait_until_us) {
		stats_count(&c->proxy->stats, STATS_LOST, "no_connection");
		c->gave_up = true;
		client_wake(c, CLIENT_NO_CONNECTION);
	} else if (!c->waits_for_pool || !server_up(c->waits_for_pool->server)) {
		/* Perhaps a connection of its own can be made by now; perhaps the reader is down,
		 * and the writer is not. */
		client_wake(c, NULL);
	} else if (c->waits_for_pool->tried_us != now) {
		c->waits_for_pool->tried_us = now;
		pool_shared(c->waits_for_pool, c->slot);
	}
}

static void on_tick(void *arg)
{
	struct proxy *proxy = arg;
	uint64_t now = loop_now_us(proxy->loop);

	proxy->now_us = now;
	for (struct client *c = proxy->waiting, *next; c; c = next) {
		next = c->next_waiting;
		if (!c->waits_for_room)
			try_again(c, now);
	}
	if (proxy->waiting)
		timer_arm(proxy->wait_timer, TICK_MS);
}

int waiting_init(struct proxy *proxy)
{
	proxy->waiting_end = &proxy->waiting;
	proxy->wait_timer = timer_new(proxy->loop, on_tick, proxy);
	return proxy->wait_timer ? 0 : -1;
}

void waiting_free(struct proxy *proxy)
{
	timer_free(&proxy->wait_timer);
}
