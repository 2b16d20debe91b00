#ifndef EXPORTERMERGER_COLLECTION_H
#define EXPORTERMERGER_COLLECTION_H

/*
 * All targets asked once, for one merged page. They are asked in parallel, a few at a time as long
 * as they answer quickly, so that the pages on their way stay few; one that is slow does not hold
 * up the next, and were all slow, all would still be asked in the first quarter of the time.
 * Whoever has not answered by the deadline is left out.
 */
#include "exportermerger/scrape.h"

struct collection;

struct collection_options {
	struct loop *loop;
	struct http_client *client;
	struct targets *targets; /* a reference is taken */
	struct stats *stats;
	uint32_t timeout_ms;        /* for all of it */
	uint32_t target_timeout_ms; /* for one target */
	size_t max_body_bytes;      /* of one target */
	bool pod_only;              /* only targets with a socket; the others are not asked */
};

/* on_done: once, never from inside this call; the collection stays until collection_free(), which
 * may be called in there. NULL when out of memory. */
struct collection *collection_start(
	const struct collection_options *options, void (*on_done)(void *arg), void *arg);
/* By merger_url, the merger's own page among them; NULL for targets that gave none. */
struct page *const *collection_pages(const struct collection *collection, size_t *count);
/* merger_url of a page. */
const char *collection_name(const struct collection *collection, size_t page);
/* Of the pod's own daemons, the merger among them. */
bool collection_is_own(const struct collection *collection, size_t page);
/* At any time: what is under way is cancelled. */
void collection_free(struct collection **collection);

#endif
