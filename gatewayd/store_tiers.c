#include "gatewayd/store_tiers.h"

#include <errno.h>
#include <stdlib.h>

#include "gatewayd/store_backend.h"

struct store_tiers {
	struct store store; /* first */
	struct store *near, *far;
	unsigned draining;
};

struct tiers_get {
	struct store_get get; /* first */
	struct store_get *child;
	bool in_far;
	struct deferred end;
};

static struct store_tiers *tiers_of(const struct store *store)
{
	return (struct store_tiers *)store;
}

/* ---- Get ---- */

static void on_got(enum store_result result, struct stored_object *object, void *arg);

static int ask(struct tiers_get *tg)
{
	struct store_tiers *tiers = tiers_of(tg->get.store);
	struct store *store = tg->in_far ? tiers->far : tiers->near;
	struct store_look look = {.trace = store_get_trace(&tg->get), .layout = tg->get.layout};
	tg->child = tg->get.legacy ? store_get_legacy_start(store, &tg->get.key, &look, on_got, tg)
				   : store_get_start_with(store, &tg->get.key, &look, on_got, tg);
	return tg->child ? 0 : -1;
}

static void on_got(enum store_result result, struct stored_object *object, void *arg)
{
	struct tiers_get *tg = arg;
	struct store_tiers *tiers = tiers_of(tg->get.store);
	bool found = result == STORE_FOUND || result == STORE_LEGACY;
	tg->child = NULL;
	if (!found && !tg->in_far) {
		tg->in_far = true;
		if (ask(tg) == 0)
			return;
		result = STORE_ERROR;
	}
	tg->get.result = result;
	/* The tier that could not tell has said why. */
	tg->get.error = EIO;
	tg->get.abandoned = result == STORE_ERROR;
	if (found)
		tg->get.object = stored_object_take(object);
	if (result == STORE_FOUND && tg->in_far)
		store_put(tiers->near, &tg->get.object.fields, store_get_trace(&tg->get));
	store_get_end(&tg->get);
}

static void end_later(void *arg)
{
	store_get_end(arg);
}

static int tiers_get(struct store_get *get)
{
	struct tiers_get *tg = (struct tiers_get *)get;
	deferred_init(&tg->end, end_later, tg);
	if (ask(tg) == 0)
		return 0;
	tg->in_far = true;
	return ask(tg);
}

static void tiers_cancel(struct store_get *get)
{
	struct tiers_get *tg = (struct tiers_get *)get;
	store_get_cancel(&tg->child);
	get->abandoned = true;
	loop_defer(get->store->loop, &tg->end);
}

/* ---- Put ---- */

static bool tiers_accept(
	struct store *store, const struct stored_fields *fields, const struct trace *trace)
{
	bool near = store_put(tiers_of(store)->near, fields, trace);
	bool far = store_put(tiers_of(store)->far, fields, trace);
	return near || far;
}

static void tiers_keep_near(
	struct store *store, const struct stored_fields *fields, const struct trace *trace)
{
	store_put(tiers_of(store)->near, fields, trace);
}

static void on_drained(void *arg)
{
	struct store_tiers *tiers = arg;
	if (--tiers->draining == 0)
		store_drained(&tiers->store);
}

static void tiers_drain(struct store *store)
{
	struct store_tiers *tiers = tiers_of(store);
	tiers->draining = 2;
	store_drain(tiers->near, on_drained, tiers);
	store_drain(tiers->far, on_drained, tiers);
}

/* ---- Life ---- */

static const struct store *tiers_tier(const struct store *store, unsigned i)
{
	const struct store_tiers *tiers = tiers_of(store);
	return i == 0 ? tiers->near : i == 1 ? tiers->far : NULL;
}

static void tiers_close(struct store *store)
{
	store_free(&tiers_of(store)->near);
	store_free(&tiers_of(store)->far);
}

static void tiers_free(struct store *store)
{
	free(tiers_of(store));
}

static const struct store_backend tiers_backend = {
	.kind = "dir,s3",
	.get_bytes = sizeof(struct tiers_get),
	.put_bytes = sizeof(struct store_put),
	.get = tiers_get,
	.cancel = tiers_cancel,
	.accept = tiers_accept,
	.keep_near = tiers_keep_near,
	.drain = tiers_drain,
	.tier = tiers_tier,
	.close = tiers_close,
	.free = tiers_free,
};

struct store *store_tiers_new(struct loop *loop, struct store *near, struct store *far)
{
	static const struct store_limits no_queue;
	struct store_tiers *tiers = calloc(1, sizeof *tiers);
	if (!tiers)
		return NULL;
	if (store_init(&tiers->store, loop, &tiers_backend, &no_queue)) {
		free(tiers);
		return NULL;
	}
	tiers->near = near;
	tiers->far = far;
	return &tiers->store;
}
