#ifndef COMMON_HTTP_SERVER_PRIVATE_H
#define COMMON_HTTP_SERVER_PRIVATE_H

/*
 * What the files of the HTTP server share; nobody else includes it.
 *
 *   http_server.c      listeners, accepting, deadlines, drain
 *   http_connection.c  a connection: reading, its states, its one teardown
 *   http_exchange.c    what a handler asks and says, and the making of a response
 *   http_hangup.c      clients that leave while nothing is read from them
 *   http_input.c       bytes that came from the kernel
 *   http_output.c      bytes on their way to the kernel
 *
 * Input: bytes are read into the server's one scratch buffer and worked on there. What cannot be
 * used yet moves to the connection's own `stash`, so an idle connection owns no buffer. A complete
 * head is copied to its exchange, where the handler's spans point.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "common/http_pace.h"
#include "common/http_parser.h"
#include "common/http_server.h"
#include "common/loop.h"
#include "common/slice.h"

/* One read takes at most this much; also the most that waits in a stash behind a busy exchange. */
#define HTTP_SCRATCH_BYTES 65536
/* A body nobody wants is read to its end, to keep the connection, when no more than this is left.
 */
#define HTTP_SKIP_BYTES            (256 * 1024)

#define HTTP_HEAD_INLINE_BYTES     1024
#define HTTP_RESPONSE_INLINE_BYTES 512
#define HTTP_INLINE_ITEMS          6
#define HTTP_PREFIX_BYTES          23

/* One piece of output: some bytes of framing, then a slice. */
struct http_item {
	struct slice slice;
	size_t slice_done_bytes;
	char prefix[HTTP_PREFIX_BYTES];
	uint8_t prefix_len;
	uint8_t prefix_done;
	bool is_body; /* counts as bytes_out */
};

/* A queue of them: items[first, first + count). */
struct http_output {
	struct http_item *items;
	size_t first, count, capacity;
	size_t queued_bytes; /* of slices */
	uint64_t body_bytes; /* given to the kernel */
	struct http_item inline_items[HTTP_INLINE_ITEMS];
};

/* One call to http_output_flush() writes about this much: others want to write too. */
#define HTTP_WRITE_BYTES (128 * 1024)
enum http_flush {
	HTTP_FLUSHED,
	HTTP_FLUSH_MORE, /* call again */
	HTTP_FLUSH_BLOCKED,
	HTTP_FLUSH_FAILED
};

void http_output_init(struct http_output *out);
/* Take a slice over (released here on failure: -1, no memory). prefix at most HTTP_PREFIX_BYTES. */
int http_output_add(struct http_output *out, const char *prefix, size_t prefix_len,
	struct slice slice, bool is_body);
/* Write what the kernel takes, up to HTTP_WRITE_BYTES. *wrote says whether it took any byte. */
enum http_flush http_output_flush(struct http_output *out, int fd, bool *wrote);
/*
 * Bytes that the kernel has and the peer has not taken. It falls with every read of a slow client,
 * long before the socket is writable again: that takes a third of the send buffer, megabytes.
 */
int http_output_unsent(int fd);
/* Release everything that was not written. */
void http_output_free(struct http_output *out);

struct http_exchange {
	struct http_connection *connection;
	SLIST_ENTRY(http_exchange) free_link;

	char *message; /* the copied head; inline_message unless it is larger */
	struct http_body body;
	const struct http_exchange_events *events; /* NULL until accepted */
	void *arg;
	void *context;
	const char *traceparent; /* or NULL */
	uint64_t started_us;

	bool in_handler; /* on_request was called */
	bool body_done;  /* nothing of the body is left to read */
	bool end_told;   /* on_body_end was called */
	bool paused;
	bool late;        /* http_exchange_time_out() */
	bool wants_drain; /* http_exchange_send() said "enough" */
	bool wants_body;  /* client waits for 100 Continue */
	bool is_head;     /* the method is HEAD */

