#include <stdio.h>
#include <sysexits.h>

#include "broadcasterd/broadcast.h"
#include "broadcasterd/conf.h"
#include "broadcasterd/delivery.h"
#include "broadcasterd/discovery.h"
#include "broadcasterd/front.h"
#include "broadcasterd/local.h"
#include "broadcasterd/target.h"
#include "common/daemon.h"

struct parts {
	struct daemon *daemon;
	struct broadcaster_conf conf;
	struct targets *targets;
	struct discovery *discovery;
	struct deliveries *deliveries;
	struct broadcasts *broadcasts;
	struct local *local;
	struct rpc_server *rpc;
	struct front *front;
};

static void on_rpc_drained(void *arg)
{
	struct parts *p = arg;

	daemon_drained(p->daemon);
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

	snprintf(text, size, "%zu connections, %zu purges", front_connections(p->front),
		broadcasts_count(p->broadcasts));
}

int main(int argc, char **argv)
{
	static const struct daemon_events events = {
		.on_drain = on_drain, .describe_open = describe_open};
	struct parts p = {0};

	p.daemon = daemon_start(&broadcaster_spec, &p.conf, argc, argv);
	struct loop *loop = daemon_loop(p.daemon);
	struct metrics *metrics = daemon_metrics(p.daemon);

	p.targets = targets_new();
	p.discovery = p.targets ? discovery_new(loop, &p.conf, p.targets, metrics) : NULL;
	p.deliveries = deliveries_new(loop, &p.conf, p.discovery, (size_t)p.conf.concurrency);
	p.broadcasts = broadcasts_new(&(struct broadcast_parts){
		.loop = loop,
		.conf = &p.conf,
		.metrics = metrics,
		.discovery = p.discovery,
		.deliveries = p.deliveries,
	});
	p.local = local_new(&(struct local_parts){
		.daemon = p.daemon, .conf = &p.conf, .broadcasts = p.broadcasts});
	if (!p.discovery || !p.deliveries || !p.broadcasts || !p.local)
		die(EX_OSERR, "out of memory");
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
	deliveries_free(&p.deliveries);
	discovery_free(&p.discovery);
	targets_free(&p.targets);
	daemon_stop(&p.daemon);
	local_free(&p.local);
	return code;
}
