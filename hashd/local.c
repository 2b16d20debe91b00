#include "hashd/local.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/body.h"
#include "common/buf.h"
#include "common/log.h"
#include "common/messages.h"
#include "common/trace_span.h"
#include "hashd/conf.h"
#include "hashd/headers.h"
#include "hashd/request.h"

struct errand;
TAILQ_HEAD(errand_list, errand);

struct local {
	const struct hashd_conf *conf;
	struct bodies *bodies;
	struct requests *requests;
	struct rpc_method methods[3];
	struct errand_list errands; /* under way */
	bool stopped;
	void (*on_drained)(void *arg);
	void *drained_arg;
};

/*
 * One call: its body comes in (RECEIVING), then it is hashed and done, or asked of gatewayd
 * (ASKING) and the answer sent back. What the asker has no credit for waits in pending, which is
 * bounded by the credit that gatewayd had.
 */
struct errand {
	struct local *local;
	TAILQ_ENTRY(errand) entry;
	struct rpc_request *call; /* NULL once answered or cancelled */
	bool only_hash;
	struct body *body;
	struct request *request;
	uint64_t owed_credit; /* for the body, while over budget */
	bool answering;       /* the answer has begun */
	bool ended;           /* gatewayd's last chunk is in pending */
	struct buf pending;
	struct slice lent; /* the answer's body, in gatewayd's memory */
	size_t lent_sent;
	char body_hash[DIGEST_HEX + 1];
	struct trace ids;
	struct trace_span *span; /* or NULL */
	char trace[TRACE_PARENT_LEN + 1];
	size_t params_bytes;
	char params[];
};

#define PENDING_MAX_BYTES (2 * RPC_ANSWER_CREDIT_BYTES)

static void finish(struct errand *errand)
{
	struct local *local = errand->local;

	request_cancel(&errand->request);
	body_unref(&errand->body);
	buf_free(&errand->pending);
	slice_release(&errand->lent);
	trace_span_end(&errand->span);
	TAILQ_REMOVE(&local->errands, errand, entry);
	free(errand);
	if (TAILQ_EMPTY(&local->errands) && local->on_drained && !local->stopped)
		local->on_drained(local->drained_arg);
}

/* No answer, or no more of it. */
static void give_up(struct errand *errand, int code, const char *text)
{
	trace_span_fail(errand->span, rpc_code_name(code), text);
	if (errand->answering)
		rpc_request_abort(errand->call);
	else
		rpc_request_fail(errand->call, code, "%s", text);
	finish(errand);
}

static struct msg_request_params *unpack(struct errand *errand)
{
	static struct msg_request_params params;
	struct msg_error error;
	struct span bytes = {errand->params, errand->params_bytes};

	/* It was unpacked before, when the call came. */
	BUG_ON(msg_request_params_unpack(bytes, &params, &error) < 0);
	return &params;
}

/* ---- The answer's side ---- */

static void put(struct msg_headers *headers, struct span name, struct span value)
{
	if (headers->count < MSG_MAX_HEADERS)
		headers->items[headers->count++] = (struct msg_header){name, value};
}

static void describe(struct msg_request_params *params, void *arg)
{
	struct errand *errand = arg;
	const struct msg_request_params *asked = unpack(errand);

	params->method = asked->method;
	params->target = asked->target;
	params->client = asked->client.len ? asked->client : SPAN_LITERAL("unix");
	params->trace = span_of(errand->trace);
	for (size_t i = 0; i < asked->headers.count; i++) {
		struct msg_header header = asked->headers.items[i];

		if (span_equal_nocase(header.name, "host")) {
			put(&params->headers, SPAN_LITERAL("host"), header.value);
			put(&params->headers, SPAN_LITERAL("x-original-host"), header.value);
		} else if (headers_pass_request(header.name)) {
			put(&params->headers, header.name, header.value);
		}
	}
}

/* Send what the asker has credit for. true: nothing is left. */
static bool flush(struct errand *errand)
{
	struct buf *pending = &errand->pending;
	bool is_lent = errand->lent.data != NULL;
	const uint8_t *data = is_lent ? (const uint8_t *)errand->lent.data + errand->lent_sent
				      : pending->data;
	size_t left = is_lent ? errand->lent.len_bytes - errand->lent_sent : pending->len;
	uint64_t credit = rpc_request_credit(errand->call);
	size_t n = left < credit ? left : (size_t)credit;
	bool last = (is_lent || errand->ended) && n == left;

	if (n || last) {
		void *bytes = malloc(n ? n : 1);

		if (!bytes) {
			rpc_request_abort(errand->call);
			errand->call = NULL;
			return false;
		}
		if (n)
			memcpy(bytes, data, n);
		if (is_lent)
			errand->lent_sent += n;
		else
			buf_consume(pending, n);
		rpc_request_send_chunk(errand->call, slice_malloced(bytes, n), last);
		if (last)
			errand->call = NULL;
	}
	return n == left;
}

