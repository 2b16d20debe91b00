/* Frames end at the same place wherever the bytes are cut; what is accepted can be walked over. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "redisproxy/resp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool condition)
{
	if (!condition)
		abort();
}

/* An exact copy, so that a sanitizer sees a read beyond the end. */
static char *copy_of(const char *text, size_t len)
{
	char *copy = malloc(len ? len : 1);
	must(copy != NULL);
	memcpy(copy, text, len);
	return copy;
}

static void try_command(const char *text, size_t len, size_t cut)
{
	struct resp_command whole = {0}, pieces = {0};
	const char *error = NULL, *later_error = NULL;
	char *first = copy_of(text, cut);
	enum resp_result result = resp_command_scan(&whole, text, len, &error);
	enum resp_result early = resp_command_scan(&pieces, first, cut, &later_error);
	must(whole.at <= len && pieces.at <= cut);
	if (early == RESP_MORE) {
		size_t gone = pieces.at;
		resp_command_forget(&pieces, gone);
		early = resp_command_scan(&pieces, text + gone, len - gone, &later_error);
		pieces.at += gone;
	}
	must(early == result && (result == RESP_BAD || pieces.at == whole.at));
	must(result != RESP_BAD || strcmp(error, later_error) == 0);
	if (result == RESP_COMPLETE && whole.argc) {
		struct resp_arguments a = resp_arguments_of(text);
		struct span arg;
		uint32_t n = 0;
		while (resp_arguments_next(&a, &arg)) {
			must(arg.data + arg.len + 2 <= text + whole.at);
			n++;
		}
		must(n == whole.argc && a.at == text + whole.at);
	}
	free(first);
}

static void try_reply(const char *text, size_t len, size_t cut)
{
	struct resp_reply whole = {0}, pieces = {0};
	size_t used, first_used, rest = 0;
	char *first = copy_of(text, cut);
	enum resp_result result = resp_reply_scan(&whole, text, len, &used);
	enum resp_result early = resp_reply_scan(&pieces, first, cut, &first_used);
	must(used <= len && first_used <= cut);
	if (early == RESP_MORE) {
		must(cut - first_used < 32);
		early = resp_reply_scan(&pieces, text + first_used, len - first_used, &rest);
	}
	must(early == result && (result == RESP_BAD || first_used + rest == used));
	free(first);
}

static void try_inline(const char *text, size_t len)
{
	struct buf frame = BUF_INIT(8 << 20);
	const char *error;
	size_t used = 0;
	if (resp_inline(text, len, &used, &frame, &error) == RESP_COMPLETE) {
		must(used <= len && used > 0);
		if (frame.len) {
			struct resp_command s = {0};
			must(resp_command_scan(&s, (const char *)frame.data, frame.len, &error) ==
				RESP_COMPLETE);
			must(s.at == frame.len);
		}
	}
	buf_free(&frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len < 1)
		return 0;
	/* The last byte says where the cut is. */
	size_t n = len - 1;
	char *text = copy_of((const char *)data, n);
	size_t cut = n ? data[n] % (n + 1) : 0;
	try_command(text, n, cut);
	try_reply(text, n, cut);
	try_inline(text, n);
	free(text);
	return 0;
}
