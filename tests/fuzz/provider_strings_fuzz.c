/* The first byte says how an answer is cut, the second how many vectors it may have; the rest is
 * the answer. Whatever the cuts, the same strings are taken out, and put back they give every byte
 * of it. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/provider_strings.h"
#include "gatewayd/vector.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void arrive(struct provider_strings *strings, struct buf *body, const uint8_t *data,
	size_t size, size_t piece)
{
	for (size_t at = 0; at < size; at += piece) {
		size_t len = size - at < piece ? size - at : piece;
		BUG_ON(buf_append(body, data + at, len));
		provider_strings_read(strings, body);
	}
}

static void put_back(struct provider_strings *strings, const struct buf *body, struct buf *whole)
{
	size_t from = 0;
	for (size_t i = 0; i < strings->n; i++) {
		size_t at = strings->list[i].at;
		BUG_ON(at < from || at + 2 > body->len || memcmp(body->data + at, "\"\"", 2) != 0);
		uint32_t dims;
		float *values = provider_strings_take(strings, at, &dims);
		BUG_ON(!values || provider_strings_take(strings, at, &dims));
		BUG_ON(buf_append(whole, body->data + from, at + 1 - from));
		BUG_ON(vector_floats_append_base64(values, dims, whole));
		from = at + 1;
		free(values);
	}
	BUG_ON(buf_append(whole, body->data + from, body->len - from));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size <= 2)
		return 0;
	size_t piece = data[0] ? data[0] : 4096, max = data[1];
	data += 2;
	size -= 2;
	struct provider_strings at_once, cut;
	struct buf body = BUF_INIT(size + 1), pieces = BUF_INIT(size + 1),
		   whole = BUF_INIT(size + 1);
	provider_strings_init(&at_once, max);
	provider_strings_init(&cut, max);
	arrive(&at_once, &body, data, size, size + 1);
	arrive(&cut, &pieces, data, size, piece);
	BUG_ON(at_once.n != cut.n || cut.n > max);
	BUG_ON(body.len != pieces.len ||
		(body.len && memcmp(body.data, pieces.data, body.len) != 0));
	put_back(&cut, &pieces, &whole);
	BUG_ON(whole.len != size || (size && memcmp(whole.data, data, size) != 0));
	provider_strings_free(&at_once);
	provider_strings_free(&cut);
	buf_free(&body);
	buf_free(&pieces);
	buf_free(&whole);
	return 0;
}
