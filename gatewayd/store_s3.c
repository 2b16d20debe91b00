#include "gatewayd/store_s3.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/workers.h"
#include "gatewayd/store_backend.h"

#define DEFAULT_QUEUED_PUTS    8192
#define DEFAULT_QUEUED_BYTES   (64ull << 20)
#define DEFAULT_PARALLEL_PUTS  16
#define DEFAULT_GET_TIMEOUT_MS 5000
#define DEFAULT_PUT_TIMEOUT_MS 30000
#define PUT_ANSWER_MAX_BYTES   65536
#define GET_TRIES              3
#define GET_RETRY_MIN_MS       20
#define GET_RETRY_MAX_MS       200
#define GET_RETRY_FACTOR       4
#define PARAMS_MAX_BYTES       512
#define METADATA_MAX_BYTES     2048
#define MAX_METADATA           8
#define REASON_MAX_BYTES       512

struct s3_put;
struct s3_remove {
	struct s3_call *call;
	char traceparent[TRACE_PARENT_LEN + 1]; /* of the look-up that met it; "": none */
	LIST_ENTRY(s3_remove) link;
};
LIST_HEAD(s3_remove_list, s3_remove);
LIST_HEAD(s3_put_list, s3_put);

struct store_s3 {
	struct store store; /* first */
	struct workers *workers;
	struct s3_client *client;
	char *prefix;
	uint32_t get_timeout_ms, put_timeout_ms;
	struct s3_remove_list removes;
	struct s3_put_list puts; /* on their way to the server */
};

/* calling ──> decoding ──> (ended)          a failed call: waiting, then calling again */
struct s3_get {
	struct store_get get; /* first */
	struct s3_call *call;
	struct timer *retry;
	struct backoff backoff;
	uint64_t give_up_us;
	struct job job;
	void *bytes;
	size_t n_bytes;
	uint64_t time_ms;
	struct deferred end;
	char reason[REASON_MAX_BYTES];
};

/* encoding ──> calling ──> (ended) */
struct s3_put {
	struct store_put put; /* first */
	struct job job;
	struct buf bytes, metadata;
	struct digest digest;
	bool encoded;
	struct s3_call *call;
	struct deferred end;
	LIST_ENTRY(s3_put) link;
	char reason[REASON_MAX_BYTES];
};

static struct store_s3 *s3_of(const struct store *store)
{
	return (struct store_s3 *)store;
}

/* ---- Get ---- */

static void get_end(struct s3_get *sg)
{
	timer_free(&sg->retry);
	store_get_end(&sg->get);
}

static void end_get_later(void *arg)
{
	get_end(arg);
}

static void fail_get(struct s3_get *sg, int error, const char *reason)
{
	sg->get.result = STORE_ERROR;
	sg->get.error = error;
	if (reason) {
		snprintf(sg->reason, sizeof sg->reason, "%s", reason);
		sg->get.reason = sg->reason;
	}
}

static struct s3_get *get_of(struct job *job)
{
	return (struct s3_get *)((char *)job - offsetof(struct s3_get, job));
}

static void decode_work(struct job *job)
{
	struct s3_get *sg = get_of(job);
	struct store_get *get = &sg->get;
	struct span bytes = {sg->bytes, sg->n_bytes};
	get->read_bytes = bytes.len;
	switch (stored_object_read(bytes, &get->key, get->legacy, &get->object)) {
	case STORED_OK:
		get->result = STORE_FOUND;
		break;
	case STORED_LEGACY:
		get->result = STORE_LEGACY;
		get->object.fields.stored_ms = sg->time_ms;
		break;
	case STORED_UNKNOWN:
	case STORED_TOO_LARGE:
		get->result = STORE_MISS;
		break;
	case STORED_CORRUPT:
		get->result = STORE_MISS;
		get->corrupt = true;
		break;
	case STORED_NO_MEMORY:
		get->result = STORE_ERROR;
		get->error = ENOMEM;
		break;
	}
	free(sg->bytes);
	sg->bytes = NULL;
}

static void decode_done(struct job *job)
{
	struct s3_get *sg = get_of(job);
	if (sg->bytes) { /* the threads have ended before it */
		free(sg->bytes);
		sg->get.abandoned = true;
	}
	get_end(sg);
}

