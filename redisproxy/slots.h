#ifndef REDISPROXY_SLOTS_H
#define REDISPROXY_SLOTS_H

/*
 * Hash slots: which one a key has, what a server says about who serves them, and where it sends a
 * command instead (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
 * Pure. What servers say is checked like any input: a reply that is none is refused as a whole.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/span.h"

#define SLOTS_N             16384
#define SLOTS_MAX_REPLICAS  8 /* of one master; further ones are not used */
#define SLOTS_ADDRESS_BYTES 272

struct redisReply;

/* CRC16 (XMODEM) of the key, or of the part within its first braces if that is not empty. */
uint16_t slots_of_key(struct span key);

/* An address as CONFIG_ADDRESS has it. host: "" or "?": as `same_host` (itself an address). 0, or
 * -1 when it is no address. */
int slots_address(
	struct span host, int64_t port, const char *same_host, char address[SLOTS_ADDRESS_BYTES]);

/* One line of CLUSTER SLOTS. */
struct slots_range {
	uint16_t first, last;
	unsigned n; /* nodes: the master, then its replicas */
	char nodes[1 + SLOTS_MAX_REPLICAS][SLOTS_ADDRESS_BYTES];
};
/* Tell the ranges of CLUSTER SLOTS's reply one by one. asked: the address that answered. 0, or -1
 * when it is no such reply; then nothing was told. */
int slots_read(const struct redisReply *reply, const char *asked,
	void (*on_range)(const struct slots_range *range, void *arg), void *arg);

enum redirection_kind {
	REDIRECTION_NONE,
	REDIRECTION_MOVED,
	REDIRECTION_ASK,
	REDIRECTION_LATER,   /* TRYAGAIN, CLUSTERDOWN: there, a little later */
	REDIRECTION_REPLICA, /* a replica that cannot serve just now */
};
struct redirection {
	enum redirection_kind kind;
	uint16_t slot;                     /* MOVED and ASK */
	char address[SLOTS_ADDRESS_BYTES]; /* the same */
};
/* What an error reply ("-MOVED 3999 127.0.0.1:6381\r\n") of the server `asked` means. */
struct redirection slots_redirection(struct span line, const char *asked);

#endif
