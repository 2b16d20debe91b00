#ifndef GATEWAYD_STORED_OBJECT_H
#define GATEWAYD_STORED_OBJECT_H

/*
 * One embedding as it lies in a store: a gzip member whose content is what a provider answers for
 * one input,
 *
 *   {"object":"list","data":[{"object":"embedding","index":0,"embedding":"<base64>"}],
 *    "model":"...","usage":{"prompt_tokens":N,"total_tokens":N}}
 *
 * so zcat shows it and any program that understands OpenAI can read it. The embedding is a base64
 * string, or the provider's array verbatim (vector.h). What the answer does not say stands in the
 * FEXTRA field (RFC 1952 2.3.1.1) under the subfield id 'E' 'G', so that every copy keeps it:
 *
 *   version 1 | source | dims u32 | stored_ms u64 | element key 32 | model len u16, bytes |
 *   parameters len u16, bytes | CRC-32 of all before u32          (little-endian)
 *
 * An object without that subfield is a legacy object: written by the Python gateway, whose content
 * may be a batch. It is recognised and handed out as JSON; taking it apart is not done here.
 *
 * Safe on any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/span.h"
#include "gatewayd/vector.h"

#define STORED_OBJECT_VERSION   1
#define STORED_OBJECT_MAX_BYTES (8u << 20) /* of the content, and of the gzip member */
/* Of a legacy object that is looked up by the hash of a whole body: a batch as a Python gateway
 * kept it. */
#define STORED_LEGACY_MAX_BYTES (160u << 20)
#define STORED_MODEL_MAX_BYTES  4096
#define STORED_PARAMS_MAX_BYTES 32768

/* What is stored, or was read. All spans are borrowed. */
struct stored_fields {
	struct digest key;        /* element key */
	uint64_t stored_ms;       /* wall clock, when the vector was bought */
	struct span model;        /* as asked for: purges by model go by it */
	struct span served_model; /* as the provider named it: goes into answers; plain text, no
				     JSON escapes; encode: empty means model */
	struct span params; /* canonical JSON of the request without its input; "" or an object */
	enum vector_source source;
	struct span vector; /* base64 characters without quotes, or the JSON array */
	uint32_t dims;
	uint64_t prompt_tokens, total_tokens;
};

enum stored_result {
	STORED_OK,
	STORED_LEGACY,    /* no metadata of ours; object->json is a JSON object with "data" */
	STORED_UNKNOWN,   /* written by a newer version of this format: leave it alone */
	STORED_TOO_LARGE, /* beyond STORED_OBJECT_MAX_BYTES: leave it alone */
	STORED_CORRUPT,   /* object->reason says why; of no use to anybody */
	STORED_NO_MEMORY,
};

/* A decoded object: owns the bytes that its spans point into. Zeroed is empty. */
struct stored_object {
	struct stored_fields fields; /* STORED_OK */
	struct span json;            /* STORED_OK and STORED_LEGACY: the whole content */
	const char *reason;          /* a constant; not NULL unless STORED_OK */
	void *memory;
	size_t memory_bytes;
};

/* Append the gzip member. 0, or -1: a field is out of its bounds (vector and dims must agree; they
 * are trusted to be valid otherwise), out's ceiling, no memory. */
int stored_object_encode(const struct stored_fields *fields, struct buf *out);

/*
 * Read an object that should be the one with this element key; NULL takes any (to list a store).
 * Everything is checked: gzip and its sum, metadata and its sum, key, shape of the JSON, that the
 * metadata and the JSON agree, number of dimensions, finite numbers. object must be empty before;
 * stored_object_free() it after STORED_OK and STORED_LEGACY (harmless after the others).
 */
enum stored_result stored_object_decode(
	struct span bytes, const struct digest *key, struct stored_object *object);

/* The same for a store's look-up: a legacy one takes legacy objects alone (ours are UNKNOWN) and
 * has their limit. */
enum stored_result stored_object_read(
	struct span bytes, const struct digest *key, bool legacy, struct stored_object *object);
static inline int64_t stored_object_max_bytes(bool legacy)
{
	return legacy ? STORED_LEGACY_MAX_BYTES : STORED_OBJECT_MAX_BYTES;
}

/* Move it out of where it was lent. */
struct stored_object stored_object_take(struct stored_object *object);
void stored_object_free(struct stored_object *object);

#endif
