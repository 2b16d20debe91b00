#ifndef EXPORTERMERGER_TEXT_STORE_H
#define EXPORTERMERGER_TEXT_STORE_H

/* Texts that live and die together, and a table that finds them: names, labels, helps. */
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"

struct text_store;
struct text_store *text_store_new(void); /* NULL when out of memory */
void text_store_free(struct text_store **store);
/* A copy of the texts one after the other; data NULL when out of memory. */
struct span text_store_join(struct text_store *store, struct span a, struct span b, struct span c);
static inline struct span text_store_keep(struct text_store *store, struct span text)
{
	return text_store_join(store, text, (struct span){0}, (struct span){0});
}

/* Text to number. Keys are borrowed. The hash is seeded, so that nobody can choose names that meet.
 */
struct text_table {
	struct text_table_slot {
		struct span key; /* data NULL: free */
		uint32_t value;
	} * slots;
	size_t size, used;
	uint64_t seed;
};
int text_table_init(struct text_table *table);   /* 0, or -1 when out of memory */
void text_table_clear(struct text_table *table); /* forget the keys */
void text_table_free(struct text_table *table);
#define TEXT_TABLE_NONE UINT32_MAX
uint32_t text_table_find(const struct text_table *table, struct span key);
/* key (never NULL) must not be there. 0, or -1 when out of memory. */
int text_table_add(struct text_table *table, struct span key, uint32_t value);

#endif
