#ifndef EXPORTERMERGER_TARGET_H
#define EXPORTERMERGER_TARGET_H

/*
 * Whom the merger asks: a list of
 *
 *   http://host:port/metrics      https too; user:password@ is sent, and never shown
 *   unix:PATH                     RPC `metrics` of one of our daemons; a PATH without a slash is in
 *                                 RUN_DIR; one * in its last part: whoever is there
 *                                 (target_pattern.h)
 *
 * separated by white space, each with what it wants said of itself behind a #, which is never sent:
 *
 *   http://10.0.0.7:9100/metrics#prefix=node_&zone=eu-1      a prefix for all names, and labels
 *
 * which a pattern gives to all that it finds; a socket that is listed by itself as well is the
 * listed one, one that two patterns find the first one's.
 *
 * Values are percent-decoded. The URL without that and without credentials is the target's
 * merger_url.
 */
#include <stdbool.h>
#include <stddef.h>

#include "exportermerger/page.h"
#include "exportermerger/target_pattern.h"

#define TARGET_MAX_COUNT     1000
#define TARGET_MAX_URL_BYTES 256 /* of a merger_url: longer label values would be cut */

struct target {
	char *url;                 /* to ask; NULL for a socket */
	char *socket;              /* path; NULL for HTTP */
	char *name;                /* merger_url */
	char *escaped_name;        /* as a label value on a page */
	char *prefix;              /* "" : none */
	struct page_label *labels; /* by name, none twice */
	size_t n_labels;
};
/* Counted, since scrapes under way outlive a reload. */
struct targets {
	size_t references;
	struct target *items; /* by name, none twice */
	size_t count;
	char *list, *run_dir;            /* whence it was made */
	struct target_pattern *patterns; /* of the newest list alone */
	size_t n_patterns;
};
struct target_error {
	char text[512]; /* one sentence that names the target */
};

/* One reference for the caller; NULL with *error. */
struct targets *targets_parse(struct span list, const char *run_dir, struct target_error *error);
/* list and, unless path is "", the content of that file (at most 1 MiB; lines that begin with # are
 * comments). */
struct targets *targets_read(
	const char *list, const char *path, const char *run_dir, struct target_error *error);
/* Before targets are asked: whether sockets have come that match a pattern. Then *targets is a new
 * list with them; it stays what it is when memory is short. */
bool targets_look(struct targets **targets);
struct targets *targets_ref(struct targets *targets);
void targets_unref(struct targets **targets);

#endif
