#include "hashd/conf.h"

#include <stddef.h>

#include "hashd/observe.h"

#define AT(field)      offsetof(struct hashd_conf, field)
#define AT_OTLP(field) AT(otlp.field)

static const struct config_row rows[] = {
	{"host", "HOST", CONFIG_STRING, AT(host), .def = "127.0.0.1", .section = "Front door",
		.help = "address of the HTTP listener"},
	{"port", "PORT", CONFIG_INT, AT(port), .def = "8080", .min = 0, .max = 65535,
		.help = "port of the HTTP listener"},
	{"listen", "HASHD_LISTEN", CONFIG_ADDRESS, AT(listen),
		.help = "host:port or socket path of the HTTP listener, instead of HOST and PORT"},
	{"enable-path-hash", "HASHD_PATH_HASH", CONFIG_BOOL, AT(path_hash), .def = "false",
		.help = "send x-path-hash, the SHA-256 of the path, to gatewayd"},
	{"enable-url-hash", "HASHD_URL_HASH", CONFIG_BOOL, AT(url_hash), .def = "false",
		.help = "send x-url-hash, the SHA-256 of host, path and query, to gatewayd"},
	{"access-log-sample", "HASHD_ACCESS_LOG_SAMPLE", CONFIG_DOUBLE, AT(access_log_sample),
		.def = "1", .min = 0, .max = 1, .reloadable = true,
		.help = "share of requests in the access log; 5xx are always there"},

	{"gatewayd-instances", "GATEWAYD_INSTANCES", CONFIG_INT, AT(instances), .def = "1",
		.min = 1, .max = HASHD_MAX_BACKENDS, .section = "Routing",
		.help = "number of gatewayd instances: RUN_DIR/gatewayd.0.sock and so on"},
	{"backends", "HASHD_BACKENDS", CONFIG_STRING, AT(backends),
		.help = "socket paths of the gatewayd instances, comma-separated, instead of "
			"GATEWAYD_INSTANCES"},
	{"first-byte-timeout", "HASHD_FIRST_BYTE_TIMEOUT", CONFIG_MS, AT(first_byte_ms),
		.def = "200ms", .min = 1, .max = 60000,
		.help = "a gatewayd that is silent for so long after connecting counts as dead"},
	{"ping-interval", "HASHD_PING_INTERVAL", CONFIG_MS, AT(ping_interval_ms), .def = "1s",
		.min = 10, .max = 60000, .help = "time between two health checks of a gatewayd"},
	{"ping-timeout", "HASHD_PING_TIMEOUT", CONFIG_MS, AT(ping_timeout_ms), .def = "1s",
		.min = 10, .max = 60000,
		.help = "a gatewayd that says nothing for so long after a health check gets no new "
			"requests; after twice that, its requests go elsewhere"},
	{"backend-wait", "HASHD_BACKEND_WAIT", CONFIG_MS, AT(backend_wait_ms), .def = "1s",
		.min = 0, .max = 60000,
		.help = "how long a request waits for a gatewayd to come up before it is answered "
			"503"},
	{"request-timeout", "HASHD_REQUEST_TIMEOUT", CONFIG_MS, AT(request_timeout_ms),
		.def = "120s", .min = 10, .max = 3600000,
		.help = "deadline of a request, from its last byte to the end of its answer; 504"},

	{"max-body", "MAX_BODY", CONFIG_BYTES, AT(max_body_bytes), .def = "32MiB", .min = 1024,
		.max = 1 << 30, .section = "Limits", .help = "largest request body; 413 above"},
	{"body-budget", "HASHD_BODY_BUDGET", CONFIG_BYTES, AT(body_budget_bytes), .def = "256MiB",
		.min = 1024,
		.help = "bytes of request bodies in memory, beyond the first 16 KiB of each; above, "
			"the newest clients are read no further"},
	{"rpc-body-budget", "HASHD_RPC_BODY_BUDGET", CONFIG_BYTES, AT(rpc_body_budget_bytes),
		.def = "64MiB", .min = 1024, .help = "the same for bodies that come over RPC"},
	{"max-head", "HASHD_MAX_HEAD", CONFIG_BYTES, AT(max_head_bytes), .def = "64KiB",
		.min = 1024, .max = 512 << 10,
		.help = "largest request line and header fields together; 431 above"},
	{"max-connections", "HASHD_MAX_CONNECTIONS", CONFIG_INT, AT(max_connections),
		.def = "10000", .min = 1, .max = 1000000,
		.help = "open client connections; further ones wait in the kernel's queue"},
	{"idle-timeout", "HASHD_IDLE_TIMEOUT", CONFIG_MS, AT(idle_timeout_ms), .def = "75s",
		.min = 10, .help = "an idle keep-alive connection is closed after"},
	{"header-timeout", "HASHD_HEADER_TIMEOUT", CONFIG_MS, AT(header_timeout_ms), .def = "10s",
		.min = 10, .help = "time for a request head, from its first byte; 408"},
	{"body-timeout", "HASHD_BODY_TIMEOUT", CONFIG_MS, AT(body_timeout_ms), .def = "30s",
		.min = 10,
		.help = "time between two reads of a request body; 408. While others wait for room, "
			"also the time for the largest body: who is slower than that is 408"},
	{"min-read-rate", "HASHD_MIN_READ_RATE", CONFIG_BYTES, AT(min_read_bytes_s), .def = "8KiB",
		.min = 0, .max = 1 << 30,
		.help = "bytes a second; a request body of which less comes on average in "
			"body-timeout is 408; 0: any rate will do"},
	{"write-timeout", "HASHD_WRITE_TIMEOUT", CONFIG_MS, AT(write_timeout_ms), .def = "60s",
		.min = 10,
		.help = "a client that takes no byte of its answer for so long is reset"},
	{"min-write-rate", "HASHD_MIN_WRITE_RATE", CONFIG_BYTES, AT(min_write_bytes_s),
		.def = "8KiB", .min = 0, .max = 1 << 30,
		.help = "bytes a second; a client that keeps an answer waiting and takes less on "
			"average is reset after write-timeout; 0: any rate will do"},

	OTLP_CONFIG_ROWS(AT_OTLP),
	{0},
};

static const char *check(const void *conf_)
{
	const struct hashd_conf *conf = conf_;

	/* One body must fit, or nothing would ever be read to its end. */
	if (conf->body_budget_bytes < conf->max_body_bytes)
		return "HASHD_BODY_BUDGET must not be below MAX_BODY";
	return otlp_conf_check(&conf->otlp);
}

const struct daemon_spec hashd_spec = {
	.name = "hashd",
	.summary = "the front door: hashes request bodies and routes by hash to gatewayd",
	.env_prefix = "HASHD_",
	.rows = rows,
	.conf_size = sizeof(struct hashd_conf),
	.check = check,
	.families = observe_families,
	.part_families = (const struct metric_family *const[]){otlp_families, NULL},
};
