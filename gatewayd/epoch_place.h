#ifndef GATEWAYD_EPOCH_PLACE_H
#define GATEWAYD_EPOCH_PLACE_H

/*
 * Where epochs (purge_epochs.h) are kept: small objects whose names say all, beside the embeddings
 * in a directory or a bucket, so that whoever reads the one reads the other:
 *
 *   <prefix>purges/<name>
 *
 * Everything is asynchronous; done comes once, on the loop thread, with NULL or a sentence (lent
 * for the call) that says what failed; from inside the call when it cannot even be begun. After
 * _free() no done comes.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"

struct loop;
struct s3_options;
struct workers;
struct epoch_place;

#define EPOCH_NAME_BYTES 128

typedef void epoch_done(const char *error, void *arg);

/* prefix is "" or "mock/"; all strings are copied. NULL when out of memory. */
struct epoch_place *epoch_place_dir(
	struct loop *loop, struct workers *workers, const char *dir, const char *prefix);
struct epoch_place *epoch_place_s3(
	struct loop *loop, const struct s3_options *options, const char *prefix);

/* on_name once for each object, in any order, before done. */
void epoch_place_list(struct epoch_place *place, void (*on_name)(struct span name, void *arg),
	epoch_done *done, void *arg);
/* body is copied. It is durable when done says so. */
void epoch_place_write(
	struct epoch_place *place, const char *name, struct span body, epoch_done *done, void *arg);
/* Tried once, and nobody hears. */
void epoch_place_remove(struct epoch_place *place, const char *name);
/* Told of everything that was asked and has ended: "list", "write", "remove". One watcher. */
typedef void epoch_on_ended(
	const char *kind, const char *operation, bool ok, uint64_t duration_us, void *arg);
void epoch_place_watch(struct epoch_place *place, epoch_on_ended *on_ended, void *arg);
void epoch_place_free(struct epoch_place **place);

/* ---- For the kinds of places ---- */

struct epoch_call {
	struct epoch_place *place;
	void (*on_name)(struct span name, void *arg);
	epoch_done *done; /* NULL: nobody waits */
	void *arg;
	char name[EPOCH_NAME_BYTES]; /* "": list */
	char *body;                  /* NULL: remove, or list */
	size_t body_len;
	uint64_t began_us;
	struct epoch_call *next, **prev;
};

struct epoch_place_ops {
	const char *kind;  /* "dir", "s3" */
	size_t call_bytes; /* of its own struct, which begins with struct epoch_call */
	/* -1: it cannot be begun; else epoch_call_end() later. */
	int (*start)(struct epoch_call *call);
	/* The place goes: the call may end at once. */
	void (*cancel)(struct epoch_call *call);
	/* The last call has ended. */
	void (*free)(struct epoch_place *place);
};

/* First member of each kind's own struct. */
struct epoch_place {
	const struct epoch_place_ops *ops;
	struct loop *loop;
	struct epoch_call *calls;
	epoch_on_ended *on_ended; /* NULL: nobody watches */
	void *on_ended_arg;
	bool closed;
};

void epoch_call_end(struct epoch_call *call, const char *error);

#endif
