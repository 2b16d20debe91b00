#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "common/http_server_private.h"

#define STASH_STEP_BYTES 1024

static bool in_stash(const struct http_connection *c)
{
	return c->stash && c->in >= c->stash && c->in < c->stash + c->stash_capacity;
}

void http_input_keep(struct http_connection *c)
{
	if (c->in_len == 0) {
		free(c->stash);
		c->stash = NULL;
		c->stash_capacity = 0;
		c->in = NULL;
		return;
	}
	if (in_stash(c))
		return;
	size_t capacity = (c->in_len / STASH_STEP_BYTES + 1) * STASH_STEP_BYTES;
	char *stash = malloc(capacity);
	if (!stash) {
		c->broken = true;
		return;
	}
	memcpy(stash, c->in, c->in_len);
	free(c->stash);
	c->stash = stash;
	c->stash_capacity = capacity;
	c->in = stash;
}

/* Where to read to, behind what is kept. NULL when out of memory. */
static char *room_for_input(struct http_connection *c, size_t *room)
{
	if (c->in_len == 0) {
		c->in = c->server->scratch;
		*room = HTTP_SCRATCH_BYTES;
		return c->server->scratch;
	}
	if (c->in != c->stash) {
		memmove(c->stash, c->in, c->in_len);
		c->in = c->stash;
	}
	if (c->stash_capacity - c->in_len < STASH_STEP_BYTES / 2) {
		size_t capacity = c->stash_capacity * 2;
		char *stash = realloc(c->stash, capacity);
		if (!stash)
			return NULL;
		c->stash = stash;
		c->stash_capacity = capacity;
		c->in = stash;
	}
	*room = c->stash_capacity - c->in_len;
	return c->stash + c->in_len;
}

/* The client will send no more. */
static void end_of_input(struct http_connection *c)
{
	struct http_exchange *x = c->exchange;
	c->eof = c->half_closed = true;
	/* What came whole is served; the rest of a body that is dropped is not missed. */
	if (x && x->responded && !x->body_done) {
		x->body_done = true;
		c->in_len = 0;
	}
	if (c->state == HTTP_STATE_LINGER || c->state == HTTP_STATE_HEAD || (!x && c->in_len == 0))
		c->broken = true;
}

size_t http_input_unread(const struct http_connection *c)
{
	int n;
	return ioctl(c->fd, FIONREAD, &n) || n < 0 ? 0 : (size_t)n;
}

void http_input_read(struct http_connection *c)
{
	size_t room;
	char *to = room_for_input(c, &room);
	if (!to) {
		c->broken = true;
		return;
	}
	ssize_t n;
	do
		n = recv(c->fd, to, room, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		c->in_len += (size_t)n;
		c->got_input = true;
	} else if (n == 0) {
		end_of_input(c);
	} else if (errno != EAGAIN) {
		c->broken = true;
	}
}
