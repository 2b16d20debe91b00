#ifndef EXPORTERMERGER_CHECK_H
#define EXPORTERMERGER_CHECK_H

/* `exportermerger --check [--format text|openmetrics] < page`: is the page valid, by the letter of
 * its format? */
#include <stdbool.h>

/* Whether the command line asks for it. */
bool check_wanted(int argc, char **argv);
/* Reads standard input; 0, or 1 with "line N: reason" on standard output; 64 for a bad command
 * line, 74 when it cannot read. */
int check_run(int argc, char **argv);

#endif
