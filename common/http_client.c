#include "common/http_client.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>
#include <event2/event.h>
#include <event2/event_struct.h>

#include "common/http_client_easy.h"
#include "common/http_inflate.h"
#include "common/loop.h"

/*
 * A call's way: http_client_call() makes it and gives it to libcurl (or, when that cannot be,
 * defers its failure); it ends in call_end(), by libcurl's message, by its deadline or by that
 * deferred failure, or without a word in http_call_cancel(), which the client's end uses too.
 *
 * on_done() may do anything, the client's end included. So a call leaves libcurl and every list
 * before its on_done(), and whoever runs one holds the client by client_enter() and client_leave().
 */

/* The head of a response, all header lines together. */
#define HEADERS_MAX (64u << 10)
/* Easy handles kept: setting one up from nothing costs as much as a call. */
#define IDLE_MAX 64
/* Of an answer, until others have their turn. */
#define TURN_BYTES (128u << 10)

struct http_client {
	struct loop *loop;
	CURLM *multi;
	struct timer *timer;
	struct deferred kick; /* libcurl wants to be called at once */
	size_t max_calls, n_calls;
	struct http_call *calls;
	char *user_agent, *ca_file;
	CURL *idle[IDLE_MAX];
	size_t n_idle;
	unsigned entered;
	bool doomed;
};

struct http_call {
	struct http_client *client;
	struct http_call *next, **prev;
	CURL *easy; /* NULL once the call is over */
	bool in_multi;
	struct curl_slist *headers_out;
	struct slice body_out;
	struct timer *deadline;
	uint64_t started_us;

	struct buf body, head; /* head: the lines of the final response's head */
	size_t head_bytes;
	size_t turn_bytes; /* of the body, since read_on */
	struct deferred read_on;
	struct http_inflate *inflate; /* NULL: the body is as it comes */
	bool keep_encoding, body_began;
	bool head_complete, sent;
	unsigned sends, max_sends;
	char error[CURL_ERROR_SIZE];

	enum http_call_outcome failure; /* of a call that could not start */
	struct deferred fail_later;

	void (*on_done)(struct http_call *call, const struct http_call_result *result, void *arg);
	void (*on_piece)(struct buf *body, void *arg);
	void *arg;
	bool finishing;
};

const struct http_client_options http_client_defaults = {
	.max_connections = 256,
	.max_connections_host = 64,
	.max_calls = 4096,
	.user_agent = "embedding-gateway",
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool curl_ready;

static void start_curl(void)
{
	curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

static void client_destroy(struct http_client *c);

static void client_enter(struct http_client *c)
{
	c->entered++;
}

static void client_leave(struct http_client *c)
{
	if (--c->entered == 0 && c->doomed)
		client_destroy(c);
}

/* --- easy handles --- */

static int status_of(const struct http_call *call)
{
	long status = 0;
	/* Before that the handle still has the status of another call. */
	if (call->sent)
		curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	return status >= 200 && status <= 999 ? (int)status : 0; /* interim ones do not count */
}

/* False for an encoding that nobody asked for. */
static bool begin_body(struct http_call *call)
{
	struct span encoding = http_call_header(call, "content-encoding");
	call->body_began = true;
	if (call->keep_encoding || http_inflate_is_identity(encoding))
		return true;
	call->inflate = http_inflate_new(encoding);
	return call->inflate != NULL;
}

/* libcurl reads as long as there is something, megabytes in one turn: the rest waits for the next,
 * and libcurl gives it again. */
static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct http_call *call = arg;
	size_t len = size * n, before = call->body.len;
	enum http_inflate_progress progress = HTTP_INFLATE_FULL;
	if (!call->body_began && !begin_body(call))
		return CURL_WRITEFUNC_ERROR;
	if (call->turn_bytes < TURN_BYTES) {
		progress = HTTP_INFLATE_MORE;
		if (call->inflate)
			progress = http_inflate_piece(call->inflate, (struct span){data, len},
				TURN_BYTES - call->turn_bytes, &call->body);
		else if (buf_append(&call->body, data, len) != 0)
			progress = HTTP_INFLATE_BAD;
		call->turn_bytes += call->body.len - before;
		if (call->on_piece && status_of(call) == 200)
			call->on_piece(&call->body, call->arg);
	}
	if (progress == HTTP_INFLATE_BAD)
		return CURL_WRITEFUNC_ERROR;
	if (progress == HTTP_INFLATE_MORE)
		return len;
	loop_defer(call->client->loop, &call->read_on);
	return CURL_WRITEFUNC_PAUSE;
}

/* One line of a head, interim responses and trailers included: of those only the size counts, since
 * libcurl keeps them all. */
static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct http_call *call = arg;
	size_t len = size * n;
	call->head_bytes += len;
	if (call->head_bytes > HEADERS_MAX)
		return CURL_WRITEFUNC_ERROR;
	if (len >= 5 && memcmp(data, "HTTP/", 5) == 0) {
		buf_clear(&call->head);
		call->head_complete = false;
	}
	if (call->head_complete)
		return len;
	if (len <= 2 && (data[0] == '\r' || data[0] == '\n')) {
		call->head_complete = true;
		return len;
	}
	return buf_append(&call->head, data, len) == 0 ? len : CURL_WRITEFUNC_ERROR;
}

