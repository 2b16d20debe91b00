#include "gatewayd/purge_request.h"

#include <stdlib.h>

static const char *const scope_names[PURGE_SCOPES] = {"path", "all", "tag", "body_hash", "key"};

const char *purge_scope_name(enum purge_scope scope)
{
	return scope_names[scope];
}

static int refuse(struct api_error *error, const char *sentence)
{
	api_error_set(error, 400, NULL, "bad_purge", "%s", sentence);
	return -1;
}

bool purge_model_of_tag(struct span tag, struct span *model)
{
	static const char prefix[] = "model:";
	size_t n = sizeof prefix - 1;
	if (tag.len <= n || memcmp(tag.data, prefix, n) != 0)
		return false;
	*model = (struct span){tag.data + n, tag.len - n};
	return true;
}

/* What all ways of asking must keep to. */
static int check(const struct purge_request *request, struct api_error *error)
{
	struct span model;
	if (request->time_ms && !request->store)
		return refuse(error, "X-Purge-Time goes with X-Purge-Store.");
	if (!request->store || request->scope == PURGE_ALL || request->scope == PURGE_KEY)
		return 0;
	if (request->scope == PURGE_TAG && request->n_tags == 1 &&
		purge_model_of_tag(request->tags[0], &model))
		return 0;
	return refuse(error, "The store can be purged of everything (X-Purge-All), one model "
			     "(Surrogate-Key: model:NAME) or one embedding (X-Purge-Key); leave "
			     "X-Purge-Store out to purge memory.");
}

static int take_tags(
	struct purge_request *request, const struct purge_fields *fields, struct api_error *error)
{
	const char *reason = "Surrogate-Key: no tag.";
	int n = 0;
	for (size_t i = 0; n >= 0 && i < fields->n_surrogate_keys; i++)
		n = surrogate_keys_add(fields->surrogate_keys[i], request->tags, n, &reason);
	if (n <= 0)
		return refuse(error, reason);
	request->n_tags = (size_t)n;
	return 0;
}

static int take_digest(
	struct purge_request *request, struct span hex, const char *name, struct api_error *error)
{
	request->hex = hex;
	if (digest_parse_hex(hex, &request->digest) == 0)
		return 0;
	api_error_set(error, 400, NULL, "bad_purge", "%s: not 64 hexadecimal digits.", name);
	return -1;
}

/* 1, 0; -1: neither. An absent field is 0. */
static int read_bool(struct span value)
{
	if (span_equal_nocase(value, "true") || span_equal_str(value, "1"))
		return 1;
	if (!value.data || span_equal_nocase(value, "false") || span_equal_str(value, "0"))
		return 0;
	return -1;
}

static int read_time(struct span value, uint64_t *time_ms)
{
	uint64_t number = 0;
	if (value.len == 0 || value.len > 15)
		return -1;
	for (size_t i = 0; i < value.len; i++) {
		if (value.data[i] < '0' || value.data[i] > '9')
			return -1;
		number = number * 10 + (uint64_t)(value.data[i] - '0');
	}
	*time_ms = number;
	return number ? 0 : -1;
}

int purge_fields_add(
	struct purge_fields *fields, struct span name, struct span value, struct api_error *error)
{
	static const char prefix[] = "x-purge-";
	const struct {
		const char *name;
		struct span *at;
	} known[] = {{"X-Purge-All", &fields->all}, {"X-Body-Hash", &fields->body_hash},
		{"X-Purge-Key", &fields->key}, {"X-Purge-Store", &fields->store},
		{"X-Purge-Time", &fields->time}};
	if (span_equal_nocase(name, "surrogate-key")) {
		if (fields->n_surrogate_keys == SURROGATE_MAX_KEYS)
			return refuse(error, "Surrogate-Key: too many fields.");
		fields->surrogate_keys[fields->n_surrogate_keys++] = value;
		return 0;
	}
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (!span_equal_nocase(name, known[i].name))
			continue;
		if (known[i].at->data) {
			api_error_set(
				error, 400, NULL, "bad_purge", "%s is there twice.", known[i].name);
			return -1;
		}
		*known[i].at = value.data ? value : SPAN_LITERAL("");
		return 0;
	}
	size_t n = sizeof prefix - 1;
	if (name.len < n || !span_equal_nocase((struct span){name.data, n}, prefix))
		return 0;
	api_error_set(error, 400, NULL, "bad_purge",
		"%.*s: there is no such field; there are X-Purge-All, X-Purge-Key, X-Purge-Store "
		"and X-Purge-Time.",
		(int)(name.len < 64 ? name.len : 64), name.data);
	return -1;
}

