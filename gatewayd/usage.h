#ifndef GATEWAYD_USAGE_H
#define GATEWAYD_USAGE_H

/*
 * A provider says what a whole call cost; the cache keeps what each element cost. The rule: in
 * proportion to the bytes of the inputs' JSON, by largest remainder (Hamilton's method), ties to
 * the earlier input; every input costs at least one token while there are enough. The shares sum
 * exactly to the total. Pure.
 */
#include <stddef.h>
#include <stdint.h>

/* weights[i] > 0. 0, or -1 when out of memory. */
int usage_share(uint64_t total_tokens, const uint32_t *weights, size_t n, uint64_t *shares);

#endif
