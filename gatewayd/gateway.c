#include "gatewayd/gateway.h"

#include "gatewayd/api_error.h"
#include "gatewayd/embeddings.h"
#include "gatewayd/models.h"
#include "gatewayd/purge_serve.h"

static void serve_embeddings(struct gateway *gateway, struct exchange *exchange)
{
	embeddings_serve(gateway, exchange);
}

/* The same path may stand here for several methods; allow names them all. */
static const struct route {
	const char *path, *method, *allow;
	void (*serve)(struct gateway *gateway, struct exchange *exchange);
} routes[] = {
	{"/v1/embeddings", "POST", "POST", serve_embeddings},
	{"/openai/v1/embeddings", "POST", "POST", serve_embeddings},
	{"/v1/models", "GET", "GET, HEAD", models_serve},
	{"/v1/models", "HEAD", "GET, HEAD", models_serve},
	{"/openai/v1/models", "GET", "GET, HEAD", models_serve},
	{"/openai/v1/models", "HEAD", "GET, HEAD", models_serve},
};

/* (RFC 9110, 9.3; RFC 5789) */
static bool is_known_method(struct span method)
{
	static const char *const methods[] = {
		"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
	for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
		if (span_equal_str(method, methods[i]))
			return true;
	return false;
}

/* Of the server as a whole. */
static void answer_options(struct gateway *gateway, struct exchange *exchange)
{
	struct answer_head head = {.status = 204};
	answer_head_add(&head, "Allow", SPAN_LITERAL("GET, HEAD, POST, OPTIONS"));
	stats_count_request(gateway->stats, STATS_PASS, head.status, exchange->started_us);
	exchange_respond(exchange, &head, (struct slice){0});
}

void gateway_serve(struct exchange *exchange, void *arg)
{
	struct gateway *gateway = arg;
	const char *allow = NULL;
	if (span_equal_str(exchange->method, "PURGE")) {
		purge_serve(gateway, exchange);
		return;
	}
	for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
		if (!span_equal_str(exchange->path, routes[i].path))
			continue;
		if (span_equal_str(exchange->method, routes[i].method)) {
			exchange_set_route(exchange, routes[i].method, routes[i].path);
			routes[i].serve(gateway, exchange);
			return;
		}
		allow = routes[i].allow;
	}
	struct api_error error;
	if (span_equal_str(exchange->method, "OPTIONS") && span_equal_str(exchange->target, "*")) {
		answer_options(gateway, exchange);
		return;
	}
	if (!is_known_method(exchange->method)) {
		api_error_set(
			&error, 501, NULL, "not_implemented", "This method is not known here.");
		error.type = "invalid_request_error";
	} else if (allow) {
		api_error_set(&error, 405, NULL, "method_not_allowed",
			"Only %s is allowed on this path.", allow);
		error.allow = allow;
	} else {
		api_error_set(&error, 404, NULL, "unknown_url",
			"There is nothing at this path; embeddings are at POST /v1/embeddings.");
	}
	stats_count_request(gateway->stats, STATS_ERROR, error.status, exchange->started_us);
	api_error_respond(exchange, &error, NULL);
}
