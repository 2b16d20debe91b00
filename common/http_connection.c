#include "common/http_server_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"

/* A pipelining client gets no more than this before others have their turn. */
#define MAX_REQUESTS_A_TURN 32

static void set_state(struct http_connection *c, enum http_state state)
{
	c->state = state;
	c->rewatch = true;
}

static void finish_exchange(struct http_connection *c)
{
	struct http_exchange *x = c->exchange;
	struct http_server *server = c->server;
	if (x->finished || !(x->in_handler || x->responding))
		return;
	x->finished = true;
	int status = x->responding ? x->status : 499;
	uint64_t duration_us = loop_now_us(server->loop) - x->started_us;
	http_metrics_ended(server, http_exchange_method(x), status, duration_us);
	if (server->events.on_finished)
		server->events.on_finished(x, status, x->body.decoded_bytes, x->out.body_bytes,
			duration_us, server->arg);
}

static void drop_exchange(struct http_connection *c)
{
	struct http_exchange *x = c->exchange;
	c->exchange = NULL;
	http_exchange_free(x);
}

static void abort_exchange(struct http_exchange *x)
{
	const struct http_exchange_events *events = x->events;
	x->events = NULL;
	if (events && events->on_abort)
		events->on_abort(x->arg);
}

void http_connection_close(struct http_connection *c)
{
	if (c->state == HTTP_STATE_CLOSED)
		return;
	set_state(c, HTTP_STATE_CLOSED);
	if (c->exchange) {
		if (!c->exchange->responded)
			abort_exchange(c->exchange);
		finish_exchange(c);
		drop_exchange(c);
	}
	event_del(&c->read_event);
	event_del(&c->write_event);
	http_hangup_watch(c, HTTP_HANGUP_NONE);
	if (c->reset) {
		struct linger now = {.l_onoff = 1};
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	}
	close(c->fd);
	free(c->stash);
	c->stash = NULL;
	http_server_forget(c);
	loop_defer(c->server->loop, &c->run);
}

void http_connection_free(struct http_connection *c)
{
	loop_defer_cancel(c->server->loop, &c->run);
	TAILQ_REMOVE(&c->server->connections, c, link);
	c->magic = 0;
	free(c);
}

void http_connection_flush(struct http_connection *c)
{
	struct http_output *out = &c->exchange->out;
	struct loop *loop = c->server->loop;
	if (c->blocked || c->broken || c->more_output || out->count == 0)
		return;
	/* What is small goes out at once: it is done sooner than it could be put off. */
	if (out->queued_bytes > HTTP_WRITE_BYTES / 2 && loop_slice_is_over(loop)) {
		c->more_output = true;
		loop_queue(loop, &c->run);
		return;
	}
	bool wrote;
	size_t before = out->queued_bytes;
	enum http_flush result = http_output_flush(out, c->fd, &wrote);
	c->pace.bytes += before - out->queued_bytes;
	if (out->count == 0)
		c->pace.since_us = 0;
	if (wrote)
		c->wrote = true;
	if (result == HTTP_FLUSH_FAILED)
		c->broken = true;
	else if (result == HTTP_FLUSH_BLOCKED)
		c->blocked = true;
	else if (result == HTTP_FLUSH_MORE) {
		c->more_output = true;
		loop_queue(loop, &c->run);
	}
}

static const struct http_refusal late_body = {408, "The request body did not arrive in time."};

/* The steps. Each returns true if there may be more to do at once. */

static bool step_idle(struct http_connection *c)
{
	if (c->in_len == 0)
		return false;
	if (c->turns_left-- == 0) {
		loop_queue(c->server->loop, &c->run);
		return false;
	}
	c->exchange = http_exchange_new(c);
	if (!c->exchange) {
		c->broken = true;
		return false;
	}
	c->exchange->started_us = loop_now_us(c->server->loop);
	set_state(c, HTTP_STATE_HEAD);
	return true;
}

/* Answers for the handler, with what was understood of the request for the access log. */
static void refuse_head(struct http_connection *c, const struct http_refusal *refusal)
{
	struct http_exchange *x = c->exchange;
	struct http_head *head = &x->head;
	if (http_exchange_keep_head(x, c->in, head->line_at)) {
		head->n_fields = 0;
		head->method.len = head->target.len = head->host.len = 0;
		head->absolute = false;
	}
	x->is_head = span_equal(http_exchange_method(x), SPAN_LITERAL("HEAD"));
	http_exchange_refuse(x, refusal);
	set_state(c, HTTP_STATE_ANSWERED);
}

