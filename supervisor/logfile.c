#include "supervisor/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

#define TELL_AGAIN_S 60

struct logfile {
	char *path;
	int fd; /* -1: could not be made again */
	bool regular;
	uint64_t size, max_bytes, lost;
	bool losing;
	time_t told; /* when that was said last; 0: never */
	unsigned backups;
};

static int open_path(struct logfile *file)
{
	struct stat st;
	file->fd = open(file->path,
		O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
	if (file->fd < 0)
		return -1;
	file->regular = fstat(file->fd, &st) == 0 && S_ISREG(st.st_mode);
	file->size = file->regular ? (uint64_t)st.st_size : 0;
	return 0;
}

struct logfile *logfile_open(
	const char *path, uint64_t max_bytes, unsigned backups, char *error, size_t error_size)
{
	struct logfile *file = calloc(1, sizeof *file);
	if (file)
		file->path = strdup(path);
	if (!file || !file->path || open_path(file) < 0) {
		snprintf(error, error_size, "cannot open the log %s: %s", path, strerror(errno));
		if (file)
			free(file->path);
		free(file);
		return NULL;
	}
	file->max_bytes = max_bytes;
	file->backups = backups;
	return file;
}

/* NAME.n; 0 is NAME. Cut short in the rare case: rename() then fails, and nothing is lost. */
static void backup_name(const struct logfile *file, unsigned n, char *text, size_t size)
{
	if (n)
		snprintf(text, size, "%s.%u", file->path, n);
	else
		snprintf(text, size, "%s", file->path);
}

static void rotate(struct logfile *file)
{
	char from[4096], to[4096];
	if (!file->backups) {
		if (ftruncate(file->fd, 0) == 0)
			file->size = 0;
		return;
	}
	for (unsigned n = file->backups; n > 0; n--) {
		backup_name(file, n - 1, from, sizeof from);
		backup_name(file, n, to, sizeof to);
		rename(from, to);
	}
	close(file->fd);
	if (open_path(file) < 0)
		file->fd = -1;
}

static void lose(struct logfile *file, size_t len_bytes)
{
	int error = errno;
	file->lost += len_bytes;
	if (file->losing)
		return;
	file->losing = true;
	/* A disk at its limit takes some and refuses some. */
	if (file->told && time(NULL) - file->told < TELL_AGAIN_S)
		return;
	file->told = time(NULL);
	log_error("cannot write %s: %s; what goes there is lost", file->path, strerror(error));
}

static void regain(struct logfile *file)
{
	file->losing = false;
	log_info("%s takes output again; %llu bytes are lost", file->path,
		(unsigned long long)file->lost);
}

void logfile_write(struct logfile *file, const void *data, size_t len_bytes)
{
	const char *at = data;
	if (file->fd < 0 && open_path(file) < 0) {
		lose(file, len_bytes);
		return;
	}
	while (len_bytes) {
		ssize_t n = write(file->fd, at, len_bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			lose(file, len_bytes);
			break;
		}
		at += n;
		len_bytes -= (size_t)n;
		file->size += (uint64_t)n;
	}
	if (file->losing && !len_bytes)
		regain(file);
	if (file->regular && file->max_bytes && file->size >= file->max_bytes)
		rotate(file);
}

void logfile_reopen(struct logfile *file)
{
	int old = file->fd;
	if (open_path(file) < 0)
		file->fd = old; /* better the old one than none */
	else if (old >= 0)
		close(old);
}

uint64_t logfile_lost_bytes(const struct logfile *file)
{
	return file->lost;
}

void logfile_free(struct logfile **file)
{
	struct logfile *f = *file;
	if (!f)
		return;
	*file = NULL;
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f);
}
