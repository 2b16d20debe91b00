#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/rendezvous.h"

#define KEYS 20000

static void make_nodes(uint64_t *nodes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char name[32];
		int len = snprintf(name, sizeof name, "gatewayd.%zu", i);
		nodes[i] = rendezvous_node((struct span){name, (size_t)len});
	}
}

/* Keys that differ in few bits, which is the hard case for a hash. */
static uint64_t make_key(unsigned i)
{
	return rendezvous_key((struct span){(const char *)&i, sizeof i});
}

static void test_balance(void **state)
{
	(void)state;
	for (size_t n = 2; n <= 16; n++) {
		uint64_t nodes[16];
		make_nodes(nodes, n);
		unsigned counts[16] = {0};
		for (unsigned i = 0; i < KEYS; i++) {
			size_t order[16];
			rendezvous_rank(nodes, n, make_key(i), order);
			counts[order[0]]++;
		}
		double share = (double)KEYS / (double)n;
		/* Five standard deviations of a fair draw. */
		for (size_t at = 0; at < n; at++) {
			double off = (double)counts[at] - share;
			assert_true(off * off < 25 * share);
		}
	}
}

/* When a node leaves, its keys go to their second choice, evenly, and no other key moves. */
static void test_removal_moves_only_its_keys(void **state)
{
	(void)state;
	enum { N = 8, GONE = 3 };
	uint64_t nodes[N], fewer[N - 1];
	make_nodes(nodes, N);
	memcpy(fewer, nodes, GONE * sizeof *nodes);
	memcpy(fewer + GONE, nodes + GONE + 1, (N - 1 - GONE) * sizeof *nodes);
	unsigned moved = 0, heirs[N] = {0};
	for (unsigned i = 0; i < KEYS; i++) {
		size_t order[N], order_fewer[N - 1];
		rendezvous_rank(nodes, N, make_key(i), order);
		rendezvous_rank(fewer, N - 1, make_key(i), order_fewer);
		size_t heir = order_fewer[0] + (order_fewer[0] >= GONE);
		if (order[0] != GONE) {
			assert_int_equal(heir, order[0]);
		} else {
			assert_int_equal(heir, order[1]);
			moved++;
			heirs[heir]++;
		}
	}
	assert_in_range(moved, KEYS / N * 9 / 10, KEYS / N * 11 / 10);
	for (size_t at = 0; at < N; at++) {
		if (at != GONE)
			assert_in_range(
				heirs[at], moved / (N - 1) * 7 / 10, moved / (N - 1) * 13 / 10);
	}
}

static void test_order_of_the_list_does_not_matter(void **state)
{
	(void)state;
	enum { N = 5 };
	uint64_t nodes[N], reversed[N];
	make_nodes(nodes, N);
	for (size_t i = 0; i < N; i++)
		reversed[i] = nodes[N - 1 - i];
	for (unsigned i = 0; i < 1000; i++) {
		size_t order[N], order_reversed[N];
		rendezvous_rank(nodes, N, make_key(i), order);
		rendezvous_rank(reversed, N, make_key(i), order_reversed);
		for (size_t at = 0; at < N; at++)
			assert_int_equal(order[at], N - 1 - order_reversed[at]);
	}
}

static void assert_ranked(const uint64_t *nodes, size_t n, uint64_t key, const size_t *order)
{
	uint8_t seen[100] = {0};
	for (size_t at = 0; at < n; at++) {
		assert_true(order[at] < n);
		assert_int_equal(seen[order[at]]++, 0);
		if (at > 0)
			assert_true(rendezvous_weight(nodes[order[at - 1]], key) >
				    rendezvous_weight(nodes[order[at]], key));
	}
}

static void test_ranks_any_number_of_nodes(void **state)
{
	(void)state;
	static const size_t sizes[] = {0, 1, 2, 63, 64, 65, 100};
	uint64_t nodes[100];
	make_nodes(nodes, 100);
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		for (unsigned k = 0; k < 50; k++) {
			size_t order[101];
			order[sizes[i]] = 12345;
			rendezvous_rank(nodes, sizes[i], make_key(k), order);
			assert_ranked(nodes, sizes[i], make_key(k), order);
			assert_int_equal(order[sizes[i]], 12345);
		}
	}
}

/* Every flipped bit of a key flips about half of its hash. */
static void test_keys_avalanche(void **state)
{
	(void)state;
	uint8_t key[40];
	for (size_t i = 0; i < sizeof key; i++)
		key[i] = (uint8_t)(i * 31);
	uint64_t hash = rendezvous_key((struct span){(const char *)key, sizeof key});
	uint64_t node = rendezvous_node(SPAN_LITERAL("gatewayd.0"));
	unsigned flipped = 0, flipped_weight = 0;
	for (size_t bit = 0; bit < sizeof key * 8; bit++) {
		key[bit / 8] ^= (uint8_t)(1 << bit % 8);
		uint64_t other = rendezvous_key((struct span){(const char *)key, sizeof key});
		flipped += (unsigned)__builtin_popcountll(hash ^ other);
		flipped_weight += (unsigned)__builtin_popcountll(
			rendezvous_weight(node, hash) ^ rendezvous_weight(node, other));
		key[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_in_range(flipped / (sizeof key * 8), 30, 34);
	assert_in_range(flipped_weight / (sizeof key * 8), 30, 34);
}

/* Length counts: bytes of zero at the end make another key. */
static void test_trailing_zeros_differ(void **state)
{
	(void)state;
	static const char zeros[33];
	for (size_t a = 0; a <= sizeof zeros; a++) {
		for (size_t b = 0; b < a; b++)
			assert_true(rendezvous_key((struct span){zeros, a}) !=
				    rendezvous_key((struct span){zeros, b}));
	}
	assert_true(rendezvous_key(SPAN_LITERAL("x")) != rendezvous_node(SPAN_LITERAL("x")));
}

/* Processes of different builds must agree: these numbers are part of the protocol. */
static void test_hash_is_pinned(void **state)
{
	(void)state;
	uint64_t node = rendezvous_node(SPAN_LITERAL("gatewayd.0"));
	uint64_t key = rendezvous_key(SPAN_LITERAL("0123456789abcdef"));
	assert_int_equal(node, UINT64_C(0x6f366639f49abc4e));
	assert_int_equal(key, UINT64_C(0x6dd7fdaa06e21d34));
	assert_int_equal(rendezvous_weight(node, key), UINT64_C(0xfba3b30eb7ee443c));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_balance),
		cmocka_unit_test(test_removal_moves_only_its_keys),
		cmocka_unit_test(test_order_of_the_list_does_not_matter),
		cmocka_unit_test(test_ranks_any_number_of_nodes),
		cmocka_unit_test(test_keys_avalanche),
		cmocka_unit_test(test_trailing_zeros_differ),
		cmocka_unit_test(test_hash_is_pinned),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
