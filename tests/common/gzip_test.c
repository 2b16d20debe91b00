#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "common/gzip.h"

#define ROOMY (8u << 20)

static struct span content_of(const struct buf *b)
{
	return (struct span){(const char *)b->data, b->len};
}

/* Bytes that deflate can shorten, but not to nothing. */
static void fill(char *data, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1103515245 + 12345;
		data[i] = (char)('a' + (seed >> 16) % 12);
	}
}

static void test_round_trip_of_many_sizes(void **state)
{
	(void)state;
	static const size_t sizes[] = {0, 1, 2, 31, 4095, 4096, 4097, 70000, 300000};
	static char data[300000];
	fill(data, sizeof data, 1);
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		for (int level = 1; level <= 9; level += 4) {
			struct span plain = {data, sizes[i]};
			struct buf packed = BUF_INIT(ROOMY), unpacked = BUF_INIT(sizes[i]);
			assert_int_equal(
				gzip_compress(plain, SPAN_LITERAL("tag"), level, &packed), 0);
			struct span extra;
			assert_int_equal(
				gzip_decompress(content_of(&packed), &unpacked, &extra), GZIP_OK);
			assert_true(span_equal(content_of(&unpacked), plain));
			assert_true(span_equal_str(extra, "tag"));
			assert_ptr_equal(extra.data, packed.data + 12);
			buf_free(&packed);
			buf_free(&unpacked);
		}
	}
}

static void test_appends_to_what_is_there(void **state)
{
	(void)state;
	struct buf packed = BUF_INIT(ROOMY), unpacked = BUF_INIT(ROOMY);
	buf_append_str(&packed, "before");
	assert_int_equal(gzip_compress(SPAN_LITERAL("abc"), (struct span){0}, 6, &packed), 0);
	assert_memory_equal(packed.data, "before\x1f\x8b", 8);
	buf_append_str(&unpacked, "xyz");
	struct span member = {(const char *)packed.data + 6, packed.len - 6};
	assert_int_equal(gzip_decompress(member, &unpacked, NULL), GZIP_OK);
	assert_true(span_equal_str(content_of(&unpacked), "xyzabc"));
	buf_free(&packed);
	buf_free(&unpacked);
}

/* The stream of a thread is used again: neither the call before, nor its level, may show. */
static void test_same_input_same_bytes(void **state)
{
	(void)state;
	static char data[20000], other[50000];
	fill(data, sizeof data, 7);
	fill(other, sizeof other, 8);
	for (int level = 1; level <= 9; level++) {
		struct buf first = BUF_INIT(ROOMY), again = BUF_INIT(ROOMY),
			   noise = BUF_INIT(ROOMY);
		struct span plain = {data, sizeof data};
		assert_int_equal(gzip_compress(plain, SPAN_LITERAL("e"), level, &first), 0);
		assert_int_equal(gzip_compress((struct span){other, sizeof other}, (struct span){0},
					 10 - level, &noise),
			0);
		assert_int_equal(gzip_compress(plain, SPAN_LITERAL("e"), level, &again), 0);
		assert_true(span_equal(content_of(&first), content_of(&again)));
		/* Flags: FEXTRA alone; mtime 0; OS 255. */
		assert_int_equal(first.data[3], 4);
		assert_memory_equal(first.data + 4, "\0\0\0\0", 4);
		assert_int_equal(first.data[9], 255);
		buf_free(&first);
		buf_free(&again);
		buf_free(&noise);
	}
}

static void test_compress_keeps_to_the_ceiling(void **state)
{
	(void)state;
	static char data[3000];
	fill(data, sizeof data, 3);
	struct span plain = {data, sizeof data};
	struct buf whole = BUF_INIT(ROOMY);
	assert_int_equal(gzip_compress(plain, (struct span){0}, 6, &whole), 0);
	for (size_t max = 0; max < whole.len; max++) {
		struct buf out = BUF_INIT(max + 2);
		buf_append_str(&out, "ab");
		assert_int_equal(gzip_compress(plain, (struct span){0}, 6, &out), -1);
		assert_true(buf_failed(&out));
		assert_true(span_equal_str(content_of(&out), "ab"));
		assert_int_equal(gzip_compress(plain, (struct span){0}, 6, &out), -1);
		buf_free(&out);
	}
	struct buf exact = BUF_INIT(whole.len);
	assert_int_equal(gzip_compress(plain, (struct span){0}, 6, &exact), 0);
	assert_true(span_equal(content_of(&exact), content_of(&whole)));
	buf_free(&exact);
	buf_free(&whole);
}

