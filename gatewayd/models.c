#include "gatewayd/models.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "common/log.h"
#include "common/loop.h"
#include "gatewayd/access.h"
#include "gatewayd/api_error.h"
#include "gatewayd/cache.h"
#include "gatewayd/cache_control.h"
#include "gatewayd/credential.h"
#include "gatewayd/gateway.h"
#include "gatewayd/provider.h"
#include "gatewayd/provider_mock.h"
#include "gatewayd/response_cache.h"
#include "gatewayd/surrogate_keys.h"

#define UNCACHEABLE_MS 120000
/* Waiting for the provider at once; more is refused. */
#define MAX_WAITERS 16384
/* The status of an object that says: what lies here is not kept. */
#define MARK            0
#define MAX_QUERY_BYTES 2000

struct waiter {
	struct fetch_list *fetch;
	struct exchange *exchange;
	uint64_t started_us; /* the exchange is gone when it is aborted */
	enum stats_result result;
	TAILQ_ENTRY(waiter) link;
};

/* One call to the provider, and those who wait for it. */
struct fetch_list {
	struct models *models;
	struct provider_call *call;
	struct digest key;
	struct credential credential;
	struct trace trace;         /* of who asked first */
	bool shared;                /* others may join, and the answer may be kept */
	struct cache_object *stale; /* it renews this one; NULL: somebody waits */
	uint64_t since;             /* the purge clock when it was asked for */
	struct cache_tagging tagging;
	struct cache_tag_key keys[2 + 2 * SURROGATE_MAX_KEYS];
	TAILQ_HEAD(, waiter) waiters;
	TAILQ_ENTRY(fetch_list) link;
};

struct models {
	struct gateway *gateway;
	TAILQ_HEAD(, fetch_list) under_way;
	size_t n_waiters;
};

static void fetch_free(struct fetch_list *fetch)
{
	struct gateway *gateway = fetch->models->gateway;
	TAILQ_REMOVE(&fetch->models->under_way, fetch, link);
	if (fetch->call)
		gateway->provider->ops->cancel(fetch->call);
	if (fetch->stale)
		cache_object_refresh_end(fetch->stale);
	cache_object_unref(&fetch->stale);
	credential_free(&fetch->credential);
	free(fetch);
}

/* ---- Answering ---- */

static void count(struct gateway *gateway, const struct exchange *exchange,
	enum stats_result result, int status)
{
	if (status >= 400)
		result = STATS_ERROR;
	stats_count_request(gateway->stats, result, status, exchange->started_us);
}

static void refuse(struct gateway *gateway, struct exchange *exchange, int status, const char *code,
	int64_t retry_after_ms, const char *message)
{
	struct api_error error;
	api_error_set(&error, status, NULL, code, "%s", message);
	error.retry_after_ms = retry_after_ms;
	count(gateway, exchange, STATS_ERROR, status);
	api_error_respond(exchange, &error, stats_x_cache(STATS_PASS));
}

static void refuse_for_memory(struct gateway *gateway, struct exchange *exchange)
{
	refuse(gateway, exchange, 503, "overloaded", 1000, "The gateway is out of memory.");
}

/* headers of an object: the content type, a line feed, the location. */
static void respond(struct gateway *gateway, struct exchange *exchange, struct cache_object *object,
	enum stats_result result, int64_t retry_after_ms)
{
	const struct cache_object_info *info = cache_object_info(object);
	struct answer_head head = {.status = info->status};
	struct span type = info->headers, location = {0};
	const char *end = memchr(type.data, '\n', type.len);
	char retry_after[24], age[24];
	type.len = (size_t)(end - type.data);
	location = (struct span){end + 1, info->headers.len - type.len - 1};
	answer_head_add(&head, "Content-Type", type.len ? type : SPAN_LITERAL("application/json"));
	if (location.len)
		answer_head_add(&head, "Location", location);
	if (retry_after_ms >= 0) {
		snprintf(
			retry_after, sizeof retry_after, "%" PRId64, (retry_after_ms + 999) / 1000);
		answer_head_add(&head, "Retry-After", span_of(retry_after));
	}
	answer_head_add(&head, "X-Cache", span_of(stats_x_cache(result)));
	if (result == STATS_HIT || result == STATS_STALE) {
		uint64_t now_ms = loop_wall_ms(gateway->loop);
		snprintf(age, sizeof age, "%" PRIu64,
			now_ms > info->stored_ms ? (now_ms - info->stored_ms) / 1000 : 0);
		answer_head_add(&head, "Age", span_of(age));
	}
	count(gateway, exchange, result, info->status);
	exchange_respond_object(exchange, &head, object, CACHE_IDENTITY);
}

