#include "gatewayd/provider_openai.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/http_client.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/trace.h"
#include "common/workers.h"
#include "gatewayd/provider_answer.h"

/* An answer larger than this is taken apart on a worker. */
#define PARSE_INLINE_BYTES (64u << 10)
/* What one embedding may take in an answer: 16,384 numbers as text, and some more. */
#define ANSWER_BYTES_AN_INPUT (512u << 10)
#define ANSWER_BYTES_MAX      (512u << 20)
#define BACKOFF_BASE_MS       200
#define BACKOFF_MAX_MS        8000
#define RETRY_AFTER_MAX_MS    3600000

struct openai {
	struct provider provider; /* first */
	struct loop *loop;
	struct http_client *http;
	struct workers *workers;
	struct provider_openai_options options;
	char *url;
	struct breaker breaker;
	struct provider_openai_counters counters;
};

/*
 * One purchase.
 *
 *   WAITING ──> CALLING ──> PARSING ──> (done)
 *      ^           │ worth another try
 *      └───────────┘
 */
enum call_state {
	CALL_WAITING, /* for its turn: the first one, or after a failure */
	CALL_CALLING,
	CALL_PARSING, /* on a worker */
};

struct provider_call {
	struct job job; /* first: the worker gives it back */
	struct openai *openai;
	enum call_state state;
	bool cancelled;
	bool sent;
	void (*on_done)(const struct provider_result *result, void *arg);
	void *arg;

	char *body;
	size_t body_len;
	size_t n_inputs;
	char *headers[6]; /* "Name: value", ends with NULL */
	struct timer *timer;
	struct http_call *http;
	struct backoff backoff;
	unsigned tries;
	uint64_t deadline_us;

	struct buf answer;
	struct provider_answer parsed;
	int parse_error;
};

static void call_free(struct provider_call *call)
{
	http_call_cancel(&call->http);
	timer_free(&call->timer);
	for (size_t i = 0; call->headers[i]; i++)
		free(call->headers[i]);
	free(call->body);
	buf_free(&call->answer);
	provider_answer_free(&call->parsed);
	free(call);
}

static void finish(struct provider_call *call, const struct provider_result *result)
{
	call->on_done(result, call->arg);
	call_free(call);
}

static void finish_failed(struct provider_call *call, enum provider_outcome outcome, int status,
	int64_t retry_after_ms, const char *detail)
{
	struct provider_result result = {
		.outcome = outcome,
		.status = status,
		.retry_after_ms = retry_after_ms,
		.detail = detail,
	};
	finish(call, &result);
}

/* ---- Answers ---- */

static void parse(struct job *job)
{
	struct provider_call *call = (struct provider_call *)job;
	struct span body = {(char *)call->answer.data, call->answer.len};
	call->parse_error = provider_answer_parse(body, call->n_inputs, &call->parsed);
}

static void parsed(struct job *job)
{
	struct provider_call *call = (struct provider_call *)job;
	struct openai *openai = call->openai;
	if (call->cancelled) {
		call_free(call);
		return;
	}
	if (call->parse_error < 0) {
		breaker_failure(&openai->breaker, loop_now_us(openai->loop));
		log_warn("provider: broken answer: %s", call->parsed.reason);
		finish_failed(call, PROVIDER_BROKEN, 502, -1, call->parsed.reason);
		return;
	}
	breaker_success(&openai->breaker);
	struct provider_result result = {
		.outcome = PROVIDER_OK,
		.embeddings = call->parsed.embeddings,
		.n_embeddings = call->n_inputs,
		.model = {(char *)call->parsed.model.data, call->parsed.model.len},
		.total_tokens = call->parsed.total_tokens,
		.retry_after_ms = -1,
	};
	finish(call, &result);
}

static void parse_answer(struct provider_call *call, struct buf *body)
{
	size_t len = 0;
	size_t max = body->max_len;
	uint8_t *data = buf_take(body, &len);
	call->answer = (struct buf){.data = data, .len = len, .capacity = len, .max_len = max};
	call->state = CALL_PARSING;
	call->job.work = parse;
	call->job.done = parsed;
	if (len > PARSE_INLINE_BYTES && workers_submit(call->openai->workers, &call->job) == 0)
		return;
	parse(&call->job);
	parsed(&call->job);
}

/* ---- Attempts ---- */

static bool worth_retrying(const struct http_call_result *result)
{
	switch (result->outcome) {
	case HTTP_CALL_CONNECT:
	case HTTP_CALL_RESET:
	case HTTP_CALL_TIMEOUT:
		return true;
	case HTTP_CALL_OK:
		return result->status == 408 || result->status == 409 || result->status == 429 ||
		       result->status >= 500;
	default:
		return false;
	}
}

