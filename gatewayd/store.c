#include "gatewayd/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/retry.h"
#include "gatewayd/store_backend.h"

#define PUT_ATTEMPTS 4
#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 10000
/* The backend had no room for one more. */
#define BUSY_MS         20
#define LOG_INTERVAL_US (60ull * 1000 * 1000)
/* Between two tries whether the server is back. */
#define AWAY_MIN_MS    100
#define AWAY_MAX_MS    5000
#define AWAY_FACTOR    2
#define DRAIN_RETRY_MS 250

static void retry_due(void *arg);
static void probe(void *arg);
static void pump(struct store *store);

/* ---- Names ---- */

size_t store_object_name(const char *prefix, const struct digest *key, char name[STORE_NAME_BYTES])
{
	char hex[DIGEST_HEX + 1];
	digest_hex(key, hex);
	int len = snprintf(name, STORE_NAME_BYTES, "%sembeddings/%s.json.gz", prefix, hex);
	BUG_ON(len < 0 || len >= STORE_NAME_BYTES);
	return (size_t)len;
}

size_t store_legacy_name(
	enum store_layout layout, const struct digest *key, char name[STORE_NAME_BYTES])
{
	if (layout == STORE_LAYOUT_EMBEDDINGS)
		return store_object_name("", key, name);
	char hex[DIGEST_HEX + 1];
	digest_hex(key, hex);
	int len = snprintf(name, STORE_NAME_BYTES, "%.4s/%s", hex, hex);
	BUG_ON(len < 0 || len >= STORE_NAME_BYTES);
	return (size_t)len;
}

void store_get_name(const struct store_get *get, const char *prefix, char name[STORE_NAME_BYTES])
{
	if (get->legacy)
		store_legacy_name(get->layout, &get->key, name);
	else
		store_object_name(prefix, &get->key, name);
}

int store_object_key(struct span file_name, struct digest *key)
{
	static const char suffix[] = ".json.gz";
	if (file_name.len != DIGEST_HEX + sizeof suffix - 1 ||
		memcmp(file_name.data + DIGEST_HEX, suffix, sizeof suffix - 1) != 0)
		return -1;
	for (size_t i = 0; i < DIGEST_HEX; i++) {
		if (file_name.data[i] >= 'A' && file_name.data[i] <= 'F')
			return -1;
	}
	return digest_parse_hex((struct span){file_name.data, DIGEST_HEX}, key);
}

/* ---- Life ---- */

static void tell_drained(void *arg)
{
	struct store *store = arg;
	void (*on_drained)(void *arg) = store->on_drained;
	store->on_drained = NULL;
	if (on_drained)
		on_drained(store->on_drained_arg);
}

int store_init(struct store *store, struct loop *loop, const struct store_backend *backend,
	const struct store_limits *limits)
{
	*store = (struct store){.backend = backend, .loop = loop, .limits = *limits};
	TAILQ_INIT(&store->gets);
	TAILQ_INIT(&store->queued);
	TAILQ_INIT(&store->waiting);
	deferred_init(&store->drained, tell_drained, store);
	backoff_init(&store->away_backoff, AWAY_MIN_MS, AWAY_MAX_MS, AWAY_FACTOR);
	store->retry_timer = timer_new(loop, retry_due, store);
	store->probe_timer = timer_new(loop, probe, store);
	if (store->retry_timer && store->probe_timer)
		return 0;
	store_uninit(store);
	return -1;
}

void store_uninit(struct store *store)
{
	timer_free(&store->retry_timer);
	timer_free(&store->probe_timer);
}

/* What the backend runs holds on to the store: it goes when all of it has ended. */
static void release(struct store *store)
{
	if (store->closed && !store->running)
		store->backend->free(store);
}

static void ended(struct store *store)
{
	BUG_ON(store->running == 0);
	store->running--;
	release(store);
}

static void drop_put(struct store *store, struct store_put_list *list, struct store_put *put)
{
	if (list)
		TAILQ_REMOVE(list, put, place);
	store->n_puts--;
	store->put_bytes -= put->queued_bytes;
	store_put_over(put);
	free(put);
}

