#include "gatewayd/provider_split.h"

#include <stdlib.h>

#include "common/log.h"
#include "gatewayd/query.h"
#include "gatewayd/usage.h"

#define MAX_PARALLEL 8
#define MAX_MODELS   64
/* The texts of a call must be this long to say something about others. */
#define MIN_BYTES_TO_LEARN 512
/* The next texts may have more tokens a byte than these. */
#define MARGIN 1.1
/* How much one answer lowers the ratio. */
#define LEARN 0.1
/* An error body is searched that far. */
#define MAX_ERROR_BYTES 4096

const struct provider_limits provider_limits_openai = {
	.max_inputs = PROVIDER_MAX_INPUTS, .max_tokens = 300000};

/* What is known of a model. */
struct learned {
	char *model;
	double tokens_a_byte;
	struct provider_limits limits;
};

struct split {
	struct provider provider; /* first */
	struct provider_ops ops;
	struct provider *inner;
	struct provider_limits limits;
	struct learned models[MAX_MODELS];
	size_t n_models, next_victim;
	uint64_t bisections;
};

/* Inputs from..to-1. */
struct range {
	size_t from, to;
};

struct part {
	struct provider_call *owner;
	struct provider_call *inner;
	struct range range;
	uint64_t guess; /* of its tokens */
};

struct provider_call {
	struct split *split;
	void (*on_done)(const struct provider_result *result, void *arg);
	void *arg;

	struct provider_request_copy copy;
	uint32_t *weights;

	struct range *waiting; /* a stack: halves come before what is behind them */
	size_t n_waiting;
	struct part parts[MAX_PARALLEL];
	size_t n_active;

	struct embedding *embeddings; /* of the parts so far */
	uint64_t *tokens;
	uint64_t total_tokens;
	bool has_some;
	struct buf served_model, tags;

	bool failed;
	struct provider_result failure;
	struct buf failure_text; /* what it points to */
};

/* ---- What a model taught ---- */

static struct learned *find_model(struct split *split, struct span model)
{
	for (size_t i = 0; i < split->n_models; i++)
		if (span_equal_str(model, split->models[i].model))
			return &split->models[i];
	return NULL;
}

/* NULL when out of memory: nothing is learned then. */
static struct learned *need_model(struct split *split, struct span model)
{
	struct learned *learned = find_model(split, model);
	if (learned)
		return learned;
	char *name = strndup(model.data, model.len);
	if (!name)
		return NULL;
	if (split->n_models < MAX_MODELS) {
		learned = &split->models[split->n_models++];
	} else {
		learned = &split->models[split->next_victim++ % MAX_MODELS];
		free(learned->model);
	}
	*learned = (struct learned){.model = name, .tokens_a_byte = 1, .limits = split->limits};
	return learned;
}

static uint64_t guess_tokens(const struct learned *learned, struct span input)
{
	uint64_t tokens;
	if (input.data[0] == '[') {
		tokens = 1;
		for (size_t i = 0; i < input.len; i++)
			tokens += input.data[i] == ',';
	} else {
		double ratio = learned ? learned->tokens_a_byte : 1;
		tokens = (uint64_t)((double)input.len * ratio);
	}
	return tokens ? tokens : 1;
}

static void learn_from_answer(struct provider_call *call, struct range range, uint64_t tokens)
{
	uint64_t bytes = 0;
	for (size_t i = range.from; i < range.to; i++) {
		if (call->copy.request.inputs[i].data[0] == '[')
			return;
		bytes += call->copy.request.inputs[i].len;
	}
	if (tokens == 0 || bytes < MIN_BYTES_TO_LEARN)
		return;
	struct learned *learned = need_model(call->split, call->copy.request.model);
	if (!learned)
		return;
	double seen = MARGIN * (double)tokens / (double)bytes;
	if (seen < learned->tokens_a_byte)
		seen = learned->tokens_a_byte * (1 - LEARN) + seen * LEARN;
	learned->tokens_a_byte = seen < 1 ? seen : 1;
}

static bool says(const char *text, const char *const *words)
{
	for (; *words; words++)
		if (strcasestr(text, *words))
			return true;
	return false;
}

