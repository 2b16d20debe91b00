#include "gatewayd/query.h"

#include <stdlib.h>

#include "common/json_canonical.h"
#include "common/json_span.h"
#include "common/log.h"

#define MAX_DEPTH 64

/* What parsing needs besides its result. */
struct parser {
	struct query *query;
	struct api_error *error;
	struct json_span_doc *doc;
	const struct digest *scope;
	uint32_t input;
	struct buf prefix, suffix; /* canonical text before and after the element */
	struct buf scratch;
	/* NULL: no legacy key. It grows with each element's canonical text. */
	struct digest_state *whole;
	struct buf whole_suffix;
};

static int bad(struct parser *parser, const char *param, const char *message)
{
	api_error_set(parser->error, 400, param, NULL, "%s", message);
	return -1;
}

static int short_of_memory(struct parser *parser)
{
	api_error_set(parser->error, 503, NULL, "overloaded", "The gateway is out of memory.");
	parser->error->retry_after_ms = 1000;
	return -1;
}

static int too_long(struct parser *parser)
{
	return bad(parser, NULL, "The parameters besides input are longer than 16,384 bytes.");
}

/* ---- Members ---- */

static int take_model(struct parser *parser, uint32_t value)
{
	struct query *query = parser->query;
	if (json_span_type(parser->doc, value) != JSON_SPAN_STRING)
		return bad(parser, "model", "model must be a string.");
	if (json_span_string(parser->doc, value, &query->model) < 0)
		return bad(parser, "model", "model must be at most 256 bytes long.");
	if (query->model.len == 0)
		return bad(parser, "model", "model must not be empty.");
	query->model_json = json_span_text(parser->doc, value);
	return 0;
}

static int take_encoding(struct parser *parser, uint32_t value)
{
	if (json_span_type(parser->doc, value) == JSON_SPAN_NULL ||
		json_span_equal(parser->doc, value, SPAN_LITERAL("float")))
		parser->query->encoding = QUERY_FLOAT;
	else if (json_span_equal(parser->doc, value, SPAN_LITERAL("base64")))
		parser->query->encoding = QUERY_BASE64;
	else
		return bad(parser, "encoding_format",
			"encoding_format must be \"float\" or \"base64\".");
	return 0;
}

static int take_dimensions(struct parser *parser, uint32_t value)
{
	int64_t dimensions = 0;
	if (json_span_type(parser->doc, value) == JSON_SPAN_NULL)
		return 0;
	if (json_span_int64(parser->doc, value, &dimensions) < 0 || dimensions < 1 ||
		dimensions > QUERY_MAX_DIMENSIONS)
		return bad(parser, "dimensions",
			"dimensions must be a whole number between 1 and 65536.");
	parser->query->dimensions = dimensions;
	return 0;
}

static int pass_to_provider(struct parser *parser, const struct json_canonical_member *member)
{
	struct buf *params = &parser->query->params_json;
	struct span key = json_span_text(parser->doc, member->key);
	struct span value = json_span_text(parser->doc, json_span_value(member->key));
	buf_append(params, key.data, key.len);
	buf_append_char(params, ':');
	buf_append(params, value.data, value.len);
	buf_append_char(params, ',');
	return buf_failed(params) ? too_long(parser) : 0;
}

static int take_member(struct parser *parser, const struct json_canonical_member *member)
{
	uint32_t value = json_span_value(member->key);
	if (span_equal_str(member->name, "input"))
		return 0;
	if (span_equal_str(member->name, "encoding_format"))
		return take_encoding(parser, value);
	if (span_equal_str(member->name, "model"))
		return take_model(parser, value);
	if (span_equal_str(member->name, "dimensions") && take_dimensions(parser, value) < 0)
		return -1;
	return pass_to_provider(parser, member);
}

/* The canonical text around the element, and the same without the hole for the store. */
static int write_canonical(struct parser *parser)
{
	static const char hole[] = "\"input\": ";
	const struct span without[] = {SPAN_LITERAL("encoding_format"), SPAN_LITERAL("user")};
	struct buf *prefix = &parser->prefix, *suffix = &parser->suffix;
	struct buf *params = &parser->query->canonical_params;
	if (json_canonical_around(parser->doc, json_span_root(), SPAN_LITERAL("input"), without, 2,
		    prefix, suffix) < 0)
		return too_long(parser);
	/* `model` comes after `input`, so what follows the hole begins with a comma. */
	BUG_ON(suffix->len < 2 || prefix->len < sizeof hole);
	buf_append(params, prefix->data, prefix->len - (sizeof hole - 1));
	buf_append(params, suffix->data + 2, suffix->len - 2);
	if (parser->scope)
		buf_append(suffix, parser->scope->bytes, DIGEST_BYTES);
	return buf_failed(params) || buf_failed(suffix) ? too_long(parser) : 0;
}

