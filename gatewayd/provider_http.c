#include "gatewayd/provider_body.h"
#include "gatewayd/provider_http.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/http_client.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/reclaim.h"
#include "common/workers.h"
#include "gatewayd/credential.h"
#include "gatewayd/provider_attempt.h"
#include "gatewayd/provider_fields.h"
#include "gatewayd/provider_headers.h"
#include "gatewayd/provider_targets.h"

/* An answer larger than this is taken apart on a worker. */
#define PARSE_INLINE_BYTES (64u << 10)
/* What one embedding may take in an answer: 16,384 numbers as text, and some more. */
#define ANSWER_BYTES_AN_INPUT (512u << 10)
#define ANSWER_BYTES_MAX      (512u << 20)
/* The vectors of so few are left in the answer: base64 is what they become again in a moment. */
#define FEW_INPUTS      8
#define BACKOFF_BASE_MS 200
#define BACKOFF_MAX_MS  8000
/*
 * A credential that has to wait longer than this is told so at once: callers with another one may
 * be waiting for the same texts, and one of them pays instead.
 */
#define PAUSE_PATIENCE_MS 2000

/* A caller over its limit is told so by the provider until it paused; then by us, in its words. */
#define PAUSED_BODY                                                                                  \
	"{\"error\":{\"message\":\"The provider asked this credential to wait; see "                 \
	"Retry-After.\",\"type\":\"rate_limit_error\",\"param\":null,\"code\":\"rate_limit_exceeded" \
	"\"}}\n"

/* Of a list's address; who asks keeps below it. */
#define MAX_QUERY_BYTES 2048

struct http_provider {
	struct provider provider; /* first */
	struct provider_ops ops;
	const struct provider_dialect *dialect;
	struct loop *loop;
	struct http_client *http;
	struct workers *workers;
	struct provider_http_options options;
	struct provider_targets targets;
	uint64_t attempts, retries, refused_by_breaker, refused_by_pause;
};

enum call_state {
	CALL_WRITING, /* its body, on a worker */
	CALL_WAITING, /* for its turn: the first one, or after a failure */
	CALL_CALLING,
	CALL_PARSING, /* on a worker */
};

struct provider_call {
	struct job job; /* first: the worker gives it back */
	struct http_provider *maker;
	enum call_state state;
	bool cancelled;
	bool sent;
	void (*on_done)(const struct provider_result *result, void *arg);
	void *arg;

	const char *path;
	struct provider_body body;
	size_t n_inputs; /* 0: a GET */
	char *model;     /* NULL: a list */
	char *query;     /* of a list; NULL: none */
	struct provider_headers headers;
	struct trace_context trace; /* of the purchase */
	struct trace_span *span;    /* of the attempt */
	struct digest credential;
	struct timer *timer;
	struct deferred begin; /* the first round: a timer would wait for the next turn */
	struct http_call *http;
	struct provider_target *target; /* of the call under way */
	uint32_t tried;                 /* targets, since the last wait */
	struct backoff backoff;
	unsigned tries, rounds;
	uint64_t deadline_us;
	uint64_t http_us; /* of the last attempt */

	struct buf tags; /* of the answer */
	struct buf answer;
	struct provider_vectors vectors; /* of the answer under way */
	struct provider_answer parsed;
	int parse_error;
};

