#ifndef REDISPROXY_HOTKEYS_H
#define REDISPROXY_HOTKEYS_H

/*
 * Which keys are asked for most: a sketch of constant size, whatever the number of keys
 * (Space-Saving: Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k
 * Elements in Data Streams", ICDT 2005). With n counters every key that has more than 1/n of the
 * commands is among them, and a count is too high by its `error` at most, never too low.
 *
 * One command of 16 is counted, at random distances. Counts are halved once a minute, so that the
 * report is about the last minutes.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"

#define HOTKEYS_SAMPLE   16
#define HOTKEYS_MAX      4096
#define HOTKEYS_KEY_SHOW 64 /* bytes of a key that are kept, if any are */

struct hotkeys;

/* n: counters, 1 to HOTKEYS_MAX. shows_keys: keep their first bytes, not their hashes alone. NULL
 * when out of memory. */
struct hotkeys *hotkeys_new(unsigned n, bool shows_keys);
void hotkeys_free(struct hotkeys **hotkeys);
/* Is the present command one of those to count? */
bool hotkeys_due(struct hotkeys *hotkeys);
void hotkeys_count(struct hotkeys *hotkeys, struct span key, uint64_t hash);
/* Now and then: halves the counts when it is time. */
void hotkeys_age(struct hotkeys *hotkeys, uint64_t now_us);
/* Append the report, the hottest key first: {"sampled_one_in": 16, "commands": N, "keys": [{"key"
 * or "key_hash", "count", "error", "share"}]}. Counts are of commands, sampling made up for. */
void hotkeys_write_json(const struct hotkeys *hotkeys, struct buf *out);

#endif
