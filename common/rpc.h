#ifndef COMMON_RPC_H
#define COMMON_RPC_H

/*
 * MessagePack-RPC over Unix stream sockets, both ends.
 * (https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md)
 *
 *   request [0, id, method, params]   response [1, id, error, result]   notification [2, method,
 * params]
 *
 * The connecting end asks, the accepting end answers. Many calls are under way on one connection;
 * answers come in any order. error is nil or [code, message]. A frame is at most
 * RPC_MAX_FRAME_BYTES. What is larger travels as notifications that belong to a call, in both
 * directions:
 *
 *   chunk [id, data, end]   credit [id, bytes]   cancel [id]
 *
 * A sender of chunks never exceeds the credit it was given. A request's body starts with none (the
 * answerer asks for it when it needs it), an answer's with RPC_ANSWER_CREDIT_BYTES. A receiver
 * gives credit back as it consumes. So a peer holds at most the credit of each call in memory, and
 * one slow call stops no other.
 *
 * A peer that does not read: past RPC_SEND_HIGH_WATER_BYTES queued for it, all credit reads as 0
 * until half of that is left (then on_credit is called), and the answering end stops reading its
 * requests. The asking end goes on reading, or two full peers would wait for each other for ever.
 * Near RPC_SEND_MAX_BYTES the asking end answers new calls with RPC_BUSY; past it, the connection
 * is closed. Frames put in one turn of the loop leave together.
 *
 * Many such peers: past RPC_SEND_ALL_BYTES queued for all peers of the process together, an
 * answering end reads on only for peers that have less than RPC_SEND_LEAST_BYTES queued. And those
 * who send the beginnings of large frames and no end have RPC_RECEIVE_ALL_BYTES together: who
 * exceeds it is closed. Frames of up to RPC_RECEIVE_LEAST_BYTES, a chunk for one, always pass.
 *
 * A peer that asks faster than it can be served, or for what is expensive, waits by itself: a
 * connection is served for a tenth of a millisecond (one frame at least), then it is the others'
 * turn; all of them together get LOOP_SLICE_US a turn. Nothing is read from one that waits.
 *
 * What a peer may not do: send bytes that are no frame, a frame over RPC_MAX_FRAME_BYTES, more than
 * WIRE_MAX_DEPTH levels, frames of the other end's kind, a chunk beyond its credit or after the
 * last one, an empty chunk that is not the last, a second response, a response to a call that was
 * never made, a request with an id that is under way. The connection is closed, with a
 * log line that says why (ten a second at most).
 * What it may: both ends end calls on their own, so chunk, credit, cancel and response for a call
 * that is over are ignored (a chunk that nobody expects is answered with cancel). Unknown
 * notifications and additional elements are ignored too, for later versions.
 *
 * This layer moves frames and checks their shape; the fields inside params and result are
 * common/messages.h. Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/metrics.h"
#include "common/slice.h"
#include "common/span.h"

#define RPC_MAX_FRAME_BYTES       (1u << 20)
#define RPC_MAX_PAYLOAD_BYTES     (RPC_MAX_FRAME_BYTES - 128) /* packed params or result */
#define RPC_INLINE_BODY_BYTES     (16u << 10)
#define RPC_ANSWER_CREDIT_BYTES   (256u << 10)
#define RPC_CHUNK_BYTES           (64u << 10)
#define RPC_SEND_HIGH_WATER_BYTES (1u << 20)
#define RPC_SEND_MAX_BYTES        (64u << 20) /* queued to one peer */
#define RPC_SEND_ALL_BYTES        (64u << 20)
#define RPC_SEND_LEAST_BYTES      (64u << 10)
#define RPC_RECEIVE_ALL_BYTES     (32u << 20)
#define RPC_RECEIVE_LEAST_BYTES   (96u << 10)
#define RPC_MAX_CALLS             8192 /* under way on one connection; more is RPC_BUSY */

struct loop;

enum rpc_code {
	RPC_BAD_PARAMS = 1, /* message names the field */
	RPC_NO_METHOD = 2,
	RPC_BUSY = 3,
	RPC_FORBIDDEN = 4,
	RPC_FAILED = 5, /* the method's own failure */
	RPC_CANCELLED = 6,
	/* Made by this end, never sent: */
	RPC_LOST = 100, /* not connected, or the connection broke */
	RPC_TIMEOUT = 101,
	RPC_PROTOCOL = 102, /* the peer broke the rules; the connection is closed */
};

/* "no_method"; for logs and labels. */
const char *rpc_code_name(int code);

struct rpc_error {
	int code;
	struct span message; /* borrowed for the callback */
};

/* ---- The asking end ---- */

