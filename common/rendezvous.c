#include "common/rendezvous.h"

#include <endian.h>

/* Weights kept while ranking; past this many nodes they are worked out again at each comparison. */
#define KEPT_WEIGHTS 64

/* Odd constants: fractional bits of the square roots of 2, 3, 5 and 7. They are part of the
 * protocol between processes: a change moves every key. */
#define ODD_2 UINT64_C(0x6a09e667f3bcc909)
#define ODD_3 UINT64_C(0xbb67ae8584caa73b)
#define ODD_5 UINT64_C(0x3c6ef372fe94f82b)
#define ODD_7 UINT64_C(0xa54ff53a5f1d36f1)

/* A bijection of 64 bits in which every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= ODD_2;
	x ^= x >> 29;
	x *= ODD_3;
	x ^= x >> 32;
	return x;
}

/* Little-endian words, so that machines of either byte order agree. */
static uint64_t hash_bytes(struct span bytes, uint64_t seed)
{
	uint64_t h = mix(seed ^ (uint64_t)bytes.len);
	size_t at = 0;
	while (at < bytes.len) {
		uint64_t word = 0;
		size_t n = bytes.len - at < sizeof word ? bytes.len - at : sizeof word;
		memcpy(&word, bytes.data + at, n);
		h = mix(h ^ le64toh(word)) + ODD_5;
		at += n;
	}
	return mix(h);
}

uint64_t rendezvous_node(struct span name)
{
	return hash_bytes(name, ODD_5);
}

uint64_t rendezvous_key(struct span key)
{
	return hash_bytes(key, ODD_7);
}

/* For one key a bijection of the node: two different nodes never tie. */
uint64_t rendezvous_weight(uint64_t node, uint64_t key)
{
	return mix(mix(node ^ key) + (key ^ ODD_7));
}

void rendezvous_rank(const uint64_t *nodes, size_t n, uint64_t key, size_t *order)
{
	uint64_t kept[KEPT_WEIGHTS];
	for (size_t i = 0; i < n; i++) {
		uint64_t weight = rendezvous_weight(nodes[i], key);
		if (i < KEPT_WEIGHTS)
			kept[i] = weight;
		size_t at = i;
		while (at > 0) {
			size_t before = order[at - 1];
			uint64_t other = before < KEPT_WEIGHTS
						 ? kept[before]
						 : rendezvous_weight(nodes[before], key);
			if (other >= weight)
				break;
			order[at] = before;
			at--;
		}
		order[at] = i;
	}
}
