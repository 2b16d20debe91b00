#include "gatewayd/fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/messages.h"
#include "common/wire.h"
#include "gatewayd/vector.h"

/* The largest packed element: a vector as text, and some more. */
#define MAX_ELEMENT_BYTES (VECTOR_MAX_TEXT_BYTES + 65536)
#define MAX_ERROR_BYTES   (1u << 20)

/*
 * ASKED ──200──> ELEMENTS ──all there──> (done)
 *   └──else──> ERROR_BODY ──> (refused)
 * The peer's loss ends it from any state.
 */
enum fetch_state { FETCH_ASKED, FETCH_ELEMENTS, FETCH_ERROR_BODY };

struct fetch {
	enum fetch_state state;
	struct loop *loop;
	struct peers *peers;
	int peer;
	struct peer_user user;
	struct rpc_call *call;
	const struct fetch_events *events;
	void *arg;

	/* The request's body: all of it if small, else what stands around the inputs, which stay
	 * where they are: to put 32 MiB together at once would hold the loop up. */
	struct buf body;
	size_t body_bytes, body_sent;
	struct provider_request_copy request;
	size_t part, part_sent; /* of the parts of a large one */

	struct buf in; /* of the answer: an element that is not complete, or the error */
	struct wire_scan scan;
	size_t n, n_seen;
	uint8_t *seen;
	int status;
	int64_t retry_after_ms;
	char content_type[128];
	char traceparent[TRACE_PARENT_LEN + 1]; /* "" : none */
};

static void fetch_free(struct fetch *fetch)
{
	rpc_call_cancel(&fetch->call);
	peers_leave(fetch->peers, fetch->peer, &fetch->user);
	buf_free(&fetch->body);
	provider_request_copy_free(&fetch->request);
	buf_free(&fetch->in);
	free(fetch->seen);
	free(fetch);
}

static void end(struct fetch *fetch, enum fetch_outcome outcome)
{
	struct provider_result result = {
		.outcome = PROVIDER_REFUSED,
		.status = fetch->status,
		.body = {(char *)fetch->in.data, fetch->in.len},
		.content_type = span_of(fetch->content_type),
		.retry_after_ms = fetch->retry_after_ms,
		.detail = "the provider refused the request",
	};
	fetch->events->on_end(outcome, outcome == FETCH_REFUSED ? &result : NULL, fetch->arg);
	fetch_free(fetch);
}

static void lose(struct fetch *fetch, const char *why)
{
	log_fields(LOG_LEVEL_INFO, fetch->traceparent, "fetch: the owner is lost",
		LOG_INT("owner", fetch->peer), LOG_STR("reason", why));
	end(fetch, FETCH_LOST);
}

static void on_peer_lost(void *arg)
{
	lose(arg, "the peer does not answer");
}

/* ---- The request's body ---- */

static int make_body(struct fetch *fetch, const struct provider_request *request)
{
	struct provider_request none = *request;
	none.n_inputs = 0;
	size_t bytes = request->n_inputs - 1; /* commas */
	for (size_t i = 0; i < request->n_inputs; i++)
		bytes += request->inputs[i].len;
	if (provider_request_write(&none, "base64", &fetch->body) < 0)
		return -1;
	fetch->body_bytes = fetch->body.len + bytes;
	if (fetch->body_bytes > RPC_INLINE_BODY_BYTES)
		return provider_request_copy(&fetch->request, request);
	buf_consume(&fetch->body, fetch->body.len);
	return provider_request_write(request, "base64", &fetch->body);
}

/* 0: what stands before the inputs; then each input, and what follows it. */
static struct span part_of(const struct fetch *fetch, size_t part)
{
	const struct provider_request *request = &fetch->request.request;
	struct span around = {(char *)fetch->body.data, fetch->body.len};
	/* The last one there is: of the empty list of inputs. */
	const char *bracket = memrchr(around.data, '[', around.len);
	size_t start = (size_t)(bracket - around.data) + 1;
	if (part == 0)
		return (struct span){around.data, start};
	if (part % 2)
		return request->inputs[part / 2];
	if (part / 2 < request->n_inputs)
		return SPAN_LITERAL(",");
	return (struct span){around.data + start, around.len - start};
}

static void take_body(struct fetch *fetch, char *to, size_t len_bytes)
{
	fetch->body_sent += len_bytes;
	while (len_bytes > 0) {
		struct span part = part_of(fetch, fetch->part);
		size_t n = part.len - fetch->part_sent;
		if (n > len_bytes)
			n = len_bytes;
		memcpy(to, part.data + fetch->part_sent, n);
		to += n;
		len_bytes -= n;
		fetch->part_sent += n;
		if (fetch->part_sent == part.len) {
			fetch->part++;
			fetch->part_sent = 0;
		}
	}
}

