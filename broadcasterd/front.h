#ifndef BROADCASTERD_FRONT_H
#define BROADCASTERD_FRONT_H

/* HTTP: PURGE to a broadcast, its end to the answer; /healthz, /readyz, /metrics; all else is 405.
 * A client that leaves does not stop its purge. */
#include <stddef.h>

struct broadcaster_conf;
struct broadcasts;
struct daemon;
struct front;

struct front_parts {
	struct daemon *daemon;
	const struct broadcaster_conf *conf;
	struct broadcasts *broadcasts;
};

/* Listens. NULL when out of memory; dies when it cannot listen. */
struct front *front_new(const struct front_parts *parts);
void front_drain(struct front *front, void (*on_drained)(void *arg), void *arg);
size_t front_connections(const struct front *front);
void front_free(struct front **front);

#endif
