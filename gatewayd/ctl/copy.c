/* cachectl import and export: objects from one place to another, each checked on its way. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/loop.h"
#include "gatewayd/ctl/walk.h"
#include "gatewayd/provider_answer.h"
#include "gatewayd/query.h"
#include "gatewayd/store.h"
#include "gatewayd/usage.h"

#define MAX_INPUTS 1000000

struct copy {
	const struct ctl_options *options;
	struct loop *loop;
	struct place *to;
	FILE *lines; /* export as text */
	uint64_t copied, there, bad, failed, left_out, bytes;
	uint64_t taken_apart, elements; /* --requests */
	bool import;
};

/* One object: is it there? no: put it. */
struct transfer {
	struct copy *copy;
	struct walk *walk;
	char name[STORE_NAME_BYTES];
	struct buf bytes;
	struct stored_object object; /* its fields become metadata */
	bool has_fields;
};

static void transfer_end(struct transfer *transfer)
{
	struct walk *walk = transfer->walk;
	buf_free(&transfer->bytes);
	stored_object_free(&transfer->object);
	free(transfer);
	walk_next(walk);
}

static void on_put(const struct place_result *result, void *arg)
{
	struct transfer *transfer = arg;
	struct copy *copy = transfer->copy;
	if (result->error) {
		copy->failed++;
		fprintf(stderr, "cachectl: %s: %s\n", transfer->name, result->reason);
	} else {
		copy->copied++;
		copy->bytes += transfer->bytes.len;
	}
	transfer_end(transfer);
}

static void put(struct transfer *transfer)
{
	struct span bytes = {(char *)transfer->bytes.data, transfer->bytes.len};
	if (place_put(transfer->copy->to, transfer->name, bytes,
		    transfer->has_fields ? &transfer->object.fields : NULL, on_put, transfer) < 0) {
		transfer->copy->failed++;
		transfer_end(transfer);
	}
}

static void on_has(const struct place_result *result, void *arg)
{
	struct transfer *transfer = arg;
	if (result->error == 0) {
		transfer->copy->there++;
		transfer_end(transfer);
	} else {
		put(transfer);
	}
}

static void write_line(struct copy *copy, const struct stored_fields *fields)
{
	struct buf line = BUF_INIT(64u << 20);
	char hex[DIGEST_HEX + 1];
	const char *quote = fields->source == VECTOR_BASE64 ? "\"" : "";
	digest_hex(&fields->key, hex);
	buf_printf(&line, "{\"key\":\"%s\",\"model\":", hex);
	json_append_string(&line, fields->model);
	buf_printf(&line, ",\"stored_ms\":%" PRIu64 ",\"total_tokens\":%" PRIu64 ",\"parameters\":",
		fields->stored_ms, fields->total_tokens);
	if (fields->params.len)
		buf_append(&line, fields->params.data, fields->params.len);
	else
		buf_append_str(&line, "{}");
	buf_printf(&line, ",\"dimensions\":%u,\"embedding\":%s", fields->dims, quote);
	buf_append(&line, fields->vector.data, fields->vector.len);
	buf_printf(&line, "%s}\n", quote);
	if (buf_failed(&line) || fwrite(line.data, 1, line.len, copy->lines) != line.len)
		copy->failed++;
	else
		copy->copied++;
	copy->bytes += line.len;
	buf_free(&line);
}

/* The name it gets, and whether it is wanted at all. */
static bool wanted(const struct copy *copy, enum place_kind kind, enum stored_result decoded,
	const struct stored_fields *fields)
{
	if (decoded == STORED_UNKNOWN)
		return false;
	if (copy->import && (kind == PLACE_MOCK || decoded != STORED_LEGACY))
		return kind != PLACE_MOCK;
	if (copy->options->model)
		return decoded == STORED_OK && span_equal_str(fields->model, copy->options->model);
	return copy->lines ? decoded == STORED_OK : true;
}