static int take_members(struct parser *parser)
{
	struct json_canonical_members members;
	if (json_canonical_members(parser->doc, json_span_root(), &members) < 0)
		return short_of_memory(parser);
	int rc = 0;
	for (size_t i = 0; i < members.count && rc == 0; i++)
		rc = take_member(parser, &members.items[i]);
	json_canonical_members_free(&members);
	if (rc < 0)
		return -1;
	parser->input = json_span_member(parser->doc, json_span_root(), SPAN_LITERAL("input"));
	if (parser->query->model.len == 0)
		return bad(parser, "model", "you must provide a model parameter.");
	if (parser->input == JSON_SPAN_NONE)
		return bad(parser, "input", "you must provide an input parameter.");
	return write_canonical(parser);
}

/* ---- Elements ---- */

static bool is_token_list(const struct json_span_doc *doc, uint32_t node)
{
	if (json_span_type(doc, node) != JSON_SPAN_NUMBERS || !json_span_is_integer(doc, node))
		return false;
	struct json_span_numbers numbers = json_span_numbers(doc, node);
	struct span number;
	while (json_span_numbers_next(&numbers, &number))
		if (number.data[0] == '-' || number.len > 10)
			return false;
	return true;
}

static int check_element(struct parser *parser, uint32_t node, enum json_span_type type)
{
	if (json_span_type(parser->doc, node) != type)
		return bad(parser, "input",
			"input must be a string, an array of strings, an array of token ids, or an "
			"array of arrays of token ids.");
	if (type == JSON_SPAN_STRING && json_span_text(parser->doc, node).len == 2)
		return bad(parser, "input", "input cannot be an empty string.");
	if (type == JSON_SPAN_NUMBERS && !is_token_list(parser->doc, node))
		return bad(parser, "input", "token ids must be whole numbers from 0 up.");
	return 0;
}

static int add_element(struct parser *parser, uint32_t node, struct digest_state *sum,
	const struct digest_state *prefix)
{
	struct buf *scratch = &parser->scratch;
	buf_clear(scratch);
	if (json_canonical_append(parser->doc, node, scratch) < 0)
		return short_of_memory(parser);
	if (parser->whole) {
		if (parser->query->n > 0)
			digest_update(parser->whole, SPAN_LITERAL(", "));
		digest_update(parser->whole, (struct span){(char *)scratch->data, scratch->len});
	}
	digest_copy(sum, prefix);
	digest_update(sum, (struct span){(char *)scratch->data, scratch->len});
	digest_update(sum, (struct span){(char *)parser->suffix.data, parser->suffix.len});
	struct query_element *element = &parser->query->elements[parser->query->n++];
	element->key = digest_final(sum);
	element->json = json_span_text(parser->doc, node);
	return 0;
}

static int add_elements(
	struct parser *parser, struct digest_state *sum, struct digest_state *prefix)
{
	struct query *query = parser->query;
	const struct json_span_doc *doc = parser->doc;
	digest_update(prefix, (struct span){(char *)parser->prefix.data, parser->prefix.len});
	if (query->single) {
		if (check_element(parser, parser->input, json_span_type(doc, parser->input)) < 0)
			return -1;
		return add_element(parser, parser->input, sum, prefix);
	}
	enum json_span_type type = json_span_type(doc, json_span_first(doc, parser->input));
	if (type != JSON_SPAN_STRING)
		type = JSON_SPAN_NUMBERS;
	for (uint32_t node = json_span_first(doc, parser->input); node != JSON_SPAN_NONE;
		node = json_span_next(doc, parser->input, node)) {
		if (check_element(parser, node, type) < 0 ||
			add_element(parser, node, sum, prefix) < 0)
			return -1;
	}
	return 0;
}

/* The canonical form of the body as sent is what stands around its input, and the elements. */
static int begin_whole(struct parser *parser)
{
	struct buf before = BUF_INIT(QUERY_MAX_PARAMS_BYTES + 64);
	int rc = json_canonical_around(parser->doc, json_span_root(), SPAN_LITERAL("input"), NULL,
		0, &before, &parser->whole_suffix);
	if (rc < 0) {
		rc = too_long(parser);
	} else {
		digest_update(parser->whole, (struct span){(char *)before.data, before.len});
		if (!parser->query->single)
			digest_update(parser->whole, SPAN_LITERAL("["));
	}
	buf_free(&before);
	return rc;
}

static void end_whole(struct parser *parser)
{
	struct query *query = parser->query;
	const struct buf *suffix = &parser->whole_suffix;
	if (!query->single)
		digest_update(parser->whole, SPAN_LITERAL("]"));
	digest_update(parser->whole, (struct span){(char *)suffix->data, suffix->len});
	query->legacy_key = digest_final(parser->whole);
	query->has_legacy_key = true;
}

/* Link the elements of the same key: an open-addressing table of the first and, while linking, the
 * last of each. */
