#ifndef GATEWAYD_STORE_BACKEND_H
#define GATEWAYD_STORE_BACKEND_H

/*
 * How a kind of store plugs into store.c, which does what all kinds share: queue and retries of
 * puts, cancelling, draining, counting, logging. A backend embeds struct store, store_get and
 * store_put as the first member of its own and moves bytes.
 */
#include <sys/queue.h>

#include "common/loop.h"
#include "common/retry.h"
#include "common/trace_span.h"
#include "gatewayd/store.h"

struct store_get {
	struct store *store;
	struct digest key;
	void (*done)(enum store_result result, struct stored_object *object, void *arg);
	void *arg;
	bool cancelled;
	bool parked; /* until the epochs are known */
	struct deferred parked_end;
	bool legacy;     /* by the hash of a whole body */
	bool asks_about; /* a legacy object by that hash, if the element is missing */
	struct digest legacy_key;
	enum store_layout layout;
	uint64_t began_us;
	bool has_trace;
	struct trace trace; /* of the look-up, or of what asked for it */
	struct trace_span *span;
	TAILQ_ENTRY(store_get) place;

	/* What the backend found, set before store_get_end(): */
	enum store_result result;
	bool purged;        /* set by store_get_end() */
	bool corrupt;       /* the result is STORE_MISS for that; object.reason says why */
	int error;          /* errno of STORE_ERROR */
	const char *reason; /* says more than error does; lent for store_get_end(), may be NULL */
	bool denied;
	bool abandoned; /* ended early, since it was cancelled: says nothing about the store */
	uint64_t read_bytes;
	struct stored_object object;
};

struct store_put {
	struct store *store;
	struct stored_fields fields; /* its spans point behind the backend's struct */
	uint64_t queued_bytes;
	unsigned attempts;
	uint64_t due_us; /* waiting for a retry */
	uint64_t began_us;
	TAILQ_ENTRY(store_put) place;
	bool has_trace;
	struct trace trace; /* of what brought it; its own once it has begun */
	struct trace_span *span;

	/* What the backend did, set before store_put_end(): */
	int error;          /* errno, 0: stored */
	const char *reason; /* as of a get */
	bool denied;
	bool away; /* nothing answered: the put waits until the server is back */
	uint64_t written_bytes;
};

/* For the log, and for what follows from it; or NULL. */
static inline const struct trace *store_get_trace(const struct store_get *get)
{
	return get->has_trace ? &get->trace : NULL;
}

TAILQ_HEAD(store_get_list, store_get);
TAILQ_HEAD(store_put_list, store_put);

struct store_backend {
	const char *kind;
	size_t get_bytes, put_bytes; /* sizes of the backend's structs */
	/* Begin; store_get_end() later, never from inside. -1: too busy, and nothing was begun. */
	int (*get)(struct store_get *get);
	/* Same, with store_put_end(). */
	int (*put)(struct store_put *put);
	/* The get is cancelled: it may end sooner. May be NULL. */
	void (*cancel)(struct store_get *get);
	/* In place of the queue, for a store made of others; all four or none. */
	bool (*accept)(
		struct store *store, const struct stored_fields *fields, const struct trace *trace);
	void (*keep_near)(
		struct store *store, const struct stored_fields *fields, const struct trace *trace);
	void (*drain)(struct store *store); /* then store_drained() */
	const struct store *(*tier)(const struct store *store, unsigned i);
	/* It was stored: put->written_bytes are new. May be NULL. */
	void (*stored)(struct store *store, const struct store_put *put);
	/* As store_usage(). May be NULL. */
	void (*usage)(const struct store *store, struct store_usage *usage);
	/* What this get found is purged: delete it, if it is still there. May be NULL. */
	void (*remove)(const struct store_get *get);
	/* store_free() was called: stop what runs by itself. Gets and puts under way still end. */
	void (*close)(struct store *store);
	/* The last of them has ended: free the store's memory. */
	void (*free)(struct store *store);
};

struct store_limits {
	size_t max_queued_puts;
	uint64_t max_queued_bytes;
	unsigned parallel_puts;
};

/* Log once a minute, and how often it happened since. */
struct store_log_limit {
	uint64_t next_us;
	uint64_t held_back;
};

struct store {
	const struct store_backend *backend;
	struct loop *loop;
	struct store_limits limits;
	const struct purge_epochs *epochs; /* NULL: none */
	struct store_stats stats;
	struct store_get_list gets;
	size_t n_gets;
	struct store_put_list queued, waiting; /* for a slot; for a retry */
	size_t n_puts;                         /* queued, waiting and running */
	size_t running_puts;
	uint64_t put_bytes;
	size_t running; /* gets and puts that the backend still has to end */
	struct timer *retry_timer;
	/* The server is away: one put at a time tries whether it is back. */
	bool away, probe_due;
	struct backoff away_backoff;
	struct timer *probe_timer;
	struct deferred drained;
	void (*on_drained)(void *arg);
	void *on_drained_arg;
	bool draining, closed;
	store_on_ended *on_ended; /* NULL: nobody watches */
	void *on_ended_arg;
	struct store_log_limit get_log, put_log, corrupt_log;
};

/* 0, or -1 without memory. */
int store_init(struct store *store, struct loop *loop, const struct store_backend *backend,
	const struct store_limits *limits);
/* Undo store_init() when the backend could not be made. */
void store_uninit(struct store *store);
/* Where the get's object lies, below the store's root. */
void store_get_name(const struct store_get *get, const char *prefix, char name[STORE_NAME_BYTES]);
/* In store_watch.c, for store.c: a look-up begins; what was begun has ended. */
void store_get_began(struct store_get *get);
void store_get_seen(struct store_get *get);
void store_put_began(struct store_put *put); /* an attempt */
void store_put_seen(const struct store_put *put);
void store_put_over(struct store_put *put); /* stored or given up */
void store_get_end(struct store_get *get);

/* In store_epochs.c: */

/* The epochs are not known yet: a get waits. */
bool store_must_park(const struct store *store);
/* It waits and is not wanted any more: it ends soon. */
void store_end_parked(struct store_get *get);
/* What was found and is purged becomes a miss. */
void store_check_epochs(struct store_get *get);

void store_put_end(struct store_put *put);
void store_drained(struct store *store);

#endif