static void call_free(struct provider_call *call)
{
	http_call_cancel(&call->http);
	trace_span_fail(call->span, "cancelled", NULL);
	trace_span_end(&call->span);
	timer_free(&call->timer);
	loop_defer_cancel(call->maker->loop, &call->begin);
	provider_headers_free(&call->headers);
	provider_body_free(&call->body);
	free(call->model);
	free(call->query);
	buf_free(&call->tags);
	reclaim_buf(call->maker->loop, &call->answer);
	provider_answer_free(&call->parsed);
	provider_vectors_free(&call->vectors);
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

static void report(const struct provider_call *call, const char *status, uint64_t tokens)
{
	struct provider_attempt attempt = {
		.provider = call->maker->dialect->name,
		.service = call->target->service,
		.model = span_of(call->model),
		.status = status,
		.duration_us = call->http_us,
		.tokens = tokens,
	};
	provider_attempt_report(&call->maker->options.watch, &attempt);
}

static void parse(struct job *job)
{
	struct provider_call *call = (struct provider_call *)job;
	call->parse_error = call->maker->dialect->take(
		&call->answer, &call->vectors, call->n_inputs, &call->parsed);
}

static bool fail_over(struct provider_call *call);

static void parsed(struct job *job)
{
	struct provider_call *call = (struct provider_call *)job;
	struct http_provider *maker = call->maker;
	if (call->parse_error < 0)
		breaker_failure(&call->target->breaker, loop_now_us(maker->loop));
	else
		breaker_success(&call->target->breaker);
	report(call, call->parse_error < 0 ? "broken" : "200", call->parsed.total_tokens);
	if (call->cancelled) {
		call_free(call);
		return;
	}
	if (call->parse_error < 0) {
		log_fields(LOG_LEVEL_WARN, TRACE_TEXT(&call->trace.trace),
			"provider: broken answer", LOG_STR("reason", call->parsed.reason),
			LOG_STR("service", call->target->service));
		const char *reason = call->parsed.reason;
		provider_answer_free(&call->parsed);
		if (!fail_over(call))
			finish_failed(call, PROVIDER_BROKEN, 502, -1, reason);
		return;
	}
	struct provider_result result = {
		.outcome = PROVIDER_OK,
		.status = 200,
		.embeddings = call->parsed.embeddings,
		.n_embeddings = call->n_inputs,
		.model = {(char *)call->parsed.model.data, call->parsed.model.len},
		.surrogate_key = {(const char *)call->tags.data, call->tags.len},
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
	if (len > PARSE_INLINE_BYTES && workers_submit(call->maker->workers, &call->job) == 0)
		return;
	parse(&call->job);
	parsed(&call->job);
}

/* ---- Attempts ---- */

/* Tell the breaker what this attempt says of the provider; a 200 counts once it is understood. */
static void tell_breaker(struct provider_call *call, const struct http_call_result *result)
{
	struct breaker *breaker = &call->target->breaker;
	uint64_t now_us = loop_now_us(call->maker->loop);
	switch (result->outcome) {
	case HTTP_CALL_OK:
		if (result->status >= 500)
			breaker_failure(breaker, now_us);
		else if (result->status != 200 || !call->n_inputs)
			breaker_success(breaker);
		break;
	case HTTP_CALL_BUSY:
	case HTTP_CALL_UNSENDABLE:
		breaker_neutral(breaker);
		break;
	default:
		breaker_failure(breaker, now_us);
		break;
	}
}

/* False when there is no time or no try left. */
static bool wait_and_try_again(struct provider_call *call, int64_t retry_after_ms)
{
	struct http_provider *maker = call->maker;
	if (call->rounds > maker->options.max_retries)
		return false;
	uint64_t wait_ms = backoff_next_ms(&call->backoff);
	if (retry_after_ms > (int64_t)wait_ms)
		wait_ms = (uint64_t)retry_after_ms;
	if (loop_now_us(maker->loop) + wait_ms * 1000 >= call->deadline_us)
		return false;
	call->state = CALL_WAITING;
	timer_arm(call->timer, wait_ms);
	return true;
}

static void on_http_done(struct http_call *http, const struct http_call_result *result, void *arg);

/* This attempt's, and those that libcurl may make by itself, each in place of a round. */
static unsigned sends_left(const struct provider_call *call)
{
	unsigned rounds = call->maker->options.max_retries + 1;
	return call->rounds < rounds ? 1 + rounds - call->rounds : 1;
}

static void count_sends(struct provider_call *call, const struct http_call *http)
{
	unsigned sends = http_call_sends(http);
	if (sends <= 1)
		return;
	call->rounds += sends - 1;
	call->tries += sends - 1;
	call->maker->attempts += sends - 1;
	call->maker->retries += sends - 1;
}

static void on_piece(struct buf *body, void *arg)
{
	struct provider_call *call = arg;
	provider_vectors_read(&call->vectors, body);
}

static void call_target(struct provider_call *call, struct provider_target *target, uint64_t now_us)
{
	struct http_provider *maker = call->maker;
	struct provider_targets *targets = &maker->targets;
	call->target = target;
	call->tried |= provider_target_bit(targets, target);
	/* One that hangs must leave time for the others. */
	uint64_t turns = targets->n - (size_t)__builtin_popcount(call->tried) + 1;
	uint64_t timeout_ms = (call->deadline_us - now_us) / 1000 / turns + 1;
	char url[PROVIDER_MAX_TARGET_URL + 64 + MAX_QUERY_BYTES];
	snprintf(url, sizeof url, "%s%s%.*s", target->url, call->path, MAX_QUERY_BYTES - 1,
		call->query ? call->query : "");
	size_t max_answer = (call->n_inputs + 2) * ANSWER_BYTES_AN_INPUT;
	struct http_call_options options = {
		.method = call->n_inputs ? "POST" : "GET",
		.url = url,
		.headers = (const char *const *)call->headers.lines,
		.body = {.data = call->body.data, .len_bytes = call->body.len_bytes},
		.connect_timeout_ms = maker->options.connect_timeout_ms,
		.timeout_ms = (uint32_t)timeout_ms,
		.max_response_bytes = max_answer < ANSWER_BYTES_MAX ? max_answer : ANSWER_BYTES_MAX,
		.max_sends = sends_left(call),
		.on_piece = call->n_inputs > FEW_INPUTS ? on_piece : NULL,
	};
	provider_vectors_free(&call->vectors);
	provider_vectors_init(&call->vectors, call->n_inputs);
	call->state = CALL_CALLING;
	if (call->tries++)
		maker->retries++;
	maker->attempts++;
	call->span = provider_attempt_begin(
		&call->trace.trace, call->headers.traceparent, options.method, url, call->tries);
	call->http = http_client_call(maker->http, &options, on_http_done, call);
	if (!call->http) {
		breaker_neutral(&target->breaker);
		finish_failed(call, PROVIDER_UNREACHABLE, 503, 1000, "out of memory");
	}
}

/* At once, on one that this round has not seen. */
static bool fail_over(struct provider_call *call)
{
	struct http_provider *maker = call->maker;
	struct provider_targets_refusal refusal;
	uint64_t now_us = loop_now_us(maker->loop);
	if (now_us >= call->deadline_us)
		return false;
	struct provider_target *next = provider_targets_pick(
		&maker->targets, call->tried, &call->credential, now_us, &refusal);
	if (next)
		call_target(call, next, now_us);
	return next != NULL;
}

/* What is said of a resource that can be asked for again: an answer like any other. */
static bool is_list(const struct provider_call *call, int status)
{
	return !call->n_inputs &&
	       (status == 200 || status == 203 || status == 301 || status == 404 || status == 410);
}

static void finish_list(struct provider_call *call, const struct http_call *http,
	const struct http_call_result *result)
{
	provider_fields_tags(http, &call->tags);
	struct provider_result list = {
		.outcome = PROVIDER_OK,
		.status = result->status,
		.body = {(char *)result->body->data, result->body->len},
		.content_type = http_call_header(http, "content-type"),
		.location = http_call_header(http, "location"),
		.surrogate_key = {(const char *)call->tags.data, call->tags.len},
		.unshareable = buf_failed(&call->tags) || !provider_fields_shareable(http),
		.retry_after_ms = -1,
	};
	finish(call, &list);
}

static void on_http_done(struct http_call *http, const struct http_call_result *result, void *arg)
{
	struct provider_call *call = arg;
	struct http_provider *maker = call->maker;
	const struct provider_target *target = call->target;
	uint64_t now_us = loop_now_us(maker->loop);
	char status[PROVIDER_STATUS_BYTES];
	if (http_call_sent(http))
		call->sent = true;
	count_sends(call, http);
	tell_breaker(call, result);
	int64_t retry_after_ms = provider_attempt_retry_after_ms(http, loop_wall_ms(maker->loop));
	call->http = NULL;
	call->http_us = result->duration_us;
	provider_attempt_end(&call->span, result, provider_attempt_status(result, status));

	bool answered = result->outcome == HTTP_CALL_OK;
	if (answered && result->status == 200 && call->n_inputs) {
		provider_fields_tags(http, &call->tags);
		parse_answer(call, result->body);
		return;
	}
	if (answered && is_list(call, result->status)) {
		report(call, provider_attempt_status(result, status), 0);
		finish_list(call, http, result);
		return;
	}
	report(call, provider_attempt_status(result, status), 0);
	if (answered && result->status == 429 && retry_after_ms > 0)
		provider_target_pause(call->target, &call->credential, now_us,
			now_us + (uint64_t)retry_after_ms * 1000);
	if (answered)
		log_fields(LOG_LEVEL_INFO, TRACE_TEXT(&call->trace.trace), "provider: not 200",
			LOG_INT("status", result->status), LOG_STR("service", target->service),
			LOG_INT("duration_us", result->duration_us), LOG_INT("try", call->tries));
	else
		log_fields(LOG_LEVEL_WARN, TRACE_TEXT(&call->trace.trace), "provider: no answer",
			LOG_STR("reason", result->detail ? result->detail : "call failed"),
			LOG_STR("service", target->service), LOG_INT("try", call->tries));
	enum provider_next next = provider_attempt_next(result);
	if (next != PROVIDER_NEXT_NONE && fail_over(call))
		return;
	bool paused = answered && result->status == 429 && retry_after_ms > PAUSE_PATIENCE_MS;
	if (next == PROVIDER_NEXT_ANY && !paused && wait_and_try_again(call, retry_after_ms))
		return;
	struct provider_result failure;
	provider_attempt_failure(
		result, retry_after_ms, http_call_header(http, "content-type"), &failure);
	finish(call, &failure);
}

static void refuse_paused(struct provider_call *call, uint64_t wait_ms)
{
	call->maker->refused_by_pause++;
	struct provider_result refusal = {
		.outcome = PROVIDER_REFUSED,
		.status = 429,
		.body = SPAN_LITERAL(PAUSED_BODY),
		.content_type = SPAN_LITERAL("application/json"),
		.retry_after_ms = (int64_t)wait_ms,
		.detail = "the provider asked this credential to wait",
	};
	finish(call, &refusal);
}

static void begin_round(void *arg)
{
	struct provider_call *call = arg;
	struct http_provider *maker = call->maker;
	uint64_t now_us = loop_now_us(maker->loop);
	if (now_us >= call->deadline_us) {
		finish_failed(
			call, PROVIDER_TIMEOUT, 504, -1, "the provider did not answer in time");
		return;
	}
	struct provider_targets_refusal refusal;
	struct provider_target *target = provider_targets_pick(
		&maker->targets, 0, &call->credential, now_us, &refusal);
	if (target) {
		call->rounds++;
		call->tried = 0;
		call_target(call, target, now_us);
	} else if (refusal.paused) {
		/* Whoever waits already waits on: somebody else's call was told to wait longer. */
		if (!call->rounds || refusal.wait_ms > PAUSE_PATIENCE_MS ||
			!wait_and_try_again(call, (int64_t)refusal.wait_ms))
			refuse_paused(call, refusal.wait_ms);
	} else {
		maker->refused_by_breaker++;
		finish_failed(call, PROVIDER_UNREACHABLE, 503,
			refusal.wait_ms ? (int64_t)refusal.wait_ms : 1000,
			"the provider failed repeatedly and is left alone for a while");
	}
}

/* ---- The interface ---- */

static void on_written(void *arg)
{
	struct provider_call *call = arg;
	call->state = CALL_WAITING;
	if (call->cancelled)
		call_free(call);
	else if (call->body.data)
		begin_round(call);
	else
		finish_failed(call, PROVIDER_UNREACHABLE, 503, 1000, "out of memory");
}

static int set_headers(struct provider_call *call, const struct credential *credential,
	const struct trace_context *trace)
{
	bool sends_credential = call->maker->dialect->sends_credential;
	if (sends_credential)
		call->credential = credential_digest(credential);
	if (trace)
		call->trace = *trace;
	return provider_headers_write(
		&call->headers, call->n_inputs > 0, trace, sends_credential ? credential : NULL);
}

static struct provider_call *call_new(struct provider *provider,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	struct http_provider *maker = (struct http_provider *)provider;
	struct provider_call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->maker = maker;
	call->on_done = on_done;
	call->arg = arg;
	call->state = CALL_WAITING;
	call->deadline_us = loop_now_us(maker->loop) + (uint64_t)maker->options.timeout_ms * 1000;
	backoff_init(&call->backoff, BACKOFF_BASE_MS, BACKOFF_MAX_MS, 2);
	call->timer = timer_new(maker->loop, begin_round, call);
	deferred_init(&call->begin, begin_round, call);
	return call;
}

static struct provider_call *http_buy(struct provider *provider,
	const struct provider_request *request,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	struct provider_call *call = call_new(provider, on_done, arg);
	if (!call)
		return NULL;
	call->path = call->maker->dialect->embed_path;
	call->n_inputs = request->n_inputs;
	int later = -1;
	call->model = strndup(request->model.data, request->model.len);
	if (call->timer && call->model &&
		set_headers(call, request->credential, request->trace) == 0)
		later = provider_body_write(&call->body, call->maker->loop, call->maker->workers,
			call->maker->dialect->write, request, on_written, call);
	if (later < 0) {
		call_free(call);
		return NULL;
	}
	if (later)
		call->state = CALL_WRITING;
	else
		loop_defer(call->maker->loop, &call->begin);
	return call;
}

static struct provider_call *http_list_models(struct provider *provider, struct span query,
	const struct credential *credential, const struct trace_context *trace,
	void (*on_done)(const struct provider_result *result, void *arg), void *arg)
{
	struct provider_call *call = call_new(provider, on_done, arg);
	if (!call)
		return NULL;
	call->path = call->maker->dialect->models_path;
	call->query = strndup(query.len ? query.data : "", query.len);
	if (!call->timer || !call->query || set_headers(call, credential, trace) < 0) {
		call_free(call);
		return NULL;
	}
	loop_defer(call->maker->loop, &call->begin);
	return call;
}

static bool http_sent(const struct provider_call *call)
{
	return call->sent || call->state == CALL_PARSING ||
	       (call->http && http_call_sent(call->http));
}

static void http_cancel(struct provider_call *call)
{
	if (call->state == CALL_PARSING || call->state == CALL_WRITING) {
		call->cancelled = true;
		return;
	}
	if (call->state == CALL_CALLING)
		breaker_neutral(&call->target->breaker);
	call_free(call);
}

static void http_report(const struct provider *provider, struct provider_counts *counts,
	provider_on_service *on_service, void *arg)
{
	const struct http_provider *maker = (const struct http_provider *)provider;
	counts->attempts += maker->attempts;
	counts->retries += maker->retries;
	counts->refused_by_breaker += maker->refused_by_breaker;
	counts->refused_by_pause += maker->refused_by_pause;
	for (size_t i = 0; i < maker->targets.n; i++)
		on_service(
			maker->targets.list[i].service, maker->targets.list[i].breaker.state, arg);
}

static void http_free(struct provider *provider)
{
	struct http_provider *maker = (struct http_provider *)provider;
	provider_targets_free(&maker->targets);
	free(maker);
}

struct provider *provider_http_new(struct loop *loop, struct http_client *http,
	struct workers *workers, const struct provider_dialect *dialect,
	const struct provider_http_options *options)
{
	struct http_provider *maker = calloc(1, sizeof *maker);
	if (!maker)
		return NULL;
	maker->ops = (struct provider_ops){
		.name = dialect->name,
		.store_prefix = "",
		.buy = http_buy,
		.sent = http_sent,
		.cancel = http_cancel,
		.list_models = dialect->models_path ? http_list_models : NULL,
		.report = http_report,
		.free = http_free,
	};
	maker->provider.ops = &maker->ops;
	maker->dialect = dialect;
	maker->loop = loop;
	maker->http = http;
	maker->workers = workers;
	maker->options = *options;
	if (provider_targets_parse(options->urls, dialect->name, &maker->targets)) {
		free(maker);
		return NULL;
	}
	provider_targets_set_breakers(
		&maker->targets, options->breaker_threshold, options->breaker_open_ms);
	return &maker->provider;
}
