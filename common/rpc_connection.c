#include "common/rpc_connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/rpc_descriptor.h"
#include "common/rpc_out.h"
#include "common/wire.h"

#define READ_BYTES (64u << 10) /* the buffer of a connection that gets no larger frame */
/* One read holds thousands of small frames: after so long it is another one's turn (loop_queue), so
 * that a peer that asks for what is expensive waits by itself. */
#define PIECE_US 100

/* Buffers of answering ends up to this size are not counted: one holds any frame of up to
 * RPC_RECEIVE_LEAST_BYTES and room for the next read. */
#define SMALL_IN_BYTES (128u << 10)
_Static_assert(SMALL_IN_BYTES - READ_BYTES / 4 >= RPC_RECEIVE_LEAST_BYTES, "see make_room()");

/* What buffers of answering ends take beyond that, in the whole process. */
static size_t large_in_bytes;

struct rpc_connection {
	struct loop *loop;
	int fd;
	struct event *read_event, *write_event;
	struct deferred flush;
	struct deferred go_on; /* scheduled: frames wait in the buffer, or it waits to be read */
	const struct rpc_connection_events *events;
	void *arg;

	uint8_t *in; /* unread bytes are in[in_at .. in_len) */
	size_t in_at, in_len, in_capacity;
	struct wire_scan scan; /* of the frame that begins at in_at */

	struct rpc_out out;
	const char *broken; /* the reason, until flush() reports it */

	int descriptor; /* that came, -1: none */
	bool expecting; /* one may come */

	unsigned hold; /* stack frames in here: memory stays */
	bool answering;
	bool keep_socket;
	bool eof; /* the peer has closed its end */
	bool paused;
	bool congested;
	bool deaf;   /* writing failed: what the peer still sent is read, then it is lost */
	bool lost;   /* on_lost was called */
	bool closed; /* _free was called */
};

static void lose(struct rpc_connection *c, int code, const char *reason);

static size_t large_part(size_t capacity)
{
	return capacity > SMALL_IN_BYTES ? capacity - SMALL_IN_BYTES : 0;
}

/* Takes the memory over. */
static void set_buffer(struct rpc_connection *c, uint8_t *in, size_t capacity)
{
	if (c->answering)
		large_in_bytes += large_part(capacity) - large_part(c->in_capacity);
	c->in = in;
	c->in_capacity = capacity;
}

static void free_buffer(struct rpc_connection *c)
{
	free(c->in);
	set_buffer(c, NULL, 0);
	c->in_at = c->in_len = 0;
}

static void hold(struct rpc_connection *c)
{
	c->hold++;
}

static void unhold(struct rpc_connection *c)
{
	if (--c->hold || !c->closed)
		return;
	const struct rpc_connection_events *events = c->events;
	void *arg = c->arg;
	rpc_out_clear(&c->out);
	free_buffer(c);
	free(c);
	if (events->on_free)
		events->on_free(arg);
}

static void set_reading(struct rpc_connection *c, bool on)
{
	if (on)
		event_add(c->read_event, NULL);
	else
		event_del(c->read_event);
}

/* ---- out ---- */

/* So much may be queued for this peer before it has to read. */
static size_t high_water(const struct rpc_connection *c)
{
	return c->answering && rpc_out_all_bytes() > RPC_SEND_ALL_BYTES ? RPC_SEND_LEAST_BYTES
									: RPC_SEND_HIGH_WATER_BYTES;
}

static void check_queue(struct rpc_connection *c)
{
	if (c->out.bytes > RPC_SEND_MAX_BYTES && !c->broken)
		c->broken = "it does not read its answers";
	if (c->out.bytes > high_water(c) && !c->congested) {
		c->congested = true;
		if (c->answering) {
			c->paused = true;
			set_reading(c, false);
		}
	}
	/* With a write event armed the socket is full; it flushes when there is room. */
	if (c->broken || !event_pending(c->write_event, EV_WRITE, NULL))
		loop_defer(c->loop, &c->flush);
}

static void put(struct rpc_connection *c, const void *data, size_t len_bytes)
{
	if (rpc_out_append(&c->out, data, len_bytes) != 0)
		c->broken = "out of memory";
}

static bool mute(const struct rpc_connection *c)
{
	return c->closed || c->lost || c->deaf || c->broken;
}