/* ---- What the provider says ---- */

static bool is_kept(int status)
{
	return status == 200 || status == 203 || status == 301 || status == 404 || status == 410;
}

static struct cache_object *object_of(struct fetch_list *fetch,
	const struct provider_result *result, int status, bool keep, uint64_t ttl_ms,
	uint64_t grace_ms)
{
	struct gateway *gateway = fetch->models->gateway;
	uint64_t now_ms = loop_wall_ms(gateway->loop);
	struct buf headers = BUF_INIT(65536);
	buf_append(&headers, result->content_type.data, result->content_type.len);
	buf_append_char(&headers, '\n');
	buf_append(&headers, result->location.data, result->location.len);
	struct cache_object_info info = {.kind = CACHE_RESPONSE,
		.key = fetch->key,
		.stored_ms = now_ms,
		.fresh_from_ms = now_ms,
		.ttl_ms = ttl_ms,
		.grace_ms = grace_ms,
		.headers = {(char *)headers.data, headers.len},
		.status = (uint16_t)status};
	struct cache_object *object = NULL;
	if (!buf_failed(&headers))
		object = cache_object_new(gateway->cache, &info, CACHE_IDENTITY,
			status == MARK ? (struct span){0} : result->body, keep);
	buf_free(&headers);
	if (object && keep)
		cache_insert_tagged(gateway->cache, object, &fetch->tagging, now_ms);
	return object;
}

static void add_tags(struct fetch_list *fetch, const struct span *names, int n)
{
	for (int i = 0; i < n; i++)
		fetch->keys[fetch->tagging.n++] = cache_tag_key(CACHE_TAG_NAME, names[i]);
}

/* Too many tags, or bad ones: whoever set them could not purge it. */
static bool take_tags(struct fetch_list *fetch, struct span field)
{
	struct span names[SURROGATE_MAX_KEYS];
	const char *reason;
	int n = surrogate_keys_read(field, names, &reason);
	if (n < 0)
		log_fields(LOG_LEVEL_WARN, TRACE_TEXT(&fetch->trace),
			"an answer of the provider is not kept", LOG_STR("reason", reason));
	add_tags(fetch, names, n);
	return n >= 0;
}

/* The answer as an object, kept where it may be. NULL when out of memory. */
static struct cache_object *keep(struct fetch_list *fetch, const struct provider_result *result)
{
	const struct gatewayd_conf *conf = fetch->models->gateway->conf;
	bool may_be_kept = fetch->shared && is_kept(result->status);
	bool tagged = may_be_kept && take_tags(fetch, result->surrogate_key);
	bool kept = tagged && !result->unshareable;
	if (may_be_kept && !kept) {
		struct cache_object *mark = object_of(fetch, result, MARK, true, UNCACHEABLE_MS, 0);
		cache_object_unref(&mark);
	}
	return object_of(fetch, result, result->status, kept, (uint64_t)conf->cache_ttl_ms,
		(uint64_t)conf->cache_grace_ms);
}

static struct fetch_list *start(struct models *models, const struct digest *key,
	const struct credential *credential, const struct exchange *exchange, bool shared);
static void wait_for(struct fetch_list *fetch, struct waiter *waiter, enum stats_result result);

/* It is not for all: each of the others gets an answer of its own. */
static void ask_apart(struct fetch_list *fetch, struct waiter *waiter)
{
	struct gateway *gateway = fetch->models->gateway;
	struct fetch_list *own = start(
		fetch->models, &fetch->key, &fetch->credential, waiter->exchange, false);
	if (own) {
		wait_for(own, waiter, STATS_PASS);
		return;
	}
	refuse_for_memory(gateway, waiter->exchange);
	fetch->models->n_waiters--;
	free(waiter);
}

static void tell(struct fetch_list *fetch, const struct provider_result *result,
	struct cache_object *object, bool empty)
{
	struct gateway *gateway = fetch->models->gateway;
	struct waiter *waiter;
	bool apart = object && fetch->shared && is_kept(result->status) && result->unshareable;
	while ((waiter = TAILQ_FIRST(&fetch->waiters))) {
		TAILQ_REMOVE(&fetch->waiters, waiter, link);
		if (apart && waiter->result == STATS_COALESCED) {
			ask_apart(fetch, waiter);
			continue;
		}
		if (empty)
			refuse(gateway, waiter->exchange, 502,
				provider_outcome_code(PROVIDER_BROKEN), -1,
				"The provider's answer is empty.");
		else if (object)
			respond(gateway, waiter->exchange, object, waiter->result,
				result->retry_after_ms);
		else if (result->outcome == PROVIDER_OK || result->body.len)
			refuse_for_memory(gateway, waiter->exchange);
		else
			refuse(gateway, waiter->exchange, result->status,
				provider_outcome_code(result->outcome), result->retry_after_ms,
				result->detail ? result->detail : "The provider failed.");
		fetch->models->n_waiters--;
		free(waiter);
	}
}

