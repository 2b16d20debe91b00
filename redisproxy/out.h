#ifndef REDISPROXY_OUT_H
#define REDISPROXY_OUT_H

/*
 * Bytes on their way to a socket. Appended in any number of pieces, written in one call a turn.
 * Gives its memory back when it is empty, but for a small piece (`keeps`: but for so many bytes).
 * The ceiling is its user's business (who stops filling it).
 *
 * A long run of bytes that lies somewhere else can be lent, behind what is here: it is not copied
 * if it is written before its owner needs the place.
 */
#include <stdbool.h>
#include <stddef.h>

struct out {
	char *data;
	size_t at, end, capacity;
	size_t keeps; /* 0: a small piece */
	const char *lent;
	size_t lent_len;
};

static inline size_t out_pending(const struct out *o)
{
	return o->end - o->at + o->lent_len;
}

/* Where len bytes may be put, then out_added(); NULL when out of memory. */
char *out_room(struct out *o, size_t len);
static inline void out_added(struct out *o, size_t len)
{
	o->end += len;
}
/* 0, or -1 when out of memory. */
int out_append(struct out *o, const void *data, size_t len);
/* The same for bytes that stay as they are until out_keep(). They are copied if they do not follow
 * those that were lent before, and when more is appended. */
int out_lend(struct out *o, const char *data, size_t len);
/* Copy what is still lent. 0, or -1 when out of memory. */
int out_keep(struct out *o);
/* Write what the socket takes (through tls, if not NULL: nothing may be lent then). 0, or -1 when
 * the connection is broken. */
struct tls_session;
int out_write(struct out *o, int fd, struct tls_session *tls);
void out_free(struct out *o);

#endif
