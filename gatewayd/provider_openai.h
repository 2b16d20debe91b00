#ifndef GATEWAYD_PROVIDER_OPENAI_H
#define GATEWAYD_PROVIDER_OPENAI_H

/*
 * A provider with OpenAI's API: POST {base_url}/embeddings, GET {base_url}/models
 * (https://platform.openai.com/docs/api-reference/embeddings/create). What it does about failures:
 * provider_http.h.
 */
#include "gatewayd/provider_http.h"

/* ask_float: encoding_format float instead of base64. Otherwise as provider_http_new(). */
struct provider *provider_openai_new(struct loop *loop, struct http_client *http,
	struct workers *workers, bool ask_float, const struct provider_http_options *options);

#endif
