#ifndef REDISPROXY_FAN_H
#define REDISPROXY_FAN_H

/*
 * One command that becomes several in a cluster, and one reply again:
 *
 *   MGET MSET DEL UNLINK EXISTS TOUCH   one for each key, when the keys are of several slots
 *   DBSIZE FLUSHALL FLUSHDB KEYS SCRIPT LOAD, FLUSH, FUNCTION LOAD, DELETE, FLUSH, RESTORE
 *                                       one for each master
 *   SCAN                                the masters one after the other: the cursor that clients
 *                                       see is the server's * 512 + the id of the master
 *
 * Such commands are atomic on each server, not over all. An error of any part is the answer of the
 * whole. An answer that is made of parts is held until it is complete, up to the limit of the
 * client's output; beyond that it is an error. Everything else with keys of several slots goes to
 * the server, which says CROSSSLOT.
 */
#include <stdbool.h>
#include <stddef.h>

struct client;
struct fan;
struct place;
struct request;

enum fan_result { FAN_NO, FAN_TOOK, FAN_NO_MEMORY };
/* FAN_NO: an ordinary command (or one whose keys are all of one slot). Not for SCAN. */
enum fan_result fan_out(struct client *c, struct request *r);
/* SCAN with its cursor of ours. */
enum fan_result fan_scan(struct client *c, struct request *r);

/* From place.c. Is there room for so many bytes more of a part's reply? */
bool fan_takes(struct fan *fan, size_t len);
/* The part's reply is complete in its `held`; the part is freed here. */
void fan_part_done(struct fan *fan, struct place *part);
/* Change the cursor at the beginning of SCAN's reply when it is all there. True: it was changed. */
bool fan_rewrite_cursor(struct place *place);

#endif
