#include "gatewayd/models.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/loop.h"
#include "gatewayd/access.h"
#include "gatewayd/api_error.h"
#include "gatewayd/credential.h"
#include "gatewayd/gateway.h"
#include "gatewayd/provider.h"
#include "gatewayd/provider_mock.h"

struct models {
	struct gateway *gateway;
	struct exchange *exchange;
	struct provider_call *call;
};

static void on_abort(void *arg)
{
	struct models *models = arg;
	stats_count_request(models->gateway->stats, STATS_GONE, 499);
	const struct provider *provider = models->gateway->provider;
	provider->ops->cancel(models->call);
	free(models);
}

static const struct exchange_events events = {
	.on_abort = on_abort,
};

static void count(struct gateway *gateway, const struct exchange *exchange, int status)
{
	enum stats_result result = status < 400 ? STATS_PASS : STATS_ERROR;
	stats_count_request(gateway->stats, result, status);
	stats_observe_duration(
		gateway->stats, result, loop_now_us(gateway->loop) - exchange->started_us);
}

static void respond(struct gateway *gateway, struct exchange *exchange, int status,
	struct span content_type, int64_t retry_after_ms, struct slice body)
{
	struct answer_head head = {.status = status};
	char retry_after[24];
	answer_head_add(&head, "Content-Type",
		content_type.data ? content_type : SPAN_LITERAL("application/json"));
	if (retry_after_ms >= 0) {
		snprintf(
			retry_after, sizeof retry_after, "%" PRId64, (retry_after_ms + 999) / 1000);
		answer_head_add(&head, "Retry-After", span_of(retry_after));
	}
	answer_head_add(&head, "X-Cache", span_of(stats_x_cache(STATS_PASS)));
	count(gateway, exchange, status);
	exchange_respond(exchange, &head, body);
}

static void refuse(struct gateway *gateway, struct exchange *exchange, int status, const char *code,
	int64_t retry_after_ms, const char *message)
{
	struct api_error error;
	api_error_set(&error, status, NULL, code, "%s", message);
	error.retry_after_ms = retry_after_ms;
	count(gateway, exchange, status);
	api_error_respond(exchange, &error, "PASS");
}

static void on_done(const struct provider_result *result, void *arg)
{
	struct models *models = arg;
	struct exchange *exchange = models->exchange;
	struct gateway *gateway = models->gateway;
	free(models);
	if (result->body.len == 0) {
		bool empty = result->outcome == PROVIDER_OK;
		refuse(gateway, exchange, empty ? 502 : result->status,
			provider_outcome_code(empty ? PROVIDER_BROKEN : result->outcome),
			result->retry_after_ms,
			result->detail ? result->detail : "The provider's answer is empty.");
		return;
	}
	void *copy = malloc(result->body.len);
	if (!copy) {
		refuse(gateway, exchange, 503, "overloaded", 1000, "The gateway is out of memory.");
		return;
	}
	memcpy(copy, result->body.data, result->body.len);
	respond(gateway, exchange, result->status, result->content_type, result->retry_after_ms,
		slice_malloced(copy, result->body.len));
}

void models_serve(struct gateway *gateway, struct exchange *exchange)
{
	struct credential credential;
	struct digest scope;
	if (!access_check(gateway, exchange, &credential, &scope))
		return;
	const struct provider_ops *ops = gateway->provider->ops;
	struct models *models = NULL;
	if (gateway->mock) {
		respond(gateway, exchange, 200, (struct span){0}, -1,
			slice_static(provider_mock_models));
		goto out;
	}
	if (!ops->list_models) {
		refuse(gateway, exchange, 404, "unknown_url", -1,
			"The provider has no list of models.");
		goto out;
	}
	models = calloc(1, sizeof *models);
	if (models) {
		struct trace_context trace;
		exchange_trace_context(exchange, &trace);
		models->gateway = gateway;
		models->exchange = exchange;
		models->call = ops->list_models(
			gateway->provider, &credential, &trace, on_done, models);
	}
	if (!models || !models->call) {
		free(models);
		refuse(gateway, exchange, 503, "overloaded", 1000, "The gateway is out of memory.");
		goto out;
	}
	exchange_accept(exchange, &events, models);
out:
	credential_free(&credential);
}
