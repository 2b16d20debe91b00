#ifndef HASHD_FRONT_H
#define HASHD_FRONT_H

/*
 * The HTTP front door: reads and hashes bodies, drops what clients may not say, hands each request
 * to request.c and its answer to the client, at the client's speed.
 *
 * /healthz, /readyz and /metrics are answered here, and PURGE is 405; everything else goes to
 * gatewayd.
 */
#include <stddef.h>

struct bodies;
struct daemon;
struct front;
struct hashd_conf;
struct observe;
struct requests;

struct front_parts {
	struct daemon *daemon;
	const struct hashd_conf *conf;
	struct bodies *bodies, *local_bodies; /* the second only to be measured */
	struct requests *requests;
	struct observe *observe;
};

/* Listens as the settings say (dies if it cannot). NULL when out of memory. */
struct front *front_new(const struct front_parts *parts);
/* Lameduck: everything is served, but answers say Connection: close. */
void front_retire(struct front *front);
/* Take no new connection; on_drained when the last one is gone. */
void front_drain(struct front *front, void (*on_drained)(void *arg), void *arg);
size_t front_connections(const struct front *front);
void front_free(struct front **front);

#endif
