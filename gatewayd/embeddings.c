#include "gatewayd/embeddings.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/gzip.h"
#include "common/http_accept.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/workers.h"
#include "gatewayd/access.h"
#include "gatewayd/answer.h"
#include "gatewayd/api_error.h"
#include "gatewayd/cache.h"
#include "gatewayd/credential.h"
#include "gatewayd/embeddings_fields.h"
#include "gatewayd/embeddings_span.h"
#include "gatewayd/flight.h"
#include "gatewayd/gateway.h"
#include "gatewayd/query.h"
#include "gatewayd/refresh.h"
#include "gatewayd/response_cache.h"
#include "gatewayd/surrogate_keys.h"

/* Answers of more elements are streamed, and are not kept as a whole. */
#define WHOLE_MAX_ELEMENTS RESPONSE_MAX_ELEMENTS
/* Nor are those to bodies larger than this. */
#define WHOLE_MAX_BODY_BYTES (1u << 20)
/* How many elements are looked for between two looks at the clock. */
#define LOOKED_AT_ONCE 32
/* What a streamed answer hands over at a time. */
#define PIECE_BYTES (48u << 10)

/*
 * READING ──> PARSING ──> LOOKING ──> WAITING ──> ASSEMBLING ──> (gone)
 *    body        │ on a      │ into      │ for     or STREAMING: large answers
 *                │ worker    │ memory    │ flights
 *
 * What is not in memory gets a ticket at once; large requests look in slices, so that tickets may
 * be resolved while they still do.
 *
 * An answer, an error or the client's leaving ends it from any state. A job that is on a worker is
 * waited for: then `exchange` is NULL.
 */
enum embeddings_state {
	EMBEDDINGS_READING,
	EMBEDDINGS_PARSING,
	EMBEDDINGS_LOOKING,
	EMBEDDINGS_WAITING,
	EMBEDDINGS_ASSEMBLING,
	EMBEDDINGS_STREAMING,
};

struct embeddings {
	struct buyer buyer; /* first: flights give it back */
	struct job job;
	struct gateway *gateway;
	struct exchange *exchange; /* NULL: the client is gone, or answered */
	uint64_t started_us;       /* the exchange is gone when it is aborted */
	enum embeddings_state state;
	struct credential credential;
	struct digest response_key;
	struct embeddings_fields fields;
	struct element_tags *tags;
	uint64_t since;      /* the purge clock when this began */
	struct digest scope; /* of the caller; takes part in the keys if per_key */
	bool per_key;
	bool fetch; /* another instance asks; it counts the request */
	struct trace_context trace;
	struct trace joined; /* the last one that was linked */

	struct shared_slice *body;
	struct query query;
	struct api_error error; /* of the parser */

	struct cache_object **elements; /* query.n, NULL while missing */
	uint8_t *sources;               /* query.n, enum stats_source */
	struct ticket *tickets;         /* query.n; of those that were not in memory */
	size_t n_tickets, waiting;
	size_t looked_at;
	struct trace_span *looking;
	size_t from[STATS_SOURCES];
	size_t stale; /* of those from memory */
	uint64_t saved_tokens;
	size_t next; /* assembling, streaming */
	struct buf assembled;
	struct deferred later;
};

static void embeddings_free(struct embeddings *request)
{
	for (size_t i = 0; request->elements && i < request->query.n; i++)
		cache_object_unref(&request->elements[i]);
	loop_defer_cancel(request->gateway->loop, &request->later);
	trace_span_end(&request->looking);
	buf_free(&request->assembled);
	free(request->elements);
	free(request->sources);
	free(request->tickets);
	query_free(&request->query);
	shared_slice_unref(request->body);
	credential_free(&request->credential);
	element_tags_unref(&request->tags);
	free(request);
}

/* ---- Answering ---- */

static void count(struct embeddings *request, enum stats_result result, int status)
{
	if (!request->fetch)
		stats_count_request(request->gateway->stats, result, status, request->started_us);
}

/* The one way to an error: answers, and ends the request. */
static void fail(struct embeddings *request, const struct api_error *error)
{
	flights_leave(request->gateway->flights, &request->buyer);
	count(request, STATS_ERROR, error->status);
	api_error_respond(request->exchange, error, NULL);
	embeddings_free(request);
}

static const char no_memory[] = "The gateway is out of memory.";
static const char too_many[] = "Too many texts are on their way; try again in a moment.";