static void on_done(const struct provider_result *result, void *arg)
{
	struct fetch_list *fetch = arg;
	struct cache_object *object = NULL;
	bool empty = result->outcome == PROVIDER_OK && result->status == 200 &&
		     result->body.len == 0;
	fetch->call = NULL;
	if (!empty && (result->body.len > 0 || result->outcome == PROVIDER_OK))
		object = keep(fetch, result);
	tell(fetch, result, object, empty);
	cache_object_unref(&object);
	fetch_free(fetch);
}

/* ---- Asking ---- */

static char *copy_text(const char *text)
{
	return strdup(text ? text : "");
}

static int credential_copy(const struct credential *from, struct credential *to)
{
	to->authorization = copy_text(from->authorization);
	to->organization = copy_text(from->organization);
	to->project = copy_text(from->project);
	return to->authorization && to->organization && to->project ? 0 : -1;
}

/* NULL when out of memory. */
static struct fetch_list *start(struct models *models, const struct digest *key,
	const struct credential *credential, const struct exchange *exchange, bool shared)
{
	struct gateway *gateway = models->gateway;
	struct fetch_list *fetch = calloc(1, sizeof *fetch);
	struct span names[SURROGATE_MAX_KEYS];
	const char *reason;
	if (!fetch)
		return NULL;
	fetch->models = models;
	fetch->key = *key;
	fetch->shared = shared;
	fetch->trace = exchange->trace;
	TAILQ_INIT(&fetch->waiters);
	/* Those that may be joined come first. */
	if (shared)
		TAILQ_INSERT_HEAD(&models->under_way, fetch, link);
	else
		TAILQ_INSERT_TAIL(&models->under_way, fetch, link);
	fetch->tagging = (struct cache_tagging){
		.since = cache_purge_clock(gateway->cache), .keys = fetch->keys};
	fetch->keys[fetch->tagging.n++] = cache_tag_key(CACHE_TAG_PATH, exchange->target);
	fetch->keys[fetch->tagging.n++] = cache_tag_key_of_digest(
		CACHE_TAG_BODY_HASH, &exchange->body_hash);
	add_tags(fetch, names, surrogate_keys_of_request(exchange, names, &reason));
	struct trace_context trace;
	exchange_trace_context(exchange, &trace);
	struct span query = {exchange->target.data + exchange->path.len,
		exchange->target.len - exchange->path.len};
	if (credential_copy(credential, &fetch->credential) == 0)
		fetch->call = gateway->provider->ops->list_models(
			gateway->provider, query, &fetch->credential, &trace, on_done, fetch);
	if (fetch->call)
		return fetch;
	fetch_free(fetch);
	return NULL;
}

static void on_abort(void *arg)
{
	struct waiter *waiter = arg;
	struct fetch_list *fetch = waiter->fetch;
	stats_count_request(fetch->models->gateway->stats, STATS_GONE, 499, waiter->started_us);
	TAILQ_REMOVE(&fetch->waiters, waiter, link);
	fetch->models->n_waiters--;
	free(waiter);
	if (TAILQ_EMPTY(&fetch->waiters) && !fetch->stale)
		fetch_free(fetch);
}

static const struct exchange_events events = {
	.on_abort = on_abort,
};

static void wait_for(struct fetch_list *fetch, struct waiter *waiter, enum stats_result result)
{
	waiter->fetch = fetch;
	waiter->result = result;
	TAILQ_INSERT_TAIL(&fetch->waiters, waiter, link);
}

/* One that was asked for before a purge of it is not joined. */
static struct fetch_list *find(struct models *models, const struct digest *key)
{
	struct fetch_list *fetch;
	TAILQ_FOREACH (fetch, &models->under_way, link) {
		if (!fetch->shared)
			break;
		if (digest_equal(&fetch->key, key) &&
			!cache_purged_since(models->gateway->cache, &fetch->tagging))
			return fetch;
	}
	return NULL;
}

