#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/http_parser.h"
#include "tests/common/http_transcript.h"

struct text_case {
	const char *input;
	const char *expect; /* how the transcript ends, or the whole of it */
};

#define GET     "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST    "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

/* One input in one piece, in two pieces cut at every place, and byte by byte: one result, returned
 * as a string to be freed. */
static char *result_of(enum http_kind kind, const char *data, size_t len)
{
	struct transcript whole;
	transcript_make(&whole, kind, data, len, len, len ? len : 1);
	for (size_t first = 0; first <= len; first++) {
		struct transcript cut;
		/* first 0: byte by byte. */
		transcript_make(&cut, kind, data, len, first ? first : 1, first ? len : 1);
		if (cut.text.len != whole.text.len ||
			memcmp(cut.text.data, whole.text.data, whole.text.len) != 0)
			fail_msg("cut at %zu: %.*s\nwhole: %.*s", first, (int)cut.text.len,
				(char *)cut.text.data, (int)whole.text.len,
				(char *)whole.text.data);
		transcript_free(&cut);
	}
	assert_int_equal(buf_append_char(&whole.text, '\0'), 0);
	char *text = buf_take(&whole.text, NULL);
	transcript_free(&whole);
	return text;
}

static void check(enum http_kind kind, const struct text_case *c)
{
	char *text = result_of(kind, c->input, strlen(c->input));
	if (strcmp(text, c->expect) != 0)
		fail_msg("input:\n%s\nresult:\n%s\nexpected:\n%s", c->input, text, c->expect);
	free(text);
}

