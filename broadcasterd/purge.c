#include "broadcasterd/purge.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/digest.h"
#include "common/http_parser.h"
#include "common/wire.h"

/* ---- which fields go along ---- */

static bool stays_here(struct span name)
{
	static const char *const names[] = {"connection", "keep-alive", "proxy-connection",
		"proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
		"upgrade", "host", "authorization", "content-length", "expect"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (span_equal_nocase(name, names[i]))
			return true;
	return false;
}

/* The next of "a, b c"; false at the end. */
static bool next_word(struct span *list, const char *separators, struct span *word)
{
	while (list->len && strchr(separators, *list->data)) {
		list->data++;
		list->len--;
	}
	*word = (struct span){list->data, 0};
	while (list->len && !strchr(separators, *list->data)) {
		list->data++;
		list->len--;
		word->len++;
	}
	return word->len > 0;
}

static bool connection_names(const struct purge_source *source, struct span name)
{
	for (size_t i = 0; i < source->n_headers; i++) {
		struct span list = source->headers[i].value, word;
		if (!span_equal_nocase(source->headers[i].name, "connection"))
			continue;
		while (next_word(&list, ", \t", &word))
			if (word.len == name.len &&
				strncasecmp(word.data, name.data, name.len) == 0)
				return true;
	}
	return false;
}

static bool goes_along(const struct purge_source *source, size_t i)
{
	struct span name = source->headers[i].name;
	return !stays_here(name) && !connection_names(source, name);
}

/* ---- what they ask for ---- */

static const char *read_flag(struct span value, bool *flag)
{
	if (span_equal_nocase(value, "true") || span_equal_str(value, "1"))
		*flag = true;
	else if (span_equal_nocase(value, "false") || span_equal_str(value, "0"))
		*flag = false;
	else
		return "X-Purge-All and X-Purge-Store are true or false";
	return NULL;
}

static const char *set_scope(struct purge *p, const char *scope)
{
	if (p->params.scope.len && !span_equal_str(p->params.scope, scope))
		return "only one of X-Purge-All, Surrogate-Key, X-Body-Hash and X-Purge-Key can "
		       "be asked for";
	p->params.scope = span_of(scope);
	return NULL;
}

/* As gatewayd reads tags. */
static const char *check_tag(struct span tag)
{
	for (size_t i = 0; i < tag.len; i++)
		if (tag.data[i] < 0x21 || tag.data[i] > 0x7e)
			return "a tag is made of visible ASCII characters";
	return tag.len > PURGE_MAX_TAG_BYTES ? "a tag has at most 256 bytes" : NULL;
}

/* There is room: count_values(). */
static void add_value(struct purge *p, struct span value)
{
	p->params.values.items[p->params.values.count++] = value;
}

static const char *add_digest(struct purge *p, const char *scope, struct span value)
{
	struct digest digest;
	if (digest_parse_hex(value, &digest) < 0)
		return "X-Body-Hash and X-Purge-Key are 64 hexadecimal digits";
	const char *error = set_scope(p, scope);
	if (!error)
		add_value(p, value);
	return error;
}

static const char *read_time(struct span value, uint64_t *time_ms)
{
	uint64_t number = 0;
	bool ok = value.len > 0 && value.len <= 15;
	for (size_t i = 0; ok && i < value.len; i++) {
		ok = isdigit((unsigned char)value.data[i]);
		number = number * 10 + (uint64_t)(value.data[i] - '0');
	}
	*time_ms = number;
	return ok && number ? NULL : "X-Purge-Time is a number of milliseconds since 1970";
}

/* Fields of a purge that may not be there twice. What begins like them and is none of them was
 * meant to be one. */
static const char *const field_names[] = {
	"x-purge-all", "x-purge-store", "x-purge-time", "x-purge-key", "x-body-hash"};
#define N_FIELD_NAMES (sizeof field_names / sizeof field_names[0])

static const char *check_name(struct span name, bool seen[N_FIELD_NAMES])
{
	struct span begin = {name.data, name.len < 8 ? name.len : 8};
	for (size_t i = 0; i < N_FIELD_NAMES; i++) {
		if (!span_equal_nocase(name, field_names[i]))
			continue;
		if (seen[i])
			return "a field that says what to purge is there twice";
		seen[i] = true;
		return NULL;
	}
	return span_equal_nocase(begin, "x-purge-")
		       ? "an unknown X-Purge- field: there are X-Purge-All, X-Purge-Key, "
			 "X-Purge-Store and X-Purge-Time"
		       : NULL;
}

static const char *read_field(struct purge *p, struct span name, struct span value)
{
	const char *error = NULL;
	bool all = false;
	if (span_equal_nocase(name, "x-purge-all")) {
		error = read_flag(value, &all);
		if (!error && all)
			error = set_scope(p, "all");
	} else if (span_equal_nocase(name, "x-purge-store")) {
		error = read_flag(value, &p->params.store);
	} else if (span_equal_nocase(name, "x-purge-time")) {
		error = read_time(value, &p->params.time_ms);
	} else if (span_equal_nocase(name, "x-body-hash")) {
		error = add_digest(p, "body_hash", value);
	} else if (span_equal_nocase(name, "x-purge-key")) {
		error = add_digest(p, "key", value);
	} else if (span_equal_nocase(name, "surrogate-key")) {
		struct span tag;
		error = set_scope(p, "tag");
		while (!error && next_word(&value, " \t", &tag)) {
			error = check_tag(tag);
			add_value(p, tag);
		}
	}
	return error;
}

static const char *check_store(const struct purge *p)
{
	const struct msg_strs *values = &p->params.values;
	if (p->params.time_ms && !p->params.store)
		return "X-Purge-Time goes with X-Purge-Store";
	if (!p->params.store || span_equal_str(p->params.scope, "all") ||
		span_equal_str(p->params.scope, "key"))
		return NULL;
	if (span_equal_str(p->params.scope, "tag") && values->count == 1 &&
		values->items[0].len > 6 && memcmp(values->items[0].data, "model:", 6) == 0)
		return NULL;
	return "the store can be purged of all, of one tag model:NAME, and of one X-Purge-Key";
}

static const char *read_fields(struct purge *p)
{
	bool seen[N_FIELD_NAMES] = {0};
	for (size_t i = 0; i < p->n_headers; i++) {
		const char *error = check_name(p->headers[i].name, seen);
		if (!error)
			error = read_field(p, p->headers[i].name, p->headers[i].value);
		if (error)
			return error;
	}
	if (span_equal_str(p->params.scope, "tag") && !p->params.values.count)
		return "Surrogate-Key names no tag";
	if (!p->params.scope.len) {
		p->params.scope = SPAN_LITERAL("path");
		add_value(p, p->target);
	}
	return check_store(p);
}

/* ---- making one ---- */

static bool is_path(struct span target)
{
	if (!target.len || *target.data != '/')
		return false;
	for (size_t i = 0; i < target.len; i++)
		if ((unsigned char)target.data[i] <= ' ' || target.data[i] == 0x7f)
			return false;
	return true;
}

static const char *check(const struct purge_source *source, size_t *header_bytes, int *status)
{
	*status = 400;
	if (!is_path(source->target) || source->target.len > PURGE_MAX_TARGET_BYTES)
		return "the target is no path";
	if (source->body.len > PURGE_MAX_BODY_BYTES) {
		*status = 413;
		return "the body is too large for a purge";
	}
	for (size_t i = 0; i < source->n_headers; i++) {
		const struct purge_header *h = &source->headers[i];
		if (!http_is_token(h->name) || !http_is_field_value(h->value))
			return "a header field cannot be sent on";
		*header_bytes += h->name.len + h->value.len;
	}
	*status = 431;
	if (source->n_headers > PURGE_MAX_HEADERS || *header_bytes > PURGE_MAX_HEADER_BYTES)
		return "too many header fields for a purge";
	return NULL;
}

/* As many as read_fields() may find. */
static size_t count_values(const struct purge_source *source)
{
	size_t n = 1;
	for (size_t i = 0; i < source->n_headers; i++) {
		struct span list = source->headers[i].value, word;
		if (span_equal_nocase(source->headers[i].name, "surrogate-key"))
			while (next_word(&list, " \t", &word))
				n++;
	}
	return n;
}

static struct span copy(char **at, struct span text)
{
	struct span copied = {*at, text.len};
	if (text.len)
		memcpy(*at, text.data, text.len);
	*at += text.len;
	return copied;
}

struct purge *purge_new(const struct purge_source *source, int *status, const char **error)
{
	size_t header_bytes = 0;
	*error = check(source, &header_bytes, status);
	if (*error)
		return NULL;
	size_t n_values = count_values(source);
	if (n_values > PURGE_MAX_VALUES) {
		*status = 400;
		*error = "too many tags at once";
		return NULL;
	}
	*status = 503;
	*error = "out of memory";
	/* One block: the struct, the fields, the values, then their bytes. */
	size_t size = sizeof(struct purge) + source->n_headers * sizeof(struct purge_header) +
		      n_values * sizeof(struct span) + source->target.len + source->body.len +
		      header_bytes;
	struct purge *p = calloc(1, size);
	if (!p)
		return NULL;
	p->refs = 1;
	p->size_bytes = size;
	p->time_ms = source->time_ms;
	p->headers = (struct purge_header *)(p + 1);
	p->params.values.items = (struct span *)(p->headers + source->n_headers);
	char *at = (char *)(p->params.values.items + n_values);
	p->target = copy(&at, source->target);
	p->body = copy(&at, source->body);
	for (size_t i = 0; i < source->n_headers; i++) {
		struct purge_header *h = &p->headers[p->n_headers];
		if (!goes_along(source, i))
			continue;
		h->name = copy(&at, source->headers[i].name);
		h->value = copy(&at, source->headers[i].value);
		p->n_headers++;
	}
	*error = read_fields(p);
	if (*error) {
		*status = 400;
		purge_unref(&p);
		return NULL;
	}
	if (p->params.store && !p->params.time_ms)
		p->params.time_ms = p->time_ms;
	return p;
}

struct purge *purge_ref(struct purge *purge)
{
	purge->refs++;
	return purge;
}

void purge_unref(struct purge **purge)
{
	if (*purge && --(*purge)->refs == 0)
		free(*purge);
	*purge = NULL;
}

/* ---- from RPC ---- */

static const char *join_tags(const struct msg_strs *tags, struct buf *out)
{
	for (size_t i = 0; i < tags->count; i++) {
		struct span tag = tags->items[i];
		if (!tag.len || memchr(tag.data, ' ', tag.len) || memchr(tag.data, '\t', tag.len))
			return "a tag has no spaces";
		if (i)
			buf_append_char(out, ' ');
		buf_append(out, tag.data, tag.len);
	}
	return buf_failed(out) ? "too many tags at once" : NULL;
}

struct purge *purge_from_params(
	const struct msg_purge_params *params, uint64_t now_ms, int *status, const char **error)
{
	const struct msg_strs *values = &params->values;
	struct span one = values->count == 1 ? values->items[0] : SPAN_LITERAL("");
	struct buf tags = BUF_INIT(PURGE_MAX_HEADER_BYTES);
	struct purge_header headers[3];
	struct purge_source source = {
		.time_ms = now_ms, .target = SPAN_LITERAL("/"), .headers = headers};
	char time[24];
	struct purge *purge = NULL;
	*status = 400;
	*error = NULL;
	if (span_equal_str(params->scope, "path")) {
		source.target = one;
	} else if (span_equal_str(params->scope, "all")) {
		headers[source.n_headers++] = (struct purge_header){
			SPAN_LITERAL("X-Purge-All"), SPAN_LITERAL("true")};
	} else if (span_equal_str(params->scope, "tag")) {
		*error = join_tags(values, &tags);
		headers[source.n_headers++] = (struct purge_header){
			SPAN_LITERAL("Surrogate-Key"), {(const char *)tags.data, tags.len}};
	} else if (span_equal_str(params->scope, "body_hash")) {
		headers[source.n_headers++] = (struct purge_header){
			SPAN_LITERAL("X-Body-Hash"), one};
	} else if (span_equal_str(params->scope, "key")) {
		headers[source.n_headers++] = (struct purge_header){
			SPAN_LITERAL("X-Purge-Key"), one};
	} else {
		*error = "scope is path, all, tag, body_hash or key";
	}
	if (params->store)
		headers[source.n_headers++] = (struct purge_header){
			SPAN_LITERAL("X-Purge-Store"), SPAN_LITERAL("true")};
	if (params->time_ms) {
		snprintf(time, sizeof time, "%llu", (unsigned long long)params->time_ms);
		headers[source.n_headers++] = (struct purge_header){
			SPAN_LITERAL("X-Purge-Time"), span_of(time)};
	}
	if (!*error)
		purge = purge_new(&source, status, error);
	buf_free(&tags);
	return purge;
}

struct purge *purge_everything(uint64_t now_ms)
{
	struct purge_header all = {SPAN_LITERAL("X-Purge-All"), SPAN_LITERAL("true")};
	struct purge_source source = {
		.time_ms = now_ms, .target = SPAN_LITERAL("/"), .headers = &all, .n_headers = 1};
	const char *error;
	int status;
	return purge_new(&source, &status, &error);
}

/* ---- comparing, telling ---- */

bool purge_equal(const struct purge *a, const struct purge *b)
{
	if (a->n_headers != b->n_headers || !span_equal(a->target, b->target) ||
		!span_equal(a->body, b->body))
		return false;
	for (size_t i = 0; i < a->n_headers; i++)
		if (!span_equal(a->headers[i].name, b->headers[i].name) ||
			!span_equal(a->headers[i].value, b->headers[i].value))
			return false;
	return true;
}

bool purge_has_field(const struct purge *purge, const char *name)
{
	for (size_t i = 0; i < purge->n_headers; i++)
		if (span_equal_nocase(purge->headers[i].name, name))
			return true;
	return false;
}

const struct trace *purge_trace(const struct purge *purge)
{
	return purge->has_trace ? &purge->trace : NULL;
}

/* What of text there is room for; false when it was not all. */
static bool append(char *to, size_t *len, size_t room, struct span text)
{
	size_t i = 0;
	for (; i < text.len && *len < room; i++)
		to[(*len)++] = iscntrl((unsigned char)text.data[i]) ? '?' : text.data[i];
	return i == text.len;
}

void purge_describe(const struct purge *purge, char *text, size_t size)
{
	static const char more[] = "…";
	const struct msg_strs *values = &purge->params.values;
	size_t len = 0, room = size - sizeof more;
	bool whole = append(text, &len, room, purge->params.scope);
	for (size_t i = 0; whole && i < values->count; i++)
		whole = append(text, &len, room, SPAN_LITERAL(" ")) &&
			append(text, &len, room, values->items[i]);
	snprintf(text + len, size - len, "%s", whole ? "" : more);
}

/* ---- the journal's form: [time_ms, target, body, [name, value, …], traceparent] ---- */

void purge_pack(const struct purge *purge, struct buf *out)
{
	msgpack_packer packer;
	wire_packer_init(&packer, out);
	msgpack_pack_array(&packer, 5);
	msgpack_pack_uint64(&packer, purge->time_ms);
	wire_write_bin(&packer, purge->target);
	wire_write_bin(&packer, purge->body);
	msgpack_pack_array(&packer, purge->n_headers * 2);
	for (size_t i = 0; i < purge->n_headers; i++) {
		wire_write_bin(&packer, purge->headers[i].name);
		wire_write_bin(&packer, purge->headers[i].value);
	}
	wire_write_bin(&packer, span_of(TRACE_TEXT(purge_trace(purge))));
}

struct purge *purge_unpack(struct span bytes)
{
	struct purge_header headers[PURGE_MAX_HEADERS];
	struct purge_source source = {.headers = headers};
	struct wire w = wire_of(bytes);
	struct span traceparent;
	uint32_t n, n_texts;
	const char *error;
	int status;
	if (wire_read_array(&w, &n) < 0 || n != 5 || wire_read_u64(&w, &source.time_ms) < 0 ||
		wire_read_bin(&w, &source.target) < 0 || wire_read_bin(&w, &source.body) < 0 ||
		wire_read_array(&w, &n_texts) < 0 || n_texts % 2 || n_texts > 2 * PURGE_MAX_HEADERS)
		return NULL;
	for (size_t i = 0; i < n_texts / 2; i++)
		if (wire_read_bin(&w, &headers[i].name) < 0 ||
			wire_read_bin(&w, &headers[i].value) < 0)
			return NULL;
	if (wire_read_bin(&w, &traceparent) < 0 || w.at != w.end)
		return NULL;
	source.n_headers = n_texts / 2;
	struct purge *purge = purge_new(&source, &status, &error);
	if (!purge)
		purge = purge_everything(source.time_ms);
	if (purge)
		purge->has_trace = trace_parse(traceparent, &purge->trace) == 0;
	return purge;
}
