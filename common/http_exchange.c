#include "common/http_server_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"

/* What a response head needs beside the caller's lines. */
#define HEAD_EXTRA_BYTES   256
#define MAX_FREE_EXCHANGES 64

static const char continue_head[] = "HTTP/1.1 100 Continue\r\n\r\n";

struct http_exchange *http_exchange_new(struct http_connection *c)
{
	struct http_server *server = c->server;
	size_t max_headers = server->options.max_headers;
	struct http_exchange *x = SLIST_FIRST(&server->free_exchanges);
	if (x) {
		SLIST_REMOVE_HEAD(&server->free_exchanges, free_link);
		server->n_free_exchanges--;
	} else {
		x = malloc(sizeof *x + max_headers * sizeof x->fields[0]);
		if (!x)
			return NULL;
	}
	/* All but the big arrays, which are written before they are read. */
	memset(x, 0, offsetof(struct http_exchange, out));
	http_output_init(&x->out);
	x->connection = c;
	x->message = x->inline_message;
	http_head_init(&x->head, HTTP_REQUEST, &server->limits, x->fields, (uint32_t)max_headers);
	return x;
}

/* "http://host?query" means "/?query" (RFC 9112, 3.2.1): the host moves over a slash of "://". */
static void give_path(char *message, struct http_head *head)
{
	if (!head->absolute || head->target.len == 0 || message[head->target.at] != '?')
		return;
	memmove(message + head->host.at - 1, message + head->host.at, head->host.len);
	head->host.at--;
	head->target.at--;
	head->target.len++;
	message[head->target.at] = '/';
}

int http_exchange_keep_head(struct http_exchange *x, const char *data, size_t len)
{
	if (len > sizeof x->inline_message) {
		char *message = malloc(len);
		if (!message)
			return -1;
		x->message = message;
	}
	if (len)
		memcpy(x->message, data, len);
	if (len > 0 && len == x->head.head_bytes)
		give_path(x->message, &x->head);
	return 0;
}

void http_exchange_free(struct http_exchange *x)
{
	struct http_server *server = x->connection->server;
	http_output_free(&x->out);
	if (x->message != x->inline_message)
		free(x->message);
	if (server->n_free_exchanges == MAX_FREE_EXCHANGES) {
		free(x);
		return;
	}
	SLIST_INSERT_HEAD(&server->free_exchanges, x, free_link);
	server->n_free_exchanges++;
}

struct span http_exchange_method(const struct http_exchange *x)
{
	return http_text_span(x->message, x->head.method);
}

struct span http_exchange_target(const struct http_exchange *x)
{
	if (x->head.absolute && x->head.target.len == 0)
		return SPAN_LITERAL("/");
	return http_text_span(x->message, x->head.target);
}

struct span http_exchange_path(const struct http_exchange *x)
{
	struct span path = http_exchange_target(x);
	const char *query = path.len ? memchr(path.data, '?', path.len) : NULL;
	if (query)
		path.len = (size_t)(query - path.data);
	return path;
}

struct span http_exchange_host(const struct http_exchange *x)
{
	return http_text_span(x->message, x->head.host);
}

struct span http_exchange_header(const struct http_exchange *x, const char *name)
{
	const struct http_field *field = http_head_field(&x->head, x->message, name);
	return field ? http_text_span(x->message, field->value) : (struct span){NULL, 0};
}

size_t http_exchange_header_count(const struct http_exchange *x)
{
	return x->head.n_fields;
}

void http_exchange_header_at(
	const struct http_exchange *x, size_t index, struct span *name, struct span *value)
{
	BUG_ON(index >= x->head.n_fields);
	*name = http_text_span(x->message, x->head.fields[index].name);
	*value = http_text_span(x->message, x->head.fields[index].value);
}

int64_t http_exchange_content_length(const struct http_exchange *x)
{
	return x->head.framing == HTTP_FRAMING_CHUNKED ? -1 : (int64_t)x->head.content_length;
}

const char *http_exchange_peer(const struct http_exchange *x)
{
	return x->connection->peer;
}

void http_exchange_set_context(struct http_exchange *x, void *context)
{
	x->context = context;
}

void http_exchange_set_trace(struct http_exchange *x, const char *traceparent)
{
	x->traceparent = traceparent;
}

void *http_exchange_context(const struct http_exchange *x)
{
	return x->context;
}

void http_exchange_accept(
	struct http_exchange *x, const struct http_exchange_events *events, void *arg)
{
	struct http_connection *c = x->connection;
	BUG_ON(x->events || x->responded);
	x->events = events;
	x->arg = arg;
	if (!x->wants_body)
		return;
	x->wants_body = false;
	/* A client that did not wait is not told to go on. */
	if (c->in_len == 0 && http_output_add(&x->out, NULL, 0, slice_static(continue_head), false))
		c->broken = true;
	http_connection_wake(c);
}

