#ifndef BROADCASTERD_JOURNAL_H
#define BROADCASTERD_JOURNAL_H

/*
 * What targets still have to be told, in a file, so that it outlives this process.
 *
 * The file is always whole: each save writes all of it beside the old one, then takes its place
 * (rename). Policy: file and directory are synced (fdatasync, fsync) with every save, so what was
 * reported as saved outlives the machine's crash too, as far as its disk does; when nothing is
 * pending, there is no file. Saves are jobs of a worker thread, one at a time; what changes
 * meanwhile goes with the next one. The last save of all blocks: the process ends.
 *
 *   embedding-gateway purge journal 1 <SHA-256 of what follows, in hex>\n
 *   MessagePack: [purges: [bin, …], targets: [[kind, name, [[purge, instance], …]], …]]
 *
 * bin: purge_pack(). purge: its place in purges, from 0. A file that is not so is put aside
 * (".bad"), said in the log, and counts as empty.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broadcasterd/purge.h"
#include "broadcasterd/target.h"
#include "common/buf.h"
#include "common/span.h"

#define JOURNAL_MAX_BYTES (256u << 20)

/* ---- the content: pure ---- */

/* One thing that one target has to be told; borrowed. */
struct journal_entry {
	enum target_kind kind;
	struct span target, instance;
	struct purge *purge;
};
/* Entries of one target stand together, in order; numbers the purges. */
void journal_write(const struct journal_entry *entries, size_t count, struct buf *out);
/* Calls on_entry for each. 0; -1 when the bytes are not what journal_write() writes, or memory is
 * out: then on_entry may have been called for some. */
int journal_read(struct span bytes, void (*on_entry)(const struct journal_entry *entry, void *arg),
	void *arg);

/* ---- the file ---- */

struct journal;
struct loop;

/* path is copied. NULL when out of memory. */
struct journal *journal_new(struct loop *loop, const char *path);
/* Reads the file: blocks, for the start. Bytes of the content; len 0: none. out's ceiling is the
 * journal's. -1: it could not be read, or was bad; the reason is logged. */
int journal_load(struct journal *journal, struct buf *out);
/* Save content (taken over; len 0: remove the file). on_saved: exactly once, never from inside this
 * call; ok false: it could not be written, the reason is logged (once until it works again). Only
 * when the one before has been saved. */
void journal_save(struct journal *journal, struct buf *content,
	void (*on_saved)(bool ok, void *arg), void *arg);
/* The same at once: for the end of a process, after journal_finish(). */
bool journal_save_now(struct journal *journal, struct buf *content);
/* Waits for a save under way and calls its on_saved. */
void journal_finish(struct journal *journal);
void journal_free(struct journal **journal);

#endif
