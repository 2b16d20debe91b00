#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/gzip.h"
#include "gatewayd/stored_object.h"

static struct span span_of_buf(const struct buf *b)
{
	return (struct span){(const char *)b->data, b->len};
}

/* 4 numbers: 0, 1, -2, 0.5 */
#define BASE64_4 "AAAAAAAAgD8AAADAAAAAPw=="

static struct stored_fields sample(void)
{
	struct stored_fields fields = {
		.key = digest_of(SPAN_LITERAL("an element")),
		.stored_ms = 1700000000123,
		.model = SPAN_LITERAL("text-embedding-3-small"),
		.served_model = SPAN_LITERAL("served \"name\"\n\xc3\xa9"),
		.params = SPAN_LITERAL(
			"{\"dimensions\": 4, \"model\": \"text-embedding-3-small\"}"),
		.source = VECTOR_BASE64,
		.vector = SPAN_LITERAL(BASE64_4),
		.dims = 4,
		.prompt_tokens = 3,
		.total_tokens = 5,
	};
	return fields;
}

#define assert_span(a, b)                                              \
	do {                                                           \
		struct span a_ = (a), b_ = (b);                        \
		assert_int_equal(a_.len, b_.len);                      \
		if (a_.len)                                            \
			assert_memory_equal(a_.data, b_.data, a_.len); \
	} while (0)

/* Exactly these bytes, so that a sanitizer sees one too far. */
static enum stored_result decode(
	struct span bytes, const struct digest *key, struct stored_object *object)
{
	char *exact = malloc(bytes.len ? bytes.len : 1);
	if (bytes.len)
		memcpy(exact, bytes.data, bytes.len);
	enum stored_result result = stored_object_decode(
		(struct span){exact, bytes.len}, key, object);
	/* Nothing points into what was decoded. */
	memset(exact, 0x55, bytes.len);
	free(exact);
	return result;
}

static void assert_same(const struct stored_fields *a, const struct stored_fields *b)
{
	assert_true(digest_equal(&a->key, &b->key));
	assert_int_equal(a->stored_ms, b->stored_ms);
	assert_span(a->model, b->model);
	assert_span(a->served_model, b->served_model.len ? b->served_model : b->model);
	assert_span(a->params, b->params);
	assert_int_equal(a->source, b->source);
	assert_span(a->vector, b->vector);
	assert_int_equal(a->dims, b->dims);
	assert_int_equal(a->prompt_tokens, b->prompt_tokens);
	assert_int_equal(a->total_tokens, b->total_tokens);
}

static void round_trip(const struct stored_fields *fields)
{
	struct buf bytes = BUF_INIT(STORED_OBJECT_MAX_BYTES);
	struct stored_object object;
	assert_int_equal(stored_object_encode(fields, &bytes), 0);
	assert_int_equal(decode(span_of_buf(&bytes), &fields->key, &object), STORED_OK);
	assert_null(object.reason);
	assert_same(&object.fields, fields);
	stored_object_free(&object);
	assert_int_equal(decode(span_of_buf(&bytes), NULL, &object), STORED_OK);
	stored_object_free(&object);
	buf_free(&bytes);
}

static char *filled(char c, size_t len)
{
	char *text = malloc(len);
	memset(text, c, len);
	return text;
}

