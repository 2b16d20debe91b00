#ifndef COMMON_ACCESS_LOG_H
#define COMMON_ACCESS_LOG_H

/* The access log: one line, "request", for each finished HTTP request; the same fields whichever
 * daemon writes it. */
#include <stdbool.h>
#include <stdint.h>

#include "common/http_server.h"
#include "common/span.h"

/* One finished request. Spans may be empty. */
struct access_entry {
	struct span method, target, client, user_agent, forwarded_for, cache;
	const char *trace, *body_hash, *backend; /* NULL or "": none */
	int status;
	bool aborted; /* the client left before the end of its answer */
	uint64_t bytes_in, bytes_out, duration_us;
};

struct access_log {
	/* The setting, read for each request: 5xx are always logged, of the others this share. */
	const double *share;
	uint32_t random;
};

void access_log_init(struct access_log *log, const double *share);
/* What the server knows of it: for http_server_events.on_finished. Spans are the exchange's. */
struct access_entry access_entry_of(const struct http_exchange *exchange, int status,
	uint64_t bytes_in, uint64_t bytes_out, uint64_t duration_us);
void access_log_write(struct access_log *log, const struct access_entry *entry);

#endif
