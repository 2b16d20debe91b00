#ifndef COMMON_MESSAGES_H
#define COMMON_MESSAGES_H

/*
 * The messages of all daemons, declared once. A list of fields becomes a struct here, and in
 * messages.c the table that packs it, unpacks it and prints docs/INTERFACES.md; so both ends and
 * the page cannot disagree.
 *
 *   rpc (frames, calls) -> messages (fields) -> the daemon (meaning)
 *
 * On the wire a message is a positional array. Position = line order, so lists are only ever
 * appended to: a missing trailing field, or nil in any place, is its zero value, and fields behind
 * the last one known are ignored. Anything else that does not fit is an error that names the
 * field: "headers[3].value: not a string".
 *
 * Asking:     msg_hash_call(client, &params, timeout_ms, &events, arg); in on_result
 *             msg_hash_result_unpack(result, &answer, &error).
 * Answering:  in serve(), msg_hash_params(request, params, &p) (or return), then
 *             msg_hash_reply(request, &answer).
 *
 * Packing and unpacking are safe on any thread; _call, _params and _reply are the loop's.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/rpc.h"
#include "common/span.h"

#define MSG_MAX_HEADERS 128
#define MSG_MAX_ITEMS   1024  /* of one strs, u64s or f64s */
#define MSG_MAX_RECORDS 65536 /* of one message, in all its lists */

struct msg_header {
	struct span name, value;
};
/* In place, so that a request costs no allocation. Only the first `count` are defined. */
struct msg_headers {
	size_t count;
	struct msg_header items[MSG_MAX_HEADERS];
};
struct msg_strs {
	struct span *items;
	size_t count;
};
struct msg_u64s {
	uint64_t *items;
	size_t count;
};
struct msg_f64s {
	double *items;
	size_t count;
};

/*
 * The lists of fields: F(kind, field, doc), and L(record, field, doc) for a list of records.
 * Kinds: str and bin (spans, borrowed from the bytes), token and target (strs that may be the
 * method and target of an HTTP request), u64, i64, f64, bool, headers (names and values that may be
 * those of HTTP fields), strs, u64s, f64s. What would be another thing once it is written as HTTP,
 * with a line break in it, say, is an error like any other here: both ends rely on it.
 */
/* clang-format off */
#define MSG_EMPTY(F, L)

#define MSG_PING_RESULT(F, L) \
	F(str, name, "the daemon with its instance number, e.g. gatewayd.1") \
	F(str, version, "as --version prints it") \
	F(u64, pid, "process id, as the daemon sees it") \
	F(str, instance_id, "random per start, 32 hex digits") \
	F(u64, uptime_ms, "since the start") \
	F(bool, ready, "what /readyz says")

#define MSG_METRIC_SAMPLE(F, L) \
	F(strs, values, "label values, in the order of the family's labels") \
	F(f64, value, "the value; of a histogram the sum") \
	F(u64s, counts, "histogram: cumulative count per bound, +Inf last")
#define MSG_METRIC_FAMILY(F, L) \
	F(str, name, "metric name; counters end in _total") \
	F(str, type, "counter, gauge or histogram") \
	F(str, help, "one sentence") \
	F(strs, labels, "label names") \
	F(f64s, bounds, "histogram: ascending upper bounds, without +Inf") \
	L(metric_sample, samples, "one a series")
#define MSG_METRICS_RESULT(F, L) \
	L(metric_family, families, "by name")

#define MSG_LOG_LEVEL_PARAMS(F, L) \
	F(str, level, "debug, info, warn, error or fatal; empty: only ask")
#define MSG_LOG_LEVEL_RESULT(F, L) \
	F(str, previous, "the level until now")

#define MSG_REQUEST_PARAMS(F, L) \
	F(token, method, "HTTP method") \
	F(target, target, "path and query as the client sent them") \
	F(headers, headers, "end-to-end fields, Host among them; hop-by-hop fields are left out") \
	F(bin, body, "the whole body, up to 16 KiB; empty when chunked") \
	F(str, body_hash, "lower-case hex SHA-256 of the body; empty: none, or not known") \
	F(str, client, "address of the client, for the log") \
	F(str, trace, "W3C traceparent; empty: none") \
	F(bool, chunked, "the body comes as chunks, when credit is given") \
	F(u64, body_bytes, "length of a chunked body")
