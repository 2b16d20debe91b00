#include "gatewayd/purge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/messages.h"
#include "common/rpc.h"
#include "gatewayd/cache.h"
#include "gatewayd/cache_cleaner.h"
#include "gatewayd/purge_epochs.h"

#define ROUNDS 2
/* What freeing may take of one turn of the loop. */
#define SLICE_US      1000
#define SLICE_OBJECTS 32
/* After a purge of so many objects memory goes back to the kernel. */
#define CLEAN_OBJECTS 1000
/* Both rounds fit into what a broadcaster waits (5 s). */
#define SIBLING_WAIT_MS 2000

struct sibling {
	struct purge *purge;
	unsigned index;
	char *path;
	struct rpc_client *client;
	struct rpc_call *call;
	struct purge_target_result *result;
};

struct purge {
	struct purger *purger;
	struct purge_request request; /* its spans point into text */
	char *text;
	struct cache_tag_key keys[SURROGATE_MAX_KEYS];
	size_t n_keys;
	struct cache_purge local;
	struct epoch epoch;      /* of a purge of the store */
	bool too_many;           /* of them */
	unsigned round, waiting; /* for so many instances, this one included */
	uint64_t purged;
	size_t n_siblings, n_targets;
	struct sibling *siblings;
	struct purge_target_result *targets;
	void (*on_done)(const struct purge_result *result, void *arg);
	void *arg;
	struct deferred later; /* the next slice, or the end */
	LIST_ENTRY(purge) entry;
};

struct purger {
	struct loop *loop;
	struct cache *cache;
	struct purger_options options;
	struct purger_counters counters;
	LIST_HEAD(, purge) under_way;
	size_t n_under_way;
};

static const struct trace *trace_of(const struct purge *purge)
{
	return purge->request.has_trace ? &purge->request.trace : NULL;
}

static void purge_free(struct purge *purge)
{
	struct purger *purger = purge->purger;
	for (size_t i = 0; i < purge->n_siblings; i++) {
		rpc_call_cancel(&purge->siblings[i].call);
		rpc_client_free(&purge->siblings[i].client);
		free(purge->siblings[i].path);
	}
	loop_defer_cancel(purger->loop, &purge->later);
	LIST_REMOVE(purge, entry);
	purger->n_under_way--;
	free(purge->siblings);
	free(purge->targets);
	free(purge->text);
	free(purge);
}

static void round_begin(struct purge *purge);

/* ---- The end ---- */

static void finish(void *arg)
{
	struct purge *purge = arg;
	struct purge_result result = {.purged = purge->purged,
		.n = purge->n_targets,
		.targets = purge->targets,
		.error = ""};
	char error[sizeof purge->targets->pod + 2 + sizeof purge->targets->error];
	for (size_t i = 0; i < purge->n_targets; i++) {
		if (purge->targets[i].success)
			continue;
		if (result.failed++ > 0)
			continue;
		snprintf(error, sizeof error, "%s: %s", purge->targets[i].pod,
			purge->targets[i].error);
		result.error = error;
	}
	purge->purger->counters.failed += result.failed > 0;
	if (purge->on_done)
		purge->on_done(&result, purge->arg);
	purge_free(purge);
}

static void one_done(struct purge *purge)
{
	if (--purge->waiting > 0)
		return;
	if (++purge->round < (purge->request.only ? 1 : ROUNDS)) {
		round_begin(purge);
		return;
	}
	deferred_init(&purge->later, finish, purge);
	loop_defer(purge->purger->loop, &purge->later);
}

/* ---- This instance ---- */

static void free_slice(void *arg)
{
	struct purge *purge = arg;
	struct purger *purger = purge->purger;
	uint64_t end_us = loop_now_us(purger->loop) + SLICE_US;
	do {
		if (!cache_purge_step(purger->cache, &purge->local, SLICE_OBJECTS))
			continue;
		purge->purged += purge->local.purged;
		if (purge->local.purged >= CLEAN_OBJECTS || purge->request.scope == PURGE_ALL)
			cache_cleaner_start(purger->options.cleaner);
		one_done(purge);
		return;
	} while (loop_now_us(purger->loop) < end_us);
	loop_defer(purger->loop, &purge->later);
}

