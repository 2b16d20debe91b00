#ifndef GATEWAYD_PROVIDER_OPENAI_H
#define GATEWAYD_PROVIDER_OPENAI_H

/*
 * A provider with OpenAI's API: POST {base_url}/embeddings
 * (https://platform.openai.com/docs/api-reference/embeddings/create).
 *
 * One purchase is one call with retries: exponential backoff with full jitter, Retry-After
 * honoured, within one deadline, only for connect errors, resets, timeouts, 408, 409, 429 and 5xx.
 * The breaker counts connect errors, timeouts, broken answers and 5xx.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/retry.h"
#include "gatewayd/provider.h"

struct loop;
struct workers;
struct http_client;

struct provider_openai_options {
	const char *base_url; /* with /v1, without a slash at the end */
	bool ask_float;       /* encoding_format: float instead of base64 */
	uint32_t connect_timeout_ms;
	uint32_t timeout_ms; /* a purchase, retries included */
	uint32_t max_retries;
	uint32_t breaker_threshold, breaker_open_ms;
};

struct provider_openai_counters {
	uint64_t attempts, retries, refused_by_breaker;
};

/* http and workers are borrowed. NULL when out of memory. */
struct provider *provider_openai_new(struct loop *loop, struct http_client *http,
	struct workers *workers, const struct provider_openai_options *options);
enum breaker_state provider_openai_breaker(const struct provider *provider);
const struct provider_openai_counters *provider_openai_counters(const struct provider *provider);

#endif