static void fail_for_now(struct embeddings *request, const char *sentence)
{
	struct api_error error;
	api_error_set(&error, 503, NULL, "overloaded", "%s", sentence);
	error.retry_after_ms = 1000;
	fail(request, &error);
}

static enum stats_result result_of(const struct embeddings *request)
{
	size_t hits = request->from[STATS_MEMORY] + request->from[STATS_STORE];
	if (request->fields.keep_nothing)
		return STATS_PASS;
	if (hits == request->query.n)
		return request->stale ? STATS_STALE : STATS_HIT;
	if (hits > 0)
		return STATS_PARTIAL;
	return request->from[STATS_BOUGHT] > 0 ? STATS_MISS : STATS_COALESCED;
}

static uint64_t oldest_ms(const struct embeddings *request)
{
	uint64_t oldest = UINT64_MAX;
	for (size_t i = 0; i < request->query.n; i++) {
		uint64_t stored_ms = cache_object_info(request->elements[i])->stored_ms;
		if (stored_ms < oldest)
			oldest = stored_ms;
	}
	return oldest;
}

static void count_success(struct embeddings *request, enum stats_result result)
{
	struct stats *stats = request->gateway->stats;
	count(request, result, 200);
	struct span model = {(char *)request->query.model.data, request->query.model.len};
	embeddings_span_note(request->exchange->span, model, request->query.n, request->from);
	uint64_t tokens = 0;
	for (size_t i = 0; i < request->query.n; i++)
		tokens += cache_object_info(request->elements[i])->total_tokens;
	for (int i = 0; i < STATS_SOURCES; i++)
		stats_count_elements(stats, (enum stats_source)i, request->from[i]);
	stats_count_tokens(stats, cache_object_info(request->elements[0])->model, tokens,
		request->saved_tokens);
}

static void respond_whole(struct embeddings *request, struct cache_object *kept)
{
	size_t hits = request->from[STATS_MEMORY] + request->from[STATS_STORE], len = 0;
	struct response_head head;
	response_head_fill(&head, request->gateway, request->exchange,
		stats_x_cache(result_of(request)), hits ? oldest_ms(request) : 0);
	if (request->query.n > 1)
		response_head_hits(&head, hits, request->query.n);
	if (kept) {
		exchange_respond_object(request->exchange, &head.answer, kept, CACHE_IDENTITY);
		cache_object_unref(&kept);
	} else {
		void *data = buf_take(&request->assembled, &len);
		exchange_respond(request->exchange, &head.answer, slice_malloced(data, len));
	}
	embeddings_free(request);
}

static struct answer answer_of(const struct embeddings *request)
{
	return (struct answer){.elements = request->elements,
		.n = request->query.n,
		.encoding = request->query.encoding};
}

/* Number text takes its time: a piece, then it is the others' turn. */
static void assemble(void *arg)
{
	struct embeddings *request = arg;
	struct buf *body = &request->assembled;
	struct answer answer = answer_of(request);
	if (answer_write_some(&answer, &request->next, body->len + PIECE_BYTES, body) < 0) {
		fail_for_now(request, no_memory);
		return;
	}
	if (request->next < request->query.n) {
		loop_queue(request->gateway->loop, &request->later);
		return;
	}
	count_success(request, result_of(request));
	struct cache_object *kept = NULL;
	if (request->exchange->body_bytes <= WHOLE_MAX_BODY_BYTES &&
		!request->fields.keep_nothing) {
		struct response_facts facts = {
			.key = request->response_key,
			.elements = request->elements,
			.n_elements = (uint32_t)request->query.n,
			.stored_ms = oldest_ms(request),
			.since = request->since,
			.tags = request->tags,
			.again = request->from[STATS_MEMORY] == request->query.n,
		};
		for (size_t i = 0; i < request->query.n; i++)
			facts.tokens += cache_object_info(request->elements[i])->total_tokens;
		kept = response_cache_put(request->gateway, request->exchange, &facts,
			(struct span){(char *)body->data, body->len});
	}
	respond_whole(request, kept);
}

/* To another instance: packed elements, each with what it cost and where it was. */
static void answer_fetch(struct embeddings *request)
{
	struct answer_head head = {.status = 200};
	answer_head_add(&head, "Content-Type", SPAN_LITERAL("application/msgpack"));
	request->state = EMBEDDINGS_STREAMING;
	exchange_respond_stream(request->exchange, &head, -1);
}

