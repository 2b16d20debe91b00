#ifndef GATEWAYD_FLIGHT_H
#define GATEWAYD_FLIGHT_H

/*
 * Elements on their way: everything that is not in memory, looked up and bought once however many
 * requests want it at the same time.
 *
 *   request ── buyer ──┬─ ticket ─┐
 *                      ├─ ticket ─┼──> flight (one element key) ──> LOOKING in the store
 *   request ── buyer ──┴─ ticket ─┘                                    │ found: all tickets
 *                                                            resolved  v missing
 *                                          WANTED by its payer (one of its tickets' buyers)
 *                                    when the payer has no flight LOOKING any more: one look-up
 *                                    for the legacy object of its whole body; what that does not
 *                                    bring is bought
 *                                                                      v
 *                                      BUYING: one purchase for all that the payer wants
 *
 * With several instances a flight whose key is owned by another one is ROUTED: its payer asks the
 * owner (fetch.h) instead of looking and buying; if the owner is lost, the flight begins again
 * here.
 *
 * A payer that leaves hands its flights to the next ticket; a flight nobody wants is dropped,
 * unless its purchase was already sent: that is paid for, so it is finished and kept.
 *
 * A failed purchase fails the payer's tickets with the provider's answer. Other requests' tickets:
 * 401, 403 and 429 belong to the credential and go to those with the same one; any other 4xx
 * belongs to the payer's request alone; whoever is left elects a new payer. Failures of the
 * provider (5xx, unreachable, timeout, broken) go to everybody.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/digest.h"
#include "common/span.h"
#include "gatewayd/api_error.h"
#include "gatewayd/cache.h"
#include "gatewayd/provider.h"
#include "gatewayd/store.h"

struct element_tags;
struct flight;
struct flights;
struct loop;
struct query;
struct workers;

#define LOOK_UP_PER_ELEMENT_US 2000

TAILQ_HEAD(flight_list, flight);

/* Who would pay for a request's missing elements. Embedded in the request; all of it borrowed until
 * flights_leave(). */
struct buyer {
	const struct credential *credential;
	struct digest credential_digest;
	const struct digest *scope; /* NULL: shared */
	struct span model, model_json, params_json;
	struct element_tags *tags; /* of what this request brings in */
	/* What its tickets' input_json lie in; NULL: nothing that can be shared. */
	struct shared_slice *body;
	struct span store_params; /* canonical request parameters, kept with stored objects */
	int64_t dimensions;
	const struct trace_context *trace; /* or NULL */
	/* NULL: no legacy look-up. Its legacy_key finds a whole answer that a Python gateway kept.
	 */
	const struct query *query;
	bool fresh;        /* bought whatever is known or under way */
	bool keep_nothing; /* neither in memory nor in the store */
	bool local_only;   /* never ask another instance: this request comes from one */

	/* Private. */
	struct flight_list wanted; /* to be bought */
	struct flight_list routed; /* to be asked of their owners */
	struct flight_list queued; /* to be looked up */
	size_t looking;            /* queued ones too */
	size_t looking_now;
	size_t unresolved; /* tickets */
	unsigned traced_look_ups;
	struct legacy *legacy;
	bool legacy_done;
	bool entering; /* not all of its tickets have their flights yet */
	uint64_t give_up_us;
	bool has_turn, has_deadline;
	TAILQ_ENTRY(buyer) turn_link, deadline_link;
	struct ticket *tickets;
	size_t n_tickets;
	TAILQ_ENTRY(buyer) link; /* of those who are ready to buy, or of those who just failed */
	bool ready;
};

enum flight_source {
	FLIGHT_CACHED, /* in the memory of its owner, another instance */
	FLIGHT_STORED, /* found in the store */
	FLIGHT_BOUGHT, /* by this request */
	FLIGHT_JOINED, /* another request had it on the way */
};

struct flight_failure {
	struct api_error error; /* when the provider's own body is empty */
	struct span body;       /* else this, with its content type */
	struct span content_type;
};

/* One element of one request. */
struct ticket {
	struct digest key;
	struct span input_json; /* borrowed until resolved or left */
	size_t place;           /* which element of the buyer's query */
	/* During on_object with FLIGHT_JOINED: the span of what brought it; NULL: not known. */
	const struct trace *joined;