static void on_object(struct walk *walk, const char *name, enum place_kind kind,
	const struct digest *key, const struct place_result *result)
{
	struct copy *copy = walk->arg;
	struct transfer *transfer = calloc(1, sizeof *transfer);
	if (!transfer || result->error) {
		if (result->error != ENOENT) {
			copy->failed++;
			fprintf(stderr, "cachectl: %s: %s\n", name,
				result->error ? result->reason : "out of memory");
		}
		free(transfer);
		walk_next(walk);
		return;
	}
	transfer->copy = copy;
	transfer->walk = walk;
	struct span bytes = {(char *)result->body->data, result->body->len};
	enum stored_result decoded = stored_object_decode(
		bytes, kind == PLACE_HASHED ? NULL : key, &transfer->object);
	if (decoded == STORED_TOO_LARGE)
		decoded = stored_object_read(bytes, NULL, true, &transfer->object);
	transfer->has_fields = decoded == STORED_OK;
	if (decoded == STORED_CORRUPT || decoded == STORED_TOO_LARGE ||
		decoded == STORED_NO_MEMORY) {
		copy->bad++;
		fprintf(stderr, "cachectl: %s: %s; left out\n", name, transfer->object.reason);
		transfer_end(transfer);
	} else if (!wanted(copy, kind, decoded, &transfer->object.fields)) {
		copy->left_out++;
		transfer_end(transfer);
	} else if (copy->lines) {
		write_line(copy, &transfer->object.fields);
		transfer_end(transfer);
	} else {
		if (kind == PLACE_HASHED && copy->import)
			store_legacy_name(STORE_LAYOUT_EMBEDDINGS, key, transfer->name);
		else
			snprintf(transfer->name, sizeof transfer->name, "%s", name);
		buf_init(&transfer->bytes, STORED_LEGACY_MAX_BYTES);
		buf_append(&transfer->bytes, bytes.data, bytes.len);
		if (copy->options->overwrite ||
			place_has(copy->to, transfer->name, on_has, transfer) < 0)
			put(transfer);
	}
}

/* ---- Import with the requests: batches become elements ---- */

struct waiting {
	struct loop *loop;
	bool done;
	int error;
	uint64_t time_ms;
	struct buf body;
};

static void on_waited(const struct place_result *result, void *arg)
{
	struct waiting *waiting = arg;
	waiting->done = true;
	waiting->error = result->error;
	waiting->time_ms = result->time_ms;
	if (!result->error && result->body)
		buf_append(&waiting->body, result->body->data, result->body->len);
	loop_stop(waiting->loop);
}

static bool read_legacy(struct copy *copy, struct place *from, const struct query *query,
	struct stored_object *object)
{
	for (int layout = STORE_LAYOUT_EMBEDDINGS; layout <= STORE_LAYOUT_HASHED; layout++) {
		struct waiting waiting = {
			.loop = copy->loop, .body = BUF_INIT(STORED_LEGACY_MAX_BYTES)};
		char name[STORE_NAME_BYTES];
		store_legacy_name((enum store_layout)layout, &query->legacy_key, name);
		if (place_get(from, name, on_waited, &waiting) < 0)
			return false;
		while (!waiting.done)
			loop_run(copy->loop);
		enum stored_result decoded = STORED_CORRUPT;
		if (!waiting.error)
			decoded = stored_object_read(
				(struct span){(char *)waiting.body.data, waiting.body.len}, NULL,
				true, object);
		buf_free(&waiting.body);
		object->fields.stored_ms = waiting.time_ms;
		if (decoded == STORED_LEGACY)
			return true;
	}
	return false;
}

static int put_element(struct copy *copy, const struct stored_fields *fields)
{
	struct buf bytes = BUF_INIT(STORED_OBJECT_MAX_BYTES);
	struct waiting waiting = {.loop = copy->loop, .body = BUF_INIT(65536)};
	char name[STORE_NAME_BYTES];
	store_object_name("", &fields->key, name);
	int rc = stored_object_encode(fields, &bytes);
	if (rc == 0)
		rc = place_put(copy->to, name, (struct span){(char *)bytes.data, bytes.len}, fields,
			on_waited, &waiting);
	while (rc == 0 && !waiting.done)
		loop_run(copy->loop);
	buf_free(&waiting.body);
	buf_free(&bytes);
	return rc < 0 || waiting.error ? -1 : 0;
}

static void take_apart(
	struct copy *copy, const struct query *query, const struct stored_object *object)
{
	struct provider_answer answer;
	uint32_t *weights = calloc(query->n, sizeof *weights);
	uint64_t *tokens = calloc(query->n, sizeof *tokens);
	bool ok = provider_answer_parse(object->json, query->n, &answer) == 0 && weights && tokens;
	for (size_t i = 0; ok && i < query->n; i++)
		weights[i] = (uint32_t)query->elements[i].json.len;
	ok = ok && usage_share(answer.total_tokens, weights, query->n, tokens) == 0;
	for (size_t i = 0; ok && i < query->n; i++) {
		const struct embedding *embedding = &answer.embeddings[i];
		struct stored_fields fields = {
			.key = query->elements[i].key,
			.stored_ms = object->fields.stored_ms ? object->fields.stored_ms
							      : loop_wall_ms(copy->loop),
			.model = {(char *)query->model.data, query->model.len},
			.served_model = {(char *)answer.model.data, answer.model.len},
			.params = {(char *)query->canonical_params.data,
				query->canonical_params.len},
			.source = embedding->source,
			.vector = {(char *)embedding->text.data, embedding->text.len},
			.dims = embedding->dims,
			.prompt_tokens = tokens[i],
			.total_tokens = tokens[i],
		};
		if (put_element(copy, &fields) < 0)
			copy->failed++;
		else
			copy->elements++;
	}
	copy->taken_apart += ok;
	copy->bad += !ok;
	provider_answer_free(&answer);
	free(weights);
	free(tokens);
}

