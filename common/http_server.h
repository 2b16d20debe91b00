#ifndef COMMON_HTTP_SERVER_H
#define COMMON_HTTP_SERVER_H

/*
 * HTTP/1.1 server on the loop (RFC 9110, RFC 9112), for front doors: keep-alive, pipelining,
 * chunked bodies both ways, Expect: 100-continue, HEAD, HTTP/1.0; hard limits and timeouts on
 * everything a client controls.
 *
 *   connection --- requests in order ---> struct http_exchange: one request and its one response
 *
 * A connection reads one request at a time: the next pipelined request is looked at when the
 * response before it has been handed to the kernel, so a client costs one exchange and one read
 * buffer.
 *
 * Life of an exchange: on_request (head complete), on_body* and on_body_end if it was accepted,
 * then the handler responds: with http_exchange_respond(), or with _respond_start(), _send()*,
 * _end(). It is over, and the pointer dead, when the response is complete (the call that completes
 * it), or when on_abort was called. No callback is made from inside a call into this module
 * (http_server_free() apart); on_body may follow on_request in the same turn. Slices, though, may
 * be released inside any call; their release functions must not call back into this module.
 *
 * Output is written at the end of the turn in one piece, so a response made of several calls costs
 * one system call.
 *
 * A client that is gone (its connection is reset, or closed for both directions) ends its exchange
 * at once, also while its body is paused. One that shuts only its own side down is served, as RFC
 * 9112 9.6 wants it, but nobody can tell it from one that has closed and gone: it counts as gone
 * when its request is not complete, or when its response has not begun half_close_ms later. While a
 * body is paused, its rest must have come whole, and have a declared length; what the client did
 * behind bytes that did not fit into our receive buffer shows when these are read. A response that
 * is longer or shorter than its declared length is our own error: logged, and the connection reset,
 * since its end could not be told.
 *
 * Bad requests are answered by the server itself with the status the RFCs name and an OpenAI-shaped
 * JSON error, and never reach the handler.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/metrics.h"
#include "common/slice.h"
#include "common/span.h"

struct loop;
struct http_server;
struct http_exchange;

/* Sizes of 0 allow nothing; timeouts of 0 never come. */
struct http_server_options {
	size_t max_head_bytes;    /* request line and header fields together; 431 */
	size_t max_headers;       /* number of fields; 431 */
	size_t max_target_bytes;  /* 414 */
	size_t max_body_bytes;    /* 413 */
	size_t max_connections;   /* further ones wait in the kernel's queue */
	uint32_t idle_timeout_ms; /* keep-alive, no byte of a next request: closed without a word */
	uint32_t header_timeout_ms; /* first byte to the end of the head; 408 */
	/* Between two reads of a body that we are willing to read; 408. For all of one that is
	 * dropped.
	 */
	uint32_t body_timeout_ms;
	uint32_t half_close_ms;    /* see above */
	uint32_t write_timeout_ms; /* client takes no byte of the response for so long: reset */
	/* Nor may it take less than this on average, once it kept us waiting for write_timeout_ms:
	 * what it is sent is held by somebody. 0: any rate will do. */
	uint32_t min_write_bytes_s;
	size_t send_high_water_bytes; /* http_exchange_send() says "enough" above this */
};
extern const struct http_server_options http_server_defaults;

struct http_server_events {
	/*
	 * The head is complete. Before it returns, the handler either responds completely (a body
	 * still to come is skipped, or the connection closed where that is cheaper), or calls
	 * http_exchange_accept() to get the body and respond whenever it likes.
	 */
	void (*on_request)(struct http_exchange *exchange, void *arg);
	/*
	 * Optional, for the access log: exactly once for each request, when the kernel has all of
	 * the response or the client is gone. The request can still be asked about. For requests
	 * that the server refused by itself too: then method, target and headers are what was
	 * understood, possibly nothing. status is what was sent, 499 when the client went before
	 * there was a response. bytes_in and bytes_out count bodies, without heads and chunk
	 * framing; duration_us runs from the first byte of the request.
	 */
	void (*on_finished)(struct http_exchange *exchange, int status, uint64_t bytes_in,
		uint64_t bytes_out, uint64_t duration_us, void *arg);
};

struct http_exchange_events {
	/* Some bytes of the body, decoded, borrowed for the call. */
	void (*on_body)(struct span data, void *arg);
	/* The body is complete (also called, once, when there is none). */
	void (*on_body_end)(void *arg);
	/* After http_exchange_send() said "enough": go on. */
	void (*on_drain)(void *arg);
	/* The client is gone, or its body was bad or too late and the server answered. The exchange
	 * is dead. */
	void (*on_abort)(void *arg);
};

