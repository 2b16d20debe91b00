#ifndef BROADCASTERD_TARGET_H
#define BROADCASTERD_TARGET_H

/*
 * Who is purged: one address each, found by discovery or named in the journal. A target is one
 * struct for as long as anybody holds it, so that all that it still has to be told is in one place.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "common/span.h"

#define TARGET_MAX_NAME 256

/* In the journal as these numbers. */
enum target_kind {
	TARGET_POD = 0,    /* an address of TARGET_SERVICE: "10.0.0.7:8100", "[fd00::7]:8100" */
	TARGET_STATIC = 1, /* "host:port" of the settings */
	TARGET_LOCAL = 2,  /* "gatewayd.0": RUN_DIR/gatewayd.0.sock */
	TARGET_KINDS
};

struct targets;
struct redelivery_queue;

struct target {
	struct targets *targets;
	unsigned refs;
	TAILQ_ENTRY(target) entry;
	enum target_kind kind;
	struct redelivery_queue
		*queue; /* redelivery's: what it still has to be told; NULL: nothing */
	char name[];
};

/* NULL when out of memory. */
struct targets *targets_new(void);
/* All targets must have been given back. */
void targets_free(struct targets **targets);

/* The target of that kind and name, held for the caller; a new one when there was none. NULL when
 * out of memory, or for a name over TARGET_MAX_NAME. */
struct target *targets_get(struct targets *targets, enum target_kind kind, struct span name);
struct target *target_ref(struct target *target);
void target_unref(struct target **target); /* clears the pointer; NULL is fine */

/* Several of them, each held. */
struct target_list {
	struct target **items;
	size_t count, capacity;
};
/* Takes the reference over, on failure too (-1, out of memory). NULL is such a failure. */
int target_list_add(struct target_list *list, struct target *target);
bool target_list_has(const struct target_list *list, const struct target *target);
void target_list_clear(struct target_list *list);

#endif
