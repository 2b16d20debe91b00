#include "common/http_server_private.h"
#include "common/metrics.h"

#include <stdio.h>

enum { REQUESTS, DURATION, CONNECTIONS };

const struct metric_family http_server_families[] = {
	[REQUESTS] = {.name = "http_requests_total",
		.type = METRIC_COUNTER,
		.labels = {"method", "status"},
		.help = "HTTP requests answered by the daemon's own listener, probes and scrapes "
			"included, by method and status; 499: the client left first."},
	[DURATION] = {.name = "http_request_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.labels = {"method"},
		.buckets = metrics_latency_buckets,
		.help = "Time from the first byte of such a request to the last byte of its answer."},
	[CONNECTIONS] = {.name = "http_connections",
		.type = METRIC_GAUGE,
		.help = "Open connections to that listener."},
	{.name = NULL},
};

/* What clients make up is "other". */
static const char *const methods[HTTP_METHODS] = {
	"GET", "HEAD", "POST", "PURGE", "DELETE", "other"};

/* As of the RPC server: nothing collects any more once the daemon frees it. */
static void collect(void *arg)
{
	const struct http_server *server = arg;
	metric_set(metric(server->metrics, &http_server_families[CONNECTIONS]),
		(double)server->n_open);
}

void http_server_measure(struct http_server *server, struct metrics *metrics)
{
	server->metrics = metrics;
	metrics_on_collect(metrics, collect, server);
}

void http_metrics_ended(
	struct http_server *server, struct span method, int status, uint64_t duration_us)
{
	if (!server->metrics)
		return;
	unsigned i = 0;
	while (i < HTTP_METHODS - 1 && !span_equal_str(method, methods[i]))
		i++;
	struct http_method_metrics *m = &server->method_metrics[i];
	if (!m->duration)
		m->duration = metric(server->metrics, &http_server_families[DURATION], methods[i]);
	if (!m->ended || m->status != status) {
		char text[8];
		snprintf(text, sizeof text, "%d", status % 1000);
		m->status = status;
		m->ended = metric(
			server->metrics, &http_server_families[REQUESTS], methods[i], text);
	}
	metric_add(m->ended, 1);
	metric_observe(m->duration, (double)duration_us / 1e6);
}
