#ifndef GATEWAYD_PROVIDER_HTTP_H
#define GATEWAYD_PROVIDER_HTTP_H

/*
 * A provider behind HTTP, whatever its dialect: base URLs with weights (provider_targets.h),
 * retries, failover, breakers, one deadline.
 *
 *   WAITING ──> CALLING ──> PARSING ──> (done)
 *      ^           │ ^ │
 *      │ back off  │ └─┘ the next URL, at once
 *      └───────────┘ when all were tried
 *
 * One purchase goes to one URL; when that fails in a way worth another try (connect errors,
 * resets, timeouts, 408, 409, 429, 5xx), to each of the others once; then, up to max_retries times,
 * again from the beginning after a wait: exponential backoff with full jitter, and at least
 * Retry-After. While other URLs are left, one try may take its share of the time that is left.
 *
 * Each URL's breaker counts connect errors, timeouts, broken answers and 5xx. A 429 with
 * Retry-After pauses the credential at that URL; new calls of it are refused with 429 at once
 * while it is paused everywhere.
 */
#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/provider.h"
#include "gatewayd/provider_answer.h"
#include "gatewayd/provider_attempt.h"

struct loop;
struct workers;
struct http_client;

struct provider_dialect {
	const char *name;        /* "openai": provider_ops.name, and of the breaker */
	const char *embed_path;  /* after the base URL */
	const char *models_path; /* NULL: no such list */
	bool sends_credential;   /* the caller's Authorization is for this provider */
	/* The body of a purchase. 0, or -1 with out failed. */
	int (*write)(const struct provider_request *request, struct buf *out);
	/* The answer of a 200, as provider_answer_take(); on a worker. */
	int (*take)(struct buf *body, struct provider_vectors *vectors, size_t n_inputs,
		struct provider_answer *answer);
};

struct provider_http_options {
	const char *urls; /* provider_targets_parse() takes them */
	uint32_t connect_timeout_ms;
	uint32_t timeout_ms; /* a purchase, retries included */
	uint32_t max_retries;
	uint32_t breaker_threshold, breaker_open_ms;
	struct provider_watch watch; /* on_attempt may be NULL */
};

/* http, workers and dialect are borrowed. NULL when out of memory, or urls are wrong. */
struct provider *provider_http_new(struct loop *loop, struct http_client *http,
	struct workers *workers, const struct provider_dialect *dialect,
	const struct provider_http_options *options);

#endif
