#ifndef EXPORTERMERGER_SCRAPE_H
#define EXPORTERMERGER_SCRAPE_H

/*
 * One target asked once: over HTTP, or over the RPC socket of one of our daemons. It ends with a
 * page or with a reason, and never later than its time.
 */
#include "common/http_client.h"
#include "exportermerger/page.h"
#include "exportermerger/stats.h"
#include "exportermerger/target.h"

struct loop;
struct page_parser;
struct scrape;

struct scrape_options {
	struct loop *loop;
	struct http_client *client;
	struct page_parser *parser;  /* shared: used within a callback only */
	const struct target *target; /* borrowed until the end */
	uint32_t timeout_ms;
	size_t max_body_bytes;
};
struct scrape_result {
	struct page *page; /* the receiver's; NULL: failed */
	enum stats_failure why;
	const char *detail; /* one sentence, borrowed */
	size_t bytes;
	double seconds;
};

/* on_done: exactly once, never from inside this call; the scrape is gone when it returns. NULL when
 * out of memory (no on_done). */
struct scrape *scrape_start(const struct scrape_options *options,
	void (*on_done)(const struct scrape_result *result, void *arg), void *arg);
/* No callback comes. NULL is fine. */
void scrape_cancel(struct scrape **scrape);

#endif
