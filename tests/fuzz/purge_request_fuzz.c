/*
 * What a purge may be sent as: the fields of PURGE, parted by line feeds (a line "-" is an absent
 * field), and the same bytes as the message of RPC `purge`. Whatever is taken keeps the limits, and
 * says the same when it is sent on to another instance.
 */
#include <stdlib.h>

#include "common/log.h"
#include "gatewayd/cache_control.h"
#include "gatewayd/purge_request.h"

static struct span next_line(struct span *rest)
{
	const char *end = rest->len ? memchr(rest->data, '\n', rest->len) : NULL;
	size_t len = end ? (size_t)(end - rest->data) : rest->len;
	struct span line = {rest->data, len};
	*rest = (struct span){rest->data + len + (end != NULL), rest->len - len - (end != NULL)};
	return span_equal_str(line, "-") ? (struct span){0} : line;
}

static void check(const struct purge_request *request)
{
	struct span values[SURROGATE_MAX_KEYS];
	struct msg_purge_params params;
	struct purge_request again;
	struct api_error error;
	BUG_ON(request->n_tags > SURROGATE_MAX_KEYS);
	for (size_t i = 0; i < request->n_tags; i++)
		BUG_ON(request->tags[i].len == 0 || request->tags[i].len > SURROGATE_MAX_KEY_BYTES);
	purge_request_params(request, values, &params);
	if (request->scope == PURGE_PATH && (!request->path.len || request->path.data[0] != '/'))
		return; /* the HTTP server sees to that */
	BUG_ON(purge_request_of_params(&params, &again, &error) < 0);
	BUG_ON(again.scope != request->scope || again.n_tags != request->n_tags ||
		again.store != request->store || again.time_ms != request->time_ms ||
		!digest_equal(&again.digest, &request->digest));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = {(const char *)data, size};
	static const char *const names[] = {"X-Purge-All", "Surrogate-Key", "X-Body-Hash",
		"X-Purge-Key", "X-Purge-Store", "X-Purge-Time", "surrogate-key"};
	struct purge_fields fields = {.target = next_line(&rest)};
	struct purge_request request;
	struct api_error error;
	int rc = 0;
	for (size_t i = 0; i < sizeof names / sizeof names[0] && rc == 0; i++) {
		struct span value = next_line(&rest);
		if (value.data)
			rc = purge_fields_add(&fields, span_of(names[i]), value, &error);
	}
	if (rc == 0 && rest.len)
		rc = purge_fields_add(&fields, rest, SPAN_LITERAL("1"), &error);
	if (rc == 0)
		rc = purge_request_of_fields(&fields, &request, &error);
	if (rc == 0)
		check(&request);
	else
		BUG_ON(error.status != 400);

	struct msg_purge_params params;
	struct msg_error why;
	if (msg_purge_params_unpack((struct span){(const char *)data, size}, &params, &why) == 0) {
		if (purge_request_of_params(&params, &request, &error) == 0)
			check(&request);
		msg_purge_params_free(&params);
	}
	cache_control_has(fields.surrogate_keys[0], "no-store");
	struct cache_control_answer answer = {.cache_control = fields.target, .vary = fields.key};
	cache_control_shareable(&answer);
	return 0;
}
