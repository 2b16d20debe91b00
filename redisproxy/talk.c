#include "redisproxy/talk.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/buf.h"
#include "redisproxy/proxy.h"
#include "redisproxy/resp.h"
#include "redisproxy/server.h"
#include "redisproxy/tls.h"

enum state { CONNECTING, HANDSHAKE, OPEN, CLOSED };

struct talk {
	struct server *server;
	const struct talk_events *events;
	void *arg;
	enum state state;
	bool has_answered;
	bool is_busy, is_freed; /* freed when its callback is over */
	int fd;
	struct event *read_event, *write_event;
	struct tls_session *tls;
	struct buf out;
	redisReader *reader;
	size_t fed; /* bytes since the last reply */
};

static void destroy(struct talk *talk)
{
	if (talk->read_event)
		event_free(talk->read_event);
	if (talk->write_event)
		event_free(talk->write_event);
	tls_close(&talk->tls);
	if (talk->fd >= 0)
		close(talk->fd);
	if (talk->reader)
		redisReaderFree(talk->reader);
	buf_free(&talk->out);
	free(talk);
}

void talk_free(struct talk **talk_)
{
	struct talk *talk = *talk_;

	*talk_ = NULL;
	if (!talk)
		return;
	talk->is_freed = true;
	talk->state = CLOSED;
	if (!talk->is_busy)
		destroy(talk);
}

static void fail(struct talk *talk, const char *why)
{
	if (talk->state == CLOSED)
		return;
	if (talk->state < OPEN)
		server_failed(talk->server);
	talk->state = CLOSED;
	event_del(talk->read_event);
	event_del(talk->write_event);
	talk->events->on_closed(why, talk->arg);
}

static void flush(struct talk *talk)
{
	while (talk->state == OPEN && talk->out.len) {
		ssize_t n = talk->tls ? tls_write(talk->tls, talk->out.data, talk->out.len)
				      : send(talk->fd, talk->out.data, talk->out.len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			event_add(talk->write_event, NULL);
			return;
		}
		if (n <= 0) {
			fail(talk, "the connection was lost");
			return;
		}
		buf_consume(&talk->out, (size_t)n);
	}
	if (talk->state == OPEN)
		event_del(talk->write_event);
}

static void handshake(struct talk *talk)
{
	enum tls_step step = talk->tls ? tls_handshake(talk->tls) : TLS_DONE;

	switch (step) {
	case TLS_DONE:
		talk->state = OPEN;
		server_connected(talk->server);
		flush(talk);
		break;
	case TLS_WANTS_READ:
		event_del(talk->write_event);
		break;
	case TLS_WANTS_WRITE:
		event_add(talk->write_event, NULL);
		break;
	case TLS_FAILED:
		fail(talk, tls_error(talk->tls));
	}
}

static void on_connected(struct talk *talk)
{
	int error = 0;
	socklen_t len = sizeof error;

	getsockopt(talk->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error) {
		fail(talk, strerror(error));
		return;
	}
	talk->state = HANDSHAKE;
	event_add(talk->read_event, NULL);
	handshake(talk);
}

static void feed(struct talk *talk, const char *data, size_t len)
{
	void *reply = NULL;
	int rc;

	talk->fed += len;
	talk->has_answered = true;
	redisReaderFeed(talk->reader, data, len);
	while ((rc = redisReaderGetReply(talk->reader, &reply)) == REDIS_OK && reply) {
		talk->fed = 0;
		if (talk->state == OPEN)
			talk->events->on_reply(reply, talk->arg);
		freeReplyObject(reply);
		reply = NULL;
	}
	if (rc != REDIS_OK || talk->fed > TALK_MAX_REPLY)
		fail(talk, "its answer is no RESP");
}

static void read_some(struct talk *talk)
{
	char data[4096];

	while (talk->state == OPEN) {
		ssize_t n = talk->tls ? tls_read(talk->tls, data, sizeof data)
				      : read(talk->fd, data, sizeof data);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			fail(talk, talk->has_answered || talk->tls
					   ? "the connection was lost"
					   : "it closes the connection without an answer: does it "
					     "want TLS (--tls)?");
			return;
		}
		feed(talk, data, (size_t)n);
	}
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct talk *talk = arg;

	(void)fd;
	talk->is_busy = true;
	if (talk->state == CONNECTING)
		on_connected(talk);
	else if (talk->state == HANDSHAKE)
		handshake(talk);
	else if (what & EV_WRITE)
		flush(talk);
	if (talk->state == OPEN && (what & EV_READ))
		read_some(talk);
	talk->is_busy = false;
	if (talk->is_freed)
		destroy(talk);
}

/* ---- the reader ---- */

#if HIREDIS_MAJOR < 1
typedef int elements;
#else
typedef size_t elements;
#endif
static void *(*create_array)(const redisReadTask *task, elements n);

static void *create_bounded_array(const redisReadTask *task, elements n)
{
	return n <= TALK_MAX_ELEMENTS ? create_array(task, n) : NULL;
}

redisReader *talk_reader_new(void)
{
	static redisReplyObjectFunctions bounded;
	redisReader *reader = redisReaderCreate();

	if (!reader)
		return NULL;
	if (!create_array) {
		bounded = *reader->fn;
		create_array = bounded.createArray;
		bounded.createArray = create_bounded_array;
	}
	reader->fn = &bounded;
	return reader;
}

/* ---- a connection ---- */

struct talk *talk_new(struct server *server, const struct talk_events *events, void *arg)
{
	struct proxy *proxy = server_proxy(server);
	struct event_base *base = loop_base(proxy->loop);
	int fd = server_connect(server);

	if (fd < 0)
		return NULL;
	struct talk *talk = calloc(1, sizeof *talk);

	if (!talk) {
		close(fd);
		errno = ENOMEM;
		return NULL;
	}
	talk->server = server;
	talk->events = events;
	talk->arg = arg;
	talk->fd = fd;
	buf_init(&talk->out, TALK_MAX_UNSENT);
	talk->read_event = event_new(base, fd, EV_READ | EV_PERSIST, on_event, talk);
	talk->write_event = event_new(base, fd, EV_WRITE | EV_PERSIST, on_event, talk);
	talk->reader = talk_reader_new();
	if (!talk->read_event || !talk->write_event || !talk->reader ||
		server_open_tls(server, fd, &talk->tls) < 0) {
		talk_free(&talk);
		errno = ENOMEM;
		return NULL;
	}
	event_add(talk->write_event, NULL);
	return talk;
}

bool talk_shakes_hands(const struct talk *talk)
{
	return talk->state == HANDSHAKE;
}

int talk_say(struct talk *talk, const struct span *argv, uint32_t argc)
{
	resp_append_command(&talk->out, argv, argc);
	if (buf_failed(&talk->out))
		return -1;
	if (talk->state == OPEN)
		event_add(talk->write_event, NULL);
	return 0;
}

bool talk_auth(struct talk *talk, const char *user, const char *password)
{
	struct span argv[3] = {SPAN_LITERAL("AUTH")};
	uint32_t n = 1;

	if (!*password)
		return false;
	if (*user)
		argv[n++] = span_of(user);
	argv[n++] = span_of(password);
	return talk_say(talk, argv, n) == 0;
}
