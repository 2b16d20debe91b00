#include "redisproxy/conf.h"

#include <stddef.h>
#include <string.h>

#include "common/http_server.h"

#include "redisproxy/hotkeys.h"
#include "redisproxy/slowlog.h"
#include "redisproxy/stats.h"
#include "redisproxy/tls.h"
#include "redisproxy/zone.h"

#define AT(field) offsetof(struct redisproxy_conf, field)

static const struct config_row rows[] = {
	{"local-address", "LOCAL_ADDRESS", CONFIG_ADDRESS, AT(local_address),
		.def = "127.0.0.1:16379", .section = "Addresses",
		.help = "where clients connect: host:port or the path of a Unix socket"},
	{"remote-address", "REMOTE_ADDRESS", CONFIG_ADDRESS, AT(remote_address),
		.def = "127.0.0.1:6379",
		.help = "the Redis server (the writer); with --mode cluster any node of it"},
	{"mode", "REDISPROXY_MODE", CONFIG_CHOICE, AT(mode), .def = "single",
		.choices = "single|sentinel|cluster",
		.help = "single: the servers named here; sentinel: those that sentinels name; cluster: a "
			"Redis Cluster"},
	{"sentinel-addresses", "REDISPROXY_SENTINEL_ADDRESSES", CONFIG_STRING,
		AT(sentinel_addresses),
		.help = "with --mode sentinel: the sentinels, host:port, separated by commas"},
	{"sentinel-master", "REDISPROXY_SENTINEL_MASTER", CONFIG_STRING, AT(sentinel_master),
		.def = "mymaster", .help = "the name of the master that they watch"},
	{NULL, "REDISPROXY_SENTINEL_USERNAME", CONFIG_STRING, AT(sentinel_username),
		.help = "user for the sentinels; empty: the default user"},
	{NULL, "REDISPROXY_SENTINEL_PASSWORD", CONFIG_SECRET, AT(sentinel_password),
		.help = "password for the sentinels"},
	{"monitor-address", "MONITOR_ADDRESS", CONFIG_ADDRESS, AT(monitor_address),
		.def = "127.0.0.1:8084",
		.help = "HTTP listener with /healthz, /readyz, /metrics, /slowlog and /hotkeys; empty: "
			"none"},
	{NULL, "REMOTE_USERNAME", CONFIG_STRING, AT(remote_username),
		.help = "user of clients that have not said AUTH; empty: the default user"},
	{NULL, "REMOTE_PASSWORD", CONFIG_SECRET, AT(remote_password),
		.help = "password of clients that have not said AUTH, and of health checks"},

	{"reader-routing", "READER_ROUTING", CONFIG_BOOL, AT(reader_routing), .def = "false",
		.section = "Reads", .help = "send reads to the reader"},
	{"reader-remote-address", "READER_REMOTE_ADDRESS", CONFIG_ADDRESS, AT(reader_address),
		.help = "the replica that serves reads; empty: the writer"},
	{"zone-cidrs", "REDISPROXY_ZONE_CIDRS", CONFIG_STRING, AT(zone_cidrs),
		.help = "networks of the zones, as 10.0.0.0/16, separated by commas: a replica in the "
			"network of --own-ip is preferred"},
	{"own-ip", "POD_IP", CONFIG_STRING, AT(own_ip),
		.help = "the own address, which says what the own zone is"},
	{"read-your-writes", "REDISPROXY_READ_YOUR_WRITES", CONFIG_MS, AT(read_your_writes_ms),
		.def = "1s", .min = 0, .max = 3600000,
		.help = "a connection that wrote reads from the writer for so long"},

	{"shared-connections", "REDISPROXY_SHARED_CONNECTIONS", CONFIG_INT, AT(shared_connections),
		.def = "2", .min = 1, .max = CONF_MAX_SHARED, .section = "Connections to Redis",
		.help = "connections that all ordinary clients of a pool share; a pool is one server, "
			"user, database and RESP version"},
	{"max-connections", "MAX_CONNECTIONS", CONFIG_INT, AT(max_connections), .def = "2147483647",
		.min = 1, .max = 2147483647,
		.help = "connections to one server, those of clients in MULTI, blocking commands or "
			"subscriptions included"},
	{"max-idle-connections", "MAX_IDLE_CONNECTIONS", CONFIG_INT, AT(max_idle), .def = "0",
		.min = 0, .max = 10000,
		.help = "connections kept for the next MULTI or blocking command, for each pool; 0: 16"},
	{"min-idle-connections", "MIN_IDLE_CONNECTIONS", CONFIG_INT, AT(min_idle), .def = "0",
		.min = 0, .max = 1000,
		.help = "of these, how many are never closed for being idle"},
	{"max-idle-time", "MAX_IDLE_TIME", CONFIG_MS, AT(max_idle_time_ms), .def = "0", .min = 0,
		.help = "an idle connection is closed after; 0: never"},
	{"max-lifetime", "MAX_LIFETIME", CONFIG_MS, AT(max_lifetime_ms), .def = "0", .min = 0,
		.help = "a connection is replaced after, when it has nothing to do; 0: never"},
	{"jitter-percentage", "JITTER_PERCENTAGE", CONFIG_DOUBLE, AT(jitter), .def = "0.1",
		.min = 0, .max = 1, .help = "share by which these times vary, both ways"},
	{"pool-strategy", "REDISPROXY_POOL_STRATEGY", CONFIG_CHOICE, AT(strategy), .def = "fifo",
		.choices = "fifo|lifo", .help = "which idle connection is taken first"},
	{"scripts-apart", "REDISPROXY_SCRIPTS_APART", CONFIG_BOOL, AT(scripts_apart), .def = "true",
		.help = "EVAL and FCALL run on a connection of the client's own, so that nobody waits "
			"behind a script that does not end"},
	{"max-pools", "REDISPROXY_MAX_POOLS", CONFIG_INT, AT(max_pools), .def = "256", .min = 4,
		.max = 65536, .help = "pools at a time; clients that need one more get an error"},

	{"tls", "REDISPROXY_TLS", CONFIG_BOOL, AT(tls), .def = "false",
		.section = "TLS to Redis and sentinels", .help = "use TLS, but for Unix sockets"},
	{"tls-ca-file", "REDISPROXY_TLS_CA_FILE", CONFIG_PATH, AT(tls_ca_file),
		.help = "certificates that are trusted (PEM); empty: the system's"},
	{"tls-cert-file", "REDISPROXY_TLS_CERT_FILE", CONFIG_PATH, AT(tls_cert_file),
		.help = "the own certificate with its chain (PEM); empty: none"},
	{"tls-key-file", "REDISPROXY_TLS_KEY_FILE", CONFIG_PATH, AT(tls_key_file),
		.help = "its key (PEM); empty: in the same file"},
	{"tls-server-name", "REDISPROXY_TLS_SERVER_NAME", CONFIG_STRING, AT(tls_server_name),
		.help = "the name that servers' certificates must have; empty: what was connected to"},
	{"tls-verify", "REDISPROXY_TLS_VERIFY", CONFIG_BOOL, AT(tls_verify), .def = "true",
		.help = "check the certificates of servers"},

	{"connect-timeout", "CONNECT_TIMEOUT", CONFIG_MS, AT(connect_timeout_ms), .def = "10s",
		.min = 10, .max = 600000, .section = "Times", .help = "time to connect and log in"},
	{"upstream-wait", "REDISPROXY_UPSTREAM_WAIT", CONFIG_MS, AT(wait_ms), .def = "1s", .min = 0,
		.max = 600000,
		.help = "how long a command waits for a connection before it is answered with an "
			"error, and all that was read behind it too"},
	{"response-timeout", "REDISPROXY_RESPONSE_TIMEOUT", CONFIG_MS, AT(response_timeout_ms),
		.def = "30s", .min = 10,
		.help = "a shared connection that owes replies and is silent for so long is closed"},
	{"ping-interval", "REDISPROXY_PING_INTERVAL", CONFIG_MS, AT(ping_interval_ms), .def = "1s",
		.min = 10, .max = 600000,
		.help = "time between two health checks of a server, which also see whether a client that "
			"comes now must log in"},
	{"ping-timeout", "REDISPROXY_PING_TIMEOUT", CONFIG_MS, AT(ping_timeout_ms), .def = "2s",
		.min = 10, .max = 600000,
		.help = "a server silent for so long counts as down: what is under way on shared connections is "
			"answered with an error, and nothing is sent there"},

	{"topology-refresh", "REDISPROXY_TOPOLOGY_REFRESH", CONFIG_MS, AT(topology_refresh_ms),
		.def = "10s", .min = 100, .max = 3600000,
		.help = "time between two looks at who serves which slots; a redirection or a server "
			"that goes down leads to a look at once"},

	{"slowlog-threshold", "REDISPROXY_SLOWLOG_THRESHOLD", CONFIG_MS, AT(slowlog_threshold_ms),
		.def = "10ms", .min = 0, .max = 600000, .section = "Looking into it",
		.help = "commands that take longer are in the slow log (/slowlog of the monitor); 0: all"},
	{"slowlog-entries", "REDISPROXY_SLOWLOG_ENTRIES", CONFIG_INT, AT(slowlog_entries),
		.def = "128", .min = 0, .max = SLOWLOG_MAX,
		.help = "commands that the slow log keeps; 0: no slow log"},
	{"hot-keys", "REDISPROXY_HOT_KEYS", CONFIG_INT, AT(hot_keys), .def = "64", .min = 0,
		.max = HOTKEYS_MAX,
		.help = "counters for the report of the keys asked for most (/hotkeys of the monitor); "
			"0: no report"},
	{"show-keys", "REDISPROXY_SHOW_KEYS", CONFIG_BOOL, AT(show_keys), .def = "false",
		.help = "name keys in both (their first 64 bytes); else their hashes only"},

	{"max-clients", "REDISPROXY_MAX_CLIENTS", CONFIG_INT, AT(max_clients), .def = "16000",
		.min = 1, .max = 1000000, .section = "Limits",
		.help = "client connections; further ones wait in the kernel's queue"},
	{"max-in-flight", "REDISPROXY_MAX_IN_FLIGHT", CONFIG_INT, AT(max_in_flight), .def = "1024",
		.min = 1, .max = 1000000,
		.help = "commands of one client under way; further ones are not read"},
	{"client-output-limit", "REDISPROXY_CLIENT_OUTPUT_LIMIT", CONFIG_BYTES,
		AT(client_output_bytes), .def = "16MiB", .min = 4096,
		.help = "bytes of replies that wait for one client; one that is above must take 16 KiB "
			"each second, or is closed"},
	{"client-memory", "REDISPROXY_CLIENT_MEMORY", CONFIG_BYTES, AT(client_memory_bytes),
		.def = "256MiB", .min = 1 << 20,
		.help = "bytes of replies and of incomplete commands for all clients together: above, those "
			"that hold most are closed; above half, a connection waits for clients over "
			"--client-output-limit"},
	{"http-keepalive", "HTTP_KEEPALIVE", CONFIG_BOOL, AT(http_keepalive), .def = "true",
		.help = "accepted for compatibility; the monitor's connections are always kept alive"},
	{0},
};

