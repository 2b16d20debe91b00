#include "hashd/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "common/body.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "common/rpc.h"
#include "common/trace_span.h"
#include "hashd/backend.h"
#include "hashd/conf.h"
#include "hashd/observe.h"
#include "hashd/window.h"

#define REQUEST_MAGIC 0x48725173u
#define MAX_ATTEMPTS  2
#define SPARE_COUNT   256

enum request_state {
	REQUEST_WAITING,   /* in waiting; no instance is up */
	REQUEST_ASKED,     /* sent, nothing came back */
	REQUEST_ANSWERING, /* chunks are coming */
	REQUEST_ANSWERED,  /* the asker has it all; the call is about to end */
	REQUEST_OVER,      /* in spare */
};

struct request {
	uint32_t magic;
	enum request_state state;
	struct requests *owner;
	TAILQ_ENTRY(request) entry;      /* in live, or in spare */
	TAILQ_ENTRY(request) wait_entry; /* in waiting, if WAITING */
	const struct request_events *events;
	void *arg;
	struct digest key;
	struct body *body;
	const char *body_hash;
	size_t body_sent;
	struct backend *backend;
	struct rpc_call *call;
	unsigned attempts;
	const struct trace *trace;
	struct trace_span *span; /* of the attempt under way */
	bool idempotent;
	uint64_t owed_credit; /* not given back, because the asker takes no more */
	bool holding;
	uint64_t asked_us; /* the attempt under way */
	uint64_t deadline_us, wait_until_us;
};
TAILQ_HEAD(request_list, request);

struct requests {
	struct loop *loop;
	const struct hashd_conf *conf;
	struct backends *backends;
	/* Each request lives, and waits, for the same time: both lists are in order of their ends,
	 * and one timer for the first of each is enough. */
	struct request_list live, waiting, spare;
	size_t n_live, n_waiting, n_spare;
	struct timer *deadline_timer, *wait_timer;
	struct metrics *metrics;
	struct metric *failures[REQUEST_FAILURES];
	struct msg_request_params params; /* scratch: 4 KiB that nobody needs to keep */
	struct msg_request_result answer;
};

static const char *const failure_names[REQUEST_FAILURES] = {
	"nobody_up", "lost", "busy", "timeout", "refused", "no_memory"};

static void ask(struct request *request);

/* ---- Life ---- */

static void measure(const struct request *request, bool ok)
{
	backend_answered(
		request->backend, ok, loop_now_us(request->owner->loop) - request->asked_us);
}

static void set_state(struct request *request, enum request_state state)
{
	struct requests *owner = request->owner;

	if (request->state == state)
		return;
	if (request->state == REQUEST_WAITING) {
		TAILQ_REMOVE(&owner->waiting, request, wait_entry);
		owner->n_waiting--;
	}
	if (state == REQUEST_WAITING) {
		TAILQ_INSERT_TAIL(&owner->waiting, request, wait_entry);
		owner->n_waiting++;
	}
	request->state = state;
	if (state == REQUEST_ANSWERED)
		measure(request, true);
}

/* The one teardown, from every state. */
static void finish(struct request *request)
{
	struct requests *owner = request->owner;

	BUG_ON(request->magic != REQUEST_MAGIC || request->state == REQUEST_OVER);
	set_state(request, REQUEST_OVER);
	rpc_call_cancel(&request->call);
	trace_span_end(&request->span);
	body_unref(&request->body);
	TAILQ_REMOVE(&owner->live, request, entry);
	owner->n_live--;
	if (owner->n_spare < SPARE_COUNT) {
		TAILQ_INSERT_HEAD(&owner->spare, request, entry);
		owner->n_spare++;
	} else {
		request->magic = 0;
		free(request);
	}
}

static void fail(struct request *request, enum request_failure why, const char *detail)
{
	const struct request_events *events = request->events;
	void *arg = request->arg;

	const char *backend = request_backend(request);

	metric_add(request->owner->failures[why], 1);
	if (request->state == REQUEST_ASKED || request->state == REQUEST_ANSWERING)
		measure(request, false);
	trace_span_fail(request->span, failure_names[why], detail);
	finish(request);
	events->on_failed(why, detail, backend, arg);
}

/* ---- Asking ---- */

