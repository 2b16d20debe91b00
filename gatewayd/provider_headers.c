#include "gatewayd/provider_headers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add(struct provider_headers *headers, size_t *n, const char *name, const char *value)
{
	if (!value || !*value)
		return 0;
	if (asprintf(&headers->lines[*n], "%s: %s", name, value) < 0) {
		headers->lines[*n] = NULL;
		return -1;
	}
	++*n;
	return 0;
}

static int add_trace(struct provider_headers *headers, size_t *n, const struct trace_context *trace)
{
	char text[TRACE_PARENT_LEN + 1];
	trace_format(&trace->trace, text);
	if (add(headers, n, "Traceparent", text) < 0)
		return -1;
	headers->traceparent = headers->lines[*n - 1] + strlen("Traceparent: ");
	return add(headers, n, "Tracestate", trace->state);
}

int provider_headers_write(struct provider_headers *headers, bool has_body,
	const struct trace_context *trace, const struct credential *credential)
{
	size_t n = 0;
	if (has_body && add(headers, &n, "Content-Type", "application/json") < 0)
		return -1;
	if (trace && add_trace(headers, &n, trace) < 0)
		return -1;
	if (!credential)
		return 0;
	if (add(headers, &n, "Authorization", credential->authorization) < 0 ||
		add(headers, &n, "OpenAI-Organization", credential->organization) < 0 ||
		add(headers, &n, "OpenAI-Project", credential->project) < 0)
		return -1;
	return 0;
}

void provider_headers_free(struct provider_headers *headers)
{
	for (size_t i = 0; headers->lines[i]; i++)
		free(headers->lines[i]);
	*headers = (struct provider_headers){0};
}