/* The connection stands and the request is about to be written. */
static int on_ready_to_send(
	void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	(void)remote_ip;
	(void)local_ip;
	(void)remote_port;
	(void)local_port;
	struct http_call *call = arg;
	if (call->max_sends && call->sends == call->max_sends) {
		snprintf(call->error, sizeof call->error,
			"the server closed a kept connection without an answer");
		return CURL_PREREQFUNC_ABORT;
	}
	call->sent = true;
	call->sends++;
	return CURL_PREREQFUNC_OK;
}

static CURL *easy_take(struct http_client *c)
{
	return c->n_idle ? c->idle[--c->n_idle] : http_client_easy_new(c->user_agent, c->ca_file);
}

static void easy_give_back(struct http_client *c, CURL *easy)
{
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, (char *)NULL);
	if (c->n_idle < IDLE_MAX && !c->doomed)
		c->idle[c->n_idle++] = easy;
	else
		curl_easy_cleanup(easy);
}

#define SET(option, value) (rc = rc ? rc : curl_easy_setopt(easy, (option), (value)))
static CURLcode set_call(struct http_call *call, const struct http_call_options *options)
{
	CURL *easy = call->easy;
	CURLcode rc = http_client_easy_set(easy, options, &call->headers_out);
	SET(CURLOPT_ERRORBUFFER, call->error);
	SET(CURLOPT_PRIVATE, call);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, call);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, call);
	SET(CURLOPT_PREREQFUNCTION, on_ready_to_send);
	SET(CURLOPT_PREREQDATA, call);
	return rc;
}
#undef SET

/* --- the end of a call --- */

/* Out of libcurl and out of every list; what is left is what on_done() may look at. */
static void call_detach(struct http_call *call)
{
	struct http_client *c = call->client;
	loop_defer_cancel(c->loop, &call->fail_later);
	loop_defer_cancel(c->loop, &call->read_on);
	timer_free(&call->deadline);
	if (call->in_multi)
		curl_multi_remove_handle(c->multi, call->easy);
	if (call->easy)
		easy_give_back(c, call->easy);
	call->easy = NULL;
	curl_slist_free_all(call->headers_out);
	call->headers_out = NULL;
	slice_release(&call->body_out);
	*call->prev = call->next;
	if (call->next)
		call->next->prev = call->prev;
	c->n_calls--;
}

static void call_free(struct http_call *call)
{
	buf_free(&call->body);
	buf_free(&call->head);
	http_inflate_free(&call->inflate);
	free(call);
}

static enum http_call_outcome outcome_of(const struct http_call *call, CURLcode code)
{
	switch (code) {
	case CURLE_OK:
		if (call->inflate && !http_inflate_ended(call->inflate))
			return HTTP_CALL_BAD;
		/* libcurl takes a connection that closes inside a head for the end of a response.
		 */
		return call->head_complete && status_of(call) ? HTTP_CALL_OK : HTTP_CALL_RESET;
	case CURLE_WRITE_ERROR:
		return buf_failed(&call->body) ? HTTP_CALL_TOO_LARGE : HTTP_CALL_BAD;
	case CURLE_BAD_CONTENT_ENCODING:
	case CURLE_WEIRD_SERVER_REPLY:
		return HTTP_CALL_BAD;
	case CURLE_UNSUPPORTED_PROTOCOL: /* a URL's scheme, or an answer of HTTP/0.9 */
		return call->sent ? HTTP_CALL_BAD : HTTP_CALL_CONNECT;
	case CURLE_RECV_ERROR:
		/* libcurl 7.88 tells a bad chunk from a broken connection by words alone. */
		if (call->sent && strstr(call->error, "chunk"))
			return HTTP_CALL_BAD;
		break;
	default:
		break;
	}
	return call->sent ? HTTP_CALL_RESET : HTTP_CALL_CONNECT;
}

