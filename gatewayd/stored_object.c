#include "gatewayd/stored_object.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/gzip.h"
#include "common/json.h"
#include "common/json_span.h"
#include "gatewayd/gzip_base64.h"

#define SUBFIELD_1 'E'
#define SUBFIELD_2 'G'
/* version, source, dims, time, key, two lengths, sum */
#define META_FIXED_BYTES (1 + 1 + 4 + 8 + DIGEST_BYTES + 2 + 2 + 4)
#define META_MAX_BYTES   (META_FIXED_BYTES + STORED_MODEL_MAX_BYTES + STORED_PARAMS_MAX_BYTES)
/* What stands around a vector, unless names are long. */
#define JSON_AROUND_BYTES 512
/* Of numbers as text. */
#define GZIP_LEVEL 1

_Static_assert(META_MAX_BYTES + 4 <= 65535, "fits into FEXTRA");

/* ---- Little-endian ---- */

static void put_le(struct buf *out, uint64_t value, size_t n_bytes)
{
	uint8_t bytes[8];
	for (size_t i = 0; i < n_bytes; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
	buf_append(out, bytes, n_bytes);
}

/* What is read off the front; bytes beyond the end are 0 and set bad. */
struct reader {
	const uint8_t *at;
	size_t len;
	bool bad;
};

static uint64_t get_le(struct reader *r, size_t n_bytes)
{
	uint64_t value = 0;
	if (r->len < n_bytes) {
		r->bad = true;
		return 0;
	}
	for (size_t i = 0; i < n_bytes; i++)
		value |= (uint64_t)r->at[i] << (8 * i);
	r->at += n_bytes;
	r->len -= n_bytes;
	return value;
}

static struct span get_bytes(struct reader *r, size_t n_bytes)
{
	struct span bytes = {(const char *)r->at, n_bytes};
	if (r->len < n_bytes) {
		r->bad = true;
		return (struct span){0};
	}
	r->at += n_bytes;
	r->len -= n_bytes;
	return bytes;
}

/* ---- Encode ---- */

static bool fields_fit(const struct stored_fields *f)
{
	if (f->model.len > STORED_MODEL_MAX_BYTES || f->served_model.len > STORED_MODEL_MAX_BYTES ||
		f->params.len > STORED_PARAMS_MAX_BYTES || f->dims == 0 ||
		f->dims > VECTOR_MAX_DIMS || f->prompt_tokens > INT64_MAX ||
		f->total_tokens > INT64_MAX)
		return false;
	if (f->params.len && f->params.data[0] != '{')
		return false;
	if (f->source == VECTOR_BASE64)
		return f->vector.len == vector_base64_len(f->dims);
	return f->vector.len > 2 && f->vector.len <= VECTOR_MAX_TEXT_BYTES &&
	       f->vector.data[0] == '[' && f->vector.data[f->vector.len - 1] == ']';
}

static void append_extra(struct buf *out, const struct stored_fields *f)
{
	buf_append_char(out, SUBFIELD_1);
	buf_append_char(out, SUBFIELD_2);
	put_le(out, META_FIXED_BYTES + f->model.len + f->params.len, 2);
	size_t start = out->len;
	put_le(out, STORED_OBJECT_VERSION, 1);
	put_le(out, f->source, 1);
	put_le(out, f->dims, 4);
	put_le(out, f->stored_ms, 8);
	buf_append(out, f->key.bytes, DIGEST_BYTES);
	put_le(out, f->model.len, 2);
	buf_append(out, f->model.data, f->model.len);
	put_le(out, f->params.len, 2);
	buf_append(out, f->params.data, f->params.len);
	if (!buf_failed(out))
		put_le(out, crc32(0, out->data + start, (uInt)(out->len - start)), 4);
}

static void append_json(struct buf *out, const struct stored_fields *f)
{
	const char *quote = f->source == VECTOR_BASE64 ? "\"" : "";
	buf_append_str(out, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,"
			    "\"embedding\":");
	buf_append_str(out, quote);
	buf_append(out, f->vector.data, f->vector.len);
	buf_append_str(out, quote);
	buf_append_str(out, "}],\"model\":");
	json_append_string(out, f->served_model.len ? f->served_model : f->model);
	buf_printf(out, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}",
		(unsigned long long)f->prompt_tokens, (unsigned long long)f->total_tokens);
}

