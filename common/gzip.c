#include "common/gzip.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include <zlib.h>

/* windowBits of the widest window, and zlib's way to ask for the gzip wrapper. */
#define GZIP_WINDOW (15 + 16)
#define OS_UNKNOWN  255
#define EXTRA_MAX   65535

/* The fixed head of a member: magic, method, flags, mtime, extra flags, OS. */
#define HEAD_BYTES 10
#define HEAD_FLAGS 3
#define FLAG_EXTRA 4
#define TAIL_BYTES 8

/* Deflate cannot do better than this: 258 bytes by two bits. */
#define BEST_RATIO 1032
/* Least room to offer at a time. */
#define STEP_BYTES 4096
/* zlib counts in unsigned int. */
#define ZLIB_MAX ((size_t)1 << 30)

/*
 * The streams of a thread, kept from call to call: a compressor is 256 KiB to allocate and fault
 * in, which costs more than an 8 KB body. Freed when the thread ends.
 */
struct streams {
	z_stream deflate, inflate;
	bool can_deflate, can_inflate;
	int level;
};
static _Thread_local struct streams *thread_streams;
static pthread_key_t thread_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool have_key;

static void free_streams(void *arg)
{
	struct streams *s = arg;
	if (s->can_deflate)
		deflateEnd(&s->deflate);
	if (s->can_inflate)
		inflateEnd(&s->inflate);
	free(s);
}

static void start(void)
{
	have_key = pthread_key_create(&thread_key, free_streams) == 0;
}

static struct streams *streams(void)
{
	if (thread_streams)
		return thread_streams;
	pthread_once(&once, start);
	if (!have_key)
		return NULL;
	struct streams *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	if (pthread_setspecific(thread_key, s) != 0) {
		free(s);
		return NULL;
	}
	thread_streams = s;
	return s;
}

static z_stream *deflater(int level)
{
	struct streams *s = streams();
	if (!s)
		return NULL;
	if (!s->can_deflate) {
		if (deflateInit2(&s->deflate, level, Z_DEFLATED, GZIP_WINDOW, 8,
			    Z_DEFAULT_STRATEGY) != Z_OK)
			return NULL;
		s->can_deflate = true;
		s->level = level;
		return &s->deflate;
	}
	/* The last call's header was on its stack. */
	if (deflateReset(&s->deflate) != Z_OK || deflateSetHeader(&s->deflate, NULL) != Z_OK)
		return NULL;
	if (s->level != level) {
		if (deflateParams(&s->deflate, level, Z_DEFAULT_STRATEGY) != Z_OK)
			return NULL;
		s->level = level;
	}
	return &s->deflate;
}