/* "Too many inputs. The max number of inputs is 16.", "batch size 64 > maximum allowed 32". */
static const char *const words_for_count[] = {"too many inputs", "number of inputs",
	"array_above_max_length", "array too long", "batch size", "more than 2048 items", NULL};
static const char *const words_for_tokens[] = {"max_tokens_per_request", "tokens per request",
	"payload too large", "request too large", NULL};

static void error_text(const struct provider_result *result, char text[MAX_ERROR_BYTES])
{
	size_t len = result->body.len < MAX_ERROR_BYTES - 1 ? result->body.len
							    : MAX_ERROR_BYTES - 1;
	if (len)
		memcpy(text, result->body.data, len);
	text[len] = '\0';
}

bool provider_refused_for_size(const struct provider_result *result)
{
	if (result->outcome != PROVIDER_REFUSED)
		return false;
	if (result->status == 413)
		return true;
	if (result->status != 400 && result->status != 422)
		return false;
	char text[MAX_ERROR_BYTES];
	error_text(result, text);
	return says(text, words_for_count) || says(text, words_for_tokens);
}

static void learn_from_refusal(const struct part *part, const struct provider_result *result)
{
	struct provider_call *call = part->owner;
	struct learned *learned = need_model(call->split, call->copy.request.model);
	char text[MAX_ERROR_BYTES];
	if (!learned)
		return;
	error_text(result, text);
	size_t n = part->range.to - part->range.from;
	if (says(text, words_for_count)) {
		if (n / 2 < learned->limits.max_inputs)
			learned->limits.max_inputs = n / 2;
	} else if (learned->tokens_a_byte < 1) {
		learned->tokens_a_byte = 1;
	} else if (part->guess / 2 < learned->limits.max_tokens) {
		learned->limits.max_tokens = part->guess / 2;
	}
}

/* ---- One purchase ---- */

static void call_free(struct provider_call *call)
{
	for (size_t i = 0; i < MAX_PARALLEL; i++)
		if (call->parts[i].inner)
			call->split->inner->ops->cancel(call->parts[i].inner);
	for (size_t i = 0; call->embeddings && i < call->copy.request.n_inputs; i++)
		buf_free(&call->embeddings[i].text);
	free(call->embeddings);
	free(call->tokens);
	free(call->weights);
	free(call->waiting);
	provider_request_copy_free(&call->copy);
	buf_free(&call->served_model);
	buf_free(&call->tags);
	buf_free(&call->failure_text);
	free(call);
}

static void finish(struct provider_call *call)
{
	struct provider_result result = {
		.outcome = PROVIDER_OK, .status = 200, .retry_after_ms = -1};
	if (call->failed)
		result = call->failure;
	if (call->has_some) {
		result.embeddings = call->embeddings;
		result.n_embeddings = call->copy.request.n_inputs;
		result.total_tokens = call->total_tokens;
		result.model = (struct span){
			(char *)call->served_model.data, call->served_model.len};
		result.surrogate_key = (struct span){(char *)call->tags.data, call->tags.len};
	}
	call->on_done(&result, call->arg);
	call_free(call);
}

static struct span keep_text(struct buf *text, struct span span)
{
	/* Offsets would survive a move of the buffer; reserved at once, it does not move. */
	struct span kept = {(char *)text->data + text->len, span.len};
	buf_append(text, span.data, span.len);
	buf_append_char(text, '\0');
	return kept;
}

static void fail(struct provider_call *call, const struct provider_result *result)
{
	if (call->failed)
		return;
	call->failed = true;
	call->n_waiting = 0;
	call->failure = (struct provider_result){
		.outcome = result->outcome,
		.status = result->status,
		.retry_after_ms = result->retry_after_ms,
	};
	struct span detail = span_of(result->detail ? result->detail : "");
	struct buf *text = &call->failure_text;
	if (buf_reserve(text, result->body.len + result->content_type.len + detail.len + 3)) {
		if (result->body.len)
			call->failure.body = keep_text(text, result->body);
		if (result->content_type.len)
			call->failure.content_type = keep_text(text, result->content_type);
		call->failure.detail = keep_text(text, detail).data;
	}
	const struct provider_ops *inner = call->split->inner->ops;
	for (size_t i = 0; i < MAX_PARALLEL; i++) {
		struct part *part = &call->parts[i];
		if (!part->inner || inner->sent(part->inner))
			continue;
		inner->cancel(part->inner);
		part->inner = NULL;
		call->n_active--;
	}
}

