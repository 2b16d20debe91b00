#include "common/body.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/reclaim.h"

/* Small bodies keep their memory and hash state for the next request. */
#define SPARE_BYTES 16384
#define SPARE_COUNT 256
#define FIRST_BYTES 1024
/* How much a receiver that goes on may bring before it is asked again. */
#define READ_BYTES 65536
/* Of the budget, what only bodies below BODY_MEDIUM_BYTES may use. */
#define MEDIUM_SHARE 8
/* How often receivers are looked at. */
#define LOOK_MS 500

struct body {
	struct bodies *bodies;
	TAILQ_ENTRY(body) entry;       /* in receiving, or in spare */
	TAILQ_ENTRY(body) large_entry; /* if is_large */
	unsigned refs;
	bool receiving, is_large, paused, late, hashed, hashing;
	bool looked_at; /* began before the last look */
	uint8_t *data;
	size_t len, capacity;
	int64_t declared_bytes;
	struct digest_state *state;
	struct digest digest;
	/* Its pace: for how long we have been willing to read, and the length at the beginning. */
	uint64_t waited_us;
	size_t waited_len;
	const struct body_events *events;
	void *arg;
};
TAILQ_HEAD(body_list, body);

struct bodies {
	struct loop *loop;
	struct bodies_options options;
	uint64_t bytes;            /* received, of all bodies */
	uint64_t counted_bytes;    /* those that the budget is about */
	uint64_t complete_counted; /* of these, in complete bodies */
	size_t count, n_paused, n_spare;
	struct body_list receiving; /* all; oldest first */
	struct body_list large; /* those outside their free bytes, in the order they came there */
	struct body_list spare;
	struct timer *timer; /* while somebody receives */
	uint64_t looked_us;
	bool pressed; /* somebody waited when we looked */
	bool closed;
};

static void look(void *arg);

struct bodies *bodies_new(struct loop *loop, const struct bodies_options *options)
{
	struct bodies *bodies = calloc(1, sizeof(*bodies));

	if (!bodies)
		return NULL;
	bodies->loop = loop;
	bodies->options = *options;
	bodies->timer = timer_new(loop, look, bodies);
	if (!bodies->timer) {
		free(bodies);
		return NULL;
	}
	TAILQ_INIT(&bodies->receiving);
	TAILQ_INIT(&bodies->large);
	TAILQ_INIT(&bodies->spare);
	return bodies;
}

static void destroy(struct body *body)
{
	digest_free(&body->state);
	reclaim(body->bodies->loop, body->data, body->capacity);
	free(body);
}

static void free_all(struct bodies *bodies)
{
	struct body *body;

	while ((body = TAILQ_FIRST(&bodies->spare))) {
		TAILQ_REMOVE(&bodies->spare, body, entry);
		destroy(body);
	}
	free(bodies);
}

void bodies_free(struct bodies **bodies_)
{
	struct bodies *bodies = *bodies_;

	if (!bodies)
		return;
	*bodies_ = NULL;
	BUG_ON(!TAILQ_EMPTY(&bodies->receiving));
	timer_free(&bodies->timer);
	bodies->closed = true;
	if (bodies->count == 0)
		free_all(bodies);
}

uint64_t bodies_bytes(const struct bodies *bodies)
{
	return bodies->bytes;
}

size_t bodies_paused(const struct bodies *bodies)
{
	return bodies->n_paused;
}

static size_t counted(const struct body *body)
{
	return body->len > BODY_FREE_BYTES ? body->len - BODY_FREE_BYTES : 0;
}

static uint64_t limit_of(const struct body *body)
{
	uint64_t budget = body->bodies->options.budget_bytes;

	return body->len < BODY_MEDIUM_BYTES ? budget : budget - budget / MEDIUM_SHARE;
}

/* May this receiver read? The oldest may overdraw the budget by one body, and by more when there is
 * no complete body whose end would make room. */
static bool has_room(const struct body *body)
{
	const struct bodies *bodies = body->bodies;
	uint64_t limit = limit_of(body);

	if (!body->is_large || bodies->counted_bytes <= limit)
		return true;
	return body == TAILQ_FIRST(&bodies->large) &&
	       (bodies->complete_counted == 0 ||
		       bodies->counted_bytes - limit <= bodies->options.max_body_bytes);
}

