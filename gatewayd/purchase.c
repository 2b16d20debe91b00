#include "gatewayd/purchase.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/trace_span.h"
#include "gatewayd/fetch.h"
#include "gatewayd/store.h"
#include "gatewayd/surrogate_keys.h"
#include "gatewayd/usage.h"

struct bought_item {
	struct digest key;
	struct flight *flight;
};

struct purchase {
	struct purchase *next, **prev; /* of parts.all */
	struct purchase_parts parts;
	struct purchase_events events;
	struct provider_call *call; /* one of the two; neither while the end is told */
	struct fetch *fetch;
	uint64_t began_us;
	struct trace_context trace; /* of the call */
	struct trace_span *span;    /* until it has ended */
	bool has_trace, recorded;
	bool handing_out;
	bool keep_nothing;
	bool pays_itself;
	int owner;
	bool not_in_memory; /* it could not be purged there */
	char *model;
	char *store_params;
	struct digest credential;
	struct element_tags *tags;
	uint64_t since, asked_ms; /* by the purge clock, and by the wall's */
	size_t n;
	struct bought_item *items;
	uint32_t *weights; /* bytes of each input, for sharing the tokens out */

	/* What was bought, while it is handed out: piece by piece, see loop_queue(). */
	struct embedding *bought;
	struct buf scratch; /* the text of one */
	uint64_t *tokens;
	char *served_model;
	size_t handed;
	struct deferred later;
};

static void purchase_free(struct purchase *purchase)
{
	if (purchase->prev) {
		*purchase->prev = purchase->next;
		if (purchase->next)
			purchase->next->prev = purchase->prev;
	}
	loop_defer_cancel(purchase->parts.loop, &purchase->later);
	trace_span_end(&purchase->span);
	for (size_t i = 0; purchase->bought && i < purchase->n; i++)
		buf_free(&purchase->bought[i].text);
	free(purchase->bought);
	buf_free(&purchase->scratch);
	free(purchase->tokens);
	free(purchase->served_model);
	free(purchase->model);
	free(purchase->store_params);
	free(purchase->items);
	free(purchase->weights);
	element_tags_unref(&purchase->tags);
	free(purchase);
}

static int share_tokens(
	const struct purchase *purchase, const struct provider_result *result, uint64_t *tokens)
{
	for (size_t i = 0; i < purchase->n; i++) {
		tokens[i] = result->embeddings[i].tokens;
		if (!tokens[i] && result->outcome == PROVIDER_OK)
			return usage_share(
				result->total_tokens, purchase->weights, purchase->n, tokens);
	}
	return 0;
}

/* NULL: none. */
static const struct trace *trace_of_put(
	const struct purchase *purchase, size_t index, struct trace *trace)
{
	*trace = purchase->trace.trace;
	trace->sampled = trace->sampled && index < TRACED_STEPS;
	return purchase->has_trace ? trace : NULL;
}

/*
 * Put one vector in memory and in the store. Its time is when it was asked for: a purge in between
 * is later, so that it covers this vector too, everywhere. NULL when out of memory.
 */
static struct cache_object *keep(struct purchase *purchase, size_t index, uint64_t now_ms)
{
	const struct embedding *embedding = &purchase->bought[index];
	uint64_t tokens = purchase->tokens[index];
	const struct purchase_parts *parts = &purchase->parts;
	struct span text;
	if (embedding_text(embedding, &purchase->scratch, &text) < 0)
		return NULL;
	struct cache_object_info info = {
		.kind = CACHE_ELEMENT,
		.key = purchase->items[index].key,
		.stored_ms = purchase->asked_ms,
		.fresh_from_ms = now_ms,
		.ttl_ms = parts->ttl_ms,
		.grace_ms = parts->grace_ms,
		.prompt_tokens = tokens,
		.total_tokens = tokens,
		.model = span_of(purchase->model),
		.served_model = span_of(purchase->served_model),
		.dims = embedding->dims,
		.n_elements = 1,
	};
	if (parts->store && !purchase->keep_nothing) {
		struct stored_fields fields = {
			.key = info.key,
			.stored_ms = purchase->asked_ms,
			.model = info.model,
			.served_model = info.served_model,
			.params = span_of(purchase->store_params),
			.source = embedding->source,
			.vector = text,
			.dims = embedding->dims,
			.prompt_tokens = tokens,
			.total_tokens = tokens,
		};
		struct trace trace;
		store_put(parts->store, &fields, trace_of_put(purchase, index, &trace));
	}
	struct cache_object *object = cache_object_new(parts->cache, &info,
		embedding->source == VECTOR_BASE64 ? CACHE_BASE64 : CACHE_TEXT, text, true);
	struct cache_tagging tagging = element_tagging(purchase->tags, purchase->since);
	if (object && !purchase->keep_nothing && !purchase->not_in_memory)
		cache_insert_tagged(parts->cache, object, &tagging, now_ms);
	return object;
}

