#include "supervisor/config/load.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "supervisor/config/expand.h"

struct loader {
	struct ini doc;
	char *here;
	pod_config_env *env;
	void *env_arg;
	struct report *report;
};

static int read_all(int fd, struct buf *out)
{
	for (;;) {
		void *room = buf_reserve(out, 4096);
		/* One byte over the limit is enough for ini_parse() to say so. */
		if (!room)
			return out->len > INI_MAX_BYTES ? 0 : -1;
		ssize_t n = read(fd, room, 4096);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return (int)n;
		buf_commit(out, (size_t)n);
	}
}

static void read_file(struct loader *l, const char *path)
{
	struct buf text = BUF_INIT(INI_MAX_BYTES + 8192);
	struct stat st;
	/* Not blocking, so that a FIFO named by mistake does not hang the start. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		report_error(l->report, path, 0, "cannot be read: %s", strerror(errno));
	else if (fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISFIFO(st.st_mode)))
		report_error(l->report, path, 0, "is not a file");
	else if (read_all(fd, &text) < 0)
		report_error(l->report, path, 0, "cannot be read: %s", strerror(errno));
	else
		ini_parse(&l->doc, path, (const char *)text.data, text.len, l->report);
	if (fd >= 0)
		close(fd);
	buf_free(&text);
}

static const char *env_of(const char *variable, void *arg)
{
	const struct loader *l = arg;
	return l->env ? l->env(variable, l->env_arg) : NULL;
}

static void include_pattern(struct loader *l, const struct ini_entry *entry, const char *pattern)
{
	char full[4096];
	int n = snprintf(full, sizeof full, "%s%s%s", pattern[0] == '/' ? "" : l->here,
		pattern[0] == '/' ? "" : "/", pattern);
	if (n < 0 || (size_t)n >= sizeof full) {
		report_error(l->report, entry->file, entry->line, "files: too long");
		return;
	}
	glob_t found;
	int result = glob(full, 0, NULL, &found);
	if (result == GLOB_NOMATCH)
		report_warning(
			l->report, entry->file, entry->line, "files: nothing matches %s", full);
	else if (result)
		report_error(
			l->report, entry->file, entry->line, "files: cannot look for %s", full);
	if (result)
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		read_file(l, found.gl_pathv[i]);
	globfree(&found);
}

static void include_files(struct loader *l)
{
	const struct ini_section *section = ini_section(&l->doc, "include");
	for (size_t i = 0; section && i < section->n_entries; i++)
		if (strcmp(section->entries[i].key, "files") != 0)
			report_warning(l->report, section->entries[i].file,
				section->entries[i].line, "%s: not a known key",
				section->entries[i].key);
	const struct ini_entry *entry = ini_entry(section, "files");
	if (!entry)
		return;
	char host[256] = "";
	gethostname(host, sizeof host - 1);
	struct expand_name list[] = {{"here", l->here, 0}, {"host_node_name", host, 0}, {0}};
	struct expand_names names = {list, env_of, l};
	struct buf text = BUF_INIT(65536);
	struct strings patterns = {0};
	char error[256];
	const char *why = error;
	/* Parsing adds sections, which moves them: take what is needed first. */
	struct ini_entry where = {.file = entry->file, .line = entry->line};
	if (expand(entry->value, &names, &text, error, sizeof error) < 0 ||
		buf_append_char(&text, '\0') < 0 ||
		value_words((const char *)text.data, &patterns, &why) < 0)
		report_error(l->report, where.file, where.line, "files: %s", why);
	else if (!patterns.n)
		report_error(l->report, where.file, where.line, "files: names no file");
	for (size_t i = 0; i < patterns.n; i++)
		include_pattern(l, &where, patterns.items[i]);
	strings_free(&patterns);
	buf_free(&text);
}

static char *directory_of(const char *path)
{
	char *full = realpath(path, NULL);
	char *slash = full ? strrchr(full, '/') : NULL;
	if (slash)
		slash[slash == full] = '\0';
	return full;
}

int load_pod_config(struct pod_config *pod, const char *path, pod_config_env *env, void *arg,
	struct report *report)
{
	struct loader l = {.env = env, .env_arg = arg, .report = report};
	unsigned errors = report->errors;
	*pod = (struct pod_config){0};
	l.here = directory_of(path);
	read_file(&l, path);
	int result = -1;
	/* A line that means nothing does not hide the mistakes in others. */
	if (l.here && l.doc.n_files) {
		include_files(&l);
		result = pod_config_build(pod, &l.doc, l.here, env, arg, report);
	}
	if (result == 0 && report->errors > errors) {
		pod_config_free(pod);
		result = -1;
	}
	ini_free(&l.doc);
	free(l.here);
	return result;
}