static enum body_flow pause_unless_room(struct body *body)
{
	if (has_room(body))
		return BODY_READ_ON;
	if (!body->paused) {
		body->paused = true;
		body->bodies->n_paused++;
	}
	return BODY_STOP_READING;
}

/* There is room again, or the oldest receiver changed. */
static void let_read_on(struct bodies *bodies)
{
	struct body *body, *next;
	uint64_t promised = 0;

	if (!bodies->n_paused)
		return;
	for (body = TAILQ_FIRST(&bodies->large); body; body = next) {
		next = TAILQ_NEXT(body, large_entry);
		/* Behind the first of them, who overdraws, none has room. */
		if (bodies->counted_bytes + promised > bodies->options.budget_bytes &&
			body != TAILQ_FIRST(&bodies->large))
			return;
		if (!body->paused || !has_room(body) ||
			(promised && bodies->counted_bytes + promised > limit_of(body)))
			continue;
		promised += READ_BYTES;
		body->paused = false;
		bodies->n_paused--;
		body->events->on_read_on(body->arg);
	}
}

/* ---- The pace ---- */

static bool is_late(struct body *body, uint64_t elapsed_us)
{
	const struct bodies *bodies = body->bodies;
	const struct bodies_options *options = &bodies->options;
	uint64_t after_us = options->timeout_ms * UINT64_C(1000);
	uint64_t least_bytes_s = options->least_bytes_s;

	if (body->paused)
		return false;
	body->waited_us += elapsed_us;
	if (bodies->pressed && body->is_large) {
		least_bytes_s = options->max_body_bytes * UINT64_C(1000) / options->timeout_ms;
		after_us = BODY_PRESSED_MS * UINT64_C(1000);
	}
	if (body->waited_us < after_us)
		return false;
	bool late = body->len - body->waited_len < least_bytes_s * body->waited_us / 1000000;

	body->waited_us = 0;
	body->waited_len = body->len;
	return late;
}

/* First all are judged: who is called back may end its own body, and so let others read on. */
static void look(void *arg)
{
	struct bodies *bodies = arg;
	uint64_t now = loop_now_us(bodies->loop), elapsed_us = now - bodies->looked_us;
	bool pressed = bodies->n_paused > 0, changed = pressed != bodies->pressed;
	struct body *body, *next;

	bodies->looked_us = now;
	bodies->pressed = pressed;
	TAILQ_FOREACH (body, &bodies->receiving, entry) {
		body->late = !changed && body->looked_at && is_late(body, elapsed_us);
		body->looked_at = true;
		if (changed) {
			body->waited_us = 0;
			body->waited_len = body->len;
		}
	}
	for (body = TAILQ_FIRST(&bodies->receiving); body; body = next) {
		next = TAILQ_NEXT(body, entry);
		if (body->late)
			body->events->on_late(body->arg);
	}
	if (!TAILQ_EMPTY(&bodies->receiving))
		timer_arm(bodies->timer, LOOK_MS);
}

static void watch(struct bodies *bodies)
{
	if (timer_armed(bodies->timer))
		return;
	bodies->looked_us = loop_now_us(bodies->loop);
	timer_arm(bodies->timer, LOOK_MS);
}

struct body *body_new(
	struct bodies *bodies, int64_t declared_bytes, const struct body_events *events, void *arg)
{
	struct body *body = TAILQ_FIRST(&bodies->spare);

	if (body) {
		TAILQ_REMOVE(&bodies->spare, body, entry);
		bodies->n_spare--;
	} else {
		body = calloc(1, sizeof(*body));
		if (!body)
			return NULL;
		body->bodies = bodies;
	}
	body->refs = 1;
	body->receiving = true;
	body->is_large = body->paused = body->hashed = body->hashing = false;
	body->looked_at = false;
	body->len = 0;
	body->waited_us = 0;
	body->waited_len = 0;
	body->declared_bytes = declared_bytes;
	body->events = events;
	body->arg = arg;
	bodies->count++;
	TAILQ_INSERT_TAIL(&bodies->receiving, body, entry);
	watch(bodies);
	return body;
}

