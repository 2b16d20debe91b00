#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/gzip.h"
#include "gatewayd/gzip_base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static size_t compressed(struct span data, struct span extra)
{
	struct buf out = BUF_INIT(1 << 20), back = BUF_INIT(1 << 20);
	struct span found;
	assert_int_equal(gzip_base64_compress(data, extra, &out), 0);
	struct span member = {(char *)out.data, out.len};
	assert_int_equal(gzip_decompress(member, &back, &found), GZIP_OK);
	assert_int_equal(back.len, data.len);
	assert_true(data.len == 0 || memcmp(back.data, data.data, data.len) == 0);
	assert_int_equal(found.len, extra.len);
	assert_true(extra.len == 0 || memcmp(found.data, extra.data, extra.len) == 0);
	size_t len = out.len;
	buf_free(&out);
	buf_free(&back);
	return len;
}

static void test_every_length(void **state)
{
	(void)state;
	char text[300];
	for (size_t i = 0; i < sizeof text; i++)
		text[i] = alphabet[rand() % 64];
	for (size_t len = 0; len <= sizeof text; len++)
		compressed((struct span){text, len}, (struct span){0});
}

static void test_every_byte(void **state)
{
	(void)state;
	char text[1024];
	for (size_t i = 0; i < sizeof text; i++)
		text[i] = (char)i;
	compressed((struct span){text, sizeof text}, SPAN_LITERAL("EG\x03\0abc"));
	for (int byte = 0; byte < 256; byte++) {
		memset(text, byte, 100);
		compressed((struct span){text, 100}, (struct span){0});
	}
}

static void test_size(void **state)
{
	(void)state;
	char text[8192];
	for (size_t i = 0; i < sizeof text; i++)
		text[i] = alphabet[rand() % 64];
	/* Six bits a character, one more for each '/', and what every member has. */
	size_t len = compressed((struct span){text, sizeof text}, (struct span){0});
	assert_in_range(len, 6144, 6144 + 128 / 8 + 16 + 100);
	/* The same input makes the same bytes. */
	assert_int_equal(compressed((struct span){text, sizeof text}, (struct span){0}), len);
}

static void test_limits(void **state)
{
	(void)state;
	static char extra[65536];
	struct buf out = BUF_INIT(1 << 20), small = BUF_INIT(64);
	compressed(SPAN_LITERAL("AAAA"), (struct span){extra, 65535});
	assert_int_equal(
		gzip_base64_compress(SPAN_LITERAL("A"), (struct span){extra, 65536}, &out), -1);
	assert_true(buf_failed(&out));
	assert_int_equal(gzip_base64_compress(SPAN_LITERAL("A"), (struct span){0}, &small), -1);
	assert_true(buf_failed(&small));
	assert_int_equal(small.len, 0);
	buf_free(&out);
	buf_free(&small);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
