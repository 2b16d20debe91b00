#ifndef GATEWAYD_MODELS_H
#define GATEWAYD_MODELS_H

/*
 * GET and HEAD /v1/models: the provider's own list, asked for with the caller's credential, and
 * kept in memory for it (one key's list is never another's).
 *
 *   fresh          HIT
 *   in its grace   STALE: served at once, and asked for again in the background; if that fails it
 *                  is served as it is until the grace is over
 *   on its way     COALESCED: one call for all who ask with the same credential
 *   else           MISS
 *
 * Kept are 200, 203, 301, 404 and 410, for CACHE_TTL and CACHE_GRACE, with the provider's
 * Surrogate-Key and the client's. An answer with Set-Cookie, Cache-Control: private, no-cache or
 * no-store, Surrogate-Control: no-store or Vary: * is not kept; that it is not is kept for
 * UNCACHEABLE_MS, and who asks meanwhile waits for nobody (PASS). So are requests with a Cookie.
 * With CACHE_REQUEST_CONTROL a request's Cache-Control holds: no-cache asks the provider and keeps
 * what it says, no-store passes. The mock has a list of its own, which is not kept.
 */
struct exchange;
struct gateway;
struct models;

/* gateway is borrowed. NULL when out of memory. */
struct models *models_new(struct gateway *gateway);
void models_serve(struct gateway *gateway, struct exchange *exchange);
/* Calls under way are given up; the exchanges that waited must be gone. */
void models_free(struct models **models);

#endif
