#include "gatewayd/provider_attempt.h"

#include <stdio.h>
#include <string.h>

#include "common/retry.h"

#define RETRY_AFTER_MAX_MS 3600000

void provider_attempt_report(
	const struct provider_watch *watch, const struct provider_attempt *attempt)
{
	if (watch->on_attempt)
		watch->on_attempt(attempt, watch->arg);
}

const char *provider_attempt_status(
	const struct http_call_result *result, char text[PROVIDER_STATUS_BYTES])
{
	static const char *const outcomes[] = {[HTTP_CALL_CONNECT] = "connect",
		[HTTP_CALL_TIMEOUT] = "timeout",
		[HTTP_CALL_RESET] = "reset",
		[HTTP_CALL_TOO_LARGE] = "broken",
		[HTTP_CALL_BAD] = "broken",
		[HTTP_CALL_BUSY] = "busy",
		[HTTP_CALL_UNSENDABLE] = "unsendable"};
	if (result->outcome != HTTP_CALL_OK)
		return outcomes[result->outcome];
	/* Not every number that a server may say becomes a label. */
	if (result->status < 100 || result->status > 599)
		return "broken";
	snprintf(text, PROVIDER_STATUS_BYTES, "%d", result->status);
	return text;
}

enum provider_next provider_attempt_next(const struct http_call_result *result)
{
	switch (result->outcome) {
	case HTTP_CALL_CONNECT:
	case HTTP_CALL_RESET:
	case HTTP_CALL_TIMEOUT:
		return PROVIDER_NEXT_ANY;
	case HTTP_CALL_BAD:
	case HTTP_CALL_TOO_LARGE:
		return PROVIDER_NEXT_OTHER;
	case HTTP_CALL_OK:
		return result->status == 408 || result->status == 409 || result->status == 429 ||
				       result->status >= 500
			       ? PROVIDER_NEXT_ANY
			       : PROVIDER_NEXT_NONE;
	default:
		return PROVIDER_NEXT_NONE;
	}
}

static void describe_status(const struct http_call_result *result, int64_t retry_after_ms,
	struct span content_type, struct provider_result *failure)
{
	/* A redirect, another 2xx or 3xx, or no status of HTTP: nothing a caller can use. */
	if (result->status < 400 || result->status > 599) {
		failure->outcome = PROVIDER_BROKEN;
		failure->status = 502;
		failure->detail = "the provider answered with an unexpected status";
		return;
	}
	failure->outcome = PROVIDER_REFUSED;
	failure->status = result->status;
	failure->body = (struct span){(char *)result->body->data, result->body->len};
	failure->content_type = content_type;
	/* When to come back is said of every fault of the provider. */
	failure->retry_after_ms = result->status >= 500 && retry_after_ms < 0 ? 1000
									      : retry_after_ms;
	failure->detail = "the provider refused the request";
}

void provider_attempt_failure(const struct http_call_result *result, int64_t retry_after_ms,
	struct span content_type, struct provider_result *failure)
{
	*failure = (struct provider_result){
		.outcome = PROVIDER_UNREACHABLE, .status = 503, .retry_after_ms = 1000};
	switch (result->outcome) {
	case HTTP_CALL_OK:
		failure->retry_after_ms = retry_after_ms;
		describe_status(result, retry_after_ms, content_type, failure);
		return;
	case HTTP_CALL_TIMEOUT:
		failure->outcome = PROVIDER_TIMEOUT;
		failure->status = 504;
		failure->retry_after_ms = -1;
		failure->detail = "the provider did not answer in time";
		return;
	case HTTP_CALL_CONNECT:
		failure->detail = "the provider cannot be reached";
		return;
	case HTTP_CALL_RESET:
		failure->detail = "the provider closed the connection";
		return;
	case HTTP_CALL_BUSY:
		failure->detail = "too many calls to the provider are under way";
		return;
	case HTTP_CALL_UNSENDABLE:
		failure->outcome = PROVIDER_BROKEN;
		failure->status = 502;
		failure->retry_after_ms = -1;
		failure->detail = "the request cannot be sent to the provider";
		return;
	default:
		failure->outcome = PROVIDER_BROKEN;
		failure->status = 502;
		failure->retry_after_ms = -1;
		failure->detail = "the provider's answer is not valid HTTP or too large";
		return;
	}
}

/* ---- The span ---- */

/* A user and a password in the URL are nobody's business. */
static void set_url(struct trace_span *span, const char *url)
{
	char text[2200];
	const char *host = strstr(url, "://");
	host = host ? host + 3 : url;
	size_t authority = strcspn(host, "/?");
	const char *at = memrchr(host, '@', authority);
	snprintf(text, sizeof text, "%.*s%s", (int)(host - url), url, at ? at + 1 : host);
	trace_span_text(span, "url.full", text);
	host = at ? at + 1 : host;
	trace_span_str(span, "server.address", (struct span){host, strcspn(host, "/?")});
}

/* (OpenTelemetry's conventions for HTTP: one span an attempt) */
struct trace_span *provider_attempt_begin(const struct trace *parent, char *traceparent,
	const char *method, const char *url, unsigned tries)
{
	struct trace ours;
	struct trace_span *span = trace_span_begin(
		parent, &ours, TRACE_SPAN_CLIENT, span_of(method));
	if (!span)
		return NULL;
	if (traceparent)
		trace_format(&ours, traceparent);
	trace_span_text(span, "http.request.method", method);
	set_url(span, url);
	if (tries > 1)
		trace_span_int(span, "http.request.resend_count", tries - 1);
	return span;
}

void provider_attempt_end(
	struct trace_span **span, const struct http_call_result *result, const char *status)
{
	if (!*span)
		return;
	if (result->status)
		trace_span_int(*span, "http.response.status_code", result->status);
	if (result->outcome != HTTP_CALL_OK || result->status >= 400)
		trace_span_fail(*span, status, result->detail);
	trace_span_end(span);
}

int64_t provider_attempt_retry_after_ms(const struct http_call *http, uint64_t now_ms)
{
	char text[64];
	struct span value = http_call_header(http, "retry-after");
	if (!value.data || value.len >= sizeof text)
		return -1;
	memcpy(text, value.data, value.len);
	text[value.len] = '\0';
	return retry_after_parse_ms(text, now_ms, RETRY_AFTER_MAX_MS);
}
