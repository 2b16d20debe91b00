#include "exportermerger/scrape.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/loop.h"
#include "common/messages.h"
#include "common/rpc.h"
#include "exportermerger/negotiate.h"
#include "exportermerger/page_parser.h"
#include "exportermerger/rpc_page.h"

/*
 * HTTP:  call under way -> ended
 * RPC:   connecting -> call under way -> ended
 *
 * The end is deferred, since it frees what has just called back.
 */

/* A socket takes a connection at once, or nobody holds it; only one whose queue is full is waited
 * for. */
#define CONNECT_MS 300

struct scrape {
	struct scrape_options options;
	uint64_t started_us;
	struct http_call *call;
	struct rpc_client *rpc;
	struct rpc_call *rpc_call;
	struct timer *timer; /* RPC: the time to connect */
	struct deferred end;
	struct scrape_result result;
	char detail[256];
	void (*on_done)(const struct scrape_result *result, void *arg);
	void *arg;
};

static void release(struct scrape *s)
{
	loop_defer_cancel(s->options.loop, &s->end);
	http_call_cancel(&s->call);
	rpc_call_cancel(&s->rpc_call);
	rpc_client_free(&s->rpc);
	timer_free(&s->timer);
	page_free(&s->result.page);
	free(s);
}

static void end(void *arg)
{
	struct scrape *s = arg;
	struct scrape_result result = s->result;
	s->result.page = NULL;
	result.detail = s->detail;
	result.seconds = (double)(loop_now_us(s->options.loop) - s->started_us) / 1e6;
	void (*on_done)(const struct scrape_result *, void *) = s->on_done;
	void *on_done_arg = s->arg;
	on_done(&result, on_done_arg);
	release(s);
}

static void finish(struct scrape *s, enum stats_failure why, const char *detail)
{
	s->result.why = why;
	snprintf(s->detail, sizeof s->detail, "%s", detail);
	loop_defer(s->options.loop, &s->end);
}

/* ---- reading the page ---- */

static void read_page(struct scrape *s, struct span text, bool openmetrics)
{
	const struct target *target = s->options.target;
	struct page_options options = {
		.format = openmetrics ? PAGE_OPENMETRICS : PAGE_TEXT,
		.prefix = span_of(target->prefix),
		.source = span_of(target->escaped_name),
		.labels = target->labels,
		.n_labels = target->n_labels,
	};
	struct page_parser *parser = s->options.parser;
	page_parser_start(parser, &options);
	page_parser_feed(parser, text);
	s->result.page = page_parser_finish(parser);
	s->result.bytes = text.len;
	if (s->result.page) {
		finish(s, STATS_FAILURES, "");
	} else {
		const struct page_error *error = page_parser_error(parser);
		char detail[128];
		snprintf(detail, sizeof detail, "line %llu: %s", (unsigned long long)error->line,
			error->reason);
		finish(s, STATS_MALFORMED, detail);
	}
}

/* ---- HTTP ---- */

static void on_http_done(struct http_call *call, const struct http_call_result *result, void *arg)
{
	static const enum stats_failure failures[] = {
		[HTTP_CALL_CONNECT] = STATS_CONNECT,
		[HTTP_CALL_TIMEOUT] = STATS_TIMEOUT,
		[HTTP_CALL_RESET] = STATS_RESET,
		[HTTP_CALL_TOO_LARGE] = STATS_TOO_LARGE,
		[HTTP_CALL_BAD] = STATS_PROTOCOL,
		[HTTP_CALL_BUSY] = STATS_RESOURCES,
		[HTTP_CALL_UNSENDABLE] = STATS_PROTOCOL,
	};
	struct scrape *s = arg;
	bool openmetrics;
	char detail[64];
	s->call = NULL;
	if (result->outcome != HTTP_CALL_OK) {
		finish(s, failures[result->outcome], result->detail ? result->detail : "");
	} else if (result->status != 200) {
		snprintf(detail, sizeof detail, "status %d", result->status);
		finish(s, STATS_STATUS, detail);
	} else if (!negotiate_read_type(http_call_header(call, "content-type"), &openmetrics)) {
		finish(s, STATS_CONTENT_TYPE, "its Content-Type is not that of a metrics page");
	} else {
		read_page(s, (struct span){(const char *)result->body->data, result->body->len},
			openmetrics);
	}
}

