#include "gatewayd/provider_mock.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json_span.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/workers.h"

#define MAX_DIMENSIONS 16384
/* Each feature touches so many coordinates: enough that short texts are dense, few enough to be
 * quick. */
#define SPREAD 24

#define MOCK_MODEL(name) \
	"{\"id\":\"" name "\",\"object\":\"model\",\"created\":1705948997,\"owned_by\":\"mock\"}"

const char provider_mock_models[] =
	"{\"object\":\"list\",\"data\":[" MOCK_MODEL("text-embedding-3-small") "," MOCK_MODEL(
		"text-embedding-3-large") "," MOCK_MODEL("text-embedding-ada-002") "]}\n";

struct mock {
	struct provider provider; /* first */
	struct loop *loop;
	struct workers *workers;
	uint64_t latency_ms;
};

struct provider_call {
	struct job job; /* first: the worker gives it back */
	struct mock *mock;
	struct timer *timer;
	bool cancelled, working;
	void (*on_done)(const struct provider_result *result, void *arg);
	void *arg;

	char *model;
	size_t dimensions;
	size_t n;
	struct shared_slice *body; /* where the inputs lie; NULL: in a copy */
	char *inputs_json;
	struct span *inputs;
	struct embedding *embeddings;
	uint64_t tokens;
	bool failed;
};

/* ---- Vectors ---- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15u;
	x ^= x >> 29;
	x *= 0xd6e8feb86659fd93u;
	return x ^ x >> 32;
}

static uint64_t hash_bytes(const char *data, size_t len, uint64_t seed)
{
	uint64_t h = seed;
	for (size_t i = 0; i < len; i++)
		h = mix(h ^ (uint8_t)tolower((unsigned char)data[i])) + i;
	return h;
}

static void add_feature(uint64_t feature, float weight, float *vector, size_t dimensions)
{
	for (int i = 0; i < SPREAD; i++) {
		feature = mix(feature + 0x9e3779b97f4a7c15u);
		vector[feature % dimensions] += feature >> 63 ? weight : -weight;
	}
}

static bool is_word_byte(char c)
{
	return isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

void provider_mock_embed(struct span text, float *vector, size_t dimensions)
{
	for (size_t i = 0; i < dimensions; i++)
		vector[i] = 0;
	/* A constant, so that the empty and the punctuation-only text have a direction too. */
	add_feature(1, 0.01f, vector, dimensions);
	add_feature(hash_bytes(text.data, text.len, 2), 0.1f, vector, dimensions);

	uint64_t previous_word = 0;
	for (size_t i = 0; i < text.len;) {
		if (!is_word_byte(text.data[i])) {
			i++;
			continue;
		}
		size_t start = i;
		while (i < text.len && is_word_byte(text.data[i]))
			i++;
		uint64_t word = hash_bytes(text.data + start, i - start, 3);
		add_feature(word, 1, vector, dimensions);
		add_feature(mix(previous_word) ^ word, 0.25f, vector, dimensions);
		previous_word = word;
		for (size_t j = start; j + 3 <= i; j++)
			add_feature(hash_bytes(text.data + j, 3, 4), 0.3f, vector, dimensions);
	}

	double length = 0;
	for (size_t i = 0; i < dimensions; i++)
		length += (double)vector[i] * vector[i];
	if (length == 0) { /* every feature cancelled out: possible only with very few dimensions */
		vector[0] = 1;
		length = 1;
	}
	float scale = (float)(1 / sqrt(length));
	for (size_t i = 0; i < dimensions; i++)
		vector[i] *= scale;
}

size_t provider_mock_dimensions(struct span model)
{
	return span_equal_str(model, "text-embedding-3-large") ? 3072 : 1536;
}

/* ---- One call ---- */

static void call_free(struct provider_call *call)
{
	for (size_t i = 0; call->embeddings && i < call->n; i++)
		buf_free(&call->embeddings[i].text);
	free(call->embeddings);
	free(call->inputs);
	free(call->inputs_json);
	shared_slice_unref(call->body);
	free(call->model);
	timer_free(&call->timer);
	free(call);
}

static int decode(struct span json, struct buf *text)
{
	struct json_span_doc *doc = json_span_new(json, NULL);
	int rc = -1;
	if (doc && json_span_step(doc, SIZE_MAX) == JSON_SPAN_DONE)
		rc = json_span_string(doc, json_span_root(), text);
	json_span_free(&doc);
	return rc;
}