void http_exchange_pause(struct http_exchange *x)
{
	if (x->paused)
		return;
	x->paused = true;
	http_connection_wake(x->connection);
}

void http_exchange_resume(struct http_exchange *x)
{
	if (!x->paused)
		return;
	x->paused = false;
	http_connection_wake(x->connection);
}

void http_exchange_time_out(struct http_exchange *x)
{
	if (x->paused || x->body_done || http_input_unread(x->connection) > 0)
		return;
	x->late = true;
	http_connection_wake(x->connection);
}

static const char *date_line(struct http_server *server)
{
	uint64_t second = loop_wall_ms(server->loop) / 1000;
	if (second != server->date_second) {
		static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
		static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul",
			"Aug", "Sep", "Oct", "Nov", "Dec"};
		time_t now = (time_t)second;
		struct tm t;
		gmtime_r(&now, &t);
		/* Not strftime(), whose names depend on the locale. */
		snprintf(server->date, sizeof server->date,
			"Date: %s, %02u %s %04u %02u:%02u:%02u GMT\r\n", days[t.tm_wday],
			(unsigned)t.tm_mday % 100, months[t.tm_mon],
			(unsigned)(t.tm_year + 1900) % 10000, (unsigned)t.tm_hour % 100,
			(unsigned)t.tm_min % 100, (unsigned)t.tm_sec % 100);
		server->date_second = second;
	}
	return server->date;
}

/* Appending to memory that is known to be large enough. */
static char *put(char *to, const char *text, size_t len)
{
	memcpy(to, text, len);
	return to + len;
}

static char *put_number(char *to, uint64_t n)
{
	char digits[20];
	size_t at = sizeof digits;
	do
		digits[--at] = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	return put(to, digits + at, sizeof digits - at);
}

#define PUT(to, literal) put((to), literal, sizeof(literal) - 1)

/* Whether this response is the last one of its connection. complete: all of it is given now. */
static void decide_closing(struct http_exchange *x, bool complete)
{
	struct http_connection *c = x->connection;
	if (!x->head.keep_alive)
		c->closing = true;
	if (c->server->retiring && !c->closing)
		c->closing = c->linger = true;
	if (x->body_done || (x->events && !complete))
		return;
	/* Nobody will ask for the rest of the body: read it only if that is little. */
	uint64_t left = http_body_left(&x->body);
	if (x->wants_body || (left != UINT64_MAX && left > HTTP_SKIP_BYTES))
		c->closing = c->linger = true;
}

static bool status_has_no_body(int status)
{
	return status == 204 || status == 304;
}

static int start_response(struct http_exchange *x, int status, struct span lines,
	int64_t content_length, bool complete)
{
	struct http_connection *c = x->connection;
	BUG_ON(x->responding);
	BUG_ON(status < 200 || status > 599 || content_length < -1);
	x->responding = true;
	x->status = status;
	x->no_body = x->is_head || status_has_no_body(status);
	x->left_bytes = content_length;
	x->first_chunk = true;
	if (content_length < 0 && x->head.minor_version == 0 && !x->no_body)
		c->closing = true;
	else
		x->chunked = content_length < 0;
	decide_closing(x, complete);

	size_t size = lines.len + HEAD_EXTRA_BYTES;
	char *head = size <= sizeof x->inline_response ? x->inline_response : malloc(size);
	if (!head)
		return -1;
	const char *reason = http_status_reason(status);
	char *to = PUT(head, "HTTP/1.1 ");
	to = put_number(to, (uint64_t)status);
	*to++ = ' ';
	to = put(to, reason, strlen(reason));
	to = PUT(to, "\r\n");
	const char *date = date_line(c->server);
	to = put(to, date, strlen(date));
	if (lines.len)
		to = put(to, lines.data, lines.len);
	if (!status_has_no_body(status) && content_length >= 0) {
		to = PUT(to, "Content-Length: ");
		to = put_number(to, (uint64_t)content_length);
		to = PUT(to, "\r\n");
	} else if (!status_has_no_body(status) && x->chunked && x->head.minor_version > 0) {
		to = PUT(to, "Transfer-Encoding: chunked\r\n");
	}
	if (c->closing)
		to = PUT(to, "Connection: close\r\n");
	else if (x->head.minor_version == 0)
		to = PUT(to, "Connection: keep-alive\r\n");
	to = PUT(to, "\r\n");
	size_t len = (size_t)(to - head);
	BUG_ON(len > size);
	struct slice slice = {.data = head, .len_bytes = len};
	if (head != x->inline_response)
		slice = slice_malloced(head, len);
	return http_output_add(&x->out, NULL, 0, slice, false);
}

/* Nothing sensible can follow: the client must notice that something is missing. */
static void cut_off(struct http_exchange *x)
{
	x->connection->broken = x->connection->reset = true;
}

static void complete(struct http_exchange *x)
{
	x->responded = true;
	http_connection_wake(x->connection);
}