static void ask_again(struct request *request, const char *detail)
{
	struct requests *owner = request->owner;

	if (!request->idempotent || request->attempts >= MAX_ATTEMPTS) {
		fail(request, REQUEST_LOST, detail);
		return;
	}
	measure(request, false);
	metric_add(metric(owner->metrics, observe_family(OBSERVE_FAILOVERS),
			   backend_name(request->backend)),
		1);
	trace_span_fail(request->span, "lost", detail);
	trace_span_end(&request->span);
	ask(request);
}

static void log_bad_answer(const struct request *request, const char *reason)
{
	log_fields(LOG_LEVEL_ERROR, TRACE_TEXT(request->trace),
		"gatewayd cannot be understood, or failed", LOG_STR("reason", reason),
		LOG_STR("backend", backend_name(request->backend)));
}

/* false: the answer cannot be used. */
static bool look_at(
	const struct request *request, const struct msg_request_result *answer, struct slice *lent)
{
	struct window *window = backend_window(request->backend);

	if (answer->lease && (!window || !window_lend(window, answer->lease, answer->offset,
						 answer->length, lent))) {
		log_bad_answer(request, "an answer is not within its arena");
		return false;
	}
	if (answer->status < 200 || answer->status > 599 || (answer->lease && answer->chunked)) {
		log_bad_answer(request, "bad status");
		slice_release(lent);
		return false;
	}
	return true;
}

static void on_result(struct span result, void *arg)
{
	struct request *request = arg;
	struct msg_request_result *answer = &request->owner->answer;
	const struct request_events *events = request->events;
	struct msg_error error;

	BUG_ON(request->magic != REQUEST_MAGIC || request->state != REQUEST_ASKED);
	backend_heard(request->backend);
	if (msg_request_result_unpack(result, answer, &error) < 0) {
		log_bad_answer(request, error.text);
		fail(request, REQUEST_REFUSED, "gatewayd's answer is not valid");
		return;
	}
	struct slice lent = {0};

	if (!look_at(request, answer, &lent)) {
		fail(request, REQUEST_REFUSED, "gatewayd's answer is not valid");
		return;
	}
	body_unref(&request->body);
	if (answer->chunked) {
		rpc_call_expect_chunks(request->call);
		set_state(request, REQUEST_ANSWERING);
	} else {
		set_state(request, REQUEST_ANSWERED);
	}
	events->on_answer(answer, result, lent, request->arg);
}

static void on_chunk(struct span data, bool end, void *arg)
{
	struct request *request = arg;

	BUG_ON(request->magic != REQUEST_MAGIC || request->state != REQUEST_ANSWERING);
	backend_heard(request->backend);
	if (end)
		set_state(request, REQUEST_ANSWERED);
	bool more = request->events->on_data(data, end, request->arg);

	/* The asker may have cancelled in there. */
	if (end || request->state != REQUEST_ANSWERING)
		return;
	if (!more)
		request->holding = true;
	request->owed_credit += data.len;
	if (!request->holding) {
		rpc_call_give_credit(request->call, request->owed_credit);
		request->owed_credit = 0;
	}
}

static void on_credit(uint64_t credit, void *arg)
{
	struct request *request = arg;

	if (!request->body)
		return;
	size_t left = body_bytes(request->body).len - request->body_sent;

	backend_heard(request->backend);
	while (left && credit) {
		size_t n = left < RPC_CHUNK_BYTES ? left : RPC_CHUNK_BYTES;

		if (n > credit)
			n = (size_t)credit;
		struct slice slice = body_slice(request->body, request->body_sent, n);

		request->body_sent += n;
		left -= n;
		credit -= n;
		rpc_call_send_chunk(request->call, slice, left == 0);
	}
}

static void on_done(const struct rpc_error *error, void *arg)
{
	struct request *request = arg;
	char detail[160];

	BUG_ON(request->magic != REQUEST_MAGIC);
	request->call = NULL;
	if (request->state == REQUEST_ANSWERED) {
		finish(request);
		return;
	}
	BUG_ON(!error);
	snprintf(detail, sizeof(detail), "%.*s", SPAN_ARG(error->message));
	if (request->state == REQUEST_ANSWERING) {
		fail(request, REQUEST_LOST, detail);
	} else if (error->code == RPC_LOST || error->code == RPC_PROTOCOL) {
		ask_again(request, detail);
	} else {
		log_bad_answer(request, detail);
		fail(request, error->code == RPC_BUSY ? REQUEST_BUSY : REQUEST_REFUSED, detail);
	}
}

static const struct rpc_call_events call_events = {
	.on_result = on_result, .on_chunk = on_chunk, .on_credit = on_credit, .on_done = on_done};

