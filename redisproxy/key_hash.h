#ifndef REDISPROXY_KEY_HASH_H
#define REDISPROXY_KEY_HASH_H

/*
 * What a key is called where its name must not be told: FNV-1a (64 bits,
 * draft-eastlake-fnv-17) of its first 256 bytes, so that whoever knows a key can find it. It is no
 * secret: a key that can be guessed can be recognised.
 */
#include <stdint.h>

#include "common/span.h"

#define KEY_HASH_BYTES 256

static inline uint64_t key_hash(struct span key)
{
	uint64_t hash = 14695981039346656037u;
	size_t len = key.len < KEY_HASH_BYTES ? key.len : KEY_HASH_BYTES;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)key.data[i]) * 1099511628211u;
	return hash;
}

#endif
