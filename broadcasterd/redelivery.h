#ifndef BROADCASTERD_REDELIVERY_H
#define BROADCASTERD_REDELIVERY_H

/*
 * Purges that a target still has to be told. Each target has a queue, told in order; one attempt at
 * a time as long as it does not answer, and at most BROADCASTERD_RETRY_INTERVAL between the end of
 * one and the start of the next, so a target that comes back is purged within twice that.
 *
 *   pending -> told again -> delivered | left | restarted | refused
 *
 * It ends when the target has taken it; when the target has left: absent from two searches
 * (discovery.h) in a row, a second apart, in which DNS answered; when, for a purge of memory only,
 * the target shows another instance id than in an earlier answer to the same purge (it has started
 * since, empty); or when the target says that the purge itself is wrong (4xx but 401, 403, 408,
 * 429). A target that wants another token (401, 403) is asked again every 5 s, until tokens agree.
 *
 * How long it waits for an answer: as long as for a connection at first, so that a target that was
 * cut off in the middle is tried anew soon; after an attempt that was sent and not answered in
 * time, twice as long, up to BROADCASTERD_TIMEOUT, so that a slow target gets there.
 *
 * Bounds: BROADCASTERD_MAX_PENDING for a target, BROADCASTERD_MAX_PENDING_MEMORY for all together.
 * What is over is not lost but coarser: the purges kept for that target (for the others too, the
 * longest queues first, when the memory is used up) become one, of everything it has in memory. A
 * purge of the store is in the store as soon as one target took it, and others read it there; so
 * it may be made coarser in that way from then on. Those that nobody took are kept as they are,
 * also above BROADCASTERD_MAX_PENDING; when they fill the memory, redelivery_is_full(), and new
 * purges of the store are refused.
 *
 * Everything pending is in the journal (journal.h), written on a worker thread; redelivery_keep()
 * says when.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broadcasterd/delivery.h"
#include "broadcasterd/discovery.h"
#include "broadcasterd/keeper.h"
#include "broadcasterd/purge.h"
#include "broadcasterd/target.h"

struct redelivery;
struct metrics;

struct redelivery_parts {
	struct loop *loop;
	const struct broadcaster_conf *conf;
	struct metrics *metrics;
	struct targets *targets;
	struct discovery *discovery;
	struct deliveries *deliveries; /* its own: new purges do not wait for dead targets */
	const char *journal;           /* path; NULL: none */
};

/* Reads the journal and begins. NULL when out of memory. */
struct redelivery *redelivery_new(const struct redelivery_parts *parts);
/* Writes the journal if it is not up to date (this blocks: for the end of the process). */
void redelivery_free(struct redelivery **redelivery);

/* A target did not take a purge: tell it again, unless it said that the purge is wrong. result is
 * what it said. 0; -1 when out of memory. */
int redelivery_add(struct redelivery *redelivery, struct target *target, struct purge *purge,
	const struct delivery_result *result);
size_t redelivery_pending(const struct redelivery *redelivery);
bool redelivery_is_full(const struct redelivery *redelivery);

/* Tell when what is pending now is in the journal; keeper_forget() ends the wait. */
void redelivery_keep(struct redelivery *redelivery, struct keeper_waiter *waiter);

#endif
