#ifndef GATEWAYD_API_ERROR_H
#define GATEWAYD_API_ERROR_H

/*
 * An error in the shape that OpenAI's SDKs understand:
 *   {"error":{"message":"…","type":"invalid_request_error","param":"input","code":null}}
 * (https://platform.openai.com/docs/guides/error-codes)
 */
#include <stdint.h>

#include "gatewayd/exchange.h"

struct api_error {
	int status;                  /* 0: no error */
	const char *type;            /* "invalid_request_error", "api_error" … */
	const char *param;           /* NULL: null */
	const char *code;            /* NULL: null */
	int64_t retry_after_ms;      /* -1 or 0: no Retry-After */
	const char *allow;           /* for 405 */
	const char *accept_encoding; /* for 415: what is understood */
	char message[256];
};

/* Fill *error; the message says what is wrong and what is allowed, without quoting the caller's
 * text. */
void api_error_set(struct api_error *error, int status, const char *param, const char *code,
	const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Answer with it; the exchange is dead. x_cache may be NULL. */
void api_error_respond(
	struct exchange *exchange, const struct api_error *error, const char *x_cache);

#endif