static void what_is_stored_comes_back(void **state)
{
	(void)state;
	struct stored_fields fields = sample();
	round_trip(&fields);
	fields.served_model = (struct span){0};
	round_trip(&fields);
	fields.params = (struct span){0};
	fields.model = (struct span){0};
	fields.stored_ms = UINT64_MAX;
	fields.total_tokens = INT64_MAX;
	round_trip(&fields);

	fields = sample();
	fields.source = VECTOR_TEXT;
	fields.vector = SPAN_LITERAL("[ 0.1, -0,\n1E5 ,2e-7]");
	round_trip(&fields);

	/* Everything as long as it may be. */
	char *model = filled('m', STORED_MODEL_MAX_BYTES),
	     *params = filled('{', STORED_PARAMS_MAX_BYTES),
	     *vector = filled('A', vector_base64_len(VECTOR_MAX_DIMS));
	/* 65,536 float32 are one byte more than a multiple of 3. */
	vector[vector_base64_len(VECTOR_MAX_DIMS) - 1] = '=';
	vector[vector_base64_len(VECTOR_MAX_DIMS) - 2] = '=';
	fields = sample();
	fields.model = fields.served_model = (struct span){model, STORED_MODEL_MAX_BYTES};
	fields.params = (struct span){params, STORED_PARAMS_MAX_BYTES};
	fields.vector = (struct span){vector, vector_base64_len(VECTOR_MAX_DIMS)};
	fields.dims = VECTOR_MAX_DIMS;
	round_trip(&fields);
	/* A name of escapes alone. */
	memset(model, '"', STORED_MODEL_MAX_BYTES);
	round_trip(&fields);
	free(model);
	free(params);
	free(vector);
}

static void the_content_is_a_providers_answer(void **state)
{
	(void)state;
	static const char expected[] =
		"{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,"
		"\"embedding\":\"" BASE64_4 "\"}],\"model\":\"served \\\"name\\\"\\n\xc3\xa9\","
		"\"usage\":{\"prompt_tokens\":3,\"total_tokens\":5}}";
	struct stored_fields fields = sample();
	struct buf bytes = BUF_INIT(10000), again = BUF_INIT(10000), json = BUF_INIT(10000);
	struct span extra;
	assert_int_equal(stored_object_encode(&fields, &bytes), 0);
	assert_int_equal(gzip_decompress(span_of_buf(&bytes), &json, &extra), GZIP_OK);
	assert_span(span_of_buf(&json), SPAN_LITERAL(expected));
	assert_memory_equal(extra.data, "EG", 2);
	assert_int_equal((uint8_t)extra.data[2] | (uint8_t)extra.data[3] << 8, extra.len - 4);
	struct stored_object object;
	assert_int_equal(decode(span_of_buf(&bytes), &fields.key, &object), STORED_OK);
	assert_span(object.json, SPAN_LITERAL(expected));
	/* The same fields are the same bytes. */
	assert_int_equal(stored_object_encode(&fields, &again), 0);
	assert_span(span_of_buf(&again), span_of_buf(&bytes));
	/* Moved out of where it was lent. */
	struct stored_object mine = stored_object_take(&object);
	assert_null(object.memory);
	stored_object_free(&object);
	assert_same(&mine.fields, &fields);
	stored_object_free(&mine);
	assert_null(mine.memory);
	buf_free(&bytes);
	buf_free(&again);
	buf_free(&json);
}

static void fields_out_of_bounds_are_refused(void **state)
{
	(void)state;
	static char long_text[VECTOR_MAX_TEXT_BYTES + 1];
	memset(long_text, '{', sizeof long_text);
	for (int i = 0; i < 13; i++) {
		struct stored_fields f = sample();
		switch (i) {
		case 0:
			f.model = (struct span){long_text, STORED_MODEL_MAX_BYTES + 1};
			break;
		case 1:
			f.served_model = (struct span){long_text, STORED_MODEL_MAX_BYTES + 1};
			break;
		case 2:
			f.params = (struct span){long_text, STORED_PARAMS_MAX_BYTES + 1};
			break;
		case 3:
			f.params = SPAN_LITERAL("[]");
			break;
		case 4:
			f.dims = 0;
			break;
		case 5:
			f.dims = 5;
			break;
		case 6:
			f.dims = VECTOR_MAX_DIMS + 1;
			break;
		case 7:
			f.vector.len--;
			break;
		case 8:
			f.vector.len = 0;
			break;
		case 9:
			f.source = VECTOR_TEXT;
			break;
		case 10:
			f.source = VECTOR_TEXT;
			f.vector = SPAN_LITERAL("[]");
			break;
		case 11:
			f.source = VECTOR_TEXT;
			f.vector = SPAN_LITERAL("[1,2");
			break;
		default:
			f.total_tokens = UINT64_MAX;
			break;
		}
		struct buf bytes = BUF_INIT(STORED_OBJECT_MAX_BYTES);
		assert_int_equal(stored_object_encode(&f, &bytes), -1);
		assert_false(buf_failed(&bytes));
		assert_int_equal(bytes.len, 0);
		buf_free(&bytes);
	}
	/* No room. */
	struct stored_fields f = sample();
	struct buf bytes = BUF_INIT(100);
	assert_int_equal(stored_object_encode(&f, &bytes), -1);
	assert_true(buf_failed(&bytes));
	buf_free(&bytes);
}