	bool responding; /* the head of the response was made */
	bool responded;  /* the response is complete, but for what waits in out */
	bool no_body;    /* of the response */
	bool chunked;    /* the response */
	bool first_chunk;
	bool finished; /* on_finished was called */
	int status;
	int64_t left_bytes; /* of the declared response; -1 unknown */
	uint64_t skipped_bytes;
	char *response_head; /* inline_response, or malloc()ed and owned by the output */
	struct http_output out;

	char inline_message[HTTP_HEAD_INLINE_BYTES];
	char inline_response[HTTP_RESPONSE_INLINE_BYTES];
	struct http_head head;
	struct http_field fields[];
};

/*
 *            first byte         head is complete           the handler has responded
 *   IDLE ----------------> HEAD ----------------> EXCHANGE -------------------------> ANSWERED
 *    ^ \                    | \--- bad head, too late: answered by the server ---------^  |  |
 *    |  \                   |                                                             |  |
 *    |   \------- EOF, timeout, error, from every state -----> CLOSED <---- closing ------|  |
 *    |                                                           ^                        |  |
 *    |                                                           \-- LINGER <-- the client
 *    |                                                                may be sending -----/  |
 *    \------- everything written, rest of the body skipped ----------------------------------/
 *
 * ANSWERED: the response waits to be taken by the kernel, and the rest of the request's body is
 * read and dropped. LINGER: our side is shut, and bytes are dropped until the client closes, since
 * a close() with unread bytes would reset the connection before the client saw the answer.
 * CLOSED: torn down, freed on the next turn.
 */
enum http_state {
	HTTP_STATE_IDLE,
	HTTP_STATE_HEAD,
	HTTP_STATE_EXCHANGE,
	HTTP_STATE_ANSWERED,
	HTTP_STATE_LINGER,
	HTTP_STATE_CLOSED
};

/* Deadlines. All of one kind take equally long, so each kind's list is in order by itself. */
enum http_watch {
	HTTP_WATCH_IDLE,
	HTTP_WATCH_HEAD,
	HTTP_WATCH_BODY,
	HTTP_WATCH_GONE,
	HTTP_WATCH_WRITE,
	HTTP_WATCH_LINGER,
	HTTP_WATCH_KINDS,
	HTTP_WATCH_NONE = HTTP_WATCH_KINDS
};

/* What is to be heard of a client that is not read from. */
enum http_hangup {
	HTTP_HANGUP_NONE,   /* it is read from */
	HTTP_HANGUP_BROKEN, /* the connection is reset, or both sides are shut */
	HTTP_HANGUP_ANY     /* that, or the client's side is */
};

#define HTTP_CONNECTION_MAGIC 0x48747043u

struct http_connection {
	uint32_t magic;
	int fd;
	struct http_server *server;
	TAILQ_ENTRY(http_connection) link, watch_link;
	enum http_state state;
	enum http_watch watch;
	uint64_t deadline_us;
	struct http_exchange *exchange; /* from the first byte of a head on */

	const char *in; /* bytes not used yet, in the stash or in the server's scratch buffer */
	size_t in_len;
	char *stash;
	size_t stash_capacity;

	struct event read_event, write_event;
	struct deferred run;
	bool reading, writing; /* which events are registered */
	bool running;          /* connection_run() is on the stack */
	bool read_due;         /* readable, and not yet read */
	bool blocked;          /* the kernel took no more */
	bool more_output;      /* it may take more when it is our turn again */
	bool rewatch;          /* a new state: its deadline starts now */
	bool got_input, wrote; /* bytes moved: the deadline for that starts again */
	bool eof;              /* the client sends no more, and all that it sent was read */
	bool half_closed;      /* the client sends no more */
	enum http_hangup hangup;
	bool drain_told;  /* closed when it was idle at the drain, else at the end of its request */
	bool closing;     /* no request after this one */
	bool linger;      /* the client may still be sending when we close */
	bool broken;      /* to be torn down when nobody's call is on the stack */
	bool reset;       /* ... with RST */
	int unsent_bytes; /* in the kernel, when the deadline for writing began */
	struct http_pace pace;
	unsigned turns_left; /* requests until others have their turn */
	char peer[48];
};

