#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "broadcasterd/broadcast.h"
#include "broadcasterd/conf.h"
#include "broadcasterd/delivery.h"
#include "broadcasterd/discovery.h"
#include "broadcasterd/front.h"
#include "broadcasterd/local.h"
#include "broadcasterd/redelivery.h"
#include "broadcasterd/target.h"
#include "common/daemon.h"
#include "common/http_client.h"
#include "common/otlp.h"

struct parts {
	struct daemon *daemon;
	struct broadcaster_conf conf;
	struct targets *targets;
	struct discovery *discovery;
	struct http_client *client;
	struct deliveries *deliveries, *deliveries_again;
	struct redelivery *redelivery;
	struct broadcasts *broadcasts;
	struct local *local;
	struct rpc_server *rpc;
	struct front *front;
	struct otlp *otlp;
};

static void on_flushed(void *arg)
{
	struct parts *p = arg;

	daemon_drained(p->daemon);
}

static void on_rpc_drained(void *arg)
{
	struct parts *p = arg;

	otlp_flush(p->otlp, on_flushed, p);
}

static void on_purges_done(void *arg)
{
	struct parts *p = arg;

	rpc_server_drain(p->rpc, on_rpc_drained, p);
}

static void on_front_drained(void *arg)
{
	struct parts *p = arg;

	broadcasts_drain(p->broadcasts, on_purges_done, p);
}

static void on_drain(void *arg)
{
	struct parts *p = arg;

	front_drain(p->front, on_front_drained, p);
}

static void describe_open(char *text, size_t size, void *arg)
{
	struct parts *p = arg;

	snprintf(text, size, "%zu connections, %zu purges, %zu pending",
		front_connections(p->front), broadcasts_count(p->broadcasts),
		redelivery_pending(p->redelivery));
}

/* NULL: none. */
static const char *journal_path(const struct broadcaster_conf *conf, char *path, size_t size)
{
	if (strcmp(conf->journal, "none") == 0)
		return NULL;
	if (conf->journal[0])
		return conf->journal;
	snprintf(path, size, "%s/broadcasterd.journal", conf->common.run_dir);
	return path;
}

/* What delivers, from whom to tell to telling again. */
static void make_parts(struct parts *p)
{
	struct loop *loop = daemon_loop(p->daemon);
	struct metrics *metrics = daemon_metrics(p->daemon);
	struct http_client_options http = http_client_defaults;
	char path[PATH_MAX];

	p->targets = targets_new();
	p->discovery = p->targets ? discovery_new(loop, &p->conf, p->targets, metrics) : NULL;
	/* Both kinds of deliveries at once. */
	http.max_connections = http.max_connections_host = 2 * (size_t)p->conf.concurrency;
	p->client = http_client_new(loop, &http);
	p->deliveries = deliveries_new(loop, &p->conf, p->discovery, p->client);
	p->deliveries_again = deliveries_new(loop, &p->conf, p->discovery, p->client);
	if (!p->discovery || !p->client || !p->deliveries || !p->deliveries_again)
		die(EX_OSERR, "out of memory");
	p->redelivery = redelivery_new(&(struct redelivery_parts){
		.loop = loop,
		.conf = &p->conf,
		.metrics = metrics,
		.targets = p->targets,
		.discovery = p->discovery,
		.deliveries = p->deliveries_again,
		.journal = journal_path(&p->conf, path, sizeof path),
	});
	p->broadcasts = broadcasts_new(&(struct broadcast_parts){
		.loop = loop,
		.conf = &p->conf,
		.metrics = metrics,
		.discovery = p->discovery,
		.deliveries = p->deliveries,
		.redelivery = p->redelivery,
	});
	p->local = local_new(&(struct local_parts){
		.daemon = p->daemon, .conf = &p->conf, .broadcasts = p->broadcasts});
	if (!p->redelivery || !p->broadcasts || !p->local)
		die(EX_OSERR, "out of memory");
}

int main(int argc, char **argv)
{
	static const struct daemon_events events = {
		.on_drain = on_drain, .describe_open = describe_open};
	struct parts p = {0};

	p.daemon = daemon_start(&broadcaster_spec, &p.conf, argc, argv);
	p.otlp = otlp_new(p.daemon, &p.conf.otlp);
	if (!p.otlp)
		die(EX_OSERR, "out of memory");
	make_parts(&p);
	p.front = front_new(&(struct front_parts){
		.daemon = p.daemon, .conf = &p.conf, .broadcasts = p.broadcasts});
	p.rpc = daemon_serve_rpc(p.daemon, local_methods(p.local));
	if (!p.front || !p.rpc)
		die(EX_OSERR, "cannot serve");
	daemon_set_events(p.daemon, &events, &p);

	int code = daemon_run(p.daemon);

	front_free(&p.front);
	daemon_close_rpc(p.daemon);
	broadcasts_free(&p.broadcasts);
	redelivery_free(&p.redelivery);
	deliveries_free(&p.deliveries_again);
	deliveries_free(&p.deliveries);
	http_client_free(&p.client);
	discovery_free(&p.discovery);
	targets_free(&p.targets);
	otlp_free(&p.otlp);
	daemon_stop(&p.daemon);
	local_free(&p.local);
	return code;
}
