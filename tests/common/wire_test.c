/* Reading MessagePack in place, against bytes that msgpack-c wrote. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/wire.h"

static struct buf bytes = BUF_INIT(4u << 20);
static msgpack_packer packer;

static struct wire begin(void)
{
	buf_clear(&bytes);
	wire_packer_init(&packer, &bytes);
	return (struct wire){0};
}

static struct wire packed(void)
{
	assert_false(buf_failed(&bytes));
	return wire_of((struct span){(const char *)bytes.data, bytes.len});
}

/* In a block of its own size, so that a sanitizer sees every byte read too far. */
static uint8_t *copy_of(size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	memcpy(copy, bytes.data, len);
	return copy;
}

static const int64_t edges[] = {0, 1, 31, 32, 127, 128, 255, 256, 32767, 32768, 65535, 65536,
	INT32_MAX, (int64_t)INT32_MAX + 1, UINT32_MAX, (int64_t)UINT32_MAX + 1, INT64_MAX, -1, -31,
	-32, -33, -127, -128, -129, -32768, -32769, INT32_MIN, (int64_t)INT32_MIN - 1, INT64_MIN};

static void reads_integers_of_every_width(void **arg)
{
	(void)arg;
	for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
		int64_t v = edges[i], got = 1;
		uint64_t u = 1;
		double d = 1;
		begin();
		msgpack_pack_int64(&packer, v);
		struct wire w = packed();
		assert_int_equal(wire_read_i64(&w, &got), 0);
		assert_true(got == v && w.at == w.end);
		w = packed();
		assert_int_equal(wire_read_u64(&w, &u), v < 0 ? -1 : 0);
		assert_true(v < 0 ? u == 1 && w.at == bytes.data : u == (uint64_t)v);
		w = packed();
		assert_int_equal(wire_read_f64(&w, &d), 0);
		assert_true(d == (double)v);
		for (size_t cut = 0; cut < bytes.len; cut++) {
			uint8_t *copy = copy_of(cut);
			w = (struct wire){copy, copy + cut};
			assert_int_equal(wire_read_i64(&w, &got), -1);
			assert_int_equal(wire_read_u64(&w, &u), -1);
			assert_int_equal(wire_read_f64(&w, &d), -1);
			assert_int_equal(wire_skip(&w, NULL), -1);
			assert_ptr_equal(w.at, copy);
			free(copy);
		}
	}
	begin();
	msgpack_pack_uint64(&packer, UINT64_MAX);
	struct wire w = packed();
	int64_t i;
	uint64_t u;
	assert_int_equal(wire_read_i64(&w, &i), -1);
	assert_int_equal(wire_read_u64(&w, &u), 0);
	assert_true(u == UINT64_MAX);
	/* Wider than need be is still the number. */
	static const uint8_t wide[] = {
		0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xcf, 0, 0, 0, 0, 0, 0, 0, 7};
	w = (struct wire){wide, wide + sizeof wide};
	assert_int_equal(wire_read_i64(&w, &i), 0);
	assert_int_equal(i, -2);
	assert_int_equal(wire_read_i64(&w, &i), 0);
	assert_int_equal(i, 7);
}

static void reads_floats(void **arg)
{
	(void)arg;
	double d;
	begin();
	msgpack_pack_float(&packer, 0.5f);
	msgpack_pack_double(&packer, 0.1);
	msgpack_pack_true(&packer);
	struct wire w = packed();
	assert_int_equal(wire_read_f64(&w, &d), 0);
	assert_true(d == 0.5);
	assert_int_equal(wire_read_f64(&w, &d), 0);
	assert_true(d == 0.1);
	assert_int_equal(wire_read_f64(&w, &d), -1);
	bool b = false;
	assert_int_equal(wire_read_bool(&w, &b), 0);
	assert_true(b);
	assert_int_equal(wire_read_bool(&w, &b), -1);
	assert_false(wire_at_nil(&w));
	for (size_t cut = 0; cut < 9; cut++) {
		uint8_t *copy = malloc(9);
		memcpy(copy, bytes.data + 5, 9);
		w = (struct wire){copy, copy + cut};
		assert_int_equal(wire_read_f64(&w, &d), -1);
		free(copy);
	}
}

static void reads_bytes_of_every_width(void **arg)
{
	(void)arg;
	static const size_t lengths[] = {0, 1, 31, 32, 255, 256, 65535, 65536, 70000};
	static char data[70000];
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		struct span value, wrong = {"x", 1};
		begin();
		wire_write_str(&packer, (struct span){data, lengths[i]});
		size_t str_len = bytes.len;
		wire_write_bin(&packer, (struct span){data, lengths[i]});
		struct wire w = packed();
		assert_int_equal(wire_read_bin(&w, &wrong), -1);
		assert_int_equal(wire_read_str(&w, &value), 0);
		assert_int_equal(value.len, lengths[i]);
		assert_ptr_equal(value.data, bytes.data + str_len - lengths[i]);
		assert_int_equal(wire_read_str(&w, &wrong), -1);
		assert_int_equal(wrong.len, 1);
		assert_int_equal(wire_read_bin(&w, &value), 0);
		assert_int_equal(value.len, lengths[i]);
		assert_true(w.at == w.end);
		for (size_t cut = 0; cut < str_len;
			cut += cut < 8 || str_len < 40 ? 1 : str_len / 7) {
			uint8_t *copy = copy_of(cut);
			w = (struct wire){copy, copy + cut};
			assert_int_equal(wire_read_str(&w, &value), -1);
			assert_ptr_equal(w.at, copy);
			free(copy);
		}
	}
}

