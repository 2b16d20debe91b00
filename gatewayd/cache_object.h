#ifndef GATEWAYD_CACHE_OBJECT_H
#define GATEWAYD_CACHE_OBJECT_H

/*
 * What the memory cache holds, and what answers are made of: an immutable, counted object with a
 * body in one or more forms. Two kinds:
 *
 *   element   one embedding                     forms BASE64, TEXT
 *   response  a whole answer by raw body hash   forms IDENTITY, GZIP
 *
 * An object is usable whether or not it is in the cache: cache_object_new() takes its body's memory
 * from the cache's arena when there is room and from malloc otherwise. Eviction and purge never
 * wait: who holds a reference keeps the bytes.
 *
 * The form given at birth is the object's own and lives as long as it does. Further forms are made
 * when asked for and kept beside it; under memory pressure they go first, those in use (somebody
 * besides the cache holds a reference) and those used since last considered later. So: a span from
 * cache_object_form() is good for as long as the reference under which it was asked for is held.
 *
 * Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/slice.h"
#include "common/span.h"
#include "gatewayd/vector.h"

struct cache;
struct cache_object;

enum cache_kind { CACHE_ELEMENT, CACHE_RESPONSE };
#define CACHE_KINDS 2

enum cache_form {
	CACHE_BASE64 = 0, /* element: the characters, without quotes */
	CACHE_TEXT = 1,   /* element: JSON array of numbers */
	CACHE_IDENTITY = 0,
	CACHE_GZIP = 1,
};
#define CACHE_FORMS  2

#define CACHE_NO_TTL UINT64_MAX

/* Spans in a spec are copied; those in cache_object_info() live as long as the object. */
struct cache_object_info {
	enum cache_kind kind;
	struct digest key;  /* derived by the caller; kind and scope take part in it */
	uint64_t stored_ms; /* wall clock: when it was bought or fetched (Age, purge epochs) */
	uint64_t
		fresh_from_ms; /* wall clock: TTL counts from here (entered memory, or validated) */
	uint64_t ttl_ms;       /* CACHE_NO_TTL: always fresh */
	uint64_t grace_ms;     /* after ttl_ms: may be served stale */
	uint64_t prompt_tokens, total_tokens; /* what it cost when it was bought */
	struct span model;                    /* as asked for; the tag model:<name> */
	struct span served_model;             /* as the provider named it; may be empty */
	struct span headers;                  /* header bytes ready to send; may be empty */
	uint32_t dims;                        /* element */
	uint32_t n_elements; /* response: how many embeddings are in it; element: 1 */
	uint16_t status;     /* response: HTTP status */
};

/*
 * A new object with one form of its body (copied), reference count 1. want_arena: it is meant for
 * cache_insert(): makes room by evicting others. Otherwise, and when there is no room, its body
 * lies in malloc()ed memory and cache_insert() will refuse it. NULL only when out of memory.
 */
struct cache_object *cache_object_new(struct cache *cache, const struct cache_object_info *spec,
	enum cache_form form, struct span body, bool want_arena);
struct cache_object *cache_object_ref(struct cache_object *object);
/* Clears the pointer; NULL is fine. */
void cache_object_unref(struct cache_object **object);

const struct cache_object_info *cache_object_info(const struct cache_object *object);
/* Nothing of it was purged: it is in the cache and not dead, or there was no purge at all since its
 * content was asked for. What is made of it may be kept. */
bool cache_object_is_current(struct cache_object *object);
/* The form it was made with. */
enum cache_form cache_object_own_form(const struct cache_object *object);
/* false: not there (make it from the own form, then cache_object_add_form()). Marks it as used. */
bool cache_object_form(struct cache_object *object, enum cache_form form, struct span *body);
/* Where it lies in the arena; ARENA_NONE when it is not there or outside the arena. */
uint64_t cache_object_form_offset(const struct cache_object *object, enum cache_form form);
/* Keep a further form (copied). The caller holds a reference. -1: no room, not kept; the caller
 * still has its own copy. Adding what is there changes nothing and is 0. */
int cache_object_add_form(struct cache_object *object, enum cache_form form, struct span body);
/* The form as bytes on their way out, with a reference of their own. false: not there. */
bool cache_object_slice(struct cache_object *object, enum cache_form form, struct slice *slice);

/*
 * For a reader that may take its time: a reference that is counted, so that what slow readers keep
 * can be bounded. cache_lent_bytes(): bytes of the arena that are lent, each object counted once.
 */
struct cache_object *cache_object_lend(struct cache_object *object);
/* Clears the pointer; NULL is fine. */
void cache_object_give_back(struct cache_object **object);
uint64_t cache_lent_bytes(const struct cache *cache);
/* As cache_object_slice(), lent. */
bool cache_object_lend_slice(
	struct cache_object *object, enum cache_form form, struct slice *slice);

/* Of those who see it stale, one refreshes: true for the first caller until _refresh_end(). */
bool cache_object_refresh_begin(struct cache_object *object);
void cache_object_refresh_end(struct cache_object *object);

#endif
