/* What a Python gateway kept: one answer under the hash of a whole body, taken apart here. */
#include "gatewayd/flight_private.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/workers.h"
#include "gatewayd/provider_answer.h"
#include "gatewayd/query.h"
#include "gatewayd/usage.h"

/*
 * LOOKING ──> PARSING (on a worker) ──> GIVING, piece by piece ──> (gone)
 *
 * Cancelled: it is gone at once, or when the worker is done with it.
 */
struct legacy {
	struct flights *flights;
	struct buyer *buyer; /* NULL: cancelled */
	struct store_get *get;
	bool parsing;
	size_t n;
	uint64_t *tokens; /* what each element cost */
	struct stored_object stored;
	struct provider_answer answer;
	struct job job;
	struct deferred give_later;
};

static void legacy_free(struct legacy *legacy)
{
	provider_answer_free(&legacy->answer);
	stored_object_free(&legacy->stored);
	free(legacy->tokens);
	free(legacy);
}

static struct span span_of_text(const struct buf *buf)
{
	return (struct span){(char *)buf->data, buf->len};
}

/* One embedding of a legacy answer as we keep it. */
static struct stored_fields fields_of(struct flights *flights, const struct digest *key,
	const struct buyer *buyer, const struct provider_answer *answer, size_t place,
	uint64_t tokens, uint64_t stored_ms)
{
	const struct embedding *embedding = &answer->embeddings[place];
	return (struct stored_fields){
		.key = *key,
		.stored_ms = stored_ms ? stored_ms : loop_wall_ms(flights->loop),
		.model = buyer->model,
		.served_model = span_of_text(&answer->model),
		.params = buyer->store_params,
		.source = embedding->source,
		.vector = span_of_text(&embedding->text),
		.dims = embedding->dims,
		.prompt_tokens = tokens,
		.total_tokens = tokens,
	};
}

struct cache_object *flight_legacy_single(
	struct flights *flights, const struct flight *flight, const struct stored_object *stored)
{
	struct provider_answer answer = {0};
	struct cache_object *object = NULL;
	if (!store_covered(flights->parts.store, &flight->key, flight->payer->model,
		    stored->fields.stored_ms) &&
		provider_answer_parse(stored->json, 1, &answer) == 0) {
		struct stored_fields fields = fields_of(flights, &flight->key, flight->payer,
			&answer, 0, answer.total_tokens, stored->fields.stored_ms);
		object = flight_keep_found(flight, flight->payer, &fields);
		/* It stays what it is where it was found, for the gateway that wrote it. */
		store_keep_near(flights->parts.store, &fields,
			flight->payer->trace ? &flight->payer->trace->trace : NULL);
	}
	provider_answer_free(&answer);
	return object;
}

/* ---- The answer to a whole body ---- */

static void finish(struct legacy *legacy)
{
	struct buyer *buyer = legacy->buyer;
	struct flights *flights = legacy->flights;
	if (buyer)
		buyer->legacy = NULL;
	legacy_free(legacy);
	if (buyer)
		flight_buyer_ready(flights, buyer);
}

static struct ticket *ticket_of(const struct flight *flight, const struct buyer *buyer)
{
	struct ticket *ticket;
	TAILQ_FOREACH (ticket, &flight->tickets, link)
		if (ticket->buyer == buyer)
			break;
	BUG_ON(!ticket);
	return ticket;
}

/* false: out of memory. */
static bool give_one(struct legacy *legacy, struct flight *flight)
{
	struct flights *flights = legacy->flights;
	struct buyer *buyer = legacy->buyer;
	size_t place = ticket_of(flight, buyer)->place;
	BUG_ON(place >= legacy->n);
	struct stored_fields fields = fields_of(flights, &flight->key, buyer, &legacy->answer,
		place, legacy->tokens[place], legacy->stored.fields.stored_ms);
	struct cache_object *object = flight_keep_found(flight, buyer, &fields);
	if (!object)
		return false;
	store_put(flights->parts.store, &fields,
		buyer->trace && place < TRACED_STEPS ? &buyer->trace->trace : NULL);
	flights->counters.legacy_elements++;
	TAILQ_REMOVE(
		flight->state == FLIGHT_ROUTED ? &buyer->routed : &buyer->wanted, flight, link);
	flight_resolve(flight, object, NULL, FLIGHT_STORED);
	cache_object_unref(&object);
	return true;
}

static struct flight *next_of(const struct buyer *buyer)
{
	struct flight *first = TAILQ_FIRST(&buyer->wanted);
	return first ? first : TAILQ_FIRST(&buyer->routed);
}

/* The buyer may leave while it gets the last one. */
static void give(void *arg)
{
	struct legacy *legacy = arg;
	struct loop *loop = legacy->flights->loop;
	struct flight *flight;
	legacy->parsing = true; /* a cancel leaves it to us */
	uint64_t until_us = loop_now_us(loop) + LOOP_SLICE_US / 4;
	while (legacy->buyer && (flight = next_of(legacy->buyer)) && give_one(legacy, flight)) {
		if (loop_now_us(loop) < until_us)
			continue;
		legacy->parsing = false;
		loop_queue(loop, &legacy->give_later);
		return;
	}
	finish(legacy);
}

