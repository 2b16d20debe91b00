#ifndef GATEWAYD_PURGE_EPOCHS_H
#define GATEWAYD_PURGE_EPOCHS_H

/*
 * Purges of the store. Nothing is searched for: an epoch says that what was bought until then, of
 * everything, one model or one embedding, counts as missing. It is a small object in the store
 * itself (epoch_place.h), so every gateway on that store learns of it: at once where the purge
 * reaches it, within PURGE_REREAD otherwise, and at its start, before the first look-up.
 *
 *   purges/all.<ms>.json   purges/model.<sha256 of "model:NAME">.<ms>.json
 *   purges/key.<element key>.<ms>.json           <ms>: milliseconds since 1970
 *
 * The name says all; the content says it again for people. An epoch that a later one covers is
 * deleted by whoever sees both. The time of a stored embedding is the one inside the object, when
 * it was asked of the provider; PURGE_EPOCHS_SKEW_MS younger counts as older, since clocks differ.
 * What is covered is deleted when it is looked up (store.c).
 *
 * An epoch that was learned by reading purges this instance's memory too. When the store cannot be
 * listed, that is an error line, what is known holds, and it is tried again. Loop thread only.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/span.h"
#include "gatewayd/epoch_place.h"

struct loop;
struct purge_epochs;

#define PURGE_EPOCHS_SKEW_MS 5000
/* More are refused: purge a model, or everything. */
#define PURGE_EPOCHS_MAX 65536

enum epoch_scope { EPOCH_ALL, EPOCH_MODEL, EPOCH_KEY };

struct epoch {
	enum epoch_scope scope;
	struct digest value; /* SHA-256 of "model:NAME"; the element key */
	uint64_t time_ms;
};
struct digest epoch_model(struct span model);

struct purge_epochs_events {
	/* Learned by reading, after the first time. */
	void (*on_news)(const struct epoch *epoch, void *arg);
	/* The first reading is over, well or not. */
	void (*on_known)(void *arg);
	void *arg;
};

/* NULL when out of memory. */
struct purge_epochs *purge_epochs_new(struct loop *loop, uint64_t reread_ms);
/* Takes the place over. Before _start(). */
void purge_epochs_add_place(struct purge_epochs *epochs, struct epoch_place *place);
/* The places are only looked at: a covered epoch stays. Before _start(). */
void purge_epochs_keep_covered(struct purge_epochs *epochs);
void purge_epochs_start(struct purge_epochs *epochs, const struct purge_epochs_events *events);
bool purge_epochs_known(const struct purge_epochs *epochs);
/* Could a place not be listed, the last time? */
bool purge_epochs_failed(const struct purge_epochs *epochs);

/* Does an object count as missing? model may be empty: not known. */
bool purge_epochs_cover(const struct purge_epochs *epochs, const struct digest *key,
	struct span model, uint64_t stored_ms);
/* It holds from now on, here. -1: there are too many. */
int purge_epochs_apply(struct purge_epochs *epochs, const struct epoch *epoch);
/* Write it to every place; value is for people. done as of a place. */
void purge_epochs_write(struct purge_epochs *epochs, const struct epoch *epoch, struct span value,
	epoch_done *done, void *arg);
/* As epoch_place_watch(), of every place. */
void purge_epochs_watch(struct purge_epochs *epochs, epoch_on_ended *on_ended, void *arg);
size_t purge_epochs_count(const struct purge_epochs *epochs);
/* No done comes any more. */
void purge_epochs_free(struct purge_epochs **epochs);

#endif
