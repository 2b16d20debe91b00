#ifndef BROADCASTERD_PURGE_H
#define BROADCASTERD_PURGE_H

/*
 * One purge as it came, to be handed on: path, header fields that go along, body. Checked and
 * copied once, then immutable and shared by all who deliver it.
 *
 * To other pods it goes as it came, over HTTP. To a gatewayd of this pod it goes over RPC, so what
 * its fields ask for is read here, once; and what cannot be a purge is refused here instead of by
 * every target. What they may say (gatewayd's rules):
 *
 *   no field of these          the objects of the path, query included
 *   X-Purge-All: true          everything
 *   Surrogate-Key: a b         what has one of the tags: visible ASCII, up to 256 bytes each
 *   X-Body-Hash: H             one object, 64 hexadecimal digits
 *   X-Purge-Key: K             one element
 *   X-Purge-Store: true        the store too: with all, with one tag model:NAME, with X-Purge-Key
 *   X-Purge-Time: MS           with X-Purge-Store: what was bought until then, since 1970; it is
 *                              added when the purge came without, so that all targets, and those
 *                              that are told later, purge the same
 *
 * At most one of the middle four.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/messages.h"
#include "common/span.h"
#include "common/trace.h"

#define PURGE_MAX_TARGET_BYTES (16u << 10)
#define PURGE_MAX_BODY_BYTES   (64u << 10)
#define PURGE_MAX_HEADERS      64
#define PURGE_MAX_HEADER_BYTES (32u << 10) /* all names and values together */
#define PURGE_MAX_VALUES       32          /* tags */
#define PURGE_MAX_TAG_BYTES    256

struct purge_header {
	struct span name, value;
};

struct purge {
	unsigned refs;
	uint64_t time_ms; /* when it came, since 1970 */
	struct span target, body;
	struct purge_header *headers;
	size_t n_headers;

	/* What they ask for: of params, scope, values, store and (with store) time_ms are set. */
	struct msg_purge_params params;
	size_t size_bytes; /* about what it takes in memory and in the journal */

	/* Of the request that brought it; the spans of its deliveries are below. */
	struct trace trace;
	bool has_trace;

	bool taken;      /* a target has purged: if it is of the store, the store knows */
	size_t n_queues; /* redelivery's: how many targets it waits for */
	uint32_t number; /* the journal's, while it is written */
};

/* What a purge is made of. The fields are all that the sender sent; those that do not go along (RFC
 * 9110 7.6.1 and what Connection names; Host, Authorization, Content-Length, Expect) are left out.
 */
struct purge_source {
	uint64_t time_ms;
	struct span target, body;
	const struct purge_header *headers;
	size_t n_headers;
};

/* NULL: *error is one static sentence for whoever sent it, and *status the HTTP status that says so
 * (400, 413, 431; 503 when out of memory). The caller's. */
struct purge *purge_new(const struct purge_source *source, int *status, const char **error);
/* The same from what an RPC peer asks for. */
struct purge *purge_from_params(
	const struct msg_purge_params *params, uint64_t now_ms, int *status, const char **error);
/* Everything in memory, nothing of the store: what stands for purges that could not be kept. NULL
 * when out of memory. */
struct purge *purge_everything(uint64_t now_ms);

struct purge *purge_ref(struct purge *purge);
void purge_unref(struct purge **purge); /* clears the pointer; NULL is fine */

/* The same effect: equal but for the time. */
bool purge_equal(const struct purge *a, const struct purge *b);
/* name in lower or any case. */
bool purge_has_field(const struct purge *purge, const char *name);
/* Of the request that brought it, for log lines; NULL: none is known. */
const struct trace *purge_trace(const struct purge *purge);
/* "tag a b", "path /v1/models": for logs, cut short, without control characters. size: at
 * least 16. */
void purge_describe(const struct purge *purge, char *text, size_t size);

/* One MessagePack object for the journal, and back (copied). What is refused here, because another
 * version of this program took it, becomes a purge of everything in memory. NULL: not one that
 * purge_pack() made, or out of memory. */
void purge_pack(const struct purge *purge, struct buf *out);
struct purge *purge_unpack(struct span bytes);

#endif
