#include "common/http_server_private.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/log.h"

#define MAX_VECTORS 64

void http_output_init(struct http_output *out)
{
	out->items = out->inline_items;
	out->first = 0;
	out->count = 0;
	out->capacity = HTTP_INLINE_ITEMS;
	out->queued_bytes = 0;
	out->body_bytes = 0;
}

/* Room for one more at the end. */
static int make_room(struct http_output *out)
{
	if (out->first + out->count < out->capacity)
		return 0;
	if (out->first > 0) {
		memmove(out->items, out->items + out->first, out->count * sizeof *out->items);
		out->first = 0;
		return 0;
	}
	size_t capacity = out->capacity * 2;
	struct http_item *items = malloc(capacity * sizeof *items);
	if (!items)
		return -1;
	memcpy(items, out->items, out->count * sizeof *items);
	if (out->items != out->inline_items)
		free(out->items);
	out->items = items;
	out->capacity = capacity;
	return 0;
}

int http_output_add(struct http_output *out, const char *prefix, size_t prefix_len,
	struct slice slice, bool is_body)
{
	BUG_ON(prefix_len > HTTP_PREFIX_BYTES);
	if (prefix_len == 0 && slice.len_bytes == 0) {
		slice_release(&slice);
		return 0;
	}
	if (make_room(out)) {
		slice_release(&slice);
		return -1;
	}
	struct http_item *item = &out->items[out->first + out->count++];
	item->slice = slice;
	item->slice_done_bytes = 0;
	item->prefix_len = (uint8_t)prefix_len;
	item->prefix_done = 0;
	item->is_body = is_body;
	if (prefix_len)
		memcpy(item->prefix, prefix, prefix_len);
	out->queued_bytes += slice.len_bytes;
	return 0;
}

/* Adds a vector, of what *total leaves of HTTP_WRITE_BYTES. */
static size_t add_vector(
	struct iovec *vectors, size_t n, const char *data, size_t len, size_t *total)
{
	if (len > HTTP_WRITE_BYTES - *total)
		len = HTTP_WRITE_BYTES - *total;
	if (len == 0)
		return n;
	vectors[n] = (struct iovec){(char *)data, len};
	*total += len;
	return n + 1;
}

static size_t fill_vectors(const struct http_output *out, struct iovec *vectors, size_t *total)
{
	size_t n = 0;
	*total = 0;
	for (size_t i = 0; i < out->count && n + 2 <= MAX_VECTORS; i++) {
		const struct http_item *item = &out->items[out->first + i];
		n = add_vector(vectors, n, item->prefix + item->prefix_done,
			(size_t)(item->prefix_len - item->prefix_done), total);
		n = add_vector(vectors, n, (const char *)item->slice.data + item->slice_done_bytes,
			item->slice.len_bytes - item->slice_done_bytes, total);
	}
	return n;
}

static void consume(struct http_output *out, size_t len)
{
	while (out->count > 0) {
		struct http_item *item = &out->items[out->first];
		size_t n = (size_t)(item->prefix_len - item->prefix_done);
		if (n > len)
			n = len;
		item->prefix_done = (uint8_t)(item->prefix_done + n);
		len -= n;

		n = item->slice.len_bytes - item->slice_done_bytes;
		if (n > len)
			n = len;
		item->slice_done_bytes += n;
		out->queued_bytes -= n;
		if (item->is_body)
			out->body_bytes += n;
		len -= n;
		if (item->prefix_done < item->prefix_len ||
			item->slice_done_bytes < item->slice.len_bytes)
			return;

		struct slice slice = item->slice;
		out->count--;
		out->first = out->count > 0 ? out->first + 1 : 0;
		slice_release(&slice);
	}
}

enum http_flush http_output_flush(struct http_output *out, int fd, bool *wrote)
{
	*wrote = false;
	for (size_t written = 0; out->count > 0;) {
		if (written >= HTTP_WRITE_BYTES)
			return HTTP_FLUSH_MORE;
		struct iovec vectors[MAX_VECTORS];
		struct msghdr message = {.msg_iov = vectors};
		size_t total;
		message.msg_iovlen = fill_vectors(out, vectors, &total);
		ssize_t n;
		do
			n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		while (n < 0 && errno == EINTR);
		if (n < 0)
			return errno == EAGAIN || errno == ENOBUFS ? HTTP_FLUSH_BLOCKED
								   : HTTP_FLUSH_FAILED;
		*wrote = true;
		written += (size_t)n;
		consume(out, (size_t)n);
		if ((size_t)n < total)
			return HTTP_FLUSH_BLOCKED;
	}
	return HTTP_FLUSHED;
}

int http_output_unsent(int fd)
{
	int n;
	return ioctl(fd, SIOCOUTQ, &n) ? 0 : n;
}

void http_output_free(struct http_output *out)
{
	while (out->count > 0) {
		struct slice slice = out->items[out->first].slice;
		out->first++;
		out->count--;
		slice_release(&slice);
	}
	if (out->items != out->inline_items)
		free(out->items);
	http_output_init(out);
}
