/* cachectl import and export: objects from one place to another, each checked on its way. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/loop.h"
#include "gatewayd/ctl/inspect.h"
#include "gatewayd/ctl/purged.h"
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
	/* What was purged where it comes from, or where it goes to, is not brought back. The second
	 * is NULL for lines. */
	struct purged *purged_from, *purged_to;
	uint64_t copied, there, gone, bad, failed, left_out, bytes;
	uint64_t taken_apart, elements, gone_elements, bad_requests; /* --requests */
	bool import;
};

/* One object: is it there? no: put it. */
struct transfer {
	struct copy *copy;
	struct walk *walk;
	char name[STORE_NAME_BYTES];
	struct buf bytes;
	struct inspection object; /* its fields become metadata */
};

static void transfer_end(struct transfer *transfer)
{
	struct walk *walk = transfer->walk;
	buf_free(&transfer->bytes);
	inspection_free(&transfer->object);
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
		    transfer->object.decoded == STORED_OK ? &transfer->object.object.fields : NULL,
		    on_put, transfer) < 0) {
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

static void bad_object(struct copy *copy, const char *name, const char *what)
{
	copy->bad++;
	fprintf(stderr, "cachectl: %s: %s; left out\n", name, what);
}

static bool is_gone(const struct copy *copy, enum place_kind kind, const struct digest *key,
	struct span model, uint64_t time_ms)
{
	return purged_covers(copy->purged_from, kind, key, model, time_ms) ||
	       (copy->purged_to && purged_covers(copy->purged_to, kind, key, model, time_ms));
}

static bool is_wanted(
	const struct copy *copy, enum place_kind kind, const struct inspection *object)
{
	if (object->decoded == STORED_UNKNOWN)
		return false;
	if (copy->import)
		return kind != PLACE_MOCK;
	if (copy->options->model)
		return object->decoded == STORED_OK &&
		       span_equal_str(object->model, copy->options->model);
	return copy->lines ? object->decoded == STORED_OK : true;
}

static void start_put(struct transfer *transfer, const char *name, enum place_kind kind,
	const struct digest *key, const struct buf *body)
{
	struct copy *copy = transfer->copy;
	if (kind == PLACE_HASHED && copy->import)
		store_legacy_name(STORE_LAYOUT_EMBEDDINGS, key, transfer->name);
	else
		snprintf(transfer->name, sizeof transfer->name, "%s", name);
	buf_append(&transfer->bytes, body->data, body->len);
	if (copy->options->overwrite || place_has(copy->to, transfer->name, on_has, transfer) < 0)
		put(transfer);
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
	buf_init(&transfer->bytes, STORED_LEGACY_MAX_BYTES);
	struct inspection *object = &transfer->object;
	inspect(object, kind, key, result);
	bool wanted = is_wanted(copy, kind, object);
	if (object->wrong && !(copy->import && kind == PLACE_MOCK)) {
		bad_object(copy, name, object->wrong);
	} else if (wanted && is_gone(copy, kind, key, object->model, object->time_ms)) {
		copy->gone++;
	} else if (!wanted) {
		copy->left_out++;
	} else if (copy->lines) {
		write_line(copy, &object->object.fields);
	} else {
		start_put(transfer, name, kind, key, result->body);
		return;
	}
	transfer_end(transfer);
}

static void on_misnamed(struct walk *walk, const char *name)
{
	bad_object(walk->arg, name, "its name is no key");
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

static void bad_request(struct copy *copy, uint64_t line, const char *what)
{
	copy->bad_requests++;
	fprintf(stderr, "cachectl: %s: line %" PRIu64 ": %s\n", copy->options->requests, line,
		what);
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

static void take_apart(struct copy *copy, const struct query *query,
	const struct stored_object *object, uint64_t line)
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
		struct span model = {(char *)query->model.data, query->model.len};
		if (is_gone(copy, PLACE_ELEMENT, &query->elements[i].key, model,
			    object->fields.stored_ms)) {
			copy->gone_elements++;
			continue;
		}
		struct stored_fields fields = {
			.key = query->elements[i].key,
			.stored_ms = object->fields.stored_ms ? object->fields.stored_ms
							      : loop_wall_ms(copy->loop),
			.model = model,
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
	if (!ok)
		bad_request(copy, line, answer.reason ? answer.reason : "out of memory");
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
			bad_request(copy, lines.number, "not a request");
		} else if (line.len && read_legacy(copy, from, &query, &object)) {
			take_apart(copy, &query, &object, lines.number);
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
			",\"left_out\":%" PRIu64 ",\"purged\":%" PRIu64 ",\"bad\":%" PRIu64
			",\"failed\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"taken_apart\":%" PRIu64
			",\"elements\":%" PRIu64 ",\"purged_elements\":%" PRIu64
			",\"bad_requests\":%" PRIu64 "}\n",
			copy->copied, copy->there, copy->left_out, copy->gone, copy->bad,
			copy->failed, copy->bytes, copy->taken_apart, copy->elements,
			copy->gone_elements, copy->bad_requests);
		return;
	}
	ctl_format_bytes(copy->bytes, bytes);
	FILE *out = copy->lines == stdout ? stderr : stdout;
	ctl_format_count(copy->copied, copied);
	fprintf(out,
		"%s objects copied (%s), %" PRIu64 " were there, %" PRIu64 " left out, %" PRIu64
		" purged, %" PRIu64 " bad, %" PRIu64 " failed\n",
		copied, bytes, copy->there, copy->left_out, copy->gone, copy->bad, copy->failed);
	if (copy->options->requests)
		fprintf(out,
			"%" PRIu64 " requests taken apart into %" PRIu64 " embeddings, %" PRIu64
			" purged\n",
			copy->taken_apart, copy->elements, copy->gone_elements);
	if (copy->bad_requests)
		fprintf(out, "%" PRIu64 " line%s of the requests bad\n", copy->bad_requests,
			copy->bad_requests == 1 ? " was" : "s were");
}

static enum ctl_exit copy_all(struct copy *copy, struct place *from)
{
	struct walk walk = {.loop = copy->loop,
		.place = from,
		.options = copy->options,
		.on_object = on_object,
		.on_misnamed = on_misnamed,
		.arg = copy};
	copy->purged_from = purged_read(copy->loop, from);
	copy->purged_to = copy->to ? purged_read(copy->loop, copy->to) : NULL;
	if (!copy->purged_from || (copy->to && !copy->purged_to))
		return CTL_UNAVAILABLE;
	ctl_progress_init(&walk.progress, copy->options);
	enum ctl_exit result = walk_run(&walk);
	if (result == CTL_OK && copy->import && copy->options->requests)
		result = take_apart_all(copy, from);
	if (ctl_interrupted())
		result = CTL_INTERRUPTED;
	if (result == CTL_OK) {
		report(copy);
		if (copy->failed || copy->bad || copy->bad_requests)
			result = CTL_PROBLEMS;
	}
	return result;
}

static enum ctl_exit run(struct copy *copy, struct place *from)
{
	ctl_catch_signals();
	enum ctl_exit result = copy_all(copy, from);
	purged_free(&copy->purged_from);
	purged_free(&copy->purged_to);
	return result;
}

enum ctl_exit ctl_import(const struct ctl_options *options, const char *source)
{
	struct copy copy = {.options = options, .loop = loop_new(), .import = true};
	struct place *from = place_open(copy.loop, source);
	copy.to = place_open(copy.loop, options->store);
	enum ctl_exit result = from && copy.to ? place_check(from) : CTL_USAGE;
	if (result == CTL_OK)
		result = run(&copy, from);
	place_close(&from);
	place_close(&copy.to);
	loop_free(&copy.loop);
	return result;
}

/* Not before the source is known to be there: an export that lies at the target is not emptied. */
static int open_target(struct copy *copy, const char *target)
{
	size_t len = strlen(target);
	if (strcmp(target, "-") == 0) {
		copy->lines = stdout;
	} else if (len > 6 && strcmp(target + len - 6, ".jsonl") == 0) {
		copy->lines = fopen(target, "w");
		if (!copy->lines)
			fprintf(stderr, "cachectl: %s: %s\n", target, strerror(errno));
	} else {
		copy->to = place_open(copy->loop, target);
	}
	return copy->lines || copy->to ? 0 : -1;
}

enum ctl_exit ctl_export(const struct ctl_options *options, const char *target)
{
	struct copy copy = {.options = options, .loop = loop_new()};
	struct place *from = place_open(copy.loop, options->store);
	enum ctl_exit result = from ? place_check(from) : CTL_USAGE;
	if (result == CTL_OK)
		result = open_target(&copy, target) == 0 ? run(&copy, from) : CTL_USAGE;
	if (copy.lines && (fflush(copy.lines) || (copy.lines != stdout && fclose(copy.lines)))) {
		fprintf(stderr, "cachectl: %s: %s\n", target, strerror(errno));
		result = CTL_PROBLEMS;
	}
	place_close(&from);
	place_close(&copy.to);
	loop_free(&copy.loop);
	return result;
}
