#ifndef COMMON_RESOLVE_H
#define COMMON_RESOLVE_H

/*
 * Names to addresses, A and AAAA, without blocking the loop: getaddrinfo(3), each look-up on a
 * thread of its own that ends with it. So names mean here what they mean to every other program of
 * the machine (hosts file, search domains, TCP for long answers), at the price of a thread: these
 * threads are few (RESOLVE_MAX_THREADS) and start only when somebody asks.
 *
 *   lookup ──┐
 *   lookup ──┴─▶ query (one of a name waits at a time) ─▶ thread ─▶ answer to all of its lookups
 *
 * A lookup always gets an answer that was asked for after it began: while a query of the same name
 * is under way, later lookups share the next one. Nothing is kept between queries; who wants a list
 * that stays fresh asks again by a timer. A thread whose name server is silent cannot be stopped;
 * it is left alone (its lookups have a deadline, and resolver_free() does not wait for it).
 */
#include <stddef.h>
#include <stdint.h>

struct loop;
struct resolver;
struct resolve_lookup;

#define RESOLVE_MAX_ADDRESSES 4096 /* of one name; the rest is left out */
#define RESOLVE_MAX_THREADS   4

enum resolve_extent {
	RESOLVE_ANY, /* addresses to be used: those of one kind do */
	RESOLVE_ALL, /* every A and AAAA, or RESOLVE_FAILED */
};

enum resolve_outcome {
	RESOLVE_OK,
	RESOLVE_NONE,   /* the name servers say that there is no such name, or no address */
	RESOLVE_FAILED, /* no answer could be had */
	RESOLVE_TIMEOUT,
};

struct resolve_result {
	enum resolve_outcome outcome;
	const char *const
		*addresses; /* numeric, without port; in the resolver's order, no
			       duplicates; only with RESOLVE_OK; borrowed for the callback */
	size_t count;
	const char *detail; /* one sentence for a log line, unless RESOLVE_OK */
};

/* NULL when out of memory or descriptors. */
struct resolver *resolver_new(struct loop *loop, enum resolve_extent extent);
/* Lookups under way end without a callback. Does not wait for threads. Not from an on_done. */
void resolver_free(struct resolver **resolver);

/* host is a name or a numeric address, copied. on_done: exactly once, never from inside this call;
 * the lookup is gone when it is called. NULL only when out of memory. */
struct resolve_lookup *resolve_start(struct resolver *resolver, const char *host,
	uint32_t timeout_ms, void (*on_done)(const struct resolve_result *result, void *arg),
	void *arg);
/* No callback comes. Clears the pointer; NULL is fine. */
void resolve_cancel(struct resolve_lookup **lookup);

#endif