static void requests_are_taken_apart(void **state)
{
	(void)state;
	static const struct text_case cases[] = {
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET / at a, 0 , HTTP/1.1 keep framing 0 length 0\nHost=a\nbody 0 \ncut in head\n"},
		{"POST /v1/embeddings?x=%20|{} HTTP/1.1\r\nHOST: Example.com:8080\r\nContent-Length: 5\r\n\r\n"
		 "hello",
			"POST /v1/embeddings?x=%20|{} at Example.com:8080, 0 , HTTP/1.1 keep framing 1 length 5\n"
			"HOST=Example.com:8080\nContent-Length=5\nbody 5 hello\ncut in head\n"},
		/* Space around values goes, tabs and bytes over 0x7f inside stay. */
		{"GET / HTTP/1.1\r\nHost:\t a \t\r\nA:\r\nB: \r\nC: x\t y\xc3\xa4\r\n\r\n",
			"GET / at a, 0 , HTTP/1.1 keep framing 0 length 0\nHost=a\nA=\nB=\nC=x\t y\xc3\xa4\n"
			"body 0 \ncut in head\n"},
		{"GET / HTTP/1.0\r\n\r\n",
			"GET / at , 0 , HTTP/1.0 framing 0 length 0\nbody 0 \ncut in head\n"},
		{"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
			"GET / at , 0 , HTTP/1.0 keep framing 0 length 0\nConnection=Keep-Alive\nbody 0 \n"
			"cut in head\n"},
		{GET "Connection: x, CLOSE ,keep-alive\r\n\r\n",
			"GET / at a, 0 , HTTP/1.1 framing 0 length 0\nHost=a\n"
			"Connection=x, CLOSE ,keep-alive\nbody 0 \ncut in head\n"},
		{GET "Connection: closed, xclose\r\n\r\n",
			"GET / at a, 0 , HTTP/1.1 keep framing 0 length 0\nHost=a\n"
			"Connection=closed, xclose\nbody 0 \ncut in head\n"},
		/* An absolute URL rules over Host. */
		{"GET http://b:81/p?q HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /p?q at b:81, 0 , HTTP/1.1 keep framing 0 length 0\nHost=a\nbody 0 \ncut in head\n"},
		{"GET HTTPS://[::1] HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET  at [::1], 0 , HTTP/1.1 keep framing 0 length 0\nHost=a\nbody 0 \ncut in head\n"},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
			"OPTIONS * at a, 0 , HTTP/1.1 keep framing 0 length 0\nHost=a\nbody 0 \ncut in head\n"},
		{POST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
			"POST / at a, 0 , HTTP/1.1 keep expect framing 1 length 1\nHost=a\n"
			"Expect=100-Continue\nContent-Length=1\nbody 1 x\ncut in head\n"},
		/* HTTP/1.0 knows no expectations. */
		{"POST / HTTP/1.0\r\nExpect: tea\r\n\r\n",
			"POST / at , 0 , HTTP/1.0 framing 0 length 0\nExpect=tea\nbody 0 \ncut in head\n"},
		/* One empty line may come before a request. */
		{"\r\n" GET "\r\n\r\n" GET "\r\n",
			"GET / at a, 0 , HTTP/1.1 keep framing 0 length 0\nHost=a\nbody 0 \n"
			"GET / at a, 0 , HTTP/1.1 keep framing 0 length 0\nHost=a\nbody 0 \ncut in head\n"},
		{POST "Content-Length: 0003\r\n\r\nabcGET",
			"POST / at a, 0 , HTTP/1.1 keep framing 1 length 3\nHost=a\nContent-Length=0003\n"
			"body 3 abc\ncut in head\n"},
		{POST "Content-Length: 4\r\n\r\nabc",
			"POST / at a, 0 , HTTP/1.1 keep framing 1 length 4\nHost=a\nContent-Length=4\n"
			"cut in body after 3 abc may close 0\n"},
		{"", "cut in head\n"},
		{"G", "cut in head\n"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check(HTTP_REQUEST, &cases[i]);
}

static const struct text_case bad_requests[] = {
	{"\x16\x03\x01", "400 The request line has no valid method.\n"},
	{"\r\n\r\n", "400 The request line has no valid method.\n"},
	{"\n", "400 The request line has no valid method.\n"},
	{" GET / HTTP/1.1\r\n", "400 The request line has no valid method.\n"},
	{"GET\r\n", "400 The request line has no valid method.\n"},
	{"G(T / HTTP/1.1\r\n", "400 The request line has no valid method.\n"},
	{"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n", "400 The method is too long.\n"},
	{"GET /\r\n", "400 The request line has no HTTP version.\n"},
	{"GET  / HTTP/1.1\r\n", "400 The request target is empty.\n"},
	{"GET / HTTP/1.1 \r\n", "400 The HTTP version is malformed.\n"},
	{"GET /  HTTP/1.1\r\n", "400 The HTTP version is malformed.\n"},
	{"GET / http/1.1\r\n", "400 The HTTP version is malformed.\n"},
	{"GET / HTTP/1.10\r\n", "400 The HTTP version is malformed.\n"},
	{"GET / HTTP/1.2\r\n", "505 Only HTTP/1.0 and HTTP/1.1 are supported.\n"},
	{"GET / HTTP/0.9\r\n", "505 Only HTTP/1.0 and HTTP/1.1 are supported.\n"},
	{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"400 The request target is neither a path nor an http URL.\n"},
	{"GET / HTTP/1.1\n", "400 A line ends without a carriage return.\n"},
	{"GET /\r/ HTTP/1.1\r\n",
		"400 The request target contains a character that is not allowed.\n"},
	{"GET /#a HTTP/1.1\r\n",
		"400 The request target contains a character that is not allowed.\n"},
	{"GET /\xc3\xa4 HTTP/1.1\r\n",
		"400 The request target contains a character that is not allowed.\n"},
	{"GET * HTTP/1.1\r\n", "400 The request target is neither a path nor an http URL.\n"},
	{"GET a HTTP/1.1\r\n", "400 The request target is neither a path nor an http URL.\n"},
	{"GET ftp://a/ HTTP/1.1\r\n",
		"400 The request target is neither a path nor an http URL.\n"},
	{"GET http:///x HTTP/1.1\r\n", "400 The request target has an invalid host.\n"},
	{"GET http://u@h/ HTTP/1.1\r\n", "400 The request target has an invalid host.\n"},
	{"GET http://?x HTTP/1.1\r\n", "400 The request target has an invalid host.\n"},
	{"CONNECT a:443 HTTP/1.1\r\n", "501 The CONNECT method is not supported.\n"},
	{"GET / HTTP/1.1\r\n\r\n", "400 Host is missing.\n"},
	{GET "Host: a\r\n\r\n", "400 Host is given twice.\n"},
	{GET "Authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n",
		"400 Authorization is given twice.\n"},
	{GET "Authorization:\r\nAuthorization: Bearer b\r\n\r\n",
		"400 Authorization is given twice.\n"},
	{GET "Content-Type: application/json\r\nCONTENT-TYPE: text/plain\r\n\r\n",
		"400 Content-Type is given twice.\n"},
	{"GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", "400 Host is given twice.\n"},
	{"GET / HTTP/1.1\r\nHost:\r\n\r\n", "400 Host is invalid.\n"},
	{"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400 Host is invalid.\n"},
	{"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", "400 Host is invalid.\n"},
	{"GET / HTTP/1.1\r\nHost: a/\r\n\r\n", "400 Host is invalid.\n"},
	{"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "400 Host is invalid.\n"},
	{"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", "400 Host is invalid.\n"},
	{"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", "400 Host is invalid.\n"},
	{"GET / HTTP/1.1\r\nHost: a:000080\r\n\r\n", "400 Host is invalid.\n"},
	{"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "400 Host is invalid.\n"},
	{"GET / HTTP/1.1\r\nHost: [a]\r\n\r\n", "400 Host is invalid.\n"},
	{"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", "400 Host is invalid.\n"},
	{"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400 A header line begins with white space.\n"},
	{GET "A: b\r\n c\r\n\r\n", "400 A header line begins with white space.\n"},
	{GET "A: b\r\n\tc\r\n\r\n", "400 A header line begins with white space.\n"},
	{GET "A: b\n\r\n", "400 A line ends without a carriage return.\n"},
	{GET "\n", "400 A line ends without a carriage return.\n"},
	{GET "A: b\rc\r\n\r\n", "400 A header value contains a control character.\n"},
	{GET "A: b\r\r\n\r\n", "400 A header value contains a control character.\n"},
	{GET "A: 12345678\x01\r\n\r\n", "400 A header value contains a control character.\n"},
	{GET "A: \x7f\r\n\r\n", "400 A header value contains a control character.\n"},
	{GET "A : b\r\n\r\n", "400 A header name is followed by white space.\n"},
	{GET "A\t: b\r\n\r\n", "400 A header name is followed by white space.\n"},
	{GET ": b\r\n\r\n", "400 A header name contains a character that is not allowed.\n"},
	{GET "A(: b\r\n\r\n", "400 A header name contains a character that is not allowed.\n"},
	{GET "\xc3\xa4: b\r\n\r\n",
		"400 A header name contains a character that is not allowed.\n"},
	{GET "A\r\n\r\n", "400 A header line has no colon.\n"},
	{POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
		"400 Content-Length is given twice.\n"},
	{POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
		"400 Content-Length is given twice.\n"},
	{POST "Content-Length: 5, 5\r\n\r\n", "400 Content-Length is not a number.\n"},
	{POST "Content-Length: +5\r\n\r\n", "400 Content-Length is not a number.\n"},
	{POST "Content-Length: -5\r\n\r\n", "400 Content-Length is not a number.\n"},
	{POST "Content-Length: 0x5\r\n\r\n", "400 Content-Length is not a number.\n"},
	{POST "Content-Length: 5 \x0b\r\n\r\n",
		"400 A header value contains a control character.\n"},
	{POST "Content-Length:\r\n\r\n", "400 Content-Length is empty.\n"},
	{POST "Content-Length: 18446744073709551616\r\n\r\n",
		"400 Content-Length is out of range.\n"},
	{POST "Content-Length: 9223372036854775808\r\n\r\n",
		"400 Content-Length is out of range.\n"},
	{POST "Content-Length: 9223372036854775807\r\n\r\n", "413 The body is too large.\n"},
	{POST "Content-Length: 4097\r\n\r\n", "413 The body is too large.\n"},
	{POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		"400 Content-Length and Transfer-Encoding are both given.\n"},
	{POST "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
		"400 Content-Length and Transfer-Encoding are both given.\n"},
	{POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
		"400 Transfer-Encoding is given twice.\n"},
	{POST "Transfer-Encoding: gzip, chunked\r\n\r\n",
		"501 Only the chunked transfer coding is supported.\n"},
	{POST "Transfer-Encoding: chunked, chunked\r\n\r\n",
		"501 Only the chunked transfer coding is supported.\n"},
	{POST "Transfer-Encoding: xchunked\r\n\r\n",
		"501 Only the chunked transfer coding is supported.\n"},
	{POST "Transfer-Encoding:\r\n\r\n", "501 Only the chunked transfer coding is supported.\n"},
	{"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
		"400 Transfer-Encoding is not part of HTTP/1.0.\n"},
	{GET "Expect: tea\r\n\r\n", "417 The only expectation supported is 100-continue.\n"},
	{GET "Expect:\r\n\r\n", "417 The only expectation supported is 100-continue.\n"},
};

static void bad_requests_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bad_requests / sizeof bad_requests[0]; i++)
		check(HTTP_REQUEST, &bad_requests[i]);
}

static void a_nul_is_refused_everywhere(void **state)
{
	(void)state;
	static const char request[] = "POST /abc HTTP/1.1\r\nHost: abc\r\nX: abcdefgh\r\n"
				      "Transfer-Encoding: chunked\r\n\r\n1;a\r\n";
	for (size_t i = 0; i + 1 < sizeof request; i++) {
		char copy[sizeof request];
		memcpy(copy, request, sizeof request);
		copy[i] = '\0';
		char *text = result_of(HTTP_REQUEST, copy, sizeof request - 1);
		if (!strstr(text, "400 "))
			fail_msg("NUL at %zu: %s", i, text);
		free(text);
	}
}

#define CHUNKED_HEAD                                                  \
	"POST / at a, 0 , HTTP/1.1 keep framing 2 length 0\nHost=a\n" \
	"Transfer-Encoding=chunked\n"

static void chunked_bodies_are_decoded(void **state)
{
	(void)state;
	static const struct text_case cases[] = {
		{CHUNKED "5\r\nhello\r\n6;a=\"b c\";d\r\n world\r\n0\r\n\r\n" GET "\r\n",
			CHUNKED_HEAD "body 11 hello world\n"
				     "GET / at a, 0 , HTTP/1.1 keep framing 0 length 0\nHost=a\n"
				     "body 0 \ncut in head\n"},
		{CHUNKED "00000000000000aA\r\n"
			 "0123456789012345678901234567890123456789012345678901234567890123456789"
			 "0123456789012345678901234567890123456789012345678901234567890123456789"
			 "012345678901234567890123456789\r\n0\r\nA: b\r\nC:\r\n\r\n",
			CHUNKED_HEAD
			"body 170 "
			"0123456789012345678901234567890123456789012345678901234567890123456789"
			"0123456789012345678901234567890123456789012345678901234567890123456789"
			"012345678901234567890123456789\ncut in head\n"},
		{CHUNKED "0\r\n\r\n", CHUNKED_HEAD "body 0 \ncut in head\n"},
		{CHUNKED "1\r\nx", CHUNKED_HEAD "cut in body after 1 x may close 0\n"},
		{CHUNKED "\r\n", CHUNKED_HEAD "body 0 \n400 A chunk size is malformed.\n"},
		{CHUNKED "x\r\n", CHUNKED_HEAD "body 0 \n400 A chunk size is malformed.\n"},
		{CHUNKED "-1\r\n", CHUNKED_HEAD "body 0 \n400 A chunk size is malformed.\n"},
		{CHUNKED "0x1\r\n", CHUNKED_HEAD "body 0 \n400 A chunk size is malformed.\n"},
		{CHUNKED " 1\r\n", CHUNKED_HEAD "body 0 \n400 A chunk size is malformed.\n"},
		{CHUNKED "1 \r\n", CHUNKED_HEAD "body 0 \n400 A chunk size is malformed.\n"},
		{CHUNKED "1\nx", CHUNKED_HEAD "body 0 \n400 A chunk size is malformed.\n"},
		{CHUNKED ";a\r\n", CHUNKED_HEAD "body 0 \n400 A chunk size is malformed.\n"},
		{CHUNKED "1\rx", CHUNKED_HEAD
			"body 0 \n400 A carriage return is not followed by a line feed.\n"},
		{CHUNKED "1;a\nx", CHUNKED_HEAD
			"body 0 \n400 A chunk extension contains a control character.\n"},
		{CHUNKED "1\r\nxy\r\n",
			CHUNKED_HEAD "body 1 x\n400 A chunk is longer than its size.\n"},
		{CHUNKED "1\r\nx\n0\r\n\r\n",
			CHUNKED_HEAD "body 1 x\n400 A chunk is longer than its size.\n"},
		{CHUNKED "1\r\nx\r0", CHUNKED_HEAD
			"body 1 x\n400 A carriage return is not followed by a line feed.\n"},
		{CHUNKED "00000000000000001\r\nx",
			CHUNKED_HEAD "body 0 \n400 A chunk size is out of range.\n"},
		{CHUNKED "ffffffffffffffff\r\nx",
			CHUNKED_HEAD "body 0 \n413 The body is too large.\n"},
		{CHUNKED "1001\r\nx", CHUNKED_HEAD "body 0 \n413 The body is too large.\n"},
		{CHUNKED "1\r\nx\r\n1000\r\nx",
			CHUNKED_HEAD "body 1 x\n413 The body is too large.\n"},
		{CHUNKED "0\r\n x: y\r\n\r\n",
			CHUNKED_HEAD "body 0 \n400 A trailer field has no valid name.\n"},
		{CHUNKED "0\r\nx: y\r\n z\r\n\r\n",
			CHUNKED_HEAD "body 0 \n400 A trailer field has no valid name.\n"},
		{CHUNKED "0\r\nx : y\r\n\r\n",
			CHUNKED_HEAD "body 0 \n400 A trailer field has no valid name.\n"},
		{CHUNKED "0\r\nx: y\n\r\n", CHUNKED_HEAD
			"body 0 \n400 A trailer field contains a control character.\n"},
		{CHUNKED "0\r\n\rx", CHUNKED_HEAD
			"body 0 \n400 A carriage return is not followed by a line feed.\n"},
		{CHUNKED "0\r\nx: y\rz", CHUNKED_HEAD
			"body 0 \n400 A carriage return is not followed by a line feed.\n"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check(HTTP_REQUEST, &cases[i]);
}

static void responses_are_taken_apart(void **state)
{
	(void)state;
	static const struct text_case cases[] = {
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
			"  at , 200 OK, HTTP/1.1 keep framing 1 length 2\nContent-Length=2\nbody 2 hi\n"
			"cut in head\n"},
		{"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
			"  at , 200 , HTTP/1.1 keep framing 1 length 0\nContent-Length=0\nbody 0 \n"
			"cut in head\n"},
		{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\nContent-Length: 9\r\n\r\n",
			"  at , 100 Continue, HTTP/1.1 keep framing 0 length 0\nbody 0 \n"
			"  at , 204 , HTTP/1.1 keep framing 0 length 9\nContent-Length=9\nbody 0 \n"
			"cut in head\n"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
			"  at , 200 OK, HTTP/1.1 keep framing 2 length 0\nTransfer-Encoding=chunked\n"
			"body 1 x\ncut in head\n"},
		{"HTTP/1.0 200 OK\r\n\r\nto the end",
			"  at , 200 OK, HTTP/1.0 framing 3 length 0\n"
			"cut in body after 10 to the end may close 1\n"},
		{"HTTP/1.1 20 OK\r\n", "502 The status code is malformed.\n"},
		{"HTTP/1.1 600 OK\r\n", "502 The status code is malformed.\n"},
		{"HTTP/1.1 2000 OK\r\n", "502 The status code is malformed.\n"},
		{"HTTP/1.1  200 OK\r\n", "502 The status code is malformed.\n"},
		{"HTTP/1.1\r\n", "502 The status code is malformed.\n"},
		{"HTTP/2.0 200 OK\r\n", "502 Only HTTP/1.0 and HTTP/1.1 are supported.\n"},
		{"http/1.1 200 OK\r\n", "502 The HTTP version is malformed.\n"},
		{"\r\n", "502 The HTTP version is malformed.\n"},
		{"HTTP/1.1 200 O\x01K\r\n", "502 The status line contains a control character.\n"},
		{"HTTP/1.1 200 OK\nA: b\r\n", "502 A line ends without a carriage return.\n"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
			"502 Content-Length and Transfer-Encoding are both given.\n"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 4097\r\n\r\n", "502 The body is too large.\n"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
			"502 Only the chunked transfer coding is supported.\n"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check(HTTP_RESPONSE, &cases[i]);
}

static void an_answer_to_head_has_no_body(void **state)
{
	(void)state;
	static const char data[] = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
	struct http_head head;
	struct http_field fields[2];
	struct http_body body;
	http_head_init(&head, HTTP_RESPONSE, &transcript_limits, fields, 2);
	http_head_is_to_head(&head);
	assert_int_equal(http_head_parse(&head, data, sizeof data - 1), HTTP_DONE);
	assert_int_equal(head.content_length, 5000);
	http_body_init(&body, &head);
	const char *at = data;
	struct span piece;
	assert_int_equal(http_body_parse(&body, &at, data, &piece), HTTP_BODY_END);
}

static void an_endless_body_stops_at_its_limit(void **state)
{
	(void)state;
	char data[8192] = "HTTP/1.1 200 OK\r\n\r\n";
	size_t head_len = strlen(data);
	memset(data + head_len, 'x', sizeof data - head_len);
	struct transcript t;
	transcript_make(&t, HTTP_RESPONSE, data, head_len + 4096, 100, 100);
	assert_non_null(memmem(t.text.data, t.text.len, "may close 1", 11));
	transcript_free(&t);
	transcript_make(&t, HTTP_RESPONSE, data, head_len + 4097, 4097, 1);
	assert_non_null(memmem(t.text.data, t.text.len, "\n502 The body is too large.\n", 28));
	transcript_free(&t);
}

/* A request whose parts are as large as asked for. */
static char *request_of(size_t target_len, size_t value_len, size_t n_fields)
{
	struct buf b = BUF_INIT(1 << 20);
	buf_append_str(&b, "GET /");
	for (size_t i = 1; i < target_len; i++)
		buf_append_char(&b, 'a');
	buf_append_str(&b, " HTTP/1.1\r\nHost: a\r\n");
	for (size_t i = 1; i < n_fields; i++)
		buf_append_str(&b, "A: b\r\n");
	if (value_len) {
		buf_append_str(&b, "V: ");
		for (size_t i = 0; i < value_len; i++)
			buf_append_char(&b, 'v');
		buf_append_str(&b, "\r\n");
	}
	buf_append(&b, "\r\n", 3);
	return buf_take(&b, NULL);
}

static void check_size(size_t target_len, size_t value_len, size_t n_fields, const char *expect)
{
	char *request = request_of(target_len, value_len, n_fields);
	char *text = result_of(HTTP_REQUEST, request, strlen(request));
	if (!strstr(text, expect))
		fail_msg("target %zu, value %zu, fields %zu: %s", target_len, value_len, n_fields,
			text);
	free(text);
	free(request);
}

static void sizes_are_bounded(void **state)
{
	(void)state;
	check_size(256, 0, 1, "body 0");
	check_size(257, 0, 1, "414 The request target is too long.");
	check_size(600, 0, 1, "414 The request target is too long.");
	check_size(2000, 0, 1, "414 The request target is too long.");
	check_size(1, 0, TRANSCRIPT_FIELDS, "body 0");
	check_size(1, 0, TRANSCRIPT_FIELDS + 1, "431 There are too many header fields.");
	size_t rest = strlen("GET / HTTP/1.1\r\nHost: a\r\nV: \r\n\r\n");
	check_size(1, 1024 - rest, 1, "body 0");
	check_size(1, 1024 - rest + 1, 1, "431 The header section is too large.");
	check_size(1, 4096, 1, "431 The header section is too large.");
	/* A request line that never ends. */
	char line[2048];
	memset(line, 'a', sizeof line);
	memcpy(line, "GET /", 5);
	char *text = result_of(HTTP_REQUEST, line, sizeof line);
	assert_string_equal(text, "414 The request target is too long.\n");
	free(text);
}

static void check_overhead(const char *start, const char *fill, size_t n, const char *expect)
{
	struct buf b = BUF_INIT(1 << 20);
	buf_append_str(&b, CHUNKED);
	buf_append_str(&b, start);
	for (size_t i = 0; i < n; i++)
		buf_append_str(&b, fill);
	struct transcript t;
	/* Cut at every byte in all, not at each place apart: it is long. */
	transcript_make(&t, HTTP_REQUEST, (char *)b.data, b.len, 1, 1);
	if (!memmem(t.text.data, t.text.len, expect, strlen(expect)))
		fail_msg("%s... : %.*s", start, (int)t.text.len, (char *)t.text.data);
	transcript_free(&t);
	transcript_make(&t, HTTP_REQUEST, (char *)b.data, b.len, b.len, 1);
	assert_non_null(memmem(t.text.data, t.text.len, expect, strlen(expect)));
	transcript_free(&t);
	buf_free(&b);
}

static void what_surrounds_chunks_is_bounded(void **state)
{
	(void)state;
	check_overhead("1;", "a", 16383, "cut in body after 0");
	check_overhead("1;", "a", 16385, "400 The chunk extensions are too large.");
	/* Over all chunks together, however small each one is. */
	check_overhead("", "1;abcdefgh\r\nx\r\n", 1000, "cut in body after 1000 ");
	check_overhead("", "1;abcdefgh\r\nx\r\n", 2000, "400 The chunk extensions are too large.");
	check_overhead("0\r\n", "a: b\r\n", 2000, "cut in body after 0");
	check_overhead("0\r\n", "a: b\r\n", 4000, "431 The trailer section is too large.");
	check_overhead("0\r\na:", "b", 17000, "431 The trailer section is too large.");
}

static void fields_are_found_by_name(void **state)
{
	(void)state;
	static const char data[] = "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\n\r\n";
	struct http_head head;
	struct http_field fields[4];
	http_head_init(&head, HTTP_REQUEST, &transcript_limits, fields, 4);
	assert_int_equal(http_head_parse(&head, data, sizeof data - 1), HTTP_DONE);
	assert_int_equal(head.head_bytes, sizeof data - 1);
	assert_ptr_equal(http_head_field(&head, data, "x-A"), &fields[1]);
	assert_null(http_head_field(&head, data, "x-"));
	assert_null(http_head_field(&head, data, "x-ab"));
}

static void tokens_and_values_are_told(void **state)
{
	(void)state;
	assert_true(http_is_token(span_of("X-Cache_1!#$%&'*+.^`|~")));
	assert_false(http_is_token(span_of("")));
	for (const char *c = "()<>@,;:\\\"/[]?={} \t\x7f\x80\r\n"; *c; c++)
		assert_false(http_is_token((struct span){c, 1}));
	assert_true(http_is_field_value(span_of("")));
	assert_true(http_is_field_value(span_of("a\tb c\xff")));
	assert_false(http_is_field_value(span_of(" a")));
	assert_false(http_is_field_value(span_of("a ")));
	/* A control character in every lane. */
	for (size_t i = 0; i < 19; i++)
		for (int c = 0; c < 256; c++) {
			char value[] = "abcdefghijklmnopqrs";
			value[i] = (char)c;
			bool good = (c >= 0x20 && c != 0x7f) || c == '\t';
			if ((c == ' ' || c == '\t') && (i == 0 || i == 18))
				good = false;
			assert_int_equal(http_is_field_value((struct span){value, 19}), good);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_taken_apart),
		cmocka_unit_test(bad_requests_are_refused),
		cmocka_unit_test(a_nul_is_refused_everywhere),
		cmocka_unit_test(chunked_bodies_are_decoded),
		cmocka_unit_test(responses_are_taken_apart),
		cmocka_unit_test(an_answer_to_head_has_no_body),
		cmocka_unit_test(an_endless_body_stops_at_its_limit),
		cmocka_unit_test(sizes_are_bounded),
		cmocka_unit_test(what_surrounds_chunks_is_bounded),
		cmocka_unit_test(fields_are_found_by_name),
		cmocka_unit_test(tokens_and_values_are_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
