#include "gatewayd/store_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/log.h"
#include "common/workers.h"
#include "gatewayd/store_backend.h"

#define DEFAULT_QUEUED_PUTS  8192
#define DEFAULT_QUEUED_BYTES (64ull << 20)
#define DEFAULT_INTERVAL_MS  (3600u * 1000)
#define MIN_CAP_BYTES        (64u << 10)
#define TOUCH_AFTER_S        (24 * 3600)
#define DIR_MODE             0700
#define FILE_MODE            0600

struct store_dir {
	struct store store; /* first */
	struct workers *workers;
	struct store_janitor *janitor;
	/* Constant, so threads read them: */
	char *dir, *prefix;
	enum store_fsync fsync;
	char run[17]; /* makes names in tmp unique among processes */
	atomic_ullong next_tmp;
};

struct dir_get {
	struct store_get get; /* first */
	struct job job;
};

struct dir_put {
	struct store_put put; /* first */
	struct job job;
};

static struct store_dir *dir_of(const struct store *store)
{
	return (struct store_dir *)store;
}

/* ---- Paths ---- */

static int path_below(const struct store_dir *dir, const char *name, char path[PATH_MAX])
{
	int len = snprintf(path, PATH_MAX, "%s/%s", dir->dir, name);
	if (len >= 0 && len < PATH_MAX)
		return 0;
	errno = ENAMETOOLONG;
	return -1;
}

static int object_path(const struct store_dir *dir, const struct digest *key, char path[PATH_MAX])
{
	char name[STORE_NAME_BYTES];
	store_object_name(dir->prefix, key, name);
	return path_below(dir, name, path);
}

/* mkdir -p */
static int make_dirs(const char *dir)
{
	char path[PATH_MAX];
	size_t len = strlen(dir);
	if (len == 0 || len >= sizeof path) {
		errno = len ? ENAMETOOLONG : ENOENT;
		return -1;
	}
	memcpy(path, dir, len + 1);
	for (char *at = path + 1; *at; at++) {
		if (*at != '/')
			continue;
		*at = 0;
		if (mkdir(path, DIR_MODE) && errno != EEXIST)
			return -1;
		*at = '/';
	}
	if (mkdir(path, DIR_MODE) && errno != EEXIST)
		return -1;
	struct stat st;
	if (stat(path, &st))
		return -1;
	if (S_ISDIR(st.st_mode))
		return 0;
	errno = ENOTDIR;
	return -1;
}

static int make_layout(const struct store_dir *dir)
{
	char name[STORE_NAME_BYTES], path[PATH_MAX];
	snprintf(name, sizeof name, "%sembeddings", dir->prefix);
	if (path_below(dir, name, path) || make_dirs(path))
		return -1;
	return path_below(dir, "tmp", path) || make_dirs(path) ? -1 : 0;
}

/* ---- Get, on the thread ---- */

static void fail_get(struct store_get *get, int error)
{
	get->result = STORE_ERROR;
	get->error = error;
}

