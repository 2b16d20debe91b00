#ifndef GATEWAYD_STORE_DIR_H
#define GATEWAYD_STORE_DIR_H

/*
 * The store in a directory:
 *
 *   <dir>/embeddings/<sha256>.json.gz, <dir>/mock/embeddings/...     the objects
 *   <dir>/tmp/<16 hex>.<n>             being written; renamed into place when whole
 *   <dir>/janitor.lock                  see store_janitor.h
 *
 * Several processes may use one directory at a time. No partial file is ever visible under an
 * object's name as long as the machine stays up: a crash of the process leaves a file in tmp, which
 * the janitor removes.
 *
 * Durability (fsync policy): with STORE_FSYNC_NONE (default) the kernel writes when it likes. A
 * crash of the machine can lose the objects of the last seconds (on most systems up to 30) and can
 * leave short or empty files under object names: those fail their checks, count as misses, are
 * deleted and bought again. A wrong vector is never served. STORE_FSYNC_FULL syncs the file before
 * the rename and its directory after: nothing that was counted as stored is lost, at the price of
 * two disk flushes a put.
 *
 * A corrupt or short object is a miss, counted, and deleted. A hit on a file whose modification
 * time is more than a day old sets it to now, so the modification time orders objects by last use,
 * to the day.
 */
#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/store.h"
#include "gatewayd/store_janitor.h"

struct workers;

#define STORE_DIR_DEFAULT_MAX_BYTES (10ull << 30)

enum store_fsync { STORE_FSYNC_NONE, STORE_FSYNC_FULL };

struct store_dir_options {
	const char *dir;    /* made when it is missing (its parents too); copied */
	const char *prefix; /* "" or "mock/"; copied */
	uint64_t max_bytes; /* size cap of all objects together, 0: none. 64 KiB at least */
	enum store_fsync fsync;
	size_t max_queued_puts;       /* 0: 8192 */
	uint64_t max_queued_bytes;    /* of their data; 0: 64 MiB */
	unsigned parallel_puts;       /* on worker threads at a time; 0: 1 */
	uint32_t janitor_interval_ms; /* 0: an hour; UINT32_MAX: only when asked for */
};

/* loop and workers must outlive the store. Makes the directories, which blocks: for the start of a
 * process. NULL with errno. */
struct store *store_dir_new(
	struct loop *loop, struct workers *workers, const struct store_dir_options *options);

/* Of a store made by store_dir_new(). */
const struct store_janitor_stats *store_dir_janitor_stats(const struct store *store);
/* As store_janitor_request(). */
void store_dir_clean(struct store *store, void (*on_done)(bool ran, void *arg), void *arg);

#endif
