#include "redisproxy/budget.h"

#include <linux/sockios.h>
#include <malloc.h>
#include <sys/ioctl.h>

#include "common/log.h"
#include "redisproxy/client.h"

#define MAX_SLOW_US 1000000
#define LEAST_TAKEN (16 << 10) /* between two sweeps */
#define TRIM_BYTES  (16 << 20) /* less than at the peak: worth giving back */
#define SPARE       16         /* that part of the budget is free after it was exceeded */

/* Bytes that the kernel has taken, and the client has not. */
static int queued(const struct client *c)
{
	int n = 0;

	return ioctl(c->fd, SIOCOUTQ, &n) == 0 ? n : 0;
}

void budget_watch(struct client *c)
{
	struct budget *b = &c->proxy->budget;

	if (c->prev_watched)
		return;
	c->next_watched = b->watched;
	c->prev_watched = &b->watched;
	if (c->next_watched)
		c->next_watched->prev_watched = &c->next_watched;
	b->watched = c;
	c->written = 0;
	c->queued = queued(c);
	c->took_us = c->proxy->now_us;
}

static void unwatch(struct client *c)
{
	if (!c->prev_watched)
		return;
	*c->prev_watched = c->next_watched;
	if (c->next_watched)
		c->next_watched->prev_watched = c->prev_watched;
	c->prev_watched = NULL;
}

void budget_count(struct client *c)
{
	const struct redisproxy_conf *conf = c->proxy->conf;
	struct budget *b = &c->proxy->budget;
	size_t held = out_pending(&c->out) + c->held_bytes + c->in.capacity;

	if (c->dead)
		return;
	b->held += held - c->counted;
	c->counted = held;
	if (b->held > b->peak)
		b->peak = b->held;
	if (b->held > (uint64_t)conf->client_memory_bytes)
		proxy_schedule(c->proxy);
	if (out_pending(&c->out) <= (size_t)conf->client_output_bytes / 2)
		unwatch(c);
}

void budget_forget(struct client *c)
{
	c->proxy->budget.held -= c->counted;
	c->counted = 0;
	unwatch(c);
}

static struct client *greatest(struct proxy *proxy)
{
	struct client *found = proxy->clients;

	for (struct client *c = found; c; c = c->next)
		if (c->counted > found->counted)
			found = c;
	return found;
}

void budget_keep(struct proxy *proxy)
{
	uint64_t budget = (uint64_t)proxy->conf->client_memory_bytes;
	uint64_t before = proxy->budget.held;
	unsigned n = 0;

	if (before <= budget)
		return;
	while (proxy->clients && proxy->budget.held > budget - budget / SPARE) {
		client_close(greatest(proxy));
		n++;
	}
	metric_add(proxy->stats.slow_clients, n);
	log_warn(
		"clients hold %llu bytes, more than --client-memory: those that hold most are closed, "
		"%u of them",
		(unsigned long long)before, n);
}

/* Less than it must has it taken since the last time, for so long. */
static bool is_stuck(struct client *c)
{
	int now = queued(c);
	int64_t took = (int64_t)c->written - (now - c->queued);

	c->written = 0;
	c->queued = now;
	if (took >= LEAST_TAKEN)
		c->took_us = c->proxy->now_us;
	return c->proxy->now_us - c->took_us > MAX_SLOW_US;
}

void budget_sweep(struct proxy *proxy)
{
	struct budget *b = &proxy->budget;

	for (struct client *c = b->watched, *next; c; c = next) {
		next = c->next_watched;
		if (is_stuck(c))
			client_too_slow(c, "does not take its replies");
	}
	/* The heap keeps what lies between blocks that are still in use. */
	if (b->peak - b->held > TRIM_BYTES) {
		malloc_trim(0);
		b->peak = b->held;
	}
}