static void test_extra_of_every_length(void **state)
{
	(void)state;
	static char data[65536];
	fill(data, sizeof data, 5);
	static const size_t sizes[] = {0, 1, 255, 256, 65534, 65535};
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		struct buf packed = BUF_INIT(ROOMY), unpacked = BUF_INIT(100);
		struct span extra = {data, sizes[i]}, found;
		assert_int_equal(gzip_compress(SPAN_LITERAL("text"), extra, 6, &packed), 0);
		assert_int_equal(gzip_decompress(content_of(&packed), &unpacked, &found), GZIP_OK);
		assert_true(span_equal(found, extra));
		assert_true((found.data == NULL) == (sizes[i] == 0));
		buf_free(&packed);
		buf_free(&unpacked);
	}
	struct buf packed = BUF_INIT(ROOMY);
	assert_int_equal(
		gzip_compress(SPAN_LITERAL("text"), (struct span){data, 65536}, 6, &packed), -1);
	assert_int_equal(packed.len, 0);
}

static void test_cut_at_every_byte(void **state)
{
	(void)state;
	static char data[500];
	fill(data, sizeof data, 9);
	struct buf packed = BUF_INIT(ROOMY);
	assert_int_equal(
		gzip_compress((struct span){data, 500}, SPAN_LITERAL("extra"), 6, &packed), 0);
	for (size_t len = 0; len < packed.len; len++) {
		/* A copy of the exact size, so that a sanitizer sees a read past the cut. */
		char *cut = malloc(len ? len : 1);
		if (len)
			memcpy(cut, packed.data, len);
		struct buf out = BUF_INIT(ROOMY);
		buf_append_str(&out, "kept");
		struct span extra;
		assert_int_equal(
			gzip_decompress((struct span){len ? cut : NULL, len}, &out, &extra),
			GZIP_BAD);
		assert_null(extra.data);
		assert_false(buf_failed(&out));
		assert_true(span_equal_str(content_of(&out), "kept"));
		buf_free(&out);
		free(cut);
	}
	buf_free(&packed);
}

#define TEXT "some text, some more text"

static void test_every_flipped_bit_is_noticed(void **state)
{
	(void)state;
	struct buf packed = BUF_INIT(ROOMY);
	unsigned unnoticed = 0;
	assert_int_equal(gzip_compress(SPAN_LITERAL(TEXT), SPAN_LITERAL("xx"), 6, &packed), 0);
	for (size_t bit = 0; bit < packed.len * 8; bit++) {
		/* mtime, extra flags, OS and the extra bytes are free to change. */
		size_t at = bit / 8;
		if ((at >= 4 && at <= 9) || at == 12 || at == 13)
			continue;
		packed.data[at] ^= (uint8_t)(1 << bit % 8);
		struct buf out = BUF_INIT(ROOMY);
		enum gzip_error error = gzip_decompress(content_of(&packed), &out, NULL);
		/* FTEXT and the bits after the last block, up to its byte's end, say nothing. */
		if (error == GZIP_OK)
			assert_true(span_equal_str(content_of(&out), TEXT));
		else
			assert_int_equal(error, GZIP_BAD);
		unnoticed += error == GZIP_OK;
		buf_free(&out);
		packed.data[at] ^= (uint8_t)(1 << bit % 8);
	}
	assert_in_range(unnoticed, 1, 8);
	buf_free(&packed);
}

static void test_members_in_a_row(void **state)
{
	(void)state;
	struct buf packed = BUF_INIT(ROOMY), out = BUF_INIT(9);
	gzip_compress(SPAN_LITERAL("one"), SPAN_LITERAL("first"), 6, &packed);
	gzip_compress(SPAN_LITERAL(""), (struct span){0}, 6, &packed);
	gzip_compress(SPAN_LITERAL("two"), SPAN_LITERAL("second"), 1, &packed);
	gzip_compress(SPAN_LITERAL("xyz"), (struct span){0}, 9, &packed);
	struct span extra;
	assert_int_equal(gzip_decompress(content_of(&packed), &out, &extra), GZIP_OK);
	assert_true(span_equal_str(content_of(&out), "onetwoxyz"));
	assert_true(span_equal_str(extra, "first"));

	struct buf small = BUF_INIT(8);
	assert_int_equal(gzip_decompress(content_of(&packed), &small, NULL), GZIP_TOO_LARGE);
	assert_int_equal(small.len, 0);
	buf_free(&small);

	static const char *const junk[] = {
		"x", "\x1f", "junk after the end of it all", "\x1f\x8b\x08"};
	size_t good = packed.len;
	for (size_t i = 0; i < sizeof junk / sizeof junk[0]; i++) {
		packed.len = good;
		buf_append_str(&packed, junk[i]);
		buf_clear(&out);
		assert_int_equal(gzip_decompress(content_of(&packed), &out, NULL), GZIP_BAD);
		assert_int_equal(out.len, 0);
	}
	buf_free(&packed);
	buf_free(&out);
}

