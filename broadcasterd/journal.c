#include "broadcasterd/journal.h"

#include <stdlib.h>

#include "common/wire.h"

/* ---- writing ---- */

static bool same_target(const struct journal_entry *a, const struct journal_entry *b)
{
	return a->kind == b->kind && span_equal(a->target, b->target);
}

static size_t count_same(const struct journal_entry *entries, size_t count)
{
	size_t n = 1;
	while (n < count && same_target(&entries[0], &entries[n]))
		n++;
	return n;
}

/* 0 is "not numbered yet" here: places are numbers less 1. */
static uint32_t number_purges(const struct journal_entry *entries, size_t count)
{
	uint32_t n = 0;
	for (size_t i = 0; i < count; i++)
		entries[i].purge->number = 0;
	for (size_t i = 0; i < count; i++)
		if (!entries[i].purge->number)
			entries[i].purge->number = ++n;
	return n;
}

static void write_purges(
	msgpack_packer *packer, const struct journal_entry *entries, size_t count, struct buf *out)
{
	struct buf packed = BUF_INIT(
		2 * (PURGE_MAX_TARGET_BYTES + PURGE_MAX_BODY_BYTES + PURGE_MAX_HEADER_BYTES));
	uint32_t n = 0;
	for (size_t i = 0; i < count; i++) {
		if (entries[i].purge->number != n + 1)
			continue;
		n++;
		buf_clear(&packed);
		purge_pack(entries[i].purge, &packed);
		out->failed |= buf_failed(&packed);
		wire_write_bin(packer, (struct span){(const char *)packed.data, packed.len});
	}
	buf_free(&packed);
}

void journal_write(const struct journal_entry *entries, size_t count, struct buf *out)
{
	msgpack_packer packer;
	wire_packer_init(&packer, out);
	msgpack_pack_array(&packer, 2);
	msgpack_pack_array(&packer, number_purges(entries, count));
	write_purges(&packer, entries, count, out);

	size_t n_targets = 0;
	for (size_t i = 0; i < count; i += count_same(entries + i, count - i))
		n_targets++;
	msgpack_pack_array(&packer, n_targets);
	for (size_t i = 0; i < count;) {
		size_t n = count_same(entries + i, count - i);
		msgpack_pack_array(&packer, 3);
		msgpack_pack_uint32(&packer, entries[i].kind);
		wire_write_str(&packer, entries[i].target);
		msgpack_pack_array(&packer, n);
		for (size_t end = i + n; i < end; i++) {
			msgpack_pack_array(&packer, 2);
			msgpack_pack_uint32(&packer, entries[i].purge->number - 1);
			wire_write_str(&packer, entries[i].instance);
		}
	}
}

/* ---- reading ---- */

struct reader {
	struct wire wire;
	struct purge **purges;
	uint32_t n_purges;
	void (*on_entry)(const struct journal_entry *entry, void *arg);
	void *arg;
};

static int read_purges(struct reader *r)
{
	uint32_t n;
	if (wire_read_array(&r->wire, &n) < 0)
		return -1;
	r->purges = calloc(n ? n : 1, sizeof *r->purges);
	if (!r->purges)
		return -1;
	for (; r->n_purges < n; r->n_purges++) {
		struct span packed;
		if (wire_read_bin(&r->wire, &packed) < 0)
			return -1;
		r->purges[r->n_purges] = purge_unpack(packed);
		if (!r->purges[r->n_purges])
			return -1;
	}
	return 0;
}

static int read_target(struct reader *r)
{
	struct journal_entry entry;
	uint64_t kind, place;
	uint32_t n, n_entries;
	if (wire_read_array(&r->wire, &n) < 0 || n != 3 || wire_read_u64(&r->wire, &kind) < 0 ||
		kind >= TARGET_KINDS || wire_read_str(&r->wire, &entry.target) < 0 ||
		!entry.target.len || entry.target.len > TARGET_MAX_NAME ||
		wire_read_array(&r->wire, &n_entries) < 0)
		return -1;
	/* A name becomes part of a URL or of a path. */
	for (size_t i = 0; i < entry.target.len; i++)
		if (entry.target.data[i] <= ' ' || strchr("/?#@\\\177", entry.target.data[i]))
			return -1;
	entry.kind = (enum target_kind)kind;
	for (; n_entries; n_entries--) {
		if (wire_read_array(&r->wire, &n) < 0 || n != 2 ||
			wire_read_u64(&r->wire, &place) < 0 || place >= r->n_purges ||
			wire_read_str(&r->wire, &entry.instance) < 0)
			return -1;
		entry.purge = r->purges[place];
		r->on_entry(&entry, r->arg);
	}
	return 0;
}

static int read_all(struct reader *r)
{
	uint32_t n;
	if (wire_read_array(&r->wire, &n) < 0 || n != 2 || read_purges(r) < 0 ||
		wire_read_array(&r->wire, &n) < 0)
		return -1;
	for (; n; n--)
		if (read_target(r) < 0)
			return -1;
	return r->wire.at == r->wire.end ? 0 : -1;
}

int journal_read(struct span bytes, void (*on_entry)(const struct journal_entry *entry, void *arg),
	void *arg)
{
	struct reader r = {.wire = wire_of(bytes), .on_entry = on_entry, .arg = arg};
	int result = read_all(&r);
	for (uint32_t i = 0; i < r.n_purges; i++)
		purge_unref(&r.purges[i]);
	free(r.purges);
	return result;
}
