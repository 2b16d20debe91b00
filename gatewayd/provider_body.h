#ifndef GATEWAYD_PROVIDER_BODY_H
#define GATEWAYD_PROVIDER_BODY_H

/*
 * The body of a call to a provider, written from the inputs. Writing 32 MiB takes up to 100 ms, so
 * a large one is written on a worker, from inputs that are held by reference. Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>

#include "common/workers.h"
#include "gatewayd/provider.h"

/* Zeroed is empty. Read data and len_bytes; all else is private. */
struct provider_body {
	struct job job; /* first */
	char *data;     /* NULL: not written */
	size_t len_bytes;
	struct loop *loop;
	int (*write)(const struct provider_request *request, struct buf *out);
	struct provider_request_copy request;
	void (*on_written)(void *arg);
	void *arg;
	bool writing;
};

/*
 * 0: written; 1: on_written follows, from the loop, with data NULL when memory was out; -1: out of
 * memory.
 */
int provider_body_write(struct provider_body *body, struct loop *loop, struct workers *workers,
	int (*write)(const struct provider_request *request, struct buf *out),
	const struct provider_request *request, void (*on_written)(void *arg), void *arg);
/* Not while it is written. */
void provider_body_free(struct provider_body *body);

#endif
