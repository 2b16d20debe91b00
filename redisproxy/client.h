#ifndef REDISPROXY_CLIENT_H
#define REDISPROXY_CLIENT_H

/*
 * One client connection: its bytes are cut into commands (dispatch.h says where each goes), replies
 * are appended to its output as they come.
 *
 * A client that cannot go on waits, with its command unread in the buffer; it is looked at again,
 * from the first byte of that command, when what it waits for came. It is read no further while it
 * has 64 KiB unread (4 KiB while its connection is full), MAX_IN_FLIGHT commands under way, or 256
 * KiB of replies untaken. Its events are edge-triggered, so that the kernel does not look at it
 * again after each command: what is left in the kernel is remembered here (`readable`), and the end
 * of a client that is not read is noticed too. budget.h says what becomes of clients that do not
 * take their replies.
 *
 * A command over 256 KiB is never held whole: it goes through piece by piece, on a connection of
 * the client's own, so that a slow sender stops nobody.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"
#include "redisproxy/out.h"
#include "redisproxy/resp.h"

struct event;
struct entry;
struct pool;
struct proxy;
struct upstream;

enum client_wait {
	CLIENT_GOES_ON,
	CLIENT_WAITS_FOR_REPLIES, /* until nothing is under way */
	CLIENT_WAITS_UPSTREAM,    /* for a connection, or room on it; on the proxy's list */
	CLIENT_WAITS_LOGIN,       /* for the answer to AUTH or HELLO */
};

/* What AUTH, HELLO or SELECT will make of the client when the server agrees. */
struct client_next {
	bool has_credentials, has_name;
	uint8_t resp; /* 0: as it is */
	struct buf user, password, name;
	struct pool *pool; /* SELECT: a reference */
};

struct client {
	struct proxy *proxy;
	int fd;
	struct event *read_event, *write_event;
	struct buf in;
	struct resp_command scan;
	struct out out;

	struct pool *pool;        /* on the writer; a reference */
	struct pool *reader_pool; /* the same on the reader, when it was needed; a reference */
	struct upstream *current; /* where its commands under way are */
	struct upstream *own;     /* its own connection, perhaps not ready yet */
	struct upstream
		*pauses; /* not read because this client does not take its replies; a list */
	unsigned slot;
	uint32_t in_flight;

	enum client_wait wait;
	struct pool
		*waits_for_pool; /* with CLIENT_WAITS_UPSTREAM: one of its connections; NULL: own */
	struct upstream *waits_for_room;
	uint64_t command_us;    /* when the command that waits, for whatever, was complete; 0: none
				   does */
	uint64_t wait_until_us; /* kept over repeated tries for one command; 0: no command waits */
	struct client *next_waiting, **prev_waiting;
	char *error;  /* what the command that waited is answered with; owned */
	bool gave_up; /* one has waited in vain: what is read until all is answered does not
		       * wait again */

	/* budget.h */
	size_t counted;
	struct client *next_watched, **prev_watched;
	uint64_t written, took_us; /* while it is watched */
	int queued;

	bool multi, watch; /* the own connection has such a state */

	/* In a cluster (place.h). */
	struct place *places, **places_end; /* what is under way, in its order */
	size_t held_bytes;                  /* of replies that wait for those before them */
	unsigned astray, replica_reads;     /* of the places */
	uint64_t epoch;                     /* of the map, when the first of them was sent */
	uint64_t astray_pass;
	uint16_t own_slot; /* what brought the own connection where it is */
	bool multi_sent;   /* the own connection's server knows of MULTI */
	bool own_begins;   /* the command that decides where the own connection is, is under way */

	bool streaming;    /* within a large command */
	bool scans_reader; /* where its last iteration began */
	bool wrote_in_flight;
	bool readable; /* bytes, or the end, may be in the kernel, of which no event tells again */
	bool ends;     /* it has sent its last byte, which may still be in the kernel */
	bool eof;      /* the end was read */
	bool closing, dead, buried, is_dirty, again, wants_write, throttled;
	uint64_t served_ms; /* when it last had a reply; see gather() in proxy.c */
	uint64_t wrote_us;
	struct buf name;
	struct client_next future;

	struct client *next, **prev;
	struct client *next_dirty; /* or dead */
};

/* Takes the descriptor over, on failure too. NULL when out of memory. */
struct client *client_new(struct proxy *proxy, int fd);
/* Close it at once; what is under way is not wanted any more. */
void client_close(struct client *c);
/* Close it when its output is written. */
void client_finish(struct client *c);
/* Look at its unread bytes (at the end of a turn). */
void client_continue(struct client *c);
void client_flush(struct client *c);
void client_destroy(struct client *c);

/* Between client.c and client_input.c: there is something to do at the end of the turn; bytes came.
 */
#define CLIENT_OUTPUT_HIGH (256 << 10) /* untaken replies, above which no command is looked at */
void client_mark(struct client *c);
void client_on_readable(int fd, short what, void *arg);

/* What a command that has waited in vain for a connection is told. */
#define CLIENT_NO_CONNECTION "ERR redisproxy: no connection to the upstream"

/* For dispatch.c. Output: 0, or -1 when the client was closed for want of memory. */
int client_say(struct client *c, const char *data, size_t len);
void client_say_error(struct client *c, const char *text); /* without '-' and CRLF */
/* Wait for a shared connection of this pool; NULL: for the client's own. */
void client_wait_upstream(struct client *c, struct pool *pool);
void client_wait_room(struct client *c, struct upstream *up);

/* For upstream.c and pool.c. */
void client_give(struct client *c, struct upstream *up, const char *data, size_t len);
void client_replied(struct client *c, const struct entry *entry, bool failed, struct span head);
/* The reply will not come; partial: a part of it went out. */
void client_failed(struct client *c, const struct entry *entry, const char *reason, bool partial);
void client_own_upstream_lost(struct client *c, bool never_ready);
void client_upstream_gone(struct client *c, struct upstream *up);
void client_too_slow(struct client *c, const char *why);
/* Stop reading this connection if the client has too much output. */
void client_check_output(struct client *c, struct upstream *up);
/* Close its own connection, if there is one. */
void client_drop_own(struct client *c);
/* What it waited for is there, or (error) will not come. */
void client_wake(struct client *c, const char *error);

#endif