/* Tell the breaker what this attempt says of the provider; a 200 counts once it is understood. */
static void tell_breaker(struct openai *openai, const struct http_call_result *result)
{
	uint64_t now_us = loop_now_us(openai->loop);
	switch (result->outcome) {
	case HTTP_CALL_OK:
		if (result->status >= 500)
			breaker_failure(&openai->breaker, now_us);
		else if (result->status != 200)
			breaker_success(&openai->breaker);
		break;
	case HTTP_CALL_BUSY:
		breaker_neutral(&openai->breaker);
		break;
	default:
		breaker_failure(&openai->breaker, now_us);
		break;
	}
}

/* False when there is no time or no try left. */
static bool try_again(struct provider_call *call, int64_t retry_after_ms)
{
	struct openai *openai = call->openai;
	if (call->tries > openai->options.max_retries)
		return false;
	uint64_t wait_ms = backoff_next_ms(&call->backoff);
	if (retry_after_ms > (int64_t)wait_ms)
		wait_ms = (uint64_t)retry_after_ms;
	if (loop_now_us(openai->loop) + wait_ms * 1000 >= call->deadline_us)
		return false;
	call->state = CALL_WAITING;
	openai->counters.retries++;
	timer_arm(call->timer, wait_ms);
	return true;
}

static void give_up(struct provider_call *call, const struct http_call_result *result,
	int64_t retry_after_ms, struct span content_type)
{
	switch (result->outcome) {
	case HTTP_CALL_OK: {
		struct provider_result refusal = {
			.outcome = PROVIDER_REFUSED,
			.status = result->status,
			.body = {(char *)result->body->data, result->body->len},
			.content_type = content_type,
			.retry_after_ms = retry_after_ms,
			.detail = "the provider refused the request",
		};
		/* A redirect or another 2xx or 3xx is nothing a caller can use. */
		if (result->status < 400) {
			refusal.outcome = PROVIDER_BROKEN;
			refusal.status = 502;
			refusal.body = (struct span){0};
			refusal.detail = "the provider answered with an unexpected status";
		}
		finish(call, &refusal);
		return;
	}
	case HTTP_CALL_TIMEOUT:
		finish_failed(
			call, PROVIDER_TIMEOUT, 504, -1, "the provider did not answer in time");
		return;
	case HTTP_CALL_CONNECT:
		finish_failed(
			call, PROVIDER_UNREACHABLE, 503, 1000, "the provider cannot be reached");
		return;
	case HTTP_CALL_RESET:
		finish_failed(call, PROVIDER_UNREACHABLE, 503, 1000,
			"the provider closed the connection");
		return;
	case HTTP_CALL_BUSY:
		finish_failed(call, PROVIDER_UNREACHABLE, 503, 1000,
			"too many calls to the provider are under way");
		return;
	default:
		finish_failed(call, PROVIDER_BROKEN, 502, -1,
			"the provider's answer is not valid HTTP or too large");
		return;
	}
}

static void on_http_done(struct http_call *http, const struct http_call_result *result, void *arg)
{
	struct provider_call *call = arg;
	struct openai *openai = call->openai;
	if (http_call_sent(http))
		call->sent = true;
	tell_breaker(openai, result);

	int64_t retry_after_ms = -1;
	struct span content_type = http_call_header(http, "content-type");
	struct span value = http_call_header(http, "retry-after");
	char text[64];
	if (value.data && value.len < sizeof text) {
		memcpy(text, value.data, value.len);
		text[value.len] = '\0';
		retry_after_ms = retry_after_parse_ms(
			text, loop_wall_ms(openai->loop), RETRY_AFTER_MAX_MS);
	}
	call->http = NULL;

	if (result->outcome == HTTP_CALL_OK && result->status == 200) {
		parse_answer(call, result->body);
		return;
	}
	if (result->outcome == HTTP_CALL_OK)
		log_info("provider: status %d after %.1f ms, try %u", result->status,
			(double)result->duration_us / 1000, call->tries);
	else
		log_warn("provider: %s, try %u", result->detail ? result->detail : "call failed",
			call->tries);
	if (worth_retrying(result) && try_again(call, retry_after_ms))
		return;
	give_up(call, result, retry_after_ms, content_type);
}

