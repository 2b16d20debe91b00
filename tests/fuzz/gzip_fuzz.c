/* Whatever decodes also packs and decodes to the same, and nothing passes the ceiling. */
#include <stdint.h>
#include <stdlib.h>

#include "common/gzip.h"

#define CEILING 100000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct buf out = BUF_INIT(CEILING), packed = BUF_INIT(2 * CEILING),
		   again = BUF_INIT(CEILING);
	struct span extra, extra_again;
	enum gzip_error error = gzip_decompress(
		(struct span){(const char *)data, len}, &out, &extra);
	if (error != GZIP_OK && out.len != 0)
		abort();
	if (error == GZIP_OK) {
		struct span plain = {(const char *)out.data, out.len};
		if (gzip_compress(plain, extra, 1, &packed) != 0)
			abort();
		struct span member = {(const char *)packed.data, packed.len};
		if (gzip_decompress(member, &again, &extra_again) != GZIP_OK)
			abort();
		struct span plain_again = {(const char *)again.data, again.len};
		if (!span_equal(plain, plain_again) || !span_equal(extra, extra_again))
			abort();
	}
	buf_free(&out);
	buf_free(&packed);
	buf_free(&again);
	return 0;
}