static int start_http(struct scrape *s)
{
	char timeout[80];
	const char *headers[] = {
		"Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8,"
		"application/openmetrics-text;version=0.0.1;q=0.75,"
		"text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
		timeout, NULL};
	snprintf(timeout, sizeof timeout, "X-Prometheus-Scrape-Timeout-Seconds: %.3f",
		s->options.timeout_ms / 1e3);
	struct http_call_options call = {
		.method = "GET",
		.url = s->options.target->url,
		.headers = headers,
		.timeout_ms = s->options.timeout_ms,
		.max_response_bytes = s->options.max_body_bytes,
	};
	s->call = http_client_call(s->options.client, &call, on_http_done, s);
	return s->call ? 0 : -1;
}

/* ---- RPC ---- */

static void on_metrics(struct span bytes, void *arg)
{
	struct scrape *s = arg;
	struct msg_metrics_result metrics;
	struct msg_error error;
	if (msg_metrics_result_unpack(bytes, &metrics, &error) < 0) {
		finish(s, STATS_PROTOCOL, "its answer to `metrics` cannot be read");
		return;
	}
	struct buf text = BUF_INIT(s->options.max_body_bytes);
	const char *reason = rpc_page_write(&metrics, &text);
	if (buf_failed(&text))
		finish(s, STATS_TOO_LARGE, "the page is too large");
	else if (reason)
		finish(s, STATS_MALFORMED, reason);
	else
		read_page(s, (struct span){(const char *)text.data, text.len}, false);
	buf_free(&text);
	msg_metrics_result_free(&metrics);
}

static void on_rpc_done(const struct rpc_error *error, void *arg)
{
	struct scrape *s = arg;
	s->rpc_call = NULL;
	if (!error)
		return; /* on_metrics() has settled it */
	char detail[160];
	snprintf(detail, sizeof detail, "%s: %.*s", rpc_code_name(error->code),
		error->message.len > 100 ? 100 : (int)error->message.len, error->message.data);
	finish(s,
		error->code == RPC_TIMEOUT    ? STATS_TIMEOUT
		: error->code == RPC_LOST     ? STATS_RESET
		: error->code == RPC_PROTOCOL ? STATS_PROTOCOL
					      : STATS_RPC,
		detail);
}

static void on_connected(bool connected, void *arg)
{
	static const struct rpc_call_events events = {
		.on_result = on_metrics, .on_done = on_rpc_done};
	static const struct msg_empty nothing;
	struct scrape *s = arg;
	if (!connected || s->rpc_call || !timer_armed(s->timer))
		return;
	timer_disarm(s->timer);
	s->rpc_call = msg_metrics_call(s->rpc, &nothing, s->options.timeout_ms, &events, s);
	if (!s->rpc_call)
		finish(s, STATS_RESOURCES, "out of memory");
}

static void on_not_connected(void *arg)
{
	finish(arg, STATS_CONNECT, "it takes no connection");
}

static int start_rpc(struct scrape *s)
{
	uint32_t patience = s->options.timeout_ms < CONNECT_MS ? s->options.timeout_ms : CONNECT_MS;
	s->timer = timer_new(s->options.loop, on_not_connected, s);
	s->rpc = s->timer ? rpc_client_new(s->options.loop, s->options.target->socket, NULL,
				    on_connected, s)
			  : NULL;
	if (!s->rpc)
		return -1;
	if (rpc_client_absent(s->rpc))
		finish(s, STATS_CONNECT, "nobody listens on its socket");
	else
		timer_arm(s->timer, patience);
	return 0;
}

/* ---- life ---- */

struct scrape *scrape_start(const struct scrape_options *options,
	void (*on_done)(const struct scrape_result *result, void *arg), void *arg)
{
	struct scrape *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->options = *options;
	s->started_us = loop_now_us(options->loop);
	s->on_done = on_done;
	s->arg = arg;
	deferred_init(&s->end, end, s);
	if ((options->target->socket ? start_rpc(s) : start_http(s)) < 0) {
		release(s);
		return NULL;
	}
	return s;
}

void scrape_cancel(struct scrape **scrape)
{
	if (*scrape)
		release(*scrape);
	*scrape = NULL;
}
