#ifndef SUPERVISOR_CTL_COMPLETION_H
#define SUPERVISOR_CTL_COMPLETION_H

/* A script that completes podctl's command line in bash: commands, options, signals, and the names
 * of the programs that the supervisor knows at that moment. */
extern const char completion_bash[];

#endif
