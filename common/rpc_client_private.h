#ifndef COMMON_RPC_CLIENT_PRIVATE_H
#define COMMON_RPC_CLIENT_PRIVATE_H

/* What rpc_client.c (the connection) and rpc_call.c (one call) know of each other. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/un.h>

#include "common/loop.h"
#include "common/retry.h"
#include "common/rpc.h"
#include "common/rpc_connection.h"
#include "common/rpc_ids.h"

/*
 * A call:  waiting --result--> done                    (on_result, on_done)
 *             |        \--expect_chunks--> streaming --end--> done
 *             \--error, timeout, loss, cancel--> done
 *
 * What must not end inside the caller's own stack frame (not connected, too busy) goes to the
 * list `failed`, which a deferred empties.
 */
enum call_state { CALL_WAITING, CALL_STREAMING, CALL_FAILED, CALL_DEAD };

struct rpc_call {
	struct rpc_id id; /* first: the table's links */
	TAILQ_ENTRY(rpc_call) link;
	struct rpc_client *client;
	const struct rpc_call_events *events;
	void *arg;
	uint64_t deadline_us;    /* 0: none */
	uint64_t send_credit;    /* of the request's body */
	uint64_t receive_credit; /* of the answer's */
	uint32_t round;          /* of resume(), see there */
	int failure;             /* CALL_FAILED */
	enum call_state state;
	bool in_callback;
	bool expect_chunks;
	bool body_ended;
};
TAILQ_HEAD(call_list, rpc_call);

struct rpc_client {
	struct loop *loop;
	struct sockaddr_un address;
	struct rpc_client_options options;
	void (*on_state)(bool connected, void *arg);
	void *arg;

	struct rpc_connection *connection; /* NULL while not connected */
	bool attaching;      /* the first exchange is not over: not connected, for all others */
	bool attached;       /* on_attached was called for this connection */
	bool told_connected; /* what on_state said last */
	struct deferred tell_state;
	struct timer *reconnect;
	struct backoff backoff;
	bool absent;                       /* as rpc_client_absent() */
	uint64_t attempt_us, connected_us; /* when the attempts began, when the last succeeded */

	struct call_list calls; /* waiting and streaming */
	struct call_list failed;
	struct rpc_ids ids;
	size_t n_failed;
	uint32_t next_id;
	uint32_t round;
	struct deferred fail_calls;
	struct timer *timeout;
	uint64_t timeout_us; /* when that timer fires; 0: not armed */

	unsigned hold;
	bool dead;
};

/* In rpc_client.c: the client's memory stays while it is held. */

void rpc_client_hold(struct rpc_client *client);
void rpc_client_unhold(struct rpc_client *client);

/* In rpc_call.c: */

void rpc_call_got_result(struct rpc_call *call, struct span result);
void rpc_call_got_chunk(struct rpc_call *call, const struct rpc_frame *frame);
void rpc_call_tell_credit(struct rpc_call *call);
/* The call is over and told so now; code 0: all is well. */
void rpc_call_finish(struct rpc_call *call, int code, struct span message);
/* All calls under way will be told so. */
void rpc_calls_fail_later(struct rpc_client *client, int code);
/* Deferred: tell those that failed. */
void rpc_calls_tell_failed(void *client);
/* The timer of their deadlines. */
void rpc_calls_timeout(void *client);

#endif
