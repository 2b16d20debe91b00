#ifndef HASHD_BODY_H
#define HASHD_BODY_H

/*
 * Request bodies in memory: hashed as they arrive, shared by reference with what is on its way to
 * gatewayd, and counted, all of them together, against one budget.
 *
 *   body_new --- body_append* --- body_finish --- (body_slice, body_bytes)* --- body_unref
 *   `--------- receiving ---------'`------------------- complete ------------------------'
 *
 * Above the budget receivers are told to stop reading and called when they may go on, oldest first.
 * Only the oldest goes on regardless, for one body's length, and further when no complete body is
 * left whose end would make room, so that somebody always finishes. Received bytes are at most the
 * budget, two largest bodies, and one read per receiver. Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/slice.h"
#include "common/span.h"

struct loop;
struct bodies;
struct body;

/* NULL when out of memory. */
struct bodies *bodies_new(struct loop *loop, uint64_t budget_bytes);
/* After the last body. */
void bodies_free(struct bodies **bodies);
uint64_t bodies_bytes(const struct bodies *bodies);
size_t bodies_paused(const struct bodies *bodies);

enum body_flow { BODY_READ_ON, BODY_STOP_READING };

/*
 * A body to be received, at most max_bytes long; declared_bytes is its length if known, else -1.
 * on_read_on is called, never from inside a call about this body, after it was told to stop. *flow
 * says whether to begin. One reference is the caller's. NULL when out of memory.
 */
struct body *body_new(struct bodies *bodies, int64_t declared_bytes, size_t max_bytes,
	void (*on_read_on)(void *arg), void *arg, enum body_flow *flow);
/* 0, or -1 when it grows over max_bytes or memory is out. */
int body_append(struct body *body, struct span data, enum body_flow *flow);
/* All bytes are there: on_read_on is not called any more. */
void body_finish(struct body *body);
/* Of a complete body. */
const struct digest *body_digest(const struct body *body);
struct span body_bytes(const struct body *body);
/* Bytes [offset, offset + len) with a reference of their own. */
struct slice body_slice(struct body *body, size_t offset, size_t len_bytes);
/* One more reference. */
void body_ref(struct body *body);
/* Clears the pointer; NULL is fine. */
void body_unref(struct body **body);

#endif