/* Our peers do not see gatewayd's memory: they get a copy. */
static void answer_lent(struct errand *errand, const struct msg_request_result *lent_answer)
{
	static struct msg_request_result answer;
	struct span body = {errand->lent.data, errand->lent.len_bytes};

	answer = *lent_answer;
	answer.lease = answer.offset = answer.length = 0;
	errand->request = NULL;
	if (body.len <= RPC_INLINE_BODY_BYTES) {
		answer.body = body;
		msg_request_reply(errand->call, &answer);
		finish(errand);
		return;
	}
	answer.chunked = true;
	answer.body_bytes = (int64_t)body.len;
	if (msg_request_reply_start(errand->call, &answer) < 0) {
		finish(errand);
		return;
	}
	errand->answering = true;
	flush(errand);
	if (!errand->call)
		finish(errand);
}

static void on_answer(
	const struct msg_request_result *answer, struct span packed, struct slice lent, void *arg)
{
	struct errand *errand = arg;

	if (lent.data) {
		errand->lent = lent;
		answer_lent(errand, answer);
		return;
	}
	if (!answer->chunked) {
		errand->request = NULL;
		rpc_request_reply(errand->call, packed);
		finish(errand);
	} else if (rpc_request_reply_start(errand->call, packed) < 0) {
		finish(errand);
	} else {
		errand->answering = true;
	}
}

static bool on_data(struct span data, bool end, void *arg)
{
	struct errand *errand = arg;

	if (end) {
		errand->ended = true;
		errand->request = NULL;
	}
	buf_append(&errand->pending, data.data, data.len);
	if (buf_failed(&errand->pending)) {
		rpc_request_abort(errand->call);
		errand->call = NULL;
	}
	bool more = errand->call && flush(errand);

	if (!errand->call)
		finish(errand);
	return more;
}

static void on_failed(enum request_failure why, const char *detail, const char *backend, void *arg)
{
	static const char *const texts[REQUEST_FAILURES] = {
		[REQUEST_NOBODY_UP] = "no gatewayd is up",
		[REQUEST_LOST] = "gatewayd was lost while it worked on this",
		[REQUEST_BUSY] = "gatewayd has too much to do",
		[REQUEST_TIMED_OUT] = "gatewayd took too long",
		[REQUEST_REFUSED] = "gatewayd could not answer",
		[REQUEST_NO_MEMORY] = "out of memory",
	};
	struct errand *errand = arg;

	log_fields(LOG_LEVEL_WARN, errand->trace, "local request failed", LOG_STR("reason", detail),
		LOG_STR("backend", backend));
	errand->request = NULL;
	give_up(errand, why == REQUEST_BUSY ? RPC_BUSY : RPC_FAILED, texts[why]);
}

static const struct request_events request_events = {
	.describe = describe, .on_answer = on_answer, .on_data = on_data, .on_failed = on_failed};

/* ---- The asker's side ---- */

static bool is_idempotent(const struct msg_request_params *params)
{
	size_t path = 0;

	while (path < params->target.len && params->target.data[path] != '?')
		path++;
	return request_is_idempotent(params->method, (struct span){params->target.data, path});
}

static void body_complete(struct errand *errand)
{
	struct digest key;

	body_finish(errand->body);
	key = *body_digest(errand->body);
	if (errand->only_hash || body_bytes(errand->body).len)
		digest_hex(&key, errand->body_hash);
	if (errand->only_hash) {
		msg_hash_reply(errand->call,
			&(struct msg_hash_result){.body_hash = span_of(errand->body_hash)});
		finish(errand);
		return;
	}
	const struct msg_request_params *params = unpack(errand);

	if (!errand->body_hash[0]) {
		body_unref(&errand->body);
		key = digest_of(params->target);
	}
	errand->request = request_start(
		errand->local->requests, &(struct request_options){
						 .events = &request_events,
						 .arg = errand,
						 .key = &key,
						 .body = errand->body,
						 .body_hash = errand->body_hash,
						 .trace = &errand->ids,
						 .idempotent = is_idempotent(params),
					 });
	body_unref(&errand->body);
	if (!errand->request)
		give_up(errand, RPC_FAILED, "out of memory");
}

static void read_on(void *arg)
{
	struct errand *errand = arg;

	rpc_request_give_credit(errand->call, errand->owed_credit);
	errand->owed_credit = 0;
}

static void on_late(void *arg)
{
	give_up(arg, RPC_FAILED, "the body did not come in time");
}

static const struct body_events body_events = {.on_read_on = read_on, .on_late = on_late};

