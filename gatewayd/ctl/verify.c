/* cachectl verify: is every object what its name says? */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/json_span.h"
#include "common/loop.h"
#include "gatewayd/ctl/walk.h"
#include "gatewayd/provider_answer.h"
#include "gatewayd/query.h"
#include "gatewayd/store.h"

#define MAX_INPUTS 1000000

struct verify {
	const struct ctl_options *options;
	struct loop *loop;
	struct place *place;
	struct buf problems; /* JSON */
	uint64_t good, legacy, newer, bad, bytes, embeddings;
	/* --requests */
	uint64_t requests, wanted, present, by_body, missing;
};

static void problem(struct verify *verify, const char *name, const char *what)
{
	verify->bad++;
	if (!verify->options->json) {
		printf("%s: %s\n", name, what);
		return;
	}
	buf_append_str(&verify->problems, verify->problems.len ? ",{\"name\":" : "{\"name\":");
	json_append_string(&verify->problems, span_of(name));
	buf_append_str(&verify->problems, ",\"problem\":");
	json_append_string(&verify->problems, span_of(what));
	buf_append_char(&verify->problems, '}');
}

/* NULL, or what is wrong with an answer that a Python gateway kept. */
static const char *check_legacy(struct span json, uint64_t *embeddings)
{
	const char *wrong = NULL;
	struct provider_answer answer = {0};
	struct json_span_doc *doc = json_span_new(json, NULL);
	if (!doc || json_span_step(doc, SIZE_MAX) != JSON_SPAN_DONE)
		wrong = "not JSON";
	else {
		uint32_t data = json_span_member(doc, json_span_root(), SPAN_LITERAL("data"));
		size_t n = json_span_count(doc, data);
		if (n == 0)
			wrong = "no embeddings";
		else if (provider_answer_parse(json, n, &answer) < 0)
			wrong = answer.reason;
		*embeddings = n;
	}
	provider_answer_free(&answer);
	json_span_free(&doc);
	return wrong;
}

/* Metadata of a bucket's object mirrors what is inside. */
static const char *check_metadata(
	const struct place_result *result, const struct stored_fields *fields)
{
	char dims[16];
	snprintf(dims, sizeof dims, "%u", fields->dims);
	if (result->dimensions.len && !span_equal_str(result->dimensions, dims))
		return "its metadata names other dimensions";
	bool plain = true;
	for (size_t i = 0; i < fields->model.len; i++)
		plain &= fields->model.data[i] > ' ' && fields->model.data[i] < 0x7f &&
			 fields->model.data[i] != '%';
	if (plain && result->model.len && !span_equal(result->model, fields->model))
		return "its metadata names another model";
	return NULL;
}

static void check(struct verify *verify, const char *name, enum place_kind kind,
	const struct digest *key, const struct place_result *result)
{
	struct span bytes = {(char *)result->body->data, result->body->len};
	struct stored_object object;
	uint64_t embeddings = 1;
	const char *wrong = NULL;
	verify->bytes += bytes.len;
	enum stored_result decoded = kind == PLACE_HASHED
					     ? stored_object_read(bytes, NULL, true, &object)
					     : stored_object_decode(bytes, key, &object);
	/* A batch of the Python gateway may be larger than any object of ours. */
	if (decoded == STORED_TOO_LARGE && kind == PLACE_ELEMENT)
		decoded = stored_object_read(bytes, NULL, true, &object);
	switch (decoded) {
	case STORED_OK:
		wrong = check_metadata(result, &object.fields);
		verify->good += !wrong;
		break;
	case STORED_LEGACY:
		wrong = kind == PLACE_MOCK ? "not written by this gateway"
					   : check_legacy(object.json, &embeddings);
		verify->legacy += !wrong;
		break;
	case STORED_UNKNOWN:
		verify->newer++;
		break;
	default:
		wrong = object.reason;
		break;
	}
	if (place_is_bucket(verify->place) && !wrong && bytes.len && bytes.data[0] == 0x1f &&
		!span_equal_str(result->encoding, "gzip"))
		wrong = "its Content-Encoding is not gzip";
	verify->embeddings += wrong ? 0 : embeddings;
	if (wrong)
		problem(verify, name, wrong);
	stored_object_free(&object);
}

static void on_object(struct walk *walk, const char *name, enum place_kind kind,
	const struct digest *key, const struct place_result *result)
{
	struct verify *verify = walk->arg;
	if (result->error == ENOENT)
		walk->seen--; /* it was removed meanwhile */
	else if (result->error)
		problem(verify, name, result->reason);
	else
		check(verify, name, kind, key, result);
	walk_next(walk);
}

/* ---- Keys, from the requests they were made of ---- */

struct lookup {
	struct verify *verify;
	const struct query *query;
	const struct query_element *element; /* NULL: the whole body */
	bool done, found;
	const char *name;
};

static void on_looked_up(const struct place_result *result, void *arg)
{
	struct lookup *lookup = arg;
	const struct query *query = lookup->query;
	struct stored_object object = {0};
	lookup->done = true;
	if (result->error == 0 && result->body) {
		struct span bytes = {(char *)result->body->data, result->body->len};
		bool whole = lookup->element == NULL;
		enum stored_result decoded = stored_object_read(
			bytes, whole ? NULL : &lookup->element->key, whole, &object);
		lookup->found = decoded == STORED_OK || decoded == STORED_LEGACY;
		if (decoded == STORED_OK &&
			!span_equal(object.fields.model,
				(struct span){(char *)query->model.data, query->model.len}))
			problem(lookup->verify, lookup->name,
				"another model than the request that has its key");
		else if (decoded == STORED_OK &&
			 !span_equal(object.fields.params,
				 (struct span){(char *)query->canonical_params.data,
					 query->canonical_params.len}))
			problem(lookup->verify, lookup->name,
				"other parameters than the request that has its key");
	}
	stored_object_free(&object);
	loop_stop(lookup->verify->loop);
}

