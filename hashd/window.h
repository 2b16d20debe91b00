#ifndef HASHD_WINDOW_H
#define HASHD_WINDOW_H

/*
 * The arena of one gatewayd, mapped read-only for one connection: answers lie there, and go to the
 * client from there.
 *
 *   window_open --- window_lend* --- window_detach --- last slice released: unmapped, socket closed
 *                     '--slice released: its lease goes back, with others, a moment later
 *
 * Leases are the connection's. gatewayd keeps what it lent until the lease is back or the socket
 * closed, so the socket outlives the connection for as long as a byte is still to be written from
 * the mapping. Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/slice.h"

struct loop;
struct rpc_client;
struct window;

/* fd (taken over, on failure too) is checked: a memfd of arena_bytes that cannot shrink. client is
 * who returns leases, until window_detach(). NULL, with a log line. */
struct window *window_open(
	struct loop *loop, struct rpc_client *client, uint64_t arena_bytes, int fd);
/* The bytes [offset, offset + length), until the slice is released. false: not within the arena, or
 * no memory; the lease goes back at once. */
bool window_lend(struct window *window, uint64_t lease, uint64_t offset, uint64_t length_bytes,
	struct slice *slice);
/* Not wanted. */
void window_return(struct window *window, uint64_t lease);
/* The connection is over; socket is closed, and the window freed, when no slice is left. Clears the
 * pointer; NULL is fine (then the socket is closed). */
void window_detach(struct window **window, int socket);

/* Of the whole process, for metrics. */
struct window_counters {
	uint64_t mapped_bytes, lent, lent_bytes; /* now */
	uint64_t refused;                        /* answers that were not within the arena */
};
extern struct window_counters window_counters;

#endif
