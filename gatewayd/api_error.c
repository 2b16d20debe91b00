#include "gatewayd/api_error.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/buf.h"
#include "common/json.h"

static const char *type_of(int status)
{
	switch (status) {
	case 401:
		return "authentication_error";
	case 403:
		return "permission_error";
	case 429:
		return "rate_limit_error";
	default:
		return status < 500 ? "invalid_request_error" : "api_error";
	}
}

void api_error_set(struct api_error *error, int status, const char *param, const char *code,
	const char *fmt, ...)
{
	*error = (struct api_error){
		.status = status, .type = type_of(status), .param = param, .code = code};
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(error->message, sizeof error->message, fmt, ap);
	va_end(ap);
}

static void append_or_null(struct buf *body, const char *text)
{
	if (text)
		json_append_string(body, span_of(text));
	else
		buf_append_str(body, "null");
}

void api_error_respond(
	struct exchange *exchange, const struct api_error *error, const char *x_cache)
{
	struct buf body = BUF_INIT(4096);
	buf_append_str(&body, "{\"error\":{\"message\":");
	json_append_string(&body, span_of(error->message));
	buf_append_str(&body, ",\"type\":");
	append_or_null(&body, error->type);
	buf_append_str(&body, ",\"param\":");
	append_or_null(&body, error->param);
	buf_append_str(&body, ",\"code\":");
	append_or_null(&body, error->code);
	buf_append_str(&body, "}}\n");

	struct answer_head head = {.status = error->status};
	char retry_after[24];
	answer_head_add(&head, "Content-Type", SPAN_LITERAL("application/json"));
	if (error->retry_after_ms > 0) {
		snprintf(retry_after, sizeof retry_after, "%" PRId64,
			(error->retry_after_ms + 999) / 1000);
		answer_head_add(&head, "Retry-After", span_of(retry_after));
	}
	if (error->accept_encoding)
		answer_head_add(&head, "Accept-Encoding", span_of(error->accept_encoding));
	if (error->allow)
		answer_head_add(&head, "Allow", span_of(error->allow));
	if (x_cache)
		answer_head_add(&head, "X-Cache", span_of(x_cache));
	size_t len = 0;
	void *data = buf_take(&body, &len);
	exchange_respond(exchange, &head, slice_malloced(data, len));
}