static void fail_for_memory(struct provider_call *call)
{
	struct provider_result result = {
		.outcome = PROVIDER_UNREACHABLE,
		.status = 503,
		.retry_after_ms = 1000,
		.detail = "the gateway is out of memory",
	};
	fail(call, &result);
}

/* The parts are answers to one request: their vectors must be of one length. */
static bool has_length_of_others(
	const struct provider_call *call, const struct provider_result *result)
{
	for (size_t i = 0; i < call->copy.request.n_inputs; i++)
		if (call->embeddings[i].dims)
			return call->embeddings[i].dims == result->embeddings[0].dims;
	return true;
}

static void fail_for_lengths(struct provider_call *call)
{
	struct provider_result result = {
		.outcome = PROVIDER_BROKEN,
		.status = 502,
		.retry_after_ms = -1,
		.detail = "the embeddings have different lengths",
	};
	fail(call, &result);
}

/* Vectors of a part, with what each of them cost. */
static int take_part(
	struct provider_call *call, struct range range, const struct provider_result *result)
{
	size_t n = range.to - range.from;
	if (usage_share(result->total_tokens, call->weights + range.from, n,
		    call->tokens + range.from) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		struct embedding *from = &result->embeddings[i];
		struct embedding *to = &call->embeddings[range.from + i];
		/* Taken, not copied: 2,048 copies are 40 ms in one go. */
		*to = *from;
		from->text = (struct buf){0};
		if (!to->tokens)
			to->tokens = call->tokens[range.from + i];
	}
	call->total_tokens += result->total_tokens;
	if (!call->has_some)
		buf_append(&call->served_model, result->model.data, result->model.len);
	if (result->surrogate_key.len) {
		buf_append_char(&call->tags, ' ');
		buf_append(&call->tags, result->surrogate_key.data, result->surrogate_key.len);
	}
	call->has_some = true;
	return buf_failed(&call->tags) ? -1 : 0;
}

/* What of this range goes in one call. */
static size_t fill(const struct provider_call *call, struct range range, uint64_t *guess)
{
	const struct learned *learned = find_model(call->split, call->copy.request.model);
	const struct provider_limits *limits = learned ? &learned->limits : &call->split->limits;
	size_t to = range.from;
	*guess = 0;
	while (to < range.to && to - range.from < limits->max_inputs) {
		uint64_t tokens = guess_tokens(learned, call->copy.request.inputs[to]);
		if (to > range.from && *guess + tokens > limits->max_tokens)
			break;
		*guess += tokens;
		to++;
	}
	return to > range.from ? to : range.from + 1;
}

static void on_part_done(const struct provider_result *result, void *arg);

static int start_part(struct provider_call *call, struct part *part)
{
	struct range range = call->waiting[--call->n_waiting];
	size_t to = fill(call, range, &part->guess);
	if (to < range.to)
		call->waiting[call->n_waiting++] = (struct range){to, range.to};
	part->owner = call;
	part->range = (struct range){range.from, to};
	struct provider_request request = call->copy.request;
	request.inputs = call->copy.request.inputs + range.from;
	request.n_inputs = to - range.from;
	struct provider *inner = call->split->inner;
	part->inner = inner->ops->buy(inner, &request, on_part_done, part);
	if (!part->inner)
		return -1;
	call->n_active++;
	return 0;
}

static void start_parts(struct provider_call *call)
{
	for (size_t i = 0; i < MAX_PARALLEL && call->n_waiting; i++)
		if (!call->parts[i].inner && start_part(call, &call->parts[i]) < 0)
			fail_for_memory(call);
}

