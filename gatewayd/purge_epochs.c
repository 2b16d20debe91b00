#include "gatewayd/purge_epochs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/buf.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"

#define MAX_PLACES 2
/* After a reading that failed. */
#define RETRY_MS 2000
/* Covered epochs deleted after one reading. */
#define MAX_REMOVED 100

struct reading {
	struct purge_epochs *epochs;
	struct epoch_place *place;
};

struct writing {
	unsigned waiting;
	char error[256];
	epoch_done *done;
	void *arg;
	LIST_ENTRY(writing) entry;
};

struct purge_epochs {
	struct loop *loop;
	struct reading readings[MAX_PLACES];
	LIST_HEAD(, writing) writings;
	struct purge_epochs_events events;
	struct epoch_place *places[MAX_PLACES];
	unsigned n_places, reading;
	bool known, failed, keep_covered;
	uint64_t reread_ms;
	struct timer *timer;
	uint64_t all_ms;    /* 0: never */
	struct epoch *list; /* of models and keys; by scope and value */
	size_t n, capacity;
	unsigned removed;
};

static const char *const scope_names[] = {"all", "model", "key"};

struct digest epoch_model(struct span model)
{
	struct buf name = BUF_INIT(SIZE_MAX / 2);
	buf_append_str(&name, "model:");
	buf_append(&name, model.data, model.len);
	struct digest digest = digest_of((struct span){(char *)name.data, name.len});
	buf_free(&name);
	return digest;
}

/* ---- The table ---- */

static int compare(const struct epoch *a, enum epoch_scope scope, const struct digest *value)
{
	if (a->scope != scope)
		return a->scope < scope ? -1 : 1;
	return memcmp(a->value.bytes, value->bytes, DIGEST_BYTES);
}