void http_exchange_respond(struct http_exchange *x, int status, struct span header_lines,
	struct slice *body, size_t n_slices)
{
	int64_t total = 0;
	for (size_t i = 0; i < n_slices; i++)
		total += (int64_t)body[i].len_bytes;
	int failed = start_response(x, status, header_lines, total, true);
	for (size_t i = 0; i < n_slices; i++) {
		struct slice slice = body[i];
		body[i] = (struct slice){0};
		if (failed || x->no_body)
			slice_release(&slice);
		else
			failed = http_output_add(&x->out, NULL, 0, slice, true);
	}
	if (failed)
		cut_off(x);
	complete(x);
}

void http_exchange_respond_start(
	struct http_exchange *x, int status, struct span header_lines, int64_t content_length)
{
	if (start_response(x, status, header_lines, content_length, false))
		cut_off(x);
	http_connection_wake(x->connection);
}

static int add_chunk(struct http_exchange *x, struct slice data)
{
	char prefix[HTTP_PREFIX_BYTES + 1];
	int n = snprintf(
		prefix, sizeof prefix, "%s%zx\r\n", x->first_chunk ? "" : "\r\n", data.len_bytes);
	x->first_chunk = false;
	return http_output_add(&x->out, prefix, (size_t)n, data, true);
}

static void log_wrong_length(const struct http_exchange *x, const char *sentence)
{
	log_fields(
		LOG_LEVEL_ERROR, x->traceparent, sentence, LOG_STR("client", x->connection->peer));
}

bool http_exchange_send(struct http_exchange *x, struct slice data)
{
	struct http_connection *c = x->connection;
	BUG_ON(!x->responding || x->responded);
	if (x->no_body || data.len_bytes == 0 || c->broken) {
		slice_release(&data);
		return true;
	}
	if (x->left_bytes >= 0) {
		if ((uint64_t)data.len_bytes > (uint64_t)x->left_bytes) {
			log_wrong_length(x, "response longer than its Content-Length");
			slice_release(&data);
			cut_off(x);
			http_connection_wake(c);
			return true;
		}
		x->left_bytes -= (int64_t)data.len_bytes;
	}
	if (x->chunked ? add_chunk(x, data) : http_output_add(&x->out, NULL, 0, data, true))
		cut_off(x);
	size_t high = c->server->options.send_high_water_bytes;
	/* The turn's end would do, but then the caller had to stop although the kernel has room. */
	if (x->out.queued_bytes > high && !c->blocked && !c->broken)
		http_connection_flush(c);
	http_connection_wake(c);
	if (x->out.queued_bytes <= high)
		return true;
	x->wants_drain = true;
	return false;
}

void http_exchange_end(struct http_exchange *x)
{
	struct http_connection *c = x->connection;
	BUG_ON(!x->responding || x->responded);
	if (x->no_body || c->broken) {
		complete(x);
		return;
	}
	if (x->left_bytes > 0) {
		log_wrong_length(x, "response shorter than its Content-Length");
		cut_off(x);
	} else if (x->chunked) {
		struct slice last = slice_static(x->first_chunk ? "0\r\n\r\n" : "\r\n0\r\n\r\n");
		if (http_output_add(&x->out, NULL, 0, last, false))
			cut_off(x);
	}
	/* A long rest of the request is not worth waiting for, now that all is said. */
	uint64_t left = x->body_done ? 0 : http_body_left(&x->body);
	if (left != UINT64_MAX && left > HTTP_SKIP_BYTES)
		c->closing = c->linger = true;
	complete(x);
}

void http_exchange_reset(struct http_exchange *x)
{
	BUG_ON(x->responded);
	cut_off(x);
	complete(x);
}

static const char *error_code(int status)
{
	switch (status) {
	case 408:
		return "request_timeout";
	case 413:
		return "request_too_large";
	case 414:
		return "uri_too_long";
	case 417:
		return "expectation_failed";
	case 431:
		return "headers_too_large";
	case 501:
		return "not_implemented";
	case 505:
		return "http_version_not_supported";
	default:
		return "bad_request";
	}
}

void http_exchange_refuse(struct http_exchange *x, const struct http_refusal *refusal)
{
	struct http_connection *c = x->connection;
	c->closing = c->linger = true;
	x->body_done = true;
	char json[512];
	int n = snprintf(json, sizeof json,
		"{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\",\"param\":null,"
		"\"code\":\"%s\"}}",
		refusal->reason, error_code(refusal->status));
	BUG_ON(n < 0 || (size_t)n >= sizeof json);
	char *copy = malloc((size_t)n);
	if (!copy) {
		cut_off(x);
		complete(x);
		return;
	}
	memcpy(copy, json, (size_t)n);
	struct slice body = slice_malloced(copy, (size_t)n);
	http_exchange_respond(
		x, refusal->status, SPAN_LITERAL("Content-Type: application/json\r\n"), &body, 1);
}
