#include "gatewayd/usage.h"

#include <stdlib.h>

struct remainder {
	uint64_t value;
	size_t index;
};

static int by_largest(const void *a, const void *b)
{
	const struct remainder *x = a, *y = b;
	if (x->value != y->value)
		return x->value < y->value ? 1 : -1;
	return x->index > y->index ? 1 : -1;
}

int usage_share(uint64_t total_tokens, const uint32_t *weights, size_t n, uint64_t *shares)
{
	struct remainder *remainders = calloc(n, sizeof *remainders);
	if (!remainders)
		return -1;
	uint64_t sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += weights[i];
	/* One for each first, if the total allows; the rest in proportion. */
	uint64_t floor_each = total_tokens >= n ? 1 : 0;
	uint64_t rest = total_tokens - floor_each * n;
	uint64_t given = 0;
	for (size_t i = 0; i < n; i++) {
		unsigned __int128 part = (unsigned __int128)rest * weights[i];
		shares[i] = (uint64_t)(part / sum);
		remainders[i] = (struct remainder){(uint64_t)(part % sum), i};
		given += shares[i];
		shares[i] += floor_each;
	}
	qsort(remainders, n, sizeof *remainders, by_largest);
	for (size_t i = 0; given < rest; i++, given++)
		shares[remainders[i].index]++;
	free(remainders);
	return 0;
}
