/* journal.h's second half: the file. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "broadcasterd/journal.h"
#include "common/digest.h"
#include "common/listen.h"
#include "common/log.h"
#include "common/workers.h"

#define MAGIC      "embedding-gateway purge journal 1 "
#define HEAD_BYTES (sizeof MAGIC - 1 + DIGEST_HEX + 1)

struct journal {
	struct workers *workers;
	struct loop *loop;
	bool saving, warned;

	struct job job;
	struct buf content; /* of the save under way */
	const char *failed; /* step, set on the thread; NULL: done */
	int error;
	void (*on_saved)(bool ok, void *arg);
	void *arg;

	char *path, *fresh_path, *directory;
};

/* ---- on a thread: from here to save() they touch content, failed, error and the paths ---- */

static bool fail(struct journal *j, const char *step)
{
	j->failed = step;
	j->error = errno;
	return false;
}

static bool write_all(struct journal *j, int fd)
{
	char head[HEAD_BYTES + 1], hex[DIGEST_HEX + 1];
	struct digest digest = digest_of((struct span){(char *)j->content.data, j->content.len});
	digest_hex(&digest, hex);
	snprintf(head, sizeof head, MAGIC "%s\n", hex);
	struct iovec parts[2] = {{head, HEAD_BYTES}, {j->content.data, j->content.len}};
	size_t first = 0;
	while (first < 2) {
		ssize_t n = writev(fd, parts + first, (int)(2 - first));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		for (; first < 2 && (size_t)n >= parts[first].iov_len; first++)
			n -= (ssize_t)parts[first].iov_len;
		if (first < 2) {
			parts[first].iov_base = (char *)parts[first].iov_base + n;
			parts[first].iov_len -= (size_t)n;
		}
	}
	return true;
}

static bool sync_directory(struct journal *j)
{
	int fd = open(j->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok = fd >= 0 && fsync(fd) == 0;
	if (fd >= 0)
		close(fd);
	return ok || fail(j, "sync the directory");
}

static bool replace(struct journal *j)
{
	int fd = open(j->fresh_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(j, "make");
	bool ok = write_all(j, fd) || fail(j, "write");
	ok = ok && (fdatasync(fd) == 0 || fail(j, "sync"));
	close(fd);
	if (ok && rename(j->fresh_path, j->path) < 0)
		ok = fail(j, "rename");
	if (!ok) {
		unlink(j->fresh_path);
		return false;
	}
	return sync_directory(j);
}

static bool save(struct journal *j)
{
	j->failed = NULL;
	if (j->content.len)
		return replace(j);
	return unlink(j->path) == 0 || errno == ENOENT || fail(j, "remove");
}

static void work(struct job *job)
{
	save((struct journal *)((char *)job - offsetof(struct journal, job)));
}

/* ---- on the loop ---- */

static bool report(struct journal *j)
{
	buf_free(&j->content);
	if (j->failed && !j->warned)
		log_error("pending purges would not outlive this process: cannot %s %s: %s",
			j->failed, j->path, strerror(j->error));
	if (!j->failed && j->warned)
		log_info("pending purges are in %s again", j->path);
	j->warned = j->failed != NULL;
	return !j->failed;
}

static void done(struct job *job)
{
	struct journal *j = (struct journal *)((char *)job - offsetof(struct journal, job));
	j->saving = false;
	j->on_saved(report(j), j->arg);
}

void journal_save(struct journal *journal, struct buf *content,
	void (*on_saved)(bool ok, void *arg), void *arg)
{
	BUG_ON(journal->saving);
	journal->saving = true;
	journal->content = *content;
	buf_init(content, content->max_len);
	journal->on_saved = on_saved;
	journal->arg = arg;
	journal->job = (struct job){.work = work, .done = done};
	/* One at a time, so the queue is never full. */
	BUG_ON(workers_submit(journal->workers, &journal->job) < 0);
}

bool journal_save_now(struct journal *journal, struct buf *content)
{
	BUG_ON(journal->saving);
	journal->content = *content;
	buf_init(content, content->max_len);
	save(journal);
	return report(journal);
}

void journal_finish(struct journal *journal)
{
	workers_free(&journal->workers);
}

/* ---- loading ---- */

static int read_file(int fd, struct buf *out)
{
	while (true) {
		void *room = buf_reserve(out, 64u << 10);
		ssize_t n = room ? read(fd, room, 64u << 10) : -1;
		if (n < 0 && room && errno == EINTR)
			continue;
		if (!room)
			errno = EFBIG;
		if (n <= 0)
			return (int)n;
		buf_commit(out, (size_t)n);
	}
}

static bool is_whole(const struct buf *file)
{
	struct digest written, found;
	const char *text = (const char *)file->data;
	if (file->len < HEAD_BYTES || memcmp(text, MAGIC, sizeof MAGIC - 1) != 0 ||
		text[HEAD_BYTES - 1] != '\n' ||
		digest_parse_hex((struct span){text + sizeof MAGIC - 1, DIGEST_HEX}, &written) < 0)
		return false;
	found = digest_of((struct span){text + HEAD_BYTES, file->len - HEAD_BYTES});
	return digest_equal(&written, &found);
}

int journal_load(struct journal *journal, struct buf *out)
{
	char aside[PATH_MAX];
	int fd = open(journal->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || read_file(fd, out) < 0) {
		log_error("cannot read %s: %s", journal->path, strerror(errno));
		if (fd >= 0)
			close(fd);
		buf_clear(out);
		return -1;
	}
	close(fd);
	if (is_whole(out)) {
		buf_consume(out, HEAD_BYTES);
		return 0;
	}
	buf_clear(out);
	snprintf(aside, sizeof aside, "%s.bad", journal->path);
	log_error("%s is no journal of pending purges: put aside as %s", journal->path, aside);
	rename(journal->path, aside);
	return -1;
}

/* ---- life ---- */

struct journal *journal_new(struct loop *loop, const char *path)
{
	struct journal *j = calloc(1, sizeof *j);
	if (!j)
		return NULL;
	const char *slash = strrchr(path, '/');
	j->loop = loop;
	j->path = strdup(path);
	j->directory = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	if (asprintf(&j->fresh_path, "%s.new", path) < 0)
		j->fresh_path = NULL;
	j->workers = workers_new(loop, 1, 1);
	if (!j->path || !j->directory || !j->fresh_path || !j->workers)
		journal_free(&j);
	else if (listen_make_dir(j->directory) < 0)
		log_warn("cannot make %s: %s", j->directory, strerror(errno));
	return j;
}

void journal_free(struct journal **journal)
{
	struct journal *j = *journal;
	if (!j)
		return;
	*journal = NULL;
	workers_free(&j->workers);
	buf_free(&j->content);
	free(j->path);
	free(j->fresh_path);
	free(j->directory);
	free(j);
}
