#include "broadcasterd/delivery.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "broadcasterd/conf.h"
#include "broadcasterd/discovery.h"
#include "common/http_client.h"
#include "common/http_server.h"
#include "common/json_span.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/messages.h"
#include "common/trace_span.h"

#define MAX_ANSWER_BYTES   (64u << 10)
#define MAX_ERROR_BYTES    200
#define MAX_INSTANCE_BYTES 64
/* Beside the purge's own fields: Host, Authorization, X-Purge-Time, traceparent, and the end of the
 * list. */
#define OWN_FIELDS 5

const char *const delivery_outcome_names[DELIVERY_OUTCOMES] = {
	[DELIVERY_OK] = "ok",
	[DELIVERY_CONNECT] = "connect",
	[DELIVERY_TIMEOUT] = "timeout",
	[DELIVERY_BROKEN] = "broken",
	[DELIVERY_DENIED] = "denied",
	[DELIVERY_REFUSED] = "refused",
	[DELIVERY_FAILED] = "failed",
};

struct delivery {
	struct deliveries *all;
	TAILQ_ENTRY(delivery) entry; /* of waiting or asked */
	bool has_place, is_asked;
	struct delivery_options options;
	uint64_t asked_us;
	struct timer *timer; /* local: connecting, then answering */
	struct deferred end; /* what ends it is freed with it */

	struct http_call *http;
	struct rpc_client *rpc;
	struct rpc_call *ping, *purge;

	struct trace trace; /* what the target is told, if the purge has one */
	struct trace_span *span;

	struct delivery_result result;
	char error[MAX_ERROR_BYTES], instance[MAX_INSTANCE_BYTES];
	void (*on_done)(const struct delivery_result *result, void *arg);
	void *arg;
};

struct deliveries {
	struct loop *loop;
	const struct broadcaster_conf *conf;
	const struct discovery *discovery;
	struct http_client *client;
	size_t concurrency, n_asked;
	TAILQ_HEAD(, delivery) waiting, asked;
	struct deferred start; /* the next ones, when places are free */
};

/* ---- the end ---- */

static void delivery_free(struct delivery *d)
{
	struct deliveries *all = d->all;
	http_call_cancel(&d->http);
	rpc_call_cancel(&d->ping);
	rpc_call_cancel(&d->purge);
	rpc_client_free(&d->rpc);
	timer_free(&d->timer);
	trace_span_end(&d->span);
	loop_defer_cancel(all->loop, &d->end);
	if (d->has_place) {
		TAILQ_REMOVE(&all->asked, d, entry);
		all->n_asked--;
		loop_defer(all->loop, &all->start);
	} else {
		TAILQ_REMOVE(&all->waiting, d, entry);
	}
	target_unref(&d->options.target);
	purge_unref(&d->options.purge);
	free(d);
}

/* (OpenTelemetry's conventions for HTTP, and for RPC) */
static void begin_span(struct delivery *d)
{
	const struct purge *purge = d->options.purge;
	bool local = d->options.target->kind == TARGET_LOCAL;
	d->trace = purge->trace;
	if (!d->options.traced || !purge->has_trace)
		return;
	d->span = trace_span_begin(&purge->trace, &d->trace, TRACE_SPAN_CLIENT,
		local ? SPAN_LITERAL("purge") : SPAN_LITERAL("PURGE"));
	trace_span_text(
		d->span, local ? "rpc.method" : "http.request.method", local ? "purge" : "PURGE");
	trace_span_text(d->span, "server.address", d->options.target->name);
}

static void end_span(struct delivery *d)
{
	if (d->result.status)
		trace_span_int(d->span, "http.response.status_code", d->result.status);
	if (d->result.outcome == DELIVERY_OK)
		trace_span_int(d->span, "gateway.purge.objects", (int64_t)d->result.purged);
	else
		trace_span_fail(d->span, delivery_outcome_names[d->result.outcome], d->error);
	trace_span_end(&d->span);
}

