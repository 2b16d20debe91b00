#ifndef GATEWAYD_PROVIDER_ATTEMPT_H
#define GATEWAYD_PROVIDER_ATTEMPT_H

/* What one HTTP call to a provider comes to: its status as a label, who is told of it, its span,
 * whether another one may follow, and what the caller hears when none does. */
#include <stdint.h>

#include "common/http_client.h"
#include "common/span.h"
#include "common/trace_span.h"
#include "gatewayd/provider.h"

/* One HTTP call of a purchase, or of a list, that has ended. Borrowed for the callback. */
struct provider_attempt {
	const char *provider; /* "openai", "ollama" */
	const char *service;  /* its place: as of the breaker */
	struct span model;    /* empty: a list of models */
	const char *status;   /* "200", "429"...; connect, timeout, reset, busy; broken: no use */
	uint64_t duration_us;
	uint64_t tokens; /* that the answer says were paid for */
};
/* Told of each. */
struct provider_watch {
	void (*on_attempt)(const struct provider_attempt *attempt, void *arg);
	void *arg;
};
void provider_attempt_report(
	const struct provider_watch *watch, const struct provider_attempt *attempt);

/* A span of the attempt, below parent, if that is recorded; tries: attempts before this one and
 * itself. traceparent (may be NULL) becomes that of the attempt. */
struct trace_span *provider_attempt_begin(const struct trace *parent, char *traceparent,
	const char *method, const char *url, unsigned tries);
void provider_attempt_end(
	struct trace_span **span, const struct http_call_result *result, const char *status);

#define PROVIDER_STATUS_BYTES 12
/* The status of a call that is over, as above; text may hold it. */
const char *provider_attempt_status(
	const struct http_call_result *result, char text[PROVIDER_STATUS_BYTES]);

/* What Retry-After asks for, an hour at most; -1: nothing, or not to be understood. */
int64_t provider_attempt_retry_after_ms(const struct http_call *http, uint64_t now_ms);

/* Where the same may be asked after this. */
enum provider_next {
	PROVIDER_NEXT_NONE,
	/* An answer that is no use is never asked for again where it came from: it may be paid for.
	 */
	PROVIDER_NEXT_OTHER,
	PROVIDER_NEXT_ANY,
};
enum provider_next provider_attempt_next(const struct http_call_result *result);
/* Of a call that brought nothing. failure borrows from result and content_type. */
void provider_attempt_failure(const struct http_call_result *result, int64_t retry_after_ms,
	struct span content_type, struct provider_result *failure);

#endif
