#ifndef GATEWAYD_REFRESH_H
#define GATEWAYD_REFRESH_H

/*
 * Objects past their TTL and within their grace are served at once and looked up in the store in
 * the background, one look-up an object (stale-while-revalidate, RFC 5861 3). An embedding that the
 * store still has is fresh again; it costs nothing. One that the store cannot give is served stale
 * until its grace is over.
 */
#include <stdint.h>

struct cache;
struct cache_object;
struct loop;
struct refresher;
struct store;
struct trace;

/* store may be NULL: then nothing is ever refreshed. NULL when out of memory. */
struct refresher *refresher_new(struct loop *loop, struct cache *cache, struct store *store,
	uint64_t ttl_ms, uint64_t grace_ms);
/* object is borrowed; trace: of the request that met it. Does nothing while a look-up for it, or
 * too many others, are under way. */
void refresher_start(
	struct refresher *refresher, struct cache_object *object, const struct trace *trace);
/* Look-ups that found the object, and those that did not. Never decrease. */
uint64_t refresher_succeeded(const struct refresher *refresher);
uint64_t refresher_failed(const struct refresher *refresher);
/* Before the store. */
void refresher_free(struct refresher **refresher);

#endif
