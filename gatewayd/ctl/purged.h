#ifndef GATEWAYD_CTL_PURGED_H
#define GATEWAYD_CTL_PURGED_H

/*
 * What counts as missing in a place since the purges of its store (purge_epochs.h): objects that
 * still lie there, and that no gateway on that store would serve. Nothing is deleted, not even an
 * epoch that a later one covers: the place may be somebody else's.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/span.h"
#include "gatewayd/ctl/place.h"

struct purged;

/* Reads the epochs; turns the loop while it waits. NULL with a sentence on stderr: they cannot be
 * read. */
struct purged *purged_read(struct loop *loop, struct place *place);
/* model: as asked for, or the one that an answer of the Python gateway names; may be empty.
 * time_ms: when it was bought; of the Python gateway's, when it was written. */
bool purged_covers(const struct purged *purged, enum place_kind kind, const struct digest *key,
	struct span model, uint64_t time_ms);
void purged_free(struct purged **purged);

#endif