static void attempt(void *arg)
{
	struct provider_call *call = arg;
	struct openai *openai = call->openai;
	uint64_t now_us = loop_now_us(openai->loop);
	if (now_us >= call->deadline_us) {
		finish_failed(
			call, PROVIDER_TIMEOUT, 504, -1, "the provider did not answer in time");
		return;
	}
	if (!breaker_allow(&openai->breaker, now_us)) {
		openai->counters.refused_by_breaker++;
		uint64_t wait_ms = breaker_wait_ms(&openai->breaker, now_us);
		finish_failed(call, PROVIDER_UNREACHABLE, 503, wait_ms ? (int64_t)wait_ms : 1000,
			"the provider failed repeatedly and is left alone for a while");
		return;
	}
	size_t max_answer = (call->n_inputs + 2) * ANSWER_BYTES_AN_INPUT;
	struct http_call_options options = {
		.method = "POST",
		.url = openai->url,
		.headers = (const char *const *)call->headers,
		.body = {.data = call->body, .len_bytes = call->body_len},
		.connect_timeout_ms = openai->options.connect_timeout_ms,
		.timeout_ms = (uint32_t)((call->deadline_us - now_us) / 1000 + 1),
		.max_response_bytes = max_answer < ANSWER_BYTES_MAX ? max_answer : ANSWER_BYTES_MAX,
	};
	call->state = CALL_CALLING;
	call->tries++;
	openai->counters.attempts++;
	call->http = http_client_call(openai->http, &options, on_http_done, call);
	if (!call->http) {
		breaker_neutral(&openai->breaker);
		finish_failed(call, PROVIDER_UNREACHABLE, 503, 1000, "out of memory");
	}
}

/* ---- The interface ---- */

static int write_body(struct provider_call *call, const struct provider_request *request)
{
	struct buf body = BUF_INIT(SIZE_MAX / 2);
	const char *format = call->openai->options.ask_float ? "float" : "base64";
	if (provider_request_write(request, format, &body) < 0) {
		buf_free(&body);
		return -1;
	}
	call->body = buf_take(&body, &call->body_len);
	return 0;
}

static int add_header(struct provider_call *call, size_t *n, const char *name, const char *value)
{
	if (!value || !*value)
		return 0;
	if (asprintf(&call->headers[*n], "%s: %s", name, value) < 0) {
		call->headers[*n] = NULL;
		return -1;
	}
	++*n;
	return 0;
}

static int write_headers(struct provider_call *call, const struct provider_request *request)
{
	size_t n = 0;
	const struct credential *credential = request->credential;
	if (add_header(call, &n, "Content-Type", "application/json") < 0 ||
		add_header(call, &n, "Authorization", credential->authorization) < 0 ||
		add_header(call, &n, "OpenAI-Organization", credential->organization) < 0 ||
		add_header(call, &n, "OpenAI-Project", credential->project) < 0 ||
		add_header(call, &n, "Traceparent", request->traceparent) < 0)
		return -1;
	return 0;
}

static struct provider_call *openai_buy(struct provider *provider,
	const struct provider_request *request,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	struct openai *openai = (struct openai *)provider;
	struct provider_call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->openai = openai;
	call->on_done = on_done;
	call->arg = arg;
	call->n_inputs = request->n_inputs;
	call->deadline_us = loop_now_us(openai->loop) + (uint64_t)openai->options.timeout_ms * 1000;
	backoff_init(&call->backoff, BACKOFF_BASE_MS, BACKOFF_MAX_MS, 2);
	call->timer = timer_new(openai->loop, attempt, call);
	if (!call->timer || write_body(call, request) < 0 || write_headers(call, request) < 0) {
		call_free(call);
		return NULL;
	}
	call->state = CALL_WAITING;
	timer_arm(call->timer, 0);
	return call;
}

static bool openai_sent(const struct provider_call *call)
{
	return call->sent || call->state == CALL_PARSING ||
	       (call->http && http_call_sent(call->http));
}

static void openai_cancel(struct provider_call *call)
{
	if (call->state == CALL_PARSING) {
		call->cancelled = true;
		return;
	}
	if (call->state == CALL_CALLING)
		breaker_neutral(&call->openai->breaker);
	call_free(call);
}

static void openai_free(struct provider *provider)
{
	struct openai *openai = (struct openai *)provider;
	free(openai->url);
	free(openai);
}

static const struct provider_ops openai_ops = {
	.name = "openai",
	.store_prefix = "",
	.buy = openai_buy,
	.sent = openai_sent,
	.cancel = openai_cancel,
	.free = openai_free,
};

struct provider *provider_openai_new(struct loop *loop, struct http_client *http,
	struct workers *workers, const struct provider_openai_options *options)
{
	struct openai *openai = calloc(1, sizeof *openai);
	if (!openai)
		return NULL;
	openai->provider.ops = &openai_ops;
	openai->loop = loop;
	openai->http = http;
	openai->workers = workers;
	openai->options = *options;
	breaker_init(&openai->breaker, options->breaker_threshold, options->breaker_open_ms);
	if (asprintf(&openai->url, "%s/embeddings", options->base_url) < 0) {
		free(openai);
		return NULL;
	}
	return &openai->provider;
}

enum breaker_state provider_openai_breaker(const struct provider *provider)
{
	return ((const struct openai *)provider)->breaker.state;
}

const struct provider_openai_counters *provider_openai_counters(const struct provider *provider)
{
	return &((const struct openai *)provider)->counters;
}