static void test_bomb_costs_no_more_than_the_ceiling(void **state)
{
	(void)state;
	size_t len = 64u << 20;
	char *zeros = calloc(1, len);
	assert_non_null(zeros);
	struct buf packed = BUF_INIT(ROOMY);
	assert_int_equal(gzip_compress((struct span){zeros, len}, (struct span){0}, 9, &packed), 0);
	free(zeros);
	assert_true(packed.len < 70000);
	static const size_t ceilings[] = {0, 1, 4095, 4096, 100000, (64u << 20) - 1};
	for (size_t i = 0; i < sizeof ceilings / sizeof ceilings[0]; i++) {
		struct buf out = BUF_INIT(ceilings[i]);
		assert_int_equal(gzip_decompress(content_of(&packed), &out, NULL), GZIP_TOO_LARGE);
		assert_true(buf_failed(&out));
		assert_int_equal(out.len, 0);
		assert_true(out.capacity <= (ceilings[i] < 64 ? 64 : ceilings[i]));
		buf_free(&out);
	}
	/* A tail that lies about the length reserves no more than the input could hold. */
	memset(packed.data + packed.len - 4, 0xff, 4);
	struct buf out = BUF_INIT(SIZE_MAX / 2);
	struct span tiny = {(const char *)packed.data + packed.len - 100, 100};
	assert_int_equal(gzip_decompress(tiny, &out, NULL), GZIP_BAD);
	assert_true(out.capacity < 1u << 20);
	buf_free(&out);
	buf_free(&packed);
}

/* Heads that our own encoder does not make: name, comment, header CRC, reserved flags. */
static void test_other_heads(void **state)
{
	(void)state;
	static const uint8_t body[] = {
		0x4b, 0x4c, 0x4a, 0x06, 0x00, 0xc2, 0x41, 0x24, 0x35, 3, 0, 0, 0};
	static const struct {
		uint8_t flags;
		const char *more;
		size_t more_len;
		enum gzip_error expected;
	} cases[] = {
		{0, "", 0, GZIP_OK},
		{8, "name", 5, GZIP_OK},
		{16, "comment", 8, GZIP_OK},
		{8 | 16, "name\0comment", 13, GZIP_OK},
		{2, "\0\0", 2, GZIP_BAD},
		{32, "", 0, GZIP_BAD},
		{128, "", 0, GZIP_BAD},
		{4, "\2\0ab", 4, GZIP_OK},
		{4, "\xff\xff", 2, GZIP_BAD},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct buf packed = BUF_INIT(1000), out = BUF_INIT(1000);
		buf_append(&packed, "\x1f\x8b\x08", 3);
		buf_append_char(&packed, (char)cases[i].flags);
		buf_append(&packed, "\0\0\0\0\0\3", 6);
		buf_append(&packed, cases[i].more, cases[i].more_len);
		buf_append(&packed, body, sizeof body);
		assert_int_equal(
			gzip_decompress(content_of(&packed), &out, NULL), cases[i].expected);
		if (cases[i].expected == GZIP_OK)
			assert_true(span_equal_str(content_of(&out), "abc"));
		buf_free(&packed);
		buf_free(&out);
	}
}

static void *round_trips_on_a_thread(void *arg)
{
	int *right = arg;
	char data[5000];
	fill(data, sizeof data, (unsigned)(uintptr_t)arg);
	for (int i = 0; i < 30; i++) {
		struct buf packed = BUF_INIT(ROOMY), unpacked = BUF_INIT(ROOMY);
		struct span plain = {data, sizeof data};
		if (gzip_compress(plain, (struct span){0}, 1 + i % 9, &packed) == 0 &&
			gzip_decompress(content_of(&packed), &unpacked, NULL) == GZIP_OK)
			*right += span_equal(content_of(&unpacked), plain);
		buf_free(&packed);
		buf_free(&unpacked);
	}
	return NULL;
}

static void test_threads_do_not_disturb_each_other(void **state)
{
	(void)state;
	pthread_t threads[3];
	int right[3] = {0};
	for (int i = 0; i < 3; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, round_trips_on_a_thread, &right[i]), 0);
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(right[i], 30);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip_of_many_sizes),
		cmocka_unit_test(test_appends_to_what_is_there),
		cmocka_unit_test(test_same_input_same_bytes),
		cmocka_unit_test(test_compress_keeps_to_the_ceiling),
		cmocka_unit_test(test_extra_of_every_length),
		cmocka_unit_test(test_cut_at_every_byte),
		cmocka_unit_test(test_every_flipped_bit_is_noticed),
		cmocka_unit_test(test_members_in_a_row),
		cmocka_unit_test(test_bomb_costs_no_more_than_the_ceiling),
		cmocka_unit_test(test_other_heads),
		cmocka_unit_test(test_threads_do_not_disturb_each_other),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
