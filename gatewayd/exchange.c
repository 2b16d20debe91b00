#include "gatewayd/exchange.h"

#include <stdio.h>

#include "common/log.h"

void answer_head_add(struct answer_head *head, const char *name, struct span value)
{
	BUG_ON(head->n_fields == ANSWER_MAX_FIELDS);
	head->fields[head->n_fields++] = (struct field){name, value};
}

struct span answer_head_field(const struct answer_head *head, const char *name)
{
	for (size_t i = 0; i < head->n_fields; i++)
		if (span_equal_nocase(span_of(head->fields[i].name), name))
			return head->fields[i].value;
	return (struct span){0};
}

void exchange_respond_object(struct exchange *exchange, const struct answer_head *head,
	struct cache_object *object, enum cache_form form)
{
	if (exchange->ops->respond_object) {
		if (exchange->span)
			exchange_note_answer(exchange, head);
		exchange->ops->respond_object(exchange, head, object, form);
		return;
	}
	struct slice body = {0};
	BUG_ON(!cache_object_slice(object, form, &body));
	exchange_respond(exchange, head, body);
}

/* ---- The span of a request ---- */

void exchange_enter(struct exchange *exchange, struct span traceparent, const char *transport)
{
	exchange->span = trace_span_enter(traceparent, &exchange->trace, exchange->method);
	if (!exchange->span)
		return;
	trace_span_str(exchange->span, "http.request.method", exchange->method);
	trace_span_str(exchange->span, "url.path", exchange->path);
	trace_span_str(exchange->span, "server.address", exchange->host);
	trace_span_text(exchange->span, "network.transport", transport);
}

void exchange_set_route(struct exchange *exchange, const char *method, const char *path)
{
	char name[TRACE_SPAN_NAME_MAX_BYTES + 1];
	if (!exchange->span)
		return;
	snprintf(name, sizeof name, "%s %s", exchange->fetch ? "fetch" : method, path);
	trace_span_name(exchange->span, span_of(name));
	trace_span_text(exchange->span, "http.route", path);
}

/* (OpenTelemetry's conventions for HTTP: a server's span is an error from 500 on) */
void exchange_note_answer(struct exchange *exchange, const struct answer_head *head)
{
	char status[16];
	exchange->answered = true;
	trace_span_int(exchange->span, "http.response.status_code", head->status);
	struct span cache = answer_head_field(head, "x-cache");
	if (cache.len)
		trace_span_str(exchange->span, "gateway.cache.result", cache);
	snprintf(status, sizeof status, "%d", head->status);
	if (head->status >= 500)
		trace_span_fail(exchange->span, status, NULL);
}

void exchange_leave(struct exchange *exchange)
{
	if (exchange->span && !exchange->answered)
		trace_span_fail(exchange->span, "aborted", "the client left");
	trace_span_end(&exchange->span);
}

void exchange_trace_context(const struct exchange *exchange, struct trace_context *context)
{
	context->trace = exchange->trace;
	trace_state_copy(exchange_header(exchange, "tracestate"), context->state);
}
