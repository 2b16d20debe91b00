#include "gatewayd/store_janitor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/workers.h"
#include "gatewayd/store.h"

#define SLICE_ENTRIES  512
#define TMP_MAX_AGE_US (3600ull * 1000 * 1000)
/* Two numbers of 20 digits, a space and a line's end. */
#define LAST_RUN_BYTES 42
/* The pool was full: ask again. */
#define BUSY_MS 100

/* Classes of age in microseconds: 64 a doubling. */
#define CLASS_BITS 6
#define CLASSES    ((64 - CLASS_BITS + 1) << CLASS_BITS)

const char *const store_janitor_dirs[] = {"embeddings", "mock/embeddings", NULL};

enum phase { PHASE_IDLE, PHASE_LOCK, PHASE_TMP, PHASE_SCAN, PHASE_EVICT, PHASE_END };

/*
 *  idle -> lock -> tmp -> scan -> evict -> end -> idle       one job; a slice does a part of a
 * phase |       |      +-- within the cap ---^ |       +-- not yet time -----------^
 *            +-- another has it -----------------^
 */
struct store_janitor {
	struct job job; /* first */
	struct workers *workers;
	struct timer *timer;
	char *dir;
	uint64_t max_bytes;
	uint32_t interval_ms;

	/* Loop thread: */
	bool running, freed;
	bool asked; /* run (again) when idle */
	bool asked_full;
	void (*on_done)(bool ran, void *arg); /* of the request to come */
	void *arg;
	void (*run_on_done)(bool ran, void *arg); /* of the run under way */
	void *run_arg;
	uint64_t stored_bytes; /* since the last run began */
	struct store_janitor_stats stats;

	/* The thread's, while the job is there: */
	enum phase phase;
	bool full, ran;
	bool measured; /* objects and bytes are those of a full run */
	int error;
	bool busy; /* another process is at it */
	int lock_fd;
	DIR *scanned;
	unsigned dir_index;
	uint64_t now_us; /* wall clock when the run began */
	uint64_t objects, bytes;
	uint64_t evicted_objects, evicted_bytes, tmp_removed;
	unsigned limit_class; /* older classes go */
	uint64_t limit_quota; /* and so many bytes of this one */
	uint64_t class_bytes[CLASSES];
};

/* ---- On the thread ---- */

static unsigned class_of(uint64_t age_us)
{
	if (age_us < 1u << CLASS_BITS)
		return (unsigned)age_us;
	unsigned doubling = 63 - (unsigned)__builtin_clzll(age_us) - CLASS_BITS;
	return ((doubling + 1) << CLASS_BITS) +
	       (unsigned)(age_us >> doubling & ((1u << CLASS_BITS) - 1));
}

static uint64_t wall_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t age_us(const struct store_janitor *j, const struct stat *st)
{
	if (st->st_mtim.tv_sec < 0)
		return j->now_us;
	uint64_t mtime_us = (uint64_t)st->st_mtim.tv_sec * 1000000 +
			    (uint64_t)st->st_mtim.tv_nsec / 1000;
	return mtime_us < j->now_us ? j->now_us - mtime_us : 0;
}

/* File systems that allocate late say 0 blocks for a new file. */
static uint64_t disk_bytes(const struct stat *st)
{
	uint64_t blocks = (uint64_t)st->st_blocks * 512;
	return blocks > (uint64_t)st->st_size ? blocks : (uint64_t)st->st_size;
}

