#include "gatewayd/provider_hybrid.h"

#include <stdlib.h>

#include "common/json.h"
#include "common/log.h"

#define MAX_NAMES 256

/* "name" or "name=elsewhere". */
struct name {
	char *name;
	char *elsewhere; /* within name's memory; the name itself without = */
};

struct names {
	size_t n;
	struct name list[MAX_NAMES];
};

struct hybrid {
	struct provider provider; /* first */
	struct provider *first, *second;
	struct names of_second, equivalent;
};

struct provider_call {
	struct hybrid *hybrid;
	struct provider *from;
	struct provider_call *inner;
	const struct name *equivalent; /* NULL: there is no other, or it was asked already */
	struct provider_request_copy copy;
	void (*on_done)(const struct provider_result *result, void *arg);
	void *arg;
};

/* ---- Settings ---- */

static void names_free(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->list[i].name);
	names->n = 0;
}

static const struct name *names_find(const struct names *names, struct span name)
{
	for (size_t i = 0; i < names->n; i++)
		if (span_equal_str(name, names->list[i].name))
			return &names->list[i];
	return NULL;
}

static const char *names_parse(const char *text, bool may_map, struct names *names)
{
	const char *between = ", \t\n";
	names->n = 0;
	for (const char *at = text + strspn(text, between); *at;) {
		size_t len = strcspn(at, between);
		if (names->n == MAX_NAMES)
			return "there are more than 256 models";
		struct name *name = &names->list[names->n];
		name->name = strndup(at, len);
		if (!name->name)
			return "out of memory";
		names->n++;
		name->elsewhere = name->name;
		char *equals = strchr(name->name, '=');
		if (equals) {
			*equals = '\0';
			name->elsewhere = equals + 1;
		}
		if (equals && (!may_map || equals == name->name || !equals[1]))
			return "a model is not NAME or NAME=NAME";
		at += len;
		at += strspn(at, between);
	}
	return NULL;
}

static const char *parse(const struct provider_hybrid_options *options, struct hybrid *hybrid)
{
	const char *wrong = names_parse(options->second_models, false, &hybrid->of_second);
	return wrong ? wrong : names_parse(options->equivalent, true, &hybrid->equivalent);
}

const char *provider_hybrid_check(const struct provider_hybrid_options *options)
{
	struct hybrid *hybrid = calloc(1, sizeof *hybrid);
	if (!hybrid)
		return "out of memory";
	const char *wrong = parse(options, hybrid);
	names_free(&hybrid->of_second);
	names_free(&hybrid->equivalent);
	free(hybrid);
	return wrong;
}

/* ---- One purchase ---- */

static void call_free(struct provider_call *call)
{
	if (call->inner)
		call->from->ops->cancel(call->inner);
	provider_request_copy_free(&call->copy);
	free(call);
}

static void finish(struct provider_call *call, const struct provider_result *result)
{
	call->on_done(result, call->arg);
	call_free(call);
}

static bool provider_failed(const struct provider_result *result)
{
	return result->outcome != PROVIDER_OK &&
	       (result->outcome != PROVIDER_REFUSED || result->status >= 500);
}

static void on_done(const struct provider_result *result, void *arg);

/* -1: the failure stands. What a failed split bought already would be lost, so that one stands. */
static int ask_other(struct provider_call *call, const struct provider_result *result)
{
	struct hybrid *hybrid = call->hybrid;
	const struct name *equivalent = call->equivalent;
	if (!equivalent || !provider_failed(result) || result->embeddings)
		return -1;
	struct buf model_json = BUF_INIT(1 << 16);
	struct provider_request request = call->copy.request;
	request.model = span_of(equivalent->elsewhere);
	if (json_append_string(&model_json, request.model) < 0) {
		buf_free(&model_json);
		return -1;
	}
	request.model_json = (struct span){(char *)model_json.data, model_json.len};
	call->equivalent = NULL;
	call->from = call->from == hybrid->first ? hybrid->second : hybrid->first;
	log_fields(LOG_LEVEL_INFO, TRACE_TEXT(request.trace ? &request.trace->trace : NULL),
		"provider: a model of the other one, which failed, is served",
		LOG_STR("by", call->from->ops->name));
	call->inner = call->from->ops->buy(call->from, &request, on_done, call);
	buf_free(&model_json);
	return call->inner ? 0 : -1;
}

static void on_done(const struct provider_result *result, void *arg)
{
	struct provider_call *call = arg;
	call->inner = NULL;
	if (ask_other(call, result) < 0)
		finish(call, result);
}

static struct provider_call *hybrid_buy(struct provider *provider,
	const struct provider_request *request,
	void (*done)(const struct provider_result *result, void *arg), void *arg)
{
	struct hybrid *hybrid = (struct hybrid *)provider;
	struct provider_call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->hybrid = hybrid;
	call->on_done = done;
	call->arg = arg;
	call->from = names_find(&hybrid->of_second, request->model) ? hybrid->second
								    : hybrid->first;
	call->equivalent = names_find(&hybrid->equivalent, request->model);
	if (call->equivalent && provider_request_copy(&call->copy, request) < 0)
		goto fail;
	call->inner = call->from->ops->buy(call->from, request, on_done, call);
	if (call->inner)
		return call;
fail:
	call_free(call);
	return NULL;
}

/* The first one's: what is pinned to the second is the operator's to tell. */
static struct provider_call *hybrid_list_models(struct provider *provider, struct span query,
	const struct credential *credential, const struct trace_context *trace,
	void (*done)(const struct provider_result *result, void *arg), void *arg)
{
	struct hybrid *hybrid = (struct hybrid *)provider;
	struct provider_call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->hybrid = hybrid;
	call->on_done = done;
	call->arg = arg;
	call->from = hybrid->first;
	call->inner = call->from->ops->list_models(
		call->from, query, credential, trace, on_done, call);
	if (!call->inner) {
		call_free(call);
		return NULL;
	}
	return call;
}

static bool hybrid_sent(const struct provider_call *call)
{
	return call->inner && call->from->ops->sent(call->inner);
}

static void hybrid_report(const struct provider *provider, struct provider_counts *counts,
	provider_on_service *on_service, void *arg)
{
	const struct hybrid *hybrid = (const struct hybrid *)provider;
	hybrid->first->ops->report(hybrid->first, counts, on_service, arg);
	hybrid->second->ops->report(hybrid->second, counts, on_service, arg);
}

static void hybrid_free(struct provider *provider)
{
	struct hybrid *hybrid = (struct hybrid *)provider;
	provider_free(&hybrid->first);
	provider_free(&hybrid->second);
	names_free(&hybrid->of_second);
	names_free(&hybrid->equivalent);
	free(hybrid);
}

static const struct provider_ops hybrid_ops = {
	.name = "hybrid",
	.store_prefix = "",
	.buy = hybrid_buy,
	.sent = hybrid_sent,
	.cancel = call_free,
	.list_models = hybrid_list_models,
	.report = hybrid_report,
	.free = hybrid_free,
};

struct provider *provider_hybrid_new(struct provider *first, struct provider *second,
	const struct provider_hybrid_options *options)
{
	struct hybrid *hybrid = calloc(1, sizeof *hybrid);
	if (!hybrid)
		return NULL;
	hybrid->provider.ops = &hybrid_ops;
	if (parse(options, hybrid)) {
		hybrid_free(&hybrid->provider);
		return NULL;
	}
	hybrid->first = first;
	hybrid->second = second;
	return &hybrid->provider;
}
