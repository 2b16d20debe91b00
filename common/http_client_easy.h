#ifndef COMMON_HTTP_CLIENT_EASY_H
#define COMMON_HTTP_CLIENT_EASY_H

/* How http_client sets up libcurl's easy handles: which options, and what a request becomes. Only
 * for http_client.c. */
#include <curl/curl.h>

#include "common/http_client.h"

/* With what is the same for all calls. NULL when out of memory. */
CURL *http_client_easy_new(const char *user_agent, const char *ca_file);
/*
 * Give it the request of one call, in place of any earlier one. The body is lent, not copied.
 * *headers (set in any case, may be NULL) must live as long as the call; the caller frees it by
 * curl_slist_free_all().
 */
CURLcode http_client_easy_set(
	CURL *easy, const struct http_call_options *options, struct curl_slist **headers);

/* Of the lines of a head: the one with this name behind so many others, as http_call_header_at().
 */
struct span http_client_easy_header(const struct buf *head, const char *name, size_t skip);

#endif
