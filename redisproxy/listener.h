#ifndef REDISPROXY_LISTENER_H
#define REDISPROXY_LISTENER_H

/* The listening socket: accepts clients up to REDISPROXY_MAX_CLIENTS; the others wait in the
 * kernel's queue. */
struct listener;
struct proxy;

/* Takes the descriptor over, on failure too. */
struct listener *listener_new(struct proxy *proxy, int fd);
void listener_free(struct listener **listener);
/* A client left: there may be room again. */
void listener_resume(struct listener *listener);

#endif
