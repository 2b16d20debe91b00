#ifndef COMMON_BODY_H
#define COMMON_BODY_H

/*
 * Request bodies in memory: hashed as they arrive, shared by reference with what works on them, and
 * counted, all of them together, against one budget.
 *
 *   body_new --- body_append* --- body_finish --- (body_slice, body_bytes)* --- body_unref
 *   `--------- receiving ---------'`------------------- complete ------------------------'
 *
 * The first BODY_FREE_BYTES of each are outside the budget: a small body never waits for a large
 * one. An eighth of it is for bodies below BODY_MEDIUM_BYTES alone. Where there is no room
 * receivers are told to stop reading, and called when they may go on, oldest first. Only the oldest
 * of those that are no longer small goes on regardless, for one body's length, and further when no
 * complete body is left whose end would make room, so that somebody always finishes. Received bytes
 * are at most the budget, two largest bodies, and BODY_FREE_BYTES and one read per receiver.
 *
 * Nobody keeps room for ever: a receiver that may read and brings too little is late.
 *
 *   nobody waits for room   less than least_bytes_s on average, looked at every timeout_ms
 *   somebody does           less than the largest body would need to be in within timeout_ms,
 *                           looked at every BODY_PRESSED_MS, of those outside their free bytes
 *
 * Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/slice.h"
#include "common/span.h"

#define BODY_FREE_BYTES   (16u << 10)
#define BODY_MEDIUM_BYTES (1u << 20)
#define BODY_PRESSED_MS   2000

struct loop;
struct bodies;
struct body;

struct bodies_options {
	uint64_t budget_bytes;
	size_t max_body_bytes;  /* of one */
	uint32_t timeout_ms;    /* not 0 */
	uint32_t least_bytes_s; /* 0: any pace will do, while nobody waits */
};

/* options are copied. NULL when out of memory. */
struct bodies *bodies_new(struct loop *loop, const struct bodies_options *options);
/* No new one comes; what is left of it goes with the last body. */
void bodies_free(struct bodies **bodies);
uint64_t bodies_bytes(const struct bodies *bodies);
size_t bodies_paused(const struct bodies *bodies);

enum body_flow { BODY_READ_ON, BODY_STOP_READING };

/* Never called from inside a call about this body, nor once it is finished. */
struct body_events {
	/* After it was told to stop. */
	void (*on_read_on)(void *arg);
	/* It is late: give the body up, now or soon. Said again after as long if it is not. */
	void (*on_late)(void *arg);
};

/*
 * A body to be received; declared_bytes is its length if known, else -1. Begin to read. events must
 * outlive it. One reference is the caller's. NULL when out of memory.
 */
struct body *body_new(
	struct bodies *bodies, int64_t declared_bytes, const struct body_events *events, void *arg);
/* 0, or -1 when it grows over the largest size or memory is out. */
int body_append(struct body *body, struct span data, enum body_flow *flow);
/* All bytes are there. */
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
