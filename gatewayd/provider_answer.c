#include "gatewayd/provider_answer.h"

#include <stdlib.h>
#include <string.h>

#include "common/json_span.h"
#include "common/reclaim.h"
#include "gatewayd/query.h"
#include "gatewayd/vector.h"

/* Of the body, copied, until it is given back. */
#define GIVE_BACK_BYTES (1u << 20)

static int broken(struct provider_answer *answer, const char *reason)
{
	answer->reason = reason;
	return -1;
}

/* In memory of exactly their size. */
static int pack(
	struct provider_answer *answer, const struct buf *floats, struct embedding *embedding)
{
	float *values = malloc(floats->len);
	if (!values)
		return broken(answer, "the gateway is out of memory");
	memcpy(values, floats->data, floats->len);
	embedding_pack(embedding, values, embedding->dims);
	return 0;
}

/* As base64 when that says all, else the provider's own text. */
static int take_numbers(
	struct provider_answer *answer, struct span array, struct embedding *embedding)
{
	struct buf floats = BUF_INIT(VECTOR_MAX_DIMS * sizeof(float));
	enum vector_exactness exactness = vector_read_text(array, &floats, &embedding->dims);
	int rc = 0;
	switch (exactness) {
	case VECTOR_BAD:
		rc = broken(answer, "an embedding is not a list of finite numbers");
		break;
	case VECTOR_EXACT:
		if (answer->vectors) {
			rc = pack(answer, &floats, embedding);
			break;
		}
		embedding->source = VECTOR_BASE64;
		buf_init(&embedding->text, vector_base64_len(embedding->dims));
		if (vector_floats_append_base64(
			    (const float *)floats.data, embedding->dims, &embedding->text) < 0)
			rc = broken(answer, "the gateway is out of memory");
		break;
	case VECTOR_INEXACT:
		embedding->source = VECTOR_TEXT;
		buf_init(&embedding->text, array.len);
		if (buf_append(&embedding->text, array.data, array.len) < 0)
			rc = broken(answer, "the gateway is out of memory");
		break;
	}
	buf_free(&floats);
	return rc;
}

static int take_base64(
	struct provider_answer *answer, struct span base64, struct embedding *embedding)
{
	if (vector_read_base64(base64, NULL, &embedding->dims) < 0)
		return broken(answer, "an embedding is not base64 of finite float32 numbers");
	embedding->source = VECTOR_BASE64;
	buf_init(&embedding->text, base64.len);
	if (buf_append(&embedding->text, base64.data, base64.len) < 0)
		return broken(answer, "the gateway is out of memory");
	return 0;
}

/* What was taken out of the body while it came; false when this stands for no such thing. */
static bool take_vector(struct provider_answer *answer, const struct json_span_doc *doc,
	uint32_t node, struct embedding *embedding)
{
	if (!answer->vectors)
		return false;
	size_t at = (size_t)(json_span_text(doc, node).data - answer->begin);
	uint32_t dims;
	float *values = provider_vectors_take(answer->vectors, at, &dims);
	if (!values)
		return false;
	embedding_pack(embedding, values, dims);
	return true;
}

static int take_item(struct provider_answer *answer, const struct json_span_doc *doc, uint32_t item,
	int64_t place)
{
	int64_t index = place;
	uint32_t index_node = json_span_member(doc, item, SPAN_LITERAL("index"));
	if (index_node != JSON_SPAN_NONE && json_span_int64(doc, index_node, &index) < 0)
		return broken(answer, "an index is not a number");
	if (index < 0 || index >= (int64_t)answer->n)
		return broken(answer, "an index is out of range");
	struct embedding *embedding = &answer->embeddings[index];
	if (embedding->dims)
		return broken(answer, "an index is there twice");

	uint32_t node = json_span_member(doc, item, SPAN_LITERAL("embedding"));
	if (node == JSON_SPAN_NONE)
		return broken(answer, "an embedding is missing");
	if (take_vector(answer, doc, node, embedding))
		return 0;
	struct span text;
	if (json_span_type(doc, node) == JSON_SPAN_NUMBERS)
		return take_numbers(answer, json_span_text(doc, node), embedding);
	if (json_span_borrow_string(doc, node, &text))
		return take_base64(answer, text, embedding);
	struct buf decoded = BUF_INIT(VECTOR_MAX_TEXT_BYTES); /* "\/" in base64, say */
	int rc;
	if (json_span_string(doc, node, &decoded) < 0)
		rc = broken(answer, "an embedding is neither numbers nor base64");
	else
		rc = take_base64(
			answer, (struct span){(char *)decoded.data, decoded.len}, embedding);
	buf_free(&decoded);
	return rc;
}

/* Everything up to the end of this item was copied. */
static void give_back(
	struct provider_answer *answer, const struct json_span_doc *doc, uint32_t item)
{
	struct span text = json_span_text(doc, item);
	size_t end = (size_t)(text.data + text.len - answer->begin);
	if (!answer->own || end - answer->given_back < GIVE_BACK_BYTES)
		return;
	reclaim_part(answer->own, answer->given_back, end);
	answer->given_back = end;
}

static int check_lengths(struct provider_answer *answer)
{
	for (size_t i = 1; i < answer->n; i++)
		if (answer->embeddings[i].dims != answer->embeddings[0].dims)
			return broken(answer, "the embeddings have different lengths");
	return 0;
}

