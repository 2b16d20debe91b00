#ifndef COMMON_RENDEZVOUS_H
#define COMMON_RENDEZVOUS_H

/*
 * Rendezvous (highest random weight) hashing: Thaler, Ravishankar, "Using name-based mappings to
 * increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998. Each key ranks all nodes;
 * removing one of N nodes moves only that node's keys, about 1/N. Every process that knows the same
 * node names ranks alike. Pure.
 */
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"

/* The seed of a node from its name; compute once. */
uint64_t rendezvous_node(struct span name);
/* The key's hash: of any bytes (a body hash). */
uint64_t rendezvous_key(struct span key);
uint64_t rendezvous_weight(uint64_t node, uint64_t key);
/* Fill order[0..n-1] with the indices of nodes, best first. n up to 64 is what it is made for. */
void rendezvous_rank(const uint64_t *nodes, size_t n, uint64_t key, size_t *order);

#endif
