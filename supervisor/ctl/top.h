#ifndef SUPERVISOR_CTL_TOP_H
#define SUPERVISOR_CTL_TOP_H

/*
 * What programs use, again and again: `podctl top`. Processor time is told as a share of one
 * processor since the last look; at the first look, since the program's start.
 */
#include "supervisor/ctl/session.h"

struct top_options {
	bool json, color;
	bool once; /* do not repeat */
	uint64_t interval_ms;
};

enum ctl_exit top_show(struct session *session, const struct top_options *options);

#endif
