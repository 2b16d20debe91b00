#include "gatewayd/s3_client.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/http_client.h"
#include "common/log.h"

#define DEFAULT_CONNECTIONS 128
#define MAX_CALLS           16384
#define URL_MAX_BYTES       8192
#define MAX_HEADERS         24
#define CODE_MAX_BYTES      64

struct s3_client {
	struct http_client *http;
	char *endpoint, *bucket, *region, *access_key, *secret;
	char *token_header; /* "x-amz-security-token: ..."; NULL: none */
	uint32_t connect_timeout_ms;
};

struct s3_call {
	struct http_call *http;
	const char *bucket;
	bool of_object;
	void (*on_done)(struct s3_call *call, const struct s3_result *result, void *arg);
	void *arg;
};

/* ---- Names ---- */

void s3_escape(struct span text, bool in_query, struct buf *out)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.data[i];
		bool plain = c < 0x80 && (isalnum(c) || memchr("-._~", c, 4));
		if (plain || (c == '/' && !in_query))
			buf_append_char(out, (char)c);
		else
			buf_printf(out, "%%%02X", c);
	}
}

bool s3_bucket_valid(const char *bucket)
{
	size_t len = strlen(bucket);
	if (len < 3 || len > 63 || !isalnum((unsigned char)bucket[0]))
		return false;
	for (const char *at = bucket; *at; at++) {
		if (!isalnum((unsigned char)*at) && !strchr("-._", *at))
			return false;
	}
	return true;
}

/* ---- Life ---- */

static char *endpoint_of(const struct s3_options *options, const char *region)
{
	char aws[256];
	const char *endpoint = options->endpoint;
	if (!*endpoint) {
		snprintf(aws, sizeof aws, "https://s3.%s.amazonaws.com", region);
		endpoint = aws;
	}
	size_t len = strlen(endpoint);
	while (len && endpoint[len - 1] == '/')
		len--;
	return strndup(endpoint, len);
}

static char *token_header_of(const char *token)
{
	static const char name[] = "x-amz-security-token: ";
	size_t size = sizeof name + strlen(token);
	char *header = malloc(size);
	if (header)
		snprintf(header, size, "%s%s", name, token);
	return header;
}

struct s3_client *s3_client_new(struct loop *loop, const struct s3_options *options)
{
	struct s3_client *client = calloc(1, sizeof *client);
	if (!client)
		return NULL;
	const char *region = *options->region ? options->region : S3_DEFAULT_REGION;
	struct http_client_options http = http_client_defaults;
	http.max_connections = options->connections ? options->connections : DEFAULT_CONNECTIONS;
	http.max_connections_host = http.max_connections;
	http.max_calls = MAX_CALLS;
	client->endpoint = endpoint_of(options, region);
	client->bucket = strdup(options->bucket);
	client->region = strdup(region);
	client->access_key = strdup(options->access_key);
	client->secret = strdup(options->secret);
	client->connect_timeout_ms = options->connect_timeout_ms;
	if (*options->session_token)
		client->token_header = token_header_of(options->session_token);
	client->http = http_client_new(loop, &http);
	if (!client->endpoint || !client->bucket || !client->region || !client->access_key ||
		!client->secret || (*options->session_token && !client->token_header) ||
		!client->http)
		s3_client_free(&client);
	return client;
}

