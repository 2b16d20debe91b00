#include "gatewayd/provider_ollama.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/http_client.h"
#include "common/json.h"
#include "common/json_span.h"
#include "common/log.h"
#include "common/loop.h"

#define MAX_PULL_ANSWER_BYTES (1u << 20)
#define PULL_RETRY_AFTER_MS   5000
#define PULL_FAILED_US        60000000
/* How many models are remembered that could not be pulled. */
#define MAX_FAILED 64

struct ollama;

struct pull {
	struct ollama *ollama;
	char *model; /* NULL: free */
	struct http_call *call;
	char traceparent[TRACE_PARENT_LEN + 1]; /* of the request that wants it */
};

struct failed_pull {
	char *model;
	uint64_t until_us;
};

struct ollama {
	struct provider provider; /* first */
	struct provider_ops ops;
	struct provider *inner;
	struct loop *loop;
	struct http_client *http;
	char *pull_url;
	bool may_pull;
	uint32_t pull_timeout_ms;
	struct pull pulls[OLLAMA_MAX_PULLS];
	struct failed_pull failed[MAX_FAILED];
	size_t next_failed;
	uint64_t pulls_ended, pulls_failed; /* well; not */
};

struct provider_call {
	struct ollama *ollama;
	struct provider_call *inner; /* NULL: refused without asking */
	struct deferred refuse_later;
	struct provider_result refusal;
	char *model;
	char traceparent[TRACE_PARENT_LEN + 1]; /* "": none */
	void (*on_done)(const struct provider_result *result, void *arg);
	void *arg;
};

/* ---- The dialect ---- */

static bool contains(struct span text, const char *word)
{
	return text.len && memmem(text.data, text.len, word, strlen(word));
}

static int write_request(const struct provider_request *request, struct buf *out)
{
	buf_append_str(out, "{\"model\":");
	buf_append(out, request->model_json.data, request->model_json.len);
	buf_append_char(out, ',');
	buf_append(out, request->params_json.data, request->params_json.len);
	/* A text cut short would get a vector that is not its own. */
	if (!contains(request->params_json, "\"truncate\""))
		buf_append_str(out, "\"truncate\":false,");
	buf_append_str(out, "\"input\":[");
	for (size_t i = 0; i < request->n_inputs; i++) {
		if (i)
			buf_append_char(out, ',');
		buf_append(out, request->inputs[i].data, request->inputs[i].len);
	}
	buf_append_str(out, "]}");
	return buf_failed(out) ? -1 : 0;
}

static const struct provider_dialect dialect = {
	.name = "ollama",
	.embed_path = "/api/embed",
	.models_path = "/v1/models",
	.sends_credential = false,
	.write = write_request,
	.take = provider_answer_take_ollama,
};

/* ---- Pulls ---- */

static struct pull *find_pull(struct ollama *ollama, const char *model)
{
	for (size_t i = 0; i < OLLAMA_MAX_PULLS; i++)
		if (ollama->pulls[i].model && strcmp(ollama->pulls[i].model, model) == 0)
			return &ollama->pulls[i];
	return NULL;
}

static bool failed_lately(const struct ollama *ollama, const char *model)
{
	uint64_t now_us = loop_now_us(ollama->loop);
	for (size_t i = 0; i < MAX_FAILED; i++)
		if (ollama->failed[i].model && ollama->failed[i].until_us > now_us &&
			strcmp(ollama->failed[i].model, model) == 0)
			return true;
	return false;
}

static void on_pulled(struct http_call *http, const struct http_call_result *result, void *arg)
{
	(void)http;
	struct pull *pull = arg;
	struct ollama *ollama = pull->ollama;
	struct span body = {(char *)result->body->data, result->body->len};
	char *model = pull->model;
	pull->model = NULL;
	pull->call = NULL;
	if (result->outcome == HTTP_CALL_OK && result->status == 200 &&
		contains(body, "\"success\"")) {
		ollama->pulls_ended++;
		log_fields(LOG_LEVEL_INFO, pull->traceparent, "ollama: pulled a model",
			LOG_STR("model", model),
			LOG_DOUBLE("seconds", (double)result->duration_us / 1e6));
		free(model);
		return;
	}
	ollama->pulls_failed++;
	log_fields(LOG_LEVEL_WARN, pull->traceparent, "ollama: a model cannot be pulled",
		LOG_STR("model", model),
		LOG_STR("reason", result->detail ? result->detail : "refused"),
		LOG_INT("status", result->status));
	struct failed_pull *failed = &ollama->failed[ollama->next_failed++ % MAX_FAILED];
	free(failed->model);
	*failed = (struct failed_pull){model, loop_now_us(ollama->loop) + PULL_FAILED_US};
}