static bool step_head(struct http_connection *c)
{
	struct http_exchange *x = c->exchange;
	struct http_head *head = &x->head;
	enum http_result result = http_head_parse(head, c->in, c->in_len);
	if (result == HTTP_MORE) {
		c->broken = c->eof;
		return false;
	}
	if (result == HTTP_BAD) {
		refuse_head(c, &head->refusal);
		return true;
	}
	if (http_exchange_keep_head(x, c->in, head->head_bytes)) {
		c->broken = true;
		return false;
	}
	http_input_consume(c, head->head_bytes);
	http_body_init(&x->body, head);
	x->body_done = head->framing == HTTP_FRAMING_NONE;
	x->wants_body = head->expect_continue && !x->body_done;
	x->is_head = span_equal(http_exchange_method(x), SPAN_LITERAL("HEAD"));
	x->in_handler = true;
	set_state(c, HTTP_STATE_EXCHANGE);
	c->server->events.on_request(x, c->server->arg);
	/* A handler that did neither would never be heard of again. */
	BUG_ON(!x->events && !x->responded && !c->broken);
	return true;
}

/* The handler's exchange ends by our answer, or by a cut when half of its own is on the way. */
static void refuse_body(struct http_connection *c, const struct http_refusal *refusal)
{
	struct http_exchange *x = c->exchange;
	if (x->responding) {
		c->broken = c->reset = true;
		return;
	}
	http_exchange_refuse(x, refusal);
	set_state(c, HTTP_STATE_ANSWERED);
	abort_exchange(x);
}

/* Gives one piece of the body to the handler. */
static bool step_body(struct http_connection *c)
{
	struct http_exchange *x = c->exchange;
	const char *at = c->in;
	struct span piece;
	enum http_body_result result = http_body_parse(&x->body, &at, c->in + c->in_len, &piece);
	http_input_consume(c, (size_t)(at - c->in));
	switch (result) {
	case HTTP_BODY_MORE:
		return false;
	case HTTP_BODY_DATA:
		if (x->events->on_body)
			x->events->on_body(piece, x->arg);
		break;
	case HTTP_BODY_END:
		x->body_done = true;
		break;
	case HTTP_BODY_BAD:
		refuse_body(c, &x->body.refusal);
		break;
	}
	return true;
}

static bool step_exchange(struct http_connection *c)
{
	struct http_exchange *x = c->exchange;
	if (x->responded) {
		set_state(c, HTTP_STATE_ANSWERED);
		return true;
	}
	if (x->late && !x->body_done) {
		refuse_body(c, &late_body);
		return true;
	}
	if (!x->paused && !x->body_done) {
		if (step_body(c))
			return true;
		c->broken = c->eof;
	} else if (!x->paused && !x->end_told) {
		x->end_told = true;
		if (x->events->on_body_end)
			x->events->on_body_end(x->arg);
		return true;
	}
	http_connection_flush(c);
	if (x->wants_drain && !c->broken &&
		x->out.queued_bytes <= c->server->options.send_high_water_bytes / 2) {
		x->wants_drain = false;
		if (x->events->on_drain)
			x->events->on_drain(x->arg);
		return true;
	}
	return false;
}

/* Reads over what is left of a body that nobody wants. */
static void skip_body(struct http_connection *c)
{
	struct http_exchange *x = c->exchange;
	while (!x->body_done && !c->closing) {
		const char *at = c->in;
		struct span piece;
		enum http_body_result result = http_body_parse(
			&x->body, &at, c->in + c->in_len, &piece);
		http_input_consume(c, (size_t)(at - c->in));
		if (result == HTTP_BODY_MORE)
			return;
		if (result == HTTP_BODY_END)
			x->body_done = true;
		else if (result == HTTP_BODY_BAD ||
			 (x->skipped_bytes += piece.len) > HTTP_SKIP_BYTES)
			c->closing = c->linger = true;
	}
	if (!x->body_done) {
		/* Closing: LINGER will drop it without looking. */
		c->linger = true;
		x->body_done = true;
	}
}

static bool step_answered(struct http_connection *c)
{
	struct http_exchange *x = c->exchange;
	http_connection_flush(c);
	if (c->broken)
		return false;
	if (x->out.count == 0)
		finish_exchange(c);
	skip_body(c);
	if (x->out.count > 0 || !x->body_done)
		return false;
	bool closing = c->closing || (c->eof && c->in_len == 0);
	drop_exchange(c);
	if (!closing) {
		set_state(c, HTTP_STATE_IDLE);
		return true;
	}
	if (!c->linger || c->eof) {
		http_connection_close(c);
		return false;
	}
	shutdown(c->fd, SHUT_WR);
	set_state(c, HTTP_STATE_LINGER);
	return true;
}