struct rpc_client;
struct rpc_call;

/*
 * The first exchange of every connection, before anything else: the method is asked without params,
 * and the answer brings a descriptor. Until then the client does not count as connected. An asker
 * that is told an error (the peer does not know the method) goes on without.
 */
struct rpc_client_attach {
	const char *method;
	/* fd is the receiver's. -1: of no use, the connection is closed and made anew later. */
	int (*on_attached)(struct span result, int fd, void *arg);
	/* The connection that was attached is over (also from rpc_client_free()). Its socket is the
	 * receiver's now: that it stays open tells the peer that what was attached is in use. */
	void (*on_detached)(int socket, void *arg);
	/* The result of a call that was cancelled meanwhile: it may hold what must be given back.
	 */
	void (*on_unclaimed)(struct span result, void *arg);
};

struct rpc_client_options {
	uint32_t connect_timeout_ms;
	uint32_t reconnect_min_ms, reconnect_max_ms; /* backoff with full jitter */
	const struct rpc_client_attach *attach;      /* NULL: none; outlives the client */
};
extern const struct rpc_client_options rpc_client_defaults; /* 200, 10, 1000 */

/*
 * Connects at once (rpc_client_connected() tells) and reconnects for ever, in the background.
 * on_state (may be NULL) is called after each change, never from inside this call; when the
 * connection is lost, before the on_done of the calls that were under way. connect_timeout_ms is
 * the patience with a listener whose queue is full; any other failure backs off at once. The path
 * is copied. options NULL: the defaults. NULL when out of memory, or for a path that is empty or
 * too long for a Unix socket.
 */
struct rpc_client *rpc_client_new(struct loop *loop, const char *socket_path,
	const struct rpc_client_options *options, void (*on_state)(bool connected, void *arg),
	void *arg);
bool rpc_client_connected(const struct rpc_client *client);
/* Did the last attempt find nobody: no socket, or one that no process listens on? A listener whose
 * queue is full is somebody. */
bool rpc_client_absent(const struct rpc_client *client);
size_t rpc_client_calls(const struct rpc_client *client); /* under way */
const char *rpc_client_path(const struct rpc_client *client);
/* Connect now instead of after the backoff (no effect while connected). */
void rpc_client_wake(struct rpc_client *client);
/* Calls under way end without a callback. */
void rpc_client_free(struct rpc_client **client);

/* Tell the peer, without an answer. params is one packed msgpack array (copied). Not connected:
 * nothing happens. */
void rpc_client_notify(struct rpc_client *client, const char *method, struct span params);

struct rpc_call_events {
	/* At most once. result is one msgpack object, borrowed. Chunks follow only if
	 * rpc_call_expect_chunks() is called in here; else the call is done. */
	void (*on_result)(struct span result, void *arg);
	/* Data of the answer, borrowed; end with the last (data may be empty then). */
	void (*on_chunk)(struct span data, bool end, void *arg);
	/* The answerer wants up to this many bytes (total outstanding now) of the request's body.
	 */
	void (*on_credit)(uint64_t credit_bytes, void *arg);
	/* Required. Exactly once, always last, never from inside a call into this module; NULL
	 * error: all is well. The call is dead. */
	void (*on_done)(const struct rpc_error *error, void *arg);
};

/*
 * Ask. params is one packed msgpack array (copied). timeout_ms 0: none; it covers the time to the
 * result. Not connected: on_done with RPC_LOST on the next turn; the same way RPC_BUSY, and
 * RPC_BAD_PARAMS over RPC_MAX_PAYLOAD_BYTES. NULL only when out of memory. events must outlive the
 * call; its members but on_done may be NULL.
 */
struct rpc_call *rpc_call_start(struct rpc_client *client, const char *method, struct span params,
	uint32_t timeout_ms, const struct rpc_call_events *events, void *arg);
void rpc_call_expect_chunks(struct rpc_call *call);
/* Bytes of body that may be sent now. */
uint64_t rpc_call_credit(const struct rpc_call *call);
/* Send body bytes, at most the credit (any size: it is cut into frames). The slice is taken over,
 * always; nothing is sent for a call that is over. */
void rpc_call_send_chunk(struct rpc_call *call, struct slice data, bool end);
/* Allow the answerer to send more. */
void rpc_call_give_credit(struct rpc_call *call, uint64_t bytes);
/* Not wanted any more: no callback comes, the peer is told. Clears the pointer; NULL is fine. */
void rpc_call_cancel(struct rpc_call **call);

/* ---- The answering end ---- */

struct rpc_server;
struct rpc_request;

struct rpc_method {
	const char *name;
	/* params is one msgpack array, borrowed for the call. Must lead to one reply or fail, now
	 * or later. */
	void (*serve)(struct rpc_request *request, struct span params, void *arg);
	void *arg;
};