static const struct provider_result out_of_memory = {
	.outcome = PROVIDER_UNREACHABLE,
	.status = 503,
	.retry_after_ms = 1000,
	.detail = "the gateway is out of memory",
};

const struct provider_result purchase_owner_lost = {
	.outcome = PROVIDER_UNREACHABLE,
	.status = 503,
	.retry_after_ms = 1000,
	.detail = "the owner of the element is lost",
};

/* Its object goes to everybody who waits for it. */
static void hand_over(struct purchase *purchase, size_t index, struct cache_object *object,
	enum flight_source source)
{
	struct flight *flight = purchase->items[index].flight;
	purchase->items[index].flight = NULL;
	if (flight)
		purchase->events.on_object(purchase, flight, object, source, purchase->events.arg);
}

static void end(struct purchase *purchase, const struct provider_result *failure)
{
	purchase->handing_out = true;
	purchase->events.on_end(purchase, failure, purchase->events.arg);
	purchase_free(purchase);
}

/* ---- From the provider ---- */

/* The answer's own, beside those of the request. Too many, or bad ones: whoever set them could not
 * purge by them. -1 when out of memory. */
static int add_tags_of_answer(struct purchase *purchase, struct span field)
{
	struct span names[2 * SURROGATE_MAX_KEYS];
	const char *reason;
	int n_own = surrogate_keys_read(purchase->tags->field, names, &reason);
	int n = surrogate_keys_read(field, names + n_own, &reason);
	if (n < 0) {
		log_fields(LOG_LEVEL_WARN, TRACE_TEXT(&purchase->trace.trace),
			"embeddings of the provider are not kept in memory",
			LOG_STR("reason", reason));
		purchase->not_in_memory = true;
	}
	if (n <= 0)
		return 0;
	struct element_tags *both = element_tags_new(
		span_of(purchase->model), names, (size_t)(n_own + n));
	if (!both)
		return -1;
	element_tags_unref(&purchase->tags);
	purchase->tags = both;
	return 0;
}

static int take(struct purchase *purchase, const struct provider_result *result)
{
	if (purchase->tags && result->surrogate_key.len &&
		add_tags_of_answer(purchase, result->surrogate_key) < 0)
		return -1;
	purchase->bought = calloc(purchase->n, sizeof *purchase->bought);
	purchase->tokens = calloc(purchase->n, sizeof *purchase->tokens);
	purchase->served_model = strndup(
		result->model.len ? result->model.data : "", result->model.len);
	if (!purchase->bought || !purchase->tokens || !purchase->served_model ||
		share_tokens(purchase, result, purchase->tokens) < 0)
		return -1;
	for (size_t i = 0; i < purchase->n; i++) {
		purchase->bought[i] = result->embeddings[i];
		result->embeddings[i].text = (struct buf){0};
	}
	return 0;
}

/* The next ones of what was bought, until the clock says so, go to those who wait for them. -1 when
 * out of memory. */
static int hand_out(struct purchase *purchase, uint64_t until_us)
{
	struct loop *loop = purchase->parts.loop;
	uint64_t now_ms = loop_wall_ms(loop);
	while (purchase->handed < purchase->n) {
		size_t index = purchase->handed++;
		if (!purchase->bought[index].dims)
			continue; /* of a part that failed */
		struct cache_object *object = keep(purchase, index, now_ms);
		if (!object)
			return -1;
		buf_free(&purchase->bought[index].text);
		hand_over(purchase, index, object, FLIGHT_BOUGHT);
		cache_object_unref(&object);
		if (loop_now_us(loop) >= until_us)
			break;
	}
	return 0;
}

static void hand_out_in_turns(void *arg)
{
	struct purchase *purchase = arg;
	uint64_t until_us = loop_now_us(purchase->parts.loop) + LOOP_SLICE_US / 4;
	if (hand_out(purchase, until_us) < 0)
		end(purchase, &out_of_memory);
	else if (purchase->handed < purchase->n)
		loop_queue(purchase->parts.loop, &purchase->later);
	else
		end(purchase, NULL);
}

/* ---- The span of a call ---- */