static void an_object_cut_anywhere_is_corrupt(void **state)
{
	(void)state;
	struct stored_fields fields = sample();
	struct buf bytes = BUF_INIT(10000);
	struct stored_object object;
	assert_int_equal(stored_object_encode(&fields, &bytes), 0);
	for (size_t cut = 0; cut < bytes.len; cut++) {
		struct span part = {(char *)bytes.data, cut};
		assert_int_equal(decode(part, &fields.key, &object), STORED_CORRUPT);
		assert_non_null(object.reason);
		assert_null(object.memory);
	}
	/* And so is one with something behind it. */
	buf_append_char(&bytes, 'x');
	assert_int_equal(decode(span_of_buf(&bytes), &fields.key, &object), STORED_CORRUPT);
	buf_free(&bytes);
}

static void a_changed_bit_never_gives_another_object(void **state)
{
	(void)state;
	struct stored_fields fields = sample();
	struct buf bytes = BUF_INIT(10000);
	unsigned corrupt = 0, harmless = 0;
	assert_int_equal(stored_object_encode(&fields, &bytes), 0);
	for (size_t bit = 0; bit < bytes.len * 8; bit++) {
		struct stored_object object;
		bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		switch (decode(span_of_buf(&bytes), &fields.key, &object)) {
		case STORED_CORRUPT:
			corrupt++;
			break;
		case STORED_OK:
			/* Fields of gzip that nobody reads, bits that fill a byte, codes not used.
			 */
			harmless++;
			assert_same(&object.fields, &fields);
			break;
		case STORED_LEGACY:
			/* The id of the subfield: the answer itself is whole. */
			assert_in_range(bit, 96, 111);
			assert_non_null(memmem(
				object.json.data, object.json.len, BASE64_4, strlen(BASE64_4)));
			break;
		case STORED_UNKNOWN:
			/* The version. */
			assert_in_range(bit, 128, 135);
			break;
		default:
			fail_msg("bit %zu", bit);
		}
		stored_object_free(&object);
		bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_in_range(harmless, 1, 60);
	assert_true(corrupt > bytes.len * 8 - 100);
	buf_free(&bytes);
}

static void another_objects_bytes_are_corrupt(void **state)
{
	(void)state;
	struct stored_fields fields = sample();
	struct buf bytes = BUF_INIT(10000);
	struct stored_object object;
	struct digest other = fields.key;
	other.bytes[31] ^= 1;
	assert_int_equal(stored_object_encode(&fields, &bytes), 0);
	assert_int_equal(decode(span_of_buf(&bytes), &other, &object), STORED_CORRUPT);
	assert_string_equal(object.reason, "another object's key");
	buf_free(&bytes);
}

/* A gzip member around this content with this FEXTRA. */
static enum stored_result decode_content(
	struct span json, struct span extra, const struct digest *key, struct stored_object *object)
{
	struct buf bytes = BUF_INIT(64 << 20);
	assert_int_equal(gzip_compress(json, extra, 1, &bytes), 0);
	enum stored_result result = decode(span_of_buf(&bytes), key, object);
	buf_free(&bytes);
	return result;
}

/* The FEXTRA of an object with these fields; the caller frees. */
static struct buf extra_of(const struct stored_fields *fields)
{
	struct buf bytes = BUF_INIT(1 << 20), json = BUF_INIT(1 << 20), copy = BUF_INIT(65535);
	struct span extra;
	assert_int_equal(stored_object_encode(fields, &bytes), 0);
	assert_int_equal(gzip_decompress(span_of_buf(&bytes), &json, &extra), GZIP_OK);
	buf_append(&copy, extra.data, extra.len);
	buf_free(&bytes);
	buf_free(&json);
	return copy;
}

#define EMBEDDING(v) "{\"object\":\"embedding\",\"index\":0,\"embedding\":" v "}"
#define USAGE        "\"usage\":{\"prompt_tokens\":3,\"total_tokens\":5}"
#define ANSWER(data) "{\"object\":\"list\",\"data\":[" data "],\"model\":\"m\"," USAGE "}"

static void the_shape_of_the_answer_is_checked(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		bool text, good;
	} rows[] = {
		{ANSWER(EMBEDDING("\"" BASE64_4 "\"")), false, true},
		{" {\"model\":\"m\" ," USAGE ",\"more\":[1], \"data\" : [ " EMBEDDING(
			 "\"" BASE64_4 "\"") " ] ,\"object\":\"list\"}\n",
			false, true},
		{ANSWER(EMBEDDING("[1,2,3,4]")), true, true},
		{ANSWER(EMBEDDING("[1,2,3,4]")), false, false},
		{ANSWER(EMBEDDING("\"" BASE64_4 "\"")), true, false},
		{ANSWER(EMBEDDING("\"AAAAAAAAgD8AAADAAAAAPw==\\u0041\"")), false, false},
		{ANSWER(EMBEDDING("\"\\u0041AAAAAAAgD8AAADAAAAAPw==\"")), false, false},
		{ANSWER(EMBEDDING("\"AAAAAAAAgD8AAADA\"")), false, false},         /* 3 numbers */
		{ANSWER(EMBEDDING("\"AAAAAAAAgD8AAADAAACAfw==\"")), false, false}, /* infinity */
		{ANSWER(EMBEDDING("\"AAAAAAAAgD8AAADAAADAfw==\"")), false, false}, /* NaN */
		{ANSWER(EMBEDDING("\"AAAAAAAAgD8AAADAAAAAPx==\"")), false, false},
		{ANSWER(EMBEDDING("[1,2,3]")), true, false},
		{ANSWER(EMBEDDING("[1,2,3,\"4\"]")), true, false},
		{ANSWER(EMBEDDING("[1,2,3,1e39]")), true, false},
		{ANSWER(EMBEDDING("[]")), true, false},
		{ANSWER(EMBEDDING("null")), true, false},
		{ANSWER(EMBEDDING("4")), false, false},
		{ANSWER(EMBEDDING("\"" BASE64_4 "\"") "," EMBEDDING("\"" BASE64_4 "\"")), false,
			false},
		{ANSWER(""), false, false},
		{ANSWER("[]"), false, false},
		{ANSWER("7"), false, false},
		{ANSWER("{\"object\":\"embedding\",\"index\":1,\"embedding\":\"" BASE64_4 "\"}"),
			false, false},
		{ANSWER("{\"object\":\"other\",\"index\":0,\"embedding\":\"" BASE64_4 "\"}"), false,
			false},
		{ANSWER("{\"object\":\"embedding\",\"index\":0}"), false, false},
		{"{\"object\":\"list\",\"data\":{},\"model\":\"m\"," USAGE "}", false, false},
		{"{\"object\":\"list\",\"model\":\"m\"," USAGE "}", false, false},
		{"{\"data\":[" EMBEDDING("\"" BASE64_4 "\"") "],\"model\":\"m\"," USAGE "}", false,
			false},
		{"{\"object\":\"list\",\"data\":[" EMBEDDING("\"" BASE64_4 "\"") "]," USAGE "}",
			false, false},
		{"{\"object\":\"list\",\"data\":[" EMBEDDING(
			 "\"" BASE64_4 "\"") "],\"model\":7," USAGE "}",
			false, false},
		{"{\"object\":\"list\",\"data\":[" EMBEDDING(
			 "\"" BASE64_4 "\"") "],\"model\":\"m\"}",
			false, false},
		{"{\"object\":\"list\",\"data\":[" EMBEDDING(
			 "\"" BASE64_4 "\"") "],\"model\":\"m\",\"usage\":{\"prompt_tokens\":-1,"
					     "\"total_tokens\":5}}",
			false, false},
		{"{\"object\":\"list\",\"data\":[" EMBEDDING(
			 "\"" BASE64_4 "\"") "],\"model\":\"m\",\"usage\":{\"prompt_tokens\":1.5,"
					     "\"total_tokens\":5}}",
			false, false},
		{"{\"object\":\"list\",\"data\":[" EMBEDDING(
			 "\"" BASE64_4 "\"") "],\"model\":\"m\",\"usage\":[]}",
			false, false},
		{"[]", false, false},
		{"7", false, false},
		{"", false, false},
		{"{", false, false},
		{"not JSON", false, false},
		{ANSWER(EMBEDDING("\"" BASE64_4 "\"")) "x", false, false},
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct stored_fields fields = sample();
		struct stored_object object;
		if (rows[i].text) {
			fields.source = VECTOR_TEXT;
			fields.vector = SPAN_LITERAL("[1,2,3,4]");
		}
		struct buf extra = extra_of(&fields);
		enum stored_result result = decode_content(
			span_of(rows[i].json), span_of_buf(&extra), &fields.key, &object);
		if (result != (rows[i].good ? STORED_OK : STORED_CORRUPT))
			fail_msg("%s: %d", rows[i].json, result);
		assert_int_equal(object.reason == NULL, rows[i].good);
		stored_object_free(&object);
		buf_free(&extra);
	}
}

