#include "gatewayd/response_cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/gzip.h"
#include "common/http_accept.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/workers.h"
#include "gatewayd/cache.h"
#include "gatewayd/gateway.h"
#include "gatewayd/surrogate_keys.h"

/* A smaller answer fits into a packet or two: gzip saves nothing. */
#define GZIP_MIN_BYTES 1024
#define GZIP_LEVEL     1

void response_head_fill(struct response_head *head, const struct gateway *gateway,
	const struct exchange *exchange, const char *x_cache, uint64_t stored_ms)
{
	struct answer_head *answer = &head->answer;
	answer->status = 200;
	answer->n_fields = 0;
	answer_head_add(answer, "Content-Type", SPAN_LITERAL("application/json"));
	answer_head_add(answer, "X-Cache", span_of(x_cache));
	digest_hex(&exchange->body_hash, head->body_hash);
	answer_head_add(answer, "X-Body-Hash", (struct span){head->body_hash, DIGEST_HEX});
	answer_head_add(answer, "Vary", SPAN_LITERAL("Accept-Encoding"));
	if (stored_ms) {
		uint64_t now_ms = loop_wall_ms(gateway->loop);
		int n = snprintf(head->age, sizeof head->age, "%" PRIu64,
			now_ms > stored_ms ? (now_ms - stored_ms) / 1000 : 0);
		answer_head_add(answer, "Age", (struct span){head->age, (size_t)n});
	}
	if (gateway->mock)
		answer_head_add(answer, "X-Embedding-Provider", SPAN_LITERAL("mock"));
}

void response_head_hits(struct response_head *head, size_t hits, size_t n)
{
	snprintf(head->hits, sizeof head->hits, "%zu/%zu", hits, n);
	answer_head_add(&head->answer, "X-Cache-Hits", span_of(head->hits));
}

/* Each part with its length before it, so that no two lists of parts are the same bytes. */
static void add_part(struct buf *text, struct span part)
{
	uint32_t len = (uint32_t)part.len;
	buf_append(text, &len, sizeof len);
	buf_append(text, part.data, part.len);
}

struct digest response_cache_key(const struct exchange *exchange, const struct digest *scope)
{
	uint8_t room[1024];
	struct buf text = {.data = room, .capacity = sizeof room, .max_len = sizeof room};
	size_t need = exchange->method.len + exchange->target.len + exchange->host.len +
		      2 * DIGEST_BYTES + 5 * sizeof(uint32_t) + 16;
	if (need > sizeof room)
		text = (struct buf)BUF_INIT(need);
	add_part(&text, SPAN_LITERAL("response"));
	/* HEAD is answered as GET. */
	bool head = span_equal_str(exchange->method, "HEAD");
	add_part(&text, head ? SPAN_LITERAL("GET") : exchange->method);
	buf_append(&text, exchange->body_hash.bytes, DIGEST_BYTES);
	add_part(&text, exchange->target);
	add_part(&text, exchange->host);
	if (scope)
		buf_append(&text, scope->bytes, DIGEST_BYTES);
	struct digest key = digest_of((struct span){(char *)text.data, text.len});
	if (text.data != room)
		buf_free(&text);
	return key;
}

/* ---- The gzip form ---- */

struct compression {
	struct job job; /* first */
	struct cache_object *object;
	struct span body;
	struct buf gzip;
};

static void compress(struct job *job)
{
	struct compression *compression = (struct compression *)job;
	if (gzip_compress(compression->body, (struct span){0}, GZIP_LEVEL, &compression->gzip) < 0)
		buf_clear(&compression->gzip);
}

static void compressed(struct job *job)
{
	struct compression *compression = (struct compression *)job;
	if (compression->gzip.len > 0)
		cache_object_add_form(compression->object, CACHE_GZIP,
			(struct span){(char *)compression->gzip.data, compression->gzip.len});
	cache_object_refresh_end(compression->object);
	cache_object_unref(&compression->object);
	buf_free(&compression->gzip);
	free(compression);
}

/* One at a time for an object; when the workers are busy, a later hit asks again. */
static void start_compression(
	struct gateway *gateway, struct cache_object *object, struct span body)
{
	if (body.len < GZIP_MIN_BYTES || !cache_object_refresh_begin(object))
		return;
	struct compression *compression = calloc(1, sizeof *compression);
	if (!compression)
		goto fail;
	compression->job.work = compress;
	compression->job.done = compressed;
	compression->body = body;
	buf_init(&compression->gzip, body.len + 1024);
	compression->object = cache_object_ref(object);
	if (workers_submit(gateway->workers, &compression->job) == 0)
		return;
	cache_object_unref(&compression->object);
fail:
	free(compression);
	cache_object_refresh_end(object);
}

/* ---- Answering ---- */

