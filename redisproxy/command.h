#ifndef REDISPROXY_COMMAND_H
#define REDISPROXY_COMMAND_H

/*
 * What the proxy must know about a command: may a replica serve it, and does it change what the
 * connection is. A built-in table (that of Redis 7), to which the server's own COMMAND table adds
 * names and corrects reads. Names that neither has go to the writer and count as "other".
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/metrics.h"
#include "common/span.h"
#include "redisproxy/keys.h"

#define COMMAND_OTHER    "other"
#define COMMAND_MAX_NAME 32
#define COMMAND_MAX      1024 /* names; the server's further ones are "other" */

enum command_kind {
	COMMAND_PLAIN,    /* a request and its reply */
	COMMAND_ANYWHERE, /* the same, on whatever server is at hand (PING, ECHO) */
	COMMAND_SCAN,     /* an iteration: stays on the server that began it */
	COMMAND_BLOCKING, /* may wait: a connection of its own until the reply */
	COMMAND_XREAD,    /* the same when BLOCK is among its words */
	COMMAND_SCRIPTED, /* runs a script: the same, by setting */
	COMMAND_FUNCTION, /* the same when it is FUNCTION KILL, which must not wait behind what it
			     ends */
	COMMAND_MULTI,
	COMMAND_EXEC, /* EXEC and DISCARD: end MULTI and WATCH */
	COMMAND_WATCH,
	COMMAND_UNWATCH,
	COMMAND_OWN,    /* changes what the connection is: one of its own from now on, for good */
	COMMAND_SCRIPT, /* the same when it is SCRIPT DEBUG; SCRIPT KILL must not wait behind what
			   it ends */
	COMMAND_CLIENT,
	COMMAND_AUTH,
	COMMAND_HELLO,
	COMMAND_SELECT,
	COMMAND_RESET,
	COMMAND_QUIT,
	COMMAND_HTTP, /* words of a browser: Redis closes the connection, so we must first */
};

struct command {
	char name[COMMAND_MAX_NAME]; /* lower case */
	uint8_t len;
	bool read;       /* a replica may serve it */
	bool write;      /* changes data, as far as is known */
	bool replicates; /* a read, or no write, that CLIENT PAUSE WRITE holds up all the same */
	bool fans;       /* may become several in a cluster (fan.h) */
	enum command_kind kind;
	struct keys_rule keys; /* in a cluster */
	uint64_t calls;        /* since the metrics were last collected */
	struct metric *counter;
};

struct commands;
/* NULL when out of memory. metrics (may be NULL): for redis_commands_total{cmd}. */
struct commands *commands_new(struct metrics *metrics);
void commands_free(struct commands **commands);
/* Any case. Never NULL: what is not known is the command "other". */
struct command *commands_find(struct commands *commands, struct span name);
/* From the server: a name with its flags and where its key is (KEYS_UNKNOWN: as before). Kinds are
 * the proxy's own business and stay. */
void commands_learn(struct commands *commands, struct span name, bool read, bool write,
	const struct keys_rule *keys);

#endif