static void ask(struct models *models, struct exchange *exchange, const struct digest *key,
	const struct credential *credential, enum stats_result result)
{
	struct waiter *waiter = NULL;
	struct fetch_list *fetch = result == STATS_MISS ? find(models, key) : NULL;
	if (fetch)
		result = STATS_COALESCED;
	if (models->n_waiters < MAX_WAITERS)
		waiter = calloc(1, sizeof *waiter);
	if (waiter && !fetch)
		fetch = start(models, key, credential, exchange, result != STATS_PASS);
	if (!waiter || !fetch) {
		free(waiter);
		refuse_for_memory(models->gateway, exchange);
		return;
	}
	waiter->exchange = exchange;
	waiter->started_us = exchange->started_us;
	models->n_waiters++;
	wait_for(fetch, waiter, result);
	exchange_accept(exchange, &events, waiter);
}

static void renew(struct models *models, struct cache_object *object,
	const struct exchange *exchange, const struct credential *credential)
{
	if (!cache_object_refresh_begin(object))
		return;
	struct fetch_list *fetch = start(
		models, &cache_object_info(object)->key, credential, exchange, true);
	if (fetch)
		fetch->stale = cache_object_ref(object);
	else
		cache_object_refresh_end(object);
}

/* From memory: true, and the exchange is dead. Sets *result to PASS where an answer is known not to
 * be kept. */
static bool answer_from_memory(struct models *models, struct exchange *exchange,
	const struct digest *key, const struct credential *credential, enum stats_result *result)
{
	struct gateway *gateway = models->gateway;
	enum cache_freshness freshness;
	struct cache_object *object = cache_lookup(
		gateway->cache, key, loop_wall_ms(gateway->loop), &freshness);
	if (!object)
		return false;
	bool mark = cache_object_info(object)->status == MARK;
	if (mark) {
		*result = STATS_PASS;
	} else {
		if (freshness == CACHE_STALE)
			renew(models, object, exchange, credential);
		respond(gateway, exchange, object,
			freshness == CACHE_STALE ? STATS_STALE : STATS_HIT, -1);
	}
	cache_object_unref(&object);
	return !mark;
}

static void serve_mock(struct gateway *gateway, struct exchange *exchange)
{
	struct answer_head head = {.status = 200};
	answer_head_add(&head, "Content-Type", SPAN_LITERAL("application/json"));
	answer_head_add(&head, "X-Cache", span_of(stats_x_cache(STATS_PASS)));
	count(gateway, exchange, STATS_PASS, 200);
	exchange_respond(exchange, &head, slice_static(provider_mock_models));
}

void models_serve(struct gateway *gateway, struct exchange *exchange)
{
	struct credential credential;
	struct digest caller;
	if (!access_check(gateway, exchange, &credential, &caller))
		return;
	struct span tags[SURROGATE_MAX_KEYS];
	const char *reason = NULL;
	bool heeds = gateway->conf->cache_request_control;
	struct digest key = response_cache_key(exchange, &caller);
	enum stats_result result = STATS_MISS;
	if (exchange_header(exchange, "cookie").data ||
		(heeds && cache_control_asks(exchange, "no-store")))
		result = STATS_PASS;
	if (gateway->mock)
		serve_mock(gateway, exchange);
	else if (!gateway->provider->ops->list_models)
		refuse(gateway, exchange, 404, "unknown_url", -1,
			"The provider has no list of models.");
	else if (exchange->target.len - exchange->path.len > MAX_QUERY_BYTES)
		refuse(gateway, exchange, 414, "uri_too_long", -1, "The query is too long.");
	else if (surrogate_keys_of_request(exchange, tags, &reason) < 0)
		refuse(gateway, exchange, 400, "bad_surrogate_key", -1, reason);
	else if (result == STATS_PASS || (heeds && cache_control_asks(exchange, "no-cache")) ||
		 !answer_from_memory(gateway->models, exchange, &key, &credential, &result))
		ask(gateway->models, exchange, &key, &credential, result);
	credential_free(&credential);
}

/* ---- The whole ---- */

struct models *models_new(struct gateway *gateway)
{
	struct models *models = calloc(1, sizeof *models);
	if (!models)
		return NULL;
	models->gateway = gateway;
	TAILQ_INIT(&models->under_way);
	return models;
}

void models_free(struct models **pointer)
{
	struct models *models = *pointer;
	*pointer = NULL;
	if (!models)
		return;
	while (!TAILQ_EMPTY(&models->under_way))
		fetch_free(TAILQ_FIRST(&models->under_way));
	free(models);
}