static void wait(struct request *request)
{
	struct requests *owner = request->owner;
	uint64_t wait_ms = (uint64_t)owner->conf->backend_wait_ms;

	if (request->state == REQUEST_WAITING)
		return;
	request->wait_until_us = loop_now_us(owner->loop) + wait_ms * 1000;
	set_state(request, REQUEST_WAITING);
	if (!timer_armed(owner->wait_timer))
		timer_arm(owner->wait_timer, wait_ms);
}

/* The attempt has a span of its own: then gatewayd's is below that one. */
static void begin_span(
	struct request *request, struct msg_request_params *params, char text[TRACE_PARENT_LEN + 1])
{
	struct trace ours;

	request->span = trace_span_begin(
		request->trace, &ours, TRACE_SPAN_CLIENT, SPAN_LITERAL("request"));
	if (!request->span)
		return;
	trace_span_text(request->span, "rpc.method", "request");
	trace_span_text(request->span, "network.transport", "unix");
	trace_span_text(request->span, "server.address", backend_name(request->backend));
	trace_span_int(request->span, "gateway.attempt", request->attempts);
	params->trace = span_of(trace_format_text(&ours, text));
}

/* To the best instance that is up; waits when none is. */
static void ask(struct request *request)
{
	struct requests *owner = request->owner;
	struct msg_request_params *params = &owner->params;
	struct backend *backend = backends_choose(owner->backends, &request->key, request->backend);

	if (!backend) {
		wait(request);
		return;
	}
	request->backend = backend;
	request->attempts++;
	request->asked_us = loop_now_us(owner->loop);
	request->body_sent = 0;
	params->headers.count = 0;
	request->events->describe(params, request->arg);
	params->body = request->body ? body_bytes(request->body) : (struct span){0};
	params->body_hash = span_of(request->body_hash);
	params->chunked = params->body.len > RPC_INLINE_BODY_BYTES;
	params->body_bytes = params->body.len;
	if (params->chunked)
		params->body.len = 0;
	char trace[TRACE_PARENT_LEN + 1];

	begin_span(request, params, trace);
	set_state(request, REQUEST_ASKED);
	request->call = msg_request_call(backend_client(backend), params, 0, &call_events, request);
	if (!request->call) {
		/* Told from the timer, never from inside request_start(). */
		request->attempts = MAX_ATTEMPTS;
		request->deadline_us = 0;
		TAILQ_REMOVE(&owner->live, request, entry);
		TAILQ_INSERT_HEAD(&owner->live, request, entry);
		timer_arm(owner->deadline_timer, 0);
	}
}

bool request_is_idempotent(struct span method, struct span path)
{
	if (span_equal_str(method, "GET") || span_equal_str(method, "HEAD"))
		return true;
	return span_equal_str(method, "POST") &&
	       (span_equal_str(path, "/v1/embeddings") ||
		       span_equal_str(path, "/openai/v1/embeddings"));
}

struct request *request_start(struct requests *requests, const struct request_options *options)
{
	struct request *request = TAILQ_FIRST(&requests->spare);
	uint64_t timeout_ms = (uint64_t)requests->conf->request_timeout_ms;

	if (request) {
		TAILQ_REMOVE(&requests->spare, request, entry);
		requests->n_spare--;
	} else if (!(request = malloc(sizeof(*request)))) {
		return NULL;
	}
	*request = (struct request){
		.magic = REQUEST_MAGIC,
		.state = REQUEST_OVER,
		.owner = requests,
		.events = options->events,
		.arg = options->arg,
		.key = *options->key,
		.body = options->body,
		.body_hash = options->body_hash,
		.trace = options->trace,
		.idempotent = options->idempotent,
		.deadline_us = loop_now_us(requests->loop) + timeout_ms * 1000,
	};
	if (request->body)
		body_ref(request->body);
	TAILQ_INSERT_TAIL(&requests->live, request, entry);
	requests->n_live++;
	if (!timer_armed(requests->deadline_timer))
		timer_arm(requests->deadline_timer, timeout_ms);
	ask(request);
	return request;
}

void request_read_on(struct request *request)
{
	BUG_ON(request->magic != REQUEST_MAGIC);
	request->holding = false;
	if (request->state != REQUEST_ANSWERING || !request->owed_credit)
		return;
	rpc_call_give_credit(request->call, request->owed_credit);
	request->owed_credit = 0;
}

