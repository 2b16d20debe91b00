#ifndef HASHD_OBSERVE_H
#define HASHD_OBSERVE_H

/* What hashd shows of itself: its metric families, and the access log. */
#include <stdbool.h>
#include <stdint.h>

#include "common/access_log.h"
#include "common/metrics.h"
#include "common/span.h"
#include "common/trace_span.h"

extern const struct metric_family observe_families[];
#define observe_family(index) (&observe_families[index])

enum {
	OBSERVE_REQUESTS,
	OBSERVE_DURATION,
	OBSERVE_IN_FLIGHT,
	OBSERVE_WAITING,
	OBSERVE_CONNECTIONS,
	OBSERVE_BYTES_IN,
	OBSERVE_BYTES_OUT,
	OBSERVE_BODY_BYTES,
	OBSERVE_PAUSED,
	OBSERVE_ABORTED,
	OBSERVE_FAILURES,
	OBSERVE_FAILOVERS,
	OBSERVE_REROUTED,
	OBSERVE_BACKEND_UP,
	OBSERVE_BACKEND_DURATION,
	OBSERVE_MAPPED,
	OBSERVE_LEASES,
	OBSERVE_LENT_BYTES,
	OBSERVE_LEASE_REFUSED,
};

struct observe;
struct hashd_conf;

/* One finished exchange. */
struct observe_exchange {
	struct access_entry entry;
	struct trace_span **span; /* ended; NULL, or of NULL: none */
	bool quiet;               /* counted only */
};

/* A request has come in: its ids, and its span unless that is not recorded. */
struct trace_span *observe_enter(
	struct span method, struct span path, struct span traceparent, struct trace *ids);

/* NULL when out of memory. */
struct observe *observe_new(struct metrics *metrics, const struct hashd_conf *conf);
void observe_free(struct observe **observe);
/* Count it, and log it: 5xx always, of the others the share that the settings say. */
void observe_finished(struct observe *observe, const struct observe_exchange *exchange);

#endif