static void on_part_done(const struct provider_result *result, void *arg)
{
	struct part *part = arg;
	struct provider_call *call = part->owner;
	struct range range = part->range;
	size_t n = range.to - range.from;
	part->inner = NULL;
	call->n_active--;
	if (result->outcome == PROVIDER_OK) {
		learn_from_answer(call, range, result->total_tokens);
		if (n ==
			call->copy.request.n_inputs) { /* the usual case: nothing to put together */
			call->on_done(result, call->arg);
			call_free(call);
			return;
		}
		if (!has_length_of_others(call, result))
			fail_for_lengths(call);
		else if (take_part(call, range, result) < 0)
			fail_for_memory(call);
	} else if (n > 1 && !call->failed && provider_refused_for_size(result)) {
		const struct trace_context *context = call->copy.request.trace;
		log_fields(LOG_LEVEL_INFO, TRACE_TEXT(context ? &context->trace : NULL),
			"provider: refused for their size; they are bought in halves",
			LOG_INT("inputs", n));
		call->split->bisections++;
		learn_from_refusal(part, result);
		size_t middle = range.from + n / 2;
		call->waiting[call->n_waiting++] = (struct range){middle, range.to};
		call->waiting[call->n_waiting++] = (struct range){range.from, middle};
	} else {
		fail(call, result);
	}
	start_parts(call);
	if (call->n_active == 0)
		finish(call);
}

/* ---- The interface ---- */

static struct provider_call *split_buy(struct provider *provider,
	const struct provider_request *request,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	size_t n = request->n_inputs;
	struct provider_call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->split = (struct split *)provider;
	call->on_done = on_done;
	call->arg = arg;
	buf_init(&call->served_model, QUERY_MAX_MODEL_BYTES);
	buf_init(&call->tags, SIZE_MAX / 2);
	buf_init(&call->failure_text, SIZE_MAX / 2);
	call->weights = calloc(n, sizeof *call->weights);
	call->waiting = calloc(n + 1, sizeof *call->waiting);
	call->embeddings = calloc(n, sizeof *call->embeddings);
	call->tokens = calloc(n, sizeof *call->tokens);
	if (!call->weights || !call->waiting || !call->embeddings || !call->tokens ||
		provider_request_copy(&call->copy, request) < 0)
		goto fail;
	for (size_t i = 0; i < n; i++)
		call->weights[i] = (uint32_t)request->inputs[i].len;
	call->waiting[call->n_waiting++] = (struct range){0, n};
	start_parts(call);
	if (call->n_active > 0)
		return call;
fail:
	call_free(call);
	return NULL;
}

static bool split_sent(const struct provider_call *call)
{
	if (call->has_some)
		return true;
	for (size_t i = 0; i < MAX_PARALLEL; i++)
		if (call->parts[i].inner && call->split->inner->ops->sent(call->parts[i].inner))
			return true;
	return false;
}

/* A list of models is not split, but its handle is ours like any other. */
static void on_list_done(const struct provider_result *result, void *arg)
{
	struct provider_call *call = arg;
	call->parts[0].inner = NULL;
	call->on_done(result, call->arg);
	call_free(call);
}

static struct provider_call *split_list_models(struct provider *provider, struct span query,
	const struct credential *credential, const struct trace_context *trace,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	struct split *split = (struct split *)provider;
	struct provider_call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->split = split;
	call->on_done = on_done;
	call->arg = arg;
	call->parts[0].inner = split->inner->ops->list_models(
		split->inner, query, credential, trace, on_list_done, call);
	if (!call->parts[0].inner) {
		call_free(call);
		return NULL;
	}
	return call;
}

static void split_report(const struct provider *provider, struct provider_counts *counts,
	provider_on_service *on_service, void *arg)
{
	const struct split *split = (const struct split *)provider;
	counts->bisections += split->bisections;
	if (split->inner->ops->report)
		split->inner->ops->report(split->inner, counts, on_service, arg);
}

static void split_free(struct provider *provider)
{
	struct split *split = (struct split *)provider;
	for (size_t i = 0; i < split->n_models; i++)
		free(split->models[i].model);
	provider_free(&split->inner);
	free(split);
}

struct provider *provider_split_new(struct provider *inner, const struct provider_limits *limits)
{
	struct split *split = calloc(1, sizeof *split);
	if (!split)
		return NULL;
	split->ops = (struct provider_ops){
		.name = inner->ops->name,
		.store_prefix = inner->ops->store_prefix,
		.buy = split_buy,
		.sent = split_sent,
		.cancel = call_free,
		.list_models = inner->ops->list_models ? split_list_models : NULL,
		.report = split_report,
		.free = split_free,
	};
	split->provider.ops = &split->ops;
	split->inner = inner;
	split->limits = *limits;
	return &split->provider;
}
