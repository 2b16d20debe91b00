#include "common/http_client_easy.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* How much libcurl reads at a time. */
#define READ_BYTES (32L << 10)

/* Set an option unless one before failed; the functions below keep `easy` and `rc` for it. */
#define SET(option, value) (rc = rc ? rc : curl_easy_setopt(easy, (option), (value)))

CURL *http_client_easy_new(const char *user_agent, const char *ca_file)
{
	CURL *easy = curl_easy_init();
	if (!easy)
		return NULL;
	CURLcode rc = CURLE_OK;
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(CURLOPT_BUFFERSIZE, READ_BYTES);
	SET(CURLOPT_USERAGENT, user_agent);
	if (ca_file)
		SET(CURLOPT_CAINFO, ca_file);
	/* Else the end of a call whose name lookup hangs would wait for the lookup. */
	SET(CURLOPT_QUICK_EXIT, 1L);
	if (rc != CURLE_OK) {
		curl_easy_cleanup(easy);
		return NULL;
	}
	return easy;
}

/* The method and the body, which libcurl takes for one thing. The handle still has those of another
 * call, so each option is set every time. */
static CURLcode set_method(CURL *easy, const char *method, const struct slice *body)
{
	bool with_body = body->len_bytes > 0;
	bool head = strcmp(method, "HEAD") == 0 && !with_body;
	bool get = strcmp(method, "GET") == 0 && !with_body;
	/* A POST or PUT of nothing says so: Content-Length: 0. Others without a body say nothing.
	 */
	bool post = with_body || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0;
	CURLcode rc = CURLE_OK;
	SET(CURLOPT_NOBODY, 0L);
	SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->len_bytes);
	SET(CURLOPT_POSTFIELDS, with_body ? (const char *)body->data : "");
	SET(CURLOPT_CUSTOMREQUEST, get || head ? (const char *)NULL : method);
	if (head)
		SET(CURLOPT_NOBODY, 1L);
	else if (post)
		SET(CURLOPT_POST, 1L);
	else
		SET(CURLOPT_HTTPGET, 1L);
	return rc;
}

/* False when out of memory. */
static bool add_header(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);
	if (longer)
		*list = longer;
	return longer != NULL;
}

/* "Name:" would make libcurl drop the header; "Name;" is its way to send it empty. */
static bool add_empty_header(struct curl_slist **list, const char *line, size_t name_len)
{
	char *copy = strndup(line, name_len + 1);
	if (!copy)
		return false;
	copy[name_len] = ';';
	bool ok = add_header(list, copy);
	free(copy);
	return ok;
}

static bool copy_headers(struct curl_slist **list, const char *const *headers, bool is_signed)
{
	/* libcurl would add these two on its own. It would also sign what must not be sent. */
	if (!is_signed && !add_header(list, "Expect:"))
		return false;
	bool has_type = is_signed;
	for (; headers && *headers; headers++) {
		const char *colon = strchr(*headers, ':');
		size_t name_len = colon ? (size_t)(colon - *headers) : 0;
		bool empty = colon && colon[1 + strspn(colon + 1, " \t")] == '\0';
		has_type |= name_len == 12 && strncasecmp(*headers, "Content-Type", 12) == 0;
		if (!(empty ? add_empty_header(list, *headers, name_len)
			    : add_header(list, *headers)))
			return false;
	}
	return has_type || add_header(list, "Content-Type:");
}

/* The handle still has the signature of another call. */
static CURLcode set_signature(CURL *easy, const struct http_call_signature *signature)
{
	char provider[256];
	CURLcode rc = CURLE_OK;
	SET(CURLOPT_USERNAME, signature ? signature->access_key : (const char *)NULL);
	SET(CURLOPT_PASSWORD, signature ? signature->secret : (const char *)NULL);
	if (!signature) {
		SET(CURLOPT_AWS_SIGV4, (const char *)NULL);
		SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		return rc;
	}
	int len = snprintf(
		provider, sizeof provider, "aws:amz:%s:%s", signature->region, signature->service);
	if (len < 0 || (size_t)len >= sizeof provider)
		return CURLE_BAD_FUNCTION_ARGUMENT;
	SET(CURLOPT_AWS_SIGV4, provider);
	return rc;
}

static CURLcode set_options(
	CURL *easy, const struct http_call_options *options, struct curl_slist *headers)
{
	CURLcode rc = set_method(easy, options->method, &options->body);
	SET(CURLOPT_URL, options->url);
	SET(CURLOPT_HTTPHEADER, headers);
	SET(CURLOPT_UNIX_SOCKET_PATH, options->unix_socket);
	/* NULL: the proxy variables of the environment. */
	SET(CURLOPT_PROXY, options->unix_socket || options->direct ? "" : (const char *)NULL);
	SET(CURLOPT_FRESH_CONNECT, (long)options->fresh);
	SET(CURLOPT_FORBID_REUSE, (long)options->fresh);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)options->connect_timeout_ms);
	/* Asked for by libcurl, decoded by us (http_inflate). */
	SET(CURLOPT_ACCEPT_ENCODING, options->keep_encoding ? (const char *)NULL : "gzip");
	SET(CURLOPT_HTTP_CONTENT_DECODING, 0L);
	return rc ? rc : set_signature(easy, options->signature);
}

CURLcode http_client_easy_set(
	CURL *easy, const struct http_call_options *options, struct curl_slist **headers)
{
	struct curl_slist *list = NULL;
	bool ok = copy_headers(&list, options->headers, options->signature != NULL);
	CURLcode rc = ok ? set_options(easy, options, list) : CURLE_OUT_OF_MEMORY;
	*headers = list;
	return rc;
}

struct span http_client_easy_header(const struct buf *head, const char *name, size_t skip)
{
	size_t name_len = strlen(name);
	const char *at = (const char *)head->data, *end = at + head->len;
	while (at < end) {
		const char *line_end = memchr(at, '\n', (size_t)(end - at));
		const char *next = line_end ? line_end + 1 : end;
		size_t len = (size_t)(next - at);
		if (len > name_len && at[name_len] == ':' && strncasecmp(at, name, name_len) == 0 &&
			skip-- == 0) {
			const char *from = at + name_len + 1, *to = next;
			while (from < to && strchr(" \t\r\n", *from))
				from++;
			while (to > from && strchr(" \t\r\n", to[-1]))
				to--;
			return (struct span){from, (size_t)(to - from)};
		}
		at = next;
	}
	return (struct span){0};
}