static const char *check(const void *conf_)
{
	const struct redisproxy_conf *conf = conf_;

	if (!*conf->local_address)
		return "LOCAL_ADDRESS must not be empty";
	if (!*conf->remote_address)
		return "REMOTE_ADDRESS must not be empty";
	if (*conf->remote_username && !*conf->remote_password)
		return "REMOTE_USERNAME needs REMOTE_PASSWORD";
	static char error[512];
	struct zone zone;

	if (conf->mode == CONF_SENTINEL && !*conf->sentinel_addresses)
		return "REDISPROXY_MODE=sentinel needs REDISPROXY_SENTINEL_ADDRESSES";
	if (conf->mode == CONF_SENTINEL && strchr(conf->sentinel_addresses, '/'))
		return "REDISPROXY_SENTINEL_ADDRESSES: host:port, separated by commas; a path or a "
		       "URL is none";
	if (conf->mode == CONF_SENTINEL && !*conf->sentinel_master)
		return "REDISPROXY_SENTINEL_MASTER must not be empty";
	if (*conf->sentinel_username && !*conf->sentinel_password)
		return "REDISPROXY_SENTINEL_USERNAME needs REDISPROXY_SENTINEL_PASSWORD";
	if (*conf->tls_key_file && !*conf->tls_cert_file)
		return "REDISPROXY_TLS_KEY_FILE needs REDISPROXY_TLS_CERT_FILE";
	if (conf->tls) {
		struct tls *tls = tls_new(conf, error, sizeof error);

		if (!tls)
			return error;
		tls_free(&tls);
	}
	if (zone_init(&zone, conf->zone_cidrs, conf->own_ip, error, sizeof error) < 0)
		return error;
	return NULL;
}

const struct daemon_spec redisproxy_spec = {
	.name = "redisproxy",
	.summary = "the Redis sidecar: many clients on few connections, reads to the replica",
	.env_prefix = "REDISPROXY_",
	.rows = rows,
	.conf_size = sizeof(struct redisproxy_conf),
	.check = check,
	.families = stats_families,
	.part_families = (const struct metric_family *const[]){http_server_families, NULL},
};