static void flush(void *arg)
{
	struct rpc_connection *c = arg;
	if (c->closed || c->lost)
		return;
	hold(c);
	int rc = c->broken ? -1 : rpc_out_write(&c->out, c->fd);
	if (c->closed || c->lost) {
		/* A released slice led to the end of this connection. */
	} else if (c->broken) {
		lose(c, RPC_LOST, c->broken);
	} else if (rc < 0) {
		/* Its last answers may still lie in our receive queue. */
		c->deaf = true;
		rpc_out_clear(&c->out);
		loop_queue(c->loop, &c->go_on);
	} else if (rc == 0) {
		event_add(c->write_event, NULL);
	}
	if (!c->closed && !c->lost && c->congested && c->out.bytes <= high_water(c) / 2) {
		c->congested = false;
		if (c->paused) {
			c->paused = false;
			set_reading(c, true);
			/* Frames that were read before the pause wait in the buffer. */
			loop_queue(c->loop, &c->go_on);
		}
		c->events->on_drained(c->arg);
	}
	unhold(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	flush(arg);
}

bool rpc_connection_congested(const struct rpc_connection *connection)
{
	return connection->congested;
}

size_t rpc_connection_queued_bytes(const struct rpc_connection *connection)
{
	return connection->out.bytes;
}

static void put_head(struct rpc_connection *c, const struct rpc_head *head)
{
	put(c, head->data, head->len);
}

void rpc_connection_put_request(
	struct rpc_connection *connection, uint32_t id, struct span method, struct span params)
{
	if (mute(connection))
		return;
	struct rpc_head head;
	rpc_head_request(&head, id, method);
	put_head(connection, &head);
	put(connection, params.data, params.len);
	check_queue(connection);
}

void rpc_connection_put_notification(
	struct rpc_connection *connection, struct span method, struct span params)
{
	if (mute(connection))
		return;
	struct rpc_head head;
	rpc_head_notification(&head, method);
	put_head(connection, &head);
	put(connection, params.data, params.len);
	check_queue(connection);
}

void rpc_connection_put_result(struct rpc_connection *connection, uint32_t id, struct span result)
{
	if (mute(connection))
		return;
	struct rpc_head head;
	rpc_head_result(&head, id);
	put_head(connection, &head);
	put(connection, result.data, result.len);
	check_queue(connection);
}

void rpc_connection_put_error(
	struct rpc_connection *connection, uint32_t id, int code, struct span message)
{
	if (mute(connection))
		return;
	static const uint8_t nil = 0xc0;
	struct rpc_head head;
	rpc_head_error(&head, id, code, message.len);
	put_head(connection, &head);
	put(connection, message.data, message.len);
	put(connection, &nil, 1);
	check_queue(connection);
}

void rpc_connection_put_chunks(
	struct rpc_connection *connection, uint32_t id, struct slice data, bool end)
{
	if (mute(connection)) {
		slice_release(&data);
		return;
	}
	hold(connection);
	bool last;
	do {
		struct slice piece = data;
		last = data.len_bytes <= RPC_CHUNK_BYTES;
		if (!last) {
			/* Only the last piece carries the release. */
			piece.len_bytes = RPC_CHUNK_BYTES;
			piece.release = NULL;
			data.data = (const uint8_t *)data.data + RPC_CHUNK_BYTES;
			data.len_bytes -= RPC_CHUNK_BYTES;
		}
		uint8_t tail = rpc_tail_chunk(end && last);
		struct rpc_head head;
		rpc_head_chunk(&head, id, piece.len_bytes);
		put_head(connection, &head);
		if (rpc_out_append_slice(&connection->out, piece) != 0)
			connection->broken = "out of memory";
		put(connection, &tail, 1);
	} while (!last);
	/* The release of a short slice may have ended this connection. */
	if (!connection->closed && !connection->lost)
		check_queue(connection);
	unhold(connection);
}

void rpc_connection_put_credit(struct rpc_connection *connection, uint32_t id, uint64_t bytes)
{
	if (mute(connection))
		return;
	struct rpc_head head;
	rpc_head_credit(&head, id, bytes);
	put_head(connection, &head);
	check_queue(connection);
}

void rpc_connection_put_cancel(struct rpc_connection *connection, uint32_t id)
{
	if (mute(connection))
		return;
	struct rpc_head head;
	rpc_head_cancel(&head, id);
	put_head(connection, &head);
	check_queue(connection);
}

/* ---- in ---- */

/* Those who ask wait for each other. What they wait for, the answers of a daemon of ours to all of
 * them, must not wait behind them. */
static void wait_for_turn(struct rpc_connection *c)
{
	if (c->answering)
		loop_queue(c->loop, &c->go_on);
	else
		loop_defer(c->loop, &c->go_on);
}

/* Hand over the whole frames that are in the buffer: one, and as many as fit in the time; then
 * go_on is scheduled. */
static void process(struct rpc_connection *c)
{
	uint64_t begin_us = loop_now_us(c->loop);
	for (bool first = true; c->in_at < c->in_len && !c->paused && !c->closed && !c->lost;
		first = false) {
		if (!first && loop_now_us(c->loop) - begin_us >= PIECE_US) {
			wait_for_turn(c);
			return;
		}
		const uint8_t *data = c->in + c->in_at;
		size_t len = c->in_len - c->in_at;
		bool array = (*data & 0xf0) == 0x90 || *data == 0xdc || *data == 0xdd;
		enum wire_progress progress = array ? wire_scan(&c->scan, data, len,
							      RPC_MAX_FRAME_BYTES)
						    : WIRE_BAD;
		if (progress == WIRE_MORE)
			return;
		if (progress == WIRE_BAD) {
			lose(c, RPC_PROTOCOL, "bytes that are no frame, or a frame over a limit");
			return;
		}
		struct span bytes = {(const char *)data, c->scan.at};
		struct rpc_frame frame;
		const char *wrong = rpc_frame_parse(bytes, &frame);
		if (wrong) {
			lose(c, RPC_PROTOCOL, wrong);
			return;
		}
		c->in_at += bytes.len;
		c->scan = (struct wire_scan){0};
		c->events->on_frame(&frame, c->arg);
	}
}

/* Room behind in_len. The buffer grows with the bytes that came, not with what they announce. */
static int make_room(struct rpc_connection *c)
{
	if (c->in_at == c->in_len)
		c->in_at = c->in_len = 0;
	if (c->in_capacity - c->in_len >= READ_BYTES / 4)
		return 0;
	if (c->in_at > 0) {
		memmove(c->in, c->in + c->in_at, c->in_len - c->in_at);
		c->in_len -= c->in_at;
		c->in_at = 0;
	}
	if (c->in_capacity - c->in_len >= READ_BYTES / 4)
		return 0;
	size_t capacity = c->in_capacity ? c->in_capacity * 2 : READ_BYTES;
	if (c->answering && capacity > SMALL_IN_BYTES &&
		large_in_bytes + capacity - c->in_capacity > RPC_RECEIVE_ALL_BYTES)
		return -1;
	uint8_t *in = realloc(c->in, capacity);
	if (!in)
		return -1;
	set_buffer(c, in, capacity);
	return 0;
}

static void read_once(struct rpc_connection *c)
{
	if (make_room(c) != 0) {
		lose(c, RPC_LOST, "no memory for its large frame");
		return;
	}
	ssize_t n = c->expecting ? rpc_descriptor_recv(c->fd, c->in + c->in_len,
					   c->in_capacity - c->in_len, &c->descriptor)
				 : recv(c->fd, c->in + c->in_len, c->in_capacity - c->in_len, 0);
	if (n == RPC_DESCRIPTOR_BAD) {
		lose(c, RPC_PROTOCOL, "descriptors beyond the one that was asked for");
	} else if (n > 0) {
		c->in_len += (size_t)n;
		process(c);
		/* One that takes no frames is read to its end, ready or not. */
		if (c->deaf && !c->closed && !c->lost)
			wait_for_turn(c);
	} else if (n == 0) {
		c->eof = true;
		lose(c, RPC_LOST, "the peer closed the connection");
	} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
		if (c->deaf)
			lose(c, RPC_LOST, "the peer does not take our frames");
	} else if (errno != EINTR) {
		lose(c, RPC_LOST, "reading failed");
	}
	if (c->in_at == c->in_len && c->in_capacity > READ_BYTES)
		free_buffer(c);
}