#define MSG_REQUEST_RESULT(F, L) \
	F(u64, status, "HTTP status") \
	F(headers, headers, "end-to-end fields") \
	F(bin, body, "the whole body, up to 16 KiB; empty when chunked") \
	F(bool, chunked, "the body comes as chunks") \
	F(i64, body_bytes, "length of a chunked body; -1: not known yet") \
	F(u64, lease, "the body lies in the arena, until this is given back; 0: it does not") \
	F(u64, offset, "with lease: where in the arena the body begins") \
	F(u64, length, "with lease: bytes of body")

#define MSG_ATTACH_RESULT(F, L) \
	F(u64, arena_bytes, "size of the arena; its read-only descriptor comes beside this")
#define MSG_RELEASE(F, L) \
	F(u64s, leases, "that the peer needs no more")

#define MSG_FETCH_ELEMENT(F, L) \
	F(u64, index, "which input it is for") \
	F(str, source, "memory, store, bought or joined") \
	F(bool, text, "vector is a JSON array; else base64 of float32") \
	F(u64, dims, "numbers in the vector") \
	F(u64, prompt_tokens, "what it cost when it was bought") \
	F(u64, total_tokens, "the same, in all") \
	F(u64, stored_ms, "when that was, milliseconds since 1970") \
	F(str, served_model, "the model as the provider names it") \
	F(bin, vector, "the characters of the vector") \
	F(bin, tags, "what purges find it by at its owner, 16 bytes each: of the kind and name of a tag")

#define MSG_PURGE_TARGET(F, L) \
	F(str, pod, "address of the target, or the name of its socket") \
	F(u64, status, "HTTP status, of a local target as if by HTTP; 0: it did not answer") \
	F(bool, success, "it has purged") \
	F(str, error, "why not; empty: it has")
#define MSG_PURGE_PARAMS(F, L) \
	F(str, scope, "path, all, tag, body_hash or key") \
	F(strs, values, "path: one, with its query; tag: any of them; body_hash, key: one, 64 hex digits; all: none") \
	F(bool, store, "the store too: all, a tag model:NAME and key") \
	F(str, token, "the purge token, where one is set") \
	F(u64, time_ms, "store: the epoch, milliseconds since 1970; 0: now") \
	F(bool, only, "this instance alone: asked by one that asks all instances of its pod") \
	F(str, trace, "traceparent of the request that asks for it; empty: none")
#define MSG_PURGE_RESULT(F, L) \
	F(u64, status, "200; else what HTTP would have said, and why in error") \
	F(str, error, "one sentence; empty with 200") \
	F(u64, purged, "objects taken out of memory, in all instances that were asked") \
	L(purge_target, results, "one a target, in their order")

#define MSG_HASH_PARAMS(F, L) \
	F(bin, body, "the bytes to hash, up to 16 KiB; empty when chunked") \
	F(bool, chunked, "the body comes as chunks, when credit is given")
#define MSG_HASH_RESULT(F, L) \
	F(str, body_hash, "lower-case hex SHA-256, 64 bytes")

#define MSG_PROGRAM(F, L) \
	F(str, name, "the process, e.g. gatewayd:1") \
	F(str, state, "STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED or FATAL") \
	F(bool, ready, "has passed its readiness check since its start") \
	F(u64, pid, "0 while there is none") \
	F(u64, uptime_ms, "since the last start; 0 while there is no process") \
	F(u64, restarts, "starts after the first one that nobody asked for") \
	F(i64, exit_code, "of the last end: status, or 128 + signal; -1: has not ended yet") \
	F(str, description, "one line for people") \
	F(str, error, "why what was asked for could not be done here; empty: it was")
