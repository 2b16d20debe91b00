/* Epochs as files. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/workers.h"
#include "gatewayd/epoch_place.h"

#define NAMES_MAX_BYTES (32u << 20)

struct dir_place {
	struct epoch_place place; /* first */
	struct workers *workers;
	char *path; /* <dir>/<prefix>purges */
};

struct dir_call {
	struct epoch_call call; /* first */
	struct job job;
	struct buf names; /* of a list, each ended by NUL */
	int error;
	char text[256];
};

static struct dir_place *dir_of(const struct epoch_call *call)
{
	return (struct dir_place *)call->place;
}

static struct dir_call *call_of(struct job *job)
{
	return (struct dir_call *)((char *)job - offsetof(struct dir_call, job));
}

/* ---- On a thread ---- */

static int list(struct dir_call *dc)
{
	DIR *dir = opendir(dir_of(&dc->call)->path);
	if (!dir)
		return errno == ENOENT ? 0 : errno;
	struct dirent *entry;
	errno = 0;
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			buf_append(&dc->names, entry->d_name, strlen(entry->d_name) + 1);
	int error = errno;
	closedir(dir);
	return buf_failed(&dc->names) ? ENOMEM : error;
}

static int sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int error = fsync(fd) ? errno : 0;
	close(fd);
	return error;
}

/* The name says all: a file cut short by a crash is as good. */
static int write_file(const char *path, const struct epoch_call *call)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno;
	ssize_t n = write(fd, call->body, call->body_len);
	int error = n < 0 || fsync(fd) ? errno : 0;
	if (close(fd) && !error)
		error = errno;
	return error;
}

static void work(struct job *job)
{
	struct dir_call *dc = call_of(job);
	struct epoch_call *call = &dc->call;
	const char *dir = dir_of(call)->path;
	char path[PATH_MAX];
	if (!*call->name) {
		dc->error = list(dc);
		return;
	}
	if (snprintf(path, sizeof path, "%s/%s", dir, call->name) >= (int)sizeof path) {
		dc->error = ENAMETOOLONG;
		return;
	}
	if (!call->body) {
		dc->error = unlink(path) ? errno : 0;
		return;
	}
	if (mkdir(dir, 0700) && errno != EEXIST)
		dc->error = errno;
	if (!dc->error)
		dc->error = write_file(path, call);
	if (!dc->error)
		dc->error = sync_dir(dir);
}

/* ---- On the loop ---- */

static void done(struct job *job)
{
	struct dir_call *dc = call_of(job);
	struct buf names = dc->names;
	if (dc->call.on_name && !dc->error)
		for (const char *at = (const char *)names.data, *end = at + names.len; at < end;
			at += strlen(at) + 1)
			dc->call.on_name(span_of(at), dc->call.arg);
	if (dc->error)
		snprintf(dc->text, sizeof dc->text, "%.180s: %s", dir_of(&dc->call)->path,
			strerror(dc->error));
	char text[sizeof dc->text];
	memcpy(text, dc->text, sizeof text);
	epoch_call_end(&dc->call, dc->error ? text : NULL);
	buf_free(&names);
}

static int start(struct epoch_call *call)
{
	struct dir_call *dc = (struct dir_call *)call;
	buf_init(&dc->names, NAMES_MAX_BYTES);
	dc->job = (struct job){.work = work, .done = done};
	return workers_submit(dir_of(call)->workers, &dc->job);
}

/* It ends by itself. */
static void cancel(struct epoch_call *call)
{
	(void)call;
}

static void dir_free(struct epoch_place *place)
{
	free(((struct dir_place *)place)->path);
	free(place);
}

static const struct epoch_place_ops ops = {
	.kind = "dir",
	.call_bytes = sizeof(struct dir_call),
	.start = start,
	.cancel = cancel,
	.free = dir_free,
};

struct epoch_place *epoch_place_dir(
	struct loop *loop, struct workers *workers, const char *dir, const char *prefix)
{
	struct dir_place *place = calloc(1, sizeof *place);
	if (!place)
		return NULL;
	place->place = (struct epoch_place){.ops = &ops, .loop = loop};
	place->workers = workers;
	if (asprintf(&place->path, "%s/%spurges", dir, prefix) < 0) {
		free(place);
		return NULL;
	}
	return &place->place;
}