/* options are copied. NULL when out of memory. */
struct http_server *http_server_new(struct loop *loop, const struct http_server_options *options,
	const struct http_server_events *events, void *arg);
/* Serve a bound, listening socket, which the server closes in the end. 0, or -1 with errno. */
int http_server_listen(struct http_server *server, int fd);
/* Soon to drain: everything is served as before, but responses say Connection: close, so that
 * clients that ask again and again have left before the connections in use are closed. */
void http_server_retire(struct http_server *server);
/*
 * Drain: take no new connection, close idle ones, answer what is under way with Connection: close.
 * on_drained (may be NULL) is called when the last connection is gone.
 */
void http_server_drain(struct http_server *server, void (*on_drained)(void *arg), void *arg);
/* Closes everything at once; on_abort is called for what was under way. */
void http_server_free(struct http_server **server);
size_t http_server_connections(const struct http_server *server);
/* Count requests, how long they take, and connections, in http_server_families: for listeners whose
 * daemon does not count them itself. No page may be made of these metrics after the server is
 * freed. */
extern const struct metric_family http_server_families[];
void http_server_measure(struct http_server *server, struct metrics *metrics);

/* The request. Spans are borrowed until the exchange is over. */
struct span http_exchange_method(const struct http_exchange *exchange);
struct span http_exchange_target(const struct http_exchange *exchange); /* origin-form, as sent */
struct span http_exchange_path(const struct http_exchange *exchange); /* target without the query */
struct span http_exchange_host(
	const struct http_exchange *exchange); /* "" for HTTP/1.0 without Host */
/* The value of the first field of that name, any case; data is NULL when there is none. */
struct span http_exchange_header(const struct http_exchange *exchange, const char *name);
size_t http_exchange_header_count(const struct http_exchange *exchange);
void http_exchange_header_at(
	const struct http_exchange *exchange, size_t index, struct span *name, struct span *value);
/* The declared length, 0 without a body, -1 for a chunked body. */
int64_t http_exchange_content_length(const struct http_exchange *exchange);
/* Numeric address of the client, "unix" for a Unix socket. */
const char *http_exchange_peer(const struct http_exchange *exchange);
/* A pointer of the handler's, NULL at first, kept until on_finished: for what the access log wants
 * to say. */
void http_exchange_set_context(struct http_exchange *exchange, void *context);
void *http_exchange_context(const struct http_exchange *exchange);

/* The traceparent of the exchange, for what the server has to log about it: borrowed until the
 * exchange is over. */
void http_exchange_set_trace(struct http_exchange *exchange, const char *traceparent);

/* Take the exchange on, from inside on_request: events fire from now on. events must outlive the
 * exchange; any of them may be NULL. Tells a client that waits for it to send its body (100). */
void http_exchange_accept(
	struct http_exchange *exchange, const struct http_exchange_events *events, void *arg);
/* Stop and go on reading the body from the client (backpressure): neither on_body nor on_body_end
 * while paused. */
void http_exchange_pause(struct http_exchange *exchange);
void http_exchange_resume(struct http_exchange *exchange);
/* The body comes too slowly for the handler's taste: 408 and on_abort, as after body_timeout_ms.
 * Nothing happens if bytes of it wait to be read: then it is not the client who is slow. */
void http_exchange_time_out(struct http_exchange *exchange);

/*
 * Respond. header_lines is a block of complete "Name: value\r\n" lines made with http_header_add(),
 * copied. The server adds Date, Content-Length or Transfer-Encoding, and Connection; for HEAD, 204
 * and 304 it drops the body. Slices are taken over, whatever happens.
 */
void http_exchange_respond(struct http_exchange *exchange, int status, struct span header_lines,
	struct slice *body, size_t n_slices);
/* content_length -1: chunked (HTTP/1.0: until close). */
void http_exchange_respond_start(struct http_exchange *exchange, int status,
	struct span header_lines, int64_t content_length);
/* true: go on; false: enough, wait for on_drain (the slice was taken all the same). */
bool http_exchange_send(struct http_exchange *exchange, struct slice data);
void http_exchange_end(struct http_exchange *exchange);
/* Give up in the middle of a response: the connection is reset so that the client notices. No
 * on_abort. */
void http_exchange_reset(struct http_exchange *exchange);

/* Append one field line. -1 (and a failed buffer) for a name or value that RFC 9110 5.1, 5.5 does
 * not allow. */
int http_header_add(struct buf *lines, const char *name, struct span value);
/* "OK" for 200. */
const char *http_status_reason(int status);

#endif
