#ifndef GATEWAYD_CACHE_INDEX_H
#define GATEWAYD_CACHE_INDEX_H

/*
 * The hash table of the memory cache, and of its tags. Objects and ghosts (fingerprints of what was
 * evicted) hang in the same chains by an embedded node. Chains are chosen by a hash keyed with a
 * random seed, so that nobody can aim texts at one chain. It grows by doubling, and moves a few
 * chains with each insert: no insert is slow. It shrinks only when it is empty and told to.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/digest.h"

enum cache_queue { CACHE_QUEUE_NONE, CACHE_QUEUE_SMALL, CACHE_QUEUE_MAIN, CACHE_QUEUE_GHOST };

/* First member of what hangs in a table. */
struct index_node {
	struct index_node *next; /* in the chain */
	uint64_t hash;
};

struct cache_node {
	struct index_node index;
	TAILQ_ENTRY(cache_node) place; /* in its queue */
	uint64_t charge_bytes;         /* what it takes, or took */
	uint8_t queue;                 /* enum cache_queue */
	uint8_t uses;                  /* 0 to 3 */
};

struct cache_index {
	struct index_node **chains, **old_chains; /* old: while growing */
	size_t n_chains, n_old, n_moved;          /* powers of two; old chains moved so far */
	size_t count;
	uint64_t mask, factor; /* the seed */
};

/* 0, or -1 without memory. */
int cache_index_init(struct cache_index *index);
/* Nodes are left alone. */
void cache_index_free(struct cache_index *index);
uint64_t cache_index_hash(const struct cache_index *index, const struct digest *key);
uint64_t cache_index_hash_word(const struct cache_index *index, uint64_t word);
/* First node of the chain where this hash would be; go on by node->next, comparing hashes. Both
 * chains while growing: second is NULL otherwise. */
void cache_index_chains(
	const struct cache_index *index, uint64_t hash, struct index_node *chains[2]);
/* node->hash is set. */
void cache_index_add(struct cache_index *index, struct index_node *node);
void cache_index_remove(struct cache_index *index, struct index_node *node);
/* Empty, with an empty table of the first size. The tables that were go to whoever free()s them, on
 * any thread; NULL where there is none. */
struct index_node **cache_index_empty_table(void); /* NULL: no memory */
void cache_index_exchange(
	struct cache_index *index, struct index_node **empty, struct index_node **old[2]);
/* Give the memory of a large table back, when it is empty. */
void cache_index_shrink(struct cache_index *index);
size_t cache_index_bytes(const struct cache_index *index);

#endif
