#include "gatewayd/epoch_place.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/loop.h"

static void tell_watcher(const struct epoch_call *call, bool ok)
{
	const struct epoch_place *place = call->place;
	if (!place->on_ended || place->closed)
		return;
	place->on_ended(place->ops->kind,
		!*call->name ? "list"
		: call->body ? "write"
			     : "remove",
		ok, loop_now_us(place->loop) - call->began_us, place->on_ended_arg);
}

void epoch_call_end(struct epoch_call *call, const char *error)
{
	struct epoch_place *place = call->place;
	*call->prev = call->next;
	if (call->next)
		call->next->prev = call->prev;
	tell_watcher(call, !error);
	if (call->done)
		call->done(error, call->arg);
	free(call->body);
	free(call);
	if (place->closed && !place->calls)
		place->ops->free(place);
}

static void begin(struct epoch_place *place, const char *name, struct span body,
	void (*on_name)(struct span name, void *arg), epoch_done *done, void *arg)
{
	struct epoch_call *call = calloc(1, place->ops->call_bytes);
	char *copy = body.data ? strndup(body.data, body.len) : NULL;
	if (!call || (body.data && !copy)) {
		free(call);
		free(copy);
		if (done)
			done("out of memory", arg);
		return;
	}
	call->place = place;
	call->on_name = on_name;
	call->done = done;
	call->arg = arg;
	call->body = copy;
	call->body_len = body.len;
	call->began_us = loop_now_us(place->loop);
	snprintf(call->name, sizeof call->name, "%s", name);
	call->prev = &place->calls;
	call->next = place->calls;
	if (call->next)
		call->next->prev = &call->next;
	place->calls = call;
	if (place->ops->start(call) < 0)
		epoch_call_end(call, "the store is too busy");
}

void epoch_place_list(struct epoch_place *place, void (*on_name)(struct span name, void *arg),
	epoch_done *done, void *arg)
{
	begin(place, "", (struct span){0}, on_name, done, arg);
}

void epoch_place_write(
	struct epoch_place *place, const char *name, struct span body, epoch_done *done, void *arg)
{
	begin(place, name, body, NULL, done, arg);
}

void epoch_place_remove(struct epoch_place *place, const char *name)
{
	begin(place, name, (struct span){0}, NULL, NULL, NULL);
}

void epoch_place_watch(struct epoch_place *place, epoch_on_ended *on_ended, void *arg)
{
	place->on_ended = on_ended;
	place->on_ended_arg = arg;
}

void epoch_place_free(struct epoch_place **pointer)
{
	struct epoch_place *place = *pointer;
	*pointer = NULL;
	if (!place)
		return;
	for (struct epoch_call *call = place->calls, *next; call; call = next) {
		next = call->next;
		call->done = NULL;
		call->on_name = NULL;
		place->ops->cancel(call);
	}
	place->closed = true;
	if (!place->calls)
		place->ops->free(place);
}