/* The bytes that stand for an input: a text's own, or the JSON of the token ids. */
static int embed_input(struct provider_call *call, size_t index, float *floats)
{
	struct span json = call->inputs[index];
	struct buf text = BUF_INIT(json.len + 1);
	struct embedding *embedding = &call->embeddings[index];
	if (json.data[0] == '"') {
		if (decode(json, &text) < 0)
			goto fail;
		embedding->tokens = text.len ? (text.len + 3) / 4 : 1;
		provider_mock_embed(
			(struct span){(char *)text.data, text.len}, floats, call->dimensions);
	} else {
		embedding->tokens = 1;
		for (size_t i = 0; i < json.len; i++)
			embedding->tokens += json.data[i] == ',';
		provider_mock_embed(json, floats, call->dimensions);
	}
	buf_free(&text);

	float *values = malloc(call->dimensions * sizeof *values);
	if (!values)
		return -1;
	memcpy(values, floats, call->dimensions * sizeof *values);
	embedding_pack(embedding, values, (uint32_t)call->dimensions);
	return 0;

fail:
	buf_free(&text);
	return -1;
}

static void work(struct job *job)
{
	struct provider_call *call = (struct provider_call *)job;
	float *floats = calloc(call->dimensions, sizeof *floats);
	if (!floats) {
		call->failed = true;
		return;
	}
	for (size_t i = 0; i < call->n && !call->failed; i++)
		call->failed = embed_input(call, i, floats) < 0;
	free(floats);
}

static void report(struct provider_call *call)
{
	struct provider_result result = {
		.outcome = PROVIDER_OK,
		.embeddings = call->embeddings,
		.n_embeddings = call->n,
		.model = span_of(call->model),
		.total_tokens = call->tokens,
		.retry_after_ms = -1,
	};
	if (call->failed)
		result = (struct provider_result){.outcome = PROVIDER_UNREACHABLE,
			.status = 503,
			.retry_after_ms = 1000,
			.detail = "the mock provider is out of memory"};
	call->on_done(&result, call->arg);
}

static void on_latency_over(void *arg)
{
	struct provider_call *call = arg;
	report(call);
	call_free(call);
}

static void done(struct job *job)
{
	struct provider_call *call = (struct provider_call *)job;
	call->working = false;
	if (call->cancelled) {
		call_free(call);
	} else if (call->timer) {
		timer_arm(call->timer, call->mock->latency_ms);
	} else {
		report(call);
		call_free(call);
	}
}

/* By reference where the body can be kept. */
static int keep_inputs(struct provider_call *call, const struct provider_request *request)
{
	size_t total = 1;
	for (size_t i = 0; i < request->n_inputs && !request->body; i++)
		total += request->inputs[i].len;
	call->inputs_json = malloc(total);
	call->inputs = calloc(request->n_inputs, sizeof *call->inputs);
	call->embeddings = calloc(request->n_inputs, sizeof *call->embeddings);
	if (!call->inputs_json || !call->inputs || !call->embeddings)
		return -1;
	if (request->body)
		call->body = shared_slice_ref(request->body);
	call->n = request->n_inputs;
	char *at = call->inputs_json;
	for (size_t i = 0; i < call->n; i++) {
		call->inputs[i] = request->inputs[i];
		if (call->body)
			continue;
		memcpy(at, request->inputs[i].data, request->inputs[i].len);
		call->inputs[i].data = at;
		at += request->inputs[i].len;
	}
	return 0;
}

static struct provider_call *mock_buy(struct provider *provider,
	const struct provider_request *request,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	struct mock *mock = (struct mock *)provider;
	struct provider_call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->mock = mock;
	call->on_done = on_done;
	call->arg = arg;
	call->job.work = work;
	call->job.done = done;
	call->dimensions = request->dimensions > 0 && request->dimensions <= MAX_DIMENSIONS
				   ? (size_t)request->dimensions
				   : provider_mock_dimensions(request->model);
	call->model = strndup(request->model.data, request->model.len);
	if (!call->model || keep_inputs(call, request) < 0)
		goto fail;
	if (mock->latency_ms) {
		call->timer = timer_new(mock->loop, on_latency_over, call);
		if (!call->timer)
			goto fail;
	}
	if (workers_submit(mock->workers, &call->job) < 0)
		goto fail;
	call->working = true;
	return call;

fail:
	call_free(call);
	return NULL;
}

static bool mock_sent(const struct provider_call *call)
{
	(void)call;
	return true;
}

static void mock_cancel(struct provider_call *call)
{
	if (call->working)
		call->cancelled = true; /* freed when the worker gives it back */
	else
		call_free(call);
}

static void mock_free(struct provider *provider)
{
	free(provider);
}

static const struct provider_ops mock_ops = {
	.name = "mock",
	.store_prefix = "mock/",
	.buy = mock_buy,
	.sent = mock_sent,
	.cancel = mock_cancel,
	.free = mock_free,
};

struct provider *provider_mock_new(struct loop *loop, struct workers *workers, uint64_t latency_ms)
{
	struct mock *mock = calloc(1, sizeof *mock);
	if (!mock)
		return NULL;
	mock->provider.ops = &mock_ops;
	mock->loop = loop;
	mock->workers = workers;
	mock->latency_ms = latency_ms;
	return &mock->provider;
}
