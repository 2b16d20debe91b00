#ifndef GATEWAYD_EXCHANGE_HTTP_H
#define GATEWAYD_EXCHANGE_HTTP_H

/*
 * Exchanges that come over gatewayd's own HTTP listener. The body is hashed here, as it arrives: a
 * hash that the client sends is not believed. /healthz, /readyz and /metrics are answered without
 * making an exchange. What comes here is in the access log; what
 * comes over RPC is in that of who asks.
 */
#include "common/http_server.h"
#include "gatewayd/exchange.h"

struct daemon;
struct exchange_http;

/* body_budget_bytes and the pace of bodies: as in common/body.h; a client may bring
 * no less than options->min_write_bytes_s. access_log_share: see common/access_log.h. on_exchange:
 * a request is complete; it must exchange_accept() or respond. NULL when out of memory. */
struct exchange_http *exchange_http_new(struct daemon *daemon,
	const struct http_server_options *options, uint64_t body_budget_bytes,
	const double *access_log_share, void (*on_exchange)(struct exchange *exchange, void *arg),
	void *arg);
/* Serve this listening socket, taken over. 0, or -1 with errno. */
int exchange_http_listen(struct exchange_http *entry, int fd);
void exchange_http_drain(struct exchange_http *entry, void (*on_drained)(void *arg), void *arg);
void exchange_http_free(struct exchange_http **entry);

#endif