static void a_name_that_is_too_long_is_corrupt(void **state)
{
	(void)state;
	struct stored_fields fields = sample();
	struct buf extra = extra_of(&fields);
	for (int escaped = 0; escaped < 2; escaped++) {
		struct buf json = BUF_INIT(1 << 20);
		struct stored_object object;
		buf_append_str(&json, "{\"object\":\"list\",\"data\":[" EMBEDDING(
					      "\"" BASE64_4 "\"") "]," USAGE ",\"model\":\"");
		for (int i = 0; i < STORED_MODEL_MAX_BYTES + 1; i++)
			buf_append_str(&json, escaped ? "\\n" : "m");
		buf_append_str(&json, "\"}");
		assert_int_equal(decode_content(span_of_buf(&json), span_of_buf(&extra),
					 &fields.key, &object),
			STORED_CORRUPT);
		assert_string_equal(object.reason, "model too long");
		buf_free(&json);
	}
	buf_free(&extra);
}

static void legacy_objects_are_told_apart(void **state)
{
	(void)state;
	static const char answer[] = ANSWER(EMBEDDING("[1,2]") "," EMBEDDING("[3,4]"));
	struct digest key = digest_of(SPAN_LITERAL("a body"));
	struct stored_object object;
	/* Without a field, with others' subfields, and not even packed. */
	static const struct span extras[] = {{"", 0}, {"Ap\3\0abc", 7}, {"XY\0\0eg\1\0z", 9}};
	for (int i = 0; i < 3; i++) {
		assert_int_equal(decode_content(SPAN_LITERAL(answer), extras[i], &key, &object),
			STORED_LEGACY);
		assert_span(object.json, SPAN_LITERAL(answer));
		assert_non_null(object.reason);
		stored_object_free(&object);
	}
	assert_int_equal(decode(SPAN_LITERAL(answer), &key, &object), STORED_LEGACY);
	assert_span(object.json, SPAN_LITERAL(answer));
	stored_object_free(&object);

	static const char *const bad[] = {"{}", "{\"data\":7}", "{\"data\":[}", "[]", "", "{\"a\""};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(decode_content(span_of(bad[i]), (struct span){0}, &key, &object),
			STORED_CORRUPT);
		assert_int_equal(decode(span_of(bad[i]), &key, &object), STORED_CORRUPT);
	}
	for (size_t cut = 0; cut < sizeof answer - 1; cut++)
		assert_int_equal(decode((struct span){answer, cut}, &key, &object), STORED_CORRUPT);
}

