#include "redisproxy/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>

#include "redisproxy/budget.h"
#include "redisproxy/dispatch.h"
#include "redisproxy/proxy.h"
#include "redisproxy/upstream.h"

#define UNREAD_HIGH   (64 << 10) /* unread bytes, above which a waiting client is not read */
#define HELD_BYTES    (16 << 10) /* unread bytes that are worth moving in front of new ones */
#define PEEK_BYTES    (4 << 10)  /* read of a client whose connection is full */
#define LARGE_COMMAND (256 << 10)

static size_t refuse(struct client *c, const char *error, const char *at)
{
	char text[128];

	if (c->in_flight) {
		c->wait = CLIENT_WAITS_FOR_REPLIES;
		return 0;
	}
	snprintf(text, sizeof text, "ERR %s", error);
	if (strstr(error, "expected '$'"))
		snprintf(text, sizeof text, "ERR %s, got '%c'", error,
			*at >= ' ' && *at <= '~' ? *at : '?');
	client_say_error(c, text);
	stats_count(&c->proxy->stats, STATS_REJECTED, *at == '$' ? "length" : "syntax");
	if (!c->dead)
		client_finish(c);
	return 0;
}

static void settle_large(struct client *c)
{
	c->streaming = false;
	c->scan = (struct resp_command){0};
	if (!c->in_flight)
		dispatch_settle(c);
}

/* More of a large command. Returns bytes used. */
static size_t stream(struct client *c, const char *data, size_t len)
{
	const char *error;

	if (upstream_full(c->own)) {
		client_wait_room(c, c->own);
		return 0;
	}
	enum resp_result result = resp_command_scan(&c->scan, data, len, &error);
	size_t used = c->scan.at;

	if (result == RESP_BAD || upstream_send_more(c->own, data, used) < 0) {
		/* Half a command is on its way: only the end of both connections ends it. */
		client_close(c);
		return 0;
	}
	resp_command_forget(&c->scan, used);
	if (result == RESP_COMPLETE)
		settle_large(c);
	return used;
}

static size_t begin_stream(struct client *c, const char *data)
{
	size_t used = c->scan.at;
	bool named = resp_command_named(&c->scan);

	if (!named)
		return refuse(c, "Protocol error: invalid bulk length", "$");
	if (dispatch_large(c, data, used, data + c->scan.name_at, c->scan.name_len) ==
		DISPATCH_WAITS) {
		c->scan = (struct resp_command){0};
		return 0;
	}
	if (c->dead || c->closing)
		return 0;
	c->streaming = true;
	resp_command_forget(&c->scan, used);
	return used;
}

static size_t take_inline(struct client *c, const char *data, size_t len)
{
	struct buf frame = BUF_INIT(8 << 20);
	const char *error;
	size_t used = 0;
	enum resp_result result = resp_inline(data, len, &used, &frame, &error);

	if (result == RESP_BAD)
		used = refuse(c, error, " ");
	else if (result == RESP_MORE)
		used = 0;
	else if (frame.len &&
		 dispatch_command(c, (const char *)frame.data, frame.len) == DISPATCH_WAITS)
		used = 0;
	buf_free(&frame);
	return used;
}

/* One command or a piece of one. Returns bytes used; 0: no more can be done now. */
static size_t take_one(struct client *c, const char *data, size_t len)
{
	const char *error;

	if (c->own && c->own->raw) {
		if (upstream_full(c->own)) {
			client_wait_room(c, c->own);
			return 0;
		}
		if (upstream_send_more(c->own, data, len) < 0) {
			client_close(c);
			return 0;
		}
		return len;
	}
	if (c->streaming)
		return stream(c, data, len);
	if (*data != '*')
		return take_inline(c, data, len);
	switch (resp_command_scan(&c->scan, data, len, &error)) {
	case RESP_MORE:
		return len >= LARGE_COMMAND ? begin_stream(c, data) : 0;
	case RESP_BAD: {
		const char *at = data + c->scan.at;

		c->scan = (struct resp_command){0};
		return refuse(c, error, at);
	}
	default:
		break;
	}
	size_t used = c->scan.at;
	uint32_t argc = c->scan.argc;

	c->scan = (struct resp_command){0};
	if (argc && dispatch_command(c, data, used) == DISPATCH_WAITS)
		return 0;
	return used;
}