static int link_repeated(struct query *query)
{
	size_t size = 16;
	while (size < query->n * 2)
		size *= 2;
	uint32_t *table = calloc(size, sizeof *table); /* index + 1 of the last one so far */
	if (!table)
		return -1;
	for (size_t i = 0; i < query->n; i++) {
		struct query_element *element = &query->elements[i];
		size_t slot;
		memcpy(&slot, element->key.bytes, sizeof slot);
		slot &= size - 1;
		while (table[slot] &&
			!digest_equal(&query->elements[table[slot] - 1].key, &element->key))
			slot = (slot + 1) & (size - 1);
		if (table[slot]) {
			query->elements[table[slot] - 1].next_same = (uint32_t)i;
			element->repeated = true;
		}
		table[slot] = (uint32_t)i + 1;
	}
	free(table);
	return 0;
}

static int take_input(struct parser *parser, size_t max_inputs)
{
	struct query *query = parser->query;
	enum json_span_type type = json_span_type(parser->doc, parser->input);
	size_t n = 1;
	query->single = type != JSON_SPAN_ARRAY;
	if (!query->single)
		n = json_span_count(parser->doc, parser->input);
	else if (type != JSON_SPAN_STRING && type != JSON_SPAN_NUMBERS)
		return check_element(parser, parser->input, JSON_SPAN_STRING);
	if (n == 0)
		return bad(parser, "input", "input cannot be an empty array.");
	if (n > max_inputs) {
		api_error_set(parser->error, 400, "input", NULL,
			"input has %zu elements; %zu are allowed.", n, max_inputs);
		return -1;
	}
	struct digest_state *sum = digest_new();
	struct digest_state *prefix = digest_new();
	query->elements = calloc(n, sizeof *query->elements);
	int rc;
	if (sum && prefix && query->elements) {
		rc = parser->whole ? begin_whole(parser) : 0;
		if (rc == 0)
			rc = add_elements(parser, sum, prefix);
		if (rc == 0 && link_repeated(query) < 0)
			rc = short_of_memory(parser);
		if (rc == 0 && parser->whole)
			end_whole(parser);
	} else {
		rc = short_of_memory(parser);
	}
	digest_free(&sum);
	digest_free(&prefix);
	return rc;
}

/* ---- The whole ---- */

static int scan(struct parser *parser, struct span body)
{
	struct json_span_limits limits = {.max_depth = MAX_DEPTH};
	parser->doc = json_span_new(body, &limits);
	if (!parser->doc)
		return short_of_memory(parser);
	if (json_span_step(parser->doc, SIZE_MAX) != JSON_SPAN_DONE) {
		api_error_set(parser->error, 400, NULL, "invalid_json",
			"The body is not valid JSON: %s (byte %zu).",
			json_span_error_reason(parser->doc), json_span_error_offset(parser->doc));
		return -1;
	}
	if (json_span_type(parser->doc, json_span_root()) != JSON_SPAN_OBJECT)
		return bad(parser, NULL, "The body must be a JSON object.");
	return 0;
}

static int parse(struct span body, size_t max_inputs, const struct digest *scope,
	struct digest_state *whole, struct query *query, struct api_error *error)
{
	*query = (struct query){.encoding = QUERY_FLOAT};
	*error = (struct api_error){0};
	buf_init(&query->model, QUERY_MAX_MODEL_BYTES);
	buf_init(&query->params_json, QUERY_MAX_PARAMS_BYTES);
	buf_init(&query->canonical_params, QUERY_MAX_PARAMS_BYTES);
	struct parser parser = {
		.query = query,
		.error = error,
		.scope = scope,
		.prefix = BUF_INIT(QUERY_MAX_PARAMS_BYTES + 64),
		.suffix = BUF_INIT(QUERY_MAX_PARAMS_BYTES + 64),
		/* A byte of text becomes at most six of canonical form. */
		.scratch = BUF_INIT(body.len * 6 + 64),
		.whole = whole,
		.whole_suffix = BUF_INIT(QUERY_MAX_PARAMS_BYTES + 64),
	};
	int rc = scan(&parser, body);
	if (rc == 0)
		rc = take_members(&parser);
	if (rc == 0)
		rc = take_input(&parser, max_inputs);
	json_span_free(&parser.doc);
	buf_free(&parser.prefix);
	buf_free(&parser.suffix);
	buf_free(&parser.scratch);
	buf_free(&parser.whole_suffix);
	return rc;
}

int query_parse(struct span body, size_t max_inputs, const struct digest *scope,
	struct query *query, struct api_error *error)
{
	return parse(body, max_inputs, scope, NULL, query, error);
}

int query_parse_legacy(struct span body, size_t max_inputs, const struct digest *scope,
	struct query *query, struct api_error *error)
{
	/* Without memory for it there is no legacy key. */
	struct digest_state *whole = digest_new();
	int rc = parse(body, max_inputs, scope, whole, query, error);
	digest_free(&whole);
	return rc;
}

void query_free(struct query *query)
{
	buf_free(&query->model);
	buf_free(&query->params_json);
	buf_free(&query->canonical_params);
	free(query->elements);
	query->elements = NULL;
	query->n = 0;
}