static void decode(struct s3_get *sg, struct s3_call *call, struct buf *body)
{
	sg->time_ms = store_s3_time_ms(s3_call_header(call, "last-modified"));
	sg->bytes = buf_take(body, &sg->n_bytes);
	if (!sg->bytes) { /* an empty object */
		sg->get.result = STORE_MISS;
		sg->get.corrupt = true;
		sg->get.object.reason = "empty";
		get_end(sg);
		return;
	}
	sg->job = (struct job){.work = decode_work, .done = decode_done};
	if (workers_submit(s3_of(sg->get.store)->workers, &sg->job)) {
		free(sg->bytes);
		fail_get(sg, EAGAIN, NULL);
		get_end(sg);
	}
}

static int call_for_get(struct s3_get *sg);

static void on_retry(void *arg)
{
	struct s3_get *sg = arg;
	if (call_for_get(sg)) {
		fail_get(sg, ENOMEM, NULL);
		get_end(sg);
	}
}

static bool retry_get(struct s3_get *sg)
{
	struct loop *loop = sg->get.store->loop;
	uint32_t delay_ms = backoff_next_ms(&sg->backoff);
	if (sg->backoff.attempt >= GET_TRIES ||
		loop_now_us(loop) + delay_ms * 1000ull >= sg->give_up_us)
		return false;
	if (!sg->retry)
		sg->retry = timer_new(loop, on_retry, sg);
	if (!sg->retry)
		return false;
	timer_arm(sg->retry, delay_ms);
	return true;
}

static void on_got(struct s3_call *call, const struct s3_result *result, void *arg)
{
	struct s3_get *sg = arg;
	sg->call = NULL;
	switch (result->outcome) {
	case S3_OK:
		decode(sg, call, result->body);
		return;
	case S3_MISSING:
		sg->get.result = STORE_MISS;
		break;
	case S3_DENIED:
		sg->get.denied = true;
		fail_get(sg, EACCES, result->reason);
		break;
	case S3_REFUSED:
		fail_get(sg, EINVAL, result->reason);
		break;
	case S3_UNREACHABLE:
	case S3_FAILED:
		if (retry_get(sg))
			return;
		fail_get(sg, EIO, result->reason);
		break;
	}
	get_end(sg);
}

static int call_for_get(struct s3_get *sg)
{
	struct store_s3 *s3 = s3_of(sg->get.store);
	char name[STORE_NAME_BYTES];
	store_get_name(&sg->get, s3->prefix, name);
	uint64_t now_us = loop_now_us(s3->store.loop);
	struct s3_request request = {
		.method = "GET",
		.name = name,
		.timeout_ms = sg->give_up_us > now_us
				      ? (uint32_t)((sg->give_up_us - now_us) / 1000 + 1)
				      : 1,
		.max_response_bytes = (size_t)stored_object_max_bytes(sg->get.legacy),
	};
	sg->call = s3_client_call(s3->client, &request, on_got, sg);
	return sg->call ? 0 : -1;
}

static int s3_get(struct store_get *get)
{
	struct s3_get *sg = (struct s3_get *)get;
	struct store_s3 *s3 = s3_of(get->store);
	sg->give_up_us = loop_now_us(get->store->loop) + s3->get_timeout_ms * 1000ull;
	backoff_init(&sg->backoff, GET_RETRY_MIN_MS, GET_RETRY_MAX_MS, GET_RETRY_FACTOR);
	deferred_init(&sg->end, end_get_later, sg);
	return call_for_get(sg);
}

/* What is being decoded ends by itself. */
static void s3_cancel(struct store_get *get)
{
	struct s3_get *sg = (struct s3_get *)get;
	bool waiting = sg->retry && timer_armed(sg->retry);
	if (!sg->call && !waiting)
		return;
	s3_call_cancel(&sg->call);
	timer_free(&sg->retry);
	get->abandoned = true;
	loop_defer(get->store->loop, &sg->end);
}

/* ---- Delete what is purged ---- */

static void on_removed(struct s3_call *call, const struct s3_result *result, void *arg)
{
	struct s3_remove *sr = arg;
	(void)call;
	if (result->outcome != S3_OK)
		log_fields(LOG_LEVEL_DEBUG, sr->traceparent, "s3: a purged object was not deleted",
			LOG_STR("reason", result->reason));
	LIST_REMOVE(sr, link);
	free(sr);
}

/* Tried once. An object that is bought again within milliseconds may go with it: it is bought once
 * more, one day. */