/* Where it is, or would be. */
static size_t place_of(
	const struct purge_epochs *epochs, enum epoch_scope scope, const struct digest *value)
{
	size_t low = 0, high = epochs->n;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (compare(&epochs->list[middle], scope, value) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct epoch *find(
	const struct purge_epochs *epochs, enum epoch_scope scope, const struct digest *value)
{
	size_t at = place_of(epochs, scope, value);
	bool found = at < epochs->n && compare(&epochs->list[at], scope, value) == 0;
	return found ? &epochs->list[at] : NULL;
}

static bool covers(uint64_t epoch_ms, uint64_t stored_ms)
{
	return epoch_ms && stored_ms <= epoch_ms + PURGE_EPOCHS_SKEW_MS;
}

bool purge_epochs_cover(const struct purge_epochs *epochs, const struct digest *key,
	struct span model, uint64_t stored_ms)
{
	if (covers(epochs->all_ms, stored_ms))
		return true;
	if (epochs->n == 0)
		return false;
	const struct epoch *found = find(epochs, EPOCH_KEY, key);
	if (found && covers(found->time_ms, stored_ms))
		return true;
	if (model.len == 0 || epochs->list[0].scope != EPOCH_MODEL)
		return false;
	struct digest value = epoch_model(model);
	found = find(epochs, EPOCH_MODEL, &value);
	return found && covers(found->time_ms, stored_ms);
}

/* 1: it is news; 0: a later one is known; -1: no room. */
static int learn(struct purge_epochs *epochs, const struct epoch *epoch)
{
	if (epoch->time_ms <= epochs->all_ms)
		return 0;
	if (epoch->scope == EPOCH_ALL) {
		epochs->all_ms = epoch->time_ms;
		return 1;
	}
	struct epoch *found = find(epochs, epoch->scope, &epoch->value);
	if (found && found->time_ms >= epoch->time_ms)
		return 0;
	if (found) {
		found->time_ms = epoch->time_ms;
		return 1;
	}
	if (epochs->n == epochs->capacity) {
		size_t capacity = epochs->capacity ? epochs->capacity * 2 : 64;
		if (capacity > PURGE_EPOCHS_MAX)
			return -1;
		struct epoch *list = realloc(epochs->list, capacity * sizeof *list);
		if (!list)
			return -1;
		epochs->list = list;
		epochs->capacity = capacity;
	}
	size_t at = place_of(epochs, epoch->scope, &epoch->value);
	memmove(&epochs->list[at + 1], &epochs->list[at], (epochs->n - at) * sizeof *epochs->list);
	epochs->list[at] = *epoch;
	epochs->n++;
	return 1;
}

int purge_epochs_apply(struct purge_epochs *epochs, const struct epoch *epoch)
{
	return learn(epochs, epoch) < 0 ? -1 : 0;
}

/* ---- Names ---- */

static void name_of(const struct epoch *epoch, char name[EPOCH_NAME_BYTES])
{
	char hex[DIGEST_HEX + 1] = "", dot[] = ".";
	if (epoch->scope == EPOCH_ALL)
		*dot = '\0';
	else
		digest_hex(&epoch->value, hex);
	snprintf(name, EPOCH_NAME_BYTES, "%s%s%s.%" PRIu64 ".json", scope_names[epoch->scope], dot,
		hex, epoch->time_ms);
}

/* "key.<64 hex>" before the time; -1: no epoch of ours. */
static int parse_head(struct span head, struct epoch *epoch)
{
	if (span_equal_str(head, "all")) {
		epoch->scope = EPOCH_ALL;
		return 0;
	}
	for (enum epoch_scope scope = EPOCH_MODEL; scope <= EPOCH_KEY; scope++) {
		size_t n = strlen(scope_names[scope]);
		if (head.len != n + 1 + DIGEST_HEX ||
			memcmp(head.data, scope_names[scope], n) != 0 || head.data[n] != '.')
			continue;
		epoch->scope = scope;
		return digest_parse_hex(
			(struct span){head.data + n + 1, DIGEST_HEX}, &epoch->value);
	}
	return -1;
}

static int parse_name(struct span name, struct epoch *epoch)
{
	static const char tail[] = ".json";
	*epoch = (struct epoch){0};
	if (name.len >= EPOCH_NAME_BYTES || name.len <= sizeof tail ||
		memcmp(name.data + name.len - (sizeof tail - 1), tail, sizeof tail - 1) != 0)
		return -1;
	size_t end = name.len - (sizeof tail - 1), at = end;
	while (at > 0 && name.data[at - 1] >= '0' && name.data[at - 1] <= '9')
		at--;
	if (at == end || end - at > 15 || at < 2 || name.data[at - 1] != '.')
		return -1;
	for (size_t i = at; i < end; i++)
		epoch->time_ms = epoch->time_ms * 10 + (uint64_t)(name.data[i] - '0');
	return parse_head((struct span){name.data, at - 1}, epoch);
}

/* ---- Reading ---- */

static void remove_covered(struct purge_epochs *epochs, struct epoch_place *place, struct span name,
	const struct epoch *epoch)
{
	const struct epoch *later = epoch->scope == EPOCH_ALL
					    ? NULL
					    : find(epochs, epoch->scope, &epoch->value);
	bool covered = epoch->time_ms < epochs->all_ms ||
		       (later && later->time_ms > epoch->time_ms);
	if (!covered || epochs->keep_covered || epochs->removed == MAX_REMOVED)
		return;
	epochs->removed++;
	char text[EPOCH_NAME_BYTES];
	snprintf(text, sizeof text, "%.*s", SPAN_ARG(name));
	epoch_place_remove(place, text);
}

static void on_name(struct span name, void *arg)
{
	struct reading *reading = arg;
	struct purge_epochs *epochs = reading->epochs;
	struct epoch epoch;
	if (parse_name(name, &epoch) < 0)
		return;
	int news = learn(epochs, &epoch);
	if (news > 0 && epochs->known)
		epochs->events.on_news(&epoch, epochs->events.arg);
	else if (news == 0)
		remove_covered(epochs, reading->place, name, &epoch);
}

static void on_listed(const char *error, void *arg)
{
	struct reading *reading = arg;
	struct purge_epochs *epochs = reading->epochs;
	if (error) {
		epochs->failed = true;
		log_error("purges of the store cannot be read: %s", error);
	}
	if (--epochs->reading > 0)
		return;
	timer_arm(epochs->timer, epochs->failed ? RETRY_MS : epochs->reread_ms);
	if (epochs->known)
		return;
	epochs->known = true;
	epochs->events.on_known(epochs->events.arg);
}

static void read_all(void *arg)
{
	struct purge_epochs *epochs = arg;
	epochs->failed = false;
	epochs->removed = 0;
	epochs->reading = epochs->n_places;
	for (unsigned i = 0; i < epochs->n_places; i++) {
		struct reading *reading = &epochs->readings[i];
		*reading = (struct reading){epochs, epochs->places[i]};
		epoch_place_list(epochs->places[i], on_name, on_listed, reading);
	}
}

/* ---- Writing ---- */

static void on_written(const char *error, void *arg)
{
	struct writing *writing = arg;
	if (error && !*writing->error)
		snprintf(writing->error, sizeof writing->error, "%s", error);
	if (--writing->waiting > 0)
		return;
	LIST_REMOVE(writing, entry);
	writing->done(*writing->error ? writing->error : NULL, writing->arg);
	free(writing);
}

void purge_epochs_write(struct purge_epochs *epochs, const struct epoch *epoch, struct span value,
	epoch_done *done, void *arg)
{
	struct writing *writing = calloc(1, sizeof *writing);
	struct buf body = BUF_INIT(4096);
	char name[EPOCH_NAME_BYTES];
	name_of(epoch, name);
	buf_printf(&body, "{\"scope\":\"%s\",\"value\":", scope_names[epoch->scope]);
	json_append_string(&body, value);
	buf_printf(&body, ",\"time_ms\":%" PRIu64 "}\n", epoch->time_ms);
	if (!writing || buf_failed(&body)) {
		free(writing);
		buf_free(&body);
		done("out of memory", arg);
		return;
	}
	*writing = (struct writing){.waiting = epochs->n_places, .done = done, .arg = arg};
	LIST_INSERT_HEAD(&epochs->writings, writing, entry);
	for (unsigned i = 0; i < epochs->n_places; i++)
		epoch_place_write(epochs->places[i], name,
			(struct span){(char *)body.data, body.len}, on_written, writing);
	buf_free(&body);
}

/* ---- The whole ---- */

struct purge_epochs *purge_epochs_new(struct loop *loop, uint64_t reread_ms)
{
	struct purge_epochs *epochs = calloc(1, sizeof *epochs);
	if (!epochs)
		return NULL;
	epochs->loop = loop;
	epochs->reread_ms = reread_ms;
	LIST_INIT(&epochs->writings);
	epochs->timer = timer_new(loop, read_all, epochs);
	if (!epochs->timer) {
		free(epochs);
		return NULL;
	}
	return epochs;
}

void purge_epochs_add_place(struct purge_epochs *epochs, struct epoch_place *place)
{
	BUG_ON(epochs->n_places == MAX_PLACES);
	epochs->places[epochs->n_places++] = place;
}

void purge_epochs_keep_covered(struct purge_epochs *epochs)
{
	epochs->keep_covered = true;
}

void purge_epochs_start(struct purge_epochs *epochs, const struct purge_epochs_events *events)
{
	epochs->events = *events;
	read_all(epochs);
}

bool purge_epochs_known(const struct purge_epochs *epochs)
{
	return epochs->known;
}

bool purge_epochs_failed(const struct purge_epochs *epochs)
{
	return epochs->failed;
}

void purge_epochs_watch(struct purge_epochs *epochs, epoch_on_ended *on_ended, void *arg)
{
	for (unsigned i = 0; i < epochs->n_places; i++)
		epoch_place_watch(epochs->places[i], on_ended, arg);
}

size_t purge_epochs_count(const struct purge_epochs *epochs)
{
	return epochs->n + (epochs->all_ms > 0);
}

void purge_epochs_free(struct purge_epochs **pointer)
{
	struct purge_epochs *epochs = *pointer;
	if (!epochs)
		return;
	*pointer = NULL;
	for (unsigned i = 0; i < epochs->n_places; i++)
		epoch_place_free(&epochs->places[i]);
	struct writing *writing;
	while ((writing = LIST_FIRST(&epochs->writings))) {
		LIST_REMOVE(writing, entry);
		free(writing);
	}
	timer_free(&epochs->timer);
	free(epochs->list);
	free(epochs);
}
