#include "redisproxy/out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "redisproxy/tls.h"

#define FIRST_CAPACITY 512
#define KEPT_CAPACITY  1024

char *out_room(struct out *o, size_t len)
{
	size_t pending = out_pending(o);

	if (o->capacity && o->capacity - o->end >= len)
		return o->data + o->end;
	if (o->at && o->capacity - pending >= len && o->at >= pending) {
		memmove(o->data, o->data + o->at, pending);
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

int out_append(struct out *o, const void *data, size_t len)
{
	char *room = out_room(o, len);

	if (!room)
		return -1;
	if (len)
		memcpy(room, data, len);
	o->end += len;
	return 0;
}

int out_write(struct out *o, int fd, struct tls_session *tls)
{
	while (out_pending(o)) {
		ssize_t n = tls ? tls_write(tls, o->data + o->at, out_pending(o))
				: send(fd, o->data + o->at, out_pending(o), MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
		o->at += (size_t)n;
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