/* true: it is on its way. */
static bool start_pull(struct ollama *ollama, const char *model, const char *traceparent)
{
	if (!ollama->may_pull || failed_lately(ollama, model))
		return false;
	struct pull *pull = NULL;
	for (size_t i = 0; i < OLLAMA_MAX_PULLS; i++)
		if (!ollama->pulls[i].model)
			pull = &ollama->pulls[i];
	if (!pull)
		return true; /* its turn comes: the caller is told to come back */
	struct buf body = BUF_INIT(1 << 16);
	buf_append_str(&body, "{\"model\":");
	json_append_string(&body, span_of(model));
	buf_append_str(&body, ",\"stream\":false}");
	bool failed = buf_failed(&body);
	size_t len = 0;
	char *data = buf_take(&body, &len);
	static const char *const headers[] = {"Content-Type: application/json", NULL};
	struct http_call_options options = {
		.method = "POST",
		.url = ollama->pull_url,
		.headers = headers,
		.body = slice_malloced(data, len),
		.timeout_ms = ollama->pull_timeout_ms,
		.max_response_bytes = MAX_PULL_ANSWER_BYTES,
	};
	pull->model = failed ? NULL : strdup(model);
	if (!pull->model) {
		slice_release(&options.body);
		return false;
	}
	pull->ollama = ollama;
	memcpy(pull->traceparent, traceparent, sizeof pull->traceparent);
	log_fields(LOG_LEVEL_INFO, traceparent, "ollama: pulling a model that it does not have",
		LOG_STR("model", model));
	pull->call = http_client_call(ollama->http, &options, on_pulled, pull);
	if (!pull->call) {
		free(pull->model);
		pull->model = NULL;
		return false;
	}
	return true;
}

static const struct provider_result being_pulled = {
	.outcome = PROVIDER_UNREACHABLE,
	.status = 503,
	.retry_after_ms = PULL_RETRY_AFTER_MS,
	.detail = "the model is being downloaded",
};

/* ---- One purchase ---- */

static void call_free(struct provider_call *call)
{
	loop_defer_cancel(call->ollama->loop, &call->refuse_later);
	if (call->inner)
		call->ollama->inner->ops->cancel(call->inner);
	free(call->model);
	free(call);
}

static void finish(struct provider_call *call, const struct provider_result *result)
{
	call->on_done(result, call->arg);
	call_free(call);
}

/* {"error":"words"} -> words, for OpenAI's shape. */
static void read_error(struct span body, struct buf *words)
{
	struct json_span_doc *doc = json_span_new(body, NULL);
	if (doc && json_span_step(doc, SIZE_MAX) == JSON_SPAN_DONE &&
		json_span_type(doc, json_span_root()) == JSON_SPAN_OBJECT) {
		uint32_t error = json_span_member(doc, json_span_root(), SPAN_LITERAL("error"));
		if (error != JSON_SPAN_NONE && json_span_string(doc, error, words) < 0)
			buf_clear(words);
	}
	json_span_free(&doc);
}

static void on_inner_done(const struct provider_result *result, void *arg)
{
	struct provider_call *call = arg;
	call->inner = NULL;
	if (result->outcome != PROVIDER_REFUSED) {
		finish(call, result);
		return;
	}
	if (call->model && result->status == 404 && contains(result->body, "not found") &&
		start_pull(call->ollama, call->model, call->traceparent)) {
		finish(call, &being_pulled);
		return;
	}
	struct buf words = BUF_INIT(4096);
	read_error(result->body, &words);
	buf_append_char(&words, '\0');
	struct provider_result refusal = *result;
	refusal.body = (struct span){0};
	if (!buf_failed(&words) && words.len > 1)
		refusal.detail = (const char *)words.data;
	finish(call, &refusal);
	buf_free(&words);
}