static void s3_remove(const struct store_get *get)
{
	struct store_s3 *s3 = s3_of(get->store);
	struct s3_remove *sr = get->result == STORE_FOUND ? calloc(1, sizeof *sr) : NULL;
	if (!sr)
		return;
	if (get->has_trace)
		trace_format(&get->trace, sr->traceparent);
	char name[STORE_NAME_BYTES];
	store_object_name(s3->prefix, &get->key, name);
	struct s3_request request = {.method = "DELETE",
		.name = name,
		.timeout_ms = s3->get_timeout_ms,
		.max_response_bytes = PUT_ANSWER_MAX_BYTES};
	sr->call = s3_client_call(s3->client, &request, on_removed, sr);
	if (sr->call)
		LIST_INSERT_HEAD(&s3->removes, sr, link);
	else
		free(sr);
}

/* ---- Put ---- */

static void put_end(struct s3_put *sp, int error)
{
	sp->put.error = error;
	buf_free(&sp->bytes);
	buf_free(&sp->metadata);
	store_put_end(&sp->put);
}

static void end_put_later(void *arg)
{
	put_end(arg, ECANCELED);
}

static struct s3_put *put_of(struct job *job)
{
	return (struct s3_put *)((char *)job - offsetof(struct s3_put, job));
}

static void encode_work(struct job *job)
{
	struct s3_put *sp = put_of(job);
	buf_init(&sp->bytes, STORED_OBJECT_MAX_BYTES);
	buf_init(&sp->metadata, METADATA_MAX_BYTES);
	if (stored_object_encode(&sp->put.fields, &sp->bytes))
		return;
	sp->digest = digest_of((struct span){(char *)sp->bytes.data, sp->bytes.len});
	store_s3_metadata(&sp->put.fields, &sp->metadata);
	sp->encoded = true;
}

static void on_put(struct s3_call *call, const struct s3_result *result, void *arg)
{
	struct s3_put *sp = arg;
	(void)call;
	sp->call = NULL;
	LIST_REMOVE(sp, link);
	if (result->outcome == S3_OK) {
		sp->put.written_bytes = sp->bytes.len;
		put_end(sp, 0);
		return;
	}
	snprintf(sp->reason, sizeof sp->reason, "%s", result->reason);
	sp->put.reason = sp->reason;
	sp->put.denied = result->outcome == S3_DENIED;
	sp->put.away = result->outcome == S3_UNREACHABLE;
	put_end(sp, sp->put.denied ? EACCES : EIO);
}

static void encode_done(struct job *job)
{
	struct s3_put *sp = put_of(job);
	struct store_s3 *s3 = s3_of(sp->put.store);
	char name[STORE_NAME_BYTES];
	const char *headers[MAX_METADATA + 3] = {
		"Content-Type: application/json", "Content-Encoding: gzip"};
	if (!sp->encoded) {
		/* Trying again makes sense only when memory was short. */
		put_end(sp, buf_failed(&sp->bytes) ? ENOMEM : EINVAL);
		return;
	}
	sp->encoded = false;
	size_t n = 2;
	for (const char *line = (const char *)sp->metadata.data; line && *line;
		line += strlen(line) + 1)
		headers[n++] = line;
	store_object_name(s3->prefix, &sp->put.fields.key, name);
	struct s3_request request = {
		.method = "PUT",
		.name = name,
		.headers = headers,
		.body = {.data = sp->bytes.data, .len_bytes = sp->bytes.len},
		.body_digest = &sp->digest,
		.timeout_ms = s3->put_timeout_ms,
		.max_response_bytes = PUT_ANSWER_MAX_BYTES,
	};
	sp->call = s3->store.closed ? NULL : s3_client_call(s3->client, &request, on_put, sp);
	if (sp->call)
		LIST_INSERT_HEAD(&s3->puts, sp, link);
	else
		put_end(sp, ENOMEM);
}

static int s3_put(struct store_put *put)
{
	struct s3_put *sp = (struct s3_put *)put;
	sp->job = (struct job){.work = encode_work, .done = encode_done};
	deferred_init(&sp->end, end_put_later, sp);
	return workers_submit(s3_of(put->store)->workers, &sp->job);
}

/* ---- Metadata ---- */

/* As it may stand in a header, and is signed the same by everybody: no blanks, no controls. */
static void append_value(struct buf *out, struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.data[i];
		if (c > 0x20 && c < 0x7f && c != '%')
			buf_append_char(out, (char)c);
		else
			buf_printf(out, "%%%02X", c);
	}
	buf_append_char(out, 0);
}