static bool step(struct http_connection *c)
{
	switch (c->state) {
	case HTTP_STATE_IDLE:
		return step_idle(c);
	case HTTP_STATE_HEAD:
		return step_head(c);
	case HTTP_STATE_EXCHANGE:
		return step_exchange(c);
	case HTTP_STATE_ANSWERED:
		return step_answered(c);
	case HTTP_STATE_LINGER:
		c->in_len = 0;
		return false;
	case HTTP_STATE_CLOSED:
		return false;
	}
	return false;
}

static bool wants_input(const struct http_connection *c)
{
	const struct http_exchange *x = c->exchange;
	if (c->eof)
		return false;
	if (c->state != HTTP_STATE_EXCHANGE && c->state != HTTP_STATE_ANSWERED)
		return true;
	if (c->state == HTTP_STATE_EXCHANGE && x->paused && !x->end_told)
		return false;
	/* Behind a busy exchange we read on, up to a bound, since that is how we hear that the
	 * client is gone. */
	return !x->body_done || c->in_len < HTTP_SCRATCH_BYTES;
}

static enum http_hangup wanted_hangup(const struct http_connection *c)
{
	return c->reading       ? HTTP_HANGUP_NONE
	       : c->half_closed ? HTTP_HANGUP_BROKEN
				: HTTP_HANGUP_ANY;
}

static enum http_watch wanted_watch(const struct http_connection *c)
{
	switch (c->state) {
	case HTTP_STATE_IDLE:
		/* With input it waits for its turn, not for the client. */
		return c->in_len > 0 ? HTTP_WATCH_NONE : HTTP_WATCH_IDLE;
	case HTTP_STATE_HEAD:
		return HTTP_WATCH_HEAD;
	case HTTP_STATE_LINGER:
		return HTTP_WATCH_LINGER;
	default:
		break;
	}
	const struct http_exchange *x = c->exchange;
	if (c->blocked)
		return HTTP_WATCH_WRITE;
	if (c->half_closed && c->state == HTTP_STATE_EXCHANGE && !x->responding)
		return HTTP_WATCH_GONE;
	bool answering = c->state == HTTP_STATE_EXCHANGE && (x->paused || x->responded);
	if (x->body_done || answering)
		return HTTP_WATCH_NONE;
	return HTTP_WATCH_BODY;
}

static bool too_slow(struct http_connection *c)
{
	const struct http_server *server = c->server;
	return c->blocked &&
	       http_pace_too_slow(&c->pace, http_output_unsent(c->fd), loop_now_us(server->loop),
		       server->watch_us[HTTP_WATCH_WRITE], server->options.min_write_bytes_s);
}

/* After the steps: register for what they wait for, and until when. */
static void settle(struct http_connection *c)
{
	if (c->state == HTTP_STATE_IDLE && c->in_len == 0 && c->server->draining) {
		http_connection_close(c);
		return;
	}
	if (too_slow(c)) {
		c->broken = c->reset = true;
		return;
	}
	bool read = wants_input(c);
	if (read != c->reading) {
		c->reading = read;
		if (read ? event_add(&c->read_event, NULL) : event_del(&c->read_event))
			c->broken = true;
	}
	if (http_hangup_watch(c, wanted_hangup(c)))
		c->broken = true;
	if (c->blocked != c->writing) {
		c->writing = c->blocked;
		if (c->blocked ? event_add(&c->write_event, NULL) : event_del(&c->write_event))
			c->broken = true;
	}
	enum http_watch watch = wanted_watch(c);
	/* A body that is dropped has so long altogether. */
	bool more_body = c->got_input && c->state == HTTP_STATE_EXCHANGE;
	if (watch != c->watch || c->rewatch || (watch == HTTP_WATCH_BODY && more_body) ||
		(watch == HTTP_WATCH_WRITE && c->wrote)) {
		http_server_watch(c, watch);
		if (watch == HTTP_WATCH_WRITE)
			c->unsent_bytes = http_output_unsent(c->fd);
	}
	c->rewatch = c->got_input = c->wrote = false;
}

