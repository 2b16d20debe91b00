#ifndef BROADCASTERD_DISCOVERY_H
#define BROADCASTERD_DISCOVERY_H

/*
 * Whom to purge, now: every address of TARGET_SERVICE (asked of DNS each time, nothing is kept),
 * the static list, and the gatewayd sockets in the run directory that somebody listens on (a
 * process that is gone has no memory to purge).
 *
 * Reading the run directory and connecting to its sockets is done on the loop: a few files of the
 * pod's own memory-backed directory, never waited for (connects do not block).
 */
#include <stdint.h>

#include "broadcasterd/target.h"

struct broadcaster_conf;
struct discovery;
struct search;
struct loop;
struct metrics;
struct trace;

enum discovery_outcome {
	DISCOVERY_OK,
	DISCOVERY_NONE,   /* nobody; or DNS says that the service has no address, though one is set:
			     whoever else there is, this is not all of them */
	DISCOVERY_FAILED, /* DNS did not answer, or with more than max_targets */
};

struct discovery_result {
	enum discovery_outcome outcome;
	const struct target_list *targets; /* those there are, empty with DISCOVERY_FAILED; borrowed
					      for the callback: hold what should stay */
};

/* conf is the caller's and stays. NULL when out of memory. */
struct discovery *discovery_new(struct loop *loop, const struct broadcaster_conf *conf,
	struct targets *targets, struct metrics *metrics);
/* Searches under way end without a callback. Not from an on_done. */
void discovery_free(struct discovery **discovery);
/* trace: of the purge that wants it, for the log (copied); NULL: none. on_done: exactly once, never
 * from inside this call; the search is gone when it is called. NULL only when out of memory. */
struct search *discovery_start(struct discovery *discovery, const struct trace *trace,
	void (*on_done)(const struct discovery_result *result, void *arg), void *arg);
/* No callback comes. Clears the pointer; NULL is fine. */
void discovery_cancel(struct search **search);
/* The socket of a TARGET_LOCAL; -1 when the path is too long. */
int discovery_socket_path(
	const struct discovery *discovery, const struct target *target, char *path, size_t size);

#endif
