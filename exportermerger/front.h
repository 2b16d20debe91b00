#ifndef EXPORTERMERGER_FRONT_H
#define EXPORTERMERGER_FRONT_H

/*
 * The HTTP side: GET /metrics collects and sends the merged page; GET / is the status page, and GET
 * /status what that shows: the merged page of the pod's own daemons, asked once for all who look at
 * the same time; /healthz and /readyz.
 */
#include <stddef.h>

#include "exportermerger/conf.h"
#include "exportermerger/stats.h"
#include "exportermerger/target.h"

struct http_client;
struct front;

struct front_parts {
	struct daemon *daemon;
	const struct merger_conf *conf;
	struct stats *stats;
	struct http_client *client;
	struct targets **targets; /* whichever list holds now */
};

/* Opens the listener. NULL when out of memory. */
struct front *front_new(const struct front_parts *parts);
void front_drain(struct front *front, void (*on_drained)(void *arg), void *arg);
size_t front_connections(const struct front *front);
void front_free(struct front **front);

#endif