static enum ctl_exit take_apart_all(struct copy *copy, struct place *from)
{
	struct ctl_lines lines = {.file = fopen(copy->options->requests, "r")};
	struct span line;
	if (!lines.file) {
		fprintf(stderr, "cachectl: %s: %s\n", copy->options->requests, strerror(errno));
		return CTL_NO_INPUT;
	}
	while (!ctl_interrupted() && ctl_lines_next(&lines, &line)) {
		struct query query;
		struct api_error error;
		struct stored_object object = {0};
		if (line.len && query_parse_legacy(line, MAX_INPUTS, NULL, &query, &error) < 0) {
			fprintf(stderr, "cachectl: %s: line %" PRIu64 ": not a request\n",
				copy->options->requests, lines.number);
			copy->bad++;
		} else if (line.len && read_legacy(copy, from, &query, &object)) {
			take_apart(copy, &query, &object);
		}
		stored_object_free(&object);
		if (line.len)
			query_free(&query);
	}
	ctl_lines_close(&lines);
	return CTL_OK;
}

/* ---- The whole ---- */

static void report(const struct copy *copy)
{
	char bytes[32], copied[32];
	if (copy->options->json) {
		FILE *out = copy->lines == stdout ? stderr : stdout;
		fprintf(out,
			"{\"copied\":%" PRIu64 ",\"there_already\":%" PRIu64
			",\"left_out\":%" PRIu64 ",\"bad\":%" PRIu64 ",\"failed\":%" PRIu64
			",\"bytes\":%" PRIu64 ",\"taken_apart\":%" PRIu64 ",\"elements\":%" PRIu64
			"}\n",
			copy->copied, copy->there, copy->left_out, copy->bad, copy->failed,
			copy->bytes, copy->taken_apart, copy->elements);
		return;
	}
	ctl_format_bytes(copy->bytes, bytes);
	FILE *out = copy->lines == stdout ? stderr : stdout;
	ctl_format_count(copy->copied, copied);
	fprintf(out,
		"%s objects copied (%s), %" PRIu64 " were there, %" PRIu64 " left out, %" PRIu64
		" bad, %" PRIu64 " failed\n",
		copied, bytes, copy->there, copy->left_out, copy->bad, copy->failed);
	if (copy->options->requests)
		fprintf(out, "%" PRIu64 " requests taken apart into %" PRIu64 " embeddings\n",
			copy->taken_apart, copy->elements);
}

static enum ctl_exit run(struct copy *copy, const char *source)
{
	struct place *from = place_open(copy->loop, source);
	if (!from)
		return CTL_USAGE;
	struct walk walk = {.loop = copy->loop,
		.place = from,
		.options = copy->options,
		.on_object = on_object,
		.arg = copy};
	ctl_progress_init(&walk.progress, copy->options);
	ctl_catch_signals();
	enum ctl_exit result = walk_run(&walk) < 0 ? CTL_UNAVAILABLE : CTL_OK;
	if (result == CTL_OK && copy->import && copy->options->requests)
		result = take_apart_all(copy, from);
	if (ctl_interrupted())
		result = CTL_INTERRUPTED;
	place_close(&from);
	if (result == CTL_OK) {
		report(copy);
		if (copy->failed || copy->bad)
			result = CTL_PROBLEMS;
	}
	return result;
}

enum ctl_exit ctl_import(const struct ctl_options *options, const char *source)
{
	struct copy copy = {.options = options, .loop = loop_new(), .import = true};
	copy.to = place_open(copy.loop, options->store);
	enum ctl_exit result = copy.to ? run(&copy, source) : CTL_USAGE;
	place_close(&copy.to);
	loop_free(&copy.loop);
	return result;
}

enum ctl_exit ctl_export(const struct ctl_options *options, const char *target)
{
	struct copy copy = {.options = options, .loop = loop_new()};
	size_t len = strlen(target);
	enum ctl_exit result = CTL_USAGE;
	if (strcmp(target, "-") == 0) {
		copy.lines = stdout;
	} else if (len > 6 && strcmp(target + len - 6, ".jsonl") == 0) {
		copy.lines = fopen(target, "w");
		if (!copy.lines)
			fprintf(stderr, "cachectl: %s: %s\n", target, strerror(errno));
	} else {
		copy.to = place_open(copy.loop, target);
	}
	if (copy.lines || copy.to)
		result = run(&copy, options->store);
	if (copy.lines && (fflush(copy.lines) || (copy.lines != stdout && fclose(copy.lines)))) {
		fprintf(stderr, "cachectl: %s: %s\n", target, strerror(errno));
		result = CTL_PROBLEMS;
	}
	place_close(&copy.to);
	loop_free(&copy.loop);
	return result;
}