static int open_below(const struct store_janitor *j, const char *name, int flags)
{
	char path[4096];
	size_t len = strlen(j->dir), name_len = strlen(name);
	if (len + 1 + name_len >= sizeof path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(path, j->dir, len);
	path[len] = '/';
	memcpy(path + len + 1, name, name_len + 1);
	return open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
}

/* 1: scanned is open; 0: there is no such directory; -1 with errno. */
static int open_dir(struct store_janitor *j, const char *name)
{
	int fd = open_below(j, name, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	j->scanned = fdopendir(fd);
	if (j->scanned)
		return 1;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static void close_dir(struct store_janitor *j)
{
	if (j->scanned)
		closedir(j->scanned);
	j->scanned = NULL;
}

static void enter_phase(struct store_janitor *j, enum phase phase)
{
	close_dir(j);
	j->dir_index = 0;
	j->phase = phase;
}

static void fail(struct store_janitor *j, int error)
{
	j->error = error;
	enter_phase(j, PHASE_END);
}

/* Did a full run of any process end within the interval? Then what it left is known. */
static bool read_last_run(struct store_janitor *j)
{
	struct stat st;
	char text[LAST_RUN_BYTES + 1];
	if (fstat(j->lock_fd, &st) || age_us(j, &st) >= (uint64_t)j->interval_ms * 1000 ||
		pread(j->lock_fd, text, sizeof text, 0) != LAST_RUN_BYTES)
		return false;
	text[LAST_RUN_BYTES] = 0;
	return sscanf(text, "%" SCNu64 " %" SCNu64, &j->objects, &j->bytes) == 2;
}

static int write_last_run(const struct store_janitor *j)
{
	char text[LAST_RUN_BYTES + 1];
	snprintf(text, sizeof text, "%020" PRIu64 " %020" PRIu64 "\n", j->objects, j->bytes);
	return pwrite(j->lock_fd, text, LAST_RUN_BYTES, 0) == LAST_RUN_BYTES &&
			       ftruncate(j->lock_fd, LAST_RUN_BYTES) == 0
		       ? 0
		       : -1;
}

static void do_lock(struct store_janitor *j)
{
	j->lock_fd = open_below(j, "janitor.lock", O_RDWR | O_CREAT);
	if (j->lock_fd < 0) {
		fail(j, errno);
	} else if (flock(j->lock_fd, LOCK_EX | LOCK_NB)) {
		j->busy = errno == EWOULDBLOCK;
		fail(j, j->busy ? 0 : errno);
	} else {
		if (!j->full)
			j->measured = read_last_run(j);
		j->full = !j->measured;
		enter_phase(j, PHASE_TMP);
	}
}

bool store_janitor_knows_tmp(const char *name)
{
	size_t run = strspn(name, "0123456789abcdef");
	if (run != 16 || name[run] != '.')
		return false;
	size_t number = strspn(name + run + 1, "0123456789");
	return number > 0 && name[run + 1 + number] == 0;
}

static void clean_tmp(struct store_janitor *j, const char *name)
{
	struct stat st;
	int fd = dirfd(j->scanned);
	if (!store_janitor_knows_tmp(name) || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) ||
		!S_ISREG(st.st_mode) || age_us(j, &st) < TMP_MAX_AGE_US)
		return;
	if (unlinkat(fd, name, 0) == 0)
		j->tmp_removed++;
}

static void scan_object(struct store_janitor *j, const struct stat *st)
{
	uint64_t bytes = disk_bytes(st);
	j->objects++;
	j->bytes += bytes;
	j->class_bytes[class_of(age_us(j, st))] += bytes;
}

static void evict_object(struct store_janitor *j, const char *name, const struct stat *st)
{
	uint64_t bytes = disk_bytes(st);
	unsigned class = class_of(age_us(j, st));
	if (class < j->limit_class || (class == j->limit_class && j->limit_quota == 0))
		return;
	if (unlinkat(dirfd(j->scanned), name, 0))
		return;
	if (class == j->limit_class)
		j->limit_quota -= bytes < j->limit_quota ? bytes : j->limit_quota;
	j->evicted_objects++;
	j->evicted_bytes += bytes;
	j->objects -= j->objects > 0;
	j->bytes -= bytes < j->bytes ? bytes : j->bytes;
}

static void take_object(struct store_janitor *j, const char *name)
{
	struct digest key;
	struct stat st;
	if (store_object_key(span_of(name), &key) ||
		fstatat(dirfd(j->scanned), name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
		return;
	if (j->phase == PHASE_SCAN)
		scan_object(j, &st);
	else
		evict_object(j, name, &st);
}

/* Which classes have to go, so that 90 % of the cap remain. */
static void set_limit(struct store_janitor *j)
{
	uint64_t keep = j->max_bytes - j->max_bytes / 10;
	uint64_t excess = j->bytes - keep;
	unsigned class = CLASSES - 1;
	while (j->class_bytes[class] < excess) {
		excess -= j->class_bytes[class];
		class --;
	}
	j->limit_class = class;
	j->limit_quota = excess;
}

static void end_of_phase(struct store_janitor *j)
{
	if (j->phase == PHASE_TMP && j->full) {
		j->objects = j->bytes = 0;
		enter_phase(j, PHASE_SCAN);
	} else if (j->phase == PHASE_SCAN && j->max_bytes && j->bytes > j->max_bytes) {
		set_limit(j);
		enter_phase(j, PHASE_EVICT);
	} else {
		j->ran = j->phase != PHASE_TMP;
		j->measured = true;
		enter_phase(j, PHASE_END);
	}
}

/* The directory that this phase is at; NULL after the last. */
static const char *phase_dir(const struct store_janitor *j)
{
	if (j->phase == PHASE_TMP)
		return j->dir_index == 0 ? "tmp" : NULL;
	return store_janitor_dirs[j->dir_index];
}

static void do_entries(struct store_janitor *j)
{
	for (int i = 0; i < SLICE_ENTRIES; i++) {
		if (!j->scanned) {
			const char *name = phase_dir(j);
			if (!name) {
				end_of_phase(j);
				return;
			}
			int opened = open_dir(j, name);
			if (opened < 0) {
				fail(j, errno);
				return;
			}
			j->dir_index += opened == 0;
			continue;
		}
		struct dirent *entry = readdir(j->scanned);
		if (!entry) {
			close_dir(j);
			j->dir_index++;
		} else if (entry->d_name[0] == '.') {
			continue;
		} else if (j->phase == PHASE_TMP) {
			clean_tmp(j, entry->d_name);
		} else {
			take_object(j, entry->d_name);
		}
	}
}

static void do_end(struct store_janitor *j)
{
	close_dir(j);
	if (j->lock_fd < 0)
		return;
	/* That it fails is no harm: the next run comes sooner. */
	if (j->ran && write_last_run(j) < 0)
		j->error = errno;
	close(j->lock_fd);
	j->lock_fd = -1;
}

static void work(struct job *job)
{
	struct store_janitor *j = (struct store_janitor *)job;
	if (j->phase == PHASE_LOCK)
		do_lock(j);
	else
		do_entries(j);
	if (j->phase == PHASE_END)
		do_end(j);
}

/* ---- On the loop ---- */

static void start_if_asked(struct store_janitor *j);

static void destroy(struct store_janitor *j)
{
	/* Cut short between two slices. */
	do_end(j);
	free(j->dir);
	free(j);
}

static void submit(struct store_janitor *j)
{
	if (workers_submit(j->workers, &j->job))
		timer_arm(j->timer, BUSY_MS);
}

static void end_run(struct store_janitor *j)
{
	j->running = false;
	j->phase = PHASE_IDLE;
	j->stats.evicted_objects += j->evicted_objects;
	j->stats.evicted_bytes += j->evicted_bytes;
	j->stats.tmp_removed += j->tmp_removed;
	j->stats.runs += j->ran;
	if (j->measured) {
		j->stats.measured = true;
		j->stats.objects = j->objects;
		j->stats.bytes = j->bytes;
	}
	j->stats.skipped += j->busy;
	j->stats.errors += j->error != 0;
	if (j->error)
		log_warn("the store's janitor could not do its work: %s", strerror(j->error));
	if (j->evicted_objects)
		log_fields(LOG_LEVEL_INFO, NULL, "the store was over its size",
			LOG_INT("evicted_objects", j->evicted_objects),
			LOG_INT("evicted_bytes", j->evicted_bytes), LOG_INT("bytes", j->bytes));
	if (j->interval_ms != UINT32_MAX)
		timer_arm(j->timer, j->interval_ms);
	void (*on_done)(bool ran, void *arg) = j->run_on_done;
	bool ran = j->ran;
	j->run_on_done = NULL;
	start_if_asked(j);
	/* Last: it may free the janitor. */
	if (on_done)
		on_done(ran, j->run_arg);
}

static void done(struct job *job)
{
	struct store_janitor *j = (struct store_janitor *)job;
	if (j->freed)
		destroy(j);
	else if (j->phase == PHASE_END)
		end_run(j);
	else
		submit(j);
}

static void start_if_asked(struct store_janitor *j)
{
	if (!j->asked || j->running)
		return;
	j->running = true;
	j->full = j->asked_full;
	j->run_on_done = j->on_done;
	j->run_arg = j->arg;
	j->asked = j->asked_full = false;
	j->on_done = NULL;
	j->stored_bytes = 0;
	j->ran = j->measured = j->busy = false;
	j->error = 0;
	j->objects = j->bytes = 0;
	j->evicted_objects = j->evicted_bytes = j->tmp_removed = 0;
	memset(j->class_bytes, 0, sizeof j->class_bytes);
	j->now_us = wall_us();
	j->phase = PHASE_LOCK;
	submit(j);
}

/* Time for a run, or to go on with one that found no thread. */
static void on_timer(void *arg)
{
	struct store_janitor *j = arg;
	if (j->running) {
		submit(j);
		return;
	}
	j->asked = true;
	start_if_asked(j);
}

struct store_janitor *store_janitor_new(
	struct loop *loop, struct workers *workers, const struct store_janitor_options *options)
{
	struct store_janitor *j = calloc(1, sizeof *j);
	if (!j)
		return NULL;
	j->job = (struct job){.work = work, .done = done};
	j->workers = workers;
	j->max_bytes = j->stats.max_bytes = options->max_bytes;
	j->interval_ms = options->interval_ms;
	j->lock_fd = -1;
	j->dir = strdup(options->dir);
	j->timer = timer_new(loop, on_timer, j);
	if (!j->dir || !j->timer) {
		timer_free(&j->timer);
		free(j->dir);
		free(j);
		return NULL;
	}
	if (j->interval_ms != UINT32_MAX)
		timer_arm(j->timer, 0);
	return j;
}

void store_janitor_stored(struct store_janitor *j, uint64_t bytes)
{
	j->stored_bytes += bytes;
	if (!j->max_bytes || j->stored_bytes < j->max_bytes / 100)
		return;
	j->asked = j->asked_full = true;
	start_if_asked(j);
}

void store_janitor_request(struct store_janitor *j, void (*on_done)(bool ran, void *arg), void *arg)
{
	BUG_ON(on_done && j->on_done);
	if (on_done) {
		j->on_done = on_done;
		j->arg = arg;
	}
	j->asked = j->asked_full = true;
	start_if_asked(j);
}

const struct store_janitor_stats *store_janitor_stats(const struct store_janitor *j)
{
	return &j->stats;
}

void store_janitor_free(struct store_janitor **j_)
{
	struct store_janitor *j = *j_;
	*j_ = NULL;
	if (!j)
		return;
	/* Running without a job on its way: waiting for the timer to submit the next slice. */
	bool job_out = j->running && !timer_armed(j->timer);
	timer_free(&j->timer);
	j->freed = true;
	if (!job_out)
		destroy(j);
}
