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
	/* It lies where objects lie, and its name is none. */
	void (*on_misnamed)(struct walk *walk, const char *name);
	void *arg;
	struct ctl_progress progress;

	size_t running;
	uint64_t seen;        /* the misnamed too */
	uint64_t own, others; /* files that are no objects */
};

/* CTL_OK after all of them. CTL_INTERRUPTED; or with a sentence on stderr CTL_UNAVAILABLE: they
 * cannot be listed, CTL_NO_INPUT: there are files, and nothing of a store. */
enum ctl_exit walk_run(struct walk *walk);
/* One object less under way. */
void walk_next(struct walk *walk);

#endif
