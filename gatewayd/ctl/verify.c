/* cachectl verify: is every object what its name says? */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/json_span.h"
#include "common/loop.h"
#include "gatewayd/ctl/inspect.h"
#include "gatewayd/ctl/purged.h"
#include "gatewayd/ctl/walk.h"
#include "gatewayd/query.h"
#include "gatewayd/store.h"

#define MAX_INPUTS 1000000

struct verify {
	const struct ctl_options *options;
	struct loop *loop;
	struct place *place;
	struct purged *purged;
	struct buf problems; /* JSON */
	uint64_t good, legacy, newer, gone, bad, bytes, embeddings;
	/* --requests */
	uint64_t requests, bad_requests, wanted, present, by_body, missing;
};

static void tell(struct verify *verify, const char *name, const char *what)
{
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

static void problem(struct verify *verify, const char *name, const char *what)
{
	verify->bad++;
	tell(verify, name, what);
}

static void check(struct verify *verify, const char *name, enum place_kind kind,
	const struct digest *key, const struct place_result *result)
{
	struct inspection object;
	inspect(&object, kind, key, result);
	verify->bytes += result->body->len;
	if (object.wrong) {
		problem(verify, name, object.wrong);
	} else if (object.decoded == STORED_UNKNOWN) {
		verify->newer++;
	} else if (purged_covers(verify->purged, kind, key, object.model, object.time_ms)) {
		verify->gone++;
	} else {
		verify->good += object.decoded == STORED_OK;
		verify->legacy += object.decoded == STORED_LEGACY;
		verify->embeddings += object.embeddings;
	}
	inspection_free(&object);
}

static void on_misnamed(struct walk *walk, const char *name)
{
	problem(walk->arg, name, "its name is no key");
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

/* As gatewayd sees it: a batch of the Python gateway goes by the model that is asked for. */
static bool is_gone(
	const struct lookup *lookup, const struct stored_object *object, uint64_t time_ms)
{
	const struct query *query = lookup->query;
	struct span model = {(char *)query->model.data, query->model.len};
	const struct query_element *element = lookup->element ? lookup->element : query->elements;
	bool gone = false;
	if (object->fields.stored_ms)
		time_ms = object->fields.stored_ms;
	for (size_t n = lookup->element ? 1 : query->n; n > 0 && !gone; n--, element++)
		gone = purged_covers(
			lookup->verify->purged, PLACE_ELEMENT, &element->key, model, time_ms);
	return gone;
}

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
		lookup->found = (decoded == STORED_OK || decoded == STORED_LEGACY) &&
				!is_gone(lookup, &object, result->time_ms);
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
		verify->bad_requests++;
		tell(verify, what, "not a request for embeddings");
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
		       ",\"newer\":%" PRIu64 ",\"purged\":%" PRIu64 ",\"bad\":%" PRIu64
		       ",\"other_files\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"embeddings\":%" PRIu64,
			walk->seen, verify->good, verify->legacy, verify->newer, verify->gone,
			verify->bad, walk->others, verify->bytes, verify->embeddings);
		if (verify->options->requests)
			printf(",\"requests\":{\"requests\":%" PRIu64 ",\"texts\":%" PRIu64
			       ",\"present\":%" PRIu64 ",\"by_body\":%" PRIu64
			       ",\"missing\":%" PRIu64 ",\"bad\":%" PRIu64 "}",
				verify->requests, verify->wanted, verify->present, verify->by_body,
				verify->missing, verify->bad_requests);
		printf(",\"problems\":[%.*s]}\n", (int)verify->problems.len,
			verify->problems.len ? (char *)verify->problems.data : "");
		return;
	}
	ctl_format_count(walk->seen, objects);
	ctl_format_count(verify->embeddings, embeddings);
	ctl_format_bytes(verify->bytes, bytes);
	ctl_format_count(verify->good, good);
	printf("%s objects, %s embeddings, %s: %s good, %" PRIu64 " of the Python gateway, %" PRIu64
	       " of a newer version, %" PRIu64 " purged, %" PRIu64 " bad\n",
		objects, embeddings, bytes, good, verify->legacy, verify->newer, verify->gone,
		verify->bad);
	if (verify->options->requests)
		printf("%" PRIu64 " texts of %" PRIu64 " requests: %" PRIu64 " there, %" PRIu64
		       " in the answer to their whole request, %" PRIu64 " missing\n",
			verify->wanted, verify->requests, verify->present, verify->by_body,
			verify->missing);
	if (verify->bad_requests)
		printf("%" PRIu64 " line%s of the requests %s none\n", verify->bad_requests,
			verify->bad_requests == 1 ? "" : "s",
			verify->bad_requests == 1 ? "is" : "are");
}

static enum ctl_exit run(struct verify *verify)
{
	struct walk walk = {.loop = verify->loop,
		.place = verify->place,
		.options = verify->options,
		.on_object = on_object,
		.on_misnamed = on_misnamed,
		.arg = verify};
	ctl_progress_init(&walk.progress, verify->options);
	enum ctl_exit result = walk_run(&walk);
	if (result == CTL_OK && verify->options->requests && check_requests(verify) < 0)
		result = CTL_NO_INPUT;
	if (ctl_interrupted())
		result = CTL_INTERRUPTED;
	if (result == CTL_OK) {
		report(verify, &walk);
		if (verify->bad || verify->missing || verify->bad_requests)
			result = CTL_PROBLEMS;
	}
	return result;
}

enum ctl_exit ctl_verify(const struct ctl_options *options)
{
	struct verify verify = {
		.options = options, .loop = loop_new(), .problems = BUF_INIT(64u << 20)};
	ctl_catch_signals();
	verify.place = place_open(verify.loop, options->store);
	enum ctl_exit result = verify.place ? place_check(verify.place) : CTL_USAGE;
	if (result == CTL_OK) {
		verify.purged = purged_read(verify.loop, verify.place);
		result = verify.purged ? run(&verify) : CTL_UNAVAILABLE;
	}
	purged_free(&verify.purged);
	place_close(&verify.place);
	buf_free(&verify.problems);
	loop_free(&verify.loop);
	return result;
}
