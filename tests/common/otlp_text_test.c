#include "common/otlp_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* "name=value;" of each pair, "!" for one that is none. */
static const char *walk(const char *list)
{
	static char text[512];
	struct buf value = BUF_INIT(64);
	struct span name;
	const char *at = list;
	size_t n = 0;
	int more;
	text[0] = '\0';
	while ((more = otlp_list_next(&at, &name, &value)) != 0) {
		if (more > 0)
			n += (size_t)snprintf(text + n, sizeof text - n, "%.*s=%s;", SPAN_ARG(name),
				(char *)value.data);
		else
			n += (size_t)snprintf(text + n, sizeof text - n, "!");
	}
	buf_free(&value);
	return text;
}

static void test_lists(void **state)
{
	(void)state;
	assert_string_equal(walk(""), "");
	assert_string_equal(walk(" , ,,"), "");
	assert_string_equal(walk("a=b"), "a=b;");
	assert_string_equal(walk(" a = b , c=d=e,f="), "a=b;c=d=e;f=;");
	assert_string_equal(walk("a=%41%2c%2Cx,b=100%,c=%zz,d=%4"), "a=A,,x;b=100%;c=%zz;d=%4;");
	assert_string_equal(walk("novalue,=v,a=b"), "!!a=b;");
	/* What would end a header's line, or the text. */
	assert_string_equal(walk("a=x%0d%0aEvil: 1,b=%00,c=d"), "!!c=d;");
	assert_string_equal(
		walk("a=1234567890123456789012345678901234567890123456789012345678901234567"), "!");
	assert_true(otlp_list_valid("a=b,c=d"));
	assert_false(otlp_list_valid("a=b,c"));
}

static void test_resource(void **state)
{
	(void)state;
	struct buf out = BUF_INIT(4096);
	struct otlp_resource resource = {
		.service_name = "",
		.attributes = "x=\"q\",x=last,process.pid=7,service.name=theirs",
		.daemon = "hashd",
		.instance_id = "id",
		.version = "v",
		.pid = 42,
	};
#define ATTRIBUTE(key, value) "{\"key\":\"" key "\",\"value\":{\"stringValue\":\"" value "\"}}"
	otlp_append_resource(&out, &resource);
	buf_append_char(&out, '\0');
	assert_string_equal((char *)out.data,
		"{\"attributes\":[" ATTRIBUTE("service.instance.id", "id") "," ATTRIBUTE(
			"service.version", "v") "," ATTRIBUTE("telemetry.sdk.name",
			"embedding-gateway") "," ATTRIBUTE("x",
			"last") "," ATTRIBUTE("service.name",
			"theirs") ",{\"key\":\"process.pid\",\"value\":{\"intValue\":\"42\"}}]}");
	buf_clear(&out);
	resource.service_name = "ours";
	otlp_append_resource(&out, &resource);
	buf_append_char(&out, '\0');
	assert_non_null(strstr((char *)out.data, ATTRIBUTE("service.name", "ours")));
	assert_null(strstr((char *)out.data, "theirs"));
	buf_free(&out);
}

static uint64_t rejected(const char *body, char words[64])
{
	struct buf message = BUF_INIT(63);
	uint64_t n = otlp_parse_rejected(span_of(body), &message);
	memcpy(words, message.data ? message.data : (uint8_t *)"", message.len);
	words[message.len] = '\0';
	buf_free(&message);
	return n;
}

static void test_answers(void **state)
{
	(void)state;
	char words[64];
	assert_int_equal(rejected("{\"partialSuccess\":{\"rejectedSpans\":\"12\","
				  "\"errorMessage\":\"too \\u00e9ld\"}}",
				 words),
		12);
	assert_string_equal(words, "too éld");
	assert_int_equal(rejected("{\"partialSuccess\":{\"rejectedSpans\":3}}", words), 3);
	assert_string_equal(words, "");
	static const char *const nothing[] = {"", "{}", "[]", "null", "{\"partialSuccess\":null}",
		"{\"partialSuccess\":{}}", "{\"partialSuccess\":{\"rejectedSpans\":-1}}",
		"{\"partialSuccess\":{\"rejectedSpans\":\"\"}}",
		"{\"partialSuccess\":{\"rejectedSpans\":\"-9\"}}",
		"{\"partialSuccess\":{\"rejectedSpans\":1e99}}",
		"{\"partialSuccess\":{\"rejectedSpans\":[1]}}",
		"{\"partialSuccess\":{\"rejectedSpans\":\"9", "<html>", "\xff"};
	for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++)
		assert_int_equal(rejected(nothing[i], words), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_lists),
		cmocka_unit_test(test_resource), cmocka_unit_test(test_answers)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