struct rpc_peer {
	uid_t uid;
	gid_t gid;
	pid_t pid;
};

struct rpc_server_options {
	gid_t trusted_gid; /* besides the own uid and root; (gid_t)-1: nobody */
	size_t max_connections;
};
extern const struct rpc_server_options rpc_server_defaults;

/* Takes the listening socket (non-blocking) over, on failure too. Peers other than root, the own
 * uid and trusted_gid (their primary group) are closed with a log line. options NULL: the defaults.
 */
struct rpc_server *rpc_server_new(
	struct loop *loop, int listen_fd, const struct rpc_server_options *options);
/* Serve these as well; 0, or -1 when a name is taken or memory is out. The array ends with a NULL
 * name and must outlive the server. */
int rpc_server_add(struct rpc_server *server, const struct rpc_method *methods);
/* Take no new connection; on_drained when the last peer has left (kept ones: closed their end). */
void rpc_server_drain(struct rpc_server *server, void (*on_drained)(void *arg), void *arg);
size_t rpc_server_connections(const struct rpc_server *server);
size_t rpc_server_requests(const struct rpc_server *server); /* under way */
/* Count what is asked, and how long the answers take, in rpc_server_families. No page may be made
 * of these metrics after the server is freed. */
extern const struct metric_family rpc_server_families[];
void rpc_server_measure(struct rpc_server *server, struct metrics *metrics);
/* Closes everything at once; on_cancel is called for what was under way. */
void rpc_server_free(struct rpc_server **server);

struct rpc_request_events {
	void (*on_chunk)(struct span data, bool end, void *arg);
	void (*on_credit)(
		uint64_t credit_bytes, void *arg); /* the asker can take more of the answer */
	/* Cancelled, or the peer is gone. The request is dead. */
	void (*on_cancel)(void *arg);
};
/* Keep a request beyond serve(): required before returning from serve() without an answer. events
 * and its members may be NULL. */
void rpc_request_accept(
	struct rpc_request *request, const struct rpc_request_events *events, void *arg);
const struct rpc_peer *rpc_request_peer(const struct rpc_request *request);
const char *rpc_request_method(const struct rpc_request *request);
/* Ask for up to `bytes` more of the request's body. */
void rpc_request_give_credit(struct rpc_request *request, uint64_t bytes);
/* Answer with one packed object. The request is dead afterwards. */
void rpc_request_reply(struct rpc_request *request, struct span result);
void rpc_request_fail(struct rpc_request *request, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Answer, then chunks within the credit; the request is dead after the chunk with end, or after
 * _abort. 0; -1 when the result is over RPC_MAX_PAYLOAD_BYTES: the asker was told, the request is
 * dead. */
int rpc_request_reply_start(struct rpc_request *request, struct span result);
uint64_t rpc_request_credit(const struct rpc_request *request);
void rpc_request_send_chunk(struct rpc_request *request, struct slice data, bool end);
/* The rest of the answer will not come: the asker gets on_done with RPC_CANCELLED. */
void rpc_request_abort(struct rpc_request *request);

/* ---- A peer beyond one request ---- */

struct rpc_asker;
struct rpc_asker_events {
	/* One that rpc itself does not know; params is one packed array. May be NULL. */
	void (*on_notification)(struct span method, struct span params, void *arg);
	/* The peer has closed its end, or the server is freed: after the on_cancel of its requests,
	 * exactly once. May come long after rpc_asker_cut_off(). The asker is dead. */
	void (*on_gone)(void *arg);
};
struct rpc_asker *rpc_request_asker(const struct rpc_request *request);
/* Nothing was said on this connection before. */
bool rpc_request_is_first(const struct rpc_request *request);
/* Answer such a first request, with a descriptor beside the result; fd stays the caller's. The
 * request is dead afterwards. */
void rpc_request_reply_descriptor(struct rpc_request *request, struct span result, int fd);
/*
 * This peer may hold something of ours until it closes its end: whenever we end the connection
 * (it broke the rules, it does not read), only our side is shut down, and what still comes is
 * dropped, until then. Once for an asker. -1 when out of memory.
 */
int rpc_asker_keep(struct rpc_asker *asker, const struct rpc_asker_events *events, void *arg);
/* The arg of rpc_asker_keep(); NULL before. */
void *rpc_asker_context(const struct rpc_asker *asker);
/* It broke the rules of a layer above: as if it had broken ours. Only from on_notification and
 * serve(); in serve(), answer first. reason is static. */
void rpc_asker_cut_off(struct rpc_asker *asker, const char *reason);

#endif
