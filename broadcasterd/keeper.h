#ifndef BROADCASTERD_KEEPER_H
#define BROADCASTERD_KEEPER_H

/*
 * When the journal is written: at once when somebody waits for it, soon after a change that nobody
 * waits for (a purge that was delivered: lost, it would be told once more), again after a while
 * when it could not be written. One save at a time; what changes meanwhile goes with the next.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

struct keeper;
struct loop;
struct metrics;

struct keeper_options {
	struct loop *loop;
	struct metrics *metrics;
	const char *path; /* NULL: no journal; who waits does not wait long */
	/* Append what is to be saved now; nothing: there shall be no file. */
	void (*write)(struct buf *out, void *arg);
	void *arg;
};

/* Somebody who waits until what is there now is saved. */
struct keeper_waiter {
	void (*on_kept)(void *arg); /* also when it could not be written (logged, counted) */
	void *arg;
	uint64_t revision;                  /* private */
	struct keeper_waiter *next, **prev; /* private; prev NULL: does not wait */
};

/* options are copied. NULL when out of memory. */
struct keeper *keeper_new(const struct keeper_options *options);
/* What was saved last: blocks, for the start. Empty: nothing, or nothing that can be used (logged).
 */
void keeper_load(struct keeper *keeper, struct buf *out);
void keeper_changed(struct keeper *keeper);
/* on_kept: once, never from inside this call. */
void keeper_wait(struct keeper *keeper, struct keeper_waiter *waiter);
/* No callback comes; fine for one that does not wait. */
void keeper_forget(struct keeper_waiter *waiter);
/* Saves if something has changed (this blocks: for the end of the process). */
void keeper_free(struct keeper **keeper);

#endif