#define MSG_PROGRAMS_PARAMS(F, L) \
	F(strs, names, "processes, programs, groups, or \"all\"; none: all") \
	F(bool, wait, "answer when the new state is reached or has failed, not at once")
#define MSG_PROGRAMS_RESULT(F, L) \
	L(program, programs, "in start order; unknown names at the end, with an error")
#define MSG_RELOAD_RESULT(F, L) \
	F(strs, added, "programs that are new") \
	F(strs, changed, "programs that were restarted with new settings") \
	F(strs, removed, "programs that were stopped and forgotten") \
	L(program, programs, "all, afterwards") \
	F(strs, adjusted, "programs that took new settings over without a restart") \
	F(strs, warnings, "of the configuration: FILE:LINE and a sentence; up to 100")
#define MSG_TAIL_PARAMS(F, L) \
	F(str, name, "one process") \
	F(str, stream, "stdout, stderr or all; empty: stdout") \
	F(u64, max_bytes, "from the end; 0: 1,600") \
	F(bool, follow, "what is written from now on comes as chunks, until cancel")
#define MSG_TAIL_RESULT(F, L) \
	F(bin, data, "the end of the log, up to 16 KiB; empty when chunked") \
	F(bool, chunked, "data comes as chunks")
#define MSG_SIGNAL_PARAMS(F, L) \
	F(strs, names, "as in status") \
	F(str, signal, "HUP, SIGHUP or a number")

/* R(name, fields): records, inner ones first. X: messages. */
#define MSG_RECORDS(R) \
	R(metric_sample, MSG_METRIC_SAMPLE) \
	R(metric_family, MSG_METRIC_FAMILY) \
	R(purge_target, MSG_PURGE_TARGET) \
	R(program, MSG_PROGRAM)
#define MSG_MESSAGES(X) \
	X(empty, MSG_EMPTY) \
	X(ping_result, MSG_PING_RESULT) \
	X(metrics_result, MSG_METRICS_RESULT) \
	X(log_level_params, MSG_LOG_LEVEL_PARAMS) \
	X(log_level_result, MSG_LOG_LEVEL_RESULT) \
	X(request_params, MSG_REQUEST_PARAMS) \
	X(request_result, MSG_REQUEST_RESULT) \
	X(attach_result, MSG_ATTACH_RESULT) \
	X(release, MSG_RELEASE) \
	X(fetch_element, MSG_FETCH_ELEMENT) \
	X(purge_params, MSG_PURGE_PARAMS) \
	X(purge_result, MSG_PURGE_RESULT) \
	X(hash_params, MSG_HASH_PARAMS) \
	X(hash_result, MSG_HASH_RESULT) \
	X(programs_params, MSG_PROGRAMS_PARAMS) \
	X(programs_result, MSG_PROGRAMS_RESULT) \
	X(reload_result, MSG_RELOAD_RESULT) \
	X(tail_params, MSG_TAIL_PARAMS) \
	X(tail_result, MSG_TAIL_RESULT) \
	X(signal_params, MSG_SIGNAL_PARAMS)

/* N(notification, message of the params, understood by, doc) */
#define MSG_NOTIFICATIONS(N) \
	N(release, release, "gatewayd", "Leases of this connection that are given back.")