void store_s3_metadata(const struct stored_fields *fields, struct buf *out)
{
	char stored_at[32];
	struct tm tm;
	time_t seconds = (time_t)(fields->stored_ms / 1000);
	if (!gmtime_r(&seconds, &tm) ||
		!strftime(stored_at, sizeof stored_at, "%Y-%m-%dT%H:%M:%SZ", &tm))
		stored_at[0] = 0;
	buf_printf(out, "x-amz-meta-dimensions: %u", fields->dims);
	buf_append_char(out, 0);
	buf_append_str(out, "x-amz-meta-vector: ");
	append_value(out, span_of(fields->source == VECTOR_BASE64 ? "base64" : "text"));
	if (*stored_at) {
		buf_append_str(out, "x-amz-meta-stored-at: ");
		append_value(out, span_of(stored_at));
	}
	if (fields->model.len && fields->model.len <= PARAMS_MAX_BYTES / 2) {
		buf_append_str(out, "x-amz-meta-model: ");
		append_value(out, fields->model);
	}
	if (fields->params.len && fields->params.len <= PARAMS_MAX_BYTES / 2) {
		buf_append_str(out, "x-amz-meta-parameters: ");
		append_value(out, fields->params);
	}
	buf_append_char(out, 0);
	/* Objects without it are as good. */
	if (buf_failed(out))
		buf_free(out);
}

uint64_t store_s3_time_ms(struct span http_date)
{
	char text[64];
	struct tm tm = {0};
	if (!http_date.len || http_date.len >= sizeof text)
		return 0;
	memcpy(text, http_date.data, http_date.len);
	text[http_date.len] = 0;
	if (!strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
		return 0;
	time_t seconds = timegm(&tm);
	return seconds > 0 ? (uint64_t)seconds * 1000 : 0;
}

/* ---- Life ---- */

static void s3_close(struct store *store)
{
	struct store_s3 *s3 = s3_of(store);
	struct s3_put *sp;
	struct s3_remove *sr;
	while ((sr = LIST_FIRST(&s3->removes))) {
		LIST_REMOVE(sr, link);
		s3_call_cancel(&sr->call);
		free(sr);
	}
	while ((sp = LIST_FIRST(&s3->puts))) {
		LIST_REMOVE(sp, link);
		s3_call_cancel(&sp->call);
		loop_defer(store->loop, &sp->end);
	}
}

static void s3_free(struct store *store)
{
	struct store_s3 *s3 = s3_of(store);
	s3_client_free(&s3->client);
	free(s3->prefix);
	free(s3);
}

static const struct store_backend s3_backend = {
	.kind = "s3",
	.get_bytes = sizeof(struct s3_get),
	.put_bytes = sizeof(struct s3_put),
	.get = s3_get,
	.put = s3_put,
	.remove = s3_remove,
	.cancel = s3_cancel,
	.close = s3_close,
	.free = s3_free,
};

struct store *store_s3_new(
	struct loop *loop, struct workers *workers, const struct store_s3_options *options)
{
	struct store_limits limits = {
		.max_queued_puts = options->max_queued_puts ? options->max_queued_puts
							    : DEFAULT_QUEUED_PUTS,
		.max_queued_bytes = options->max_queued_bytes ? options->max_queued_bytes
							      : DEFAULT_QUEUED_BYTES,
		.parallel_puts = options->parallel_puts ? options->parallel_puts
							: DEFAULT_PARALLEL_PUTS,
	};
	struct store_s3 *s3 = calloc(1, sizeof *s3);
	if (!s3)
		return NULL;
	if (store_init(&s3->store, loop, &s3_backend, &limits))
		goto fail_store;
	LIST_INIT(&s3->puts);
	LIST_INIT(&s3->removes);
	s3->workers = workers;
	s3->get_timeout_ms = options->get_timeout_ms ? options->get_timeout_ms
						     : DEFAULT_GET_TIMEOUT_MS;
	s3->put_timeout_ms = options->put_timeout_ms ? options->put_timeout_ms
						     : DEFAULT_PUT_TIMEOUT_MS;
	s3->prefix = strdup(options->prefix);
	s3->client = s3_client_new(loop, &options->s3);
	if (!s3->prefix || !s3->client)
		goto fail_parts;
	return &s3->store;

fail_parts:
	s3_client_free(&s3->client);
	free(s3->prefix);
	store_uninit(&s3->store);
fail_store:
	free(s3);
	return NULL;
}
