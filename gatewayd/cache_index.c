#include "gatewayd/cache_index.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define FIRST_CHAINS 256
/* Growing starts with as many nodes as chains, so it is over long before the next doubling. */
#define MOVE_CHAINS 4

struct index_node **cache_index_empty_table(void)
{
	return calloc(FIRST_CHAINS, sizeof(struct index_node *));
}

int cache_index_init(struct cache_index *index)
{
	*index = (struct cache_index){
		.n_chains = FIRST_CHAINS, .chains = cache_index_empty_table()};
	if (!index->chains)
		return -1;
	digest_random(&index->mask, sizeof index->mask);
	digest_random(&index->factor, sizeof index->factor);
	index->factor |= 1;
	return 0;
}

void cache_index_free(struct cache_index *index)
{
	free(index->chains);
	free(index->old_chains);
	*index = (struct cache_index){0};
}

uint64_t cache_index_hash(const struct cache_index *index, const struct digest *key)
{
	uint64_t word;
	memcpy(&word, key->bytes, sizeof word);
	return cache_index_hash_word(index, word);
}

uint64_t cache_index_hash_word(const struct cache_index *index, uint64_t word)
{
	word = (word ^ index->mask) * index->factor;
	/* The best bits of a product are its upper ones, chains go by the lower ones. */
	return word ^ word >> 32;
}

static struct index_node **new_chain(const struct cache_index *index, uint64_t hash)
{
	return &index->chains[hash & (index->n_chains - 1)];
}

static struct index_node **old_chain(const struct cache_index *index, uint64_t hash)
{
	return index->old_chains ? &index->old_chains[hash & (index->n_old - 1)] : NULL;
}

void cache_index_chains(
	const struct cache_index *index, uint64_t hash, struct index_node *chains[2])
{
	struct index_node **old = old_chain(index, hash);
	chains[0] = *new_chain(index, hash);
	chains[1] = old ? *old : NULL;
}

static void push(struct cache_index *index, struct index_node *node)
{
	struct index_node **chain = new_chain(index, node->hash);
	node->next = *chain;
	*chain = node;
}

static void grow(struct cache_index *index)
{
	struct index_node **chains = calloc(index->n_chains * 2, sizeof *chains);
	if (!chains)
		return; /* longer chains, that is all */
	index->old_chains = index->chains;
	index->n_old = index->n_chains;
	index->n_moved = 0;
	index->chains = chains;
	index->n_chains *= 2;
}

static void move_some(struct cache_index *index)
{
	for (int i = 0; i < MOVE_CHAINS && index->n_moved < index->n_old; i++) {
		struct index_node **chain = &index->old_chains[index->n_moved++];
		while (*chain) {
			struct index_node *node = *chain;
			*chain = node->next;
			push(index, node);
		}
	}
	if (index->n_moved == index->n_old) {
		free(index->old_chains);
		index->old_chains = NULL;
		index->n_old = 0;
	}
}

void cache_index_add(struct cache_index *index, struct index_node *node)
{
	push(index, node);
	index->count++;
	if (index->old_chains)
		move_some(index);
	else if (index->count > index->n_chains)
		grow(index);
}

static bool unlink_from(struct index_node **chain, struct index_node *node)
{
	for (; chain && *chain; chain = &(*chain)->next) {
		if (*chain == node) {
			*chain = node->next;
			node->next = NULL;
			return true;
		}
	}
	return false;
}

void cache_index_remove(struct cache_index *index, struct index_node *node)
{
	bool found = unlink_from(new_chain(index, node->hash), node) ||
		     unlink_from(old_chain(index, node->hash), node);
	BUG_ON(!found);
	index->count--;
}

void cache_index_exchange(
	struct cache_index *index, struct index_node **empty, struct index_node **old[2])
{
	old[0] = index->chains;
	old[1] = index->old_chains;
	index->chains = empty;
	index->old_chains = NULL;
	index->n_chains = FIRST_CHAINS;
	index->n_old = 0;
	index->count = 0;
}

void cache_index_shrink(struct cache_index *index)
{
	if (index->count > 0 || index->n_chains == FIRST_CHAINS)
		return;
	struct index_node **empty = cache_index_empty_table(), **old[2];
	if (!empty)
		return;
	cache_index_exchange(index, empty, old);
	free(old[0]);
	free(old[1]);
}

size_t cache_index_bytes(const struct cache_index *index)
{
	return (index->n_chains + index->n_old) * sizeof(struct index_node *);
}