int purge_request_of_fields(
	const struct purge_fields *fields, struct purge_request *request, struct api_error *error)
{
	*request = (struct purge_request){.scope = PURGE_PATH, .path = fields->target};
	int all = read_bool(fields->all), store = read_bool(fields->store);
	if (all < 0)
		return refuse(error, "X-Purge-All: neither true nor false.");
	if (store < 0)
		return refuse(error, "X-Purge-Store: neither true nor false.");
	request->store = store;
	if (all + !!fields->n_surrogate_keys + !!fields->body_hash.data + !!fields->key.data > 1)
		return refuse(error,
			"A purge goes by one of X-Purge-All, Surrogate-Key, X-Body-Hash "
			"and X-Purge-Key, or by its path.");
	if (fields->time.data && read_time(fields->time, &request->time_ms) < 0)
		return refuse(error, "X-Purge-Time: not a number of milliseconds since 1970.");
	if (all) {
		request->scope = PURGE_ALL;
	} else if (fields->n_surrogate_keys) {
		request->scope = PURGE_TAG;
		if (take_tags(request, fields, error) < 0)
			return -1;
	} else if (fields->body_hash.data) {
		request->scope = PURGE_BODY_HASH;
		if (take_digest(request, fields->body_hash, "X-Body-Hash", error) < 0)
			return -1;
	} else if (fields->key.data) {
		request->scope = PURGE_KEY;
		if (take_digest(request, fields->key, "X-Purge-Key", error) < 0)
			return -1;
	}
	return check(request, error);
}

static int take_values(const struct msg_purge_params *params, struct purge_request *request,
	struct api_error *error)
{
	const struct span *values = params->values.items;
	size_t n = params->values.count;
	if (request->scope == PURGE_ALL)
		return n == 0 ? 0 : refuse(error, "values: all has none.");
	if (request->scope != PURGE_TAG && n != 1)
		return refuse(error, "values: exactly one.");
	if (request->scope == PURGE_PATH) {
		request->path = values[0];
		if (values[0].len == 0 || values[0].data[0] != '/')
			return refuse(error, "values: a path begins with a slash.");
		return 0;
	}
	if (request->scope != PURGE_TAG)
		return take_digest(request, values[0], "values", error);
	if (n == 0 || n > SURROGATE_MAX_KEYS)
		return refuse(error, "values: 1 to 32 tags.");
	for (size_t i = 0; i < n; i++) {
		struct span one[SURROGATE_MAX_KEYS];
		const char *reason;
		int read = surrogate_keys_read(values[i], one, &reason);
		if (read != 1 || one[0].len != values[i].len)
			return refuse(error, read < 0 ? reason : "values: one tag each.");
		request->tags[request->n_tags++] = values[i];
	}
	return 0;
}

int purge_request_of_params(const struct msg_purge_params *params, struct purge_request *request,
	struct api_error *error)
{
	*request = (struct purge_request){
		.store = params->store, .time_ms = params->time_ms, .only = params->only};
	size_t scope = 0;
	while (scope < PURGE_SCOPES && !span_equal_str(params->scope, scope_names[scope]))
		scope++;
	if (scope == PURGE_SCOPES)
		return refuse(error, "scope: path, all, tag, body_hash or key.");
	request->scope = (enum purge_scope)scope;
	if (take_values(params, request, error) < 0)
		return -1;
	return check(request, error);
}

void purge_request_params(
	const struct purge_request *request, struct span *values, struct msg_purge_params *params)
{
	*params = (struct msg_purge_params){
		.scope = span_of(scope_names[request->scope]),
		.values = {.items = values, .count = 1},
		.store = request->store,
		.time_ms = request->time_ms,
		.only = request->only,
	};
	switch (request->scope) {
	case PURGE_ALL:
		params->values.count = 0;
		break;
	case PURGE_PATH:
		values[0] = request->path;
		break;
	case PURGE_TAG:
		params->values.count = request->n_tags;
		for (size_t i = 0; i < request->n_tags; i++)
			values[i] = request->tags[i];
		break;
	case PURGE_BODY_HASH:
	case PURGE_KEY:
		values[0] = request->hex;
		break;
	}
}
