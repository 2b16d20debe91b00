#ifndef EXPORTERMERGER_ROUND_H
#define EXPORTERMERGER_ROUND_H

/*
 * One collection and everybody who waits for it or still writes from its pages: a scrape has its
 * own, all who look at the status page share one. The last member to leave ends it, also while
 * targets are being asked.
 */
#include <stdbool.h>

#include "common/loop.h"
#include "exportermerger/collection.h"

struct round;

/* In the reader's own struct; zeroed before it joins. */
struct round_member {
	struct round *round;
	struct round_member *next, **prev;
	struct deferred tell;
	void (*on_collected)(void *arg);
	void *arg;
};

/* Begin, with the first member. -1 when out of memory. */
int round_start(const struct collection_options *options, struct round_member *member,
	void (*on_collected)(void *arg), void *arg);
/* on_collected: once, never from inside this call; the member may leave in there. */
void round_join(struct round *round, struct round_member *member, void (*on_collected)(void *arg),
	void *arg);
/* From inside on_collected and at any time afterwards, until the member leaves. */
const struct collection *round_collection(const struct round *round);
/* No callback comes any more. true: it was the last one, and the round is over. Nothing happens for
 * who is no member. */
bool round_leave(struct round_member *member);

#endif