static void call_end(struct http_call *call, enum http_call_outcome outcome, const char *detail)
{
	struct http_client *c = call->client;
	struct http_call_result result = {
		.outcome = outcome,
		.status = status_of(call),
		.body = &call->body,
		.detail = outcome == HTTP_CALL_OK ? NULL : detail,
		.duration_us = loop_now_us(c->loop) - call->started_us,
	};
	client_enter(c);
	call->finishing = true;
	call_detach(call);
	call->on_done(call, &result, call->arg);
	call_free(call);
	client_leave(c);
}

static void on_deadline(void *arg)
{
	call_end(arg, HTTP_CALL_TIMEOUT, "no complete response before the deadline");
}

static void on_fail_later(void *arg)
{
	struct http_call *call = arg;
	call_end(call, call->failure, call->error);
}

/* Calls that libcurl has ended. */
static void client_collect(struct http_client *c)
{
	CURLMsg *message;
	int left;
	client_enter(c);
	while (!c->doomed && (message = curl_multi_info_read(c->multi, &left))) {
		if (message->msg != CURLMSG_DONE)
			continue;
		struct http_call *call = NULL;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
		CURLcode code = message->data.result;
		const char *detail = code == CURLE_OK ? "connection closed inside the head"
				     : call->error[0] ? call->error
						      : curl_easy_strerror(code);
		call_end(call, outcome_of(call, code), detail);
	}
	client_leave(c);
}

/* --- libcurl's sockets and timer on the loop --- */

struct socket {
	struct http_client *client;
	struct event event;
	int what; /* CURL_POLL_* */
};

static void on_socket_ready(evutil_socket_t fd, short what, void *arg)
{
	struct http_client *c = ((struct socket *)arg)->client;
	int running, mask = (what & EV_READ ? CURL_CSELECT_IN : 0) |
			    (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
	curl_multi_socket_action(c->multi, fd, mask, &running);
	client_collect(c);
}

static void read_on(void *arg)
{
	struct http_call *call = arg;
	struct http_client *c = call->client;
	call->turn_bytes = 0;
	client_enter(c);
	/* What on_body() refuses of what was held back, libcurl says here and nowhere else. */
	CURLcode code = curl_easy_pause(call->easy, CURLPAUSE_CONT);
	if (code != CURLE_OK)
		call_end(call, outcome_of(call, code), curl_easy_strerror(code));
	client_collect(c);
	client_leave(c);
}

static int on_socket_wanted(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	(void)easy;
	struct http_client *c = arg;
	struct socket *s = socket_arg;
	if (s && s->what == what)
		return 0;
	if (s)
		event_del(&s->event);
	if (what == CURL_POLL_REMOVE) {
		free(s);
		curl_multi_assign(c->multi, fd, NULL);
		return 0;
	}
	if (!s) {
		/* Without memory the socket stays unwatched, and the call ends at its deadline. To
		 * say so here would make libcurl give up the whole client. */
		s = calloc(1, sizeof *s);
		if (!s)
			return 0;
		s->client = c;
		curl_multi_assign(c->multi, fd, s);
	}
	s->what = what;
	short events = EV_PERSIST;
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= EV_READ;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= EV_WRITE;
	event_assign(&s->event, loop_base(c->loop), fd, events, on_socket_ready, s);
	event_add(&s->event, NULL);
	return 0;
}

static void on_timer(void *arg)
{
	struct http_client *c = arg;
	int running;
	curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	client_collect(c);
}

static int on_timer_wanted(CURLM *multi, long delay_ms, void *arg)
{
	(void)multi;
	struct http_client *c = arg;
	timer_disarm(c->timer);
	loop_defer_cancel(c->loop, &c->kick);
	if (delay_ms > 0)
		timer_arm(c->timer, (uint64_t)delay_ms);
	else if (delay_ms == 0)
		loop_defer(c->loop, &c->kick); /* this turn: a timer would wait for the next */
	return 0;
}

/* --- the client --- */

static int set_up_multi(struct http_client *c, const struct http_client_options *options)
{
	CURLMcode rc = CURLM_OK;
#define SET(option, value) (rc = rc ? rc : curl_multi_setopt(c->multi, (option), (value)))
	SET(CURLMOPT_SOCKETFUNCTION, on_socket_wanted);
	SET(CURLMOPT_SOCKETDATA, c);
	SET(CURLMOPT_TIMERFUNCTION, on_timer_wanted);
	SET(CURLMOPT_TIMERDATA, c);
	SET(CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)options->max_connections);
	SET(CURLMOPT_MAX_HOST_CONNECTIONS, (long)options->max_connections_host);
	SET(CURLMOPT_MAXCONNECTS, (long)options->max_connections);
#undef SET
	return rc == CURLM_OK ? 0 : -1;
}

