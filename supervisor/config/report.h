#ifndef SUPERVISOR_CONFIG_REPORT_H
#define SUPERVISOR_CONFIG_REPORT_H

/*
 * What is wrong with a pod's configuration: one sentence a mistake, each with its file and line,
 * all of them and not only the first. An error means that nothing is started; a warning names what
 * has no effect.
 */
#include <stdbool.h>

struct report {
	/* text has no newline; file may be NULL (the mistake has no place), line is then 0. */
	void (*line)(void *arg, bool is_error, const char *file, unsigned line, const char *text);
	void *arg;
	unsigned errors, warnings;
};

void report_error(struct report *report, const char *file, unsigned line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void report_warning(struct report *report, const char *file, unsigned line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#endif
