#ifndef GATEWAYD_STORE_H
#define GATEWAYD_STORE_H

/*
 * Where bought embeddings outlive the process. One interface for all kinds (dir, s3, and dir in
 * front of s3): asynchronous, nothing ever waits on the loop. Same names, same bytes everywhere,
 * so copying files moves a cache:
 *
 *   <prefix>embeddings/<sha256 of the element>.json.gz        prefix "" or "mock/"
 *
 * Look-ups go first: storing waits in a bounded queue of its own, with few of them on the worker
 * threads at a time; what does not fit is dropped and counted (it is bought again one day). A
 * failed put is tried again with backoff; a store never fails a request.
 *
 *   store_get_start() --> done(result)                 exactly once, unless cancelled
 *   store_put() --> queue --> backend --> stored, or waits for a retry, or given up
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/span.h"
#include "common/trace.h"
#include "gatewayd/stored_object.h"

struct loop;
struct purge_epochs;
struct store;
struct store_get;

/* "mock/embeddings/" + 64 + ".json.gz" + NUL fits. */
#define STORE_NAME_BYTES 112

/* Where a Python gateway kept an answer under the hash of the whole body of its request. */
enum store_layout {
	STORE_LAYOUT_EMBEDDINGS, /* embeddings/<sha256>.json.gz */
	STORE_LAYOUT_HASHED,     /* <first 4 hex>/<sha256> */
};

enum store_result {
	STORE_FOUND,     /* object is set */
	STORE_LEGACY,    /* object->json is set, and fields.stored_ms, by the store's own time: a
			    legacy object under this key */
	STORE_MISS,      /* also what is newer or larger than we read, and the corrupt (counted) */
	STORE_MISS_BOTH, /* nor is the legacy object there that was asked about; see below */
	STORE_ERROR, /* the store could not tell: I/O error, too busy; to be treated as a miss */
};

/* Never decrease. Read them at any time on the loop thread. */
struct store_stats {
	uint64_t hits, legacy_hits, misses, corrupt, get_errors;
	uint64_t purged;                    /* misses: found, and covered by an epoch */
	uint64_t legacy_misses;             /* of store_get_legacy_start() */
	uint64_t abandoned;                 /* cancelled before they were answered */
	uint64_t denied;                    /* attempts that were refused for their credentials */
	uint64_t puts;                      /* stored */
	uint64_t put_errors;                /* attempts that failed */
	uint64_t puts_given_up;             /* after the last attempt */
	uint64_t puts_dropped;              /* queue full, or closing */
	uint64_t no_space;                  /* put_errors by ENOSPC or EDQUOT */
	uint64_t read_bytes, written_bytes; /* compressed */
};

/*
 * Look up by element key. done comes on the loop thread, never from inside this call, exactly once.
 * object is lent for the callback (stored_object_take() keeps it), NULL unless FOUND or LEGACY.
 * NULL when the store is too busy or memory is out: a miss, counted as get_errors; done never
 * comes.
 */
struct store_get *store_get_start(struct store *store, const struct digest *key,
	void (*done)(enum store_result result, struct stored_object *object, void *arg), void *arg);

struct store_look {
	const struct trace *trace; /* of the request that looks, for a span and for the log; NULL:
				      none */
	/*
	 * If the element is missing: is there a legacy object by this hash of a whole body? NULL:
	 * nobody asks. A store that can tell in passing says STORE_MISS_BOTH when there is none;
	 * after STORE_MISS look for it.
	 */
	const struct digest *legacy_key;
	enum store_layout layout;
};

/* Same; what look points to is copied. */
struct store_get *store_get_start_with(struct store *store, const struct digest *key,
	const struct store_look *look,
	void (*done)(enum store_result result, struct stored_object *object, void *arg), void *arg);
/* Same, for a legacy object alone: key is the hash of a whole body, look->legacy_key is not used.
 */
struct store_get *store_get_legacy_start(struct store *store, const struct digest *key,
	const struct store_look *look,
	void (*done)(enum store_result result, struct stored_object *object, void *arg), void *arg);
/* Not wanted any more: done does not come. Clears the pointer; NULL is fine. Not from inside done
 * for the same get: it is dead by then. */
void store_get_cancel(struct store_get **get);

/* Store in the background, replacing what is there. Copies all it needs. trace: of what brought it,
 * for a span and for the log; NULL: none. false: dropped (counted). */
bool store_put(struct store *store, const struct stored_fields *fields, const struct trace *trace);

/* Same, but where reading is quicker than where it was found: for what a look-up brought in another
 * form. Does nothing in a store without tiers. */
void store_keep_near(
	struct store *store, const struct stored_fields *fields, const struct trace *trace);

/* Finish all puts under way or queued (retries without waiting, unless the server is away: then as
 * long as it is), then on_drained, never from inside this call. Later puts are dropped; gets go on
 * working. Once. */
void store_drain(struct store *store, void (*on_drained)(void *arg), void *arg);

/*
 * From now on what an epoch covers is a miss, and is deleted when it is found; until the epochs are
 * known look-ups wait. Once, before the first look-up; epochs are borrowed.
 */
void store_use_epochs(struct store *store, const struct purge_epochs *epochs);
/* They are known. */
void store_epochs_known(struct store *store);
/* Does an object that was found count as missing? For those whose model only the asker knows. */
bool store_covered(
	const struct store *store, const struct digest *key, struct span model, uint64_t stored_ms);

const struct store_stats *store_stats(const struct store *store);
/* Of a store that keeps to a size; counters never decrease. */
struct store_usage {
	bool measured;            /* are objects and bytes known? else 0 */
	uint64_t objects, bytes;  /* when it was last measured, by whichever process */
	uint64_t max_bytes;       /* 0: no cap */
	uint64_t evicted_objects; /* by this process, for the cap */
	uint64_t errors;          /* times that it could not see to it */
};
/* false: a store of this kind does not know. */
bool store_usage(const struct store *store, struct store_usage *usage);
/* Told of every look-up that was not abandoned and of every attempt to store, in each store that
 * this one is made of. result is a constant, as in the counters. One watcher. */
typedef void store_on_ended(
	const char *kind, bool put, const char *result, uint64_t duration_us, void *arg);
void store_watch(struct store *store, store_on_ended *on_ended, void *arg);
size_t store_gets_pending(const struct store *store);
size_t store_puts_pending(const struct store *store); /* queued, running or waiting for a retry */
uint64_t store_put_bytes_pending(const struct store *store);
const char *store_kind(const struct store *store); /* "dir", "s3", "dir,s3" */
/* The i-th store that this one is made of, itself when it is of one kind; NULL past the last. Each
 * counts for itself. */
const struct store *store_tier(const struct store *store, unsigned i);

/* Gets under way end without done; queued puts are dropped (drain first). Work that is on a thread
 * ends by itself: free the store before its workers and its loop. Clears the pointer. */
void store_free(struct store **store);

/* ---- Names ---- */

/* The object's name below the store's root. Returns its length, without the NUL. */
size_t store_object_name(const char *prefix, const struct digest *key, char name[STORE_NAME_BYTES]);
/* Same, of a legacy object, which never has a prefix. */
size_t store_legacy_name(
	enum store_layout layout, const struct digest *key, char name[STORE_NAME_BYTES]);
/* The key in a file name "<64 hex>.json.gz" (lower case); -1 when it is something else. */
int store_object_key(struct span file_name, struct digest *key);

#endif