bool response_cache_answer(
	struct gateway *gateway, struct exchange *exchange, const struct digest *key)
{
	enum cache_freshness freshness;
	struct trace ours;
	struct trace_span *span = trace_span_begin(&exchange->trace, &ours, TRACE_SPAN_INTERNAL,
		SPAN_LITERAL("look up answer in memory"));
	struct cache_object *object = cache_lookup(
		gateway->cache, key, loop_wall_ms(gateway->loop), &freshness);
	if (span) {
		trace_span_bool(span, "gateway.cache.hit", freshness == CACHE_FRESH);
		trace_span_end(&span);
	}
	/* A stale one is made again from its elements, which are refreshed. */
	if (freshness != CACHE_FRESH) {
		cache_object_unref(&object);
		return false;
	}
	const struct cache_object_info *info = cache_object_info(object);
	struct response_head head;
	response_head_fill(&head, gateway, exchange, stats_x_cache(STATS_HIT), info->stored_ms);
	if (info->n_elements > 1)
		response_head_hits(&head, info->n_elements, info->n_elements);

	struct span body;
	enum cache_form form = CACHE_IDENTITY;
	bool wants_gzip = http_accepts_encoding(
		exchange_header(exchange, "accept-encoding"), "gzip");
	if (wants_gzip && cache_object_form(object, CACHE_GZIP, &body)) {
		form = CACHE_GZIP;
		answer_head_add(&head.answer, "Content-Encoding", SPAN_LITERAL("gzip"));
	} else {
		cache_object_form(object, CACHE_IDENTITY, &body);
		if (wants_gzip)
			start_compression(gateway, object, body);
	}
	struct stats *stats = gateway->stats;
	stats_count_request(stats, STATS_HIT, 200, exchange->started_us);
	stats_count_elements(stats, STATS_MEMORY, info->n_elements);
	stats_count_tokens(stats, info->model, info->total_tokens, info->total_tokens);
	exchange_respond_object(exchange, &head.answer, object, form);
	cache_object_unref(&object);
	return true;
}

/*
 * The provider changed the length between two calls, with `dimensions` that it ignores: each
 * element is what it gave for that text, but together they are no answer to be kept.
 */
static bool have_one_length(const struct exchange *exchange, const struct response_facts *facts)
{
	const struct cache_object_info *first = cache_object_info(facts->elements[0]);
	for (size_t i = 1; i < facts->n_elements; i++) {
		uint32_t dims = cache_object_info(facts->elements[i])->dims;
		if (dims == first->dims)
			continue;
		log_fields(LOG_LEVEL_WARN, TRACE_TEXT(&exchange->trace),
			"an answer has embeddings of different lengths",
			LOG_SPAN("model", first->model), LOG_INT("length", first->dims),
			LOG_INT("other_length", dims));
		return false;
	}
	return true;
}

struct cache_object *response_cache_put(struct gateway *gateway, const struct exchange *exchange,
	const struct response_facts *facts, struct span body)
{
	struct cache_tag_key keys[RESPONSE_MAX_ELEMENTS + SURROGATE_MAX_KEYS + 3];
	const struct element_tags *tags = facts->tags;
	struct cache_tagging tagging = {.since = facts->since, .keys = keys};
	keys[tagging.n++] = cache_tag_key(CACHE_TAG_PATH, exchange->target);
	keys[tagging.n++] = cache_tag_key_of_digest(CACHE_TAG_BODY_HASH, &exchange->body_hash);
	/* The model's and the client's, but it is no single embedding. */
	for (size_t i = 1; i < tags->n; i++)
		keys[tagging.n++] = tags->keys[i];
	for (size_t i = 0; i < facts->n_elements; i++) {
		struct cache_object *element = facts->elements[i];
		/* Purged while it was on its way into this answer. */
		if (!cache_object_is_current(element))
			return NULL;
		keys[tagging.n++] = cache_tag_key_of_digest(
			CACHE_TAG_ELEMENT, &cache_object_info(element)->key);
	}
	if (!have_one_length(exchange, facts))
		return NULL;
	uint64_t now_ms = loop_wall_ms(gateway->loop);
	struct cache_object_info info = {
		.kind = CACHE_RESPONSE,
		.key = facts->key,
		.stored_ms = facts->stored_ms,
		.fresh_from_ms = now_ms,
		.ttl_ms = (uint64_t)gateway->conf->cache_ttl_ms,
		.grace_ms = (uint64_t)gateway->conf->cache_grace_ms,
		.prompt_tokens = facts->tokens,
		.total_tokens = facts->tokens,
		.model = cache_object_info(facts->elements[0])->model,
		.n_elements = facts->n_elements,
		.status = 200,
	};
	struct cache_object *object = cache_object_new(
		gateway->cache, &info, CACHE_IDENTITY, body, true);
	if (object && facts->again)
		cache_insert_tagged(gateway->cache, object, &tagging, now_ms);
	return object;
}