static void refuse(void *arg)
{
	struct provider_call *call = arg;
	finish(call, &call->refusal);
}

static struct provider_call *call_new(struct provider *provider,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	struct provider_call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->ollama = (struct ollama *)provider;
	call->on_done = on_done;
	call->arg = arg;
	deferred_init(&call->refuse_later, refuse, call);
	return call;
}

static struct provider_call *refuse_soon(
	struct provider_call *call, const struct provider_result *refusal)
{
	call->refusal = *refusal;
	loop_defer(call->ollama->loop, &call->refuse_later);
	return call;
}

static struct provider_call *ollama_buy(struct provider *provider,
	const struct provider_request *request,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	static const struct provider_result no_token_ids = {
		.outcome = PROVIDER_REFUSED,
		.status = 400,
		.retry_after_ms = -1,
		.detail = "Ollama takes texts, not token ids",
	};
	struct provider_call *call = call_new(provider, on_done, arg);
	if (!call)
		return NULL;
	struct ollama *ollama = call->ollama;
	call->model = strndup(request->model.data, request->model.len);
	if (!call->model)
		goto fail;
	if (request->trace)
		trace_format(&request->trace->trace, call->traceparent);
	for (size_t i = 0; i < request->n_inputs; i++)
		if (request->inputs[i].data[0] != '"')
			return refuse_soon(call, &no_token_ids);
	if (find_pull(ollama, call->model))
		return refuse_soon(call, &being_pulled);
	call->inner = ollama->inner->ops->buy(ollama->inner, request, on_inner_done, call);
	if (call->inner)
		return call;
fail:
	call_free(call);
	return NULL;
}

static struct provider_call *ollama_list_models(struct provider *provider, struct span query,
	const struct credential *credential, const struct trace_context *trace,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	struct provider_call *call = call_new(provider, on_done, arg);
	if (!call)
		return NULL;
	struct provider *inner = call->ollama->inner;
	call->inner = inner->ops->list_models(inner, query, credential, trace, on_inner_done, call);
	if (!call->inner) {
		call_free(call);
		return NULL;
	}
	return call;
}

static bool ollama_sent(const struct provider_call *call)
{
	return call->inner && call->ollama->inner->ops->sent(call->inner);
}

static void ollama_report(const struct provider *provider, struct provider_counts *counts,
	provider_on_service *on_service, void *arg)
{
	const struct ollama *ollama = (const struct ollama *)provider;
	ollama->inner->ops->report(ollama->inner, counts, on_service, arg);
	counts->pulls += ollama->pulls_ended;
	counts->pulls_failed += ollama->pulls_failed;
}

static void ollama_free(struct provider *provider)
{
	struct ollama *ollama = (struct ollama *)provider;
	for (size_t i = 0; i < OLLAMA_MAX_PULLS; i++) {
		http_call_cancel(&ollama->pulls[i].call);
		free(ollama->pulls[i].model);
	}
	for (size_t i = 0; i < MAX_FAILED; i++)
		free(ollama->failed[i].model);
	provider_free(&ollama->inner);
	free(ollama->pull_url);
	free(ollama);
}

struct provider *provider_ollama_new(struct loop *loop, struct http_client *http,
	struct workers *workers, const struct provider_ollama_options *options)
{
	struct ollama *ollama = calloc(1, sizeof *ollama);
	if (!ollama)
		return NULL;
	ollama->ops = (struct provider_ops){
		.name = dialect.name,
		.store_prefix = "",
		.buy = ollama_buy,
		.sent = ollama_sent,
		.cancel = call_free,
		.list_models = ollama_list_models,
		.report = ollama_report,
		.free = ollama_free,
	};
	ollama->provider.ops = &ollama->ops;
	ollama->loop = loop;
	ollama->http = http;
	ollama->may_pull = options->pull;
	ollama->pull_timeout_ms = options->pull_timeout_ms;
	if (asprintf(&ollama->pull_url, "%s/api/pull", options->http.urls) < 0)
		ollama->pull_url = NULL;
	else
		ollama->inner = provider_http_new(loop, http, workers, &dialect, &options->http);
	if (!ollama->inner) {
		ollama_free(&ollama->provider);
		return NULL;
	}
	return &ollama->provider;
}
