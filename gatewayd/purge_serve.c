#include "gatewayd/purge_serve.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/json.h"
#include "common/log.h"
#include "common/messages.h"
#include "common/rpc.h"
#include "common/trace_span.h"
#include "gatewayd/api_error.h"
#include "gatewayd/gateway.h"
#include "gatewayd/purge.h"

/* One who waits for the answer; the purge goes on without. */
struct waiter {
	struct gateway *gateway;
	struct purge *purge;
	struct exchange *exchange; /* one of the two */
	struct rpc_request *request;
	struct trace_span *span; /* of the latter */
};

static const char no_store[] = "This gateway has no store (STORE=none); leave X-Purge-Store out.";

/* ---- Who may ---- */

static bool token_is_right(const struct gateway *gateway, struct span token)
{
	struct digest sent = digest_of(token),
		      right = digest_of(span_of(gateway->conf->purge_token));
	return *gateway->conf->purge_token && digest_equal_secret(&sent, &right);
}

static struct span bearer_token(struct span authorization)
{
	static const char scheme[] = "Bearer ";
	size_t n = sizeof scheme - 1;
	if (authorization.len < n || strncasecmp(authorization.data, scheme, n) != 0)
		return (struct span){0};
	return (struct span){authorization.data + n, authorization.len - n};
}

static void log_refusal(
	struct gateway *gateway, const struct trace *trace, const char *by, const char *reason)
{
	gateway->purges_refused++;
	log_fields(LOG_LEVEL_WARN, TRACE_TEXT(trace), "a purge was refused: nothing is purged",
		LOG_STR("by", by), LOG_STR("reason", reason));
}

static void log_purge(
	const struct trace *trace, const char *by, const struct purge_request *request)
{
	log_fields(LOG_LEVEL_INFO, TRACE_TEXT(trace), "purge", LOG_STR("by", by),
		LOG_STR("scope", purge_scope_name(request->scope)),
		LOG_BOOL("store", request->store),
		LOG_SPAN("value", request->scope == PURGE_TAG    ? request->tags[0]
				  : request->scope == PURGE_PATH ? request->path
								 : request->hex),
		LOG_INT("values", request->scope == PURGE_TAG ? request->n_tags : 1));
}

/* ---- HTTP ---- */

static void write_body(const struct purge_result *result, struct buf *body)
{
	buf_printf(body,
		"{\"purged\":%" PRIu64
		",\"total\":%zu,\"success\":%zu,\"failed\":%zu,\"results\":[",
		result->purged, result->n, result->n - result->failed, result->failed);
	for (size_t i = 0; i < result->n; i++) {
		const struct purge_target_result *target = &result->targets[i];
		buf_printf(body,
			"%s{\"pod\":\"%s\",\"status\":%d,\"success\":%s,\"error\":", i ? "," : "",
			target->pod, target->status, target->success ? "true" : "false");
		if (*target->error)
			json_append_string(body, span_of(target->error));
		else
			buf_append_str(body, "null");
		buf_append_char(body, '}');
	}
	buf_append_str(body, "]}\n");
}

static void on_http_done(const struct purge_result *result, void *arg)
{
	struct waiter *waiter = arg;
	struct buf body = BUF_INIT(1u << 20);
	struct answer_head head = {.status = result->failed ? 502 : 200};
	answer_head_add(&head, "Content-Type", SPAN_LITERAL("application/json"));
	answer_head_add(&head, "X-Instance-Id", span_of(waiter->gateway->instance_id));
	write_body(result, &body);
	size_t len = 0;
	void *data = buf_take(&body, &len);
	exchange_respond(waiter->exchange, &head, slice_malloced(data, len));
	free(waiter);
}

static void on_abort(void *arg)
{
	struct waiter *waiter = arg;
	purge_forget(waiter->purge);
	trace_span_end(&waiter->span);
	free(waiter);
}

static const struct exchange_events exchange_events = {.on_abort = on_abort};

static void refuse(struct gateway *gateway, struct exchange *exchange, const char *sentence)
{
	struct api_error error;
	log_refusal(gateway, &exchange->trace, "http", sentence);
	api_error_set(&error, 403, NULL, "purge_forbidden", "%s", sentence);
	api_error_respond(exchange, &error, NULL);
}

/* 0, or -1 with *error. */
static int read_fields(
	const struct exchange *exchange, struct purge_request *request, struct api_error *error)
{
	struct purge_fields fields = {.target = exchange->target};
	struct span name, value;
	for (size_t i = 0; exchange_header_at(exchange, i, &name, &value); i++)
		if (purge_fields_add(&fields, name, value, error) < 0)
			return -1;
	return purge_request_of_fields(&fields, request, error);
}