/* What is in the buffer first; when none of that waits any more, what there is to read. */
static void go_on(void *arg)
{
	struct rpc_connection *c = arg;
	hold(c);
	process(c);
	if (!c->paused && !c->closed && !c->lost && !deferred_scheduled(&c->go_on))
		read_once(c);
	if (!c->paused && !c->closed && !c->lost && !deferred_scheduled(&c->go_on))
		set_reading(c, true);
	unhold(c);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct rpc_connection *c = arg;
	if (!deferred_scheduled(&c->go_on) && (!c->answering || !loop_slice_is_over(c->loop))) {
		go_on(c);
		return;
	}
	wait_for_turn(c);
	/* The kernel is not to tell of it again in every turn until it is our turn. */
	if (!loop_turn_is_full(c->loop))
		set_reading(c, false);
}

/* ---- life ---- */

static void shut(struct rpc_connection *c)
{
	if (c->fd < 0)
		return;
	loop_defer_cancel(c->loop, &c->flush);
	loop_defer_cancel(c->loop, &c->go_on);
	event_free(c->read_event);
	event_free(c->write_event);
	int fd = c->fd;
	c->fd = -1;
	c->paused = false;
	rpc_out_clear(&c->out);
	if (c->descriptor >= 0)
		close(c->descriptor);
	c->descriptor = -1;
	if (c->keep_socket)
		c->events->on_socket(fd, c->eof, c->arg);
	else
		close(fd);
}

