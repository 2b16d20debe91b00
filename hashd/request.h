#ifndef HASHD_REQUEST_H
#define HASHD_REQUEST_H

/*
 * One request on its way to gatewayd and back, whoever asked it: the HTTP front door (front.c) or a
 * process of this pod (local.c). It picks the instance by the key, sends the body when gatewayd
 * wants it, hands the answer over as it comes, and asks once more elsewhere when the instance is
 * lost before it answered.
 *
 *              one is up                    result, inline
 *   WAITING ---------------> ASKED ----------------------------> ANSWERED ---done---> over
 *      | ^                     | `--result, chunks--> ANSWERING ----^  end
 *      | `---- instance lost, to be asked again once
 *      `------ waited too long, deadline, lost again, refused, cancelled: from every state --->
 * over
 *
 * Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/messages.h"
#include "common/slice.h"
#include "common/span.h"
#include "common/trace.h"

struct backends;
struct body;
struct hashd_conf;
struct loop;
struct metrics;
struct request;
struct requests;

enum request_failure {
	REQUEST_NOBODY_UP, /* no gatewayd came up in time */
	REQUEST_LOST,      /* the gatewayd asked was lost, and it cannot be asked again */
	REQUEST_BUSY,      /* gatewayd has too much to do */
	REQUEST_TIMED_OUT,
	REQUEST_REFUSED, /* gatewayd could not answer, or not so that we understand it */
	REQUEST_NO_MEMORY,
	REQUEST_FAILURES
};

/*
 * The asker's side. on_answer comes at most once; it is the end unless answer->chunked. on_data
 * follows then, until end. on_failed is the end at any time. None of them is called from inside a
 * call into this module; after the end, and after request_cancel(), the request is dead.
 */
struct request_events {
	/* Say what is asked: method, target, headers, client, trace. The spans stay valid while the
	 * request lives. Called again when it is asked again. */
	void (*describe)(struct msg_request_params *params, void *arg);
	/* packed is the same answer as it came; both borrowed. lent: the body, when it lies in
	 * gatewayd's memory; taken over. Else data is NULL and the body is in the answer. */
	void (*on_answer)(const struct msg_request_result *answer, struct span packed,
		struct slice lent, void *arg);
	/* Borrowed. false: enough, until request_read_on(). */
	bool (*on_data)(struct span data, bool end, void *arg);
	/* detail is for the log; backend, the instance asked last, is "" if there was none. */
	void (*on_failed)(
		enum request_failure why, const char *detail, const char *backend, void *arg);
};

struct request_options {
	const struct request_events *events; /* outlive the request */
	void *arg;
	const struct digest *key; /* which instance; copied */
	struct body *body;        /* complete, a reference is taken; NULL: none */
	const char *body_hash;    /* hex, outlives the request; "" without a body */
	const struct trace
		*trace;  /* whose steps these are, as in describe(); outlives the request */
	bool idempotent; /* may be asked twice */
};

/* NULL when out of memory. */
struct requests *requests_new(struct loop *loop, const struct hashd_conf *conf,
	struct metrics *metrics, struct backends *backends);
/* After all askers are gone. */
void requests_free(struct requests **requests);
size_t requests_count(const struct requests *requests);
/* For the events of the backends. */
struct backend;
void requests_backend_up(struct requests *requests);
void requests_backend_dead(struct requests *requests, struct backend *backend);

/* May this be asked twice? GET and HEAD by definition; embeddings because the same text has the
 * same vector. */
bool request_is_idempotent(struct span method, struct span path);

/* NULL when out of memory. */
struct request *request_start(struct requests *requests, const struct request_options *options);
/* After on_data said "enough". */
void request_read_on(struct request *request);
/* The asker is gone. Clears the pointer; NULL is fine. */
void request_cancel(struct request **request);
/* The instance that was asked last, "" before. */
const char *request_backend(const struct request *request);

#endif
