#ifndef GATEWAYD_CTL_INSPECT_H
#define GATEWAYD_CTL_INSPECT_H

/*
 * What an object of a place is, and what is wrong with it: the same for all commands, so that none
 * copies what another calls bad.
 */
#include <stdint.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/span.h"
#include "gatewayd/ctl/place.h"
#include "gatewayd/stored_object.h"

struct inspection {
	enum stored_result decoded;
	struct stored_object object; /* what was decoded */
	const char *wrong;           /* a constant; NULL: well */
	uint64_t embeddings;
	/* As purges go by them; the model of a legacy object is the one that its answer names. */
	struct span model;
	uint64_t time_ms;
	struct buf model_text; /* private */
};

/* result->body is borrowed by it. inspection_free() it. */
void inspect(struct inspection *inspection, enum place_kind kind, const struct digest *key,
	const struct place_result *result);
void inspection_free(struct inspection *inspection);

#endif
