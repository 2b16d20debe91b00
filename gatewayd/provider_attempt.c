#include "gatewayd/provider_attempt.h"

#include <stdio.h>

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
		[HTTP_CALL_BUSY] = "busy"};
	if (result->outcome != HTTP_CALL_OK)
		return outcomes[result->outcome];
	/* Not every number that a server may say becomes a label. */
	if (result->status < 100 || result->status > 599)
		return "broken";
	snprintf(text, PROVIDER_STATUS_BYTES, "%d", result->status);
	return text;
}
