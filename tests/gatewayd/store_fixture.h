#ifndef TESTS_GATEWAYD_STORE_FIXTURE_H
#define TESTS_GATEWAYD_STORE_FIXTURE_H

/* What the tests of the directory store share: a directory, a loop and threads for each test, and
 * objects by number. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/workers.h"
#include "gatewayd/store_dir.h"

#define DAY_S (24 * 3600)

/* A directory of its own, a loop and threads for each test. Nothing waits longer than this. */
#define TIMEOUT_S 60

struct fixture {
	char dir[64];
	struct loop *loop;
	struct workers *workers;
	struct store *store;
	struct timer *poll;
	bool (*until)(struct fixture *f);
	unsigned wanted;
};

static inline int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static inline void on_poll(void *arg)
{
	struct fixture *f = arg;
	if (f->until(f))
		loop_stop(f->loop);
	else
		timer_arm(f->poll, 1);
}

static inline void start_loop(struct fixture *f, size_t max_queued)
{
	f->loop = loop_new();
	f->workers = workers_new(f->loop, 4, max_queued);
	f->poll = timer_new(f->loop, on_poll, f);
	assert_non_null(f->workers);
}

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	const char *tmp = getenv("TMPDIR");
	snprintf(f->dir, sizeof f->dir, "%s/store_dir_test.XXXXXX",
		tmp && strlen(tmp) < 30 ? tmp : "/tmp");
	if (!mkdtemp(f->dir))
		return -1;
	/* Expected errors are part of these tests. */
	log_set_level(LOG_LEVEL_FATAL);
	alarm(TIMEOUT_S);
	start_loop(f, 1000);
	*state = f;
	return 0;
}

static inline void stop_loop(struct fixture *f)
{
	store_free(&f->store);
	timer_free(&f->poll);
	workers_free(&f->workers);
	loop_free(&f->loop);
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;
	stop_loop(f);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	alarm(0);
	free(f);
	return 0;
}

static inline void wait_until(struct fixture *f, bool (*until)(struct fixture *f))
{
	f->until = until;
	timer_arm(f->poll, 0);
	loop_run(f->loop);
}

static inline bool puts_are_over(struct fixture *f)
{
	return store_puts_pending(f->store) == 0;
}

static inline struct store *open_store(struct fixture *f, const char *prefix, uint64_t max_bytes)
{
	struct store_dir_options options = {.dir = f->dir,
		.prefix = prefix,
		.max_bytes = max_bytes,
		.janitor_interval_ms = UINT32_MAX};
	struct store *store = store_dir_new(f->loop, f->workers, &options);
	assert_non_null(store);
	return store;
}

static inline struct digest key_of(unsigned id)
{
	return digest_of((struct span){(const char *)&id, sizeof id});
}

/* Vectors of so many numbers that only this id has; they do not pack well. */
static inline struct stored_fields fields_of(unsigned id, uint32_t dims, char *memory)
{
	float values[4096];
	uint32_t random = id * 2654435761u + 1;
	for (uint32_t i = 0; i < dims; i++) {
		random = random * 1664525 + 1013904223;
		values[i] = (float)random / 4294967296.0f;
	}
	vector_base64_encode(values, dims * sizeof(float), memory);
	return (struct stored_fields){
		.key = key_of(id),
		.stored_ms = 1000 + id,
		.model = SPAN_LITERAL("model"),
		.params = SPAN_LITERAL("{\"model\": \"model\"}"),
		.source = VECTOR_BASE64,
		.vector = {memory, vector_base64_len(dims)},
		.dims = dims,
		.prompt_tokens = id,
		.total_tokens = id,
	};
}

static inline bool put(struct store *store, unsigned id, uint32_t dims)
{
	char *memory = malloc(VECTOR_BASE64_LEN(dims * sizeof(float)));
	struct stored_fields fields = fields_of(id, dims, memory);
	bool taken = store_put(store, &fields, NULL);
	/* All is copied. */
	memset(memory, '#', VECTOR_BASE64_LEN(dims * sizeof(float)));
	free(memory);
	return taken;
}

struct answer {
	struct fixture *f;
	unsigned id;
	bool done;
	enum store_result result;
	bool whole; /* it is the object of this id */
	unsigned *waiting;
};

static inline void on_get(enum store_result result, struct stored_object *object, void *arg)
{
	struct answer *a = arg;
	assert_false(a->done);
	a->done = true;
	a->result = result;
	assert_int_equal(object != NULL, result == STORE_FOUND || result == STORE_LEGACY);
	if (result == STORE_FOUND) {
		char *memory = malloc(VECTOR_BASE64_LEN(4096 * sizeof(float)));
		struct stored_fields wanted = fields_of(a->id, object->fields.dims, memory);
		a->whole = span_equal(object->fields.vector, wanted.vector) &&
			   digest_equal(&object->fields.key, &wanted.key) &&
			   object->fields.total_tokens == a->id;
		free(memory);
	}
	if (--*a->waiting == 0)
		loop_stop(a->f->loop);
}

static inline struct answer get(struct fixture *f, struct store *store, unsigned id)
{
	unsigned waiting = 1;
	struct answer a = {.f = f, .id = id, .waiting = &waiting};
	struct digest key = key_of(id);
	assert_non_null(store_get_start(store, &key, on_get, &a));
	assert_false(a.done);
	loop_run(f->loop);
	assert_true(a.done);
	return a;
}

static inline void path_of(struct fixture *f, const char *prefix, unsigned id, char path[PATH_MAX])
{
	char name[STORE_NAME_BYTES];
	struct digest key = key_of(id);
	store_object_name(prefix, &key, name);
	snprintf(path, PATH_MAX, "%s/%s", f->dir, name);
}

static inline bool exists(struct fixture *f, unsigned id)
{
	char path[PATH_MAX];
	path_of(f, "", id, path);
	return access(path, F_OK) == 0;
}

static inline void write_file(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

static inline size_t read_file(const char *path, uint8_t *data, size_t size)
{
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	ssize_t n = read(fd, data, size);
	assert_true(n >= 0);
	close(fd);
	return (size_t)n;
}

static inline void set_age(const char *path, int64_t seconds)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - seconds}};
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static inline unsigned files_in_tmp(struct fixture *f)
{
	char path[PATH_MAX], name[PATH_MAX + 16];
	snprintf(path, sizeof path, "%s/tmp", f->dir);
	snprintf(name, sizeof name, "ls %s | wc -l", path);
	FILE *p = popen(name, "r");
	unsigned n = 0;
	assert_int_equal(fscanf(p, "%u", &n), 1);
	pclose(p);
	return n;
}

static inline void on_drained(void *arg)
{
	struct fixture *f = arg;
	assert_int_equal(store_puts_pending(f->store), 0);
	loop_stop(f->loop);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
