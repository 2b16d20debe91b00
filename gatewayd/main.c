/* gatewayd: the caching proxy for embeddings. Wiring only; see README.md for the map of this
 * directory. */
#include "common/daemon.h"
#include "common/http_server.h"
#include "gatewayd/conf.h"
#include "gatewayd/parts.h"
#include "gatewayd/stats.h"

static const struct daemon_spec spec = {
	.name = "gatewayd",
	.summary = "Caching proxy for OpenAI-compatible embedding APIs: every text is bought once.",
	.env_prefix = "GATEWAYD_",
	.rows = gatewayd_conf_rows,
	.conf_size = sizeof(struct gatewayd_conf),
	.check = gatewayd_conf_check,
	.instance_name = gatewayd_conf_instance_name,
	.families = gatewayd_families,
	.part_families = (const struct metric_family *const[]){http_server_families, otlp_families,
		NULL},
};

int main(int argc, char **argv)
{
	static const struct daemon_events events = {
		.on_reload = parts_reload, .on_drain = parts_drain};
	struct gatewayd_conf conf;
	struct daemon *daemon = daemon_start(&spec, &conf, argc, argv);
	struct parts *parts = parts_new(daemon, &conf);
	daemon_set_events(daemon, &events, parts);
	int code = daemon_run(daemon);
	parts_free(&parts);
	daemon_stop(&daemon);
	return code;
}