static void lose(struct rpc_connection *c, int code, const char *reason)
{
	if (c->lost || c->closed)
		return;
	c->lost = true;
	hold(c);
	shut(c);
	if (!c->closed)
		c->events->on_lost(code, reason, c->arg);
	unhold(c);
}

void rpc_connection_fail(struct rpc_connection *connection, const char *reason)
{
	lose(connection, RPC_PROTOCOL, reason);
}

/* ---- descriptors ---- */

void rpc_connection_keep_socket(struct rpc_connection *connection)
{
	connection->keep_socket = true;
}

void rpc_connection_expect_descriptor(struct rpc_connection *connection)
{
	connection->expecting = true;
}

int rpc_connection_take_descriptor(struct rpc_connection *connection)
{
	int fd = connection->descriptor;
	connection->descriptor = -1;
	connection->expecting = false;
	return fd;
}

void rpc_connection_put_descriptor(
	struct rpc_connection *connection, uint32_t id, struct span result, int fd)
{
	if (mute(connection))
		return;
	struct rpc_head head;
	rpc_head_result(&head, id);
	if (connection->out.head ||
		rpc_descriptor_send(connection->fd,
			(struct span){(const char *)head.data, head.len}, result, fd) != 0) {
		connection->broken = "cannot pass a descriptor";
		check_queue(connection);
	}
}

struct rpc_connection *rpc_connection_new(struct loop *loop, int fd, bool answering,
	const struct rpc_connection_events *events, void *arg)
{
	struct rpc_connection *c = calloc(1, sizeof *c);
	if (!c)
		goto fail_fd;
	c->loop = loop;
	c->fd = fd;
	c->descriptor = -1;
	c->answering = answering;
	c->events = events;
	c->arg = arg;
	deferred_init(&c->flush, flush, c);
	deferred_init(&c->go_on, go_on, c);
	c->read_event = event_new(loop_base(loop), fd, EV_READ | EV_PERSIST, on_readable, c);
	if (!c->read_event)
		goto fail_connection;
	c->write_event = event_new(loop_base(loop), fd, EV_WRITE, on_writable, c);
	if (!c->write_event || event_add(c->read_event, NULL) != 0)
		goto fail_events;
	return c;

fail_events:
	if (c->write_event)
		event_free(c->write_event);
	event_free(c->read_event);
fail_connection:
	free(c);
fail_fd:
	close(fd);
	return NULL;
}

void rpc_connection_free(struct rpc_connection **connection)
{
	struct rpc_connection *c = *connection;
	*connection = NULL;
	if (!c || c->closed)
		return;
	hold(c);
	if (c->fd >= 0 && !c->deaf && !c->broken && c->out.head)
		(void)rpc_out_write(&c->out, c->fd);
	c->closed = true;
	shut(c);
	unhold(c);
}
