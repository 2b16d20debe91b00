#ifndef COMMON_CONFIG_VALUE_H
#define COMMON_CONFIG_VALUE_H

/* What config.c and its printers share: one setting's value, text to what the conf struct holds and
 * back, and where it came from. */
#include <stddef.h>

#include "common/buf.h"
#include "common/config.h"

/*
 * Parse text into the slot (&conf field of the row's type; a string's old value is not freed). 0,
 * or -1 with `allowed` saying what would have been ("a whole number from 1 to 65535"), or "out of
 * memory".
 */
int config_value_parse(
	const struct config_row *row, const char *text, void *slot, char *allowed, size_t size);
/* The value as a user would write it; parses back to the same. Secrets and passwords in URLs too:
 * the caller hides them. */
void config_value_format(const struct config_row *row, const void *slot, struct buf *out);
bool config_value_equal(const struct config_row *row, const void *a, const void *b);
bool config_type_is_string(enum config_type type);
/* "ADDRESS", "SECONDS", "debug|info"; what --help shows for the value. */
void config_value_hint(const struct config_row *row, struct buf *out);
/* url without user and password, in place. */
void config_hide_userinfo(char *url);

enum config_source { CONFIG_FROM_DEFAULT, CONFIG_FROM_ENV, CONFIG_FROM_FILE, CONFIG_FROM_FLAG };
/* Of a conf that config_load() filled. */
enum config_source config_source_of(const void *conf, const struct config_row *row);

/* The flags that config_take_action() knows. */
struct config_action_flag {
	const char *flag;
	enum config_action action;
	const char *help;
};
extern const struct config_action_flag config_action_flags[]; /* ends with NULL */

static inline bool config_row_is_end(const struct config_row *row)
{
	return !row->flag && !row->env;
}

/* For each row of all tables. */
#define CONFIG_FOREACH_ROW(row, tables)                                            \
	for (const struct config_row *const *table_ = (tables); *table_; table_++) \
		for (const struct config_row *row = *table_; !config_row_is_end(row); row++)

#endif
