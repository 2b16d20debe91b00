#include "redisproxy/stats.h"

#include <stdio.h>
#include <string.h>

#include "redisproxy/command.h"
#include "redisproxy/conf.h"
#include "redisproxy/hotkeys.h"
#include "redisproxy/key_hash.h"
#include "redisproxy/keys.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/server.h"
#include "redisproxy/slowlog.h"
#include "redisproxy/upstream.h"

#define MAX_POOL_SERIES 256 /* those of pools that are gone stay */

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
		.help = "Time from a command's last byte to its reply's last byte, waiting for a "
			"connection included; blocking commands apart. Deep pipelines are sampled.",
		.buckets = metrics_latency_buckets},
	[STATS_CLIENTS] = {.name = "redisproxy_clients",
		.type = METRIC_GAUGE,
		.help = "Open client connections."},
	[STATS_CLIENT_MEMORY] = {.name = "redisproxy_client_memory_bytes",
		.type = METRIC_GAUGE,
		.help = "Replies not taken, and commands not complete, of all clients."},
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
		.help = "Clients closed because they did not take their replies, or held most when "
			"--client-memory was exceeded."},
	[STATS_DEMOTED] = {.name = "redisproxy_demotions_total",
		.type = METRIC_COUNTER,
		.help = "Times that the writer said READONLY and was looked up again."},
	[STATS_POOLS] = {.name = "redisproxy_pools",
		.type = METRIC_GAUGE,
		.help = "Pools: one for each server, user, database and RESP version in use."},
	[STATS_TOPOLOGY] = {.name = "redisproxy_topology_changes_total",
		.type = METRIC_COUNTER,
		.help = "Times that the cluster's slots, the writer or the reader moved to another "
			"server.",
		.labels = {"what"}},
	[STATS_REDIRECTIONS] = {.name = "redisproxy_redirections_total",
		.type = METRIC_COUNTER,
		.help = "Commands that a node of the cluster sent elsewhere or put off, by kind.",
		.labels = {"kind"}},
	[STATS_UPSTREAM_DURATION] = {.name = "redisproxy_upstream_duration_seconds",
		.type = METRIC_HISTOGRAM,
		.help = "Time from sending a command to a server to its reply's last byte, by pool "
			"(server, user, database, RESP version); else as "
			"redisproxy_command_duration_seconds.",
		.labels = {"upstream", "user", "db", "resp"},
		.buckets = metrics_latency_buckets,
		.max_series = MAX_POOL_SERIES},
	[STATS_REPLIES] = {.name = "redisproxy_upstream_replies_total",
		.type = METRIC_COUNTER,
		.help = "Commands sent to a server, by pool and by what came of it: ok, error (the "
			"server's reply), lost (no reply).",
		.labels = {"upstream", "user", "db", "resp", "result"},
		.max_series = STATS_RESULTS * MAX_POOL_SERIES},
	[STATS_N] = {0},
};

int stats_init(struct stats *stats, struct metrics *metrics, const struct redisproxy_conf *conf)
{
	*stats = (struct stats){
		.metrics = metrics,
		.duration = metric(metrics, &stats_families[STATS_DURATION]),
		.clients = metric(metrics, &stats_families[STATS_CLIENTS]),
		.pools = metric(metrics, &stats_families[STATS_POOLS]),
		.slow_clients = metric(metrics, &stats_families[STATS_SLOW]),
		.client_memory = metric(metrics, &stats_families[STATS_CLIENT_MEMORY]),
	};
	if (conf->slowlog_entries)
		stats->slowlog = slowlog_new((unsigned)conf->slowlog_entries,
			(uint64_t)conf->slowlog_threshold_ms * 1000, conf->show_keys);
	if (conf->hot_keys)
		stats->hotkeys = hotkeys_new((unsigned)conf->hot_keys, conf->show_keys);
	return (conf->slowlog_entries && !stats->slowlog) || (conf->hot_keys && !stats->hotkeys)
		       ? -1
		       : 0;
}

void stats_free(struct stats *stats)
{
	slowlog_free(&stats->slowlog);
	hotkeys_free(&stats->hotkeys);
}

/* What follows a name that nobody knows may be anything, and a secret. */
static bool find_key(const struct command *command, const char *frame, size_t len, struct span *key)
{
	return strcmp(command->name, COMMAND_OTHER) != 0 &&
	       keys_first(&command->keys, frame, len, key);
}

/* Returns its hash; 0: the command has no key. */
static uint64_t note_key(struct stats *stats, const struct command *command, const char *frame,
	size_t len, bool logged, bool due)
{
	struct span key;

	if (!find_key(command, frame, len, &key))
		return 0;
	uint64_t hash = key_hash(key);

	if (logged)
		slowlog_remember_key(stats->slowlog, key, hash);
	if (due)
		hotkeys_count(stats->hotkeys, key, hash);
	return hash;
}

void stats_sent(struct stats *stats, struct entry *entry, const struct command *command,
	const char *frame, size_t len)
{
	bool logged = entry->sent_us && stats->slowlog;
	bool due = stats->hotkeys && hotkeys_due(stats->hotkeys);

	entry->command = command;
	entry->key_hash = logged || due ? note_key(stats, command, frame, len, logged, due) : 0;
}

void stats_pool_init(
	struct stats *stats, struct pool_stats *of, const char *server, const struct pool_key *key)
{
	static const char *const results[] = {"ok", "error", "lost"};
	const char *user = key->logins ? "(logins)" : key->user.len ? key->user.data : "default";
	const char *resp = key->resp == 3 ? "3" : "2";
	char db[16];

	stats_pool_collect(of);
	snprintf(db, sizeof db, "%u", key->db);
	of->duration = metric(
		stats->metrics, &stats_families[STATS_UPSTREAM_DURATION], server, user, db, resp);
	for (size_t i = 0; i < STATS_RESULTS; i++)
		of->replies[i] = metric(stats->metrics, &stats_families[STATS_REPLIES], server,
			user, db, resp, results[i]);
}

void stats_pool_collect(struct pool_stats *of)
{
	for (size_t i = 0; i < STATS_RESULTS; i++) {
		if (of->n[i])
			metric_add(of->replies[i], (double)of->n[i]);
		of->n[i] = 0;
	}
}

void stats_lost(const struct entry *entry, struct upstream *up)
{
	if (entry->command)
		up->pool->stats.n[STATS_GONE]++;
}

void stats_replied(struct stats *stats, const struct entry *entry, struct upstream *up, bool failed)
{
	if (entry->command)
		up->pool->stats.n[failed ? STATS_ERROR : STATS_OK]++;
	if (!entry->sent_us)
		return;
	uint64_t duration_us = up->proxy->now_us - entry->sent_us;

	metric_observe(stats->duration, (double)(duration_us + entry->waited_us) / 1e6);
	metric_observe(up->pool->stats.duration, (double)duration_us / 1e6);
	if (stats->slowlog && entry->command)
		slowlog_note(stats->slowlog, &(struct slowlog_entry){
						     .command = entry->command->name,
						     .duration_us = duration_us,
						     .key_hash = entry->key_hash,
						     .upstream = server_address(up->pool->server),
						     .failed = failed,
					     });
}

void stats_count(struct stats *stats, enum stats_family family, const char *value)
{
	metric_add(metrics_get(stats->metrics, &stats_families[family],
			   (const char *const[]){value, NULL}),
		1);
}
