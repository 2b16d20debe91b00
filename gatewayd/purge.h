#ifndef GATEWAYD_PURGE_H
#define GATEWAYD_PURGE_H

/*
 * A purge, applied to every instance of the pod:
 *
 *   ROUND 1 ──> ROUND 2 ──> done
 *
 * With X-Purge-Store an epoch (purge_epochs.h) holds here from the first moment on, and is written
 * to the store during the first round.
 *
 * In a round this instance purges its own memory, in slices, while the others are asked by RPC
 * `purge` to do the same (`only`: none of them asks further). The second round takes out copies
 * that an instance fetched in between from an owner that was not yet purged. A purge that is for
 * this instance only has one round.
 *
 * What a purge covers is not found any more from the first moment on; see cache_tags.h.
 *
 * An instance that is not running has nothing in its memory: nothing to purge, a success that says
 * so. One that is there and does not answer, or refuses, is a failure; what can be purged is purged
 * all the same. Asking again is harmless. Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gatewayd/purge_request.h"

struct cache;
struct cache_cleaner;
struct loop;
struct purge;
struct purger;

struct epoch;
struct purge_epochs;

#define PURGES_MAX 256 /* under way; more is refused */

struct purger_options {
	const char *run_dir; /* <run_dir>/gatewayd.<n>.sock are the instances */
	unsigned self, n;
	char *const *token;            /* where the setting is: may change with a reload */
	struct purge_epochs *epochs;   /* NULL: there is no store */
	struct cache_cleaner *cleaner; /* of the same cache */
};

struct purge_target_result {
	char pod[16]; /* "gatewayd.1" */
	int status;   /* as of HTTP; 0: no answer */
	bool success;
	char error[192]; /* "": none */
};

struct purge_result {
	uint64_t purged; /* objects taken out of memory, everywhere */
	size_t n, failed;
	/* By number of the instance; of a purge of the store behind them "store". */
	const struct purge_target_result *targets;
	const char *error; /* of the first that failed, with its name; "": none did */
};

struct purger_counters {
	uint64_t done[PURGE_SCOPES]; /* local ones, those asked by other instances too */
	uint64_t of_pod;             /* of them those for the whole pod, asked for here */
	uint64_t failed;             /* of the latter: an instance or the store did not do it */
};

/* Borrows all. NULL when out of memory. */
struct purger *purger_new(
	struct loop *loop, struct cache *cache, const struct purger_options *options);
/*
 * Begin: what it covers is not found any more when this returns. request is copied. on_done once,
 * never from inside; result is lent. NULL: too many under way, or no memory; nothing was purged.
 */
struct purge *purge_start(struct purger *purger, const struct purge_request *request,
	void (*on_done)(const struct purge_result *result, void *arg), void *arg);
/* Purge this instance's memory of what an epoch covers, that was learned from the store. */
void purge_for_epoch(struct purger *purger, const struct epoch *epoch);
/* It goes on, on_done does not come. */
void purge_forget(struct purge *purge);
const struct purger_counters *purger_counters(const struct purger *purger);
/* Purges under way end without a callback. */
void purger_free(struct purger **purger);

#endif
