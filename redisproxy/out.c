#include "redisproxy/out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "redisproxy/tls.h"

#define FIRST_CAPACITY 512
#define KEPT_CAPACITY  1024
#define LARGE          (1 << 20) /* the heap moves such a block by its pages */

/* Room behind what is here; what is lent does not count. */
static char *make_room(struct out *o, size_t len)
{
	size_t pending = o->end - o->at;

	if (o->capacity && o->capacity - o->end >= len)
		return o->data + o->end;
	if (o->at && o->capacity - pending >= len && o->at >= pending) {
		memmove(o->data, o->data + o->at, pending);
	} else if (pending >= LARGE && o->at < pending) {
		size_t capacity = 2 * o->capacity;

		while (capacity - o->end < len)
			capacity *= 2;
		char *data = realloc(o->data, capacity);

		if (!data)
			return NULL;
		o->data = data;
		o->capacity = capacity;
		return o->data + o->end;
	} else {
		size_t capacity = o->capacity ? o->capacity : FIRST_CAPACITY;

		/* Where a part was sent it is a queue that moves: room for its moves to be worth
		 * it. */
		while (capacity - pending < len || (o->at && capacity < 2 * (pending + len)))
			capacity *= 2;
		char *data = malloc(capacity);

		if (!data)
			return NULL;
		if (pending)
			memcpy(data, o->data + o->at, pending);
		free(o->data);
		o->data = data;
		o->capacity = capacity;
	}
	o->at = 0;
	o->end = pending;
	return o->data + o->end;
}

static int append(struct out *o, const void *data, size_t len)
{
	char *room = make_room(o, len);

	if (!room)
		return -1;
	if (len)
		memcpy(room, data, len);
	o->end += len;
	return 0;
}

int out_keep(struct out *o)
{
	if (!o->lent_len)
		return 0;
	if (append(o, o->lent, o->lent_len) < 0)
		return -1;
	o->lent_len = 0;
	return 0;
}

char *out_room(struct out *o, size_t len)
{
	return out_keep(o) < 0 ? NULL : make_room(o, len);
}

int out_append(struct out *o, const void *data, size_t len)
{
	return out_keep(o) < 0 ? -1 : append(o, data, len);
}

int out_lend(struct out *o, const char *data, size_t len)
{
	if (o->lent_len && o->lent + o->lent_len != data && out_keep(o) < 0)
		return -1;
	if (!o->lent_len)
		o->lent = data;
	o->lent_len += len;
	return 0;
}

static ssize_t write_once(struct out *o, int fd, struct tls_session *tls)
{
	char *data = o->data + o->at;
	size_t len = o->end - o->at;

	if (tls)
		return tls_write(tls, data, len);
	if (!o->lent_len)
		return send(fd, data, len, MSG_NOSIGNAL);
	struct iovec parts[] = {{data, len}, {(char *)o->lent, o->lent_len}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

	if (!len) {
		message.msg_iov++;
		message.msg_iovlen--;
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL);
}

static void written(struct out *o, size_t n)
{
	size_t own = o->end - o->at < n ? o->end - o->at : n;

	o->at += own;
	o->lent += n - own;
	o->lent_len -= n - own;
}

int out_write(struct out *o, int fd, struct tls_session *tls)
{
	while (out_pending(o)) {
		ssize_t n = write_once(o, fd, tls);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
		written(o, (size_t)n);
		/* A socket that took a part takes no more now; TLS takes a record at a time. */
		if (out_pending(o) && !tls)
			return 0;
	}
	o->at = o->end = 0;
	if (o->capacity > (o->keeps ? o->keeps : KEPT_CAPACITY))
		out_free(o);
	return 0;
}

void out_free(struct out *o)
{
	free(o->data);
	*o = (struct out){.keeps = o->keeps};
}
