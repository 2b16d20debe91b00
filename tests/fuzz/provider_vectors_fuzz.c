/* The first byte says how an answer is cut, the second how many vectors it may have; the rest is
 * the answer. Whatever the cuts, the same vectors are taken out, and put back they give every byte
 * of it. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/provider_vectors.h"
#include "gatewayd/vector.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void arrive(struct provider_vectors *vectors, struct buf *body, const uint8_t *data,
	size_t size, size_t piece)
{
	for (size_t at = 0; at < size; at += piece) {
		size_t len = size - at < piece ? size - at : piece;
		BUG_ON(buf_append(body, data + at, len));
		provider_vectors_read(vectors, body);
	}
}

/* The numbers of the array that stood here; they may be written in many ways. */
static void put_back_array(
	struct span answer, const float *values, uint32_t dims, struct buf *whole)
{
	const char *from = answer.data + whole->len;
	const char *end = memchr(from, ']', answer.len - whole->len);
	BUG_ON(!end);
	uint32_t said_dims;
	float *said = vector_text_floats((struct span){from, (size_t)(end - from) + 1}, &said_dims);
	BUG_ON(!said || said_dims != dims || memcmp(said, values, dims * sizeof *said) != 0);
	free(said);
	BUG_ON(buf_append(whole, from, (size_t)(end - from)));
}

static void put_back_string(const float *values, uint32_t dims, struct buf *whole)
{
	BUG_ON(buf_append_char(whole, '"'));
	BUG_ON(vector_floats_append_base64(values, dims, whole));
}

static void put_back(struct provider_vectors *vectors, const struct buf *body, struct span answer,
	struct buf *whole)
{
	size_t from = 0;
	for (size_t i = 0; i < vectors->n; i++) {
		size_t at = vectors->list[i].at;
		BUG_ON(at < from || at + 2 > body->len);
		bool array = memcmp(body->data + at, "[]", 2) == 0;
		BUG_ON(!array && memcmp(body->data + at, "\"\"", 2) != 0);
		uint32_t dims;
		float *values = provider_vectors_take(vectors, at, &dims);
		BUG_ON(!values || provider_vectors_take(vectors, at, &dims));
		BUG_ON(buf_append(whole, body->data + from, at - from));
		if (array)
			put_back_array(answer, values, dims, whole);
		else
			put_back_string(values, dims, whole);
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
	struct provider_vectors at_once, cut;
	struct buf body = BUF_INIT(size + 1), pieces = BUF_INIT(size + 1),
		   whole = BUF_INIT(size + 1);
	provider_vectors_init(&at_once, max);
	provider_vectors_init(&cut, max);
	arrive(&at_once, &body, data, size, size + 1);
	arrive(&cut, &pieces, data, size, piece);
	BUG_ON(at_once.n != cut.n || cut.n > max);
	BUG_ON(body.len != pieces.len ||
		(body.len && memcmp(body.data, pieces.data, body.len) != 0));
	put_back(&cut, &pieces, (struct span){(const char *)data, size}, &whole);
	BUG_ON(whole.len != size || (size && memcmp(whole.data, data, size) != 0));
	provider_vectors_free(&at_once);
	provider_vectors_free(&cut);
	buf_free(&body);
	buf_free(&pieces);
	buf_free(&whole);
	return 0;
}
