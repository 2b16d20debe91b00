/* Epochs as objects of a bucket. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/loop.h"
#include "gatewayd/epoch_place.h"
#include "gatewayd/s3_client.h"

#define TIMEOUT_MS       5000
#define PAGE_MAX_BYTES   (4u << 20)
#define ANSWER_MAX_BYTES 65536

struct s3_place {
	struct epoch_place place; /* first */
	struct s3_client *client;
	char *prefix; /* <prefix>purges/ */
};

struct s3_epoch_call {
	struct epoch_call call; /* first */
	struct s3_call *s3;
	char after[EPOCH_NAME_BYTES * 2]; /* a list goes on behind this key */
	struct deferred end;
};

static struct s3_place *s3_of(const struct epoch_call *call)
{
	return (struct s3_place *)call->place;
}

static int start_page(struct s3_epoch_call *sc);

/* The names of a page; the last key is where the next one begins. Keys of ours need no unescaping.
 */
static void take_page(struct s3_epoch_call *sc, const char *text)
{
	static const char open[] = "<Key>";
	size_t prefix = strlen(s3_of(&sc->call)->prefix);
	for (const char *at = text; (at = strstr(at, open));) {
		at += sizeof open - 1;
		const char *end = strchr(at, '<');
		size_t len = end ? (size_t)(end - at) : 0;
		if (!end || len >= sizeof sc->after)
			continue;
		memcpy(sc->after, at, len);
		sc->after[len] = '\0';
		if (len > prefix && sc->call.on_name)
			sc->call.on_name((struct span){at + prefix, len - prefix}, sc->call.arg);
	}
}

static void on_page(struct s3_call *call, const struct s3_result *result, void *arg)
{
	struct s3_epoch_call *sc = arg;
	(void)call;
	sc->s3 = NULL;
	if (result->outcome != S3_OK) {
		epoch_call_end(&sc->call, result->reason);
		return;
	}
	char before[sizeof sc->after];
	memcpy(before, sc->after, sizeof before);
	buf_append_char(result->body, '\0');
	const char *text = result->body->data ? (const char *)result->body->data : "";
	take_page(sc, text);
	bool more = strstr(text, "<IsTruncated>true</IsTruncated>") &&
		    strcmp(before, sc->after) != 0;
	if (!more)
		epoch_call_end(&sc->call, NULL);
	else if (start_page(sc) < 0)
		epoch_call_end(&sc->call, "out of memory");
}

static int start_page(struct s3_epoch_call *sc)
{
	struct s3_place *place = s3_of(&sc->call);
	struct buf query = BUF_INIT(4096);
	buf_append_str(&query, "list-type=2&max-keys=200&prefix=");
	s3_escape(span_of(place->prefix), true, &query);
	if (*sc->after) {
		buf_append_str(&query, "&start-after=");
		s3_escape(span_of(sc->after), true, &query);
	}
	buf_append_char(&query, '\0');
	struct s3_request request = {.method = "GET",
		.name = "",
		.query = (const char *)query.data,
		.timeout_ms = TIMEOUT_MS,
		.max_response_bytes = PAGE_MAX_BYTES - 1};
	sc->s3 = buf_failed(&query) ? NULL : s3_client_call(place->client, &request, on_page, sc);
	buf_free(&query);
	return sc->s3 ? 0 : -1;
}

static void on_done(struct s3_call *call, const struct s3_result *result, void *arg)
{
	struct s3_epoch_call *sc = arg;
	(void)call;
	sc->s3 = NULL;
	epoch_call_end(&sc->call, result->outcome == S3_OK ? NULL : result->reason);
}

static void end_later(void *arg)
{
	epoch_call_end(arg, "the gateway stops");
}

static int start(struct epoch_call *call)
{
	struct s3_epoch_call *sc = (struct s3_epoch_call *)call;
	struct s3_place *place = s3_of(call);
	deferred_init(&sc->end, end_later, call);
	if (!*call->name)
		return start_page(sc);
	char name[EPOCH_NAME_BYTES * 2];
	snprintf(name, sizeof name, "%s%s", place->prefix, call->name);
	static const char *const headers[] = {"Content-Type: application/json", NULL};
	struct digest digest = digest_of((struct span){call->body, call->body_len});
	struct s3_request request = {.method = call->body ? "PUT" : "DELETE",
		.name = name,
		.timeout_ms = TIMEOUT_MS,
		.max_response_bytes = ANSWER_MAX_BYTES};
	if (call->body) {
		request.headers = headers;
		request.body = (struct slice){.data = call->body, .len_bytes = call->body_len};
		request.body_digest = &digest;
	}
	sc->s3 = s3_client_call(place->client, &request, on_done, sc);
	return sc->s3 ? 0 : -1;
}

static void cancel(struct epoch_call *call)
{
	struct s3_epoch_call *sc = (struct s3_epoch_call *)call;
	s3_call_cancel(&sc->s3);
	loop_defer(call->place->loop, &sc->end);
}

static void s3_free(struct epoch_place *place)
{
	struct s3_place *s3 = (struct s3_place *)place;
	s3_client_free(&s3->client);
	free(s3->prefix);
	free(s3);
}

static const struct epoch_place_ops ops = {
	.kind = "s3",
	.call_bytes = sizeof(struct s3_epoch_call),
	.start = start,
	.cancel = cancel,
	.free = s3_free,
};

struct epoch_place *epoch_place_s3(
	struct loop *loop, const struct s3_options *options, const char *prefix)
{
	struct s3_place *place = calloc(1, sizeof *place);
	if (!place)
		return NULL;
	place->place = (struct epoch_place){.ops = &ops, .loop = loop};
	place->client = s3_client_new(loop, options);
	if (asprintf(&place->prefix, "%spurges/", prefix) < 0)
		place->prefix = NULL;
	if (!place->client || !place->prefix) {
		s3_free(&place->place);
		return NULL;
	}
	return &place->place;
}
