#ifndef COMMON_HTTP_CLIENT_H
#define COMMON_HTTP_CLIENT_H

/*
 * HTTP calls to the outside (libcurl's multi interface on the loop): pooled connections, TLS,
 * HTTP/2 where offered over TLS, a deadline and a size limit for every call. Redirects are answers
 * like any other. The proxy variables of the environment hold (https_proxy, no_proxy...), but not
 * for Unix sockets. Name lookups do not block (threaded resolver). A request on a kept connection
 * that the server closes without a byte of answer is sent again by libcurl itself, up to five times
 * while it finds kept connections: max_sends bounds that, http_call_sends() tells of it.
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
	const char *ca_file; /* PEM; NULL: the system's */
};
extern const struct http_client_options http_client_defaults;

enum http_call_outcome {
	HTTP_CALL_OK,        /* a complete response, whatever its status */
	HTTP_CALL_CONNECT,   /* URL, name lookup, refused, unreachable, TLS, no connection within
				connect_timeout_ms: the request was not sent */
	HTTP_CALL_TIMEOUT,   /* timeout_ms passed; http_call_sent() tells how far it came */
	HTTP_CALL_RESET,     /* the connection broke before the response was complete */
	HTTP_CALL_TOO_LARGE, /* over max_response_bytes, after decoding */
	HTTP_CALL_BAD,       /* not HTTP, bad chunk or encoding, a head of over 64 KiB */
	HTTP_CALL_BUSY,      /* over max_calls; not sent */
	HTTP_CALL_UNSENDABLE /* a header with a line break: the caller's own fault; not sent */
};

/* AWS Signature Version 4, made by libcurl. The header x-amz-content-sha256 (also of a GET) and,
 * for temporary credentials, x-amz-security-token are the caller's to set; all headers are signed.
 */
struct http_call_signature {
	const char *region, *service;
	const char *access_key, *secret;
};

struct http_call_options {
	const char *method;          /* "POST" */
	const char *url;             /* http or https; the path goes out as it is */
	const char *const *headers;  /* "Name: value", ends with NULL, may be NULL; copied */
	const char *unix_socket;     /* NULL: TCP */
	struct slice body;           /* taken over; released before on_done */
	uint32_t connect_timeout_ms; /* 0: timeout_ms alone */
	uint32_t timeout_ms;         /* the whole call, waiting for a connection included */
	size_t max_response_bytes;
	/* NULL: none. Of a 200: more was appended to the body, which this may shorten and
	 * rewrite; max_response_bytes holds for what it leaves. arg as for on_done. */
	void (*on_piece)(struct buf *body, void *arg);
	unsigned max_sends; /* 1: never sent again; 0: as libcurl likes */
	bool keep_encoding; /* the answer's body as it was sent, whatever its Content-Encoding */
	bool direct;        /* never through a proxy, whatever the environment says */
	bool fresh; /* on a new connection, which is not kept: a kept one may lead nowhere */
	const struct http_call_signature *signature; /* NULL: none; copied */
};

struct http_call_result {
	enum http_call_outcome outcome;
	int status;         /* 0 unless the final response's status line was read */
	struct buf *body;   /* decoded, as far as it came; buf_take() what should outlive the
			       callback */
	const char *detail; /* one sentence for a log line when outcome is not HTTP_CALL_OK */
	uint64_t duration_us;
};

/* NULL when libcurl cannot start. */
struct http_client *http_client_new(struct loop *loop, const struct http_client_options *options);
/* Calls under way end without a callback. Also from inside an on_done. */
void http_client_free(struct http_client **client);

/* on_done: exactly once, never from inside this call; it may do anything, and call is gone when it
 * returns. options are copied. NULL only when out of memory (body released, no on_done). */
struct http_call *http_client_call(struct http_client *client,
	const struct http_call_options *options,
	void (*on_done)(struct http_call *call, const struct http_call_result *result, void *arg),
	void *arg);
/* Value of a response header, any case, the i-th of its name from 0, without the blanks around it;
 * data NULL when absent. Valid inside on_done. What may be a list may come in several (RFC 9110
 * 5.3). */
struct span http_call_header_at(const struct http_call *call, const char *name, size_t i);
/* The first. */
static inline struct span http_call_header(const struct http_call *call, const char *name)
{
	return http_call_header_at(call, name, 0);
}
/* True once any byte of the request may have reached the server: never too late, perhaps early. */
bool http_call_sent(const struct http_call *call);
/* How often the request went out, or began to. */
unsigned http_call_sends(const struct http_call *call);
/* No callback comes. Clears the pointer; NULL is fine, and so is the call whose on_done runs. */
void http_call_cancel(struct http_call **call);

#endif
