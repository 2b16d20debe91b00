#ifndef SUPERVISOR_CONFIG_VALUES_H
#define SUPERVISOR_CONFIG_VALUES_H

/*
 * The kinds of value that a pod's configuration is made of, as supervisord reads them. Pure. All
 * return 0, or -1 for text that is no such value (with *result unchanged).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"

/* true/false, yes/no, on/off, 1/0, in any case. */
int value_bool(const char *text, bool *result);
/* A whole number between min and max, nothing beside it. */
int value_int(const char *text, int64_t min, int64_t max, int64_t *result);
/* Octal, as for umask: 022. */
int value_octal(const char *text, int64_t max, int64_t *result);
/* Seconds, whole or with a fraction: 10, 0.5; a unit may follow: 250ms, 5s, 2m. Up to a year. */
int value_ms(const char *text, uint64_t *result);
/* Bytes: 1024, 50MB (KB, MB, GB, 1024-based, in any case). */
int value_bytes(const char *text, uint64_t *result);
/* TERM, SIGTERM, sigterm or 15. */
int value_signal(const char *text, int *result);
/* "TERM" for 15; "?" for none. */
const char *value_signal_name(int number);
/* 0,2,70: which of 256 exit codes, one bit each. */
int value_exit_codes(const char *text, uint8_t result[32]);

/* Growing lists of strings that end with NULL, made of malloc()ed memory. */
struct strings {
	char **items;
	size_t n;
};
/* text is taken over, also on failure (-1: out of memory). */
int strings_take(struct strings *list, char *text);
int strings_add(struct strings *list, struct span text);
void strings_free(struct strings *list);

/*
 * A command line into words, as a POSIX shell splits them: white space, '…', "…", and \. Nothing is
 * expanded. -1 with a static sentence in *why for an open quote, a \ at the end, or no memory.
 */
int value_words(const char *text, struct strings *words, const char **why);
/* KEY=value,KEY2="a, b" (newlines may stand for commas) into "KEY=value" strings. -1 as above. */
int value_environment(const char *text, struct strings *pairs, const char **why);
/* a, b,c (newlines may stand for commas); empty parts are dropped. */
int value_list(const char *text, struct strings *items);

#endif