void store_free(struct store **store_)
{
	struct store *store = *store_;
	*store_ = NULL;
	if (!store)
		return;
	struct store_get *get;
	while ((get = TAILQ_FIRST(&store->gets)))
		store_get_cancel(&get);
	struct store_put *put;
	size_t lost = store->n_puts - store->running_puts;
	if (lost) {
		store->stats.puts_dropped += lost;
		log_fields(LOG_LEVEL_WARN, NULL, "embeddings that were not stored are lost",
			LOG_STR("store", store->backend->kind), LOG_INT("objects", lost));
	}
	while ((put = TAILQ_FIRST(&store->queued)))
		drop_put(store, &store->queued, put);
	while ((put = TAILQ_FIRST(&store->waiting)))
		drop_put(store, &store->waiting, put);
	loop_defer_cancel(store->loop, &store->drained);
	store_uninit(store);
	store->closed = true;
	if (store->backend->close)
		store->backend->close(store);
	release(store);
}

/* ---- Log ---- */

/* May this be logged now? *before: how many like it were not. */
static bool log_allowed(struct store *store, struct store_log_limit *limit, uint64_t *before)
{
	uint64_t now_us = loop_now_us(store->loop);
	if (limit->next_us && now_us < limit->next_us) {
		limit->held_back++;
		return false;
	}
	limit->next_us = now_us + LOG_INTERVAL_US;
	*before = limit->held_back;
	limit->held_back = 0;
	return true;
}

static void log_problem(struct store *store, struct store_log_limit *limit, enum log_level level,
	const char *sentence, const struct digest *key, const struct trace *trace,
	const char *reason)
{
	uint64_t before;
	char hex[DIGEST_HEX + 1];
	if (!log_allowed(store, limit, &before))
		return;
	digest_hex(key, hex);
	log_fields(level, TRACE_TEXT(trace), sentence, LOG_STR("store", store->backend->kind),
		LOG_STR("key", hex), LOG_STR("reason", reason),
		LOG_INT("not_logged_since", before));
}

/* ---- Get ---- */

static struct store_get *new_get(struct store *store, const struct digest *key,
	void (*done)(enum store_result result, struct stored_object *object, void *arg), void *arg)
{
	struct store_get *get = calloc(1, store->backend->get_bytes);
	if (!get)
		return NULL;
	get->store = store;
	get->key = *key;
	get->done = done;
	get->arg = arg;
	return get;
}

static struct store_get *begin_get(struct store_get *get)
{
	if (!get)
		return NULL;
	struct store *store = get->store;
	store_get_began(get);
	get->parked = store_must_park(store);
	if (!get->parked && store->backend->get(get)) {
		store->stats.get_errors++;
		get->result = STORE_ERROR;
		get->error = EBUSY;
		store_get_seen(get);
		free(get);
		return NULL;
	}
	store->running++;
	store->n_gets++;
	TAILQ_INSERT_TAIL(&store->gets, get, place);
	return get;
}

struct store_get *store_get_start(struct store *store, const struct digest *key,
	void (*done)(enum store_result result, struct stored_object *object, void *arg), void *arg)
{
	return begin_get(new_get(store, key, done, arg));
}

static void take_trace(struct store_get *get, const struct store_look *look)
{
	if (!look->trace)
		return;
	get->trace = *look->trace;
	get->has_trace = true;
}

struct store_get *store_get_start_with(struct store *store, const struct digest *key,
	const struct store_look *look,
	void (*done)(enum store_result result, struct stored_object *object, void *arg), void *arg)
{
	struct store_get *get = new_get(store, key, done, arg);
	if (get)
		take_trace(get, look);
	if (get && look->legacy_key) {
		get->asks_about = true;
		get->legacy_key = *look->legacy_key;
		get->layout = look->layout;
	}
	return begin_get(get);
}

struct store_get *store_get_legacy_start(struct store *store, const struct digest *key,
	const struct store_look *look,
	void (*done)(enum store_result result, struct stored_object *object, void *arg), void *arg)
{
	struct store_get *get = new_get(store, key, done, arg);
	if (get) {
		take_trace(get, look);
		get->legacy = true;
		get->layout = look->layout;
	}
	return begin_get(get);
}

static void leave_gets(struct store_get *get)
{
	TAILQ_REMOVE(&get->store->gets, get, place);
	get->store->n_gets--;
}

void store_get_cancel(struct store_get **get_)
{
	struct store_get *get = *get_;
	*get_ = NULL;
	if (!get)
		return;
	BUG_ON(get->cancelled);
	get->cancelled = true;
	leave_gets(get);
	if (get->parked)
		store_end_parked(get);
	else if (get->store->backend->cancel)
		get->store->backend->cancel(get);
}

static const char *reason_of(const char *reason, int error)
{
	return reason ? reason : strerror(error);
}

