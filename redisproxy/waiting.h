#ifndef REDISPROXY_WAITING_H
#define REDISPROXY_WAITING_H

/*
 * The clients whose next command waits for a connection, or for room on one
 * (CLIENT_WAITS_UPSTREAM): first come, first served. Who waits for a connection gets an error after
 * REDISPROXY_UPSTREAM_WAIT, with all that was read behind it; who waits for room waits as long as
 * the connection lives.
 */
#include <stdbool.h>

struct client;
struct proxy;
struct upstream;

/* 0, or -1 when out of memory. */
int waiting_init(struct proxy *proxy);
void waiting_free(struct proxy *proxy);
/* At the end of the list, if it is not on it. */
void waiting_add(struct client *c);
/* Nothing, if it is not on it. */
void waiting_remove(struct client *c);
/* The connection is ready, or (error) will not be: for its owner, or if it is shared for all who
 * wait for its pool. */
void waiting_wake(struct upstream *up, const char *error);
/* There is room on the connection again. True: more than so many wait for it. */
bool waiting_wake_for_room(struct upstream *up, unsigned at_most);
/* The map of servers has changed. */
void waiting_wake_all(struct proxy *proxy);

#endif
