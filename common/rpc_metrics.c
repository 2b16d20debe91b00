#include "common/metrics.h"
#include "common/rpc_server_private.h"

enum { REQUESTS, DURATION, CONNECTIONS, IN_FLIGHT };

const struct metric_family rpc_server_families[] = {
	[REQUESTS] = {.name = "rpc_requests_total",
		.type = METRIC_COUNTER,
		.labels = {"method", "code"},
		.help = "RPC requests that ended, by method and outcome: ok, or the code of the error."},
	[DURATION] = {.name = "rpc_request_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.labels = {"method"},
		.buckets = metrics_latency_buckets,
		.help = "Time from an RPC request to the end of its answer, in seconds."},
	[CONNECTIONS] = {.name = "rpc_connections",
		.type = METRIC_GAUGE,
		.help = "Open connections to the RPC socket."},
	[IN_FLIGHT] = {.name = "rpc_requests_in_flight",
		.type = METRIC_GAUGE,
		.help = "RPC requests that are not answered completely."},
	{.name = NULL},
};

/* The server may be gone when a last page is made, but then nothing collects any more: the daemon
 * frees both in one go. */
static void collect(void *arg)
{
	const struct rpc_server *server = arg;
	metric_set(metric(server->metrics, &rpc_server_families[CONNECTIONS]),
		(double)server->n_askers);
	metric_set(metric(server->metrics, &rpc_server_families[IN_FLIGHT]),
		(double)server->n_requests);
}

void rpc_server_measure(struct rpc_server *server, struct metrics *metrics)
{
	server->metrics = metrics;
	server->unknown = metric(
		metrics, &rpc_server_families[REQUESTS], "other", rpc_code_name(RPC_NO_METHOD));
	metrics_on_collect(metrics, collect, server);
}

void rpc_metrics_began(struct rpc_request *request)
{
	const struct rpc_server *server = request->asker->server;
	if (server->metrics)
		request->began_us = loop_now_us(server->loop);
}

void rpc_metrics_ended(const struct rpc_request *request)
{
	const struct rpc_server *server = request->asker->server;
	if (!request->began_us || !server)
		return;
	struct method_entry *entry = &server->methods[request->method_index];
	int code = request->code <= RPC_CANCELLED ? request->code : RPC_FAILED;
	struct metric **ended = &entry->ended[code];
	if (!entry->duration)
		entry->duration = metric(
			server->metrics, &rpc_server_families[DURATION], entry->method->name);
	if (!*ended)
		*ended = metric(server->metrics, &rpc_server_families[REQUESTS],
			entry->method->name, code ? rpc_code_name(code) : "ok");
	metric_add(*ended, 1);
	metric_observe(
		entry->duration, (double)(loop_now_us(server->loop) - request->began_us) / 1e6);
}

void rpc_metrics_unknown_method(const struct rpc_server *server)
{
	if (server->metrics)
		metric_add(server->unknown, 1);
}