static int grow(struct body *body, size_t wanted)
{
	size_t capacity = body->capacity ? body->capacity : FIRST_BYTES;

	while (capacity < wanted)
		capacity *= 2;
	/* The declared length is only a ceiling: memory is taken for what has come. */
	if (body->declared_bytes >= (int64_t)wanted && (int64_t)capacity > body->declared_bytes &&
		body->declared_bytes > FIRST_BYTES)
		capacity = (size_t)body->declared_bytes;
	uint8_t *data = realloc(body->data, capacity);

	if (!data)
		return -1;
	body->data = data;
	body->capacity = capacity;
	return 0;
}

/* That much more has come. */
static void count(struct body *body, size_t len_bytes)
{
	struct bodies *bodies = body->bodies;

	bodies->counted_bytes -= counted(body);
	body->len += len_bytes;
	bodies->counted_bytes += counted(body);
	bodies->bytes += len_bytes;
	if (!body->is_large && body->len >= BODY_FREE_BYTES) {
		body->is_large = true;
		TAILQ_INSERT_TAIL(&bodies->large, body, large_entry);
	}
}

int body_append(struct body *body, struct span data, enum body_flow *flow)
{
	BUG_ON(!body->receiving);
	if (data.len > body->bodies->options.max_body_bytes - body->len)
		return -1;
	if (body->len + data.len > body->capacity && grow(body, body->len + data.len) < 0)
		return -1;
	if (data.len)
		memcpy(body->data + body->len, data.data, data.len);
	count(body, data.len);
	if (body->len == data.len && (int64_t)data.len == body->declared_bytes) {
		/* In one piece, as most are: no state needed. */
		body->digest = digest_of(data);
		body->hashed = true;
	} else if (data.len) {
		if (!body->state && !(body->state = digest_new()))
			return -1;
		digest_update(body->state, data);
		body->hashing = true;
	}
	*flow = pause_unless_room(body);
	return 0;
}

static void stop_receiving(struct body *body)
{
	struct bodies *bodies = body->bodies;

	TAILQ_REMOVE(&bodies->receiving, body, entry);
	body->receiving = false;
	if (body->is_large)
		TAILQ_REMOVE(&bodies->large, body, large_entry);
	if (body->paused)
		bodies->n_paused--;
	body->paused = false;
}

void body_finish(struct body *body)
{
	struct bodies *bodies = body->bodies;

	BUG_ON(!body->receiving);
	if (body->hashing)
		body->digest = digest_final(body->state);
	else if (!body->hashed)
		body->digest = digest_of((struct span){"", 0});
	body->hashing = false;
	stop_receiving(body);
	bodies->complete_counted += counted(body);
	if (body->is_large)
		let_read_on(bodies);
}

const struct digest *body_digest(const struct body *body)
{
	BUG_ON(body->receiving);
	return &body->digest;
}

struct span body_bytes(const struct body *body)
{
	return (struct span){(const char *)body->data, body->len};
}

void body_ref(struct body *body)
{
	body->refs++;
}

static void release(void *body_)
{
	struct body *body = body_;

	body_unref(&body);
}

struct slice body_slice(struct body *body, size_t offset, size_t len_bytes)
{
	BUG_ON(offset > body->len || len_bytes > body->len - offset);
	body->refs++;
	return (struct slice){
		.data = body->data + offset,
		.len_bytes = len_bytes,
		.release = release,
		.owner = body,
	};
}

void body_unref(struct body **body_)
{
	struct body *body = *body_;

	*body_ = NULL;
	if (!body || --body->refs)
		return;
	struct bodies *bodies = body->bodies;

	bool made_room = body->is_large;

	bodies->bytes -= body->len;
	bodies->counted_bytes -= counted(body);
	bodies->count--;
	if (body->receiving)
		stop_receiving(body);
	else
		bodies->complete_counted -= counted(body);
	if (body->capacity <= SPARE_BYTES && bodies->n_spare < SPARE_COUNT) {
		if (body->hashing)
			(void)digest_final(body->state); /* ready for the next one */
		TAILQ_INSERT_HEAD(&bodies->spare, body, entry);
		bodies->n_spare++;
	} else {
		destroy(body);
	}
	if (made_room)
		let_read_on(bodies);
	if (bodies->closed && bodies->count == 0)
		free_all(bodies);
}