void purge_serve(struct gateway *gateway, struct exchange *exchange)
{
	struct purge_request request;
	struct api_error error;
	if (!*gateway->conf->purge_token) {
		refuse(gateway, exchange,
			"This gateway has no purge token (PURGE_TOKEN): it cannot be purged over HTTP.");
		return;
	}
	struct span authorization = exchange_header(exchange, "authorization");
	if (!token_is_right(gateway, bearer_token(authorization))) {
		refuse(gateway, exchange,
			authorization.data ? "This is not the purge token of this gateway."
					   : "A purge needs the purge token: Authorization: Bearer "
					     "TOKEN.");
		return;
	}
	if (read_fields(exchange, &request, &error) < 0) {
		api_error_respond(exchange, &error, NULL);
		return;
	}
	if (request.store && !gateway->store) {
		api_error_set(&error, 400, NULL, "bad_purge", "%s", no_store);
		api_error_respond(exchange, &error, NULL);
		return;
	}
	struct waiter *waiter = calloc(1, sizeof *waiter);
	if (waiter) {
		*waiter = (struct waiter){.gateway = gateway, .exchange = exchange};
		request.has_trace = true;
		request.trace = exchange->trace;
		log_purge(&exchange->trace, "http", &request);
		waiter->purge = purge_start(gateway->purger, &request, on_http_done, waiter);
	}
	if (!waiter || !waiter->purge) {
		free(waiter);
		api_error_set(&error, 503, NULL, "overloaded",
			"Too many purges are under way; try again in a moment.");
		error.retry_after_ms = 1000;
		api_error_respond(exchange, &error, NULL);
		return;
	}
	exchange_accept(exchange, &exchange_events, waiter);
}

/* ---- RPC ---- */

static void on_rpc_done(const struct purge_result *result, void *arg)
{
	struct waiter *waiter = arg;
	struct msg_purge_target targets[65];
	BUG_ON(result->n > sizeof targets / sizeof targets[0]);
	for (size_t i = 0; i < result->n; i++)
		targets[i] = (struct msg_purge_target){
			.pod = span_of(result->targets[i].pod),
			.status = (uint64_t)result->targets[i].status,
			.success = result->targets[i].success,
			.error = span_of(result->targets[i].error),
		};
	struct msg_purge_result message = {
		.status = result->failed ? 502 : 200,
		.error = span_of(result->error),
		.purged = result->purged,
		.results = {.items = targets, .count = result->n},
	};
	msg_purge_reply(waiter->request, &message);
	trace_span_int(waiter->span, "gateway.purge.objects", (int64_t)result->purged);
	if (result->failed)
		trace_span_fail(waiter->span, "incomplete", result->error);
	trace_span_end(&waiter->span);
	free(waiter);
}

static const struct rpc_request_events request_events = {.on_cancel = on_abort};

static void reply_error(struct rpc_request *request, int status, const char *sentence)
{
	struct msg_purge_result message = {.status = (uint64_t)status, .error = span_of(sentence)};
	msg_purge_reply(request, &message);
}

/* NULL, or why not. */
static const char *may_not_purge(
	const struct gateway *gateway, const struct rpc_request *request, struct span token)
{
	const struct rpc_peer *peer = rpc_request_peer(request);
	if (!*gateway->conf->purge_token)
		return peer->uid == 0 || peer->uid == geteuid()
			       ? NULL
			       : "no purge token is set: only root and the own user may purge";
	return token_is_right(gateway, token) ? NULL : "not the purge token of this gateway";
}

static void serve_rpc(struct rpc_request *rpc, struct span packed, void *arg)
{
	struct gateway *gateway = arg;
	struct msg_purge_params params;
	struct purge_request request;
	struct api_error error;
	struct trace trace;
	if (msg_purge_serve_params(rpc, packed, &params) < 0)
		return;
	struct trace_span *span = trace_span_enter(params.trace, &trace, SPAN_LITERAL("purge"));
	trace_span_str(span, "gateway.purge.scope", params.scope);
	const char *why_not = may_not_purge(gateway, rpc, params.token);
	if (why_not) {
		log_refusal(gateway, &trace, "rpc", why_not);
		trace_span_fail(span, "refused", why_not);
		reply_error(rpc, 403, why_not);
		goto out;
	}
	if (purge_request_of_params(&params, &request, &error) < 0) {
		reply_error(rpc, 400, error.message);
		goto out;
	}
	if (request.store && !gateway->store) {
		reply_error(rpc, 400, no_store);
		goto out;
	}
	struct waiter *waiter = calloc(1, sizeof *waiter);
	if (waiter) {
		*waiter = (struct waiter){.gateway = gateway, .request = rpc, .span = span};
		request.has_trace = true;
		request.trace = trace;
		if (!request.only)
			log_purge(&trace, "rpc", &request);
		waiter->purge = purge_start(gateway->purger, &request, on_rpc_done, waiter);
	}
	if (!waiter || !waiter->purge) {
		free(waiter);
		reply_error(rpc, 503, "too many purges are under way");
		goto out;
	}
	rpc_request_accept(rpc, &request_events, waiter);
	span = NULL; /* the waiter's */
out:
	trace_span_end(&span);
	msg_purge_params_free(&params);
}

const struct rpc_method purge_rpc_method = {.name = "purge", .serve = serve_rpc};
