#ifndef COMMON_RPC_SERVER_PRIVATE_H
#define COMMON_RPC_SERVER_PRIVATE_H

/* What rpc_server.c (peers, methods), rpc_request.c (one request) and rpc_linger.c (a peer that was
 * cut off) know of each other. */
#include <stdbool.h>
#include <sys/queue.h>

#include "common/loop.h"
#include "common/rpc.h"
#include "common/rpc_connection.h"
#include "common/rpc_ids.h"

struct event;

/*
 * A request:  serving --reply, fail--> dead
 *                |  \--reply_start--> streaming --end, abort--> dead
 *                \--accept--> kept, then as above; --cancel, peer gone--> on_cancel, dead
 */
struct rpc_request {
	struct rpc_id id; /* first: the table's links */
	TAILQ_ENTRY(rpc_request) link;
	struct rpc_asker *asker;
	const struct rpc_method *method;
	size_t method_index;                     /* in the server's methods */
	uint64_t began_us;                       /* 0: not measured */
	int code;                                /* enum rpc_code it ended with; 0: answered */
	const struct rpc_request_events *events; /* NULL until accepted */
	void *arg;
	uint64_t send_credit;    /* of the answer */
	uint64_t receive_credit; /* of the request's body */
	uint32_t round;          /* of on_drained() */
	unsigned in_callback;
	bool first; /* nothing was said on the connection before */
	bool streaming;
	bool body_ended;
	bool dead;
};
TAILQ_HEAD(request_list, rpc_request);

/* One connected peer. */
struct rpc_asker {
	LIST_ENTRY(rpc_asker) link;
	struct rpc_server *server; /* NULL once the server is freed */
	struct rpc_connection *connection;
	struct rpc_peer peer;
	struct request_list requests;
	struct rpc_ids ids;
	uint32_t round;
	bool spoke; /* a frame has come */

	const struct rpc_asker_events *events; /* NULL: it is not kept */
	void *arg;
	struct rpc_linger *linger; /* made with events; until the connection is over */
	int socket;                /* then, for linger */
	bool eof;
};

/* What is left of a kept asker whose connection we ended: its socket, until it closes its end. */
struct rpc_linger {
	LIST_ENTRY(rpc_linger) link; /* in lingering, once fd >= 0 */
	struct rpc_server *server;   /* NULL: it is being freed */
	int fd;
	struct event *event;
	const struct rpc_asker_events *events;
	void *arg;
};

struct method_entry {
	struct span name;
	const struct rpc_method *method;
	struct metric *duration;                 /* made on first use */
	struct metric *ended[RPC_CANCELLED + 1]; /* by code */
};

struct rpc_server {
	struct loop *loop;
	struct rpc_server_options options;
	int fd;
	struct event *accept_event;
	struct timer *accept_pause;
	struct method_entry *methods;
	size_t n_methods;
	struct metrics *metrics; /* NULL: not measured */
	struct metric *unknown;
	LIST_HEAD(, rpc_asker) askers;
	LIST_HEAD(, rpc_linger) lingering;
	size_t n_askers, n_lingering, n_requests;
	uint64_t complained_us; /* the second in which n_complaints were logged, or more */
	unsigned n_complaints;
	bool draining, freeing;
	void (*on_drained)(void *arg);
	void *drained_arg;
	struct deferred drained;
};

/* In rpc_server.c: */

/* NULL: nobody serves it. */
struct method_entry *rpc_server_find(const struct rpc_server *server, struct span name);
/* Call after a peer has left: on_drained follows when it was the last. */
void rpc_server_check_drained(struct rpc_server *server);

/* In rpc_request.c: */

/* Hand the request to its method. */
void rpc_request_serve(struct rpc_asker *asker, const struct rpc_frame *frame);
void rpc_request_got_chunk(struct rpc_request *request, const struct rpc_frame *frame);
void rpc_request_tell_credit(struct rpc_request *request);
/* on_cancel, then dead. */
void rpc_request_cancelled(struct rpc_request *request);

/* In rpc_metrics.c: */

void rpc_metrics_began(struct rpc_request *request);
void rpc_metrics_ended(const struct rpc_request *request);
void rpc_metrics_unknown_method(const struct rpc_server *server);

/* In rpc_linger.c: */

/* What rpc_asker_keep() needs later, when there may be no memory. NULL when there is none now. */
struct rpc_linger *rpc_linger_new(
	struct rpc_server *server, const struct rpc_asker_events *events, void *arg);
/* The connection is over. gone: the peer closed it (or the server is gone): on_gone now. Else it
 * is told that nothing more comes, and on_gone waits for its end. Takes both over. */
void rpc_linger_begin(struct rpc_linger *linger, int fd, bool gone);
/* on_gone now. */
void rpc_linger_end(struct rpc_linger *linger);

#endif