static struct span span_of_buf(const struct buf *b)
{
	return (struct span){(const char *)b->data, b->len};
}

int stored_object_encode(const struct stored_fields *fields, struct buf *out)
{
	struct buf extra = BUF_INIT(65535), json = BUF_INIT(STORED_OBJECT_MAX_BYTES);
	int result = -1;
	if (!fields_fit(fields))
		return -1;
	buf_reserve(&json, fields->vector.len + JSON_AROUND_BYTES);
	append_extra(&extra, fields);
	append_json(&json, fields);
	if (buf_failed(&extra) || buf_failed(&json))
		out->failed = true;
	else if (fields->source == VECTOR_BASE64)
		result = gzip_base64_compress(span_of_buf(&json), span_of_buf(&extra), out);
	else
		result = gzip_compress(span_of_buf(&json), span_of_buf(&extra), GZIP_LEVEL, out);
	buf_free(&extra);
	buf_free(&json);
	return result;
}

/* ---- Decode ---- */

static enum stored_result corrupt(struct stored_object *object, const char *reason)
{
	object->reason = reason;
	return STORED_CORRUPT;
}

/* Our subfield, or data NULL. false: this is no list of subfields. */
static bool find_subfield(struct span extra, struct span *meta)
{
	struct reader r = {(const uint8_t *)extra.data, extra.len, false};
	*meta = (struct span){0};
	while (r.len) {
		uint64_t id = get_le(&r, 2);
		size_t len = get_le(&r, 2);
		struct span content = get_bytes(&r, len);
		if (r.bad)
			return false;
		if (id == (SUBFIELD_1 | SUBFIELD_2 << 8) && !meta->data)
			*meta = content;
	}
	return true;
}

static enum stored_result read_meta(struct span meta, struct stored_object *object)
{
	struct stored_fields *f = &object->fields;
	struct reader r = {(const uint8_t *)meta.data, meta.len, false};
	uint64_t version = get_le(&r, 1);
	if (version > STORED_OBJECT_VERSION) {
		object->reason = "written by a newer version";
		return STORED_UNKNOWN;
	}
	if (version == 0 || meta.len < META_FIXED_BYTES)
		return corrupt(object, "metadata too short");
	struct reader sum = {(const uint8_t *)meta.data + meta.len - 4, 4, false};
	if (get_le(&sum, 4) != crc32(0, (const Bytef *)meta.data, (uInt)meta.len - 4))
		return corrupt(object, "wrong sum of the metadata");
	r.len -= 4;
	uint64_t source = get_le(&r, 1);
	f->source = source == VECTOR_TEXT ? VECTOR_TEXT : VECTOR_BASE64;
	f->dims = (uint32_t)get_le(&r, 4);
	f->stored_ms = get_le(&r, 8);
	struct span key = get_bytes(&r, DIGEST_BYTES);
	f->model = get_bytes(&r, get_le(&r, 2));
	f->params = get_bytes(&r, get_le(&r, 2));
	if (r.bad || r.len || source > VECTOR_TEXT || f->model.len > STORED_MODEL_MAX_BYTES ||
		f->params.len > STORED_PARAMS_MAX_BYTES)
		return corrupt(object, "malformed metadata");
	memcpy(f->key.bytes, key.data, DIGEST_BYTES);
	return STORED_OK;
}

static bool read_count(
	const struct json_span_doc *doc, uint32_t object, const char *name, uint64_t *value)
{
	uint32_t node = json_span_member(doc, object, span_of(name));
	int64_t number;
	if (node == JSON_SPAN_NONE || json_span_int64(doc, node, &number) || number < 0)
		return false;
	*value = (uint64_t)number;
	return true;
}

