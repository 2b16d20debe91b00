#ifndef COMMON_HTTP_PACE_H
#define COMMON_HTTP_PACE_H

/*
 * How fast a client takes its response, while it keeps us waiting: from when the kernel takes no
 * more until it has taken all. Part of http_server. Zeroed is a client that does not.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_pace {
	uint64_t since_us; /* 0: it does not keep us waiting */
	uint64_t bytes;    /* that the kernel took since */
	int unsent_bytes;  /* that the kernel had then */
};

/*
 * Asked whenever the kernel takes no more; unsent_bytes is what it has for the client now. True:
 * the client keeps us waiting for after_us at least, and took less than least_bytes_s on average.
 * Either of them 0: never.
 */
bool http_pace_too_slow(struct http_pace *pace, int unsent_bytes, uint64_t now_us,
	uint64_t after_us, uint32_t least_bytes_s);

#endif