static bool look_up(struct verify *verify, const struct query *query,
	const struct query_element *element, const char *name)
{
	struct lookup lookup = {verify, query, element, false, false, name};
	if (place_get(verify->place, name, on_looked_up, &lookup) < 0)
		return false;
	while (!lookup.done)
		loop_run(verify->loop);
	return lookup.found;
}

static void check_request(struct verify *verify, uint64_t number, struct span line)
{
	struct query query;
	struct api_error error;
	char name[STORE_NAME_BYTES];
	bool whole = false, asked = false;
	if (query_parse_legacy(line, MAX_INPUTS, NULL, &query, &error) < 0) {
		char what[64];
		snprintf(what, sizeof what, "line %" PRIu64 " of the requests", number);
		problem(verify, what, "not a request for embeddings");
		query_free(&query);
		return;
	}
	verify->requests++;
	for (size_t i = 0; i < query.n; i++) {
		verify->wanted++;
		store_object_name("", &query.elements[i].key, name);
		if (look_up(verify, &query, &query.elements[i], name)) {
			verify->present++;
			continue;
		}
		for (int layout = STORE_LAYOUT_EMBEDDINGS; !asked && layout <= STORE_LAYOUT_HASHED;
			layout++) {
			store_legacy_name((enum store_layout)layout, &query.legacy_key, name);
			whole = whole || look_up(verify, &query, NULL, name);
		}
		asked = true;
		if (whole)
			verify->by_body++;
		else
			verify->missing++;
	}
	query_free(&query);
}

static int check_requests(struct verify *verify)
{
	struct ctl_lines lines = {.file = fopen(verify->options->requests, "r")};
	struct span line;
	if (!lines.file) {
		fprintf(stderr, "cachectl: %s: %s\n", verify->options->requests, strerror(errno));
		return -1;
	}
	while (!ctl_interrupted() && ctl_lines_next(&lines, &line))
		if (line.len)
			check_request(verify, lines.number, line);
	ctl_lines_close(&lines);
	return 0;
}

/* ---- The whole ---- */

static void report(const struct verify *verify, const struct walk *walk)
{
	char objects[32], bytes[32], embeddings[32], good[32];
	if (verify->options->json) {
		printf("{\"objects\":%" PRIu64 ",\"good\":%" PRIu64 ",\"legacy\":%" PRIu64
		       ",\"newer\":%" PRIu64 ",\"bad\":%" PRIu64 ",\"other_files\":%" PRIu64
		       ",\"bytes\":%" PRIu64 ",\"embeddings\":%" PRIu64,
			walk->seen, verify->good, verify->legacy, verify->newer, verify->bad,
			walk->others, verify->bytes, verify->embeddings);
		if (verify->options->requests)
			printf(",\"requests\":{\"requests\":%" PRIu64 ",\"texts\":%" PRIu64
			       ",\"present\":%" PRIu64 ",\"by_body\":%" PRIu64
			       ",\"missing\":%" PRIu64 "}",
				verify->requests, verify->wanted, verify->present, verify->by_body,
				verify->missing);
		printf(",\"problems\":[%.*s]}\n", (int)verify->problems.len,
			verify->problems.len ? (char *)verify->problems.data : "");
		return;
	}
	ctl_format_count(walk->seen, objects);
	ctl_format_count(verify->embeddings, embeddings);
	ctl_format_bytes(verify->bytes, bytes);
	ctl_format_count(verify->good, good);
	printf("%s objects, %s embeddings, %s: %s good, %" PRIu64 " of the Python gateway, %" PRIu64
	       " of a newer version, %" PRIu64 " bad\n",
		objects, embeddings, bytes, good, verify->legacy, verify->newer, verify->bad);
	if (verify->options->requests)
		printf("%" PRIu64 " texts of %" PRIu64 " requests: %" PRIu64 " there, %" PRIu64
		       " in the answer to their whole request, %" PRIu64 " missing\n",
			verify->wanted, verify->requests, verify->present, verify->by_body,
			verify->missing);
}

enum ctl_exit ctl_verify(const struct ctl_options *options)
{
	struct verify verify = {
		.options = options, .loop = loop_new(), .problems = BUF_INIT(64u << 20)};
	verify.place = place_open(verify.loop, options->store);
	if (!verify.place) {
		loop_free(&verify.loop);
		return CTL_USAGE;
	}
	struct walk walk = {.loop = verify.loop,
		.place = verify.place,
		.options = options,
		.on_object = on_object,
		.arg = &verify};
	ctl_progress_init(&walk.progress, options);
	ctl_catch_signals();
	enum ctl_exit result = walk_run(&walk) < 0 ? CTL_UNAVAILABLE : CTL_OK;
	if (result == CTL_OK && options->requests && check_requests(&verify) < 0)
		result = CTL_NO_INPUT;
	if (ctl_interrupted())
		result = CTL_INTERRUPTED;
	if (result == CTL_OK) {
		report(&verify, &walk);
		if (verify.bad || verify.missing)
			result = CTL_PROBLEMS;
	}
	place_close(&verify.place);
	buf_free(&verify.problems);
	loop_free(&verify.loop);
	return result;
}