static void counts_are_checked_against_what_is_there(void **arg)
{
	(void)arg;
	static const struct {
		struct span bytes;
		int rc;
	} cases[] = {
		{SPAN_LITERAL("\x90"), 0},
		{SPAN_LITERAL("\x91"), -1},
		{SPAN_LITERAL("\x92\x01"), -1},
		{SPAN_LITERAL("\x92\x01\x01"), 0},
		{SPAN_LITERAL("\xdc\x00\x02\x01"), -1},
		{SPAN_LITERAL("\xdc\x00\x01\x01"), 0},
		{SPAN_LITERAL("\xdd\xff\xff\xff\xff\x01"), -1},
		{SPAN_LITERAL("\xdd\x00\x00\x00\x01\x01"), 0},
		{SPAN_LITERAL("\xdd\x00\x00"), -1},
		{SPAN_LITERAL("\x81\x01\x01"), -1},
		{SPAN_LITERAL(""), -1},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct wire w = wire_of(cases[i].bytes);
		uint32_t count;
		assert_int_equal(wire_read_array(&w, &count), cases[i].rc);
	}
}

static void build_one_of_everything(void)
{
	begin();
	msgpack_pack_array(&packer, 14);
	msgpack_pack_nil(&packer);
	msgpack_pack_true(&packer);
	msgpack_pack_uint64(&packer, UINT64_MAX);
	msgpack_pack_int(&packer, -70000);
	msgpack_pack_float(&packer, 1.5f);
	msgpack_pack_double(&packer, 1.5);
	wire_write_str(&packer, span_of("text"));
	wire_write_bin(&packer, span_of("bytes"));
	msgpack_pack_map(&packer, 2);
	for (int i = 0; i < 4; i++)
		msgpack_pack_int(&packer, i);
	for (size_t size = 1; size <= 16; size *= 4) {
		msgpack_pack_ext(&packer, size, 3);
		msgpack_pack_ext_body(&packer, "0123456789abcdef", size);
	}
	msgpack_pack_ext(&packer, 3, 3);
	msgpack_pack_ext_body(&packer, "abc", 3);
	msgpack_pack_array(&packer, 20);
	for (int i = 0; i < 20; i++)
		msgpack_pack_array(&packer, 0);
}

static void scan_goes_on_from_any_byte(void **arg)
{
	(void)arg;
	build_one_of_everything();
	size_t len = bytes.len;
	/* Two stops at any two places, and what follows is not touched. */
	buf_append(&bytes, "\xc1\xc1", 2);
	for (size_t a = 0; a < len; a++)
		for (size_t b = a; b < len; b++) {
			struct wire_scan scan = {0};
			assert_int_equal(wire_scan(&scan, bytes.data, a, 4096), WIRE_MORE);
			assert_int_equal(wire_scan(&scan, bytes.data, b, 4096), WIRE_MORE);
			assert_int_equal(wire_scan(&scan, bytes.data, bytes.len, 4096), WIRE_DONE);
			assert_int_equal(scan.at, len);
		}
	struct wire_scan scan = {0};
	assert_int_equal(wire_scan(&scan, bytes.data, bytes.len, len), WIRE_DONE);
	scan = (struct wire_scan){0};
	assert_int_equal(wire_scan(&scan, bytes.data, bytes.len, len - 1), WIRE_BAD);
}

static void depth_is_limited(void **arg)
{
	(void)arg;
	for (unsigned depth = 1; depth <= WIRE_MAX_DEPTH + 1; depth++) {
		begin();
		for (unsigned i = 1; i < depth; i++)
			msgpack_pack_array(&packer, 1);
		msgpack_pack_map(&packer, 0);
		struct wire w = packed();
		struct span raw;
		assert_int_equal(wire_skip(&w, &raw), depth <= WIRE_MAX_DEPTH ? 0 : -1);
		if (depth <= WIRE_MAX_DEPTH)
			assert_int_equal(raw.len, bytes.len);
	}
}

static void lengths_over_the_limit_are_refused_at_sight(void **arg)
{
	(void)arg;
	static const struct span heads[] = {SPAN_LITERAL("\xc6\xff\xff\xff\xff"),
		SPAN_LITERAL("\xdb\x00\x00\x04\x01"), SPAN_LITERAL("\xc9\xff\xff\xff\xff\x01"),
		SPAN_LITERAL("\xdd\xff\xff\xff\xff"), SPAN_LITERAL("\xdf\x80\x00\x00\x00"),
		SPAN_LITERAL("\xde\x02\x00"), SPAN_LITERAL("\xc1")};
	for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
		struct wire_scan scan = {0};
		assert_int_equal(wire_scan(&scan, heads[i].data, heads[i].len, 1024), WIRE_BAD);
	}
	struct wire_scan scan = {0};
	assert_int_equal(wire_scan(&scan, "\xdb\x00\x00\x03\xfb", 5, 1024), WIRE_MORE);
}

static int teardown(void **arg)
{
	(void)arg;
	buf_free(&bytes);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_integers_of_every_width),
		cmocka_unit_test(reads_floats),
		cmocka_unit_test(reads_bytes_of_every_width),
		cmocka_unit_test(counts_are_checked_against_what_is_there),
		cmocka_unit_test(scan_goes_on_from_any_byte),
		cmocka_unit_test(depth_is_limited),
		cmocka_unit_test(lengths_over_the_limit_are_refused_at_sight),
	};
	return cmocka_run_group_tests(tests, NULL, teardown);
}
