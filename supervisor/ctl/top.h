#ifndef SUPERVISOR_CTL_TOP_H
#define SUPERVISOR_CTL_TOP_H

/*
 * The pod, again and again: `podctl top`. What its daemons deliver (requests, hits, what was saved,
 * the provider), by their own metrics, and what its programs use. Rates and processor time are
 * those since the last look; at the first look, since the start.
 *
 * On a terminal it fits its size, whatever that becomes, and goes on when the supervisor is back
 * after it was away.
 */
#include "supervisor/ctl/session.h"

struct top_options {
	bool json, color;
	bool once; /* do not repeat */
	uint64_t interval_ms;
};

enum ctl_exit top_show(struct session *session, const struct top_options *options);

#endif
