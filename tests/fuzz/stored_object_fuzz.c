/* Any bytes as a stored object; what is accepted must say the same after another round. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/gzip.h"
#include "common/log.h"
#include "gatewayd/stored_object.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct span span_of_buf(const struct buf *b)
{
	return (struct span){(const char *)b->data, b->len};
}

static void round_trip(const struct stored_fields *fields)
{
	struct buf bytes = BUF_INIT(STORED_OBJECT_MAX_BYTES);
	struct stored_object again;
	/* What else a store may hold than what is written: parameters that are no object, and
	 * contents whose escapes take more room. */
	if (stored_object_encode(fields, &bytes) == 0) {
		BUG_ON(stored_object_decode(span_of_buf(&bytes), &fields->key, &again) !=
			STORED_OK);
		BUG_ON(!span_equal(again.fields.vector, fields->vector));
		BUG_ON(!span_equal(again.fields.params, fields->params));
		BUG_ON(again.fields.dims != fields->dims);
		stored_object_free(&again);
	}
	buf_free(&bytes);
}

static void decode(struct span bytes)
{
	struct stored_object object;
	if (stored_object_decode(bytes, NULL, &object) == STORED_OK)
		round_trip(&object.fields);
	stored_object_free(&object);
}

/* As it is; and, since a fuzzer does not find sums, packed: length of FEXTRA, FEXTRA, content. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	decode((struct span){(const char *)data, size});
	if (size < 2)
		return 0;
	size_t extra_len = (size_t)data[0] | (size_t)data[1] << 8;
	if (extra_len > size - 2)
		return 0;
	struct buf packed = BUF_INIT(1 << 20);
	struct span extra = {(const char *)data + 2, extra_len},
		    content = {(const char *)data + 2 + extra_len, size - 2 - extra_len};
	if (gzip_compress(content, extra, 1, &packed) == 0)
		decode(span_of_buf(&packed));
	buf_free(&packed);
	return 0;
}
