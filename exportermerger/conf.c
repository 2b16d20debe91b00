#include "exportermerger/conf.h"

#include <stddef.h>

#include "common/http_server.h"

#include "exportermerger/stats.h"

#define AT(field) offsetof(struct merger_conf, field)

static const struct config_row rows[] = {
	{"port", "MERGER_PORT", CONFIG_INT, AT(port), .def = "8083", .min = 0, .max = 65535,
		.section = "Page", .help = "port of the HTTP listener, on 127.0.0.1"},
	{"listen", "EXPORTERMERGER_LISTEN", CONFIG_ADDRESS, AT(listen),
		.help = "host:port or socket path of the HTTP listener, instead of MERGER_PORT"},
	{"max-scrapes", "MERGER_MAX_SCRAPES", CONFIG_INT, AT(max_scrapes), .def = "4", .min = 1,
		.max = 64, .reloadable = true,
		.help = "pages collected at once; further requests get 503"},
	{"scrape-timeout", "MERGER_SCRAPE_TIMEOUT", CONFIG_MS, AT(scrape_timeout_ms), .def = "10s",
		.min = 10, .max = 600000, .reloadable = true,
		.help = "time for a page when the reader does not tell its own "
			"(X-Prometheus-Scrape-Timeout-Seconds)"},

	{"urls", "MERGER_URLS", CONFIG_STRING, AT(urls), .section = "Targets",
		.help = "whom to ask, space-separated: http://host:port/metrics or unix:SOCKET (with "
			"one * in its last part: all that are there), each with #prefix=p_&label=value if wanted"},
	{"urls-file", "MERGER_URLS_FILE", CONFIG_PATH, AT(urls_file), .reloadable = true,
		.help = "a file with more of them, read again on SIGHUP"},
	{"target-timeout", "MERGER_TARGET_TIMEOUT", CONFIG_MS, AT(target_timeout_ms), .def = "5s",
		.min = 10, .max = 600000, .reloadable = true,
		.help = "a target that takes longer is left out"},
	{"max-body", "MERGER_MAX_BODY", CONFIG_BYTES, AT(max_body_bytes), .def = "16MiB",
		.min = 1024, .max = 512 << 20, .reloadable = true,
		.help = "a target whose page is larger is left out"},
	{0},
};

const struct daemon_spec merger_spec = {
	.name = "exportermerger",
	.summary = "merges the metrics of many targets into one page",
	.env_prefix = "EXPORTERMERGER_",
	.rows = rows,
	.conf_size = sizeof(struct merger_conf),
	.families = stats_families,
	.part_families = (const struct metric_family *const[]){http_server_families, NULL},
};
