#ifndef REDISPROXY_BUDGET_H
#define REDISPROXY_BUDGET_H

/*
 * What is held for clients: replies that they have not taken, and commands that are not complete.
 *
 * A client over --client-output-limit must take 16 KiB a second, or is closed; as long as it does,
 * the rest of its replies is read into memory, so that it stops nobody. --client-memory is for all
 * clients together: above half of it the budget is scarce, and a connection is not read while its
 * reply is for a client over the limit (client_check_output()); above it the clients that hold most
 * are closed.
 */
#include <stdbool.h>
#include <stdint.h>

#include "redisproxy/conf.h"
#include "redisproxy/proxy.h"

struct client;

/* What this client holds has changed. */
void budget_count(struct client *c);
/* It is over the limit: see whether it takes what it is owed. */
void budget_watch(struct client *c);
/* It holds nothing any more. */
void budget_forget(struct client *c);
/* Where nothing of a client is in use: close those that hold most, if all hold too much. */
void budget_keep(struct proxy *proxy);
/* Once a second. */
void budget_sweep(struct proxy *proxy);

static inline bool budget_is_scarce(const struct proxy *proxy)
{
	return proxy->budget.held > (uint64_t)proxy->conf->client_memory_bytes / 2;
}

#endif
