#include <malloc.h>
#include <stdio.h>
#include <sysexits.h>

#include "common/daemon.h"
#include "common/http_client.h"
#include "exportermerger/check.h"
#include "exportermerger/conf.h"
#include "exportermerger/front.h"
#include "exportermerger/stats.h"
#include "exportermerger/target.h"

/* Pages come and go: what is large is given back to the system at once, the rest stays for the
 * next. */
#define LARGE_BYTES (256 << 10)
#define KEPT_BYTES  (1 << 20)

struct parts {
	struct daemon *daemon;
	struct merger_conf conf;
	struct targets *targets;
	struct stats *stats;
	struct http_client *client;
	struct front *front;
};

static struct targets *read_targets(const struct parts *p, struct target_error *error)
{
	return targets_read(p->conf.urls, p->conf.urls_file, p->conf.common.run_dir, error);
}

static void on_reload(void *arg)
{
	struct parts *p = arg;
	struct target_error error;
	struct targets *targets = read_targets(p, &error);

	stats_reload(p->stats, targets != NULL);
	if (!targets) {
		log_error("targets stay as they were: %s", error.text);
		return;
	}
	targets_unref(&p->targets);
	p->targets = targets;
	stats_keep(p->stats, targets);
	log_info("%zu targets", targets->count);
}

static void on_front_drained(void *arg)
{
	struct parts *p = arg;

	daemon_drained(p->daemon);
}

static void on_drain(void *arg)
{
	struct parts *p = arg;

	front_drain(p->front, on_front_drained, p);
}

static void describe_open(char *text, size_t size, void *arg)
{
	struct parts *p = arg;

	snprintf(text, size, "%zu connections", front_connections(p->front));
}

int main(int argc, char **argv)
{
	static const struct daemon_events events = {
		.on_reload = on_reload, .on_drain = on_drain, .describe_open = describe_open};
	struct parts p = {0};
	struct target_error error;

	if (check_wanted(argc, argv))
		return check_run(argc, argv);
	mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
	mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
	p.daemon = daemon_start(&merger_spec, &p.conf, argc, argv);
	p.targets = read_targets(&p, &error);
	if (!p.targets)
		die(EX_CONFIG, "MERGER_URLS: %s", error.text);
	p.stats = stats_new(daemon_metrics(p.daemon));
	p.client = http_client_new(daemon_loop(p.daemon), &http_client_defaults);
	if (!p.stats || !p.client)
		die(EX_OSERR, "out of memory");
	stats_keep(p.stats, p.targets);
	p.front = front_new(&(struct front_parts){
		.daemon = p.daemon,
		.conf = &p.conf,
		.stats = p.stats,
		.client = p.client,
		.targets = &p.targets,
	});
	if (!p.front || !daemon_serve_rpc(p.daemon, NULL))
		die(EX_OSERR, "cannot serve");
	daemon_set_events(p.daemon, &events, &p);

	int code = daemon_run(p.daemon);

	front_free(&p.front);
	http_client_free(&p.client);
	stats_free(&p.stats);
	targets_unref(&p.targets);
	daemon_stop(&p.daemon);
	return code;
}
