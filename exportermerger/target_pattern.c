#include "exportermerger/target_pattern.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"

#define MAX_NAMES 10000 /* read of a directory */

static char *copy(const char *from, const char *to)
{
	return strndup(from, (size_t)(to - from));
}

const char *target_pattern_parse(
	struct target_pattern *pattern, struct span path, struct span settings, const char *run_dir)
{
	const char *end = path.data + path.len;
	const char *star = memchr(path.data, '*', path.len);
	const char *slash = memrchr(path.data, '/', path.len);
	const char *name = slash ? slash + 1 : path.data;
	*pattern = (struct target_pattern){0};
	if (star < name || memchr(star + 1, '*', (size_t)(end - star - 1)))
		return "has room for one *, in its last part";
	pattern->directory = !slash               ? strdup(run_dir)
			     : slash == path.data ? strdup("/")
						  : copy(path.data, slash);
	/* The spans are of one text, in which "unix:" stands before the path. */
	pattern->written = copy(path.data - strlen("unix:"), name);
	pattern->before = copy(name, star);
	pattern->after = copy(star + 1, end);
	pattern->settings = copy(settings.data, settings.data + settings.len);
	return pattern->directory && pattern->written && pattern->before && pattern->after &&
			       pattern->settings
		       ? NULL
		       : "needs more memory than there is";
}

void target_pattern_free(struct target_pattern *pattern)
{
	for (size_t i = 0; i < pattern->n_seen; i++)
		free(pattern->seen[i]);
	free(pattern->directory);
	free(pattern->written);
	free(pattern->before);
	free(pattern->after);
	free(pattern->settings);
	*pattern = (struct target_pattern){0};
}

/* ---- looking ---- */

/* What can be written as a target, and what is a part of its URL. */
static bool is_printable(const char *name)
{
	for (; *name; name++)
		if (*name <= ' ' || *name > '~' || *name == '#')
			return false;
	return true;
}

static bool matches(const struct target_pattern *pattern, const char *name)
{
	size_t len = strlen(name), before = strlen(pattern->before), after = strlen(pattern->after);
	return len >= before + after && memcmp(name, pattern->before, before) == 0 &&
	       memcmp(name + len - after, pattern->after, after) == 0 &&
	       (name[0] != '.' || pattern->before[0] == '.') && is_printable(name);
}

static bool was_seen(const struct target_pattern *pattern, const char *name)
{
	for (size_t i = 0; i < pattern->n_seen; i++)
		if (strcmp(pattern->seen[i], name) == 0)
			return true;
	return false;
}

static bool is_socket(DIR *directory, const char *name)
{
	struct stat status;
	return fstatat(dirfd(directory), name, &status, 0) == 0 && S_ISSOCK(status.st_mode);
}

/* Into a sorted list. */
static void insert(char **names, size_t *n, char *name)
{
	size_t at = *n;
	for (; at > 0 && strcmp(names[at - 1], name) > 0; at--)
		names[at] = names[at - 1];
	names[at] = name;
	(*n)++;
}

bool target_pattern_look(struct target_pattern *pattern)
{
	char *found[TARGET_PATTERN_MAX];
	size_t n = 0, room = TARGET_PATTERN_MAX - pattern->n_seen;
	bool more = false;
	DIR *directory = opendir(pattern->directory);
	if (!directory)
		return false;
	const struct dirent *entry;
	for (unsigned i = 0; i < MAX_NAMES && (entry = readdir(directory)); i++) {
		const char *name = entry->d_name;
		if (!matches(pattern, name) || was_seen(pattern, name) ||
			!is_socket(directory, name))
			continue;
		more |= n == room;
		if (n == room && (n == 0 || strcmp(name, found[n - 1]) > 0))
			continue;
		char *kept = strdup(name);
		if (!kept)
			break;
		if (n == room)
			free(found[--n]);
		insert(found, &n, kept);
	}
	closedir(directory);
	for (size_t i = 0; i < n; i++)
		insert(pattern->seen, &pattern->n_seen, found[i]);
	if (more && !pattern->told)
		log_warn("%s%s*%s: more than %d sockets, the rest is left out", pattern->written,
			pattern->before, pattern->after, TARGET_PATTERN_MAX);
	pattern->told |= more;
	return n > 0;
}
