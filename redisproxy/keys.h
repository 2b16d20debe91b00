#ifndef REDISPROXY_KEYS_H
#define REDISPROXY_KEYS_H

/*
 * Where the first key of a command stands. That is all that routing needs: the server refuses keys
 * of different slots itself (CROSSSLOT). From the key specifications of the server's COMMAND table
 * (Redis 7), from its first-key column (before), or from a table of our own until it has answered.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/span.h"

struct redisReply;

enum keys_find {
	KEYS_UNKNOWN, /* nothing was learned */
	KEYS_NONE,
	KEYS_AT,      /* argument `at` */
	KEYS_COUNTED, /* argument `first`, if the number in argument `at` is not 0 */
	KEYS_AFTER,   /* behind `word`, looked for from argument `at` on */
};
struct keys_rule {
	uint8_t find; /* enum keys_find */
	int8_t at, first;
	char word[9]; /* upper case */
};

/* The rule of a built-in command (lower case). */
struct keys_rule keys_builtin(struct span name);
/* The rule that one row of COMMAND's reply states; KEYS_UNKNOWN when it states none that we
 * understand. The row's shape is checked. */
struct keys_rule keys_learn(const struct redisReply *row);
/* Look for the key within the first len bytes of a well-formed command. False: it has none there.
 */
bool keys_first(const struct keys_rule *rule, const char *frame, size_t len, struct span *key);

#endif
