#ifndef REDISPROXY_PLACE_H
#define REDISPROXY_PLACE_H

/*
 * In a cluster the commands of one client are under way on several servers at once, and may be sent
 * on from one to another. Each has a place in its client's queue, with a copy of the command, and
 * keeps it whatever happens:
 *
 *   place_add --> SENT --reply--------------------------> DONE   (given in the queue's order)
 *      |           ^ |--MOVED, ASK, TRYAGAIN, lost read--v
 *      '-----------+--------- ASTRAY <-------------------'
 *                               '--upstream-wait is over--> DONE (an error)
 *
 * Only the first place of the queue passes its reply through as it comes; others hold theirs. What
 * a client's places hold counts as its output: above the limit their upstreams are not read.
 *
 * ASTRAY: no connection is ready, or it is too early. A client with a place astray sends nothing
 * more; its places go on in their order. Clients also wait for what is under way when the map has
 * changed since (proxy->epoch), so commands for one slot cannot overtake each other on two servers.
 * TRYAGAIN, CLUSTERDOWN and lost reads are tried again only while nothing later of the same slot is
 * under way, for the same reason; otherwise the client gets the error.
 *
 * A command that has a connection of its client's own (is_own: transactions, blocking commands,
 * scripts) can be sent on while it is the first of its kind there; once WATCH, or a command of the
 * transaction, was answered, the transaction stays, and a redirection becomes CROSSSLOT or
 * TRYAGAIN.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "redisproxy/out.h"
#include "redisproxy/upstream.h"

struct command;
struct fan;
struct server;

enum place_kind { PLACE_PLAIN, PLACE_SCAN };

/* Where a command is to go. */
struct place_route {
	struct server *target; /* this server; NULL: who serves the slot */
	uint16_t slot;         /* SLOTS_N: any master */
	uint8_t kind;          /* enum place_kind */
	bool replica;          /* a replica may serve it */
	bool is_own;           /* on a connection of the client's own */
	bool begins;           /* nothing of the client is there yet: it may be sent on */
	bool multi;            /* MULTI is to be said before it */
	bool is_streamed;      /* it went out before: there is no copy, and no second try */
	enum entry_meaning meaning;
};

struct place {
	struct client *client;
	struct place *next; /* of the client */
	struct place *next_astray;
	struct fan *fan; /* it is a part of this one's command, and in no queue */
	uint32_t part;
	struct command *command;
	struct pool *waits_for; /* while astray */
	struct place_route route;
	uint64_t sent_us, not_before_us, deadline_us;
	struct out held;
	uint8_t tries;
	bool asking, was_replica, is_astray;
	bool keeps;  /* the reply is not passed through before it is complete */
	bool failed; /* it is an error */
	bool is_done;
	size_t len;
	char frame[];
};

/* A command (its frame is copied) takes its place and is sent, or goes astray. fan: as its part;
 * NULL: in the client's queue. NULL when out of memory. */
struct place *place_add(struct client *c, struct command *command, const char *frame, size_t len,
	const struct place_route *route, struct fan *fan, uint32_t part);
/* Send it; not for is_streamed. */
void place_start(struct place *place);

/* From upstream.c: a piece of its reply, of this type; the reply is complete; it will not come. */
void place_take(struct place *place, struct upstream *up, char type, const char *data, size_t len);
void place_complete(struct place *place, struct upstream *up);
void place_lost(struct place *place, const char *reason, bool partial);

/* For fan.c: everything is in place->held. */
void place_finish(struct place *place);
/* Answer with this error (without '-' and CRLF). */
void place_answer_error(struct place *place, const char *text);

struct proxy;
/* What is astray is looked at again, at the end of this turn. */
void places_schedule(struct proxy *proxy);
/* The server refused the login of this pool's connection. */
void places_refused(struct proxy *proxy, struct pool *pool, const char *text);
int places_init(struct proxy *proxy);
void places_free(struct proxy *proxy);

#endif
