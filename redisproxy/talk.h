#ifndef REDISPROXY_TALK_H
#define REDISPROXY_TALK_H

/*
 * A connection to a server or a sentinel on which the proxy itself says something: health checks,
 * CLUSTER SLOTS, SENTINEL. RESP2, read by hiredis, with TLS where it is set. Not on the path of
 * clients.
 *
 *   CONNECTING -> HANDSHAKE (TLS) -> OPEN -> (closed)
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/span.h"

struct redisReader;
struct redisReply;
struct server;
struct talk;

#define TALK_MAX_REPLY    (8 << 20)
#define TALK_MAX_ELEMENTS (64 << 10) /* of one array; a cluster has 16,384 slots */
#define TALK_MAX_UNSENT   (1 << 20)

struct talk_events {
	/* The reply is the talk's. */
	void (*on_reply)(const struct redisReply *reply, void *arg);
	/* Once, unless talk_free() came first; free it there, or later. */
	void (*on_closed)(const char *why, void *arg);
};

/* Begin to connect; what is said before it is open is sent then. NULL with errno as
 * server_connect(). */
struct talk *talk_new(struct server *server, const struct talk_events *events, void *arg);
/* At any time, also from its events. */
/* Does it wait for the other side's part of the TLS handshake? */
bool talk_shakes_hands(const struct talk *talk);
void talk_free(struct talk **talk);
/* AUTH, unless the password is empty. Its reply is one like any other. True: it was said. */
bool talk_auth(struct talk *talk, const char *user, const char *password);
/* 0, or -1 when there is no room. */
int talk_say(struct talk *talk, const struct span *argv, uint32_t argc);

/* hiredis's reader, but that an array that announces more than TALK_MAX_ELEMENTS is an error before
 * memory is taken for it. NULL when out of memory; redisReaderFree() frees it. */
struct redisReader *talk_reader_new(void);

#endif
