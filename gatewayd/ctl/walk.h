#ifndef GATEWAYD_CTL_WALK_H
#define GATEWAYD_CTL_WALK_H

/*
 * All objects of a place, several at a time: each is read and handed to on_object(), which says
 * walk_next() when it is done with it (inside or later).
 */
#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/place.h"

struct walk {
	struct loop *loop;
	struct place *place;
	const struct ctl_options *options;
	void (*on_object)(struct walk *walk, const char *name, enum place_kind kind,
		const struct digest *key, const struct place_result *result);
	void *arg;
	struct ctl_progress progress;

	size_t running;
	uint64_t seen, others;
};

/* 0 after all of them, -1 when they cannot be listed or it was interrupted. */
int walk_run(struct walk *walk);
/* One object less under way. */
void walk_next(struct walk *walk);

#endif
