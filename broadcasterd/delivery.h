#ifndef BROADCASTERD_DELIVERY_H
#define BROADCASTERD_DELIVERY_H

/*
 * One purge told to one target, once. Pods are told over HTTP: same method, path, fields and body,
 * Host the service's name, our purge token as Authorization. A gatewayd of this pod is told over
 * its RPC socket, on a connection of its own (a kept one would keep a gatewayd that drains).
 *
 *   waiting (for one of `concurrency` places) -> asked -> over
 */
#include <stdbool.h>
#include <stdint.h>

#include "broadcasterd/purge.h"
#include "broadcasterd/target.h"

struct broadcaster_conf;
struct discovery;
struct deliveries;
struct delivery;
struct http_client;
struct loop;

enum delivery_outcome {
	DELIVERY_OK,      /* it has purged: 2xx */
	DELIVERY_CONNECT, /* not reached: nothing was sent */
	DELIVERY_TIMEOUT, /* asked, no answer in time */
	DELIVERY_BROKEN,  /* no whole answer: connection lost, no HTTP */
	DELIVERY_DENIED,  /* 401, 403: another token */
	DELIVERY_REFUSED, /* any other 4xx but 408 and 429: asking again would not change it */
	DELIVERY_FAILED,  /* 408, 429, 3xx, 5xx */
	DELIVERY_OUTCOMES
};
extern const char *const delivery_outcome_names[DELIVERY_OUTCOMES];

struct delivery_result {
	enum delivery_outcome outcome;
	int status;        /* HTTP status, of a local target as if by HTTP; 0: it did not answer */
	const char *error; /* one sentence for people; "" with DELIVERY_OK. Never has the token. */
	uint64_t purged;   /* objects, as the target says; 0 when it does not */
	/* X-Instance-Id of the answer, borrowed; empty: it did not say. Another one than before is
	 * another start, with an empty memory. */
	struct span instance;
	uint64_t duration_us; /* since it was asked */
};

struct delivery_options {
	struct target *target; /* held meanwhile */
	struct purge *purge;   /* held meanwhile */
	uint32_t connect_timeout_ms, timeout_ms;
	bool traced; /* a span of its own; what is told again and again has none */
	bool fresh;  /* HTTP: on a new connection, since a kept one may lead nowhere */
};

/* conf, discovery and client are the caller's and stay; of these deliveries
 * BROADCASTERD_CONCURRENCY are asked at a time, the others wait in order. NULL when out of memory.
 */
struct deliveries *deliveries_new(struct loop *loop, const struct broadcaster_conf *conf,
	const struct discovery *discovery, struct http_client *client);
/* All must be over or cancelled. */
void deliveries_free(struct deliveries **deliveries);

/* on_done: exactly once, never from inside this call; the delivery is gone when it is called. NULL
 * only when out of memory. */
struct delivery *delivery_start(struct deliveries *deliveries,
	const struct delivery_options *options,
	void (*on_done)(const struct delivery_result *result, void *arg), void *arg);
/* No callback comes. Clears the pointer; NULL is fine. */
void delivery_cancel(struct delivery **delivery);

#endif