static void answer(struct embeddings *request)
{
	if (request->fetch) {
		answer_fetch(request);
		return;
	}
	if (request->query.n <= WHOLE_MAX_ELEMENTS) {
		request->state = EMBEDDINGS_ASSEMBLING;
		deferred_init(&request->later, assemble, request);
		assemble(request);
		return;
	}
	enum stats_result result = result_of(request);
	size_t hits = request->from[STATS_MEMORY] + request->from[STATS_STORE];
	count_success(request, result);
	/* Nobody needs the texts any more, and a slow client may take long. */
	shared_slice_unref(request->body);
	request->body = NULL;

	struct response_head head;
	response_head_fill(&head, request->gateway, request->exchange, stats_x_cache(result),
		hits ? oldest_ms(request) : 0);
	response_head_hits(&head, hits, request->query.n);
	struct answer answer = answer_of(request);
	request->state = EMBEDDINGS_STREAMING;
	exchange_respond_stream(request->exchange, &head.answer, answer_length(&answer));
}

static bool on_pull(struct slice *piece, void *arg)
{
	struct embeddings *request = arg;
	if (request->next == request->query.n)
		return false;
	struct answer answer = answer_of(request);
	struct buf buf = BUF_INIT(SIZE_MAX / 2);
	int rc = request->fetch ? answer_pack_some(&answer, request->sources, &request->next,
					  PIECE_BYTES, &buf)
				: answer_write_some(&answer, &request->next, PIECE_BYTES, &buf);
	if (rc < 0) {
		/* Nothing can be said any more; the client sees a body that ends too early. */
		log_fields(LOG_LEVEL_ERROR, TRACE_TEXT(&request->exchange->trace),
			"embeddings: an answer ends too early", LOG_STR("reason", "out of memory"));
		buf_free(&buf);
		request->next = request->query.n;
		return false;
	}
	size_t len = 0;
	void *data = buf_take(&buf, &len);
	*piece = slice_malloced(data, len);
	return true;
}

static void on_complete(void *arg)
{
	embeddings_free(arg);
}

/* ---- Waiting for what is not in memory ---- */

static void take_one(struct embeddings *request, size_t index, struct cache_object *object,
	enum stats_source source)
{
	request->elements[index] = cache_object_ref(object);
	request->sources[index] = (uint8_t)source;
	request->from[source]++;
	if (source != STATS_BOUGHT)
		request->saved_tokens += cache_object_info(object)->total_tokens;
}

/* For this element and all that repeat it; what was bought costs once. */
static void take_element(struct embeddings *request, size_t index, struct cache_object *object,
	enum stats_source source)
{
	take_one(request, index, object, source);
	enum stats_source again = source == STATS_BOUGHT ? STATS_JOINED : source;
	while ((index = request->query.elements[index].next_same))
		take_one(request, index, object, again);
}

void embeddings_on_object(
	struct ticket *ticket, enum flight_source source, struct cache_object *object)
{
	static const enum stats_source sources[] = {[FLIGHT_CACHED] = STATS_MEMORY,
		[FLIGHT_STORED] = STATS_STORE,
		[FLIGHT_BOUGHT] = STATS_BOUGHT,
		[FLIGHT_JOINED] = STATS_JOINED};
	struct embeddings *request = (struct embeddings *)ticket_buyer(ticket);
	if (ticket->joined)
		embeddings_span_link(request->exchange->span, &request->joined, ticket->joined);
	take_element(request, ticket->place, object, sources[source]);
	if (--request->waiting == 0 && request->state == EMBEDDINGS_WAITING)
		answer(request);
}

void embeddings_on_failure(struct buyer *buyer, const struct flight_failure *failure)
{
	struct embeddings *request = (struct embeddings *)buyer;
	if (failure->body.len == 0) {
		fail(request, &failure->error);
		return;
	}
	/* The provider's own words. */
	struct answer_head head = {.status = failure->error.status};
	char retry_after[24];
	answer_head_add(&head, "Content-Type",
		failure->content_type.data ? failure->content_type
					   : SPAN_LITERAL("application/json"));
	if (failure->error.retry_after_ms >= 0) {
		snprintf(retry_after, sizeof retry_after, "%" PRId64,
			(failure->error.retry_after_ms + 999) / 1000);
		answer_head_add(&head, "Retry-After", span_of(retry_after));
	}
	answer_head_add(&head, "X-Cache", SPAN_LITERAL("MISS"));
	count(request, STATS_ERROR, failure->error.status);
	void *copy = malloc(failure->body.len);
	if (copy)
		memcpy(copy, failure->body.data, failure->body.len);
	exchange_respond(
		request->exchange, &head, slice_malloced(copy, copy ? failure->body.len : 0));
	embeddings_free(request);
}

