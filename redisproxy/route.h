#ifndef REDISPROXY_ROUTE_H
#define REDISPROXY_ROUTE_H

/*
 * Where a command goes in a cluster: what dispatch.h says, with the server chosen by the slot of
 * the command's first key (keys.h). Beyond fan.h:
 *
 *   no key                  a master, the same one for each client while it lives
 *   reads                   a replica of the slot, with --reader-routing, as dispatch.h
 *   MULTI                   answered here; its first command with a key says on which server the
 *                           transaction takes place, and is preceded by MULTI there
 *   WATCH, blocking, EVAL   a connection of the client's own to the server of the slot
 *   SUBSCRIBE, MONITOR ...  a connection of the client's own to any master (SSUBSCRIBE: of the
 *                           slot), for good
 *   ASKING, READONLY, READWRITE: OK, and nothing happens
 *   CLIENT TRACKING         an error: invalidations of one server would be all that comes
 *   over 256 KiB            passes piece by piece, so it cannot be sent on: when its slot moves
 * just then it is answered with TRYAGAIN. Its key must be within its first 256 KiB
 */
#include "redisproxy/dispatch_private.h"

struct pool;
struct upstream;

/* One complete command, before anything else is looked at. */
enum dispatch_result route_command(struct client *c, struct request *r);
/* An ordinary command. */
enum dispatch_result route_shared(struct client *c, struct request *r);
/* One for a connection of the client's own. */
enum dispatch_result route_own(struct client *c, struct request *r, enum entry_meaning meaning);
/* The first bytes of a command over 256 KiB. TOOK: the rest is to follow on c->own. */
enum dispatch_result route_large(struct client *c, struct request *r);
/* Where a connection of the client's own that is to last should go. NULL: not known yet. */
struct pool *route_pool(struct client *c, const struct request *r);

#endif
