/* The first byte says how a body is cut, the second how much is made at a time; the rest is the
 * body. Whatever both are, it decodes to the same, nothing passes the ceiling, and what is made at
 * a time stays near what was asked for. */
#include <stdlib.h>
#include <string.h>

#include "common/http_inflate.h"
#include "common/log.h"

#define CEILING    100000
#define STEP_BYTES (32u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* True: the body was good, to its end. */
static bool decode(const char *data, size_t size, size_t piece, size_t most, struct buf *out)
{
	struct http_inflate *decoder = http_inflate_new(SPAN_LITERAL("gzip"));
	BUG_ON(!decoder);
	bool good = true;
	for (size_t at = 0; good && at < size; at += piece) {
		struct span bytes = {data + at, size - at < piece ? size - at : piece};
		enum http_inflate_progress progress;
		do {
			size_t before = out->len;
			progress = http_inflate_piece(decoder, bytes, most, out);
			BUG_ON(progress != HTTP_INFLATE_BAD &&
				out->len - before > most + STEP_BYTES);
			BUG_ON(progress == HTTP_INFLATE_FULL && out->len - before < most);
		} while (progress == HTTP_INFLATE_FULL);
		good = progress == HTTP_INFLATE_MORE;
	}
	good = good && http_inflate_ended(decoder);
	http_inflate_free(&decoder);
	BUG_ON(decoder || out->len > CEILING);
	return good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	size_t piece = data[0] ? data[0] : 4096, most = (size_t)data[1] * 64 + 1;
	const char *body = (const char *)data + 2;
	size -= 2;
	struct buf at_once = BUF_INIT(CEILING), cut = BUF_INIT(CEILING);
	bool good = decode(body, size, size + 1, SIZE_MAX / 2, &at_once);
	bool good_cut = decode(body, size, piece, most, &cut);
	BUG_ON(good != good_cut || buf_failed(&at_once) != buf_failed(&cut));
	BUG_ON(good && (at_once.len != cut.len ||
			       (cut.len && memcmp(at_once.data, cut.data, cut.len) != 0)));
	buf_free(&at_once);
	buf_free(&cut);
	return 0;
}