static size_t consume(struct client *c, const char *data, size_t len)
{
	size_t used = 0;

	while (used < len && !c->dead && !c->closing && c->wait == CLIENT_GOES_ON) {
		if (c->in_flight >= (uint32_t)c->proxy->conf->max_in_flight ||
			out_pending(&c->out) + c->held_bytes > CLIENT_OUTPUT_HIGH) {
			c->throttled = true;
			client_mark(c);
			break;
		}
		size_t n = take_one(c, data + used, len - used);

		if (!n)
			break;
		used += n;
	}
	return used;
}

/* May more of it be read now? If not, its bytes stay in the kernel. */
static bool may_read(const struct client *c)
{
	bool held = c->wait != CLIENT_GOES_ON || c->throttled;

	return !c->dead && !c->closing && !c->eof && !c->waits_for_room &&
	       !(held && c->in.len >= UNREAD_HIGH);
}

/* The client has sent its last byte: what it asked for is still answered. */
static void wind_up(struct client *c)
{
	if (c->dead || c->closing)
		return;
	if (c->own && c->own->raw) {
		if (!c->own->ends && !c->in.len)
			upstream_end(c->own);
		return;
	}
	bool all_sent = c->wait == CLIENT_GOES_ON && !c->throttled;

	/* Half a command gets no reply. What waits for others, and has no reader any more, is ended
	 * by pools_sweep(). */
	if (all_sent && c->in_flight == c->streaming)
		client_finish(c);
}

/* Unread commands may be about to go on: what is to be done comes after them. */
static void on_eof(struct client *c)
{
	c->eof = c->again = true;
	client_mark(c);
}

/* So many bytes were read to `data`, in the proxy's scratch space. held: those that were left from
 * before go in front of them there, where room was left. */
static void take(struct client *c, char *data, size_t len, size_t held)
{
	size_t used;

	c->gave_up = c->gave_up && c->in.len;
	if (held || !c->in.len) {
		size_t total = held + len;

		data -= held;
		if (held)
			memcpy(data, c->in.data, held);
		used = consume(c, data, total);
		if (c->dead)
			return;
		buf_clear(&c->in);
		/* Nearly always nothing is left, and nothing need be allocated for it. */
		if (used < total && buf_append(&c->in, data + used, total - used) < 0)
			client_close(c);
	} else if (buf_append(&c->in, data, len) < 0) {
		client_close(c);
	} else {
		used = consume(c, (const char *)c->in.data, c->in.len);
		if (!c->dead)
			buf_consume(&c->in, used);
	}
	if (!c->dead && !c->in.len && c->in.capacity)
		buf_free(&c->in);
	if (c->in.len || c->counted)
		budget_count(c);
}

/* Read once. What there may be more of is read in a later turn. */
static void read_some(struct client *c)
{
	struct proxy *proxy = c->proxy;
	struct upstream *full = c->wait == CLIENT_GOES_ON ? dispatch_full(c) : NULL;

	/* Perhaps its next command goes elsewhere: so much of it is looked at. */
	if (full && c->in.len >= PEEK_BYTES) {
		client_wait_room(c, full);
		return;
	}
	/* What was left is the beginning of a command: moved in front of what comes, unless large.
	 */
	size_t held = c->in.len <= HELD_BYTES ? c->in.len : 0;
	size_t room = full ? PEEK_BYTES : sizeof proxy->scratch - held;
	ssize_t n = recv(c->fd, proxy->scratch + held, room, 0);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		client_close(c);
		return;
	}
	/* The event came once for all the bytes that were there, and for the end behind them. */
	c->readable = n == (ssize_t)room || (n != 0 && c->ends) || (n < 0 && errno == EINTR);
	if (n == 0)
		on_eof(c);
	else if (n > 0)
		take(c, proxy->scratch + held, (size_t)n, held);
	upstream_keep(proxy);
	if (c->readable && may_read(c)) {
		c->again = true;
		client_mark(c);
	}
}

void client_continue(struct client *c)
{
	c->again = false;
	if (c->dead)
		return;
	if (c->in.len) {
		size_t used = consume(c, (const char *)c->in.data, c->in.len);

		if (c->dead)
			return;
		buf_consume(&c->in, used);
		if (!c->in.len)
			buf_free(&c->in);
	}
	if (c->readable && may_read(c))
		read_some(c);
	if (c->eof)
		wind_up(c);
}

void client_on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct client *c = arg;
	int error = 0;
	socklen_t len = sizeof error;

	proxy_note_time(c->proxy);
	c->readable = true;
	c->ends = c->ends || (what & EV_CLOSED);
	if (may_read(c))
		read_some(c);
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error)
		client_close(c); /* a reset: nobody waits for anything any more */
}
