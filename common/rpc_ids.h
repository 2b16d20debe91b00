#ifndef COMMON_RPC_IDS_H
#define COMMON_RPC_IDS_H

/*
 * What is under way on one connection, by message id: a hash table whose links live in the calls
 * themselves. Ids come from the peer on the answering end, so the hash is seeded. Part of rpc.
 */
#include <stddef.h>
#include <stdint.h>

struct rpc_id {
	struct rpc_id *next;
	uint32_t id;
};

struct rpc_ids {
	struct rpc_id **buckets; /* NULL until the first one is added */
	uint32_t mask;
	size_t count;
};

/* 0, or -1 when out of memory. The caller has checked that the id is free. */
int rpc_ids_add(struct rpc_ids *ids, struct rpc_id *entry);
struct rpc_id *rpc_ids_find(const struct rpc_ids *ids, uint32_t id);
void rpc_ids_remove(struct rpc_ids *ids, struct rpc_id *entry);
/* The entries belong to the caller. */
void rpc_ids_free(struct rpc_ids *ids);

#endif
