#ifndef SUPERVISOR_CTL_POD_NUMBERS_H
#define SUPERVISOR_CTL_POD_NUMBERS_H

/*
 * What the daemons of a pod say of themselves (RPC `metrics`, on their sockets beside the
 * supervisor's), reduced to what people look at. Daemons come and go: each is asked for itself, all
 * at once, and whoever does not answer in time is left out. A counter below the last one is a new
 * start of its daemon, so what a daemon had counted before it died is not lost.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/messages.h"

struct loop;
struct pod_numbers;

enum pod_number {
	POD_REQUESTS,
	POD_FAILED, /* with a 5xx */
	POD_FROM_MEMORY,
	POD_FROM_STORE,
	POD_JOINED, /* bought at that moment for another request */
	POD_BOUGHT,
	POD_TOKENS, /* of all answers */
	POD_SAVED_TOKENS,
	POD_SAVED_DOLLARS,
	POD_PROVIDER_CALLS,
	POD_PURCHASE_FAILURES, /* by the provider's fault */
	POD_PURGES,            /* total only: as people ask for them */
	POD_BROADCASTS,
	POD_REDIS_COMMANDS,
	POD_NUMBERS,
};
enum pod_time { POD_REQUEST_TIME, POD_REDIS_TIME, POD_TIMES };

#define POD_MAX_BUCKETS  64
#define POD_MAX_SERVICES 16
#define POD_NAME_BYTES   64

struct pod_histogram {
	size_t n; /* buckets, +Inf last */
	double bounds[POD_MAX_BUCKETS];
	double counts[POD_MAX_BUCKETS]; /* cumulative */
};
struct pod_service {
	char name[POD_NAME_BYTES];
	int breaker; /* the worst of all instances: 0 closed, 2 half-open, 1 open */
};
struct pod_look {
	size_t n_daemons, n_answered;
	char silent[POD_NAME_BYTES]; /* one that runs and did not answer; "": all did */
	size_t n_idle;               /* do not run, so they are not asked */
	char idle[POD_NAME_BYTES], idle_state[16]; /* the first of them */
	double total[POD_NUMBERS];                 /* as the metrics say */
	double recent[POD_NUMBERS]; /* since the last look; at the first: since the start */
	double seconds;             /* which is so long; 0: nobody answered yet */
	struct pod_histogram times[POD_TIMES]; /* recent */
	struct pod_service services[POD_MAX_SERVICES];
	size_t n_services;
};

/* run_dir is copied. NULL when out of memory. */
struct pod_numbers *pod_numbers_new(struct loop *loop, const char *run_dir);
/* Ask the daemons among these programs, for at most timeout_ms; runs the loop meanwhile. */
void pod_numbers_look(struct pod_numbers *numbers, const struct msg_program_list *programs,
	uint64_t timeout_ms, struct pod_look *look);
void pod_numbers_free(struct pod_numbers **numbers);

/* Linear within a bucket, as Prometheus; NaN without a count. */
double pod_histogram_quantile(const struct pod_histogram *histogram, double q);

#endif