	/* Private. */
	struct buyer *buyer;
	struct flight *flight;
	TAILQ_ENTRY(ticket) link;
};

static inline struct buyer *ticket_buyer(const struct ticket *ticket)
{
	return ticket->buyer;
}

struct flights_options {
	size_t max_flights;       /* under way; more is refused */
	size_t max_look_ups;      /* in the store at once; more wait their turn */
	size_t parallel_look_ups; /* of one request; 0: max_look_ups */
	/*
	 * What takes longer counts as missing: one look-up after store_deadline_ms; all of a
	 * request after that and LOOK_UP_PER_ELEMENT_US for each of its elements; everything when
	 * the store has answered nothing for store_deadline_ms.
	 */
	uint64_t store_deadline_ms;
	bool legacy_read;
	enum store_layout legacy_layout;
	uint64_t ttl_ms, grace_ms; /* of the objects put in memory */
};

enum flight_blame {
	FLIGHT_OF_CALLER,   /* a 4xx that says something of the request or of the caller's key */
	FLIGHT_OF_PROVIDER, /* any other: 408, 429, 5xx, no answer; the gateway's own key */
};
#define FLIGHT_BLAMES 2

struct flights_counters {
	uint64_t store_hits, store_misses, store_deadlines;
	uint64_t legacy_requests, legacy_elements; /* served from a legacy object of a whole body */
	uint64_t joined;
	uint64_t fetches, fetches_lost; /* calls to owners */
	uint64_t purchases, inputs_bought, tokens_bought, elections;
	uint64_t purchase_failures[FLIGHT_BLAMES]; /* at most so many as purchases */
};

struct flights_events {
	/* Exactly one of these for each ticket, unless its buyer left; never from inside
	 * flights_enter_*(). object is borrowed. */
	void (*on_object)(
		struct ticket *ticket, enum flight_source source, struct cache_object *object);
	/* The request has failed: called once a buyer, after which it has left and none of its
	 * tickets is resolved. */
	void (*on_failure)(struct buyer *buyer, const struct flight_failure *failure);
	/* A purchase was answered with 200: for the tokens' counters. May be NULL. */
	void (*on_bought)(struct span model, uint64_t tokens, size_t inputs, void *arg);
	/* A call to another instance has ended: done, refused or lost. May be NULL. */
	void (*on_fetched)(const char *outcome, uint64_t duration_us, void *arg);
	void *arg;
};

struct peers;

/* store, peers and workers may be NULL (without workers there are no legacy look-ups). All are
 * borrowed. */
struct flights *flights_new(struct loop *loop, struct cache *cache, struct store *store,
	struct workers *workers, struct provider *provider, struct peers *peers,
	const struct flights_options *options, const struct flights_events *events);
/*
 * Want these, of different keys: a buyer begins, enters tickets one behind the other in an array
 * that is its own, and ends, maybe some turns of the loop later. Meanwhile its tickets are looked
 * up and may be resolved, but nothing is bought for it. Between a look into memory for a key and
 * _one() there is no turn of the loop, or it may be bought twice.
 *
 * _one: 0; -1 when too many are under way, or without memory: the buyer has left. _end: at least
 * one was entered.
 */
void flights_enter_begin(struct flights *flights, struct buyer *buyer, struct ticket *tickets);
int flights_enter_one(struct flights *flights, struct buyer *buyer);
void flights_enter_end(struct flights *flights, struct buyer *buyer);
/*
 * Wait for nothing any more: no callback comes for this buyer and its tickets. Needed when the
 * request ends before all its tickets are resolved; harmless otherwise.
 */
void flights_leave(struct flights *flights, struct buyer *buyer);
size_t flights_under_way(const struct flights *flights);
const struct flights_counters *flights_counters(const struct flights *flights);
/* Call when nothing is under way any more, once (at once if so already): for the drain. */
void flights_on_idle(struct flights *flights, void (*on_idle)(void *arg), void *arg);
/* Purchases and look-ups under way are given up without callbacks. */
void flights_free(struct flights **flights);

#endif
