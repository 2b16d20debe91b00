#include "gatewayd/provider_openai.h"

static int write_float(const struct provider_request *request, struct buf *out)
{
	return provider_request_write(request, "float", out);
}

static int write_base64(const struct provider_request *request, struct buf *out)
{
	return provider_request_write(request, "base64", out);
}

static const struct provider_dialect float_dialect = {
	.name = "openai",
	.embed_path = "/embeddings",
	.models_path = "/models",
	.sends_credential = true,
	.write = write_float,
	.take = provider_answer_take,
};

static const struct provider_dialect base64_dialect = {
	.name = "openai",
	.embed_path = "/embeddings",
	.models_path = "/models",
	.sends_credential = true,
	.write = write_base64,
	.take = provider_answer_take,
};

struct provider *provider_openai_new(struct loop *loop, struct http_client *http,
	struct workers *workers, bool ask_float, const struct provider_http_options *options)
{
	return provider_http_new(
		loop, http, workers, ask_float ? &float_dialect : &base64_dialect, options);
}