void request_cancel(struct request **request)
{
	if (*request)
		finish(*request);
	*request = NULL;
}

const char *request_backend(const struct request *request)
{
	return request->backend ? backend_name(request->backend) : "";
}

/* ---- All of them ---- */

void requests_backend_up(struct requests *requests)
{
	struct request *request;

	while ((request = TAILQ_FIRST(&requests->waiting))) {
		ask(request);
		if (request->state == REQUEST_WAITING)
			return; /* down again */
	}
}

void requests_backend_dead(struct requests *requests, struct backend *backend)
{
	struct request *request, *next;

	for (request = TAILQ_FIRST(&requests->live); request; request = next) {
		next = TAILQ_NEXT(request, entry);
		if (request->state != REQUEST_ASKED || request->backend != backend)
			continue;
		rpc_call_cancel(&request->call);
		ask_again(request, "gatewayd does not answer");
	}
}

static void arm(struct requests *requests, struct timer *timer, uint64_t due_us)
{
	uint64_t now = loop_now_us(requests->loop);

	timer_arm(timer, due_us > now ? (due_us - now + 999) / 1000 : 0);
}

static void on_deadline(void *arg)
{
	struct requests *requests = arg;
	uint64_t now = loop_now_us(requests->loop);
	struct request *request;

	while ((request = TAILQ_FIRST(&requests->live)) && request->deadline_us <= now) {
		if (request->deadline_us)
			fail(request, REQUEST_TIMED_OUT, "the request took too long");
		else
			fail(request, REQUEST_NO_MEMORY, "out of memory");
	}
	if (request)
		arm(requests, requests->deadline_timer, request->deadline_us);
}

static void on_waited(void *arg)
{
	struct requests *requests = arg;
	uint64_t now = loop_now_us(requests->loop);
	struct request *request;

	while ((request = TAILQ_FIRST(&requests->waiting)) && request->wait_until_us <= now)
		fail(request, REQUEST_NOBODY_UP, "no gatewayd is up");
	if (request)
		arm(requests, requests->wait_timer, request->wait_until_us);
}

static void collect(void *arg)
{
	struct requests *requests = arg;

	metric_set(metric(requests->metrics, observe_family(OBSERVE_IN_FLIGHT)),
		(double)requests->n_live);
	metric_set(metric(requests->metrics, observe_family(OBSERVE_WAITING)),
		(double)requests->n_waiting);
	metric_set(metric(requests->metrics, observe_family(OBSERVE_MAPPED)),
		(double)window_counters.mapped_bytes);
	metric_set(metric(requests->metrics, observe_family(OBSERVE_LEASES)),
		(double)window_counters.lent);
	metric_set(metric(requests->metrics, observe_family(OBSERVE_LENT_BYTES)),
		(double)window_counters.lent_bytes);
	metric_set(metric(requests->metrics, observe_family(OBSERVE_LEASE_REFUSED)),
		(double)window_counters.refused);
}

struct requests *requests_new(struct loop *loop, const struct hashd_conf *conf,
	struct metrics *metrics, struct backends *backends)
{
	struct requests *requests = calloc(1, sizeof(*requests));

	if (!requests)
		return NULL;
	requests->loop = loop;
	requests->conf = conf;
	requests->metrics = metrics;
	requests->backends = backends;
	TAILQ_INIT(&requests->live);
	TAILQ_INIT(&requests->waiting);
	TAILQ_INIT(&requests->spare);
	for (int i = 0; i < REQUEST_FAILURES; i++)
		requests->failures[i] = metric(
			metrics, observe_family(OBSERVE_FAILURES), failure_names[i]);
	requests->deadline_timer = timer_new(loop, on_deadline, requests);
	requests->wait_timer = timer_new(loop, on_waited, requests);
	if (!requests->deadline_timer || !requests->wait_timer)
		requests_free(&requests);
	else
		metrics_on_collect(metrics, collect, requests);
	return requests;
}

void requests_free(struct requests **requests_)
{
	struct requests *requests = *requests_;
	struct request *request;

	if (!requests)
		return;
	BUG_ON(requests->n_live);
	while ((request = TAILQ_FIRST(&requests->spare))) {
		TAILQ_REMOVE(&requests->spare, request, entry);
		free(request);
	}
	timer_free(&requests->deadline_timer);
	timer_free(&requests->wait_timer);
	free(requests);
	*requests_ = NULL;
}

size_t requests_count(const struct requests *requests)
{
	return requests->n_live;
}
