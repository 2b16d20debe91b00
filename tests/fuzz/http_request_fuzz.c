/* Whatever comes, and wherever it is cut, the parser says the same about it. */
#include <stdint.h>

#include "tests/common/http_transcript.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const char *text = (const char *)data;
	struct transcript whole, cut;
	transcript_make(&whole, HTTP_REQUEST, text, len, len, len ? len : 1);
	/* The input itself says where the cuts are. */
	size_t first = len ? data[len - 1] : 0, step = len > 1 ? data[len - 2] % 16 + 1 : 1;
	transcript_make(&cut, HTTP_REQUEST, text, len, first, step);
	if (whole.text.len != cut.text.len ||
		memcmp(whole.text.data, cut.text.data, cut.text.len) != 0)
		abort();
	transcript_free(&whole);
	transcript_free(&cut);
	return 0;
}