/* Up to size bytes; what is short is found by the decoder. -1 with errno. */
static ssize_t read_all(int fd, char *data, size_t size)
{
	size_t len = 0;
	while (len < size) {
		ssize_t n = read(fd, data + len, size - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return (ssize_t)len;
}

/* Unless somebody has put another file in its place meanwhile. */
static void remove_corrupt(const char *path, const struct stat *read_file)
{
	struct stat st;
	if (lstat(path, &st) == 0 && st.st_ino == read_file->st_ino &&
		st.st_dev == read_file->st_dev)
		unlink(path);
}

static void touch(int fd, const struct stat *st)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	/* A read-only or foreign file keeps its age. */
	if (now.tv_sec - st->st_mtim.tv_sec > TOUCH_AFTER_S && futimens(fd, NULL))
		return;
}

static void take_bytes(
	struct store_get *get, const char *path, int fd, const struct stat *st, struct span bytes)
{
	get->read_bytes = bytes.len;
	switch (stored_object_read(bytes, &get->key, get->legacy, &get->object)) {
	case STORED_OK:
		get->result = STORE_FOUND;
		touch(fd, st);
		break;
	case STORED_LEGACY:
		get->result = STORE_LEGACY;
		/* A touch would make it look younger than it is. */
		get->object.fields.stored_ms = (uint64_t)st->st_mtim.tv_sec * 1000;
		break;
	case STORED_UNKNOWN:
	case STORED_TOO_LARGE:
		get->result = STORE_MISS;
		break;
	case STORED_CORRUPT:
		get->result = STORE_MISS;
		get->corrupt = true;
		/* What others wrote is theirs. */
		if (!get->legacy)
			remove_corrupt(path, st);
		break;
	case STORED_NO_MEMORY:
		fail_get(get, ENOMEM);
		break;
	}
}

static void read_object(struct store_get *get, const char *path, int fd)
{
	struct stat st;
	if (fstat(fd, &st)) {
		fail_get(get, errno);
		return;
	}
	if (!S_ISREG(st.st_mode)) {
		fail_get(get, EINVAL);
		return;
	}
	if (st.st_size > stored_object_max_bytes(get->legacy)) {
		get->result = STORE_MISS;
		return;
	}
	size_t size = (size_t)st.st_size;
	char *data = malloc(size ? size : 1);
	if (!data) {
		fail_get(get, ENOMEM);
		return;
	}
	ssize_t len = read_all(fd, data, size);
	if (len < 0)
		fail_get(get, errno);
	else
		take_bytes(get, path, fd, &st, (struct span){data, (size_t)len});
	free(data);
}

static struct dir_get *get_of(struct job *job)
{
	return (struct dir_get *)((char *)job - offsetof(struct dir_get, job));
}

/* The second look of one job: a job of its own would cost more than all the rest of a miss. */
static bool legacy_is_missing(const struct store_dir *dir, const struct store_get *get)
{
	char name[STORE_NAME_BYTES], path[PATH_MAX];
	struct stat st;
	store_legacy_name(get->layout, &get->legacy_key, name);
	return path_below(dir, name, path) == 0 && lstat(path, &st) < 0 &&
	       (errno == ENOENT || errno == ENOTDIR);
}

static void get_work(struct job *job)
{
	struct store_get *get = &get_of(job)->get;
	const struct store_dir *dir = dir_of(get->store);
	char name[STORE_NAME_BYTES], path[PATH_MAX];
	store_get_name(get, dir->prefix, name);
	if (path_below(dir, name, path)) {
		fail_get(get, errno);
		return;
	}
	/* O_NONBLOCK: whatever lies there, opening it does not hang. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
		get->result = get->asks_about && legacy_is_missing(dir, get) ? STORE_MISS_BOTH
									     : STORE_MISS;
	} else if (fd < 0) {
		fail_get(get, errno);
	} else {
		read_object(get, path, fd);
		close(fd);
	}
}

static void get_done(struct job *job)
{
	store_get_end(&get_of(job)->get);
}

static int dir_get(struct store_get *get)
{
	struct dir_get *dg = (struct dir_get *)get;
	dg->job = (struct job){.work = get_work, .done = get_done};
	return workers_submit(dir_of(get->store)->workers, &dg->job);
}

/* ---- Delete what is purged ---- */

struct dir_remove {
	struct job job; /* first */
	char path[PATH_MAX];
	struct digest key;
	uint64_t stored_ms;
};

/* Unless something newer has taken its place. */
static void remove_work(struct job *job)
{
	struct dir_remove *dr = (struct dir_remove *)job;
	struct stored_object object = {0};
	struct stat st;
	int fd = open(dr->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return;
	char *data = NULL;
	bool same = false;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
		st.st_size <= STORED_OBJECT_MAX_BYTES && (data = malloc((size_t)st.st_size))) {
		ssize_t len = read_all(fd, data, (size_t)st.st_size);
		struct span bytes = {data, len < 0 ? 0 : (size_t)len};
		same = stored_object_decode(bytes, &dr->key, &object) == STORED_OK &&
		       object.fields.stored_ms == dr->stored_ms;
		stored_object_free(&object);
	}
	if (same)
		remove_corrupt(dr->path, &st);
	free(data);
	close(fd);
}

static void remove_done(struct job *job)
{
	free(job);
}

static void dir_remove(const struct store_get *get)
{
	const struct store_dir *dir = dir_of(get->store);
	/* What a Python gateway wrote is its own. */
	struct dir_remove *dr = get->result == STORE_FOUND ? malloc(sizeof *dr) : NULL;
	if (!dr)
		return;
	dr->job = (struct job){.work = remove_work, .done = remove_done};
	dr->key = get->key;
	dr->stored_ms = get->object.fields.stored_ms;
	if (object_path(dir, &get->key, dr->path) || workers_submit(dir->workers, &dr->job))
		free(dr);
}

/* ---- Put, on the thread ---- */

static int write_all(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int open_tmp(struct store_dir *dir, char path[PATH_MAX])
{
	char name[64];
	snprintf(name, sizeof name, "tmp/%s.%llu", dir->run, atomic_fetch_add(&dir->next_tmp, 1));
	BUG_ON(!store_janitor_knows_tmp(name + strlen("tmp/")));
	if (path_below(dir, name, path))
		return -1;
	for (int tries = 0;; tries++) {
		int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
		/* Somebody removed the directories: make them again. */
		if (fd >= 0 || errno != ENOENT || tries || make_layout(dir))
			return fd;
	}
}

static int rename_object(struct store_dir *dir, const char *from, const char *to)
{
	for (int tries = 0;; tries++) {
		if (rename(from, to) == 0)
			return 0;
		if (errno != ENOENT || tries || make_layout(dir))
			return -1;
	}
}

static int sync_parent(const char *path)
{
	char parent[PATH_MAX];
	size_t len = (size_t)(strrchr(path, '/') - path);
	memcpy(parent, path, len);
	parent[len] = 0;
	int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	int failed = fsync(fd), saved = errno;
	close(fd);
	errno = saved;
	return failed;
}

/* 0, or an errno. */
static int write_object(struct store_dir *dir, const struct digest *key, const struct buf *bytes)
{
	char tmp[PATH_MAX], path[PATH_MAX];
	bool full = dir->fsync == STORE_FSYNC_FULL;
	if (object_path(dir, key, path))
		return errno;
	int fd = open_tmp(dir, tmp);
	if (fd < 0)
		return errno;
	int error = 0;
	if (write_all(fd, bytes->data, bytes->len) || (full && fsync(fd)))
		error = errno;
	/* Network file systems tell of a full disk here. */
	if (close(fd) && !error)
		error = errno;
	if (!error && rename_object(dir, tmp, path))
		error = errno;
	if (error)
		unlink(tmp);
	else if (full && sync_parent(path))
		error = errno;
	return error;
}

static struct dir_put *put_of(struct job *job)
{
	return (struct dir_put *)((char *)job - offsetof(struct dir_put, job));
}

static void put_work(struct job *job)
{
	struct store_put *put = &put_of(job)->put;
	struct buf bytes = BUF_INIT(STORED_OBJECT_MAX_BYTES);
	if (stored_object_encode(&put->fields, &bytes)) {
		/* Trying again makes sense only when memory was short. */
		put->error = buf_failed(&bytes) ? ENOMEM : EINVAL;
	} else {
		put->error = write_object(dir_of(put->store), &put->fields.key, &bytes);
		put->written_bytes = bytes.len;
	}
	buf_free(&bytes);
}

/* Nothing that is written there now would fare better: it waits until there is room, or the disk is
 * back. A drain does not wait for that. */
static bool nothing_can_be_stored(int error)
{
	return error == ENOSPC || error == EDQUOT || error == EROFS || error == ENOTDIR ||
	       error == EACCES || error == EPERM;
}

static void put_done(struct job *job)
{
	struct store_put *put = &put_of(job)->put;
	put->away = nothing_can_be_stored(put->error) && !put->store->draining;
	store_put_end(put);
}

static int dir_put(struct store_put *put)
{
	struct dir_put *dp = (struct dir_put *)put;
	dp->job = (struct job){.work = put_work, .done = put_done};
	return workers_submit_patient(dir_of(put->store)->workers, &dp->job);
}

static void dir_stored(struct store *store, const struct store_put *put)
{
	store_janitor_stored(dir_of(store)->janitor, put->written_bytes);
}

/* ---- Life ---- */

static void dir_close(struct store *store)
{
	store_janitor_free(&dir_of(store)->janitor);
}

static void dir_free(struct store *store)
{
	struct store_dir *dir = dir_of(store);
	free(dir->dir);
	free(dir->prefix);
	free(dir);
}

static void dir_usage(const struct store *store, struct store_usage *usage)
{
	const struct store_janitor_stats *janitor = store_dir_janitor_stats(store);
	*usage = (struct store_usage){
		.measured = janitor->measured,
		.objects = janitor->objects,
		.bytes = janitor->bytes,
		.max_bytes = janitor->max_bytes,
		.evicted_objects = janitor->evicted_objects,
		.errors = janitor->errors,
	};
}

static const struct store_backend dir_backend = {
	.kind = "dir",
	.get_bytes = sizeof(struct dir_get),
	.put_bytes = sizeof(struct dir_put),
	.get = dir_get,
	.put = dir_put,
	.stored = dir_stored,
	.usage = dir_usage,
	.remove = dir_remove,
	.close = dir_close,
	.free = dir_free,
};

/* Without the slashes behind it. */
static char *copy_path(const char *path)
{
	size_t len = strlen(path);
	while (len > 1 && path[len - 1] == '/')
		len--;
	return strndup(path, len);
}

struct store *store_dir_new(
	struct loop *loop, struct workers *workers, const struct store_dir_options *options)
{
	BUG_ON(strcmp(options->prefix, "") != 0 && strcmp(options->prefix, "mock/") != 0);
	if (!options->dir[0] || (options->max_bytes && options->max_bytes < MIN_CAP_BYTES)) {
		errno = EINVAL;
		return NULL;
	}
	struct store_limits limits = {
		.max_queued_puts = options->max_queued_puts ? options->max_queued_puts
							    : DEFAULT_QUEUED_PUTS,
		.max_queued_bytes = options->max_queued_bytes ? options->max_queued_bytes
							      : DEFAULT_QUEUED_BYTES,
		.parallel_puts = options->parallel_puts ? options->parallel_puts : 1,
	};
	struct store_janitor_options janitor = {
		.dir = options->dir,
		.max_bytes = options->max_bytes,
		.interval_ms = options->janitor_interval_ms ? options->janitor_interval_ms
							    : DEFAULT_INTERVAL_MS,
	};
	struct store_dir *dir = calloc(1, sizeof *dir);
	if (!dir)
		return NULL;
	if (store_init(&dir->store, loop, &dir_backend, &limits))
		goto fail_dir;
	dir->workers = workers;
	dir->fsync = options->fsync;
	uint64_t run;
	digest_random(&run, sizeof run);
	snprintf(dir->run, sizeof dir->run, "%016llx", (unsigned long long)run);
	dir->dir = copy_path(options->dir);
	dir->prefix = strdup(options->prefix);
	if (!dir->dir || !dir->prefix || make_layout(dir))
		goto fail_store;
	janitor.dir = dir->dir;
	dir->janitor = store_janitor_new(loop, workers, &janitor);
	if (!dir->janitor)
		goto fail_store;
	return &dir->store;

fail_store:;
	int saved = errno;
	store_uninit(&dir->store);
	free(dir->dir);
	free(dir->prefix);
	errno = saved;
fail_dir:
	free(dir);
	return NULL;
}

const struct store_janitor_stats *store_dir_janitor_stats(const struct store *store)
{
	return store_janitor_stats(dir_of(store)->janitor);
}

void store_dir_clean(struct store *store, void (*on_done)(bool ran, void *arg), void *arg)
{
	store_janitor_request(dir_of(store)->janitor, on_done, arg);
}
