#include "supervisor/state.h"

#include <stdbool.h>

#define TO(s, a)                            \
	{                                   \
		STATE_##s, ACTION_##a, true \
	}

/* A cell that is not written stays as it is and does nothing. */
static const struct {
	enum process_state next;
	enum process_action action;
	bool defined;
} table[STATE_COUNT][EVENT_COUNT] = {
	/* clang-format off */
	[STATE_STOPPED] = {
		[EVENT_START]        = TO(STARTING, SPAWN),
	},
	[STATE_STARTING] = {
		[EVENT_UP]           = TO(RUNNING, NONE),
		[EVENT_LATE]         = TO(STARTING, SIGNAL),
		[EVENT_STOP_TIMEOUT] = TO(STARTING, KILL),
		[EVENT_ENDED]        = TO(EXITED, CONSIDER),
		[EVENT_FAILED]       = TO(BACKOFF, WAIT),
		[EVENT_FAILED_LAST]  = TO(FATAL, RELEASE),
		[EVENT_STOP]         = TO(STOPPING, SIGNAL),
	},
	[STATE_RUNNING] = {
		[EVENT_ENDED]        = TO(EXITED, CONSIDER),
		[EVENT_FAILED]       = TO(BACKOFF, WAIT),
		[EVENT_FAILED_LAST]  = TO(FATAL, RELEASE),
		[EVENT_STOP]         = TO(STOPPING, SIGNAL),
	},
	[STATE_BACKOFF] = {
		[EVENT_RETRY]        = TO(STARTING, SPAWN),
		[EVENT_START]        = TO(STARTING, SPAWN),
		[EVENT_STOP]         = TO(STOPPED, RELEASE),
	},
	[STATE_STOPPING] = {
		[EVENT_STOP_TIMEOUT] = TO(STOPPING, KILL),
		[EVENT_ENDED]        = TO(STOPPED, RELEASE),
		[EVENT_FAILED]       = TO(STOPPED, RELEASE),
		[EVENT_FAILED_LAST]  = TO(STOPPED, RELEASE),
	},
	[STATE_EXITED] = {
		[EVENT_START]        = TO(STARTING, SPAWN),
	},
	[STATE_FATAL] = {
		[EVENT_START]        = TO(STARTING, SPAWN),
	},
	/* clang-format on */
};

static const char *const state_names[STATE_COUNT] = {
	"STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL"};
static const char *const event_names[EVENT_COUNT] = {"start", "stop", "up", "late", "ended",
	"failed", "failed for the last time", "retry", "stop timeout"};

struct state_move state_after(enum process_state state, enum process_event event)
{
	if (!table[state][event].defined)
		return (struct state_move){state, ACTION_NONE};
	return (struct state_move){table[state][event].next, table[state][event].action};
}

const char *state_name(enum process_state state)
{
	return state_names[state];
}

const char *event_name(enum process_event event)
{
	return event_names[event];
}