static void parse_work(struct job *job)
{
	struct legacy *legacy = (struct legacy *)((char *)job - offsetof(struct legacy, job));
	provider_answer_parse(legacy->stored.json, legacy->n, &legacy->answer);
}

/* By the length of the inputs, as what is bought. */
static bool share_tokens(struct legacy *legacy)
{
	const struct query *query = legacy->buyer->query;
	uint32_t *weights = calloc(legacy->n, sizeof *weights);
	legacy->tokens = calloc(legacy->n, sizeof *legacy->tokens);
	bool ok = weights && legacy->tokens;
	for (size_t i = 0; ok && i < legacy->n; i++)
		weights[i] = (uint32_t)query->elements[i].json.len;
	ok = ok &&
	     usage_share(legacy->answer.total_tokens, weights, legacy->n, legacy->tokens) == 0;
	free(weights);
	return ok;
}

/* A purge of the store covers it, or one of the elements that are to be taken from it. */
static bool is_covered(const struct legacy *legacy)
{
	const struct buyer *buyer = legacy->buyer;
	const struct flight *flight;
	TAILQ_FOREACH (flight, &buyer->wanted, link)
		if (store_covered(legacy->flights->parts.store, &flight->key, buyer->model,
			    legacy->stored.fields.stored_ms))
			return true;
	TAILQ_FOREACH (flight, &buyer->routed, link)
		if (store_covered(legacy->flights->parts.store, &flight->key, buyer->model,
			    legacy->stored.fields.stored_ms))
			return true;
	return false;
}

static void parsed(struct job *job)
{
	struct legacy *legacy = (struct legacy *)((char *)job - offsetof(struct legacy, job));
	legacy->parsing = false;
	if (!legacy->buyer) {
		legacy_free(legacy);
		return;
	}
	if (is_covered(legacy)) {
		finish(legacy);
		return;
	}
	bool good = legacy->answer.embeddings && !legacy->answer.reason;
	if (!good || !share_tokens(legacy)) {
		const struct trace_context *context = legacy->buyer->trace;
		log_fields(LOG_LEVEL_WARN, TRACE_TEXT(context ? &context->trace : NULL),
			"a legacy object does not answer its request",
			LOG_STR("reason",
				legacy->answer.reason ? legacy->answer.reason : "out of memory"));
		finish(legacy);
		return;
	}
	legacy->flights->counters.legacy_requests++;
	give(legacy);
}

static void on_looked_up(enum store_result result, struct stored_object *stored, void *arg)
{
	struct legacy *legacy = arg;
	legacy->get = NULL;
	if (result != STORE_LEGACY) {
		finish(legacy);
		return;
	}
	legacy->stored = stored_object_take(stored);
	legacy->job = (struct job){.work = parse_work, .done = parsed};
	if (workers_submit(legacy->flights->workers, &legacy->job))
		finish(legacy);
	else
		legacy->parsing = true;
}

/* It was looked up already: the name is the one element's own. */
static bool was_looked_up(const struct flights *flights, const struct query *query)
{
	return flights->options.legacy_layout == STORE_LAYOUT_EMBEDDINGS &&
	       digest_equal(&query->legacy_key, &query->elements[0].key);
}

bool flight_legacy_possible(const struct flights *flights, const struct buyer *buyer)
{
	const struct query *query = buyer->query;
	return !buyer->legacy_done && flights->options.legacy_read && flights->parts.store &&
	       flights->workers && query && query->has_legacy_key && !was_looked_up(flights, query);
}

bool flight_legacy_start(struct flights *flights, struct buyer *buyer)
{
	if (!flight_legacy_possible(flights, buyer))
		return false;
	buyer->legacy_done = true;
	struct legacy *legacy = calloc(1, sizeof *legacy);
	if (!legacy)
		return false;
	legacy->flights = flights;
	legacy->buyer = buyer;
	legacy->n = buyer->query->n;
	deferred_init(&legacy->give_later, give, legacy);
	struct store_look look = {.trace = buyer->trace ? &buyer->trace->trace : NULL,
		.layout = flights->options.legacy_layout};
	legacy->get = store_get_legacy_start(
		flights->parts.store, &buyer->query->legacy_key, &look, on_looked_up, legacy);
	if (!legacy->get) {
		free(legacy);
		return false;
	}
	buyer->legacy = legacy;
	return true;
}

void flight_legacy_cancel(struct buyer *buyer)
{
	struct legacy *legacy = buyer->legacy;
	if (!legacy)
		return;
	buyer->legacy = NULL;
	legacy->buyer = NULL;
	store_get_cancel(&legacy->get);
	if (legacy->parsing)
		return;
	loop_defer_cancel(legacy->flights->loop, &legacy->give_later);
	legacy_free(legacy);
}