static bool has_string(
	const struct json_span_doc *doc, uint32_t object, const char *name, const char *value)
{
	uint32_t node = json_span_member(doc, object, span_of(name));
	return node != JSON_SPAN_NONE && json_span_equal(doc, node, span_of(value));
}

/* The one element of "data", or NONE. */
static uint32_t only_element(const struct json_span_doc *doc)
{
	uint32_t data = json_span_member(doc, json_span_root(), SPAN_LITERAL("data"));
	if (data == JSON_SPAN_NONE || json_span_type(doc, data) != JSON_SPAN_ARRAY ||
		json_span_count(doc, data) != 1)
		return JSON_SPAN_NONE;
	return json_span_first(doc, data);
}

static const char *read_vector(
	const struct json_span_doc *doc, uint32_t element, struct stored_fields *f)
{
	uint32_t node = json_span_member(doc, element, SPAN_LITERAL("embedding"));
	uint32_t dims = 0;
	bool good;
	if (node == JSON_SPAN_NONE)
		return "no embedding";
	if (f->source == VECTOR_BASE64) {
		good = json_span_borrow_string(doc, node, &f->vector) &&
		       vector_read_base64(f->vector, NULL, &dims) == 0;
	} else {
		f->vector = json_span_text(doc, node);
		good = json_span_type(doc, node) == JSON_SPAN_NUMBERS &&
		       vector_read_text(f->vector, NULL, &dims) != VECTOR_BAD;
	}
	if (!good)
		return "no valid vector of the form that the metadata names";
	return dims == f->dims ? NULL : "another number of dimensions than the metadata names";
}

/* names gets the model's name when it has escapes; it does not move. */
static const char *read_model(
	const struct json_span_doc *doc, struct stored_fields *f, struct buf *names)
{
	uint32_t node = json_span_member(doc, json_span_root(), SPAN_LITERAL("model"));
	if (node == JSON_SPAN_NONE || json_span_type(doc, node) != JSON_SPAN_STRING)
		return "no model";
	if (json_span_borrow_string(doc, node, &f->served_model))
		return f->served_model.len <= STORED_MODEL_MAX_BYTES ? NULL : "model too long";
	size_t start = names->len;
	if (json_span_string(doc, node, names))
		return "model too long";
	f->served_model = (struct span){(char *)names->data + start, names->len - start};
	return NULL;
}

/* NULL, or what is wrong. */
static const char *read_answer(
	const struct json_span_doc *doc, struct stored_fields *f, struct buf *names)
{
	uint32_t root = json_span_root(), element = only_element(doc);
	uint64_t index;
	if (json_span_type(doc, root) != JSON_SPAN_OBJECT ||
		!has_string(doc, root, "object", "list") || element == JSON_SPAN_NONE ||
		!has_string(doc, element, "object", "embedding") ||
		!read_count(doc, element, "index", &index) || index != 0)
		return "not an answer with one embedding";
	uint32_t usage = json_span_member(doc, root, SPAN_LITERAL("usage"));
	if (!read_count(doc, usage, "prompt_tokens", &f->prompt_tokens) ||
		!read_count(doc, usage, "total_tokens", &f->total_tokens))
		return "no usage";
	const char *wrong = read_vector(doc, element, f);
	return wrong ? wrong : read_model(doc, f, names);
}

static const char *read_legacy(const struct json_span_doc *doc)
{
	uint32_t data = json_span_member(doc, json_span_root(), SPAN_LITERAL("data"));
	return data != JSON_SPAN_NONE && json_span_type(doc, data) == JSON_SPAN_ARRAY
		       ? NULL
		       : "no answer with embeddings";
}

/* The content is in memory and does not move any more; what follows it may be appended. */
static enum stored_result read_json(
	struct stored_object *object, struct span json, bool legacy, struct buf *memory)
{
	struct json_span_doc *doc = json_span_new(json, NULL);
	if (!doc)
		return STORED_NO_MEMORY;
	const char *wrong;
	bool no_memory = false;
	if (json_span_step(doc, SIZE_MAX) != JSON_SPAN_DONE) {
		wrong = "not JSON";
		/* An object must not be called corrupt, and be deleted, for that. */
		no_memory = strcmp(json_span_error_reason(doc), "out of memory") == 0;
	} else if (legacy)
		wrong = read_legacy(doc);
	else
		wrong = read_answer(doc, &object->fields, memory);
	json_span_free(&doc);
	if (no_memory)
		return STORED_NO_MEMORY;
	if (wrong)
		return corrupt(object, wrong);
	object->json = json;
	if (!legacy)
		return STORED_OK;
	object->reason = "without metadata of the gateway";
	return STORED_LEGACY;
}

