#ifndef GATEWAYD_FLIGHT_PRIVATE_H
#define GATEWAYD_FLIGHT_PRIVATE_H

/* What the files of flight.h share: flight.c (entering, leaving), flight_table.c,
 * flight_look.c, flight_legacy.c, flight_buy.c. */
#include "common/loop.h"
#include "gatewayd/flight.h"
#include "gatewayd/peers.h"
#include "gatewayd/purchase.h"

enum flight_state {
	FLIGHT_QUEUED,  /* waits for its turn to be looked up */
	FLIGHT_LOOKING, /* in the store */
	FLIGHT_WANTED,  /* on its payer's list of those to buy */
	FLIGHT_ROUTED,  /* on its payer's list of those to ask of their owners */
	FLIGHT_BUYING,  /* bought, or asked of its owner */
	FLIGHT_ORPHAN,  /* its purchase failed: between two payers, inside purchase_ended() only */
};

TAILQ_HEAD(ticket_list, ticket);
TAILQ_HEAD(buyer_list, buyer);

struct flight {
	struct flights *flights;
	struct digest key;
	enum flight_state state;
	struct ticket_list tickets;
	struct buyer *payer; /* NULL: left, its purchase goes on */
	struct store_get *get;
	bool asks_about_legacy; /* get does, for the payer's body */
	uint64_t since;         /* the purge clock when this was asked for */
	uint64_t give_up_us;
	struct purchase *purchase;
	int owner;                /* PEERS_SELF, or the instance to ask */
	TAILQ_ENTRY(flight) link; /* of the list that its state says */
	struct flight *chain;
	bool detached; /* purged since it was asked for: nobody new joins */
};

struct flights {
	struct loop *loop;
	struct purchase_parts parts;
	struct flights_options options;
	struct flights_events events;
	struct flights_counters counters;

	struct flight **table; /* by key; its size is a power of two */
	size_t table_size, n;
	struct flight *detached;    /* those that are not in the table any more, by chain */
	struct flight_list looking; /* the first was started first */
	size_t n_looking;
	struct buyer_list
		turns; /* those with flights to look up and room for one more, round robin */
	struct buyer_list deadlines; /* those who wait, by when they give up on the store */
	uint64_t heard_us;           /* when the store answered last, or was idle */
	struct timer *deadline;
	uint64_t deadline_us; /* what the timer is set to; 0: not set */
	struct workers *workers;

	struct buyer_list ready; /* those who know all that they miss */
	struct deferred buy_later;
	struct purchase_item *buying; /* PROVIDER_MAX_INPUTS, of flight_buy(): kept, not cleared */
	struct purchase_events purchase_events;
	struct purchase *purchases; /* under way */

	void (*on_idle)(void *arg);
	void *on_idle_arg;
	struct deferred idle_later;
};

/* ---- flight_table.c ---- */

int flight_table_init(struct flights *flights);
/* NULL when there is none. */
struct flight *flight_find(const struct flights *flights, const struct digest *key);
/* Under a key that is not there. NULL when out of memory. */
struct flight *flight_new(struct flights *flights, const struct digest *key);
/* Not found any more; those who wait for it go on waiting. */
void flight_detach(struct flight *flight);
/* The flight is on no list any more and has no tickets. */
void flight_free(struct flight *flight);

/* ---- flight.c ---- */

/*
 * Give the object to everybody who waits for it, and end the flight. finder: whose purchase it was;
 * NULL for a look-up.
 */
void flight_resolve(struct flight *flight, struct cache_object *object, const struct buyer *finder,
	enum flight_source source);

/* Look it up and buy it, or ask its owner, for this payer. */
void flight_begin(struct flight *flight, struct buyer *payer);
/* The buyer waits for one ticket less. */
void flight_ticket_done(struct flights *flights, struct buyer *buyer);

/* ---- flight_look.c ---- */

int flight_look_init(struct flights *flights);
void flight_look_uninit(struct flights *flights);
/* Look the flight up when it is its payer's turn. */
void flight_look_queue(struct flight *flight, struct buyer *payer);
/* Begin what may begin. */
void flight_look_start(struct flights *flights);
/* The buyer has entered: it gives up on the store in a while. */
void flight_look_enter(struct flights *flights, struct buyer *buyer);
/* It waits for nothing any more. */
void flight_look_leave(struct flights *flights, struct buyer *buyer);
/* A flight that is queued or looked up gets another payer; NULL: it ends. */
void flight_look_hand_over(struct flight *flight, struct buyer *next);
/* What the store had becomes an object in memory, tagged as the buyer says. NULL when out of
 * memory.
 */
struct cache_object *flight_keep_found(
	const struct flight *flight, const struct buyer *buyer, const struct stored_fields *fields);

/* ---- flight_legacy.c ---- */

/* May flight_legacy_start() say true for this buyer? */
bool flight_legacy_possible(const struct flights *flights, const struct buyer *buyer);
/* The buyer misses what it wants: true when the answer to its whole body is looked for first;
 * flight_buyer_ready() follows. */
bool flight_legacy_start(struct flights *flights, struct buyer *buyer);
/* Enough of that. */
void flight_legacy_cancel(struct buyer *buyer);
/* One element that a Python gateway kept under the element's own key. NULL: it is no use. */
struct cache_object *flight_legacy_single(
	struct flights *flights, const struct flight *flight, const struct stored_object *stored);

/* ---- flight_buy.c ---- */

/* The payer knows that this one is missing. */
void flight_want(struct flight *flight, struct buyer *payer);
/* Buy soon if nothing of this buyer is being looked up any more. */
void flight_buyer_ready(struct flights *flights, struct buyer *buyer);
/* Another ticket's buyer pays from now on, or nobody wants the flight and it ends. */
void flight_elect(struct flight *flight);
/* Nobody waits for anything of it, and it costs nothing yet: cancel it. */
void flight_cancel_if_unwanted(struct purchase *purchase);
/* The deferred callback and the events of purchases. */
void flight_buy(void *flights);
extern const struct purchase_events flight_purchase_events; /* without its arg */

#endif
