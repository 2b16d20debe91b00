#include "gatewayd/provider_choice.h"

#include "gatewayd/provider_hybrid.h"
#include "gatewayd/provider_mock.h"
#include "gatewayd/provider_ollama.h"
#include "gatewayd/provider_openai.h"
#include "gatewayd/provider_split.h"

static struct provider *make_openai(struct loop *loop, struct http_client *http,
	struct workers *workers, const struct gatewayd_conf *conf,
	const struct provider_watch *watch)
{
	struct provider_http_options options = {
		.urls = conf->openai_base_url,
		.connect_timeout_ms = (uint32_t)conf->provider_connect_timeout_ms,
		.timeout_ms = (uint32_t)conf->provider_timeout_ms,
		.max_retries = (uint32_t)conf->provider_max_retries,
		.breaker_threshold = (uint32_t)conf->breaker_threshold,
		.breaker_open_ms = (uint32_t)conf->breaker_open_ms,
		.watch = *watch,
	};
	struct provider *openai = provider_openai_new(
		loop, http, workers, conf->provider_encoding == CONF_ENCODING_FLOAT, &options);
	struct provider *split = openai ? provider_split_new(openai, &provider_limits_openai)
					: NULL;
	if (!split)
		provider_free(&openai);
	return split;
}

static struct provider *make_ollama(struct loop *loop, struct http_client *http,
	struct workers *workers, const struct gatewayd_conf *conf,
	const struct provider_watch *watch)
{
	struct provider_ollama_options options = {
		.http = {.urls = conf->ollama_base_url,
			.connect_timeout_ms = (uint32_t)conf->provider_connect_timeout_ms,
			.timeout_ms = (uint32_t)conf->ollama_timeout_ms,
			.max_retries = (uint32_t)conf->ollama_max_retries,
			.breaker_threshold = (uint32_t)conf->breaker_threshold,
			.breaker_open_ms = (uint32_t)conf->breaker_open_ms,
			.watch = *watch},
		.pull = conf->ollama_pull,
		.pull_timeout_ms = (uint32_t)conf->ollama_download_timeout_ms,
	};
	return provider_ollama_new(loop, http, workers, &options);
}

static struct provider *make_hybrid(struct loop *loop, struct http_client *http,
	struct workers *workers, const struct gatewayd_conf *conf,
	const struct provider_watch *watch)
{
	struct provider_hybrid_options options = {
		.second_models = conf->hybrid_ollama_models,
		.equivalent = conf->hybrid_equivalent_models,
	};
	struct provider *openai = make_openai(loop, http, workers, conf, watch);
	struct provider *ollama = make_ollama(loop, http, workers, conf, watch);
	struct provider *hybrid = openai && ollama ? provider_hybrid_new(openai, ollama, &options)
						   : NULL;
	if (!hybrid) {
		provider_free(&openai);
		provider_free(&ollama);
	}
	return hybrid;
}

struct provider *provider_choose(struct loop *loop, struct http_client *http,
	struct workers *workers, const struct gatewayd_conf *conf,
	const struct provider_watch *watch)
{
	if (gatewayd_conf_is_mock(conf))
		return provider_mock_new(loop, workers, (uint64_t)conf->mock_latency_ms);
	switch ((enum conf_provider)conf->provider) {
	case CONF_PROVIDER_OLLAMA:
		return make_ollama(loop, http, workers, conf, watch);
	case CONF_PROVIDER_HYBRID:
		return make_hybrid(loop, http, workers, conf, watch);
	default:
		return make_openai(loop, http, workers, conf, watch);
	}
}