static void our_subfield_may_stand_among_others(void **state)
{
	(void)state;
	struct stored_fields fields = sample();
	struct buf ours = extra_of(&fields), all = BUF_INIT(65535);
	struct stored_object object;
	buf_append(&all, "Ap\3\0abc", 7);
	buf_append(&all, ours.data, ours.len);
	buf_append(&all, "ZZ\0\0", 4);
	struct span json = SPAN_LITERAL(ANSWER(EMBEDDING("\"" BASE64_4 "\"")));
	assert_int_equal(decode_content(json, span_of_buf(&all), &fields.key, &object), STORED_OK);
	assert_span(object.fields.params, fields.params);
	stored_object_free(&object);
	/* A list that does not end where the field ends. */
	for (size_t cut = 1; cut < all.len; cut++) {
		struct span part = {(char *)all.data, cut};
		enum stored_result result = decode_content(json, part, &fields.key, &object);
		bool ends = cut == 7 || cut == 7 + ours.len;
		assert_int_equal(result, !ends      ? STORED_CORRUPT
					 : cut == 7 ? STORED_LEGACY
						    : STORED_OK);
		stored_object_free(&object);
	}
	buf_free(&ours);
	buf_free(&all);
}

static void metadata_with_a_right_sum_is_checked_too(void **state)
{
	(void)state;
	struct span json = SPAN_LITERAL(ANSWER(EMBEDDING("\"" BASE64_4 "\"")));
	struct stored_object object;
	/* Empty, too short, a version to come. */
	assert_int_equal(
		decode_content(json, SPAN_LITERAL("EG\0\0"), NULL, &object), STORED_CORRUPT);
	assert_int_equal(
		decode_content(json, SPAN_LITERAL("EG\1\0\0"), NULL, &object), STORED_CORRUPT);
	assert_int_equal(
		decode_content(json, SPAN_LITERAL("EG\1\0\1"), NULL, &object), STORED_CORRUPT);
	assert_int_equal(
		decode_content(json, SPAN_LITERAL("EG\3\0\2ab"), NULL, &object), STORED_UNKNOWN);
	assert_null(object.memory);
	/* Other dimensions than the vector has: they are in the metadata's sum. */
	struct stored_fields fields = sample();
	fields.dims = 3;
	fields.vector = SPAN_LITERAL("AAAAAAAAgD8AAADA");
	struct buf extra = extra_of(&fields);
	assert_int_equal(
		decode_content(json, span_of_buf(&extra), &fields.key, &object), STORED_CORRUPT);
	assert_non_null(strstr(object.reason, "dimensions"));
	buf_free(&extra);
}

