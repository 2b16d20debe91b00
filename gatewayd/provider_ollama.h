#ifndef GATEWAYD_PROVIDER_OLLAMA_H
#define GATEWAYD_PROVIDER_OLLAMA_H

/*
 * Ollama by its own API: POST {base}/api/embed
 * (https://github.com/ollama/ollama/blob/main/docs/api.md), GET {base}/v1/models. No credential is
 * sent there. What it does about failures: provider_http.h.
 *
 * A model that it does not have is pulled in the background, once however many ask for it, at most
 * OLLAMA_MAX_PULLS at a time; meanwhile purchases of it are refused with 503 and Retry-After. After
 * a failed pull the model is 404 for a minute.
 */
#include "gatewayd/provider_http.h"

#define OLLAMA_MAX_PULLS 4

struct provider_ollama_options {
	struct provider_http_options http; /* one URL, without a slash at the end */
	bool pull;
	uint32_t pull_timeout_ms;
};

/* As provider_http_new(). */
struct provider *provider_ollama_new(struct loop *loop, struct http_client *http,
	struct workers *workers, const struct provider_ollama_options *options);

#endif