/* M(method, message of the params, message of the result, served by, doc) */
#define MSG_METHODS(M) \
	M(ping, empty, ping_result, "all", "Who is there?") \
	M(metrics, empty, metrics_result, "all", "The same metrics as on /metrics, typed.") \
	M(log_level, log_level_params, log_level_result, "all", \
	  "Change what is logged, until the next start.") \
	M(request, request_params, request_result, "hashd, gatewayd", \
	  "One HTTP request without HTTP. RPC_FAILED: no answer could be had; an HTTP error is a result.") \
	M(attach, empty, attach_result, "gatewayd", \
	  "Share the arena, so that answers may lie there: only as the first message.") \
	M(fetch, request_params, request_result, "gatewayd", \
	  "An embeddings request from another instance of the pod to the owner of its elements, never passed on. The body " \
	  "of a 200 is a sequence of packed fetch_element; of others it is an error as of request.") \
	M(purge, purge_params, purge_result, "gatewayd, broadcasterd", \
	  "Take objects out of memory, and out of the store where asked.") \
	M(hash, hash_params, hash_result, "hashd", "The x-body-hash that hashd would give this body.") \
	M(status, programs_params, programs_result, "supervisor", "State of programs.") \
	M(start, programs_params, programs_result, "supervisor", "Start programs.") \
	M(stop, programs_params, programs_result, "supervisor", "Stop programs.") \
	M(restart, programs_params, programs_result, "supervisor", \
	  "Stop and start programs, numbered ones one after the other.") \
	M(reload, empty, reload_result, "supervisor", \
	  "Read the configuration again and bring what runs in line with it.") \
	M(tail, tail_params, tail_result, "supervisor", "The end of a program's log.") \
	M(signal, signal_params, programs_result, "supervisor", "Send a signal to programs.") \
	M(shutdown, empty, empty, "supervisor", \
	  "Stop everything, then the supervisor itself; answered before that begins.")
/* clang-format on */

/* ---- made from the lists ---- */

struct msg_schema;
struct msg_error {
	char text[192]; /* "families[2].samples[0].value: not a number" */
};

/* Append the packed message: 0, or -1 (out's ceiling, a list over its limit, no memory). */
int msg_pack(const struct msg_schema *schema, const void *message, struct buf *out);
/* Fill *message; spans point into bytes. 0, or -1 with *error and nothing to free. */
int msg_unpack(
	const struct msg_schema *schema, struct span bytes, void *message, struct msg_error *error);
/* Free what unpacking allocated: needed for messages with strs, u64s, f64s or records, harmless
 * for the others. Not for messages whose lists the caller owns. */
void msg_free(const struct msg_schema *schema, void *message);

struct rpc_call *msg_call(struct rpc_client *client, const char *method,
	const struct msg_schema *schema, const void *params, uint32_t timeout_ms,
	const struct rpc_call_events *events, void *arg);
int msg_notify(struct rpc_client *client, const char *method, const struct msg_schema *schema,
	const void *params);
int msg_params(struct rpc_request *request, const struct msg_schema *schema, struct span bytes,
	void *params);
void msg_reply(struct rpc_request *request, const struct msg_schema *schema, const void *result);
int msg_reply_start(
	struct rpc_request *request, const struct msg_schema *schema, const void *result);

#define MSG_TYPE_str                        struct span
#define MSG_TYPE_token                      struct span
#define MSG_TYPE_target                     struct span
#define MSG_TYPE_bin                        struct span
#define MSG_TYPE_u64                        uint64_t
#define MSG_TYPE_i64                        int64_t
#define MSG_TYPE_f64                        double
#define MSG_TYPE_bool                       bool
#define MSG_TYPE_headers                    struct msg_headers
#define MSG_TYPE_strs                       struct msg_strs
#define MSG_TYPE_u64s                       struct msg_u64s
#define MSG_TYPE_f64s                       struct msg_f64s

#define MSG_MEMBER(kind, field, doc)        MSG_TYPE_##kind field;
#define MSG_MEMBER_LIST(record, field, doc) struct msg_##record##_list field;

/* struct msg_program, and struct msg_program_list { items, count } */
#define MSG_DECLARE_RECORD(name, FIELDS)            \
	struct msg_##name {                         \
		FIELDS(MSG_MEMBER, MSG_MEMBER_LIST) \
	};                                          \
	struct msg_##name##_list {                  \
		struct msg_##name *items;           \
		size_t count;                       \
	};
MSG_RECORDS(MSG_DECLARE_RECORD)