/* (OpenTelemetry's conventions for generative AI, and for RPC) */
static void begin_span(struct purchase *purchase, const struct buyer *payer, int owner)
{
	char name[TRACE_SPAN_NAME_MAX_BYTES + 1];
	if (!payer->trace)
		return;
	purchase->trace = *payer->trace;
	purchase->has_trace = true;
	bool buys = owner == PEERS_SELF;
	snprintf(name, sizeof name, "%s %s", buys ? "embeddings" : "fetch", purchase->model);
	purchase->span = trace_span_begin(&payer->trace->trace, &purchase->trace.trace,
		TRACE_SPAN_CLIENT, buys ? span_of(name) : SPAN_LITERAL("fetch"));
	purchase->recorded = purchase->span != NULL;
	trace_span_text(purchase->span, "gen_ai.operation.name", "embeddings");
	trace_span_text(purchase->span, "gen_ai.request.model", purchase->model);
	trace_span_int(purchase->span, "gateway.elements", (int64_t)purchase->n);
	if (buys) {
		trace_span_text(purchase->span, "gen_ai.provider.name",
			purchase->parts.provider->ops->name);
	} else {
		trace_span_text(purchase->span, "rpc.method", "fetch");
		trace_span_int(purchase->span, "gateway.owner", owner);
	}
}

static void note_result(struct purchase *purchase, const struct provider_result *result)
{
	struct trace_span *span = purchase->span;
	if (!span)
		return;
	if (result->outcome != PROVIDER_OK) {
		char status[16];
		snprintf(status, sizeof status, "%d", result->status);
		trace_span_int(span, "http.response.status_code", result->status);
		trace_span_fail(span,
			result->outcome == PROVIDER_REFUSED
				? status
				: provider_outcome_code(result->outcome),
			result->detail);
	}
	if (result->embeddings) {
		trace_span_str(span, "gen_ai.response.model", result->model);
		trace_span_int(span, "gen_ai.usage.input_tokens", (int64_t)result->total_tokens);
		trace_span_int(
			span, "gen_ai.embeddings.dimension.count", result->embeddings[0].dims);
	}
	trace_span_end(&purchase->span);
}

/* ---- From the provider ---- */

static size_t count_bought(const struct provider_result *result)
{
	size_t n = 0;
	for (size_t i = 0; i < result->n_embeddings; i++)
		n += result->embeddings[i].dims > 0;
	return n;
}

static void on_done(const struct provider_result *result, void *arg)
{
	struct purchase *purchase = arg;
	const struct purchase_events *events = &purchase->events;
	bool bought_all = result->outcome == PROVIDER_OK;
	purchase->call = NULL;
	note_result(purchase, result);
	if (!result->embeddings) {
		BUG_ON(bought_all);
		end(purchase, result);
		return;
	}
	BUG_ON(result->n_embeddings != purchase->n);
	if (events->on_bought)
		events->on_bought(span_of(purchase->model), result->total_tokens,
			count_bought(result), events->arg);
	purchase->handing_out = true;
	if (take(purchase, result) < 0)
		end(purchase, bought_all ? &out_of_memory : result);
	else if (bought_all)
		hand_out_in_turns(purchase);
	else {
		/* Of a part that failed: rare, and the failure is only lent. */
		hand_out(purchase, UINT64_MAX);
		end(purchase, result);
	}
}

/* ---- From the owner ---- */

/* Those of the request, and those that it has at its owner. */
static struct cache_tagging tagging_of_copy(const struct purchase *purchase, struct span theirs,
	struct cache_tag_key keys[CACHE_MAX_TAGS])
{
	struct cache_tagging tagging = element_tagging(purchase->tags, purchase->since);
	size_t n = theirs.len / sizeof *keys, n_own = tagging.n;
	memcpy(keys, tagging.keys, n_own * sizeof *keys);
	tagging.keys = keys;
	for (size_t i = 0; i < n; i++) {
		struct cache_tag_key key;
		memcpy(&key, theirs.data + i * sizeof key, sizeof key);
		bool known = false;
		for (size_t j = 0; j < n_own && !known; j++)
			known = memcmp(&keys[j], &key, sizeof key) == 0;
		if (!known && tagging.n < CACHE_MAX_TAGS)
			keys[tagging.n++] = key;
	}
	return tagging;
}

/* A copy for this instance's memory; the owner stores it. */
static void on_element(const struct fetched *element, void *arg)
{
	struct purchase *purchase = arg;
	const struct purchase_parts *parts = &purchase->parts;
	uint64_t now_ms = loop_wall_ms(parts->loop);
	struct cache_object_info info = {
		.kind = CACHE_ELEMENT,
		.key = purchase->items[element->index].key,
		.stored_ms = element->stored_ms,
		.fresh_from_ms = now_ms,
		.ttl_ms = parts->ttl_ms,
		.grace_ms = parts->grace_ms,
		.prompt_tokens = element->prompt_tokens,
		.total_tokens = element->total_tokens,
		.model = span_of(purchase->model),
		.served_model = element->served_model,
		.dims = element->dims,
		.n_elements = 1,
	};
	struct cache_object *object = cache_object_new(parts->cache, &info,
		element->form == VECTOR_BASE64 ? CACHE_BASE64 : CACHE_TEXT, element->vector, true);
	if (!object)
		return; /* its flight begins again when the fetch ends */
	struct cache_tag_key keys[CACHE_MAX_TAGS];
	struct cache_tagging tagging = tagging_of_copy(purchase, element->tags, keys);
	/* None: its owner does not keep it, so that a purge there would pass over a copy here. */
	if (element->tags.len)
		cache_insert_tagged(parts->cache, object, &tagging, now_ms);
	purchase->handing_out = true;
	hand_over(purchase, element->index, object, element->source);
	purchase->handing_out = false;
	cache_object_unref(&object);
}

