#include "gatewayd/ctl/inspect.h"

#include <stdio.h>

#include "common/json_span.h"
#include "gatewayd/provider_answer.h"

/* An answer that a Python gateway kept. */
static void inspect_legacy(struct inspection *inspection)
{
	struct span json = inspection->object.json;
	struct provider_answer answer = {0};
	struct json_span_doc *doc = json_span_new(json, NULL);
	if (!doc || json_span_step(doc, SIZE_MAX) != JSON_SPAN_DONE) {
		inspection->wrong = "not JSON";
	} else {
		uint32_t data = json_span_member(doc, json_span_root(), SPAN_LITERAL("data"));
		inspection->embeddings = json_span_count(doc, data);
		if (inspection->embeddings == 0)
			inspection->wrong = "no embeddings";
		else if (provider_answer_parse(json, inspection->embeddings, &answer) < 0)
			inspection->wrong = answer.reason;
		buf_append(&inspection->model_text, answer.model.data, answer.model.len);
	}
	provider_answer_free(&answer);
	json_span_free(&doc);
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

void inspect(struct inspection *inspection, enum place_kind kind, const struct digest *key,
	const struct place_result *result)
{
	struct span bytes = {(char *)result->body->data, result->body->len};
	struct stored_object *object = &inspection->object;
	*inspection = (struct inspection){.embeddings = 1, .time_ms = result->time_ms};
	buf_init(&inspection->model_text, STORED_LEGACY_MAX_BYTES);
	enum stored_result decoded = kind == PLACE_HASHED
					     ? stored_object_read(bytes, NULL, true, object)
					     : stored_object_decode(bytes, key, object);
	/* A batch of the Python gateway may be larger than any object of ours. */
	if (decoded == STORED_TOO_LARGE && kind == PLACE_ELEMENT)
		decoded = stored_object_read(bytes, NULL, true, object);
	inspection->decoded = decoded;
	switch (decoded) {
	case STORED_OK:
		inspection->wrong = check_metadata(result, &object->fields);
		inspection->model = object->fields.model;
		inspection->time_ms = object->fields.stored_ms;
		break;
	case STORED_LEGACY:
		if (kind == PLACE_MOCK)
			inspection->wrong = "not written by this gateway";
		else
			inspect_legacy(inspection);
		inspection->model = (struct span){
			(char *)inspection->model_text.data, inspection->model_text.len};
		break;
	case STORED_UNKNOWN:
		break;
	default:
		inspection->wrong = object->reason;
		break;
	}
	if (result->encoding_told && !inspection->wrong && bytes.len && bytes.data[0] == 0x1f &&
		!span_equal_str(result->encoding, "gzip"))
		inspection->wrong = "its Content-Encoding is not gzip";
}

void inspection_free(struct inspection *inspection)
{
	stored_object_free(&inspection->object);
	buf_free(&inspection->model_text);
}