static void count_get(struct store *store, const struct store_get *get)
{
	struct store_stats *stats = &store->stats;
	stats->read_bytes += get->read_bytes;
	stats->denied += get->denied;
	if (get->abandoned) {
		stats->abandoned++;
		return;
	}
	switch (get->result) {
	case STORE_FOUND:
		stats->hits++;
		break;
	case STORE_LEGACY:
		stats->legacy_hits++;
		break;
	case STORE_MISS_BOTH:
		stats->misses++;
		stats->legacy_misses++;
		break;
	case STORE_MISS:
		if (get->legacy && !get->corrupt)
			stats->legacy_misses++;
		else
			stats->misses++;
		stats->purged += get->purged;
		stats->corrupt += get->corrupt;
		if (get->corrupt)
			log_problem(store, &store->corrupt_log, LOG_LEVEL_WARN,
				"a stored object is corrupt: it counts as missing", &get->key,
				store_get_trace(get), get->object.reason);
		break;
	case STORE_ERROR:
		stats->get_errors++;
		log_problem(store, &store->get_log, get->denied ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN,
			"the store cannot be read", &get->key, store_get_trace(get),
			reason_of(get->reason, get->error));
		break;
	}
}

void store_get_end(struct store_get *get)
{
	struct store *store = get->store;
	store_check_epochs(get);
	store_get_seen(get);
	count_get(store, get);
	if (!get->cancelled) {
		bool found = get->result == STORE_FOUND || get->result == STORE_LEGACY;
		leave_gets(get);
		get->done(get->result, found ? &get->object : NULL, get->arg);
	}
	stored_object_free(&get->object);
	free(get);
	ended(store);
}

/* ---- Put ---- */

static struct span copy_span(char **to, struct span from)
{
	struct span copy = {*to, from.len};
	if (from.len)
		memcpy(*to, from.data, from.len);
	*to += from.len;
	return copy;
}

void store_keep_near(
	struct store *store, const struct stored_fields *fields, const struct trace *trace)
{
	if (store->backend->keep_near)
		store->backend->keep_near(store, fields, trace);
}

bool store_put(struct store *store, const struct stored_fields *fields, const struct trace *trace)
{
	if (store->backend->accept)
		return store->backend->accept(store, fields, trace);
	size_t data_bytes = fields->model.len + fields->served_model.len + fields->params.len +
			    fields->vector.len;
	struct store_put *put = NULL;
	if (!store->draining && store->n_puts < store->limits.max_queued_puts &&
		store->put_bytes + data_bytes <= store->limits.max_queued_bytes)
		put = calloc(1, store->backend->put_bytes + data_bytes);
	if (!put) {
		store->stats.puts_dropped++;
		return false;
	}
	char *to = (char *)put + store->backend->put_bytes;
	put->store = store;
	put->fields = *fields;
	put->fields.model = copy_span(&to, fields->model);
	put->fields.served_model = copy_span(&to, fields->served_model);
	put->fields.params = copy_span(&to, fields->params);
	put->fields.vector = copy_span(&to, fields->vector);
	put->queued_bytes = data_bytes;
	put->has_trace = trace != NULL;
	if (trace)
		put->trace = *trace;
	store->n_puts++;
	store->put_bytes += data_bytes;
	TAILQ_INSERT_TAIL(&store->queued, put, place);
	pump(store);
	return true;
}

static void wait_for_retry(struct store *store, struct store_put *put, uint64_t delay_ms)
{
	put->due_us = loop_now_us(store->loop) + delay_ms * 1000;
	TAILQ_INSERT_TAIL(&store->waiting, put, place);
	if (store->draining || !timer_armed(store->retry_timer))
		timer_arm(store->retry_timer, delay_ms);
}

/* May one more run now? */
static bool has_slot(const struct store *store)
{
	if (store->away)
		return store->probe_due && store->running_puts == 0;
	return store->running_puts < store->limits.parallel_puts;
}

/* Hand queued puts to the backend while slots are free. */
static void pump(struct store *store)
{
	struct store_put *put;
	while (has_slot(store) && (put = TAILQ_FIRST(&store->queued))) {
		store->probe_due = false;
		store_put_began(put);
		TAILQ_REMOVE(&store->queued, put, place);
		if (store->backend->put(put)) {
			wait_for_retry(store, put, BUSY_MS);
			return;
		}
		store->running_puts++;
		store->running++;
	}
	if (store->draining && !store->n_puts && store->on_drained)
		loop_defer(store->loop, &store->drained);
}

