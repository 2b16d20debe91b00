#ifndef REDISPROXY_ZONE_H
#define REDISPROXY_ZONE_H

/*
 * The own zone: those of a list of networks (CIDR, RFC 4632) that the own address is in. Servers
 * there are preferred. Pure.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sockaddr;

#define ZONE_MAX_NETWORKS 64 /* in the list */

struct zone_network {
	uint8_t bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
	unsigned bits;
};
struct zone {
	unsigned n;
	struct zone_network networks[ZONE_MAX_NETWORKS];
};

/* cidrs: "10.0.0.0/16, fd00:1::/32", separated by commas or blanks; may be empty. own: a numeric
 * address; "": no zone. 0, or -1 with one line in error that names what is wrong. */
int zone_init(struct zone *zone, const char *cidrs, const char *own, char *error, size_t size);
/* False for what is neither IPv4 nor IPv6. */
bool zone_has(const struct zone *zone, const struct sockaddr *address);

#endif
