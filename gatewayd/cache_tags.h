#ifndef GATEWAYD_CACHE_TAGS_H
#define GATEWAYD_CACHE_TAGS_H

/*
 * What purges go by. A tag has a kind and a value, and a list of the objects in memory that carry
 * it, so a purge costs what it takes out, whatever else is there:
 *
 *   tag (path "/v1/models") ──> link ──> link          one link for each tag of each object
 *   tag (name "model:m")    ──> link ──> link ──> link
 *
 * A purge takes effect at once and frees later. The purge clock counts purges. An object carries
 * the clock's reading when its content was asked for (`since`); a tag that was purged carries the
 * clock's reading then. An object is dead when one of its tags, or everything, was purged after its
 * since: it is not found any more, though it may still lie there. New objects go to the end of a
 * tag's list, so what a purge has to free stands at the list's beginning; it is freed in slices.
 * A purge of everything walks over nothing: it leaves tables, queues and tags behind as they are,
 * begins with new ones, and keeps of the memory what somebody holds.
 *
 * A single embedding that goes takes the whole answers with it that it is part of, whatever their
 * own tags.
 *
 * What was asked for before a purge does not enter after it: a tag that was purged is remembered
 * when it has no objects too. There are so many of these at most (CACHE_MAX_REMEMBERED, a
 * sixty-fourth of the budget); the oldest is forgotten for the next one, and from then on nothing
 * enters that is older than that purge was.
 *
 * Values are known by 128 bits of their SHA-256 alone. Tags, links and table count in the cache's
 * budget. Loop thread only; the keys anywhere.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/span.h"

struct cache;
struct cache_object;

enum cache_tag_kind {
	CACHE_TAG_NAME,      /* what Surrogate-Key says, model:<name> */
	CACHE_TAG_PATH,      /* path and query of whole answers */
	CACHE_TAG_BODY_HASH, /* of the request that a whole answer is for */
	CACHE_TAG_ELEMENT,   /* element key: the whole answers that it is part of */
	CACHE_TAG_ELEMENTS,  /* all single embeddings; no value */
};

struct cache_tag_key {
	uint64_t words[2];
};
struct cache_tag_key cache_tag_key(enum cache_tag_kind kind, struct span value);
/* The value is a digest itself. */
struct cache_tag_key cache_tag_key_of_digest(enum cache_tag_kind kind, const struct digest *value);

#define CACHE_MAX_REMEMBERED 65536

/* What cache_insert_tagged() is told; keys are copied. */
struct cache_tagging {
	uint64_t since; /* cache_purge_clock() when the content was asked for */
	const struct cache_tag_key *keys;
	size_t n;
};

/* How many purges there were. */
uint64_t cache_purge_clock(const struct cache *cache);
/* Most tags of one object. */
#define CACHE_MAX_TAGS 192
/* The tags of an object in the cache; 0 of one that is not. keys has room for CACHE_MAX_TAGS. */
size_t cache_object_tags(const struct cache_object *object, struct cache_tag_key *keys);

/* Would an object with this tagging be dead? Costs next to nothing when there was no purge since.
 */
bool cache_purged_since(const struct cache *cache, const struct cache_tagging *tagging);

/* One purge. Zero it, say what, then cache_purge_begin(). */
struct cache_purge {
	bool all;
	const struct cache_tag_key *keys; /* every object with one of them; borrowed to the end */
	size_t n;
	const struct digest *element; /* the single embedding under this key too; its
					 CACHE_TAG_ELEMENT is among keys */
	size_t purged;                /* objects taken out so far */
	/* Private. */
	bool done;
	size_t at;
	bool has_followers; /* whole answers that the last one was part of */
	struct cache_tag_key followers;
};
/* From here on nothing of it is found. O(n); of everything: O(objects that somebody holds), and all
 * is free too, unless these are more than CACHE_MAX_HELD_AT_ONCE. */
#define CACHE_MAX_HELD_AT_ONCE 4096
void cache_purge_begin(struct cache *cache, struct cache_purge *purge);
/* Free the next `most` objects of it. false: more is left. What they lay in goes back to the kernel
 * with cache_clean_begin(). */
bool cache_purge_step(struct cache *cache, struct cache_purge *purge, size_t most);

#endif
