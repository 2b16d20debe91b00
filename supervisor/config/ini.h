#ifndef SUPERVISOR_CONFIG_INI_H
#define SUPERVISOR_CONFIG_INI_H

/*
 * The INI files of supervisord, as Python's RawConfigParser reads them: `[section]`, `key = value`
 * or `key: value`, keys in any case, whole-line comments with ; or #, the rest of a line after
 * white space and ; or # is a comment too, an indented line continues the value above it. Pure:
 * bytes in, document out. Bytes are hostile: every mistake is reported, nothing is trusted.
 */
#include <stddef.h>

#include "supervisor/config/report.h"

#define INI_MAX_BYTES    (1u << 20) /* of one file */
#define INI_MAX_SECTIONS 4096       /* of a document */
#define INI_MAX_ENTRIES  65536      /* of a document */

struct ini_entry {
	char *key;   /* lower case */
	char *value; /* trimmed; continued lines are joined with a newline */
	const char *file;
	unsigned line;
};

struct ini_section {
	char *name;
	const char *file; /* of its first header */
	unsigned line;
	struct ini_entry *entries;
	size_t n_entries;
};

struct ini {
	struct ini_section *sections; /* in order of appearance; one a name */
	size_t n_sections, n_entries;
	char **files; /* the names that entries point to */
	size_t n_files;
};

/*
 * Add the content of one file (its name is copied, for messages) to *doc, which begins zeroed. A
 * section that comes again goes on; a key that comes again replaces the first one (with a warning).
 * -1 when the report has new errors; what could be read is in *doc then.
 */
int ini_parse(struct ini *doc, const char *file, const char *text, size_t len_bytes,
	struct report *report);
/* NULL when absent. */
const struct ini_section *ini_section(const struct ini *doc, const char *name);
const struct ini_entry *ini_entry(const struct ini_section *section, const char *key);
void ini_free(struct ini *doc);

#endif