static void on_credit(uint64_t credit_bytes, void *arg)
{
	struct fetch *fetch = arg;
	while (credit_bytes > 0 && fetch->body_sent < fetch->body_bytes) {
		size_t n = fetch->body_bytes - fetch->body_sent;
		if (n > RPC_CHUNK_BYTES)
			n = RPC_CHUNK_BYTES;
		if (n > credit_bytes)
			n = (size_t)credit_bytes;
		/* A copy: the call may be cancelled while it waits to be written. */
		void *chunk = malloc(n);
		if (!chunk) {
			lose(fetch, "out of memory");
			return;
		}
		take_body(fetch, chunk, n);
		credit_bytes -= n;
		rpc_call_send_chunk(fetch->call, slice_malloced(chunk, n),
			fetch->body_sent == fetch->body_bytes);
	}
}

/* ---- The answer ---- */

static int source_of(struct span name, enum flight_source *source)
{
	static const struct {
		const char *name;
		enum flight_source source;
	} names[] = {{"memory", FLIGHT_CACHED}, {"store", FLIGHT_STORED}, {"bought", FLIGHT_BOUGHT},
		{"joined", FLIGHT_JOINED}};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (span_equal_str(name, names[i].name)) {
			*source = names[i].source;
			return 0;
		}
	}
	return -1;
}

/* NULL, or what is wrong. */
static const char *take_element(struct fetch *fetch, struct span packed)
{
	struct msg_fetch_element message;
	struct msg_error error;
	struct fetched element;
	if (msg_fetch_element_unpack(packed, &message, &error) < 0)
		return "an element is malformed";
	if (message.index >= fetch->n || fetch->seen[message.index])
		return "an element was not asked for";
	if (source_of(message.source, &element.source) < 0 || message.dims == 0 ||
		message.dims > VECTOR_MAX_DIMS || message.vector.len == 0)
		return "an element is malformed";
	if (message.tags.len % sizeof(struct cache_tag_key) ||
		message.tags.len > CACHE_MAX_TAGS * sizeof(struct cache_tag_key))
		return "the tags of an element are malformed";
	if (!message.text && message.vector.len != vector_base64_len((uint32_t)message.dims))
		return "a vector has the wrong length";
	fetch->seen[message.index] = 1;
	fetch->n_seen++;
	element.index = (size_t)message.index;
	element.form = message.text ? VECTOR_TEXT : VECTOR_BASE64;
	element.dims = (uint32_t)message.dims;
	element.prompt_tokens = message.prompt_tokens;
	element.total_tokens = message.total_tokens;
	element.stored_ms = message.stored_ms;
	element.served_model = message.served_model;
	element.vector = message.vector;
	element.tags = message.tags;
	fetch->events->on_element(&element, fetch->arg);
	return NULL;
}

static const char *take_elements(struct fetch *fetch)
{
	size_t used = 0;
	const char *wrong = NULL;
	while (!wrong && used < fetch->in.len) {
		struct span rest = {(char *)fetch->in.data + used, fetch->in.len - used};
		enum wire_progress progress = wire_scan(
			&fetch->scan, rest.data, rest.len, MAX_ELEMENT_BYTES);
		if (progress == WIRE_MORE)
			break;
		if (progress == WIRE_BAD)
			return "an element is malformed";
		rest.len = fetch->scan.at;
		used += fetch->scan.at;
		fetch->scan = (struct wire_scan){0};
		wrong = take_element(fetch, rest);
	}
	buf_consume(&fetch->in, used);
	return wrong;
}

static void on_chunk(struct span data, bool last, void *arg)
{
	struct fetch *fetch = arg;
	if (buf_append(&fetch->in, data.data, data.len) < 0) {
		lose(fetch, "the answer is too large");
		return;
	}
	if (fetch->state == FETCH_ELEMENTS) {
		const char *wrong = take_elements(fetch);
		if (!wrong && last && fetch->n_seen < fetch->n)
			wrong = "elements are missing";
		if (wrong) {
			lose(fetch, wrong);
			return;
		}
	}
	if (last)
		end(fetch, fetch->state == FETCH_ELEMENTS ? FETCH_DONE : FETCH_REFUSED);
	else
		rpc_call_give_credit(fetch->call, data.len);
}