static z_stream *inflater(void)
{
	struct streams *s = streams();
	if (!s)
		return NULL;
	if (!s->can_inflate) {
		if (inflateInit2(&s->inflate, GZIP_WINDOW) != Z_OK)
			return NULL;
		s->can_inflate = true;
	}
	return &s->inflate;
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t most(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Lend zlib what is left of data, as far as it can count. */
static void feed(z_stream *z, struct span data, size_t used)
{
	z->next_in = used < data.len ? (Bytef *)(uintptr_t)(data.data + used) : NULL;
	z->avail_in = (uInt)least(data.len - used, ZLIB_MAX);
}

static int fail(struct buf *out, size_t start_len)
{
	out->len = start_len;
	out->failed = true;
	return -1;
}

int gzip_compress(struct span data, struct span extra, int level, struct buf *out)
{
	size_t start_len = out->len;
	if (out->failed)
		return -1;
	z_stream *z = deflater(level);
	if (!z || extra.len > EXTRA_MAX)
		return fail(out, start_len);
	gz_header header = {.os = OS_UNKNOWN};
	if (extra.len) {
		header.extra = (Bytef *)(uintptr_t)extra.data;
		header.extra_len = (uInt)extra.len;
	}
	if (deflateSetHeader(z, &header) != Z_OK)
		return fail(out, start_len);

	size_t used = 0;
	size_t want = deflateBound(z, least(data.len, ZLIB_MAX));
	int rc = Z_OK;
	while (rc != Z_STREAM_END) {
		size_t room = least(least(want, out->max_len - out->len), ZLIB_MAX);
		Bytef *to = room ? buf_reserve(out, room) : NULL;
		if (!to)
			return fail(out, start_len);
		feed(z, data, used);
		z->next_out = to;
		z->avail_out = (uInt)room;
		size_t offered = z->avail_in;
		rc = deflate(z, used + offered == data.len ? Z_FINISH : Z_NO_FLUSH);
		if (rc == Z_STREAM_ERROR)
			return fail(out, start_len);
		used += offered - z->avail_in;
		buf_commit(out, room - z->avail_out);
		want = STEP_BYTES + data.len - used;
	}
	return 0;
}

/* -1 when the head says that there is a field and it is cut off; the rest of the head is zlib's to
 * check. */
static int find_extra(struct span data, struct span *extra)
{
	*extra = (struct span){0};
	const uint8_t *head = (const uint8_t *)data.data;
	if (data.len < HEAD_BYTES)
		return -1;
	if (!(head[HEAD_FLAGS] & FLAG_EXTRA))
		return 0;
	if (data.len < HEAD_BYTES + 2)
		return -1;
	size_t len = (size_t)head[HEAD_BYTES] | (size_t)head[HEAD_BYTES + 1] << 8;
	if (data.len - HEAD_BYTES - 2 < len)
		return -1;
	*extra = (struct span){data.data + HEAD_BYTES + 2, len};
	return 0;
}

/* How much room to start with: what the tail claims, as far as it can be true. */
static size_t guess_content(struct span data)
{
	if (data.len < HEAD_BYTES + TAIL_BYTES)
		return STEP_BYTES;
	const uint8_t *tail = (const uint8_t *)data.data + data.len - 4;
	size_t claimed = (size_t)tail[0] | (size_t)tail[1] << 8 | (size_t)tail[2] << 16 |
			 (size_t)tail[3] << 24;
	return claimed / BEST_RATIO <= data.len ? claimed : data.len;
}

/* Decode one member from data at *used, which moves past it. */
static enum gzip_error inflate_member(
	z_stream *z, struct span data, size_t *used, size_t want, struct buf *out)
{
	if (inflateReset(z) != Z_OK)
		return GZIP_BAD;
	for (;;) {
		/* At the ceiling the member may still end well: one byte beside the buffer tells.
		 */
		Bytef beyond;
		size_t room = least(least(want, out->max_len - out->len), ZLIB_MAX);
		bool full = room == 0;
		Bytef *to = full ? &beyond : buf_reserve(out, room);
		if (!to)
			return GZIP_TOO_LARGE;
		room = full ? 1 : room;
		feed(z, data, *used);
		z->next_out = to;
		z->avail_out = (uInt)room;
		size_t offered = z->avail_in;
		int rc = inflate(z, Z_NO_FLUSH);
		*used += offered - z->avail_in;
		size_t made = room - z->avail_out;
		if (full && made)
			return GZIP_TOO_LARGE;
		if (!full)
			buf_commit(out, made);
		if (rc == Z_STREAM_END)
			return GZIP_OK;
		if (rc == Z_MEM_ERROR)
			return GZIP_TOO_LARGE;
		/* Z_BUF_ERROR: nothing more to read. So does input that is used up with room left.
		 */
		if (rc != Z_OK || (*used == data.len && z->avail_out))
			return GZIP_BAD;
		want = most(STEP_BYTES, out->len);
	}
}

enum gzip_error gzip_decompress(struct span data, struct buf *out, struct span *extra)
{
	size_t start_len = out->len;
	struct span found = {0};
	if (extra)
		*extra = found;
	if (out->failed)
		return GZIP_TOO_LARGE;
	z_stream *z = inflater();
	enum gzip_error error = z ? GZIP_OK : GZIP_TOO_LARGE;
	if (z && find_extra(data, &found) != 0)
		error = GZIP_BAD;
	size_t used = 0;
	size_t want = most(guess_content(data), 1);
	while (error == GZIP_OK && used < data.len) {
		error = inflate_member(z, data, &used, want, out);
		want = STEP_BYTES;
	}
	if (error != GZIP_OK) {
		out->len = start_len;
		out->failed = error == GZIP_TOO_LARGE;
		return error;
	}
	if (extra)
		*extra = found;
	return GZIP_OK;
}
