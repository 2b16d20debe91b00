#include "redisproxy/zone.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEPARATORS ", \t\n"

static void map_v4(const void *v4, uint8_t bytes[16])
{
	memset(bytes, 0, 10);
	bytes[10] = bytes[11] = 0xff;
	memcpy(bytes + 12, v4, 4);
}

/* 0: no address; else its family's bits. */
static unsigned read_address(const char *text, uint8_t bytes[16])
{
	struct in_addr v4;

	if (inet_pton(AF_INET, text, &v4) == 1) {
		map_v4(&v4, bytes);
		return 32;
	}
	return inet_pton(AF_INET6, text, bytes) == 1 ? 128 : 0;
}

static int read_network(const char *text, size_t len, struct zone_network *network)
{
	char copy[64], *end;

	if (len >= sizeof copy)
		return -1;
	memcpy(copy, text, len);
	copy[len] = '\0';
	char *slash = strchr(copy, '/');

	if (slash)
		*slash++ = '\0';
	unsigned most = read_address(copy, network->bytes);
	unsigned long bits = most;

	if (!most)
		return -1;
	if (slash) {
		bits = strtoul(slash, &end, 10);
		if (*slash < '0' || *slash > '9' || *end || bits > most)
			return -1;
	}
	network->bits = (unsigned)bits + 128 - most;
	return 0;
}

static bool is_in(const struct zone_network *network, const uint8_t bytes[16])
{
	unsigned whole = network->bits / 8, rest = network->bits % 8;

	if (memcmp(network->bytes, bytes, whole) != 0)
		return false;
	return !rest || ((network->bytes[whole] ^ bytes[whole]) >> (8 - rest)) == 0;
}

int zone_init(struct zone *zone, const char *cidrs, const char *own, char *error, size_t size)
{
	uint8_t bytes[16];

	zone->n = 0;
	if (*own && !read_address(own, bytes)) {
		snprintf(error, size, "%s is no numeric address", own);
		return -1;
	}
	unsigned listed = 0;

	for (const char *at = cidrs + strspn(cidrs, SEPARATORS); *at;) {
		struct zone_network network;
		size_t len = strcspn(at, SEPARATORS);

		if (read_network(at, len, &network) < 0 || listed++ == ZONE_MAX_NETWORKS) {
			snprintf(error, size,
				"%.*s is no network like 10.0.0.0/16, or one too many", (int)len,
				at);
			return -1;
		}
		if (*own && is_in(&network, bytes))
			zone->networks[zone->n++] = network;
		at += len;
		at += strspn(at, SEPARATORS);
	}
	return 0;
}

bool zone_has(const struct zone *zone, const struct sockaddr *address)
{
	uint8_t bytes[16];

	if (address->sa_family == AF_INET)
		map_v4(&((const struct sockaddr_in *)(const void *)address)->sin_addr, bytes);
	else if (address->sa_family == AF_INET6)
		memcpy(bytes, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
	else
		return false;
	for (unsigned i = 0; i < zone->n; i++)
		if (is_in(&zone->networks[i], bytes))
			return true;
	return false;
}