TAILQ_HEAD(http_connections, http_connection);
struct http_listener;

/* What was counted last of one method, so that most requests need no look-up. */
#define HTTP_METHODS 6
struct http_method_metrics {
	struct metric *duration, *ended;
	int status; /* of ended */
};

struct http_server {
	struct loop *loop;
	struct http_server_options options;
	struct http_limits limits;
	struct http_server_events events;
	void *arg;
	struct metrics *metrics; /* NULL: nothing is counted */
	struct http_method_metrics method_metrics[HTTP_METHODS];

	SLIST_HEAD(, http_listener) listeners;
	bool accepting;
	struct timer *accept_timer;

	struct http_connections connections; /* all, CLOSED ones too until they are freed */
	size_t n_open;
	struct http_connections watched[HTTP_WATCH_KINDS];
	uint64_t watch_us[HTTP_WATCH_KINDS];
	struct timer *watch_timer;
	uint64_t watch_due_us; /* when watch_timer fires; UINT64_MAX: not armed */

	int hangup_fd; /* an epoll */
	struct event hangup;

	bool draining, retiring;
	struct deferred drain;
	void (*on_drained)(void *arg);
	void *drained_arg;

	SLIST_HEAD(, http_exchange) free_exchanges;
	size_t n_free_exchanges;
	uint64_t date_second;
	char date[40]; /* "Date: ...\r\n" */
	char scratch[HTTP_SCRATCH_BYTES];
};

/* http_server.c */

/* Put a connection under the deadline of this kind, from now on. */
void http_server_watch(struct http_connection *c, enum http_watch kind);
/* A connection was torn down. */
void http_server_forget(struct http_connection *c);

/* http_metrics.c */

void http_metrics_ended(
	struct http_server *server, struct span method, int status, uint64_t duration_us);

/* http_connection.c */

/* Takes fd over; starts to read. -1: out of memory, fd closed. */
int http_connection_open(struct http_server *server, int fd, const char *peer);
void http_connection_timed_out(struct http_connection *c);
/* Close if idle, after a last look whether a request came. */
void http_connection_drain(struct http_connection *c);
/* The one teardown; the memory is freed on a later turn. */
void http_connection_close(struct http_connection *c);
/* Only for http_server_free(): what is left of a closed connection. */
void http_connection_free(struct http_connection *c);
/* Give output to the kernel, as far as it goes. */
void http_connection_flush(struct http_connection *c);
/* Look at the connection when the caller has returned: something changed. */
void http_connection_wake(struct http_connection *c);

/* Not read from, it has shut its side down; or all is over. */
void http_connection_hung_up(struct http_connection *c, bool broken);

/* http_hangup.c */

/* -1 with errno. */
int http_hangup_open(struct http_server *server);
void http_hangup_close(struct http_server *server);
/* http_connection_hung_up() for these, until told otherwise. */
int http_hangup_watch(struct http_connection *c, enum http_hangup kind);

/* http_input.c */

/* Read once. Room comes from the server's scratch buffer: http_input_keep() before anybody else
 * reads. */
void http_input_read(struct http_connection *c);
/* Bytes that the kernel has and we have not read. */
size_t http_input_unread(const struct http_connection *c);
void http_input_keep(struct http_connection *c);
static inline void http_input_consume(struct http_connection *c, size_t len)
{
	c->in += len;
	c->in_len -= len;
}

/* http_exchange.c */

struct http_exchange *http_exchange_new(struct http_connection *c);
void http_exchange_free(struct http_exchange *exchange);
/* Copies the first len bytes of the input, which hold the head. -1: out of memory. */
int http_exchange_keep_head(struct http_exchange *exchange, const char *data, size_t len);
/* Answer for the handler: JSON error, then the connection ends. */
void http_exchange_refuse(struct http_exchange *exchange, const struct http_refusal *refusal);

#endif
