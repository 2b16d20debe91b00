#ifndef COMMON_HEALTH_H
#define COMMON_HEALTH_H

/*
 * The three paths that every HTTP listener of a daemon answers itself: GET/HEAD /healthz (200 while
 * the loop turns), /readyz (503 from lameduck on) and /metrics (Prometheus text).
 */
#include <stdbool.h>

struct daemon;
struct http_exchange;

/* true: the path was one of the three and is answered (405 for other methods). */
bool health_serve(struct daemon *daemon, struct http_exchange *exchange);

#endif