static void purge_here(struct purge *purge)
{
	struct purger *purger = purge->purger;
	const struct purge_request *request = &purge->request;
	purge->local = (struct cache_purge){.all = request->scope == PURGE_ALL,
		.keys = purge->keys,
		.n = purge->n_keys,
		.element = request->scope == PURGE_KEY ? &request->digest : NULL};
	cache_purge_begin(purger->cache, &purge->local);
	deferred_init(&purge->later, free_slice, purge);
	loop_defer(purger->loop, &purge->later);
}

/* ---- The others ---- */

static void sibling_said(struct sibling *sibling, int status, bool success, struct span error)
{
	struct purge_target_result *result = sibling->result;
	result->status = status;
	result->success = success;
	snprintf(result->error, sizeof result->error, "%.*s", SPAN_ARG(error));
	if (!success)
		log_fields(LOG_LEVEL_WARN, TRACE_TEXT(trace_of(sibling->purge)),
			"purge: another instance of the pod failed",
			LOG_STR("instance", result->pod), LOG_INT("status", status),
			LOG_SPAN("reason", error));
}

static void on_result(struct span packed, void *arg)
{
	struct sibling *sibling = arg;
	struct msg_purge_result result;
	struct msg_error error;
	if (msg_purge_result_unpack(packed, &result, &error) < 0) {
		sibling_said(sibling, 0, false, SPAN_LITERAL("its answer is malformed"));
		return;
	}
	sibling->purge->purged += result.purged;
	sibling_said(sibling, result.status > 599 ? 0 : (int)result.status, result.status == 200,
		result.error);
	msg_purge_result_free(&result);
}