/* Content and FEXTRA of the object, one behind the other in memory, with room behind for a name. */
static enum stored_result unpack(struct span bytes, struct stored_object *object,
	struct buf *memory, struct span *json, struct span *meta)
{
	struct span extra = {0};
	size_t json_len;
	/* As the Python gateway's bucket may hold it when a client stored it without encoding. */
	bool plain = bytes.len && bytes.data[0] == '{';
	if (bytes.len > memory->max_len) {
		object->reason = "too large";
		return STORED_TOO_LARGE;
	}
	if (plain) {
		if (buf_append(memory, bytes.data, bytes.len))
			return STORED_NO_MEMORY;
	} else {
		switch (gzip_decompress(bytes, memory, &extra)) {
		case GZIP_OK:
			break;
		case GZIP_TOO_LARGE:
			object->reason = "too large";
			return STORED_TOO_LARGE;
		case GZIP_BAD:
			return corrupt(object, "not a whole gzip member");
		}
	}
	json_len = memory->len;
	if (!find_subfield(extra, meta))
		return corrupt(object, "malformed FEXTRA");
	memory->max_len = memory->len + meta->len + STORED_MODEL_MAX_BYTES;
	if (!buf_reserve(memory, meta->len + STORED_MODEL_MAX_BYTES))
		return STORED_NO_MEMORY;
	if (meta->data) {
		buf_append(memory, meta->data, meta->len);
		meta->data = (char *)memory->data + json_len;
	}
	*json = (struct span){(char *)memory->data, json_len};
	return STORED_OK;
}

static enum stored_result decode(
	struct span bytes, const struct digest *key, size_t max_bytes, struct stored_object *object)
{
	struct buf memory = BUF_INIT(max_bytes);
	struct span json, meta;
	*object = (struct stored_object){0};
	enum stored_result result = unpack(bytes, object, &memory, &json, &meta);
	if (result == STORED_OK && meta.data)
		result = read_meta(meta, object);
	if (result == STORED_OK && meta.data && key && !digest_equal(key, &object->fields.key))
		result = corrupt(object, "another object's key");
	if (result == STORED_OK)
		result = read_json(object, json, !meta.data, &memory);
	if (result == STORED_OK || result == STORED_LEGACY) {
		object->memory = buf_take(&memory, &object->memory_bytes);
	} else {
		if (result == STORED_NO_MEMORY)
			object->reason = "out of memory";
		/* Nothing that points into what is given back. */
		*object = (struct stored_object){.reason = object->reason};
		buf_free(&memory);
	}
	return result;
}

enum stored_result stored_object_decode(
	struct span bytes, const struct digest *key, struct stored_object *object)
{
	return decode(bytes, key, STORED_OBJECT_MAX_BYTES, object);
}

enum stored_result stored_object_read(
	struct span bytes, const struct digest *key, bool legacy, struct stored_object *object)
{
	if (!legacy)
		return stored_object_decode(bytes, key, object);
	enum stored_result result = decode(bytes, NULL, STORED_LEGACY_MAX_BYTES, object);
	/* Written by us: in this place it is the object of one element, which was looked up as such
	 * before. */
	if (result == STORED_OK) {
		stored_object_free(object);
		result = STORED_UNKNOWN;
	}
	return result;
}

struct stored_object stored_object_take(struct stored_object *object)
{
	struct stored_object taken = *object;
	*object = (struct stored_object){0};
	return taken;
}

void stored_object_free(struct stored_object *object)
{
	free(object->memory);
	*object = (struct stored_object){0};
}
