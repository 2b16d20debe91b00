#ifndef GATEWAYD_STORE_TIERS_H
#define GATEWAYD_STORE_TIERS_H

/*
 * Two stores as one: a near one in front of a far one (dir in front of s3).
 *
 *   get   near; when it has nothing or cannot tell: far, and what is found there is put in near
 *   put   both, each with its own queue
 *
 * Each counts for itself: see store_tier().
 */
#include "gatewayd/store.h"

/* Takes both over; NULL only when out of memory (both are the caller's still). */
struct store *store_tiers_new(struct loop *loop, struct store *near, struct store *far);

#endif