static void on_end(void *arg)
{
	struct delivery *d = arg;
	struct delivery_result result = d->result;
	char error[MAX_ERROR_BYTES], instance[MAX_INSTANCE_BYTES];
	void (*on_done)(const struct delivery_result *, void *) = d->on_done;
	void *on_done_arg = d->arg;
	memcpy(error, d->error, sizeof error);
	memcpy(instance, d->instance, sizeof instance);
	result.error = error;
	result.instance = span_of(instance);
	end_span(d);
	result.duration_us = d->asked_us ? loop_now_us(d->all->loop) - d->asked_us : 0;
	delivery_free(d);
	on_done(&result, on_done_arg);
}

static void end(struct delivery *d, enum delivery_outcome outcome, const char *error)
{
	d->result.outcome = outcome;
	snprintf(d->error, sizeof d->error, "%s", error);
	for (char *c = d->error; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = ' ';
	loop_defer(d->all->loop, &d->end);
}

static void set_instance(struct delivery *d, struct span instance)
{
	if (instance.len && instance.len < sizeof d->instance) {
		memcpy(d->instance, instance.data, instance.len);
		d->instance[instance.len] = '\0';
	}
}

/* A target answered. `why` is what it said, if anything: never repeated when our token is in it. */
static void end_answered(struct delivery *d, uint64_t status, struct span why)
{
	const char *token = d->all->conf->purge_token;
	char error[MAX_ERROR_BYTES];
	int n = status <= 999 ? (int)status : 502;
	d->result.status = n;
	if (n >= 200 && n <= 299) {
		end(d, DELIVERY_OK, "");
		return;
	}
	if (*token && why.len && memmem(why.data, why.len, token, strlen(token)))
		why = SPAN_LITERAL("");
	if (why.len > MAX_ERROR_BYTES / 2)
		why.len = MAX_ERROR_BYTES / 2;
	snprintf(error, sizeof error, "%d %s%s%.*s", n, http_status_reason(n), why.len ? ": " : "",
		SPAN_ARG(why));
	end(d,
		n == 401 || n == 403                           ? DELIVERY_DENIED
		: n >= 400 && n <= 499 && n != 408 && n != 429 ? DELIVERY_REFUSED
							       : DELIVERY_FAILED,
		error);
}

/* ---- to a pod ---- */

/* Of {"results":[{"pod":"gatewayd.1","success":false,"error":"…"},…]} the first that failed. */
static void read_failure(const struct json_span_doc *doc, uint32_t results, struct buf *why)
{
	uint32_t r = results == JSON_SPAN_NONE ? results : json_span_first(doc, results);
	for (; r != JSON_SPAN_NONE; r = json_span_next(doc, results, r)) {
		uint32_t success = json_span_member(doc, r, SPAN_LITERAL("success"));
		if (success == JSON_SPAN_NONE || json_span_type(doc, success) != JSON_SPAN_FALSE)
			continue;
		uint32_t pod = json_span_member(doc, r, SPAN_LITERAL("pod"));
		uint32_t error = json_span_member(doc, r, SPAN_LITERAL("error"));
		if (pod != JSON_SPAN_NONE)
			json_span_string(doc, pod, why);
		buf_append_str(why, ": ");
		if (error != JSON_SPAN_NONE)
			json_span_string(doc, error, why);
		return;
	}
}

/* {"purged":N,"results":[…]}, or {"error":{"message":"…"}}. */
static void read_answer(struct delivery *d, const struct buf *body, struct buf *why)
{
	struct span text = {(const char *)body->data, body->len};
	static const struct json_span_limits limits = {.max_depth = 8, .max_nodes = 16384};
	struct json_span_doc *doc = text.len ? json_span_new(text, &limits) : NULL;
	int64_t purged;
	if (doc && json_span_step(doc, SIZE_MAX) == JSON_SPAN_DONE) {
		uint32_t root = json_span_root();
		uint32_t error = json_span_member(doc, root, SPAN_LITERAL("error"));
		uint32_t count = json_span_member(doc, root, SPAN_LITERAL("purged"));
		if (count != JSON_SPAN_NONE && json_span_int64(doc, count, &purged) == 0 &&
			purged > 0)
			d->result.purged = (uint64_t)purged;
		uint32_t message = json_span_member(doc, error, SPAN_LITERAL("message"));
		if (message == JSON_SPAN_NONE)
			message = error;
		if (message != JSON_SPAN_NONE)
			json_span_string(doc, message, why);
		else
			read_failure(
				doc, json_span_member(doc, root, SPAN_LITERAL("results")), why);
	}
	json_span_free(&doc);
}

static void on_http_done(struct http_call *call, const struct http_call_result *result, void *arg)
{
	struct delivery *d = arg;
	struct buf why = BUF_INIT(MAX_ANSWER_BYTES);
	bool sent = http_call_sent(call);
	d->http = NULL;
	switch (result->outcome) {
	case HTTP_CALL_OK:
		set_instance(d, http_call_header(call, "x-instance-id"));
		read_answer(d, result->body, &why);
		end_answered(d, (uint64_t)result->status,
			(struct span){(const char *)why.data, why.len});
		break;
	case HTTP_CALL_TOO_LARGE:
		end_answered(d, (uint64_t)result->status, SPAN_LITERAL(""));
		break;
	case HTTP_CALL_CONNECT:
	case HTTP_CALL_BUSY:
	case HTTP_CALL_UNSENDABLE:
		end(d, DELIVERY_CONNECT, result->detail ? result->detail : "not reached");
		break;
	case HTTP_CALL_TIMEOUT:
		end(d, sent ? DELIVERY_TIMEOUT : DELIVERY_CONNECT,
			sent ? "no answer in time" : "no connection in time");
		break;
	default:
		end(d, DELIVERY_BROKEN, result->detail ? result->detail : "no whole answer");
		break;
	}
	buf_free(&why);
}

/* "Name: value", each ended by a NUL; where each begins. */
static int write_fields(const struct delivery *d, struct buf *text, size_t *starts, size_t *n)
{
	const struct purge *purge = d->options.purge;
	const struct broadcaster_conf *conf = d->all->conf;
	const char *host = conf->service[0] ? conf->service : d->options.target->name;
	*n = 0;
	for (size_t i = 0; i < purge->n_headers; i++) {
		if (purge->has_trace && span_equal_nocase(purge->headers[i].name, "traceparent"))
			continue; /* ours is below it */
		starts[(*n)++] = text->len;
		buf_printf(text, "%.*s: %.*s", SPAN_ARG(purge->headers[i].name),
			SPAN_ARG(purge->headers[i].value));
		buf_append_char(text, '\0');
	}
	starts[(*n)++] = text->len;
	buf_printf(text, "Host: %s", host);
	buf_append_char(text, '\0');
	if (conf->purge_token[0]) {
		starts[(*n)++] = text->len;
		buf_printf(text, "Authorization: Bearer %s", conf->purge_token);
		buf_append_char(text, '\0');
	}
	if (purge->has_trace) {
		char trace[TRACE_PARENT_LEN + 1];
		starts[(*n)++] = text->len;
		buf_printf(text, "traceparent: %s", trace_format_text(&d->trace, trace));
		buf_append_char(text, '\0');
	}
	if (purge->params.store && !purge_has_field(purge, "x-purge-time")) {
		starts[(*n)++] = text->len;
		buf_printf(text, "X-Purge-Time: %" PRIu64, purge->params.time_ms);
		buf_append_char(text, '\0');
	}
	return buf_failed(text) ? -1 : 0;
}

static void ask_pod(struct delivery *d)
{
	struct purge *purge = d->options.purge;
	struct buf text = BUF_INIT(2 * PURGE_MAX_HEADER_BYTES), url = BUF_INIT(128u << 10);
	size_t starts[PURGE_MAX_HEADERS + OWN_FIELDS], n;
	const char *fields[PURGE_MAX_HEADERS + OWN_FIELDS];
	buf_printf(&url, "http://%s%.*s", d->options.target->name, SPAN_ARG(purge->target));
	buf_append_char(&url, '\0');
	if (write_fields(d, &text, starts, &n) == 0 && !buf_failed(&url)) {
		for (size_t i = 0; i < n; i++)
			fields[i] = (const char *)text.data + starts[i];
		fields[n] = NULL;
		/* The body is this purge's, which the delivery holds. */
		struct http_call_options options = {
			.method = "PURGE",
			.url = (const char *)url.data,
			.headers = fields,
			.body = {purge->body.data, purge->body.len, NULL, NULL},
			.connect_timeout_ms = d->options.connect_timeout_ms,
			.timeout_ms = d->options.timeout_ms,
			.max_response_bytes = MAX_ANSWER_BYTES,
			.direct = true,
			.fresh = d->options.fresh,
		};
		d->http = http_client_call(d->all->client, &options, on_http_done, d);
	}
	if (!d->http)
		end(d, DELIVERY_CONNECT, "out of memory");
	buf_free(&text);
	buf_free(&url);
}

/* ---- to a gatewayd of this pod ---- */

/* Both answers are there. */
static void end_local(struct delivery *d)
{
	if (d->ping || d->purge)
		return;
	timer_disarm(d->timer);
	loop_defer(d->all->loop, &d->end);
}

static void on_ping_result(struct span result, void *arg)
{
	struct delivery *d = arg;
	struct msg_ping_result ping;
	struct msg_error error;
	if (msg_ping_result_unpack(result, &ping, &error) == 0)
		set_instance(d, ping.instance_id);
}

static void on_ping_done(const struct rpc_error *error, void *arg)
{
	struct delivery *d = arg;
	(void)error; /* then the purge has failed as well, or the instance is not known */
	d->ping = NULL;
	end_local(d);
}

static void on_purge_result(struct span result, void *arg)
{
	struct delivery *d = arg;
	struct msg_purge_result answer;
	struct msg_error error;
	if (msg_purge_result_unpack(result, &answer, &error) < 0) {
		end(d, DELIVERY_BROKEN, error.text);
		return;
	}
	d->result.purged = answer.purged;
	end_answered(d, answer.status, answer.error);
	msg_purge_result_free(&answer);
}

static void on_purge_done(const struct rpc_error *error, void *arg)
{
	struct delivery *d = arg;
	char text[MAX_ERROR_BYTES];
	d->purge = NULL;
	if (error) {
		snprintf(text, sizeof text, "%.*s", SPAN_ARG(error->message));
		end(d,
			error->code == RPC_FORBIDDEN    ? DELIVERY_DENIED
			: error->code == RPC_BAD_PARAMS ? DELIVERY_REFUSED
			: error->code == RPC_TIMEOUT    ? DELIVERY_TIMEOUT
			: error->code == RPC_LOST       ? DELIVERY_BROKEN
							: DELIVERY_FAILED,
			text);
	}
	loop_defer_cancel(d->all->loop, &d->end);
	end_local(d);
}

static void on_connected(bool connected, void *arg)
{
	static const struct rpc_call_events ping_events = {
		.on_result = on_ping_result, .on_done = on_ping_done};
	static const struct rpc_call_events purge_events = {
		.on_result = on_purge_result, .on_done = on_purge_done};
	static const struct msg_empty nothing;
	struct delivery *d = arg;
	if (!connected || d->is_asked)
		return;
	d->is_asked = true;
	struct msg_purge_params params = d->options.purge->params;
	char trace[TRACE_PARENT_LEN + 1];
	params.token = span_of(d->all->conf->purge_token);
	if (d->options.purge->has_trace)
		params.trace = span_of(trace_format_text(&d->trace, trace));
	timer_arm(d->timer, d->options.timeout_ms);
	d->ping = msg_ping_call(d->rpc, &nothing, 0, &ping_events, d);
	d->purge = msg_purge_call(d->rpc, &params, 0, &purge_events, d);
	if (!d->ping || !d->purge)
		end(d, DELIVERY_CONNECT, "out of memory");
}

static void on_timer(void *arg)
{
	struct delivery *d = arg;
	rpc_call_cancel(&d->ping);
	rpc_call_cancel(&d->purge);
	end(d, d->is_asked ? DELIVERY_TIMEOUT : DELIVERY_CONNECT,
		d->is_asked ? "no answer in time" : "no connection in time");
}

static void ask_local(struct delivery *d)
{
	char path[256];
	d->timer = timer_new(d->all->loop, on_timer, d);
	if (d->timer &&
		discovery_socket_path(d->all->discovery, d->options.target, path, sizeof path) == 0)
		d->rpc = rpc_client_new(d->all->loop, path, &rpc_client_defaults, on_connected, d);
	if (!d->rpc) {
		end(d, DELIVERY_CONNECT, "no such socket");
		return;
	}
	timer_arm(d->timer, d->options.connect_timeout_ms);
	if (rpc_client_connected(d->rpc))
		on_connected(true, d);
}

/* ---- places ---- */

static void start_waiting(void *arg)
{
	struct deliveries *all = arg;
	struct delivery *d;
	while (all->n_asked < all->concurrency && (d = TAILQ_FIRST(&all->waiting))) {
		TAILQ_REMOVE(&all->waiting, d, entry);
		TAILQ_INSERT_TAIL(&all->asked, d, entry);
		all->n_asked++;
		d->has_place = true;
		d->asked_us = loop_now_us(all->loop);
		begin_span(d);
		if (d->options.target->kind == TARGET_LOCAL)
			ask_local(d);
		else
			ask_pod(d);
	}
}

struct delivery *delivery_start(struct deliveries *deliveries,
	const struct delivery_options *options,
	void (*on_done)(const struct delivery_result *result, void *arg), void *arg)
{
	struct delivery *d = calloc(1, sizeof *d);
	if (!d)
		return NULL;
	*d = (struct delivery){
		.all = deliveries, .options = *options, .on_done = on_done, .arg = arg};
	target_ref(d->options.target);
	purge_ref(d->options.purge);
	deferred_init(&d->end, on_end, d);
	TAILQ_INSERT_TAIL(&deliveries->waiting, d, entry);
	loop_defer(deliveries->loop, &deliveries->start);
	return d;
}

void delivery_cancel(struct delivery **delivery)
{
	if (*delivery)
		delivery_free(*delivery);
	*delivery = NULL;
}

/* ---- life ---- */

struct deliveries *deliveries_new(struct loop *loop, const struct broadcaster_conf *conf,
	const struct discovery *discovery, struct http_client *client)
{
	struct deliveries *all = calloc(1, sizeof *all);
	if (!all)
		return NULL;
	*all = (struct deliveries){.loop = loop,
		.conf = conf,
		.discovery = discovery,
		.client = client,
		.concurrency = (size_t)conf->concurrency};
	TAILQ_INIT(&all->waiting);
	TAILQ_INIT(&all->asked);
	deferred_init(&all->start, start_waiting, all);
	return all;
}

void deliveries_free(struct deliveries **deliveries)
{
	struct deliveries *all = *deliveries;
	if (!all)
		return;
	*deliveries = NULL;
	BUG_ON(!TAILQ_EMPTY(&all->waiting) || !TAILQ_EMPTY(&all->asked));
	loop_defer_cancel(all->loop, &all->start);
	free(all);
}