static void take_headers(struct fetch *fetch, const struct msg_headers *headers)
{
	for (size_t i = 0; i < headers->count; i++) {
		const struct msg_header *header = &headers->items[i];
		if (span_equal_nocase(header->name, "content-type"))
			snprintf(fetch->content_type, sizeof fetch->content_type, "%.*s",
				SPAN_ARG(header->value));
		if (span_equal_nocase(header->name, "retry-after") && header->value.len < 12) {
			char text[12];
			memcpy(text, header->value.data, header->value.len);
			text[header->value.len] = '\0';
			fetch->retry_after_ms = strtol(text, NULL, 10) * 1000;
		}
	}
}

static void on_result(struct span packed, void *arg)
{
	struct fetch *fetch = arg;
	struct msg_request_result result;
	struct msg_error error;
	if (msg_request_result_unpack(packed, &result, &error) < 0 || result.status > 599) {
		lose(fetch, "the answer is malformed");
		return;
	}
	fetch->status = (int)result.status;
	take_headers(fetch, &result.headers);
	fetch->state = fetch->status == 200 ? FETCH_ELEMENTS : FETCH_ERROR_BODY;
	fetch->in.max_len = fetch->status == 200 ? MAX_ELEMENT_BYTES : MAX_ERROR_BYTES;
	if (result.chunked)
		rpc_call_expect_chunks(fetch->call);
	else
		on_chunk(result.body, true, fetch);
}

static void on_done(const struct rpc_error *error, void *arg)
{
	struct fetch *fetch = arg;
	fetch->call = NULL;
	/* A complete answer has ended the fetch, and with it the call, before. */
	lose(fetch, error ? rpc_code_name(error->code) : "the answer ended early");
}

static const struct rpc_call_events call_events = {
	.on_result = on_result,
	.on_chunk = on_chunk,
	.on_credit = on_credit,
	.on_done = on_done,
};

/* ---- Asking ---- */

static void add_header(struct msg_headers *headers, const char *name, const char *value)
{
	if (value && *value)
		headers->items[headers->count++] = (struct msg_header){
			span_of(name), span_of(value)};
}

static struct rpc_call *ask(
	struct fetch *fetch, struct rpc_client *client, const struct provider_request *request)
{
	struct msg_request_params params;
	params.method = SPAN_LITERAL("POST");
	params.target = SPAN_LITERAL("/v1/embeddings");
	params.headers.count = 0;
	add_header(&params.headers, "Content-Type", "application/json");
	add_header(&params.headers, "Authorization", request->credential->authorization);
	add_header(&params.headers, "OpenAI-Organization", request->credential->organization);
	add_header(&params.headers, "OpenAI-Project", request->credential->project);
	char scope[DIGEST_HEX + 1];
	if (request->scope) {
		digest_hex(request->scope, scope);
		add_header(&params.headers, "X-Cache-Scope", scope);
	}
	if (request->surrogate_keys.len)
		params.headers.items[params.headers.count++] = (struct msg_header){
			SPAN_LITERAL("Surrogate-Key"), request->surrogate_keys};
	params.chunked = fetch->body_bytes > RPC_INLINE_BODY_BYTES;
	params.body_bytes = params.chunked ? fetch->body_bytes : 0;
	params.body = params.chunked ? (struct span){0}
				     : (struct span){(char *)fetch->body.data, fetch->body.len};
	params.body_hash = (struct span){0};
	params.client = SPAN_LITERAL("gatewayd");
	if (request->trace) {
		trace_format(&request->trace->trace, fetch->traceparent);
		add_header(&params.headers, "Tracestate", request->trace->state);
	}
	params.trace = span_of(fetch->traceparent);
	return msg_fetch_call(client, &params, 0, &call_events, fetch);
}

struct fetch *fetch_start(struct loop *loop, struct peers *peers, int peer,
	const struct provider_request *request, const struct fetch_events *events, void *arg)
{
	struct fetch *fetch = calloc(1, sizeof *fetch);
	if (!fetch)
		return NULL;
	fetch->loop = loop;
	fetch->peers = peers;
	fetch->peer = peer;
	fetch->events = events;
	fetch->arg = arg;
	fetch->retry_after_ms = -1;
	fetch->n = request->n_inputs;
	fetch->user = (struct peer_user){.on_lost = on_peer_lost, .arg = fetch};
	buf_init(&fetch->body, SIZE_MAX / 2);
	fetch->seen = calloc(fetch->n, 1);
	if (!fetch->seen || make_body(fetch, request) < 0)
		goto fail;
	struct rpc_client *client = peers_join(peers, peer, &fetch->user);
	if (!client)
		goto fail;
	fetch->call = ask(fetch, client, request);
	if (!fetch->call)
		goto fail;
	return fetch;

fail:
	fetch_free(fetch);
	return NULL;
}

void fetch_cancel(struct fetch *fetch)
{
	fetch_free(fetch);
}
