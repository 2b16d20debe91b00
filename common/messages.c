#include "common/messages.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/http_parser.h"
#include "common/log.h"
#include "common/wire.h"

/* ---- tables made from the lists ---- */

#define FIELD(kind, field, doc) {#field, MSG_KIND_##kind, offsetof(self, field), NULL, doc},
#define FIELD_LIST(record, field, doc) \
	{#field, MSG_KIND_list, offsetof(self, field), msg_##record##_schema, doc},
/* The rows do not know their struct; a function gives it the same name in each. */
#define DEFINE_SCHEMA(name_, FIELDS)                                                       \
	const struct msg_schema *msg_##name_##_schema(void)                                \
	{                                                                                  \
		typedef struct msg_##name_ self;                                           \
		static const struct msg_field fields[] = {                                 \
			FIELDS(FIELD, FIELD_LIST){.name = NULL}};                          \
		static const struct msg_schema schema = {                                  \
			#name_, sizeof(self), sizeof fields / sizeof *fields - 1, fields}; \
		return &schema;                                                            \
	}
#define DECLARE_RECORD_SCHEMA(name, FIELDS) \
	static const struct msg_schema *msg_##name##_schema(void);
#define DEFINE_RECORD_SCHEMA(name, FIELDS) static DEFINE_SCHEMA(name, FIELDS)
MSG_RECORDS(DECLARE_RECORD_SCHEMA)
MSG_RECORDS(DEFINE_RECORD_SCHEMA)
MSG_MESSAGES(DEFINE_SCHEMA)

#define METHOD(method, params, result, served_by, doc) \
	{#method, msg_##params##_schema, msg_##result##_schema, served_by, doc},
const struct msg_method msg_methods[] = {MSG_METHODS(METHOD){.name = NULL}};

#define NOTIFICATION(name, params, understood_by, doc) \
	{#name, msg_##params##_schema, NULL, understood_by, doc},
const struct msg_method msg_notifications[] = {MSG_NOTIFICATIONS(NOTIFICATION){.name = NULL}};

/* Every struct msg_x_list has this shape. */
struct list {
	void *items;
	size_t count;
};

static void *member(const void *message, const struct msg_field *field)
{
	return (char *)message + field->offset;
}

static void *list_at(const struct list *list, const struct msg_schema *record, size_t i)
{
	return (char *)list->items + i * record->size;
}

/* ---- packing ---- */

static int pack_record(msgpack_packer *packer, const struct msg_schema *schema, const void *record);

static int pack_headers(msgpack_packer *packer, const struct msg_headers *headers)
{
	if (headers->count > MSG_MAX_HEADERS)
		return -1;
	msgpack_pack_array(packer, headers->count);
	for (size_t i = 0; i < headers->count; i++) {
		msgpack_pack_array(packer, 2);
		wire_write_str(packer, headers->items[i].name);
		wire_write_str(packer, headers->items[i].value);
	}
	return 0;
}

static int pack_list(
	msgpack_packer *packer, const struct msg_schema *record, const struct list *list)
{
	if (list->count > MSG_MAX_RECORDS)
		return -1;
	msgpack_pack_array(packer, list->count);
	for (size_t i = 0; i < list->count; i++)
		if (pack_record(packer, record, list_at(list, record, i)) != 0)
			return -1;
	return 0;
}

static int pack_items(msgpack_packer *packer, enum msg_kind kind, const struct list *list)
{
	if (list->count > MSG_MAX_ITEMS)
		return -1;
	msgpack_pack_array(packer, list->count);
	for (size_t i = 0; i < list->count; i++) {
		if (kind == MSG_KIND_strs)
			wire_write_str(packer, ((const struct span *)list->items)[i]);
		else if (kind == MSG_KIND_u64s)
			msgpack_pack_uint64(packer, ((const uint64_t *)list->items)[i]);
		else
			msgpack_pack_double(packer, ((const double *)list->items)[i]);
	}
	return 0;
}

static int pack_field(msgpack_packer *packer, const struct msg_field *field, const void *value)
{
	switch (field->kind) {
	case MSG_KIND_str:
	case MSG_KIND_token:
	case MSG_KIND_target:
		wire_write_str(packer, *(const struct span *)value);
		return 0;
	case MSG_KIND_bin:
		wire_write_bin(packer, *(const struct span *)value);
		return 0;
	case MSG_KIND_u64:
		msgpack_pack_uint64(packer, *(const uint64_t *)value);
		return 0;
	case MSG_KIND_i64:
		msgpack_pack_int64(packer, *(const int64_t *)value);
		return 0;
	case MSG_KIND_f64:
		msgpack_pack_double(packer, *(const double *)value);
		return 0;
	case MSG_KIND_bool:
		if (*(const bool *)value)
			msgpack_pack_true(packer);
		else
			msgpack_pack_false(packer);
		return 0;
	case MSG_KIND_headers:
		return pack_headers(packer, value);
	case MSG_KIND_list:
		return pack_list(packer, field->record(), value);
	default:
		return pack_items(packer, field->kind, value);
	}
}

static int pack_record(msgpack_packer *packer, const struct msg_schema *schema, const void *record)
{
	msgpack_pack_array(packer, schema->n_fields);
	for (size_t i = 0; i < schema->n_fields; i++)
		if (pack_field(packer, &schema->fields[i], member(record, &schema->fields[i])) != 0)
			return -1;
	return 0;
}

int msg_pack(const struct msg_schema *schema, const void *message, struct buf *out)
{
	msgpack_packer packer;
	wire_packer_init(&packer, out);
	return pack_record(&packer, schema, message) == 0 && !buf_failed(out) ? 0 : -1;
}

/* ---- unpacking ---- */

struct unpacking {
	struct wire wire;
	size_t records; /* made so far, in all lists */
	struct msg_error *error;
};

static int unpack_record(struct unpacking *u, const struct msg_schema *schema, void *record);

/* The path to a bad field is put together from the inside out, on the way back. */
static int fail(struct unpacking *u, const char *why)
{
	snprintf(u->error->text, sizeof u->error->text, ": %s", why);
	return -1;
}

__attribute__((format(printf, 2, 3))) static int inside(struct unpacking *u, const char *fmt, ...)
{
	struct msg_error inner = *u->error;
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(u->error->text, sizeof u->error->text, fmt, ap);
	va_end(ap);
	/* Room is not a problem of real field names; a cut text is still a text. */
	size_t at = n < 0 ? 0 : strlen(u->error->text);
	size_t len = strnlen(inner.text, sizeof inner.text - 1 - at);
	memcpy(u->error->text + at, inner.text, len);
	u->error->text[at + len] = '\0';
	return -1;
}

static int unpack_text(
	struct unpacking *u, struct span *text, bool (*is_valid)(struct span text), const char *why)
{
	if (wire_read_str(&u->wire, text) != 0)
		return fail(u, "not a string");
	return is_valid(*text) ? 0 : fail(u, why);
}

/* Empty is as good as absent. */
static bool is_method(struct span text)
{
	return text.len == 0 || http_is_token(text);
}

static bool is_target(struct span text)
{
	return text.len == 0 || http_is_target(text);
}

/* As in HTTP, blanks around a value are no part of it. */
static int unpack_field_value(struct unpacking *u, struct span *value)
{
	if (wire_read_str(&u->wire, value) != 0)
		return fail(u, "not a string");
	while (value->len > 0 && (value->data[0] == ' ' || value->data[0] == '\t')) {
		value->data++;
		value->len--;
	}
	while (value->len > 0 &&
		(value->data[value->len - 1] == ' ' || value->data[value->len - 1] == '\t'))
		value->len--;
	return http_is_field_value(*value) ? 0 : fail(u, "not a field value of HTTP");
}

static int unpack_headers(struct unpacking *u, struct msg_headers *headers)
{
	uint32_t count, pair;
	if (wire_read_array(&u->wire, &count) != 0)
		return fail(u, "not an array");
	if (count > MSG_MAX_HEADERS)
		return fail(u, "more than 128 headers");
	for (uint32_t i = 0; i < count; i++) {
		struct msg_header *header = &headers->items[i];
		if (wire_read_array(&u->wire, &pair) != 0 || pair != 2) {
			fail(u, "not a pair");
			return inside(u, "[%u]", i);
		}
		if (unpack_text(u, &header->name, http_is_token, "not a field name of HTTP") != 0)
			return inside(u, "[%u].name", i);
		if (unpack_field_value(u, &header->value) != 0)
			return inside(u, "[%u].value", i);
	}
	headers->count = count;
	return 0;
}

static int unpack_items(struct unpacking *u, enum msg_kind kind, struct list *list)
{
	uint32_t count;
	if (wire_read_array(&u->wire, &count) != 0)
		return fail(u, "not an array");
	if (count > MSG_MAX_ITEMS)
		return fail(u, "more than 1024 items");
	if (count == 0)
		return 0;
	size_t size = kind == MSG_KIND_strs ? sizeof(struct span) : sizeof(uint64_t);
	list->items = malloc(count * size);
	if (!list->items)
		return fail(u, "out of memory");
	list->count = count;
	for (uint32_t i = 0; i < count; i++) {
		const char *wrong = NULL;
		if (kind == MSG_KIND_strs) {
			if (wire_read_str(&u->wire, (struct span *)list->items + i) != 0)
				wrong = "not a string";
		} else if (kind == MSG_KIND_u64s) {
			if (wire_read_u64(&u->wire, (uint64_t *)list->items + i) != 0)
				wrong = "not a whole number from 0 on";
		} else if (wire_read_f64(&u->wire, (double *)list->items + i) != 0) {
			wrong = "not a number";
		}
		if (wrong) {
			fail(u, wrong);
			return inside(u, "[%u]", i);
		}
	}
	return 0;
}

static int unpack_list(struct unpacking *u, const struct msg_schema *record, struct list *list)
{
	uint32_t count;
	if (wire_read_array(&u->wire, &count) != 0)
		return fail(u, "not an array");
	if (count > MSG_MAX_RECORDS - u->records)
		return fail(u, "more than 65536 records");
	u->records += count;
	/* A record may be one byte on the wire: memory follows what was read, not the count. */
	size_t capacity = 0;
	for (uint32_t i = 0; i < count; i++) {
		if (i == capacity) {
			capacity = capacity ? capacity * 2 : 8;
			if (capacity > count)
				capacity = count;
			void *items = realloc(list->items, capacity * record->size);
			if (!items)
				return fail(u, "out of memory");
			list->items = items;
		}
		list->count = i + 1;
		if (unpack_record(u, record, list_at(list, record, i)) != 0) {
			bool field = u->error->text[0] != ':';
			return inside(u, field ? "[%u]." : "[%u]", i);
		}
	}
	return 0;
}

static int unpack_field(struct unpacking *u, const struct msg_field *field, void *value)
{
	struct wire *w = &u->wire;
	switch (field->kind) {
	case MSG_KIND_str:
		return wire_read_str(w, value) == 0 ? 0 : fail(u, "not a string");
	case MSG_KIND_token:
		return unpack_text(u, value, is_method, "not a method of HTTP");
	case MSG_KIND_target:
		return unpack_text(u, value, is_target, "not a request target of HTTP");
	case MSG_KIND_bin:
		return wire_read_bin(w, value) == 0 ? 0 : fail(u, "not binary");
	case MSG_KIND_u64:
		return wire_read_u64(w, value) == 0 ? 0 : fail(u, "not a whole number from 0 on");
	case MSG_KIND_i64:
		return wire_read_i64(w, value) == 0 ? 0 : fail(u, "not a whole number");
	case MSG_KIND_f64:
		return wire_read_f64(w, value) == 0 ? 0 : fail(u, "not a number");
	case MSG_KIND_bool:
		return wire_read_bool(w, value) == 0 ? 0 : fail(u, "neither true nor false");
	case MSG_KIND_headers:
		return unpack_headers(u, value);
	case MSG_KIND_list:
		return unpack_list(u, field->record(), value);
	default:
		return unpack_items(u, field->kind, value);
	}
}

/* Not memset() of the whole struct: 4 KiB of it are headers. */
static void clear_record(const struct msg_schema *schema, void *record)
{
	for (size_t i = 0; i < schema->n_fields; i++) {
		const struct msg_field *field = &schema->fields[i];
		void *value = member(record, field);
		switch (field->kind) {
		case MSG_KIND_headers:
			((struct msg_headers *)value)->count = 0;
			break;
		case MSG_KIND_u64:
		case MSG_KIND_i64:
		case MSG_KIND_f64:
			memset(value, 0, sizeof(uint64_t));
			break;
		case MSG_KIND_bool:
			*(bool *)value = false;
			break;
		default:
			memset(value, 0, sizeof(struct list));
			break;
		}
	}
}
_Static_assert(sizeof(struct span) == sizeof(struct list), "both are a pointer and a size");

static int unpack_record(struct unpacking *u, const struct msg_schema *schema, void *record)
{
	clear_record(schema, record);
	if (wire_read_nil(&u->wire) == 0)
		return 0;
	uint32_t count;
	if (wire_read_array(&u->wire, &count) != 0)
		return fail(u, "not an array");
	for (uint32_t i = 0; i < count; i++) {
		if (i >= schema->n_fields) {
			/* A newer peer's field. */
			if (wire_skip(&u->wire, NULL) != 0)
				return fail(u, "cut short");
			continue;
		}
		const struct msg_field *field = &schema->fields[i];
		if (wire_read_nil(&u->wire) == 0)
			continue;
		if (unpack_field(u, field, member(record, field)) != 0)
			return inside(u, "%s", field->name);
	}
	return 0;
}

int msg_unpack(
	const struct msg_schema *schema, struct span bytes, void *message, struct msg_error *error)
{
	struct unpacking u = {.wire = wire_of(bytes), .error = error};
	if (unpack_record(&u, schema, message) != 0) {
		if (error->text[0] == ':')
			inside(&u, "%s", schema->name);
		msg_free(schema, message);
		return -1;
	}
	return 0;
}

void msg_free(const struct msg_schema *schema, void *message)
{
	for (size_t i = 0; i < schema->n_fields; i++) {
		const struct msg_field *field = &schema->fields[i];
		if (field->kind != MSG_KIND_list && field->kind != MSG_KIND_strs &&
			field->kind != MSG_KIND_u64s && field->kind != MSG_KIND_f64s)
			continue;
		struct list *list = member(message, field);
		if (field->kind == MSG_KIND_list)
			for (size_t k = 0; k < list->count; k++)
				msg_free(field->record(), list_at(list, field->record(), k));
		free(list->items);
		*list = (struct list){0};
	}
}

/* ---- on top of rpc ---- */

#define SCRATCH_KEEP_BYTES (128u << 10)

/* The loop's: rpc copies what it is given, so one buffer serves all. */
static struct buf scratch = BUF_INIT(RPC_MAX_PAYLOAD_BYTES);

static int pack_scratch(const struct msg_schema *schema, const void *message, struct span *bytes)
{
	if (scratch.capacity > SCRATCH_KEEP_BYTES)
		buf_free(&scratch);
	buf_clear(&scratch);
	if (msg_pack(schema, message, &scratch) != 0)
		return -1;
	*bytes = (struct span){(const char *)scratch.data, scratch.len};
	return 0;
}

struct rpc_call *msg_call(struct rpc_client *client, const char *method,
	const struct msg_schema *schema, const void *params, uint32_t timeout_ms,
	const struct rpc_call_events *events, void *arg)
{
	struct span bytes;
	if (pack_scratch(schema, params, &bytes) != 0)
		return NULL;
	return rpc_call_start(client, method, bytes, timeout_ms, events, arg);
}

int msg_notify(struct rpc_client *client, const char *method, const struct msg_schema *schema,
	const void *params)
{
	struct span bytes;
	if (pack_scratch(schema, params, &bytes) != 0)
		return -1;
	rpc_client_notify(client, method, bytes);
	return 0;
}

int msg_params(struct rpc_request *request, const struct msg_schema *schema, struct span bytes,
	void *params)
{
	struct msg_error error;
	if (msg_unpack(schema, bytes, params, &error) == 0)
		return 0;
	rpc_request_fail(request, RPC_BAD_PARAMS, "%s", error.text);
	return -1;
}

void msg_reply(struct rpc_request *request, const struct msg_schema *schema, const void *result)
{
	struct span bytes;
	if (pack_scratch(schema, result, &bytes) == 0)
		rpc_request_reply(request, bytes);
	else
		rpc_request_fail(request, RPC_FAILED, "the answer does not fit into a frame");
}

int msg_reply_start(
	struct rpc_request *request, const struct msg_schema *schema, const void *result)
{
	struct span bytes;
	if (pack_scratch(schema, result, &bytes) == 0)
		return rpc_request_reply_start(request, bytes);
	rpc_request_fail(request, RPC_FAILED, "the answer does not fit into a frame");
	return -1;
}