/* struct msg_hash_params with msg_hash_params_pack(), _unpack() and _free() */
#define MSG_DECLARE_MESSAGE(name, FIELDS)                                                      \
	struct msg_##name {                                                                    \
		FIELDS(MSG_MEMBER, MSG_MEMBER_LIST)                                            \
	};                                                                                     \
	const struct msg_schema *msg_##name##_schema(void);                                    \
	static inline int msg_##name##_pack(const struct msg_##name *message, struct buf *out) \
	{                                                                                      \
		return msg_pack(msg_##name##_schema(), message, out);                          \
	}                                                                                      \
	static inline int msg_##name##_unpack(                                                 \
		struct span bytes, struct msg_##name *message, struct msg_error *error)        \
	{                                                                                      \
		return msg_unpack(msg_##name##_schema(), bytes, message, error);               \
	}                                                                                      \
	static inline void msg_##name##_free(struct msg_##name *message)                       \
	{                                                                                      \
		msg_free(msg_##name##_schema(), message);                                      \
	}
MSG_MESSAGES(MSG_DECLARE_MESSAGE)

/*
 * msg_hash_call(): rpc_call_start() with the params packed. NULL also when they do not fit into
 * a frame.
 * msg_hash_serve_params(): unpack in serve(); -1: the asker was told RPC_BAD_PARAMS and the field,
 * the request is dead.
 * msg_hash_reply(), _reply_start(): rpc_request_reply(), _reply_start() with the result packed; the
 * request is dead as there. What cannot be packed is answered with RPC_FAILED (_reply_start: -1).
 */
#define MSG_DECLARE_METHOD(method, params_message, result_message, served_by, doc)          \
	static inline struct rpc_call *msg_##method##_call(struct rpc_client *client,       \
		const struct msg_##params_message *params, uint32_t timeout_ms,             \
		const struct rpc_call_events *events, void *arg)                            \
	{                                                                                   \
		return msg_call(client, #method, msg_##params_message##_schema(), params,   \
			timeout_ms, events, arg);                                           \
	}                                                                                   \
	static inline int msg_##method##_serve_params(struct rpc_request *request,          \
		struct span bytes, struct msg_##params_message *params)                     \
	{                                                                                   \
		return msg_params(request, msg_##params_message##_schema(), bytes, params); \
	}                                                                                   \
	static inline void msg_##method##_reply(                                            \
		struct rpc_request *request, const struct msg_##result_message *result)     \
	{                                                                                   \
		msg_reply(request, msg_##result_message##_schema(), result);                \
	}                                                                                   \
	static inline int msg_##method##_reply_start(                                       \
		struct rpc_request *request, const struct msg_##result_message *result)     \
	{                                                                                   \
		return msg_reply_start(request, msg_##result_message##_schema(), result);   \
	}
MSG_METHODS(MSG_DECLARE_METHOD)

/* rpc_client_notify() with the params packed. -1: they do not fit into a frame. */
#define MSG_DECLARE_NOTIFICATION(name, message, understood_by, doc)                 \
	static inline int msg_##name##_notify(                                      \
		struct rpc_client *client, const struct msg_##message *params)      \
	{                                                                           \
		return msg_notify(client, #name, msg_##message##_schema(), params); \
	}
MSG_NOTIFICATIONS(MSG_DECLARE_NOTIFICATION)

/* ---- the tables themselves, for docs and tests ---- */

enum msg_kind {
	MSG_KIND_str,
	MSG_KIND_token,
	MSG_KIND_target,
	MSG_KIND_bin,
	MSG_KIND_u64,
	MSG_KIND_i64,
	MSG_KIND_f64,
	MSG_KIND_bool,
	MSG_KIND_headers,
	MSG_KIND_strs,
	MSG_KIND_u64s,
	MSG_KIND_f64s,
	MSG_KIND_list,
};
struct msg_field {
	const char *name;
	enum msg_kind kind;
	size_t offset;
	const struct msg_schema *(*record)(void); /* MSG_KIND_list: of what */
	const char *doc;
};
struct msg_schema {
	const char *name;
	size_t size; /* of the struct */
	size_t n_fields;
	const struct msg_field *fields;
};
struct msg_method {
	const char *name; /* NULL ends the table */
	const struct msg_schema *(*params)(void), *(*result)(void);
	const char *served_by;
	const char *doc;
};
extern const struct msg_method msg_methods[];
extern const struct msg_method msg_notifications[]; /* result: NULL */

#endif