/* Move what is due back into the queue; the others set the timer. */
static void retry_due(void *arg)
{
	struct store *store = arg;
	uint64_t now_us = loop_now_us(store->loop), next_us = UINT64_MAX;
	struct store_put *next;
	for (struct store_put *put = TAILQ_FIRST(&store->waiting); put; put = next) {
		next = TAILQ_NEXT(put, place);
		if (put->due_us <= now_us || store->draining) {
			TAILQ_REMOVE(&store->waiting, put, place);
			TAILQ_INSERT_TAIL(&store->queued, put, place);
		} else if (put->due_us < next_us) {
			next_us = put->due_us;
		}
	}
	if (next_us != UINT64_MAX)
		timer_arm(store->retry_timer, (next_us - now_us) / 1000 + 1);
	pump(store);
}

/* No attempt of the put's own: it waits with the others, and is not the next to try. */
static void wait_for_server(struct store *store, struct store_put *put)
{
	TAILQ_INSERT_TAIL(&store->queued, put, place);
	if (store->away && (store->probe_due || timer_armed(store->probe_timer)))
		return;
	store->away = true;
	uint32_t delay_ms = backoff_next_ms(&store->away_backoff);
	if (store->draining && delay_ms > DRAIN_RETRY_MS)
		delay_ms = DRAIN_RETRY_MS;
	timer_arm(store->probe_timer, delay_ms);
}

static void probe(void *arg)
{
	struct store *store = arg;
	store->probe_due = true;
	pump(store);
}

static void put_failed(struct store *store, struct store_put *put)
{
	store->stats.put_errors++;
	store->stats.denied += put->denied;
	store->stats.no_space += put->error == ENOSPC || put->error == EDQUOT;
	log_problem(store, &store->put_log, put->denied ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN,
		"the store cannot be written", &put->fields.key,
		put->has_trace ? &put->trace : NULL, reason_of(put->reason, put->error));
	if (put->away) {
		put->reason = NULL;
		put->away = false;
		wait_for_server(store, put);
		return;
	}
	put->attempts++;
	/* What cannot be encoded today cannot be encoded later. */
	if (put->attempts >= PUT_ATTEMPTS || put->error == EINVAL) {
		store->stats.puts_given_up++;
		drop_put(store, NULL, put);
		return;
	}
	put->denied = false;
	put->reason = NULL;
	struct backoff backoff;
	backoff_init(&backoff, RETRY_MIN_MS, RETRY_MAX_MS, 4);
	backoff.attempt = put->attempts;
	wait_for_retry(store, put, store->draining ? 0 : backoff_next_ms(&backoff));
}

void store_put_end(struct store_put *put)
{
	struct store *store = put->store;
	store_put_seen(put);
	store->running_puts--;
	if (!put->away && store->away && !store->closed) {
		store->away = store->probe_due = false;
		timer_disarm(store->probe_timer);
		backoff_reset(&store->away_backoff);
	}
	if (!put->error) {
		store->stats.puts++;
		store->stats.written_bytes += put->written_bytes;
		if (store->backend->stored && !store->closed)
			store->backend->stored(store, put);
		drop_put(store, NULL, put);
	} else if (store->closed) {
		drop_put(store, NULL, put);
	} else {
		put_failed(store, put);
	}
	if (!store->closed)
		pump(store);
	ended(store);
}

void store_drain(struct store *store, void (*on_drained)(void *arg), void *arg)
{
	BUG_ON(store->draining);
	store->draining = true;
	store->on_drained = on_drained;
	store->on_drained_arg = arg;
	if (store->backend->drain) {
		store->backend->drain(store);
		return;
	}
	store->probe_due = store->away;
	retry_due(store);
}

void store_drained(struct store *store)
{
	if (store->on_drained)
		loop_defer(store->loop, &store->drained);
}

/* ---- What others see ---- */

const struct store_stats *store_stats(const struct store *store)
{
	return &store->stats;
}

bool store_usage(const struct store *store, struct store_usage *usage)
{
	if (!store->backend->usage)
		return false;
	store->backend->usage(store, usage);
	return true;
}

size_t store_gets_pending(const struct store *store)
{
	return store->n_gets;
}

const struct store *store_tier(const struct store *store, unsigned i)
{
	if (store->backend->tier)
		return store->backend->tier(store, i);
	return i == 0 ? store : NULL;
}

size_t store_puts_pending(const struct store *store)
{
	size_t n = 0;
	const struct store *tier;
	for (unsigned i = 0; (tier = store_tier(store, i)); i++)
		n += tier->n_puts;
	return n;
}

uint64_t store_put_bytes_pending(const struct store *store)
{
	uint64_t bytes = 0;
	const struct store *tier;
	for (unsigned i = 0; (tier = store_tier(store, i)); i++)
		bytes += tier->put_bytes;
	return bytes;
}

const char *store_kind(const struct store *store)
{
	return store->backend->kind;
}
