/* Any bytes as the journal of pending purges, and each purge in it; what is accepted must say the
 * same after another round. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "broadcasterd/journal.h"
#include "common/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_ENTRIES 4096

struct seen {
	struct journal_entry entries[MAX_ENTRIES];
	size_t count;
};

static void on_entry(const struct journal_entry *entry, void *arg)
{
	struct seen *seen = arg;
	const struct purge *p = entry->purge;
	char text[64];
	BUG_ON(!entry->target.len || entry->target.len > TARGET_MAX_NAME);
	BUG_ON(!p->target.len || p->target.data[0] != '/');
	BUG_ON(!p->params.scope.len || p->params.values.count > PURGE_MAX_VALUES);
	purge_describe(p, text, sizeof text);
	if (seen->count < MAX_ENTRIES) {
		seen->entries[seen->count] = *entry;
		purge_ref(seen->entries[seen->count++].purge);
	}
}

static void forget(struct seen *seen)
{
	for (size_t i = 0; i < seen->count; i++)
		purge_unref(&seen->entries[i].purge);
	seen->count = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct seen first, second;
	struct buf out = BUF_INIT(JOURNAL_MAX_BYTES);
	struct span bytes = {(const char *)data, size};
	int result = journal_read(bytes, on_entry, &first);
	if (result == 0 && first.count && first.count < MAX_ENTRIES) {
		journal_write(first.entries, first.count, &out);
		BUG_ON(buf_failed(&out));
		BUG_ON(journal_read((struct span){(const char *)out.data, out.len}, on_entry,
			       &second) < 0);
		BUG_ON(first.count != second.count);
		for (size_t i = 0; i < first.count; i++) {
			const struct journal_entry *a = &first.entries[i], *b = &second.entries[i];
			/* The names of the second lie in out, those of the first in data. */
			BUG_ON(a->kind != b->kind || !span_equal(a->target, b->target));
			BUG_ON(!span_equal(a->instance, b->instance));
			BUG_ON(!purge_equal(a->purge, b->purge));
			BUG_ON(a->purge->time_ms != b->purge->time_ms);
		}
	}
	forget(&first);
	forget(&second);
	buf_free(&out);
	return 0;
}