/* Requests that hold more than the cache can hold keep their embeddings beside it; so many bytes of
 * that are enough. */
static bool memory_is_short(const struct gateway *gateway)
{
	struct cache_stats stats;
	cache_stats(gateway->cache, &stats);
	return stats.outside_bytes > (uint64_t)gateway->conf->cache_bytes;
}

/* -1: it is missing and cannot be waited for. */
static int want_element(struct embeddings *request, size_t index)
{
	const struct query_element *element = &request->query.elements[index];
	if (request->n_tickets == 0 && request->query.n > WHOLE_MAX_ELEMENTS &&
		memory_is_short(request->gateway))
		return -1;
	struct ticket *ticket = &request->tickets[request->n_tickets++];
	ticket->key = element->key;
	ticket->input_json = element->json;
	ticket->place = index;
	request->waiting++;
	return flights_enter_one(request->gateway->flights, &request->buyer);
}

/* Take it from memory, or a ticket. -1: as want_element(). */
static int look_for(struct embeddings *request, size_t index, uint64_t now_ms)
{
	const struct query_element *element = &request->query.elements[index];
	enum cache_freshness freshness;
	struct cache_object *object = NULL;
	if (element->repeated)
		return 0;
	if (!request->fields.fresh)
		object = cache_lookup(request->gateway->cache, &element->key, now_ms, &freshness);
	if (!object)
		return want_element(request, index);
	take_element(request, index, object, STATS_MEMORY);
	if (freshness == CACHE_STALE) {
		request->stale++;
		refresher_start(request->gateway->refresher, object, &request->exchange->trace);
	}
	cache_object_unref(&object);
	return 0;
}

static void all_looked_at(struct embeddings *request)
{
	trace_span_int(
		request->looking, "gateway.elements.memory", (int64_t)request->from[STATS_MEMORY]);
	trace_span_int(request->looking, "gateway.elements.missing", (int64_t)request->n_tickets);
	trace_span_end(&request->looking);
	request->state = EMBEDDINGS_WAITING;
	if (request->n_tickets > 0)
		flights_enter_end(request->gateway->flights, &request->buyer);
	if (request->waiting == 0)
		answer(request);
}

static void look(void *arg)
{
	struct embeddings *request = arg;
	struct loop *loop = request->gateway->loop;
	uint64_t now_ms = loop_wall_ms(loop);
	while (request->looked_at < request->query.n) {
		if (look_for(request, request->looked_at++, now_ms) < 0) {
			fail_for_now(request, too_many);
			return;
		}
		if (request->looked_at % LOOKED_AT_ONCE == 0 && loop_slice_is_over(loop) &&
			request->looked_at < request->query.n) {
			loop_queue(loop, &request->later);
			return;
		}
	}
	all_looked_at(request);
}

static void describe_buyer(struct embeddings *request)
{
	struct query *query = &request->query;
	struct buyer *buyer = &request->buyer;
	buyer->credential = &request->credential;
	buyer->credential_digest = credential_digest(&request->credential);
	buyer->model = (struct span){(char *)query->model.data, query->model.len};
	buyer->model_json = query->model_json;
	buyer->body = request->body;
	buyer->params_json = (struct span){(char *)query->params_json.data, query->params_json.len};
	buyer->fresh = request->fields.fresh;
	buyer->keep_nothing = request->fields.keep_nothing;
	buyer->store_params = (struct span){
		(char *)query->canonical_params.data, query->canonical_params.len};
	buyer->dimensions = query->dimensions;
	buyer->query = request->fetch ? NULL : query; /* legacy answers are for whole bodies */
	buyer->trace = &request->trace;
	buyer->local_only = request->fetch;
	buyer->scope = request->per_key ? &request->scope : NULL;
}

