#ifndef REDISPROXY_UPSTREAM_H
#define REDISPROXY_UPSTREAM_H

/*
 * One connection to a server: shared by many clients, or a client's own. Requests leave in the
 * order in which they were given; each has an entry in a queue, and the next reply belongs to the
 * first entry. Pushes (RESP3 '>') are no replies.
 *
 *   CONNECTING -> HANDSHAKE (TLS) -> LOGIN (HELLO, AUTH, SELECT of its pool) -> READY -> DEAD
 *
 * DEAD is final: every entry got an error, the owner was told, the struct goes at the end of the
 * turn. A raw connection has no entries any more: bytes pass both ways as they come.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "redisproxy/out.h"
#include "redisproxy/resp.h"

struct client;
struct command;
struct event;
struct place;
struct pool;
struct proxy;

#define UPSTREAM_HIGH_WATER (256 << 10) /* bytes to send, above which clients wait */

enum upstream_state {
	UPSTREAM_CONNECTING,
	UPSTREAM_HANDSHAKE,
	UPSTREAM_LOGIN,
	UPSTREAM_READY,
	UPSTREAM_DEAD
};

/* What the reply means for its client. */
enum entry_meaning {
	ENTRY_PLAIN,
	ENTRY_WAITED, /* it may have waited for others: no latency of ours */
	ENTRY_MULTI,  /* an OK begins a transaction */
	ENTRY_EXEC,   /* ends one, unless refused */
	ENTRY_WATCH,
	ENTRY_UNWATCH,
	ENTRY_LOGIN,   /* the answer to AUTH or HELLO */
	ENTRY_SWALLOW, /* ours: nobody sees it */
};

struct entry {
	union {
		struct client *client; /* NULL: nobody */
		struct place *place;   /* in a cluster */
	};
	uint64_t sent_us;   /* 0: not measured */
	uint32_t waited_us; /* before it was sent */
	uint8_t meaning;    /* enum entry_meaning */
	bool is_place;
	const struct command *command; /* these two are for the slow log; NULL: ours */
	uint64_t key_hash;
};

#define UPSTREAM_HEAD_BYTES 16

struct upstream {
	struct proxy *proxy;
	struct pool *pool;
	struct client *owner; /* NULL: shared or idle */
	int fd;
	struct event *read_event, *write_event;
	struct tls_session *tls; /* NULL: none */
	enum upstream_state state;
	bool is_shared;
	bool raw;
	bool subscribed; /* raw, but replies are looked at */
	bool wants_write, is_dirty;
	bool retiring; /* takes no new clients, closed when it has nothing to do */
	bool ends;     /* raw: the client has sent its last byte */
	bool waited;   /* clients wait for room */
	bool partial;  /* a part of the present reply has gone to its client */

	struct out out;
	char tail[32]; /* the beginning of a header whose end has not come */
	size_t tail_len;
	struct resp_reply scan;
	char head[UPSTREAM_HEAD_BYTES]; /* of the present reply, if it is an error */
	size_t head_len;
	struct entry *queue;
	uint32_t first, count, capacity; /* capacity is a power of two */

	unsigned login_left;
	struct buf refusal; /* of the login */
	const char *name; /* of a connection of its own: CLIENT SETNAME was said with this; owned */

	struct upstream *next_paused; /* of the same slow client */
	struct client *slow; /* who does not take its reply, so that nothing is read here */
	uint64_t apart_us;   /* with retiring */
	uint64_t opened_us, idle_since_us, heard_us, expires_us;
	struct upstream *next, **prev; /* all */
	struct upstream *next_dirty;   /* or dead */
	struct upstream *next_idle;    /* of the pool */
};

/* Begin to connect. NULL with errno: as server_connect(), or out of memory. */
struct upstream *upstream_new(struct pool *pool, bool is_shared, struct client *owner);
/* Queue a whole command, or its first bytes. 0, or -1 when out of memory (nothing was queued). */
int upstream_send(struct upstream *up, const char *data, size_t len, struct client *client,
	enum entry_meaning meaning, uint64_t sent_us);
/* The entry of the command that was queued last, until anything else is done with the connection.
 */
static inline struct entry *upstream_last_entry(struct upstream *up)
{
	return &up->queue[(up->first + up->count - 1) & (up->capacity - 1)];
}
/* The same for a place (place.h), which is told of the reply. */
int upstream_send_place(struct upstream *up, const char *data, size_t len, struct place *place);
/* More bytes of the last command, or of a raw connection. */
int upstream_send_more(struct upstream *up, const char *data, size_t len);
/* The three above do not copy a long run of bytes in the proxy's scratch space: whoever has read
 * into it for a client calls this before anybody else may. */
void upstream_keep(struct proxy *proxy);
static inline bool upstream_full(const struct upstream *up)
{
	return out_pending(&up->out) > UPSTREAM_HIGH_WATER;
}
/* From now on bytes pass as they come; entries that are left come first. */
void upstream_make_raw(struct upstream *up);
/* The same in a cluster, of a client that subscribes: redirections are not for it. */
void upstream_make_subscribed(struct upstream *up);
/* A raw connection's client has sent its last byte: so do we, after what is queued. */
void upstream_end(struct upstream *up);
/* Is the command whose reply comes next one that may wait for others (ENTRY_WAITED)? */
bool upstream_waits_for_others(const struct upstream *up);
/* Write what is queued. */
void upstream_flush(struct upstream *up);
/* Go on reading after the slow client took its share, or died. */
void upstream_resume(struct upstream *up);
/* Close it. reason: what entries are answered with (NULL: the owner's own wish, no answer). */
void upstream_close(struct upstream *up, const char *reason);
/* At the end of a turn. */
void upstream_destroy(struct upstream *up);

#endif
