#ifndef SUPERVISOR_CONFIG_KEYS_H
#define SUPERVISOR_CONFIG_KEYS_H

/*
 * The keys of a section: one row each says its kind, where its value goes, its default and its
 * range.
 */
#include <stddef.h>
#include <stdint.h>

#include "supervisor/config/pod_config.h"

enum key_kind {
	KEY_STRING, /* char * */
	KEY_BOOL,
	KEY_INT,   /* int64_t between min and max */
	KEY_OCTAL, /* int64_t up to max */
	KEY_MS,    /* uint64_t */
	KEY_BYTES, /* uint64_t */
	KEY_SIGNAL,
	KEY_EXIT_CODES,
	KEY_AUTORESTART,
	KEY_PREFIX,
	KEY_COMMAND,     /* struct strings */
	KEY_ENVIRONMENT, /* struct strings */
	KEY_LIST,        /* struct strings */
	KEY_LOG,         /* struct log_config */
	KEY_USER,
	KEY_READY,
	KEY_SOCKETS,
	KEY_LIMITS,
	KEY_ELSEWHERE, /* read by the code that makes processes */
	KEY_NO_EFFECT, /* known from supervisord; def says why it does nothing here */
};

struct key_row {
	const char *name;
	enum key_kind kind;
	size_t offset;
	const char *def; /* NULL: the zero value */
	int64_t min, max;
};

extern const struct key_row program_keys[];     /* into struct process_config */
extern const struct key_row supervisord_keys[]; /* into struct pod_config */

/* The row of this key, or NULL. */
const struct key_row *key_find(const struct key_row *rows, const char *name);
/* Give every default. -1 when out of memory. */
int key_set_defaults(const struct key_row *rows, void *conf);
/* Set one value. -1 with a sentence in error. */
int key_set(
	const struct key_row *row, void *conf, const char *value, char *error, size_t error_size);

#endif
