#ifndef HASHD_BACKEND_H
#define HASHD_BACKEND_H

/*
 * The gatewayd instances of this pod: which there are, which are alive, and which one a key belongs
 * to.
 *
 *   AWAY ---connected---> SILENT ---answers a ping---> UP ---misses a ping---> SUSPECT ---again--->
 * DEAD ^                                              ^  |
 * ^----answers---------'-------------------' |                                       ready  |  v
 * not ready |                                             LEAVING
 *     '------------------------ connection lost, from every state
 *
 * UP instances get requests. A LEAVING one (its ping says that it is not ready: it is about to
 * stop) gets them only when none is UP; else, once idle, it is hung up on, so that it can leave. An
 * instance that was just connected to has first_byte_ms to answer its first ping, later ones
 * ping_timeout_ms; any other byte from it counts as an answer. When one is DEAD, on_dead is called,
 * so that what it was asked can be asked elsewhere.
 *
 * The set is what the settings say, whether up or not, and every key ranks all of it (rendezvous
 * hashing): one instance lost moves its own keys and no others. Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"

struct backend;
struct backends;
struct hashd_conf;
struct loop;
struct metrics;
struct rpc_client;
struct window;

struct backends_events {
	void (*on_up)(void *arg); /* one came up */
	void (*on_dead)(struct backend *backend, void *arg);
};

/* Connects at once, in the background. NULL when out of memory; dies on a bad HASHD_BACKENDS. */
struct backends *backends_new(struct loop *loop, const struct hashd_conf *conf,
	struct metrics *metrics, const struct backends_events *events, void *arg);
void backends_free(struct backends **backends);

/*
 * The first in the key's ranking that is up (else: leaving), leaving out `avoid` (may be NULL)
 * unless it is the only one. NULL when none is up: then those that are away are connected to at
 * once.
 */
struct backend *backends_choose(
	struct backends *backends, const struct digest *key, const struct backend *avoid);
size_t backends_up(const struct backends *backends);
size_t backends_count(const struct backends *backends);

const char *backend_name(const struct backend *backend);
struct rpc_client *backend_client(const struct backend *backend);
/* Its arena, as mapped for the present connection; NULL when it shares none. */
struct window *backend_window(const struct backend *backend);
/* A request that it was asked has ended, completely answered (ok) or not: for the metrics. */
void backend_answered(struct backend *backend, bool ok, uint64_t duration_us);
/* It said something: a sign of life. */
void backend_heard(struct backend *backend);

#endif
