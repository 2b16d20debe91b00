#ifndef REDISPROXY_SENTINEL_H
#define REDISPROXY_SENTINEL_H

/*
 * Who the writer is, and which replica serves reads, by what sentinels say
 * (https://redis.io/docs/latest/develop/reference/sentinel-clients/).
 *
 *   start, every --topology-refresh, sentinel_refresh()
 *        '--> ask one sentinel: get-master-addr-by-name, replicas --no answer in 1 s--> the next
 * one
 *                 '--> proxy->writer and proxy->reader take the addresses
 *   each sentinel: SUBSCRIBE +switch-master (and what says that replicas came or went)
 *        '--> the writer takes the address that the message names; ask again
 *
 * The writer is checked with every PING by ROLE (control.h), and READONLY is a demotion (pool.h):
 * both lead to another question, so a sentinel that is behind the times is not believed for long.
 * When the writer changes, its connections of clients' own are closed (their state and their
 * subscriptions were the old one's), shared ones end when what is under way was answered, or at
 * once when the old writer was down.
 *
 * The reader is one replica that the sentinels find healthy: the present one as long as it is, else
 * one of the own zone, else by a random number of this process, so that pods spread.
 */
#include <stddef.h>

#include "common/span.h"

#define SENTINEL_MAX          16
#define SENTINEL_MAX_REPLICAS 64
#define SENTINEL_ADDRESS      272

struct proxy;
struct redisReply;
struct sentinel;

/* The writer and the reader (if reads are routed) are there, without addresses. NULL with one line
 * in error. */
struct sentinel *sentinel_new(struct proxy *proxy, char *error, size_t size);
void sentinel_free(struct sentinel **sentinel);
/* Ask soon. */
void sentinel_refresh(struct sentinel *sentinel);

/* What sentinels say. Pure; for the tests. The address in get-master-addr-by-name's reply, or in
 * the text of +switch-master for this master: 0, or -1 when there is none. */
int sentinel_read_master(const struct redisReply *reply, char address[SENTINEL_ADDRESS]);
int sentinel_read_switch(struct span text, const char *master, char address[SENTINEL_ADDRESS]);
/* The healthy replicas in SENTINEL replicas' reply, at most SENTINEL_MAX_REPLICAS; how many. */
size_t sentinel_read_replicas(
	const struct redisReply *reply, char addresses[SENTINEL_MAX_REPLICAS][SENTINEL_ADDRESS]);

#endif
