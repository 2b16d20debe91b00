#ifndef EXPORTERMERGER_TARGET_PATTERN_H
#define EXPORTERMERGER_TARGET_PATTERN_H

/*
 * Sockets by pattern, for daemons of which there may be any number: unix:PATH with one * in its
 * last part (unix:gatewayd.*.sock). The * stands for any text, also none; as in a shell it does not
 * begin a hidden name.
 *
 * Looked at before each page. A socket that was seen once stays: a daemon that died is down, not
 * gone. At most TARGET_PATTERN_MAX, the first by name of those there when it is looked at; that
 * there are more is logged once.
 */
#include <stdbool.h>
#include <stddef.h>

#include "common/span.h"

#define TARGET_PATTERN_MAX 64

struct target_pattern {
	char *directory;                /* to read */
	char *written;                  /* "unix:" and the directory as it was given */
	char *before, *after;           /* of the * */
	char *settings;                 /* "" or what followed, with its # */
	char *seen[TARGET_PATTERN_MAX]; /* names of files, in order */
	size_t n_seen;
	bool told; /* that there are more */
};

/* path: behind "unix:", settings: from the # on or empty. NULL; or a static sentence that goes
 * behind the pattern's name, *pattern is then to be freed as well. */
const char *target_pattern_parse(struct target_pattern *pattern, struct span path,
	struct span settings, const char *run_dir);
/* Whether sockets were seen that had not been. Reads the directory (at most 10,000 names), which is
 * a daemon's run directory, in memory. A directory that cannot be read has nothing new. */
bool target_pattern_look(struct target_pattern *pattern);
void target_pattern_free(struct target_pattern *pattern);

#endif
