#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hashd/headers.h"

static void request_fields(void **state)
{
	static const char *const dropped[] = {"Connection", "keep-alive", "TE", "Trailer",
		"Transfer-Encoding", "Upgrade", "Proxy-Connection", "Proxy-Authorization",
		"Proxy-Authenticate", "Host", "Content-Length", "Expect", "X-Body-Hash",
		"x-path-hash", "X-URL-HASH", "X-Original-Host", "traceparent"};
	static const char *const passed[] = {"Authorization", "Content-Type", "Accept-Encoding",
		"User-Agent", "x-forwarded-for", "tracestate", "Surrogate-Key", "x-body-hashes",
		"hosts", "t", "Cookie", "X-Purge-All", "keep-alivf", "x-path-hast"};

	(void)state;
	for (size_t i = 0; i < sizeof(dropped) / sizeof(*dropped); i++)
		if (headers_pass_request(span_of(dropped[i])))
			fail_msg("%s passed", dropped[i]);
	for (size_t i = 0; i < sizeof(passed) / sizeof(*passed); i++)
		if (!headers_pass_request(span_of(passed[i])))
			fail_msg("%s dropped", passed[i]);
	assert_true(headers_pass_request((struct span){"", 0}));
}

static void answer_fields(void **state)
{
	static const char *const dropped[] = {"Connection", "Keep-Alive", "Transfer-Encoding",
		"Upgrade", "Trailer", "TE", "Proxy-Authenticate", "Date", "Content-Length",
		"Surrogate-Key", "surrogate-control", "X-Body-Hash"};
	static const char *const passed[] = {"Content-Type", "Content-Encoding", "X-Cache", "Age",
		"X-Cache-Hits", "Retry-After", "Vary", "Allow", "x-embedding-provider"};

	(void)state;
	for (size_t i = 0; i < sizeof(dropped) / sizeof(*dropped); i++)
		if (headers_pass_answer(span_of(dropped[i])))
			fail_msg("%s passed", dropped[i]);
	for (size_t i = 0; i < sizeof(passed) / sizeof(*passed); i++)
		if (!headers_pass_answer(span_of(passed[i])))
			fail_msg("%s dropped", passed[i]);
}

static void connection_names(void **state)
{
	struct span value = SPAN_LITERAL("close, X-Secret ,\tx-other,,keep-alive");

	(void)state;
	assert_true(headers_connection_names(value, SPAN_LITERAL("x-secret")));
	assert_true(headers_connection_names(value, SPAN_LITERAL("X-OTHER")));
	assert_true(headers_connection_names(value, SPAN_LITERAL("close")));
	assert_true(headers_connection_names(value, SPAN_LITERAL("keep-alive")));
	assert_false(headers_connection_names(value, SPAN_LITERAL("x-sec")));
	assert_false(headers_connection_names(value, SPAN_LITERAL("x-secrets")));
	assert_false(headers_connection_names(value, SPAN_LITERAL("")));
	assert_false(headers_connection_names(SPAN_LITERAL(""), SPAN_LITERAL("x")));
	assert_false(headers_connection_names(SPAN_LITERAL(" , ,"), SPAN_LITERAL("x")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(request_fields),
		cmocka_unit_test(answer_fields),
		cmocka_unit_test(connection_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
