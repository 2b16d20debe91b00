#ifndef GATEWAYD_CACHE_CLEANER_H
#define GATEWAYD_CACHE_CLEANER_H

/*
 * After purges: gives what the memory cache does not need any more back to the kernel, some at a
 * time, on a worker thread. Loop thread only.
 */
struct cache;
struct cache_cleaner;
struct loop;
struct workers;

/* Borrows all; workers_free() comes before cache_cleaner_free(), and that before cache_free(). NULL
 * when out of memory. */
struct cache_cleaner *cache_cleaner_new(
	struct loop *loop, struct cache *cache, struct workers *workers);
/* Until there is nothing left to give back. Once it has begun, more of it changes nothing. */
void cache_cleaner_start(struct cache_cleaner *cleaner);
void cache_cleaner_free(struct cache_cleaner **cleaner);

#endif