/* false: the errand is over. */
static bool receive(struct errand *errand, struct span data)
{
	enum body_flow flow;

	if (data.len > (size_t)errand->local->conf->max_body_bytes - body_bytes(errand->body).len) {
		rpc_request_fail(errand->call, RPC_BAD_PARAMS, "body: over %lld bytes",
			(long long)errand->local->conf->max_body_bytes);
		finish(errand);
		return false;
	}
	if (body_append(errand->body, data, &flow) < 0) {
		give_up(errand, RPC_FAILED, "out of memory");
		return false;
	}
	errand->owed_credit += data.len;
	/* Until there, the first credit lasts. */
	if (flow == BODY_READ_ON && body_bytes(errand->body).len >= BODY_FREE_BYTES)
		read_on(errand);
	return true;
}

static void on_chunk(struct span data, bool end, void *arg)
{
	struct errand *errand = arg;

	if (receive(errand, data) && end)
		body_complete(errand);
}

static void on_credit(uint64_t credit, void *arg)
{
	struct errand *errand = arg;
	bool empty = flush(errand);

	(void)credit;
	if (!errand->call)
		finish(errand);
	else if (empty && errand->request)
		request_read_on(errand->request);
}

static void on_cancel(void *arg)
{
	finish(arg);
}

static const struct rpc_request_events call_events = {
	.on_chunk = on_chunk, .on_credit = on_credit, .on_cancel = on_cancel};

/* params is kept for describe() unless only a hash is wanted. */
static void begin(struct local *local, struct rpc_request *call, struct span params,
	struct span body, bool chunked, int64_t declared_bytes, bool only_hash, struct span trace)
{
	struct errand *errand = malloc(sizeof(*errand) + params.len);

	if (local->stopped) {
		free(errand);
		rpc_request_fail(call, RPC_FAILED, "hashd is stopping");
		return;
	}
	if (errand) {
		*errand = (struct errand){.local = local, .call = call, .only_hash = only_hash};
		errand->body = body_new(local->bodies, declared_bytes, &body_events, errand);
	}
	if (!errand || !errand->body) {
		free(errand);
		rpc_request_fail(call, RPC_FAILED, "out of memory");
		return;
	}
	TAILQ_INSERT_TAIL(&local->errands, errand, entry);
	errand->params_bytes = params.len;
	memcpy(errand->params, params.data, params.len);
	buf_init(&errand->pending, PENDING_MAX_BYTES);
	errand->span = trace_span_enter(
		trace, &errand->ids, only_hash ? SPAN_LITERAL("hash") : SPAN_LITERAL("request"));
	trace_span_text(errand->span, "rpc.method", only_hash ? "hash" : "request");
	trace_format(&errand->ids, errand->trace);
	rpc_request_accept(call, &call_events, errand);
	if (chunked) {
		errand->owed_credit = RPC_ANSWER_CREDIT_BYTES - BODY_FREE_BYTES;
		rpc_request_give_credit(call, BODY_FREE_BYTES);
	} else if (receive(errand, body)) {
		body_complete(errand);
	}
}

static void serve_request(struct rpc_request *call, struct span bytes, void *arg)
{
	static struct msg_request_params params;

	if (msg_request_serve_params(call, bytes, &params) < 0)
		return;
	begin(arg, call, bytes, params.body, params.chunked,
		params.chunked ? -1 : (int64_t)params.body.len, false, params.trace);
}

static void serve_hash(struct rpc_request *call, struct span bytes, void *arg)
{
	struct msg_hash_params params;

	if (msg_hash_serve_params(call, bytes, &params) < 0)
		return;
	begin(arg, call, (struct span){"", 0}, params.body, params.chunked,
		params.chunked ? -1 : (int64_t)params.body.len, true, (struct span){0});
}

/* ---- Life ---- */

struct local *local_new(
	const struct hashd_conf *conf, struct bodies *bodies, struct requests *requests)
{
	struct local *local = calloc(1, sizeof(*local));

	if (!local)
		return NULL;
	TAILQ_INIT(&local->errands);
	local->conf = conf;
	local->bodies = bodies;
	local->requests = requests;
	local->methods[0] = (struct rpc_method){"request", serve_request, local};
	local->methods[1] = (struct rpc_method){"hash", serve_hash, local};
	return local;
}

const struct rpc_method *local_methods(const struct local *local)
{
	return local->methods;
}

void local_drain(struct local *local, void (*on_drained)(void *arg), void *arg)
{
	local->on_drained = on_drained;
	local->drained_arg = arg;
	if (TAILQ_EMPTY(&local->errands))
		on_drained(arg);
}

void local_stop(struct local *local)
{
	struct errand *errand;

	local->stopped = true;
	while ((errand = TAILQ_FIRST(&local->errands)))
		give_up(errand, RPC_FAILED, "hashd is stopping");
}

void local_free(struct local **local)
{
	if (*local)
		BUG_ON(!TAILQ_EMPTY(&(*local)->errands));
	free(*local);
	*local = NULL;
}