static void find_elements(struct embeddings *request)
{
	const size_t n = request->query.n;
	describe_buyer(request);
	request->buyer.tags = request->tags = element_tags_new(
		request->buyer.model, request->fields.tags, request->fields.n_tags);
	request->elements = calloc(n, sizeof(*request->elements));
	request->sources = calloc(n, sizeof(*request->sources));
	request->tickets = calloc(n, sizeof(*request->tickets));
	if (!request->tags || !request->elements || !request->sources || !request->tickets) {
		fail_for_now(request, no_memory);
		return;
	}
	struct trace ours;
	request->looking = trace_span_begin(&request->trace.trace, &ours, TRACE_SPAN_INTERNAL,
		SPAN_LITERAL("look up elements in memory"));
	request->state = EMBEDDINGS_LOOKING;
	flights_enter_begin(request->gateway->flights, &request->buyer, request->tickets);
	look(request);
}

/* ---- Parsing ---- */

static void parse(struct job *job)
{
	struct embeddings *request = (struct embeddings *)((char *)job -
							   offsetof(struct embeddings, job));
	const struct gatewayd_conf *conf = request->gateway->conf;
	struct span body = {request->body->slice.data, request->body->slice.len_bytes};
	if (request->gateway->legacy_read)
		query_parse_legacy(
			body, (size_t)conf->max_inputs, NULL, &request->query, &request->error);
	else
		query_parse(body, (size_t)conf->max_inputs,
			request->per_key ? &request->scope : NULL, &request->query,
			&request->error);
}

static void parsed(struct job *job)
{
	struct embeddings *request = (struct embeddings *)((char *)job -
							   offsetof(struct embeddings, job));
	if (!request->exchange)
		embeddings_free(request);
	else if (request->error.status)
		fail(request, &request->error);
	else
		find_elements(request);
}

static void on_body(struct slice body, void *arg)
{
	struct embeddings *request = arg;
	bool large = body.len_bytes > QUERY_INLINE_BYTES;
	request->body = shared_slice_new(body);
	if (!request->body) {
		fail_for_now(request, no_memory);
		return;
	}
	request->state = EMBEDDINGS_PARSING;
	request->job.work = parse;
	request->job.done = parsed;
	if (large && workers_submit(request->gateway->workers, &request->job) == 0)
		return;
	parse(&request->job);
	parsed(&request->job);
}

static void on_abort(void *arg)
{
	struct embeddings *request = arg;
	struct gateway *gateway = request->gateway;
	count(request, STATS_GONE, 499);
	request->exchange = NULL;
	flights_leave(gateway->flights, &request->buyer);
	if (request->state != EMBEDDINGS_PARSING)
		embeddings_free(request);
}

static const struct exchange_events events = {
	.on_body = on_body,
	.on_pull = on_pull,
	.on_complete = on_complete,
	.on_abort = on_abort,
};

/* ---- Beginning ---- */

void embeddings_serve(struct gateway *gateway, struct exchange *exchange)
{
	struct credential credential;
	struct digest caller;
	if (!access_check(gateway, exchange, &credential, &caller))
		return;
	struct embeddings_fields fields;
	struct api_error error;
	if (embeddings_fields_read(exchange, gateway->conf, &fields, &error) < 0) {
		stats_count_request(
			gateway->stats, STATS_ERROR, error.status, exchange->started_us);
		api_error_respond(exchange, &error, NULL);
		credential_free(&credential);
		return;
	}
	bool per_key = gateway->conf->scope == CONF_SCOPE_PER_KEY;
	struct digest key = response_cache_key(exchange, per_key ? &caller : NULL);
	if (!exchange->fetch && !fields.fresh && response_cache_answer(gateway, exchange, &key)) {
		credential_free(&credential);
		return;
	}
	struct embeddings *request = calloc(1, sizeof *request);
	if (!request) {
		api_error_set(&error, 503, NULL, "overloaded", "%s", no_memory);
		error.retry_after_ms = 1000;
		stats_count_request(
			gateway->stats, STATS_ERROR, error.status, exchange->started_us);
		api_error_respond(exchange, &error, NULL);
		credential_free(&credential);
		return;
	}
	request->gateway = gateway;
	buf_init(&request->assembled, SIZE_MAX / 2);
	deferred_init(&request->later, look, request);
	request->exchange = exchange;
	request->started_us = exchange->started_us;
	request->credential = credential;
	request->response_key = key;
	request->per_key = per_key;
	request->scope = caller;
	request->fields = fields;
	request->since = cache_purge_clock(gateway->cache);
	request->fetch = exchange->fetch;
	exchange_trace_context(exchange, &request->trace);
	request->state = EMBEDDINGS_READING;
	exchange_accept(exchange, &events, request);
	exchange_want_body(exchange);
}
