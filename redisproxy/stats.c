#include "redisproxy/stats.h"

#include "redisproxy/command.h"

const struct metric_family stats_families[] = {
	[STATS_COMMANDS] = {.name = "redis_commands_total",
		.type = METRIC_COUNTER,
		.help = "Commands of clients, by name; other: known neither to the proxy nor to the "
			"server.",
		.labels = {"cmd"},
		.max_series = COMMAND_MAX + 1},
	[STATS_CONNECTIONS] = {.name = "tcp_connections",
		.type = METRIC_GAUGE,
		.help = "Open connections to this server.",
		.labels = {"upstream"}},
	[STATS_IDLE] = {.name = "tcp_idle_connections",
		.type = METRIC_GAUGE,
		.help = "Of these, connections with nothing to do.",
		.labels = {"upstream"}},
	[STATS_UP] = {.name = "redisproxy_upstream_up",
		.type = METRIC_GAUGE,
		.help = "1 while this server answers its health checks.",
		.labels = {"upstream"}},
	[STATS_DURATION] = {.name = "redisproxy_command_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.help = "Time from a command's last byte to its reply's last byte; blocking commands "
			"apart. Deep pipelines are sampled.",
		.buckets = metrics_latency_buckets},
	[STATS_CLIENTS] = {.name = "redisproxy_clients",
		.type = METRIC_GAUGE,
		.help = "Open client connections."},
	[STATS_REJECTED] = {.name = "redisproxy_protocol_errors_total",
		.type = METRIC_COUNTER,
		.help = "Clients closed because what they sent is no RESP, by kind.",
		.labels = {"kind"}},
	[STATS_LOST] = {.name = "redisproxy_failed_commands_total",
		.type = METRIC_COUNTER,
		.help = "Commands that the proxy answered with an error itself, by reason.",
		.labels = {"reason"}},
	[STATS_CONNECTED] = {.name = "redisproxy_connects_total",
		.type = METRIC_COUNTER,
		.help = "Connections made to this server.",
		.labels = {"upstream"}},
	[STATS_READS] = {.name = "redisproxy_reader_fallbacks_total",
		.type = METRIC_COUNTER,
		.help = "Times that reads went over to the writer because the reader was down."},
	[STATS_SLOW] = {.name = "redisproxy_slow_clients_total",
		.type = METRIC_COUNTER,
		.help = "Clients closed because they did not take their replies."},
	[STATS_DEMOTED] = {.name = "redisproxy_demotions_total",
		.type = METRIC_COUNTER,
		.help = "Times that the writer said READONLY and was looked up again."},
	[STATS_POOLS] = {.name = "redisproxy_pools",
		.type = METRIC_GAUGE,
		.help = "Pools: one for each server, user, database and RESP version in use."},
	[STATS_N] = {0},
};

void stats_init(struct stats *stats, struct metrics *metrics)
{
	*stats = (struct stats){
		.metrics = metrics,
		.duration = metric(metrics, &stats_families[STATS_DURATION]),
		.clients = metric(metrics, &stats_families[STATS_CLIENTS]),
		.pools = metric(metrics, &stats_families[STATS_POOLS]),
		.slow_clients = metric(metrics, &stats_families[STATS_SLOW]),
	};
}

void stats_count(struct stats *stats, enum stats_family family, const char *value)
{
	metric_add(metrics_get(stats->metrics, &stats_families[family],
			   (const char *const[]){value, NULL}),
		1);
}
