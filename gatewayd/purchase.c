#include "gatewayd/purchase.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/loop.h"
#include "gatewayd/store.h"
#include "gatewayd/usage.h"

struct bought_item {
	struct digest key;
	struct flight *flight;
};

struct purchase {
	struct purchase_parts parts;
	struct purchase_events events;
	struct provider_call *call;
	char *model;
	char *store_params;
	struct digest credential;
	size_t n;
	struct bought_item *items;
	uint32_t *weights; /* bytes of each input, for sharing the tokens out */
};

static void purchase_free(struct purchase *purchase)
{
	free(purchase->model);
	free(purchase->store_params);
	free(purchase->items);
	free(purchase->weights);
	free(purchase);
}

static int share_tokens(
	const struct purchase *purchase, const struct provider_result *result, uint64_t *tokens)
{
	for (size_t i = 0; i < purchase->n; i++) {
		tokens[i] = result->embeddings[i].tokens;
		if (!tokens[i])
			return usage_share(
				result->total_tokens, purchase->weights, purchase->n, tokens);
	}
	return 0;
}

/* Put one vector in memory and in the store. NULL when out of memory. */
static struct cache_object *keep(struct purchase *purchase, size_t index,
	const struct provider_result *result, uint64_t tokens, uint64_t now_ms)
{
	const struct embedding *embedding = &result->embeddings[index];
	const struct purchase_parts *parts = &purchase->parts;
	struct span text = {(char *)embedding->text.data, embedding->text.len};
	struct cache_object_info info = {
		.kind = CACHE_ELEMENT,
		.key = purchase->items[index].key,
		.stored_ms = now_ms,
		.fresh_from_ms = now_ms,
		.ttl_ms = parts->ttl_ms,
		.grace_ms = parts->grace_ms,
		.prompt_tokens = tokens,
		.total_tokens = tokens,
		.model = span_of(purchase->model),
		.served_model = result->model,
		.dims = embedding->dims,
		.n_elements = 1,
	};
	if (parts->store) {
		struct stored_fields fields = {
			.key = info.key,
			.stored_ms = now_ms,
			.model = info.model,
			.served_model = info.served_model,
			.params = span_of(purchase->store_params),
			.source = embedding->source,
			.vector = text,
			.dims = embedding->dims,
			.prompt_tokens = tokens,
			.total_tokens = tokens,
		};
		store_put(parts->store, &fields);
	}
	struct cache_object *object = cache_object_new(parts->cache, &info,
		embedding->source == VECTOR_BASE64 ? CACHE_BASE64 : CACHE_TEXT, text, true);
	if (object)
		cache_insert(parts->cache, object, now_ms);
	return object;
}

static const struct provider_result out_of_memory = {
	.outcome = PROVIDER_UNREACHABLE,
	.status = 503,
	.retry_after_ms = 1000,
	.detail = "the gateway is out of memory",
};

static void on_done(const struct provider_result *result, void *arg)
{
	struct purchase *purchase = arg;
	const struct purchase_events *events = &purchase->events;
	purchase->call = NULL;
	const struct provider_result *failure = result;
	uint64_t *tokens = NULL;
	if (result->outcome != PROVIDER_OK)
		goto end;
	BUG_ON(result->n_embeddings != purchase->n);
	if (events->on_bought)
		events->on_bought(
			span_of(purchase->model), result->total_tokens, purchase->n, events->arg);

	failure = &out_of_memory;
	tokens = calloc(purchase->n, sizeof *tokens);
	if (!tokens || share_tokens(purchase, result, tokens) < 0)
		goto end;
	uint64_t now_ms = loop_wall_ms(purchase->parts.loop);
	for (size_t i = 0; i < purchase->n; i++) {
		struct cache_object *object = keep(purchase, i, result, tokens[i], now_ms);
		if (!object)
			goto end;
		struct flight *flight = purchase->items[i].flight;
		purchase->items[i].flight = NULL;
		events->on_object(purchase, i, flight, object, events->arg);
		cache_object_unref(&object);
	}
	failure = NULL;
end:
	free(tokens);
	events->on_end(purchase, failure, events->arg);
	purchase_free(purchase);
}

struct purchase *purchase_start(const struct purchase_parts *parts, const struct buyer *payer,
	const struct purchase_item *items, size_t n, const struct purchase_events *events)
{
	struct purchase *purchase = calloc(1, sizeof *purchase);
	if (!purchase)
		return NULL;
	struct span *inputs = calloc(n, sizeof *inputs);
	purchase->parts = *parts;
	purchase->events = *events;
	purchase->n = n;
	purchase->credential = payer->credential_digest;
	purchase->model = strndup(payer->model.data, payer->model.len);
	purchase->store_params = strndup(payer->store_params.data, payer->store_params.len);
	purchase->items = calloc(n, sizeof *purchase->items);
	purchase->weights = calloc(n, sizeof *purchase->weights);
	if (!inputs || !purchase->model || !purchase->store_params || !purchase->items ||
		!purchase->weights)
		goto fail;
	for (size_t i = 0; i < n; i++) {
		inputs[i] = items[i].input_json;
		purchase->items[i] = (struct bought_item){
			.key = items[i].key, .flight = items[i].flight};
		purchase->weights[i] = (uint32_t)inputs[i].len;
	}
	struct provider_request request = {
		.model_json = payer->model_json,
		.params_json = payer->params_json,
		.inputs = inputs,
		.n_inputs = n,
		.model = payer->model,
		.dimensions = payer->dimensions,
		.credential = payer->credential,
		.traceparent = payer->traceparent,
	};
	purchase->call = parts->provider->ops->buy(parts->provider, &request, on_done, purchase);
	if (!purchase->call)
		goto fail;
	free(inputs);
	return purchase;

fail:
	free(inputs);
	purchase_free(purchase);
	return NULL;
}

bool purchase_sent(const struct purchase *purchase)
{
	/* No call: it was answered, and the answer is being handed out. */
	return !purchase->call || purchase->parts.provider->ops->sent(purchase->call);
}

size_t purchase_size(const struct purchase *purchase)
{
	return purchase->n;
}

struct flight *purchase_flight(const struct purchase *purchase, size_t index)
{
	return purchase->items[index].flight;
}

const struct digest *purchase_credential(const struct purchase *purchase)
{
	return &purchase->credential;
}

void purchase_cancel(struct purchase *purchase)
{
	purchase->parts.provider->ops->cancel(purchase->call);
	purchase_free(purchase);
}