static int take_list(struct provider_answer *answer, const struct json_span_doc *doc)
{
	uint32_t data = json_span_member(doc, json_span_root(), SPAN_LITERAL("data"));
	if (data == JSON_SPAN_NONE || json_span_type(doc, data) != JSON_SPAN_ARRAY)
		return broken(answer, "there is no list of embeddings");
	if (json_span_count(doc, data) != answer->n)
		return broken(answer, "it has the wrong number of embeddings");
	int64_t place = 0;
	for (uint32_t item = json_span_first(doc, data); item != JSON_SPAN_NONE;
		item = json_span_next(doc, data, item)) {
		if (take_item(answer, doc, item, place++) < 0)
			return -1;
		give_back(answer, doc, item);
	}
	return check_lengths(answer);
}

/* {"embeddings":[[...],[...]]}, in the order of the inputs. */
static int take_arrays(struct provider_answer *answer, const struct json_span_doc *doc)
{
	uint32_t list = json_span_member(doc, json_span_root(), SPAN_LITERAL("embeddings"));
	if (list == JSON_SPAN_NONE || json_span_type(doc, list) != JSON_SPAN_ARRAY)
		return broken(answer, "there is no list of embeddings");
	if (json_span_count(doc, list) != answer->n)
		return broken(answer, "it has the wrong number of embeddings");
	size_t i = 0;
	for (uint32_t item = json_span_first(doc, list); item != JSON_SPAN_NONE;
		item = json_span_next(doc, list, item)) {
		struct embedding *embedding = &answer->embeddings[i++];
		enum json_span_type type = json_span_type(doc, item);
		if (type == JSON_SPAN_NUMBERS) {
			if (take_numbers(answer, json_span_text(doc, item), embedding) < 0)
				return -1;
		} else if (type != JSON_SPAN_ARRAY || !take_vector(answer, doc, item, embedding)) {
			return broken(answer, "an embedding is not a list of finite numbers");
		}
		give_back(answer, doc, item);
	}
	return check_lengths(answer);
}

/* Model and tokens: nice to have. */
static void take_rest(struct provider_answer *answer, const struct json_span_doc *doc)
{
	uint32_t root = json_span_root();
	uint32_t model = json_span_member(doc, root, SPAN_LITERAL("model"));
	if (model != JSON_SPAN_NONE && json_span_string(doc, model, &answer->model) < 0)
		buf_clear(&answer->model);
	uint32_t usage = json_span_member(doc, root, SPAN_LITERAL("usage"));
	uint32_t tokens = json_span_member(doc, usage, SPAN_LITERAL("total_tokens"));
	if (tokens == JSON_SPAN_NONE)
		tokens = json_span_member(doc, usage, SPAN_LITERAL("prompt_tokens"));
	if (tokens == JSON_SPAN_NONE)
		tokens = json_span_member(doc, root, SPAN_LITERAL("prompt_eval_count"));
	int64_t n = 0;
	if (tokens != JSON_SPAN_NONE && json_span_int64(doc, tokens, &n) == 0 && n > 0)
		answer->total_tokens = (uint64_t)n;
}

typedef int take_embeddings(struct provider_answer *answer, const struct json_span_doc *doc);

static int parse(struct span body, char *own, struct provider_vectors *vectors, size_t n_inputs,
	struct provider_answer *answer, take_embeddings *take)
{
	*answer = (struct provider_answer){
		.n = n_inputs, .begin = body.data, .own = own, .vectors = vectors};
	buf_init(&answer->model, QUERY_MAX_MODEL_BYTES);
	struct json_span_limits limits = {
		.max_depth = 32, .max_nodes = (uint32_t)(n_inputs * 64 + 1024)};
	struct json_span_doc *doc = json_span_new(body, &limits);
	answer->embeddings = calloc(n_inputs, sizeof *answer->embeddings);
	int rc = 0;
	if (!doc || !answer->embeddings)
		rc = broken(answer, "the gateway is out of memory");
	else if (json_span_step(doc, SIZE_MAX) != JSON_SPAN_DONE)
		rc = broken(answer, "it is not valid JSON");
	else if (json_span_type(doc, json_span_root()) != JSON_SPAN_OBJECT)
		rc = broken(answer, "it is not a JSON object");
	else {
		take_rest(answer, doc); /* first: what lies before an embedding may go with it */
		rc = take(answer, doc);
	}
	json_span_free(&doc);
	return rc;
}

int provider_answer_parse(struct span body, size_t n_inputs, struct provider_answer *answer)
{
	return parse(body, NULL, NULL, n_inputs, answer, take_list);
}

int provider_answer_parse_ollama(struct span body, size_t n_inputs, struct provider_answer *answer)
{
	return parse(body, NULL, NULL, n_inputs, answer, take_arrays);
}

static int consume(struct buf *body, struct provider_vectors *vectors, size_t n_inputs,
	struct provider_answer *answer, take_embeddings *take)
{
	char *data = (char *)body->data;
	int rc = parse((struct span){data, body->len}, data, vectors, n_inputs, answer, take);
	provider_vectors_free(vectors);
	buf_free(body);
	return rc;
}

int provider_answer_take(struct buf *body, struct provider_vectors *vectors, size_t n_inputs,
	struct provider_answer *answer)
{
	return consume(body, vectors, n_inputs, answer, take_list);
}

int provider_answer_take_ollama(struct buf *body, struct provider_vectors *vectors, size_t n_inputs,
	struct provider_answer *answer)
{
	return consume(body, vectors, n_inputs, answer, take_arrays);
}

void provider_answer_free(struct provider_answer *answer)
{
	for (size_t i = 0; answer->embeddings && i < answer->n; i++)
		buf_free(&answer->embeddings[i].text);
	free(answer->embeddings);
	buf_free(&answer->model);
	*answer = (struct provider_answer){0};
}
