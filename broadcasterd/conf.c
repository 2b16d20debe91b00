#include "broadcasterd/conf.h"

#include <stddef.h>

#include "common/http_server.h"

#include "broadcasterd/stats.h"

#define AT(field)      offsetof(struct broadcaster_conf, field)
#define AT_OTLP(field) AT(otlp.field)

static const struct config_row rows[] = {
	{"listen", "BROADCASTERD_LISTEN", CONFIG_ADDRESS, AT(listen), .def = "127.0.0.1:8082",
		.section = "Purges", .help = "host:port or socket path of the HTTP listener"},
	{NULL, "BROADCASTERD_TOKEN", CONFIG_SECRET, AT(token), .reloadable = true,
		.help = "who purges here must show it (Authorization: Bearer); unset: HTTP is open, "
			"RPC is for root and the own user"},
	{"max-purges", "BROADCASTERD_MAX_PURGES", CONFIG_INT, AT(max_purges), .def = "256",
		.min = 1, .max = 65536, .help = "purges under way at once; further ones get 503"},

	{"target-service", "TARGET_SERVICE", CONFIG_STRING, AT(service), .section = "Targets",
		.help = "name of the headless service: every address that DNS has for it is purged"},
	{"target-port", "TARGET_PORT", CONFIG_INT, AT(port), .def = "8100", .min = 1, .max = 65535,
		.help = "port of gatewayd at those addresses"},
	{"targets", "BROADCASTERD_TARGETS", CONFIG_STRING, AT(targets),
		.help = "further targets, host:port, space-separated"},
	{"local", "BROADCASTERD_LOCAL", CONFIG_BOOL, AT(local), .def = "true",
		.help = "purge the gatewayd sockets in RUN_DIR too"},
	{"resolve-timeout", "BROADCASTERD_RESOLVE_TIMEOUT", CONFIG_MS, AT(resolve_timeout_ms),
		.def = "2s", .min = 10, .max = 60000,
		.help = "no answer of DNS by then: the purge fails with 502"},
	{"max-targets", "BROADCASTERD_MAX_TARGETS", CONFIG_INT, AT(max_targets), .def = "1024",
		.min = 1, .max = 4096,
		.help = "a service with more addresses: the purge fails with 502"},

	{NULL, "PURGE_TOKEN", CONFIG_SECRET, AT(purge_token), .section = "Delivery",
		.reloadable = true, .help = "the purge token of gatewayd, sent to every target"},
	{"connect-timeout", "BROADCASTERD_CONNECT_TIMEOUT", CONFIG_MS, AT(connect_timeout_ms),
		.def = "1s", .min = 10, .max = 60000,
		.help = "time for a target to take a connection"},
	{"timeout", "BROADCASTERD_TIMEOUT", CONFIG_MS, AT(timeout_ms), .def = "5s", .min = 10,
		.max = 600000, .help = "time for a target to answer, connecting included"},
	{"concurrency", "BROADCASTERD_CONCURRENCY", CONFIG_INT, AT(concurrency), .def = "64",
		.min = 1, .max = 1024,
		.help = "targets asked at the same time, by all purges together"},

	{"journal", "BROADCASTERD_JOURNAL", CONFIG_PATH, AT(journal), .section = "Redelivery",
		.help = "file of purges that targets still have to be told; default: "
			"broadcasterd.journal in RUN_DIR; none: in memory only"},
	{"retry-interval", "BROADCASTERD_RETRY_INTERVAL", CONFIG_MS, AT(retry_ms), .def = "300ms",
		.min = 10, .max = 500,
		.help = "longest pause between two attempts at a target, and longest wait for a "
			"connection"},
	{"max-pending", "BROADCASTERD_MAX_PENDING", CONFIG_INT, AT(max_pending), .def = "256",
		.min = 1, .max = 65536,
		.help = "purges kept for one target; above, all of its memory is purged instead"},
	{"max-pending-memory", "BROADCASTERD_MAX_PENDING_MEMORY", CONFIG_BYTES,
		AT(max_pending_bytes), .def = "4MiB", .min = 65536, .max = 1 << 28,
		.help = "the same for all targets together"},

	OTLP_CONFIG_ROWS(AT_OTLP),
	{0},
};

/* What config_row cannot say. */
static const char *check(const void *conf_)
{
	const struct broadcaster_conf *conf = conf_;
	if (conf->timeout_ms < conf->connect_timeout_ms)
		return "BROADCASTERD_TIMEOUT is shorter than BROADCASTERD_CONNECT_TIMEOUT";
	if (conf->service[0] && strcspn(conf->service, " \t/:@?#") != strlen(conf->service))
		return "TARGET_SERVICE is the name of a host, without scheme and port";
	for (const char *at = conf->targets; *at;) {
		size_t len = strcspn(at, " \t\n,");
		if (len && (!memchr(at, ':', len) || memchr(at, '/', len) || memchr(at, '@', len) ||
				   len > 255))
			return "BROADCASTERD_TARGETS has an entry that is not host:port";
		at += len + (at[len] != '\0');
	}
	return otlp_conf_check(&conf->otlp);
}

const struct daemon_spec broadcaster_spec = {
	.name = "broadcasterd",
	.summary = "sends a purge to every gatewayd, and tells those again that did not take it",
	.env_prefix = "BROADCASTERD_",
	.rows = rows,
	.conf_size = sizeof(struct broadcaster_conf),
	.check = check,
	.families = stats_families,
	.part_families = (const struct metric_family *const[]){http_server_families, otlp_families,
		NULL},
};
