#include "hashd/body.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/log.h"
#include "common/reclaim.h"

/* Small bodies keep their memory and hash state for the next request. */
#define SPARE_BYTES 16384
#define SPARE_COUNT 256
#define FIRST_BYTES 1024
/* How much a receiver that goes on may bring before it is asked again. */
#define READ_BYTES 65536

struct body {
	struct bodies *bodies;
	TAILQ_ENTRY(body) entry; /* in receiving, or in spare */
	unsigned refs;
	bool receiving, paused, hashed, hashing;
	uint8_t *data;
	size_t len, capacity, max_bytes;
	int64_t declared_bytes;
	struct digest_state *state;
	struct digest digest;
	void (*on_read_on)(void *arg);
	void *arg;
};
TAILQ_HEAD(body_list, body);

struct bodies {
	struct loop *loop;
	uint64_t budget_bytes;
	uint64_t bytes;          /* received, of all bodies */
	uint64_t complete_bytes; /* of those that are complete */
	size_t count, n_paused, n_spare;
	struct body_list receiving; /* oldest first */
	struct body_list spare;
};

struct bodies *bodies_new(struct loop *loop, uint64_t budget_bytes)
{
	struct bodies *bodies = calloc(1, sizeof(*bodies));

	if (!bodies)
		return NULL;
	bodies->loop = loop;
	bodies->budget_bytes = budget_bytes;
	TAILQ_INIT(&bodies->receiving);
	TAILQ_INIT(&bodies->spare);
	return bodies;
}

static void destroy(struct body *body)
{
	digest_free(&body->state);
	reclaim(body->bodies->loop, body->data, body->capacity);
	free(body);
}

void bodies_free(struct bodies **bodies_)
{
	struct bodies *bodies = *bodies_;
	struct body *body;

	if (!bodies)
		return;
	BUG_ON(bodies->count);
	while ((body = TAILQ_FIRST(&bodies->spare))) {
		TAILQ_REMOVE(&bodies->spare, body, entry);
		destroy(body);
	}
	free(bodies);
	*bodies_ = NULL;
}

uint64_t bodies_bytes(const struct bodies *bodies)
{
	return bodies->bytes;
}

size_t bodies_paused(const struct bodies *bodies)
{
	return bodies->n_paused;
}

/* May this receiver read? The oldest may overdraw the budget by one body, and by more when there is
 * no complete body whose end would make room. */
static bool has_room(const struct bodies *bodies, const struct body *body)
{
	if (bodies->bytes <= bodies->budget_bytes)
		return true;
	return body == TAILQ_FIRST(&bodies->receiving) &&
	       (bodies->complete_bytes == 0 ||
		       bodies->bytes - bodies->budget_bytes <= body->max_bytes);
}

static enum body_flow pause_unless_room(struct body *body)
{
	if (has_room(body->bodies, body))
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
	for (body = TAILQ_FIRST(&bodies->receiving); body; body = next) {
		next = TAILQ_NEXT(body, entry);
		if (!body->paused)
			continue;
		if (!has_room(bodies, body) ||
			(promised && bodies->bytes + promised > bodies->budget_bytes))
			return;
		promised += READ_BYTES;
		body->paused = false;
		bodies->n_paused--;
		body->on_read_on(body->arg);
	}
}

struct body *body_new(struct bodies *bodies, int64_t declared_bytes, size_t max_bytes,
	void (*on_read_on)(void *arg), void *arg, enum body_flow *flow)
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
	body->paused = body->hashed = body->hashing = false;
	body->len = 0;
	body->max_bytes = max_bytes;
	body->declared_bytes = declared_bytes;
	body->on_read_on = on_read_on;
	body->arg = arg;
	bodies->count++;
	TAILQ_INSERT_TAIL(&bodies->receiving, body, entry);
	*flow = pause_unless_room(body);
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

int body_append(struct body *body, struct span data, enum body_flow *flow)
{
	BUG_ON(!body->receiving);
	if (data.len > body->max_bytes - body->len)
		return -1;
	if (body->len + data.len > body->capacity && grow(body, body->len + data.len) < 0)
		return -1;
	if (data.len)
		memcpy(body->data + body->len, data.data, data.len);
	body->len += data.len;
	body->bodies->bytes += data.len;
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

void body_finish(struct body *body)
{
	struct bodies *bodies = body->bodies;

	BUG_ON(!body->receiving);
	if (body->hashing)
		body->digest = digest_final(body->state);
	else if (!body->hashed)
		body->digest = digest_of((struct span){"", 0});
	body->hashing = false;
	TAILQ_REMOVE(&bodies->receiving, body, entry);
	body->receiving = false;
	if (body->paused)
		bodies->n_paused--;
	body->paused = false;
	bodies->complete_bytes += body->len;
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

	bodies->bytes -= body->len;
	bodies->count--;
	if (body->receiving) {
		TAILQ_REMOVE(&bodies->receiving, body, entry);
		if (body->paused)
			bodies->n_paused--;
	} else {
		bodies->complete_bytes -= body->len;
	}
	if (body->capacity <= SPARE_BYTES && bodies->n_spare < SPARE_COUNT) {
		if (body->hashing)
			(void)digest_final(body->state); /* ready for the next one */
		TAILQ_INSERT_HEAD(&bodies->spare, body, entry);
		bodies->n_spare++;
	} else {
		destroy(body);
	}
	let_read_on(bodies);
}
