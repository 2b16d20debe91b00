#ifndef SUPERVISOR_PROBE_H
#define SUPERVISOR_PROBE_H

/*
 * Is a process ready? Asked again and again until it is:
 *
 *   rpc   a ping is answered with ready = true
 *   tcp   a connection is accepted (means little for a socket that the supervisor holds: it always
 * is) http  GET is answered with 2xx
 *
 * Over a socket that the supervisor holds, the first question waits in the queue and is answered
 * the moment the process serves, so nothing is lost by polling.
 */
#include "supervisor/config/pod_config.h"

struct loop;
struct probe;

/*
 * target as in process_config.ready_target. on_ready comes once, never from inside probe_new().
 * NULL with a sentence in error when the target is not valid or memory is out. Kinds that are not
 * asked (none, notify) are not for here.
 */
struct probe *probe_new(struct loop *loop, enum ready_kind kind, const char *target,
	void (*on_ready)(void *arg), void *arg, char *error, size_t error_size);
/* May be called from on_ready. */
void probe_free(struct probe **probe);

#endif
