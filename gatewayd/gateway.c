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
	if (allow) {
		api_error_set(&error, 405, NULL, "method_not_allowed",
			"Only %s is allowed on this path.", allow);
		error.allow = allow;
	} else {
		api_error_set(&error, 404, NULL, "unknown_url",
			"There is nothing at this path; embeddings are at POST /v1/embeddings.");
	}
	stats_count_request(gateway->stats, STATS_ERROR, error.status);
	api_error_respond(exchange, &error, NULL);
}
