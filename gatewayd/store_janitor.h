#ifndef GATEWAYD_STORE_JANITOR_H
#define GATEWAYD_STORE_JANITOR_H

/*
 * Keeps a store directory within its size and removes what crashes left in tmp. Every process has
 * one, and one at a time works: who gets the flock on <dir>/janitor.lock. The lock file's time
 * says when the last full run ended, so that N processes do not do it N times, and its content what
 * that left there ("OBJECTS BYTES\n"), so that one that has just started knows.
 *
 *   tmp: remove files older than an hour
 *   scan: sum the sizes of all objects by age                   only when it is time, or asked
 *   evict: over the cap? remove the longest unused down to 90 % of it
 *
 * Age is by modification time (which a hit renews once a day). Ages are counted in classes 1.6 %
 * wide, so a run needs 32 KiB whatever the number of files; within one class the order is chance.
 * Works in slices on a worker thread; an object's size is what it takes on disk. Between runs a
 * directory can pass its cap by 1 % for each process.
 *
 * Only files with a name of ours in directories of ours count and are ever removed, since the
 * directory may hold other things (it may be /, with its own /tmp).
 */
#include <stdbool.h>
#include <stdint.h>

struct loop;
struct workers;
struct store_janitor;

struct store_janitor_options {
	const char *dir;      /* copied */
	uint64_t max_bytes;   /* 0: no cap; tmp is cleaned all the same */
	uint32_t interval_ms; /* between full runs of all processes; UINT32_MAX: never by itself */
};

struct store_janitor_stats {
	uint64_t runs;    /* full runs ended by this process */
	uint64_t skipped; /* another process had the lock */
	uint64_t errors;  /* ended early: the lock or a directory could not be used */
	uint64_t evicted_objects, evicted_bytes;
	uint64_t tmp_removed;
	bool measured;           /* are these known? */
	uint64_t objects, bytes; /* what the last full run, of whichever process, left there */
	uint64_t max_bytes;      /* the cap; 0: none */
};

/* Is this the name of a file being written: 16 hexadecimal digits, a point, a number? */
bool store_janitor_knows_tmp(const char *name);
/* The object directories, below dir; ends with NULL. */
extern const char *const store_janitor_dirs[];

/* loop and workers must outlive it. NULL without memory. */
struct store_janitor *store_janitor_new(
	struct loop *loop, struct workers *workers, const struct store_janitor_options *options);
/* This process stored so much: starts a run when it is 1 % of the cap since the last. */
void store_janitor_stored(struct store_janitor *janitor, uint64_t bytes);
/* Run now, in full. on_done (may be NULL) comes on the loop, never from inside this call, when a
 * run that began after it has ended; ran is false when it was skipped or ended early. One request
 * with an on_done at a time; store_janitor_free() forgets it. */
void store_janitor_request(
	struct store_janitor *janitor, void (*on_done)(bool ran, void *arg), void *arg);
const struct store_janitor_stats *store_janitor_stats(const struct store_janitor *janitor);
/* A slice that is on a thread ends by itself. Clears the pointer. */
void store_janitor_free(struct store_janitor **janitor);

#endif