static void free_secret(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

void s3_client_free(struct s3_client **pointer)
{
	struct s3_client *client = *pointer;
	if (!client)
		return;
	*pointer = NULL;
	http_client_free(&client->http);
	free(client->endpoint);
	free(client->bucket);
	free(client->region);
	free(client->access_key);
	free_secret(client->secret);
	free_secret(client->token_header);
	free(client);
}

const char *s3_client_bucket(const struct s3_client *client)
{
	return client->bucket;
}

/* ---- What an answer means ---- */

/* <Code> of an error document, letters and digits alone, since it goes to the log. */
static void read_code(const struct buf *body, char code[CODE_MAX_BYTES])
{
	static const char tag[] = "<Code>";
	size_t n = 0;
	const char *at = body->len ? memmem(body->data, body->len, tag, sizeof tag - 1) : NULL;
	const char *end = (const char *)body->data + body->len;
	if (at)
		for (at += sizeof tag - 1; at < end && isalnum((unsigned char)*at); at++)
			if (n < CODE_MAX_BYTES - 1)
				code[n++] = *at;
	code[n] = 0;
}

static enum s3_outcome outcome_of(
	const struct http_call_result *http, const char *code, bool of_object)
{
	switch (http->outcome) {
	case HTTP_CALL_OK:
		break;
	case HTTP_CALL_CONNECT:
	case HTTP_CALL_TIMEOUT:
	case HTTP_CALL_RESET:
	case HTTP_CALL_BUSY:
		return S3_UNREACHABLE;
	case HTTP_CALL_TOO_LARGE:
		return S3_REFUSED;
	case HTTP_CALL_BAD:
	case HTTP_CALL_UNSENDABLE:
		return S3_FAILED;
	}
	int status = http->status;
	if (status >= 200 && status < 300)
		return S3_OK;
	if (status == 404 && of_object && strcmp(code, "NoSuchBucket") != 0)
		return S3_MISSING;
	if (status == 401 || status == 403)
		return S3_DENIED;
	return status >= 500 || status == 429 ? S3_FAILED : S3_REFUSED;
}

static const char *advice(const char *code, enum s3_outcome outcome)
{
	if (strcmp(code, "SignatureDoesNotMatch") == 0)
		return ": check AWS_SECRET_ACCESS_KEY and AWS_REGION";
	if (strcmp(code, "InvalidAccessKeyId") == 0)
		return ": check AWS_ACCESS_KEY_ID";
	if (strcmp(code, "RequestTimeTooSkewed") == 0)
		return ": this machine's clock is wrong";
	if (strcmp(code, "ExpiredToken") == 0)
		return ": AWS_SESSION_TOKEN has expired";
	if (strcmp(code, "NoSuchBucket") == 0)
		return ": make the bucket, or check S3_BUCKET";
	if (outcome == S3_DENIED)
		return ": check the keys and the bucket's policy (s3:GetObject, s3:PutObject, and "
		       "s3:ListBucket, without which a missing object is refused, too)";
	return "";
}

static void on_http_done(struct http_call *http, const struct http_call_result *answer, void *arg)
{
	struct s3_call *call = arg;
	char code[CODE_MAX_BYTES] = "", reason[512];
	(void)http;
	if (answer->outcome == HTTP_CALL_OK && answer->status >= 300)
		read_code(answer->body, code);
	struct s3_result result = {
		.outcome = outcome_of(answer, code, call->of_object),
		.status = answer->status,
		.reason = reason,
		.body = answer->body,
	};
	if (answer->outcome != HTTP_CALL_OK)
		snprintf(reason, sizeof reason, "bucket %s: %s", call->bucket,
			answer->detail ? answer->detail : "no answer");
	else
		snprintf(reason, sizeof reason, "bucket %s: status %d %s%s", call->bucket,
			answer->status, code, advice(code, result.outcome));
	call->on_done(call, &result, call->arg);
	free(call);
}

/* ---- Asking ---- */

static int write_url(
	const struct s3_client *client, const struct s3_request *request, struct buf *url)
{
	buf_printf(url, "%s/%s", client->endpoint, client->bucket);
	if (*request->name) {
		buf_append_char(url, '/');
		s3_escape(span_of(request->name), false, url);
	}
	if (request->query)
		buf_printf(url, "?%s", request->query);
	buf_append_char(url, 0);
	return buf_failed(url) ? -1 : 0;
}

static int start(struct s3_client *client, struct s3_call *call, const struct s3_request *request,
	const char *url)
{
	char sum[DIGEST_HEX + 32], hex[DIGEST_HEX + 1];
	const char *headers[MAX_HEADERS + 1];
	size_t n = 0;
	struct digest digest = request->body_digest ? *request->body_digest
						    : digest_of((struct span){"", 0});
	digest_hex(&digest, hex);
	snprintf(sum, sizeof sum, "x-amz-content-sha256: %s", hex);
	headers[n++] = sum;
	if (client->token_header)
		headers[n++] = client->token_header;
	for (size_t i = 0; request->headers && request->headers[i]; i++) {
		BUG_ON(n == MAX_HEADERS);
		headers[n++] = request->headers[i];
	}
	headers[n] = NULL;
	struct http_call_signature signature = {
		.region = client->region,
		.service = "s3",
		.access_key = client->access_key,
		.secret = client->secret,
	};
	struct http_call_options options = {
		.method = request->method,
		.url = url,
		.headers = headers,
		.body = request->body,
		.connect_timeout_ms = client->connect_timeout_ms,
		.timeout_ms = request->timeout_ms,
		.max_response_bytes = request->max_response_bytes,
		.keep_encoding = true,
		.signature = &signature,
	};
	call->http = http_client_call(client->http, &options, on_http_done, call);
	return call->http ? 0 : -1;
}

struct s3_call *s3_client_call(struct s3_client *client, const struct s3_request *request,
	void (*on_done)(struct s3_call *call, const struct s3_result *result, void *arg), void *arg)
{
	struct buf url = BUF_INIT(URL_MAX_BYTES);
	struct slice body = request->body;
	struct s3_call *call = calloc(1, sizeof *call);
	if (!call || write_url(client, request, &url)) {
		slice_release(&body);
		free(call);
		buf_free(&url);
		return NULL;
	}
	call->bucket = client->bucket;
	call->of_object = *request->name != 0;
	call->on_done = on_done;
	call->arg = arg;
	if (start(client, call, request, (const char *)url.data)) {
		free(call);
		call = NULL;
	}
	buf_free(&url);
	return call;
}

struct span s3_call_header(const struct s3_call *call, const char *name)
{
	return http_call_header(call->http, name);
}

void s3_call_cancel(struct s3_call **pointer)
{
	struct s3_call *call = *pointer;
	*pointer = NULL;
	if (!call)
		return;
	http_call_cancel(&call->http);
	free(call);
}
