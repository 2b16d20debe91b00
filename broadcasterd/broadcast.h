#ifndef BROADCASTERD_BROADCAST_H
#define BROADCASTERD_BROADCAST_H

/*
 * One purge told to all: find the targets, tell them all at once, answer with what each said.
 * A target that did not take it is handed to redelivery at once, and the answer waits until that is
 * in the journal: what an answer calls failed is not forgotten when this process dies.
 *
 *   searching -> telling -> keeping (when one failed) -> over
 *
 * A broadcast that nobody waits for any more goes on to its end.
 */
#include <stdbool.h>
#include <stdint.h>

#include "broadcasterd/delivery.h"
#include "broadcasterd/discovery.h"
#include "broadcasterd/purge.h"
#include "common/messages.h"

struct broadcasts;
struct broadcast;
struct metrics;
struct redelivery;

enum broadcast_outcome {
	BROADCAST_DONE,    /* told to all: ask results */
	BROADCAST_NOBODY,  /* "no pods found for service" */
	BROADCAST_UNKNOWN, /* "service discovery failed" */
	BROADCAST_OUTCOMES
};

struct broadcast_result {
	enum broadcast_outcome outcome;
	size_t n_failed;
	/* As of RPC `purge`: status 200 or 502, error, purged, results in the order of the targets.
	 * Borrowed for the callback. */
	struct msg_purge_result message;
};

struct broadcast_parts {
	struct loop *loop;
	const struct broadcaster_conf *conf;
	struct metrics *metrics;
	struct discovery *discovery;
	struct deliveries *deliveries;
	struct redelivery *redelivery;
};

/* Parts are the caller's and stay. NULL when out of memory. */
struct broadcasts *broadcasts_new(const struct broadcast_parts *parts);
/* Those under way end without a callback. */
void broadcasts_free(struct broadcasts **broadcasts);
size_t broadcasts_count(const struct broadcasts *broadcasts); /* under way */
/* on_drained when none is under way any more; never from inside this call. */
void broadcasts_drain(struct broadcasts *broadcasts, void (*on_drained)(void *arg), void *arg);

/* Begin; the purge is held meanwhile. on_done: exactly once, never from inside this call; the
 * broadcast is gone when it returns. NULL: more than max_purges are under way, it is of the store
 * and redelivery_is_full(), or out of memory. */
struct broadcast *broadcast_start(struct broadcasts *broadcasts, struct purge *purge,
	void (*on_done)(const struct broadcast_result *result, void *arg), void *arg);
/* Nobody waits for it any more: no callback comes. Clears the pointer; NULL is fine. */
void broadcast_leave(struct broadcast **broadcast);

#endif