/* Does anybody hold this socket? */
static bool is_served(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if ((size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s", path) >=
		sizeof address.sun_path)
		return false;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return true;
	bool refused = connect(fd, (struct sockaddr *)&address, sizeof address) < 0 &&
		       (errno == ECONNREFUSED || errno == ENOENT);
	close(fd);
	return !refused;
}

static void on_call_done(const struct rpc_error *error, void *arg)
{
	struct sibling *sibling = arg;
	sibling->call = NULL;
	if (error && error->code == RPC_LOST && !is_served(sibling->path))
		sibling_said(sibling, 0, true,
			SPAN_LITERAL("not running: there is nothing in its memory"));
	else if (error)
		sibling_said(sibling, 0, false,
			error->message.len ? error->message : span_of(rpc_code_name(error->code)));
	one_done(sibling->purge);
}

static const struct rpc_call_events call_events = {
	.on_result = on_result,
	.on_done = on_call_done,
};

static void ask(struct sibling *sibling)
{
	struct purge *purge = sibling->purge;
	struct span values[SURROGATE_MAX_KEYS];
	struct msg_purge_params params;
	purge_request_params(&purge->request, values, &params);
	params.trace = span_of(TRACE_TEXT(trace_of(purge)));
	params.only = true;
	params.token = span_of(*purge->purger->options.token);
	rpc_client_wake(sibling->client);
	sibling->call = msg_purge_call(
		sibling->client, &params, SIBLING_WAIT_MS, &call_events, sibling);
	if (!sibling->call) {
		sibling_said(sibling, 0, false, SPAN_LITERAL("it cannot be asked"));
		return;
	}
	purge->waiting++;
}

static void round_begin(struct purge *purge)
{
	purge->waiting = 1;
	purge_here(purge);
	for (size_t i = 0; i < purge->n_siblings; i++)
		/* What failed in one round has failed. */
		if (purge->siblings[i].result->success)
			ask(&purge->siblings[i]);
}

/* ---- The store ---- */

static void store_said(const char *error, void *arg)
{
	struct purge *purge = arg;
	struct purge_target_result *result = &purge->targets[purge->n_targets - 1];
	if (error) {
		log_fields(LOG_LEVEL_ERROR, TRACE_TEXT(trace_of(purge)), "purge: the store failed",
			LOG_STR("reason", error));
		result->status = 0;
		result->success = false;
		snprintf(result->error, sizeof result->error, "%s", error);
	}
	one_done(purge);
}

/* What the purge of the store covers is missing from here on. */
static void begin_epoch(struct purge *purge)
{
	struct purge_request *request = &purge->request;
	struct purger *purger = purge->purger;
	uint64_t now_ms = loop_wall_ms(purger->loop);
	struct epoch *epoch = &purge->epoch;
	struct span model;
	if (!request->time_ms || request->time_ms > now_ms)
		request->time_ms = now_ms;
	epoch->time_ms = request->time_ms;
	if (request->scope == PURGE_KEY) {
		epoch->scope = EPOCH_KEY;
		epoch->value = request->digest;
	} else if (request->scope == PURGE_TAG && purge_model_of_tag(request->tags[0], &model)) {
		epoch->scope = EPOCH_MODEL;
		epoch->value = epoch_model(model);
	}
	purge->too_many = purge_epochs_apply(purger->options.epochs, epoch) < 0;
}

static void write_epoch(struct purge *purge)
{
	struct span name = purge->request.hex;
	if (purge->request.scope == PURGE_TAG)
		name = purge->request.tags[0];
	purge->waiting++;
	if (purge->too_many)
		store_said("too many purges of models and keys; purge everything", purge);
	else
		purge_epochs_write(
			purge->purger->options.epochs, &purge->epoch, name, store_said, purge);
}

/* ---- Beginning ---- */

static struct span copy_to(char **to, struct span from)
{
	struct span copy = {*to, from.len};
	if (from.len)
		memcpy(*to, from.data, from.len);
	*to += from.len;
	return copy;
}

static int copy_request(struct purge *purge, const struct purge_request *request)
{
	size_t len = request->path.len + request->hex.len;
	for (size_t i = 0; i < request->n_tags; i++)
		len += request->tags[i].len;
	purge->request = *request;
	char *to = purge->text = malloc(len + 1);
	if (!to)
		return -1;
	purge->request.path = copy_to(&to, request->path);
	purge->request.hex = copy_to(&to, request->hex);
	for (size_t i = 0; i < request->n_tags; i++)
		purge->request.tags[i] = copy_to(&to, request->tags[i]);
	return 0;
}

static void add_key(struct purge *purge, struct cache_tag_key key)
{
	BUG_ON(purge->n_keys == SURROGATE_MAX_KEYS);
	purge->keys[purge->n_keys++] = key;
}

static void make_keys(struct purge *purge)
{
	const struct purge_request *request = &purge->request;
	switch (request->scope) {
	case PURGE_ALL:
		break;
	case PURGE_PATH:
		add_key(purge, cache_tag_key(CACHE_TAG_PATH, request->path));
		/* Single embeddings count as objects of both paths. */
		if (span_equal_str(request->path, "/v1/embeddings") ||
			span_equal_str(request->path, "/openai/v1/embeddings"))
			add_key(purge, cache_tag_key(CACHE_TAG_ELEMENTS, (struct span){0}));
		break;
	case PURGE_TAG:
		for (size_t i = 0; i < request->n_tags; i++)
			add_key(purge, cache_tag_key(CACHE_TAG_NAME, request->tags[i]));
		if (request->n_tags == 0)
			add_key(purge, cache_tag_key_of_digest(CACHE_TAG_NAME, &request->digest));
		break;
	case PURGE_BODY_HASH:
		add_key(purge, cache_tag_key_of_digest(CACHE_TAG_BODY_HASH, &request->digest));
		break;
	case PURGE_KEY:
		add_key(purge, cache_tag_key_of_digest(CACHE_TAG_ELEMENT, &request->digest));
		break;
	}
}

static int make_sibling(struct purge *purge, unsigned index)
{
	struct purger *purger = purge->purger;
	struct sibling *sibling = &purge->siblings[purge->n_siblings];
	if (asprintf(&sibling->path, "%s/gatewayd.%u.sock", purger->options.run_dir, index) < 0) {
		sibling->path = NULL;
		return -1;
	}
	purge->n_siblings++;
	sibling->purge = purge;
	sibling->index = index;
	sibling->result = &purge->targets[index];
	sibling->client = rpc_client_new(
		purger->loop, sibling->path, &rpc_client_defaults, NULL, NULL);
	return sibling->client ? 0 : -1;
}

static void name_target(struct purge_target_result *target, unsigned index)
{
	snprintf(target->pod, sizeof target->pod, "gatewayd.%u", index % 1000);
	target->status = 200;
	target->success = true;
}

static int make_targets(struct purge *purge)
{
	const struct purger_options *options = &purge->purger->options;
	purge->n_targets = purge->request.only ? 1 : options->n + purge->request.store;
	purge->targets = calloc(purge->n_targets, sizeof *purge->targets);
	purge->siblings = calloc(purge->n_targets, sizeof *purge->siblings);
	if (!purge->targets || !purge->siblings)
		return -1;
	if (purge->request.store && !purge->request.only) {
		struct purge_target_result *store = &purge->targets[purge->n_targets - 1];
		*store = (struct purge_target_result){
			.pod = "store", .status = 200, .success = true};
	}
	if (purge->request.only) {
		name_target(&purge->targets[0], options->self);
		return 0;
	}
	for (unsigned i = 0; i < options->n; i++) {
		name_target(&purge->targets[i], i);
		if (i != options->self && make_sibling(purge, i) < 0)
			return -1;
	}
	return 0;
}

struct purge *purge_start(struct purger *purger, const struct purge_request *request,
	void (*on_done)(const struct purge_result *result, void *arg), void *arg)
{
	if (purger->n_under_way == PURGES_MAX)
		return NULL;
	struct purge *purge = calloc(1, sizeof *purge);
	if (!purge)
		return NULL;
	purge->purger = purger;
	purge->on_done = on_done;
	purge->arg = arg;
	deferred_init(&purge->later, finish, purge);
	LIST_INSERT_HEAD(&purger->under_way, purge, entry);
	purger->n_under_way++;
	if (copy_request(purge, request) < 0 || make_targets(purge) < 0) {
		purge_free(purge);
		return NULL;
	}
	make_keys(purge);
	purger->counters.done[request->scope]++;
	purger->counters.of_pod += !request->only;
	if (request->store)
		begin_epoch(purge);
	round_begin(purge);
	if (request->store && !request->only)
		write_epoch(purge);
	return purge;
}

void purge_for_epoch(struct purger *purger, const struct epoch *epoch)
{
	struct purge_request request = {.scope = PURGE_ALL, .only = true};
	if (epoch->scope == EPOCH_KEY) {
		request.scope = PURGE_KEY;
		request.digest = epoch->value;
	} else if (epoch->scope == EPOCH_MODEL) {
		request.scope = PURGE_TAG;
		request.digest = epoch->value; /* what the tag is known by */
	}
	/* An epoch does not say which request it comes from: a trace of its own. */
	request.has_trace = true;
	trace_start(&request.trace, false);
	log_fields(LOG_LEVEL_INFO, TRACE_TEXT(&request.trace), "purge", LOG_STR("by", "store"),
		LOG_STR("scope", purge_scope_name(request.scope)));
	if (!purge_start(purger, &request, NULL, NULL))
		log_fields(LOG_LEVEL_ERROR, TRACE_TEXT(&request.trace), "purge: not done",
			LOG_STR("by", "store"), LOG_STR("reason", "too many at once"));
}

void purge_forget(struct purge *purge)
{
	purge->on_done = NULL;
}

/* ---- The whole ---- */

struct purger *purger_new(
	struct loop *loop, struct cache *cache, const struct purger_options *options)
{
	struct purger *purger = calloc(1, sizeof *purger);
	if (!purger)
		return NULL;
	purger->loop = loop;
	purger->cache = cache;
	purger->options = *options;
	LIST_INIT(&purger->under_way);
	return purger;
}

const struct purger_counters *purger_counters(const struct purger *purger)
{
	return &purger->counters;
}

void purger_free(struct purger **pointer)
{
	struct purger *purger = *pointer;
	if (!purger)
		return;
	*pointer = NULL;
	while (!LIST_EMPTY(&purger->under_way))
		purge_free(LIST_FIRST(&purger->under_way));
	free(purger);
}
