#ifndef SUPERVISOR_CTL_SESSION_H
#define SUPERVISOR_CTL_SESSION_H

/* podctl's side of a conversation: connect, ask once, wait for the answer. */
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/messages.h"
#include "common/rpc.h"

/* How a command ended; podctl's exit code. */
enum ctl_exit {
	CTL_OK = 0,
	CTL_FAILED = 1,      /* what was asked for could not be done */
	CTL_NOT_RUNNING = 3, /* status: something is not as it should be */
	CTL_UNKNOWN = 4,     /* no such program */
	CTL_USAGE = 64,
	CTL_NO_SUPERVISOR = 69,
	CTL_TIMEOUT = 75,
};

struct loop;
struct session;

/* Whom podctl talks to, for what it says when that does not answer. */
struct session_peer {
	const char *name;  /* "supervisor" */
	const char *who;   /* "the supervisor" */
	const char *start; /* what to do when it does not run */
};
extern const struct session_peer session_supervisor;

/*
 * Connect to the peer's socket. peer is lent for as long as the session. wait_ms: how long to wait
 * for it to appear, 0: not at all. NULL after saying on stderr what is wrong and what to do about
 * it, with *exit_code set.
 */
struct session *session_open(const struct session_peer *peer, const char *socket_path,
	uint64_t wait_ms, enum ctl_exit *exit_code);

/*
 * Ask, and wait up to timeout_ms (0: for ever) for the answer, whose bytes are put in *answer.
 * CTL_OK, or another code after saying why on stderr (quiet_timeout: without a word after a
 * timeout).
 */
enum ctl_exit session_ask(struct session *session, const char *method,
	const struct msg_schema *schema, const void *params, uint64_t timeout_ms,
	bool quiet_timeout, struct buf *answer);

/*
 * Ask for streams (`tail` with follow), and hand on what comes until every stream has ended or
 * on_data says that it wants no more (false). The first failure is said on stderr and decides the
 * result.
 */
enum ctl_exit session_follow(struct session *session, const struct msg_tail_params *params,
	size_t n, bool (*on_data)(size_t i, struct span data, void *arg), void *arg);
/* What runs while this module waits, for others who wait beside it; and where the supervisor is. */
struct loop *session_loop(const struct session *session);
const char *session_socket(const struct session *session);
/* From now on failures are not said on stderr: a screen shows them. */
void session_set_quiet(struct session *session);
/* Wait up to ms for the supervisor to be there, again. */
bool session_await(struct session *session, uint64_t ms);
/* Let time pass; false when the supervisor went away meanwhile. */
bool session_sleep(struct session *session, uint64_t ms);
void session_free(struct session **session);

#endif