static void on_fetch_end(
	enum fetch_outcome outcome, const struct provider_result *result, void *arg)
{
	struct purchase *purchase = arg;
	purchase->fetch = NULL;
	if (purchase->events.on_fetched)
		purchase->events.on_fetched(outcome == FETCH_LOST ? "lost"
					    : result              ? "refused"
								  : "done",
			loop_now_us(purchase->parts.loop) - purchase->began_us,
			purchase->events.arg);
	const struct provider_result *failure = result;
	if (outcome == FETCH_LOST)
		failure = &purchase_owner_lost;
	if (failure)
		note_result(purchase, failure);
	for (size_t i = 0; outcome == FETCH_DONE && i < purchase->n; i++)
		if (purchase->items[i].flight)
			failure = &purchase_owner_lost;
	end(purchase, failure);
}

static const struct fetch_events fetch_events = {
	.on_element = on_element,
	.on_end = on_fetch_end,
};

/* ---- The interface ---- */

struct purchase *purchase_start(const struct purchase_parts *parts, const struct buyer *payer,
	const struct purchase_item *items, size_t n, int owner,
	const struct purchase_events *events)
{
	struct purchase *purchase = calloc(1, sizeof *purchase);
	if (!purchase)
		return NULL;
	struct span *inputs = calloc(n, sizeof *inputs);
	purchase->parts = *parts;
	deferred_init(&purchase->later, hand_out_in_turns, purchase);
	buf_init(&purchase->scratch, vector_base64_len(VECTOR_MAX_DIMS));
	purchase->events = *events;
	purchase->began_us = loop_now_us(parts->loop);
	purchase->n = n;
	purchase->keep_nothing = payer->keep_nothing;
	purchase->tags = element_tags_ref(payer->tags);
	purchase->since = cache_purge_clock(parts->cache);
	purchase->asked_ms = loop_wall_ms(parts->loop);
	purchase->credential = payer->credential_digest;
	purchase->pays_itself = payer->credential->is_own;
	purchase->owner = owner;
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
		.body = payer->body,
		.inputs = inputs,
		.n_inputs = n,
		.model = payer->model,
		.dimensions = payer->dimensions,
		.credential = payer->credential,
		.scope = payer->scope,
		.surrogate_keys = payer->tags ? payer->tags->field : (struct span){0},
		.trace = payer->trace ? &purchase->trace : NULL,
	};
	begin_span(purchase, payer, owner);
	if (owner == PEERS_SELF)
		purchase->call = parts->provider->ops->buy(
			parts->provider, &request, on_done, purchase);
	else
		purchase->fetch = fetch_start(
			parts->loop, parts->peers, owner, &request, &fetch_events, purchase);
	if (!purchase->call && !purchase->fetch)
		goto fail;
	free(inputs);
	purchase->prev = parts->all;
	purchase->next = *parts->all;
	if (purchase->next)
		purchase->next->prev = &purchase->next;
	*parts->all = purchase;
	return purchase;

fail:
	free(inputs);
	purchase_free(purchase);
	return NULL;
}

const struct trace *purchase_trace(const struct purchase *purchase)
{
	return purchase->recorded ? &purchase->trace.trace : NULL;
}

bool purchase_sent(const struct purchase *purchase)
{
	if (purchase->handing_out)
		return true;
	/* The owner knows by itself what it has sent. */
	return purchase->call && purchase->parts.provider->ops->sent(purchase->call);
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

int purchase_owner(const struct purchase *purchase)
{
	return purchase->owner;
}

bool purchase_pays_itself(const struct purchase *purchase)
{
	return purchase->pays_itself;
}

void purchase_forget(struct purchase *purchase, const struct flight *flight)
{
	for (size_t i = 0; i < purchase->n; i++)
		if (purchase->items[i].flight == flight)
			purchase->items[i].flight = NULL;
}

void purchase_cancel(struct purchase *purchase)
{
	if (purchase->call)
		purchase->parts.provider->ops->cancel(purchase->call);
	if (purchase->fetch)
		fetch_cancel(purchase->fetch);
	purchase_free(purchase);
}
