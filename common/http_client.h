#ifndef COMMON_HTTP_CLIENT_H
#define COMMON_HTTP_CLIENT_H

/*
 * HTTP calls to the outside (libcurl's multi interface on the loop): pooled connections, TLS,
 * HTTP/2 where offered, proxy variables, a deadline and a size limit for every call. Name lookups
 * do not block (threaded resolver).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/slice.h"
#include "common/span.h"

struct loop;
struct http_client;
struct http_call;

struct http_client_options {
	size_t max_connections; /* in all; calls beyond wait */
	size_t max_connections_host;
	size_t max_calls; /* under way or waiting; more fail with HTTP_CALL_BUSY */
	const char *user_agent;
};
extern const struct http_client_options http_client_defaults;

enum http_call_outcome {
	HTTP_CALL_OK,      /* a complete response, whatever its status */
	HTTP_CALL_CONNECT, /* name lookup, refused, unreachable, TLS: the request was not sent */
	HTTP_CALL_TIMEOUT,
	HTTP_CALL_RESET,     /* the connection broke before the response was complete */
	HTTP_CALL_TOO_LARGE, /* over max_response_bytes, after decoding */
	HTTP_CALL_BAD,       /* not HTTP, bad encoding */
	HTTP_CALL_BUSY,
};

struct http_call_options {
	const char *method; /* "POST" */
	const char *url;
	const char *const *headers; /* "Name: value", ends with NULL; copied */
	const char *unix_socket;    /* NULL: TCP */
	struct slice body;          /* taken over */
	uint32_t connect_timeout_ms;
	uint32_t timeout_ms; /* the whole call */
	size_t max_response_bytes;
};

struct http_call_result {
	enum http_call_outcome outcome;
	int status;         /* 0 unless a status line was read */
	struct buf *body;   /* decoded; buf_take() what should outlive the callback */
	const char *detail; /* one sentence for a log line when outcome is not HTTP_CALL_OK */
	uint64_t duration_us;
};

/* NULL when libcurl cannot start. */
struct http_client *http_client_new(struct loop *loop, const struct http_client_options *options);
/* Calls under way end without a callback. */
void http_client_free(struct http_client **client);

/* on_done: exactly once, never from inside this call. options are copied. NULL only when out of
 * memory (body released). */
struct http_call *http_client_call(struct http_client *client,
	const struct http_call_options *options,
	void (*on_done)(struct http_call *call, const struct http_call_result *result, void *arg),
	void *arg);
/* Value of a response header, any case; data NULL when absent. Valid inside on_done. */
struct span http_call_header(const struct http_call *call, const char *name);
/* True once any byte of the request may have reached the server. */
bool http_call_sent(const struct http_call *call);
/* No callback comes. Clears the pointer; NULL is fine. */
void http_call_cancel(struct http_call **call);

#endif