static void what_is_too_large_is_left_alone(void **state)
{
	(void)state;
	struct digest key = digest_of(SPAN_LITERAL("bomb"));
	struct stored_object object;
	char *zeros = calloc(1, STORED_OBJECT_MAX_BYTES + 1);
	struct span content = {zeros, STORED_OBJECT_MAX_BYTES + 1};
	assert_int_equal(
		decode_content(content, (struct span){0}, &key, &object), STORED_TOO_LARGE);
	assert_int_equal(stored_object_decode(content, &key, &object), STORED_TOO_LARGE);
	content.len--;
	assert_int_equal(decode_content(content, (struct span){0}, &key, &object), STORED_CORRUPT);
	free(zeros);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_stored_comes_back),
		cmocka_unit_test(the_content_is_a_providers_answer),
		cmocka_unit_test(fields_out_of_bounds_are_refused),
		cmocka_unit_test(an_object_cut_anywhere_is_corrupt),
		cmocka_unit_test(a_changed_bit_never_gives_another_object),
		cmocka_unit_test(another_objects_bytes_are_corrupt),
		cmocka_unit_test(the_shape_of_the_answer_is_checked),
		cmocka_unit_test(a_name_that_is_too_long_is_corrupt),
		cmocka_unit_test(legacy_objects_are_told_apart),
		cmocka_unit_test(our_subfield_may_stand_among_others),
		cmocka_unit_test(metadata_with_a_right_sum_is_checked_too),
		cmocka_unit_test(what_is_too_large_is_left_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