static void client_destroy(struct http_client *c)
{
	while (c->n_idle)
		curl_easy_cleanup(c->idle[--c->n_idle]);
	if (c->multi)
		curl_multi_cleanup(c->multi);
	timer_free(&c->timer);
	loop_defer_cancel(c->loop, &c->kick);
	free(c->user_agent);
	free(c->ca_file);
	free(c);
}

struct http_client *http_client_new(struct loop *loop, const struct http_client_options *options)
{
	pthread_once(&once, start_curl);
	if (!curl_ready)
		return NULL;
	struct http_client *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->loop = loop;
	c->max_calls = options->max_calls;
	c->user_agent = strdup(options->user_agent ? options->user_agent : "");
	c->ca_file = options->ca_file ? strdup(options->ca_file) : NULL;
	c->timer = timer_new(loop, on_timer, c);
	deferred_init(&c->kick, on_timer, c);
	c->multi = curl_multi_init();
	if (!c->user_agent || (options->ca_file && !c->ca_file) || !c->timer || !c->multi ||
		set_up_multi(c, options) != 0) {
		client_destroy(c);
		return NULL;
	}
	return c;
}

void http_client_free(struct http_client **client)
{
	struct http_client *c = *client;
	if (!c)
		return;
	*client = NULL;
	client_enter(c);
	c->doomed = true;
	while (c->calls) {
		struct http_call *call = c->calls;
		http_call_cancel(&call);
	}
	client_leave(c);
}

/* --- calls --- */

static void fail_later(struct http_call *call, enum http_call_outcome outcome, const char *detail)
{
	call->failure = outcome;
	if (!call->error[0])
		snprintf(call->error, sizeof call->error, "%s", detail);
	loop_defer(call->client->loop, &call->fail_later);
}

static bool has_line_break(const char *const *headers)
{
	for (; headers && *headers; headers++) {
		if (strpbrk(*headers, "\r\n"))
			return true;
	}
	return false;
}

/* 0, also when the call will fail later; -1 when out of memory. */
static int call_start(struct http_call *call, const struct http_call_options *options)
{
	struct http_client *c = call->client;
	if (c->n_calls > c->max_calls) {
		fail_later(call, HTTP_CALL_BUSY, "too many calls under way");
		return 0;
	}
	if (has_line_break(options->headers)) {
		fail_later(call, HTTP_CALL_UNSENDABLE, "a header with a line break");
		return 0;
	}
	call->easy = easy_take(c);
	if (!call->easy)
		return -1;
	CURLcode code = set_call(call, options);
	if (code == CURLE_OUT_OF_MEMORY)
		return -1;
	if (code != CURLE_OK) {
		fail_later(call, HTTP_CALL_CONNECT, curl_easy_strerror(code));
		return 0;
	}
	if (curl_multi_add_handle(c->multi, call->easy) != CURLM_OK)
		return -1;
	call->in_multi = true;
	timer_arm(call->deadline, options->timeout_ms);
	return 0;
}

struct http_call *http_client_call(struct http_client *client,
	const struct http_call_options *options,
	void (*on_done)(struct http_call *call, const struct http_call_result *result, void *arg),
	void *arg)
{
	struct slice body_out = options->body;
	struct http_call *call = calloc(1, sizeof *call);
	if (!call) {
		slice_release(&body_out);
		return NULL;
	}
	call->client = client;
	call->body_out = body_out;
	call->max_sends = options->max_sends;
	call->on_piece = options->on_piece;
	call->keep_encoding = options->keep_encoding;
	call->on_done = on_done;
	call->arg = arg;
	call->started_us = loop_now_us(client->loop);
	buf_init(&call->body, options->max_response_bytes);
	buf_init(&call->head, HEADERS_MAX);
	deferred_init(&call->fail_later, on_fail_later, call);
	deferred_init(&call->read_on, read_on, call);
	call->next = client->calls;
	call->prev = &client->calls;
	if (call->next)
		call->next->prev = &call->next;
	client->calls = call;
	client->n_calls++;
	call->deadline = timer_new(client->loop, on_deadline, call);
	if (!call->deadline || call_start(call, options) != 0) {
		http_call_cancel(&call);
		return NULL;
	}
	return call;
}

struct span http_call_header_at(const struct http_call *call, const char *name, size_t i)
{
	return http_client_easy_header(&call->head, name, i);
}

bool http_call_sent(const struct http_call *call)
{
	return call->sent;
}

unsigned http_call_sends(const struct http_call *call)
{
	return call->sends;
}

void http_call_cancel(struct http_call **call)
{
	struct http_call *ended = *call;
	*call = NULL;
	if (!ended || ended->finishing)
		return;
	struct http_client *c = ended->client;
	client_enter(c);
	call_detach(ended);
	client_leave(c);
	call_free(ended);
}
