#include "broadcasterd/target.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define BUCKETS 256

struct targets {
	size_t count;
	TAILQ_HEAD(bucket, target) buckets[BUCKETS];
};

struct targets *targets_new(void)
{
	struct targets *targets = calloc(1, sizeof *targets);
	for (size_t i = 0; targets && i < BUCKETS; i++)
		TAILQ_INIT(&targets->buckets[i]);
	return targets;
}

void targets_free(struct targets **targets)
{
	if (!*targets)
		return;
	BUG_ON((*targets)->count);
	free(*targets);
	*targets = NULL;
}

/* FNV-1a. */
static struct bucket *bucket_of(struct targets *targets, struct span name)
{
	uint32_t hash = 2166136261u;
	for (size_t i = 0; i < name.len; i++)
		hash = (hash ^ (unsigned char)name.data[i]) * 16777619u;
	return &targets->buckets[hash % BUCKETS];
}

struct target *targets_get(struct targets *targets, enum target_kind kind, struct span name)
{
	struct bucket *bucket = bucket_of(targets, name);
	struct target *t;
	if (name.len > TARGET_MAX_NAME)
		return NULL;
	TAILQ_FOREACH (t, bucket, entry)
		if (t->kind == kind && span_equal_str(name, t->name))
			return target_ref(t);
	t = calloc(1, sizeof *t + name.len + 1);
	if (!t)
		return NULL;
	*t = (struct target){.targets = targets, .refs = 1, .kind = kind};
	memcpy(t->name, name.data, name.len);
	TAILQ_INSERT_TAIL(bucket, t, entry);
	targets->count++;
	return t;
}

struct target *target_ref(struct target *target)
{
	target->refs++;
	return target;
}

void target_unref(struct target **target)
{
	struct target *t = *target;
	*target = NULL;
	if (!t || --t->refs)
		return;
	BUG_ON(t->queue != NULL);
	TAILQ_REMOVE(bucket_of(t->targets, span_of(t->name)), t, entry);
	t->targets->count--;
	free(t);
}

int target_list_add(struct target_list *list, struct target *target)
{
	if (!target)
		return -1;
	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? 2 * list->capacity : 16;
		struct target **items = realloc(list->items, capacity * sizeof *items);
		if (!items) {
			target_unref(&target);
			return -1;
		}
		list->items = items;
		list->capacity = capacity;
	}
	list->items[list->count++] = target;
	return 0;
}

bool target_list_has(const struct target_list *list, const struct target *target)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i] == target)
			return true;
	return false;
}

void target_list_clear(struct target_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		target_unref(&list->items[i]);
	free(list->items);
	*list = (struct target_list){0};
}