static void run(struct http_connection *c)
{
	BUG_ON(c->magic != HTTP_CONNECTION_MAGIC || c->running);
	c->running = true;
	c->turns_left = MAX_REQUESTS_A_TURN;
	c->more_output = false;
	/* It may have been paused while it waited for its turn. */
	if (c->read_due && wants_input(c) && !c->broken)
		http_input_read(c);
	c->read_due = false;
	while (!c->broken && step(c))
		;
	if (!c->broken && c->state != HTTP_STATE_CLOSED)
		http_input_keep(c);
	if (!c->broken && c->state != HTTP_STATE_CLOSED)
		settle(c);
	c->running = false;
	if (c->broken)
		http_connection_close(c);
}

static void run_deferred(void *arg)
{
	struct http_connection *c = arg;
	BUG_ON(c->magic != HTTP_CONNECTION_MAGIC);
	if (c->state == HTTP_STATE_CLOSED)
		http_connection_free(c);
	else
		run(c);
}

void http_connection_wake(struct http_connection *c)
{
	if (!c->running && c->state != HTTP_STATE_CLOSED)
		loop_defer(c->server->loop, &c->run);
}

/* At once while the slice of this turn lasts, else from the queue, when it is this one's turn. The
 * kernel is not to tell of the event again in every turn until then; to say so takes time too. */
static void run_soon(struct http_connection *c, struct event *event, bool *registered)
{
	struct loop *loop = c->server->loop;
	if (!deferred_scheduled(&c->run) && !loop_slice_is_over(loop)) {
		run(c);
		return;
	}
	loop_queue(loop, &c->run);
	if (!loop_slice_is_over(loop) || loop_turn_is_full(loop))
		return;
	*registered = false;
	event_del(event);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct http_connection *c = arg;
	BUG_ON(c->magic != HTTP_CONNECTION_MAGIC);
	if (c->state == HTTP_STATE_CLOSED)
		return;
	c->read_due = true;
	run_soon(c, &c->read_event, &c->reading);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct http_connection *c = arg;
	BUG_ON(c->magic != HTTP_CONNECTION_MAGIC);
	if (c->state == HTTP_STATE_CLOSED)
		return;
	c->blocked = false;
	run_soon(c, &c->write_event, &c->writing);
}

void http_connection_hung_up(struct http_connection *c, bool broken)
{
	BUG_ON(c->magic != HTTP_CONNECTION_MAGIC);
	if (c->state == HTTP_STATE_CLOSED)
		return;
	const struct http_exchange *x = c->exchange;
	c->half_closed = true;
	if (broken ||
		(x && !x->body_done && http_body_left(&x->body) > c->in_len + http_input_unread(c)))
		c->broken = true;
	run(c);
}

void http_connection_drain(struct http_connection *c)
{
	if (c->state != HTTP_STATE_IDLE)
		return;
	c->read_due = c->in_len == 0;
	run(c);
}

void http_connection_timed_out(struct http_connection *c)
{
	static const struct http_refusal late_head = {
		408, "The request header did not arrive in time."};
	/* A call of this turn may have changed what we wait for: then nobody is late. */
	if (c->watch != wanted_watch(c)) {
		run(c);
		return;
	}
	switch (c->watch) {
	case HTTP_WATCH_HEAD:
		refuse_head(c, &late_head);
		break;
	case HTTP_WATCH_BODY:
		if (c->state == HTTP_STATE_EXCHANGE)
			refuse_body(c, &late_body);
		else
			c->broken = true;
		break;
	case HTTP_WATCH_WRITE:
		if (http_output_unsent(c->fd) < c->unsent_bytes && !too_slow(c)) {
			c->unsent_bytes = http_output_unsent(c->fd);
			http_server_watch(c, HTTP_WATCH_WRITE);
			return;
		}
		c->broken = c->reset = true;
		break;
	default:
		c->broken = true;
		break;
	}
	run(c);
}

int http_connection_open(struct http_server *server, int fd, const char *peer)
{
	struct http_connection *c = calloc(1, sizeof *c);
	if (!c) {
		close(fd);
		return -1;
	}
	c->magic = HTTP_CONNECTION_MAGIC;
	c->fd = fd;
	c->server = server;
	c->watch = HTTP_WATCH_NONE;
	snprintf(c->peer, sizeof c->peer, "%s", peer);
	struct event_base *base = loop_base(server->loop);
	event_assign(&c->read_event, base, fd, EV_READ | EV_PERSIST, on_readable, c);
	event_assign(&c->write_event, base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
	deferred_init(&c->run, run_deferred, c);
	if (event_add(&c->read_event, NULL)) {
		close(fd);
		free(c);
		return -1;
	}
	c->reading = true;
	TAILQ_INSERT_TAIL(&server->connections, c, link);
	server->n_open++;
	http_server_watch(c, HTTP_WATCH_IDLE);
	return 0;
}
