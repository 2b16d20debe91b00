#ifndef GATEWAYD_CTL_PLACE_H
#define GATEWAYD_CTL_PLACE_H

/*
 * A directory or a bucket with objects, for commands that read or write all of them. A call waits
 * for its result: files at once, a bucket by turning the loop; several workers of a walk overlap
 * their calls by place_start().
 */
#include <stdbool.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/span.h"
#include "gatewayd/ctl/ctl.h"
#include "gatewayd/stored_object.h"

struct epoch_place;
struct loop;
struct place;
struct workers;

enum place_kind {
	PLACE_OTHER,
	PLACE_ELEMENT,  /* embeddings/<sha256>.json.gz: one of ours, or of the Python gateway */
	PLACE_MOCK,     /* mock/embeddings/... */
	PLACE_HASHED,   /* <4 hex>/<sha256>: of the Python gateway */
	PLACE_MISNAMED, /* below embeddings/, and under no key */
	PLACE_OWN,      /* what a store keeps beside: purges/, tmp/, janitor.lock */
};
/* What a name below the root says; key is set for ELEMENT, MOCK and HASHED. */
enum place_kind place_kind_of(const char *name, struct digest *key);

/* "DIR" or "s3://BUCKET", which takes the rest from the environment as gatewayd does. NULL with a
 * sentence on stderr. */
struct place *place_open(struct loop *loop, const char *location);
void place_close(struct place **place);
/* As it was named; borrowed from it. */
const char *place_location(const struct place *place);
/* CTL_OK, or with a sentence on stderr: CTL_NO_INPUT when it is a file and no directory,
 * CTL_UNAVAILABLE when it is not there. A bucket answers for itself later. */
enum ctl_exit place_check(const struct place *place);
/* Where its epochs are; NULL when out of memory. */
struct epoch_place *place_epochs(struct place *place, struct workers *workers, const char *prefix);

struct place_result {
	int error;          /* errno; ENOENT: no such object */
	const char *reason; /* with an error */
	struct buf *body;   /* of a get */
	uint64_t time_ms;   /* of a get: when it was written; 0: not known */
	struct span model;  /* metadata of a bucket's object; empty: none */
	struct span dimensions;
	struct span encoding;
	bool encoding_told; /* a bucket tells one, a directory does not */
};

struct place_call;
/* Get an object, or put one (body is borrowed until done; metadata lines are made from fields when
 * they are not NULL), or ask whether it is there. done comes later, once, from
 * the loop. -1: out of memory, done does not come. */
int place_get(struct place *place, const char *name,
	void (*done)(const struct place_result *result, void *arg), void *arg);
int place_put(struct place *place, const char *name, struct span body,
	const struct stored_fields *fields,
	void (*done)(const struct place_result *result, void *arg), void *arg);
int place_has(struct place *place, const char *name,
	void (*done)(const struct place_result *result, void *arg), void *arg);

/* The names of all objects, one after the other, in pages. 1: name is set (borrowed until the next
 * call), 0: the end, -1: with a sentence on stderr. Turns the loop while it waits for a page. */
int place_next(struct place *place, const char **name);

#endif
