#ifndef COMMON_WIRE_H
#define COMMON_WIRE_H

/*
 * MessagePack bytes (https://github.com/msgpack/msgpack/blob/master/spec.md): finding where an
 * object ends, reading objects in place, and writing them into a struct buf.
 *
 * Writing is msgpack-c's packer. Reading is not msgpack-c's unpacker: that builds a tree in a zone
 * for every message, while a message of ours is read once, in order, into a struct whose spans
 * point into the bytes. So reading is a cursor that checks every length against the bytes that are
 * there and allocates nothing. Safe on any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <msgpack/pack.h>

#include "common/buf.h"
#include "common/span.h"

#define WIRE_MAX_DEPTH 8 /* arrays and maps inside each other, the outermost counted */

/*
 * Where does the object at the start of `data` end? The scan can stop at any byte and go on when
 * there are more, so that no byte is looked at twice. {0} is the start. Refused: more than
 * WIRE_MAX_DEPTH levels, the reserved type 0xc1, and any length or count that cannot fit into
 * max_len bytes.
 */
struct wire_scan {
	size_t at; /* bytes looked at or known to be skipped; the object's length when done */
	unsigned depth;
	uint32_t left[WIRE_MAX_DEPTH + 1]; /* objects still to come, per open level */
};
enum wire_progress { WIRE_MORE, WIRE_DONE, WIRE_BAD };
enum wire_progress wire_scan(
	struct wire_scan *scan, const void *data, size_t len_bytes, size_t max_len);

/* A place in bytes that somebody else owns. */
struct wire {
	const uint8_t *at, *end;
};
static inline struct wire wire_of(struct span bytes)
{
	const uint8_t *data = (const uint8_t *)bytes.data;
	return (struct wire){data, data + bytes.len};
}

/*
 * Readers: 0, or -1 with the cursor where it was when the next object has another type, does not
 * fit the result, or is cut short. Numbers are read in every width that the format has.
 */
bool wire_at_nil(const struct wire *w);
int wire_read_nil(struct wire *w);
int wire_read_bool(struct wire *w, bool *value);
int wire_read_u64(struct wire *w, uint64_t *value);
int wire_read_i64(struct wire *w, int64_t *value);
int wire_read_f64(struct wire *w, double *value); /* integers count as numbers */
int wire_read_str(struct wire *w, struct span *value);
int wire_read_bin(struct wire *w, struct span *value);
/* count objects follow; never more than there are bytes left. */
int wire_read_array(struct wire *w, uint32_t *count);
/* One whole object of any type, unread; raw may be NULL. */
int wire_skip(struct wire *w, struct span *raw);

/* msgpack-c's packer on a buffer; ask buf_failed() at the end. */
int wire_buf_write(void *buf, const char *data, size_t len_bytes);
static inline void wire_packer_init(msgpack_packer *packer, struct buf *out)
{
	msgpack_packer_init(packer, out, wire_buf_write);
}
void wire_write_str(msgpack_packer *packer, struct span value);
void wire_write_bin(msgpack_packer *packer, struct span value);

#endif
